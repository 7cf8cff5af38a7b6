"""ISPRS Potsdam by its preset: trained on small files with the true names and faults, on the command line."""

from __future__ import annotations

import warnings

import pytest
import yaml

from geocrodino.bundle.io import load_bundle
from geocrodino.settings.config import load_config
from tests.helpers.data_sets import write_nyu_file, write_potsdam


@pytest.fixture
def project(tmp_path, tiny):
    write_potsdam(tmp_path / "data")
    # The ground is estimated within small distances: at 5 cm, those of the default hold thousands of pixels.
    ground = {"channels": ["height_above_ground"], "ground": {"radii_m": [0.5, 1.0], "fill_m": 0.5}}
    sections = {**tiny, "elevation": ground, "training": {**tiny["training"], "epochs": 1}}
    # The section data and the classes of a configuration make way for those of the data set.
    others = {
        "data": {"optical": "a.tif", "aoi": "b.gpkg"},
        "classes": [{"value": 7, "name": "x"}, {"value": 8, "name": "y"}],
    }
    (tmp_path / "geocrodino.yaml").write_text(yaml.safe_dump({**sections, **others}))
    return tmp_path


@pytest.mark.slow
def test_potsdam_is_trained(project, run_cli):
    words = ("--config", project / "geocrodino.yaml", "--dataset", "potsdam", "--root", project / "data")
    code, told, errors = run_cli("train", *words, "--out", project / "run")
    assert code == 0, errors
    assert "Starting a training in" in told
    assert "scenes: 5" in told
    assert "top_potsdam_4_12_label.tif" in errors  # colours that are not exact are counted
    config = load_config(project / "run/config.yaml")
    splits = {scene.name: scene.split for scene in config.data.resolved()}
    assert splits == {"2_10": "train", "4_12": "train", "6_7": "train", "4_10": "val", "3_13": "test"}
    manifest = load_bundle(project / "run/bundle.safetensors").manifest
    assert manifest.classes.names == ("impervious surface", "building", "low vegetation", "tree", "car", "clutter")
    assert manifest.classes.classes[1].colour == "#0000ff"
    assert manifest.resolution_m == pytest.approx(0.05, rel=1e-3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = project / "data/2_Ortho_RGB/2_Ortho_RGB/top_potsdam_3_13_RGB.tif"
        words = ("--model", project / "run/bundle.safetensors", "--modality", "optical", "--crs", "EPSG:32633")
        code, _, errors = run_cli("predict", image, *words, "--out", project / "map.tif")
    assert code == 0, errors


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nyu_is_trained_from_its_matlab_file(tmp_path, tiny, run_cli):
    write_nyu_file(tmp_path / "data")
    settings = {**tiny, "training": {**tiny["training"], "epochs": 1}}
    (tmp_path / "geocrodino.yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if k != "elevation"}))
    words = ("--config", tmp_path / "geocrodino.yaml", "--dataset", "nyu-13", "--root", tmp_path / "data")
    code, told, errors = run_cli("train", *words, "--out", tmp_path / "run")
    assert code == 0, errors
    assert "Unpacking 15 rasters into " in told
    manifest = load_bundle(tmp_path / "run/bundle.safetensors").manifest
    assert len(manifest.classes) == 13
    assert manifest.modalities["elevation"].recipe.height.zero == "camera"
    for file, modality in (("RGB", "optical"), ("Depth", "elevation")):
        tile = tmp_path / f"data/geocrodino-unpacked/{file}/office_0002-0005.tif"
        words = ("--model", tmp_path / "run/bundle.safetensors", "--modality", modality, "--pixel-size", "0.01")
        code, _, errors = run_cli("predict", tile, *words, "--out", tmp_path / f"{modality}.tif")
        assert code == 0, errors
