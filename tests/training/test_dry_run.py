"""What a training needs, without a file being written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geocrodino.errors import ConfigError, OutputError
from geocrodino.settings.config import TrainingConfig
from geocrodino.training.dry_run import plan_training
from geocrodino.training.pace import Pace

PACE = Pace(step_s=0.5, preparation_s=1.0, batch_s=0.25, steps=2, val_batches=2, final_batches=4)
_TINY: dict[str, Any] = {"patch_px": 32, "steps_per_epoch": 2, "batch_size": 2, "accelerator": "cpu"}

# An epoch takes 2 steps of 0.5 s, 1 s of preparation and 2 batches of 0.25 s: 2.5 s. The end takes 4 batches: 1 s.


@pytest.fixture(autouse=True)
def known_pace(monkeypatch):
    monkeypatch.setattr("geocrodino.training.dry_run.measure", lambda *_: PACE)


def _everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_plan_by_hand(tiny_config, town, tmp_path):
    before = _everything(town.optical.parent)
    plan = plan_training(tiny_config(), tmp_path / "run")
    assert not any(tmp_path.iterdir())
    assert _everything(town.optical.parent) == before
    assert plan.seconds == 2 * 2.5 + 1
    assert plan.epochs == 2
    assert plan.batch[0] == 2
    pixels = int(plan.inputs.partition(" px")[0].rpartition(" ")[2].replace(",", ""))  # the first line names them
    assert plan.layer_bytes == pixels * (3 * 4 + 1 * 4 + 1)  # red, green, blue and one channel of heights; labels
    assert plan.layers == tmp_path / "run/aligned"
    assert set(plan.files) == {"optical", "elevation", "label"}
    assert plan.folds == 1
    told = "\n".join(plan.lines())
    assert "Time: about 6 s for 2 epochs of 2 steps" in told
    assert "time to align the rasters: unknown" in told


def test_minutes_become_epochs(tiny_config, tmp_path):
    config = tiny_config()
    config = config.model_copy(update={"training": TrainingConfig(minutes=0.5, **_TINY)})
    assert plan_training(config, tmp_path / "run").epochs == 11  # (30 s - 1 s) / 2.5 s


def test_a_teacher_is_counted(tiny_config, tmp_path):
    plan = plan_training(tiny_config({"method.name": "kd"}), tmp_path / "run")
    assert plan.seconds == 2 * 6


def test_folds_are_counted(tiny_config, town, tmp_path):
    config = tiny_config({"data.splits.folds": 2, "data.splits.by": "blocks"})
    config = config.model_copy(update={"data": config.data.model_copy(update={"aoi": None})})
    plan = plan_training(config, tmp_path / "run")
    assert plan.folds == 2
    assert "Time: about 12 s for 2 epochs of 2 steps with validations for each of 2 folds" in "\n".join(plan.lines())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "teacher", "told"),
    [
        ("fusion", None, "folds are scored with the branches of a bundle"),
        ("kd", "t", "`teacher`: a teacher is trained"),
    ],
)
def test_folds_are_refused_as_the_training_refuses_them(tiny_config, tmp_path, method, teacher, told):
    config = tiny_config({"data.splits.folds": 2, "data.splits.by": "blocks", "method.name": method})
    with pytest.raises(ConfigError, match=told):
        plan_training(config, tmp_path / "run", teacher=teacher)
    assert not any(tmp_path.iterdir())


def test_processes_have_their_own_memory(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr("geocrodino.training.devices.os.cpu_count", lambda: 4)
    plan = plan_training(tiny_config({"training.devices": 2, "training.batch_size": 2}), tmp_path / "run")
    assert plan.processes == 2
    assert " for each of 2 processes, measured in a trial" in "\n".join(plan.lines())


def test_a_finished_run_is_refused(tiny_config, trained):
    before = _everything(trained)
    with pytest.raises(OutputError, match="holds a finished run"):
        plan_training(tiny_config(), trained)
    assert plan_training(tiny_config(), trained, overwrite=True).layer_bytes == 0  # layers of the run are reused
    with pytest.raises(ConfigError, match="which `overwrite=True` would remove"):
        plan_training(tiny_config({"start_from": str(trained / "bundle.safetensors")}), trained, overwrite=True)
    assert _everything(trained) == before


def test_settings_are_checked(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match="multiple of the network's stride"):
        plan_training(tiny_config({"training.patch_px": 33}), tmp_path / "run")


def test_weights_of_the_hub_are_not_downloaded(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr("geocrodino.training.dry_run.initial_weights", lambda *_, **__: pytest.fail("reads weights"))
    config = tiny_config({"encoder_weights": "imagenet"})
    assert plan_training(config, tmp_path / "run").downloads == ("imagenet",)


def test_the_command(town, tiny_config, tmp_path, run_cli, monkeypatch):
    from geocrodino.settings.config import save_config

    monkeypatch.chdir(tmp_path)
    save_config(tiny_config(), tmp_path / "a.yaml")
    code, told, errors = run_cli("train", "--config", "a.yaml", "--out", "run", "--dry-run")
    assert code == 0, errors
    assert told.startswith("Dry run of a training in run: method crodino\n")
    assert told.endswith("Nothing was written. Without --dry-run, the training starts.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]
    code, _, errors = run_cli("train", "--config", "a.yaml", "--out", "run", "--dry-run", "--resume")
    assert code == 2
    assert "--dry-run: tells what a new training needs. Leave --resume out." in errors
