"""The whole way through the command line, on the generated scene."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from geocrodino.bundle.io import load_bundle
from geocrodino.settings.town import CLASSES

Run = Callable[..., str]


@pytest.fixture
def run(run_cli, tmp_path, monkeypatch) -> Run:
    """Run a command that must succeed without a word on standard error."""
    monkeypatch.chdir(tmp_path)

    def succeed(*words: object) -> str:
        code, out, err = run_cli(*words)
        assert (code, err) == (0, ""), err
        return out

    return succeed


def settle(folder: Path, **settings: object) -> None:
    """Add settings to the project file that `sample` wrote."""
    path = folder / "geocrodino.yaml"
    content = yaml.safe_load(path.read_text()) | settings
    path.write_text(yaml.safe_dump(content))


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 1000


def require_map_of(path: Path, scene: Path, modality: str, sha256: str) -> None:
    with rasterio.open(path) as made, rasterio.open(scene) as source:
        assert (made.crs, made.transform, made.shape) == (source.crs, source.transform, source.shape)
        assert (made.count, made.dtypes, made.nodata) == (1, ("uint8",), 255)
        assert made.tags()["BUNDLE_SHA256"] == sha256
        assert made.tags()["MODALITY"] == modality
        assert made.tags()["SCENE"] == scene.name
        values = made.read(1)
        valid = source.dataset_mask() > 0
    assert set(np.unique(values)) <= {*CLASSES.values, 255}
    assert ((values != 255) == valid).mean() > 0.99


def test_from_nothing_to_scores(run, tiny, tmp_path, monkeypatch):
    run("sample", "town", "--size-m", "160")
    town = tmp_path / "town"
    settle(town, **tiny)
    monkeypatch.chdir(town)

    assert run("inspect").endswith("These files fit together.\n")

    told = run("train")
    (folder,) = (town / "runs").iterdir()
    assert "Grid: 290 rows x 290 columns at 0.5 m, EPSG:32631" in told
    assert "Classes: ground, road, building, tree, water" in told
    assert [line.split()[1] for line in told.splitlines() if line.startswith("epoch ")] == ["1/2", "2/2"]
    bundle = load_bundle(folder / "bundle.safetensors")
    assert set(bundle.manifest.modalities) == {"optical", "elevation"}
    assert bundle.manifest.classes == CLASSES
    assert bundle.manifest.resolution_m == pytest.approx(0.5, rel=0.01)

    for scene, modality in (("optical.tif", "optical"), ("dsm.tif", "elevation")):
        told = run("predict", scene, "--modality", modality, "--preview", f"{modality}.png")
        assert told.startswith(
            f"Bundle: {Path('runs') / folder.name / 'bundle.safetensors'}, the newest under ./runs\n"
        )
        made = town / f"{Path(scene).stem}.classes.tif"
        require_map_of(made, town / scene, modality, bundle.sha256)
        assert is_png(town / f"{modality}.png")

    maps = ("optical.classes.tif", "dsm.classes.tif")
    run("evaluate", *maps, "--labels", "labels.tif", "--aoi", "aoi.geojson", "--split", "test", "--out", "scores")
    for name in ("optical.classes", "dsm.classes"):
        result = json.loads((town / "scores" / f"{name}.scores.json").read_text())
        assert (result["split"], result["map"]) == ("test", f"{name}.tif")
        assert 0 <= result["scores"]["mean_iou"] <= 1
        assert result["scores"]["pixels"] > 0
        assert is_png(town / "scores" / f"{name}.scores.png")
    assert is_png(town / "scores" / "comparison.png")
    assert not [p for p in town.rglob("*") if "part" in p.suffix or p.name.startswith(("best-", "."))]


@pytest.mark.slow
def test_a_rival_with_a_teacher_of_its_own(run, tiny, tmp_path, monkeypatch):
    run("sample", "town", "--size-m", "160")
    settle(tmp_path / "town", **tiny)
    monkeypatch.chdir(tmp_path / "town")
    told = run("train", "--method", "fusion", "--epochs", "1", "--out", "runs/teacher").splitlines()
    assert told[-3].startswith("epoch 1/1  loss ")
    assert " val mIoU fusion " in told[-3]
    assert told[-2].startswith("Best mIoU on val: fusion ")
    assert told[-1] == "No bundle: a fusion network needs both rasters at once. Other trainings can use it: --teacher."
    assert not list(Path("runs").rglob("bundle*"))
    told = run("train", "--method", "kd", "--teacher", "runs/teacher", "--epochs", "1", "--out", "runs/kd")
    assert "Training the teacher" not in told
    assert f"Bundle: {Path('runs/kd/bundle.safetensors')}\n" in told
    run("predict", "dsm.tif", "--modality", "elevation", "--out", "map.tif")
    sha256 = load_bundle("runs/kd/bundle.safetensors").sha256
    require_map_of(Path("map.tif"), Path("dsm.tif"), "elevation", sha256)
    told = run("train", "--method", "kd", "--epochs", "1", "--out", "runs/kd2")
    assert [line.split()[1] for line in told.splitlines() if line.startswith("epoch ")] == ["1/1", "1/1"]


def test_the_bundle_alone_predicts_elsewhere(run, trained, town, tmp_path):
    """Neither settings nor the training's files are needed."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "bundle.safetensors").write_bytes((trained / "bundle.safetensors").read_bytes())
    scene = tmp_path / "heights.tif"
    scene.write_bytes(town.elevation.read_bytes())
    run("predict", "heights.tif", "--modality", "elevation", "--workers", "1")
    sha256 = load_bundle(trained / "bundle.safetensors").sha256
    require_map_of(tmp_path / "heights.classes.tif", scene, "elevation", sha256)


def chance(labels: Path) -> float:
    """mIoU of the better of two maps made without looking: classes drawn evenly, or the commonest one everywhere."""
    with rasterio.open(labels) as dataset:
        values = dataset.read(1)
    share = np.bincount(values[values != 255], minlength=len(CLASSES)) / (values != 255).sum()
    hit = share / len(CLASSES)
    return max(float((hit / (share + 1 / len(CLASSES) - hit)).mean()), float(share.max()) / len(CLASSES))


@pytest.mark.slow
def test_both_branches_learn(run, tmp_path):
    run("sample", "town", "--size-m", "320")
    town = tmp_path / "town"
    network = {"encoder": "tu-resnet10t", "decoder": "fpn", "depth": 3, "invariant_channels": 32}
    start = {"encoder_weights": {}}  # random weights
    training = {"patch_px": 64, "epochs": 8, "steps_per_epoch": 25, "batch_size": 8, "accelerator": "cpu"}
    # The range of the default channels in a small training area need not be that of the whole scene: a warning.
    settle(town, **start, network=network, training=training, elevation={"channels": ["height_above_ground", "slope"]})
    run("train", "--config", "town/geocrodino.yaml", "--out", "runs/slow")
    for scene, modality in (("optical.tif", "optical"), ("dsm.tif", "elevation")):
        run("predict", town / scene, "--modality", modality, "--out", f"{modality}.tif")
        run(
            "evaluate",
            f"{modality}.tif",
            "--labels",
            town / "labels.tif",
            "--aoi",
            town / "aoi.geojson",
            "--split",
            "test",
        )
        scores = json.loads(Path(f"{modality}.scores.json").read_text())["scores"]
        assert scores["mean_iou"] > 2 * chance(town / "labels.tif"), modality
