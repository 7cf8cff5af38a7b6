"""Int8 networks of a finished run."""

from __future__ import annotations

import re
import shutil
import sys

import numpy as np
import pytest
import rasterio
import yaml
from helpers.int8 import needs_nncf

from geocrodino.bundle.io import load_bundle
from geocrodino.errors import BundleError, ConfigError
from geocrodino.prediction.engine import predict
from geocrodino.settings.prediction import Execution, Outputs, Tiling
from geocrodino.training import quantise as module
from geocrodino.training.quantise import quantise


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def quantised(trained, tmp_path_factory):
    """A run whose int8 networks are kept whatever they lose, and what was measured."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("int8") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_LOST_POINTS", 100)
        return folder, quantise(folder)


def test_the_program_names_the_extra_without_nncf(trained, run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    code, _, err = run_cli("quantise", trained)
    assert code == 2
    assert err.endswith('found no nncf.\nInstall them by pip install "geocrodino[int8]".\n')


@needs_nncf
def test_a_folder_without_a_bundle(tmp_path):
    with pytest.raises(BundleError) as error:
        quantise(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected the run folder of a finished training with bundle.safetensors, found none.\n"
        "Name the folder that `geocrodino train` wrote."
    )


@needs_nncf
def test_a_run_without_a_bundle_by_its_method(tmp_path):
    (tmp_path / "fusion.safetensors").touch()
    with pytest.raises(BundleError) as error:
        quantise(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected a run with bundle.safetensors, found one of the method fusion, which has none.\n"
        "Name a run of another method."
    )


@needs_nncf
def test_a_run_of_version_0_1_is_read_on_its_own_grid(run, monkeypatch):
    """Its settings name no grid; the grid was that of the image."""
    record = run / "config.yaml"
    settings = yaml.safe_load(record.read_text())
    assert settings["data"].pop("grid_of") == "image"
    record.write_text(yaml.safe_dump(settings))
    asked = []

    def prepare(config, *_):
        asked.append((config.data.resolution_m, config.data.grid_of))
        raise ConfigError("that is all")

    monkeypatch.setattr(module, "prepare", prepare)
    with pytest.raises(ConfigError, match="that is all"):
        quantise(run)
    assert asked == [(settings["data"]["resolution_m"], "image")]


@needs_nncf
def test_files_that_changed_since_the_training(run):
    record = run / "inputs.json"
    record.write_text(re.sub(r'("labels": ")..', r"\1zz", record.read_text()))
    with pytest.raises(ConfigError) as error:
        quantise(run)
    assert str(error.value) == (
        f"{run}: expected the files that the training read; changed since then: labels.\nRestore them, or train again."
    )


def test_a_run_of_version_0_1_is_read_on_the_grid_of_its_image(run, monkeypatch):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["resolution_m"] = None
    del settings["data"]["grid_of"]  # which a training of today would choose from the labels
    (run / "config.yaml").write_text(yaml.safe_dump(settings))

    def prepared(config, *_):
        raise RuntimeError(config.data.grid_of)

    monkeypatch.setattr(module, "require_nncf", lambda: None)
    monkeypatch.setattr(module, "prepare", prepared)
    with pytest.raises(RuntimeError, match=r"^image$"):
        quantise(run)


@needs_nncf
def test_a_network_that_loses_too_much_is_not_kept(run, monkeypatch):
    monkeypatch.setattr(module, "MOST_LOST_POINTS", -100)
    before, told = (run / "bundle.safetensors").read_bytes(), []
    result = quantise(run, tell=told.append)
    assert result.kept == ()
    assert (run / "bundle.safetensors").read_bytes() == before
    assert [line.partition(":")[0] for line in told] == ["optical", "elevation"]
    assert all(re.search(r"not kept: it loses -?\d+\.\d\d points, expected at most -100$", line) for line in told)


@needs_nncf
def test_the_bundle_holds_what_was_measured_and_the_same_branches(trained, quantised):
    run, result = quantised
    before, after = load_bundle(trained / "bundle.safetensors"), load_bundle(run / "bundle.safetensors")
    assert result.kept == ("optical", "elevation")
    assert after.manifest.int8 == result.measured
    assert after.manifest.model_copy(update={"int8": {}, "sha256": before.sha256}) == before.manifest
    for modality, facts in result.measured.items():
        assert facts.calibration_tiles >= 1
        weights = before.branch(modality).state_dict(), after.branch(modality).state_dict()
        assert all((weights[1][name] == value).all() for name, value in weights[0].items())


@needs_nncf
def test_a_map_does_not_depend_on_blocks_and_workers(quantised, town, tmp_path):
    """Each tile is computed by the same network from the same window."""
    bundle = quantised[0] / "bundle.safetensors"
    maps = []
    for number, (block_px, workers) in enumerate(((None, 1), (64, 2), (100, 3))):
        out = tmp_path / f"{number}.tif"
        summary = predict(
            town.optical,
            out,
            bundle,
            "optical",
            tiling=Tiling(core_px=64, block_px=block_px),
            execution=Execution(precision="int8", workers=workers),
        )
        assert summary.backend == "openvino"
        with rasterio.open(out) as file:
            maps.append(file.read(1))
            assert file.tags()["PRECISION"] == "int8"
    assert all(np.array_equal(maps[0], other) for other in maps[1:])


@needs_nncf
def test_an_interrupted_map_is_continued_in_int8(quantised, town, tmp_path):
    bundle, out = quantised[0] / "bundle.safetensors", tmp_path / "map.tif"
    options = {"tiling": Tiling(core_px=64), "execution": Execution(precision="int8", workers=1)}
    predict(town.optical, tmp_path / "whole.tif", bundle, "optical", **options)

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(town.optical, out, bundle, "optical", on_progress=stop, **options)
    summary = predict(town.optical, out, bundle, "optical", outputs=Outputs(resume=True), **options)
    assert summary.resumed >= 1
    assert out.read_bytes() == (tmp_path / "whole.tif").read_bytes()
