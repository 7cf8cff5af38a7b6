"""What a map needs, without a file being written."""

from __future__ import annotations

import pytest

from geocrodino.errors import OutputError
from geocrodino.prediction.dry_run import Trial, plan_map
from geocrodino.settings.prediction import Outputs, Tiling

TRIAL = Trial(second_px=1000.0, tile_bytes=2**30, tile_px=10**6, device="cpu")


def test_a_plan_by_hand(town, trained, tmp_path):
    plan, trial = plan_map(
        town.optical,
        tmp_path / "map.tif",
        trained / "bundle.safetensors",
        "optical",
        tiling=Tiling(core_px=64, stitch="exact"),
        trial=TRIAL,
    )
    assert trial is TRIAL
    assert not any(tmp_path.iterdir())
    height, width = 320, 320  # 160 m at 0.5 m
    assert f"{height} rows x {width} columns" in plan.scene
    assert plan.tiles == 25  # 5 x 5 of 64 px
    assert plan.map_bytes == height * width
    assert plan.seconds == pytest.approx(25 * plan.tile_shape[0] * plan.tile_shape[1] / 1000)
    assert plan.writes == (str(tmp_path / "map.tif"),)


def test_a_trial_is_measured(town, trained, tmp_path):
    plan, trial = plan_map(town.elevation, tmp_path / "map.tif", trained / "bundle.safetensors", "elevation")
    assert trial.second_px > 0
    assert trial.device == "cpu"
    told = "\n".join(plan.lines())
    assert "from one tile computed with PyTorch on cpu; OpenVINO is usually faster" in told
    assert not any(tmp_path.iterdir())


def test_layers_count(town, trained, tmp_path):
    plan, _ = plan_map(
        town.optical,
        tmp_path / "map.tif",
        trained / "bundle.safetensors",
        "optical",
        tiling=Tiling(core_px=64, block_px=64, stitch="exact"),
        outputs=Outputs(layers=("confidence",)),
        trial=TRIAL,
    )
    assert plan.map_bytes == 2 * 320 * 320
    assert len(plan.writes) == 2


def test_an_existing_map_is_refused(town, trained, tmp_path):
    (tmp_path / "map.tif").touch()
    for outputs in (Outputs(), Outputs(resume=True)):
        with pytest.raises(OutputError, match="the file exists"):
            plan_map(
                town.optical, tmp_path / "map.tif", trained / "bundle.safetensors", "optical", outputs=outputs,
                trial=TRIAL,
            )  # fmt: skip


def test_the_command(town, trained, tmp_path, run_cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = trained / "bundle.safetensors"
    words = ("--modality", "optical", "--model", model, "--out", "m.tif", "--dry-run")
    code, told, errors = run_cli("predict", town.optical, *words)
    assert code == 0, errors
    assert told.endswith("Nothing was written. Without --dry-run, the prediction starts.\n")
    words = ("--split", "test", "--modality", "elevation", "--model", model, "--out", "maps", "--dry-run")
    code, told, errors = run_cli("predict", "--config", trained / "config.yaml", *words)
    assert code == 0, errors
    assert told.startswith("Dry run: 1 map\nmaps/map.tif: about ")
    assert not any(tmp_path.iterdir())
