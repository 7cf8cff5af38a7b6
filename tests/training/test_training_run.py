"""From a configuration to a run folder: contents, reproducibility, resuming, refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import shutil
import signal
from types import SimpleNamespace
from typing import get_args

import geopandas as gpd
import lightning
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from geocrodino.bundle.io import load_bundle
from geocrodino.errors import ConfigError, OutputError
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.prediction.engine import predict
from geocrodino.settings.config import load_config
from geocrodino.settings.method import MethodName
from geocrodino.settings.prediction import Execution
from geocrodino.training import number_format
from geocrodino.training.learners.base import network_input, network_valid
from geocrodino.training.loop import run_loop
from geocrodino.training.pace import Pace, measure
from geocrodino.training.run import train

MODALITIES = ("optical", "elevation")
METHODS = get_args(MethodName)
RIVALS = ("kd", "protokd", "maskedkd")
SLOW = pytest.mark.slow
GRID = {"data.resolution_m": 0.5, "data.grid_of": "image"}  # of the town; a run folder names it


@pytest.fixture
def real_pace():
    """Measure the pace as trainings do."""


@pytest.fixture
def real_picture():
    """Draw the picture of calibration as trainings do."""


@pytest.fixture(autouse=True)
def quickly(request):
    """Leave out what a test is not about."""
    for real, left_out in (("real_pace", "no_measurement"), ("real_picture", "no_picture")):
        if real not in request.fixturenames:
            request.getfixturevalue(left_out)


class Stop(Callback):
    """Breaks a training off, that of the networks with these names."""

    def __init__(self, epoch, place, error, names=MODALITIES):
        self.epoch, self.place, self.error, self.names = epoch, place, error, names

    @staticmethod
    def _fail(*_):
        raise RuntimeError("power cut")

    def _at(self, trainer, pl_module, place):
        here = trainer.current_epoch == self.epoch and place == self.place
        if here and pl_module.learner.network_names == self.names:
            raise self.error

    def on_train_epoch_start(self, trainer, pl_module):
        self._at(trainer, pl_module, "start")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            self._at(trainer, pl_module, "middle")

    def on_validation_end(self, trainer, pl_module):
        self._at(trainer, pl_module, "validated")


class Seen(Callback):
    """Notes the epochs that are run, those of a teacher apart."""

    def __init__(self):
        self.epochs, self.of_teacher = [], []

    def on_train_epoch_start(self, trainer, pl_module):
        of_teacher = pl_module.learner.network_names == ("fusion",)
        (self.of_teacher if of_teacher else self.epochs).append(trainer.current_epoch)


def interrupted(config, out, epoch=2, place="middle", error=None, names=MODALITIES, **options):
    with pytest.raises((RuntimeError, KeyboardInterrupt)) as broken:
        train(config, out, callbacks=[Stop(epoch, place, error or RuntimeError("power cut"), names)], **options)
    return broken.value


def same_weights(first, second):
    one, two = load_file(first), load_file(second)
    return set(one) == set(two) and all(torch.equal(one[k], two[k]) for k in one)


def log_of(out):
    with (out / "logs" / "metrics.csv").open() as file:
        return {(r["epoch"], bool(r["loss/total"])): r for r in csv.DictReader(file)}


@pytest.fixture(scope="module")
def settings(tiny_config):
    return tiny_config({"training.epochs": 4})


@pytest.fixture(scope="module")
def uninterrupted(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, train(settings, out)


def test_the_run_folder(trained, tiny_config):
    names = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file() and p.parent.name != "aligned"}
    events = {n for n in names if n.startswith("tensorboard/events.out.tfevents")}
    assert events
    assert names - events == {
        "bundle.safetensors", "checkpoints/last.ckpt", "config.yaml", "logs/metrics.csv", "metrics.json",
        "encoder_weights.json", "inputs.json", "reliability.png", "splits.gpkg", "splits.png", "statistics.json",
        "timing.json",
    }  # fmt: skip
    assert load_config(trained / "config.yaml") == tiny_config(GRID)


def test_what_the_run_folder_says(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    manifest = load_bundle(trained / "bundle.safetensors").manifest
    assert manifest.training == metrics
    assert (metrics["epochs"], metrics["patch_px"], metrics["seed"]) == (2, 32, 0)
    assert metrics["precision"] == "32-true"
    logged = log_of(trained)
    assert len(logged) == 4  # two epochs, each with losses and with scores
    for modality in ("optical", "elevation"):
        best, epoch = metrics["val_miou"][modality], metrics["best_epoch"][modality]
        scores = [float(logged[str(e), False][f"val_miou/{modality}"]) for e in (0, 1)]
        assert best == pytest.approx(max(scores), rel=1e-6)
        assert epoch == scores.index(max(scores))
    assert json.loads((trained / "timing.json").read_text())["train_seconds"] > 0
    statistics = json.loads((trained / "statistics.json").read_text())
    assert list(statistics["class_px"]) == list(manifest.classes.names)
    assert statistics["elevation"] == [c.model_dump() for c in manifest.modalities["elevation"].channels]
    assert manifest.name == "geocrodino-tiny"
    assert manifest.crs == "EPSG:32631"


def test_the_same_seed_gives_the_same_weights(trained, tiny_config, tmp_path):
    again = train(tiny_config(), tmp_path / "again")
    assert same_weights(again.bundle, trained / "bundle.safetensors")
    assert log_of(tmp_path / "again") == log_of(trained)


def test_another_seed_gives_other_weights(trained, tiny_config, tmp_path):
    other = train(tiny_config({"training.seed": 1}), tmp_path / "other")
    assert not same_weights(other.bundle, trained / "bundle.safetensors")


@pytest.mark.parametrize("place", [pytest.param("start", marks=SLOW), "middle", "validated"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(settings, uninterrupted, tmp_path, place):
    whole, result = uninterrupted
    out = tmp_path / "run"
    interrupted(settings, out, place=place)
    assert not (out / "bundle.safetensors").exists()
    assert (out / "checkpoints" / "last.ckpt").exists()
    seen = Seen()
    resumed = train(settings, out, resume=True, callbacks=[seen])
    assert seen.epochs == [2, 3]
    assert same_weights(resumed.bundle, result.bundle)
    assert (resumed.val_miou, resumed.epochs) == (result.val_miou, result.epochs)
    assert (out / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert log_of(out) == log_of(whole)
    assert not list(out.glob("best-*"))
    assert not list(out.rglob("*.partial*"))


def test_a_run_broken_off_twice_and_without_average(tiny_config, tmp_path):
    settings = tiny_config({"method.name": "single", "training.epochs": 3, "training.ema_decay": 0})
    whole = train(settings, tmp_path / "whole")
    interrupted(settings, tmp_path / "run", epoch=0)
    with pytest.raises(RuntimeError, match="power cut"):
        train(settings, tmp_path / "run", resume=True, callbacks=[Stop(1, "middle", RuntimeError("power cut"))])
    resumed = train(settings, tmp_path / "run", resume=True)
    assert same_weights(resumed.bundle, whole.bundle)


@pytest.mark.parametrize("method", ["single", "mutual"])
def test_the_sampler_knows_the_epoch_before_a_resumed_run_starts(tiny_config, tmp_path, monkeypatch, method):
    """Reading processes draw patches ahead, before Lightning tells the sampler which epoch it is."""
    config = tiny_config({"method.name": method, "training.epochs": 3})
    interrupted(config, tmp_path / "run")
    found = []

    def fit(self, task, data, **_):
        drawn = [next(iter(data.sampler)) for _ in range(2)]
        data.sampler.set_epoch(2)
        assert drawn == [next(iter(data.sampler))] * 2
        data.sampler.set_epoch(0)
        found.append(drawn[0] != next(iter(data.sampler)))
        raise KeyboardInterrupt

    monkeypatch.setattr(lightning.Trainer, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", resume=True)
    assert found == [True]


def test_a_run_is_resumed_on_the_data_that_it_began_with(tiny_config, town, tmp_path):
    labels = tmp_path / "labels.tif"
    shutil.copy(town.labels, labels)
    config = tiny_config({"method.name": "single", "training.epochs": 2, "data.labels": str(labels)})
    out = tmp_path / "run"
    interrupted(config, out, epoch=1)
    with rasterio.open(labels, "r+") as file:
        values = file.read(1)
        file.write(np.where(values == 1, 0, values), 1)
    with pytest.raises(
        ConfigError, match=r"run: a run can only be resumed on the data that it began with; changed: labels\."
    ):
        train(config, out, resume=True)
    shutil.copy(town.labels, labels)
    assert train(config, out, resume=True).bundle


def test_names_of_folders_may_be_strings_and_few_steps_are_a_training(tiny_config, tmp_path):
    """Of 3 x 3 steps the rise takes a tenth, which is the first one."""
    config = tiny_config({"method.name": "single", "training.epochs": 3, "training.steps_per_epoch": 3})
    assert train(config, str(tmp_path / "run")).bundle == tmp_path / "run" / "bundle.safetensors"


def test_ctrl_c_reaches_the_caller_and_further_ones_too(settings, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    assert isinstance(interrupted(settings, tmp_path / "run", error=KeyboardInterrupt()), KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) == before


def test_an_interrupted_run_is_neither_replaced_nor_resumed_with_other_settings(settings, tiny_config, tmp_path):
    out = tmp_path / "run"
    interrupted(settings, out, epoch=1)
    with pytest.raises(
        OutputError,
        match=r"run: holds an interrupted run\. Continue it with `resume=True`, or replace it with `overwrite=True`",
    ):
        train(settings, out)
    changed = tiny_config({"training.epochs": 4, "training.seed": 3, "method.temperature": 0.2})
    with pytest.raises(ConfigError) as refused:
        train(changed, out, resume=True)
    assert str(refused.value) == (
        f"{out}: a run can only be resumed with its own settings; changed: method.temperature, training.seed.\n"
        "Undo the change, or start anew in another folder with `out`. The settings of the run are in "
        f"{out / 'config.yaml'}, which can be given as the configuration."
    )
    assert (out / "checkpoints" / "last.ckpt").exists()
    assert load_config(out / "config.yaml") == settings.with_grid(0.5, "image")


@pytest.mark.parametrize(("has", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_the_number_format_that_auto_stands_for_is_recorded(tiny_config, tmp_path, monkeypatch, has, expected):
    monkeypatch.setattr(number_format, "has_bfloat16", lambda _: has)
    out, told = tmp_path / "run", []
    train(tiny_config({"training.precision": "auto", "training.epochs": 1}), out, tell=told.append)
    assert told[1] == f"Number format: {expected}"
    assert json.loads((out / "metrics.json").read_text())["precision"] == expected
    assert load_bundle(out / "bundle.safetensors").manifest.training["precision"] == expected
    assert load_config(out / "config.yaml").training.precision == expected


def test_listening_changes_no_weight(real_pace, trained, tiny_config, tmp_path):
    """The pace is measured on a copy."""
    told, stages, parts = [], [], []
    again = train(
        tiny_config(),
        tmp_path / "again",
        tell=told.append,
        on_stage=stages.append,
        on_progress=lambda *part: parts.append((stages[-1], *part)),
    )
    assert same_weights(again.bundle, trained / "bundle.safetensors")
    assert log_of(tmp_path / "again") == log_of(trained)
    assert (tmp_path / "again" / "metrics.json").read_text() == (trained / "metrics.json").read_text()
    assert re.fullmatch(r"2 epochs of 2 steps, about \d+ s on the CPU \(1 thread\)\.", told[-1])
    assert stages == [
        "Opening and checking rasters", "Aligning rasters", "Measuring the channels", "Measuring the pace",
        "Validating and calibrating", "Writing the results",
    ]  # fmt: skip
    assert parts[-1] == ("Validating and calibrating", 1, 1)
    assert {stage for stage, *_ in parts} == {"Aligning rasters", "Validating and calibrating"}


# --- a budget in minutes -------------------------------------------------------------------------------------------

MINUTES = {"training.epochs": None, "training.minutes": 0.5}


@pytest.fixture(scope="module")
def three_epochs(tiny_config, tmp_path_factory):
    """Folder and result of a run of the number of epochs that the minutes are enough for."""
    out = tmp_path_factory.mktemp("three") / "run"
    return out, train(tiny_config({"training.epochs": 3}), out)


@pytest.fixture
def slow(monkeypatch):
    """Epochs of 8 s, of which 3 fit into half a minute with a validation of 4 s at the end."""
    pace = Pace(step_s=3.0, preparation_s=1.0, batch_s=1.0, steps=2, val_batches=1, final_batches=4)
    asked = []
    monkeypatch.setattr("geocrodino.training.run.measure", lambda *_: asked.append(1) or pace)
    return asked


def test_minutes_become_epochs_that_the_run_folder_records(tiny_config, three_epochs, tmp_path, slow):
    told = []
    result = train(tiny_config(MINUTES), tmp_path / "run", tell=told.append)
    assert result.epochs == 3
    assert "Budget: 0.5 min are enough for 3 epochs." in told
    recorded = load_config(tmp_path / "run" / "config.yaml").training
    assert (recorded.epochs, recorded.minutes, recorded.epochs_from_minutes) == (3, 0.5, True)
    assert same_weights(result.bundle, three_epochs[1].bundle)


def test_a_resumed_budget_keeps_its_schedule(tiny_config, three_epochs, tmp_path, slow):
    whole, expected = three_epochs
    out, config = tmp_path / "run", tiny_config(MINUTES)
    interrupted(config, out, epoch=1)
    measured = len(slow)
    resumed = train(config, out, resume=True)
    assert len(slow) == measured  # not measured again: another machine may be faster
    assert same_weights(resumed.bundle, expected.bundle)
    assert (out / "metrics.json").read_text() == (whole / "metrics.json").read_text()


def test_a_run_is_not_resumed_with_another_budget(tiny_config, tmp_path, slow):
    out = tmp_path / "run"
    interrupted(tiny_config(MINUTES), out, epoch=1)
    with pytest.raises(ConfigError, match=r"with its own settings; changed: training\.minutes\.\n"):
        train(tiny_config({**MINUTES, "training.minutes": 1}), out, resume=True)


def test_a_teacher_takes_its_share_of_the_minutes(tiny_config, tmp_path, slow):
    result = train(tiny_config({**MINUTES, "method.name": "kd"}), tmp_path / "run")
    assert result.epochs == 1  # (30 - 2 x 4) / (2 x 8)
    assert load_config(tmp_path / "run" / "teacher" / "config.yaml").training.epochs == 1


# --- a large val ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["single", "fusion"])
def test_the_final_scores_are_those_of_the_whole_val(tiny_config, tmp_path, monkeypatch, method):
    config = tiny_config({"method.name": method})
    told, found = [], []
    monkeypatch.setattr("geocrodino.data.datamodule._VALIDATION_PX", 32)
    monkeypatch.setattr("geocrodino.data.datamodule.most_windows", lambda *_: 2)
    monkeypatch.setattr("geocrodino.training.run.run_loop", keep_data(found, run_loop))
    result = train(config, tmp_path / "run", tell=told.append)
    (data, task, best), metrics = found[0], json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert data.val_windows[0] == 2 < data.val_windows[1]
    for name in task.learner.network_names:
        counts = ConfusionMatrix(len(task.learner.class_weights))
        network = best.load(name, task.kept.network(name))
        for batch in data.whole_val_dataloader():
            with torch.inference_mode():
                labels = torch.where(network_valid(name, batch), batch["labels"], 255)
                counts.update(labels.numpy(), network(network_input(name, batch)).argmax(dim=1).numpy())
        assert metrics["val_miou"][name] == result.val_miou[name] == counts.scores().mean_iou
        assert counts.scores().mean_iou != best.best[name]
    assert "\nValidation: 2 of " in told[-1]


def keep_data(found, function):
    def kept(settings, out, task, data, callbacks, *others):
        found.append((data, task, callbacks[0]))
        return function(settings, out, task, data, callbacks, *others)

    return kept


def test_a_run_on_a_part_of_val_can_be_resumed(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr("geocrodino.data.datamodule._VALIDATION_PX", 32)
    monkeypatch.setattr("geocrodino.data.datamodule.most_windows", lambda *_: 2)
    config = tiny_config({"training.epochs": 3})
    expected = train(config, tmp_path / "whole")
    interrupted(config, tmp_path / "run", epoch=1)
    resumed = train(config, tmp_path / "run", resume=True)
    assert same_weights(resumed.bundle, expected.bundle)
    assert resumed.val_miou == expected.val_miou


def test_a_run_that_began_on_the_whole_val_stays_on_it(tiny_config, tmp_path, monkeypatch):
    """As a run of version 0.1, whose checkpoints do not say on what they were scored."""
    monkeypatch.setattr("geocrodino.data.datamodule._VALIDATION_PX", 32)
    monkeypatch.setattr("geocrodino.data.datamodule.most_windows", lambda *_: 1000)
    config = tiny_config({"training.epochs": 3})
    expected = train(config, tmp_path / "whole")
    interrupted(config, tmp_path / "run", epoch=1)
    path = tmp_path / "run/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["callbacks"]["BestNetworks"]["on_part"]
    torch.save(checkpoint, path)
    monkeypatch.setattr("geocrodino.data.datamodule.most_windows", lambda *_: 2)
    found = []
    monkeypatch.setattr("geocrodino.training.run.run_loop", keep_data(found, run_loop))
    resumed = train(config, tmp_path / "run", resume=True)
    data, _, best = found[0]
    assert data.val_windows[0] == data.val_windows[1] > 2
    assert data.val_labelled_px == data.whole_val_labelled_px
    assert not best.on_part
    assert same_weights(resumed.bundle, expected.bundle)
    assert resumed.val_miou == expected.val_miou


def test_a_run_goes_on_in_its_own_number_format(tiny_config, tmp_path, monkeypatch):
    """Where `auto` stands for another one than where the run began, as on another processor."""
    out, changes = tmp_path / "run", {"training.epochs": 3}
    automatic = tiny_config({**changes, "training.precision": "auto"})
    monkeypatch.setattr(number_format, "has_bfloat16", lambda _: True)
    interrupted(automatic, out, epoch=1)
    monkeypatch.setattr(number_format, "has_bfloat16", lambda _: False)
    with pytest.raises(ConfigError) as refused:
        train(automatic, out, resume=True)
    assert str(refused.value) == (
        f"{out}: a run can only be resumed with its own settings; changed: training.precision.\n"
        "The run began in bf16-mixed; expected the same, found 32-true. What auto stands for depends on the device: "
        "continue here with `training.precision='bf16-mixed'`.\n"
        "Undo the change, or start anew in another folder with `out`. The settings of the run are in "
        f"{out / 'config.yaml'}, which can be given as the configuration."
    )
    train(tiny_config({**changes, "training.precision": "bf16-mixed"}), out, resume=True)  # the way out
    assert json.loads((out / "metrics.json").read_text())["precision"] == "bf16-mixed"


def test_a_finished_run_is_refused_unless_it_may_be_replaced(trained, tiny_config):
    contents = (trained / "bundle.safetensors").read_bytes()
    with pytest.raises(OutputError) as refused:
        train(tiny_config(), trained)
    assert str(refused.value) == (
        f"{trained}: holds a finished run. Choose another folder with `out`, or replace it with `overwrite=True`."
    )
    with pytest.raises(OutputError) as refused:
        train(tiny_config(), trained, resume=True)
    assert str(refused.value) == (
        f"{trained}: holds a finished run; nothing to resume. Start anew in another folder with `out`."
    )
    with pytest.raises(ConfigError, match="give only one of them"):
        train(tiny_config(), trained, resume=True, overwrite=True)
    assert (trained / "bundle.safetensors").read_bytes() == contents


def test_nothing_to_resume(tiny_config, tmp_path):
    with pytest.raises(OutputError, match="nowhere: holds no run to resume"):
        train(tiny_config(), tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_overwriting_leaves_nothing_of_the_earlier_run(tiny_config, tmp_path):
    out = tmp_path / "run"
    train(tiny_config({"training.epochs": 1}), out)
    earlier = {p.name for p in (out / "tensorboard").iterdir()}
    train(tiny_config({"training.epochs": 1, "training.seed": 2}), out, overwrite=True)
    assert json.loads((out / "metrics.json").read_text())["seed"] == 2
    assert len(log_of(out)) == 2
    assert earlier.isdisjoint(p.name for p in (out / "tensorboard").iterdir())


def test_a_refused_overwrite_keeps_the_earlier_run(tiny_config, town, tmp_path):
    out = tmp_path / "run"
    train(tiny_config({"training.epochs": 1}), out)
    kept = {n: (out / n).read_bytes() for n in ("bundle.safetensors", "config.yaml", "logs/metrics.csv")}
    with pytest.raises(ConfigError, match="multiple of the network's stride of 8 px, found 36"):
        train(tiny_config({"training.patch_px": 36}), out, overwrite=True)
    broken = town.labels.with_name("broken.tif")
    broken.write_bytes(town.labels.read_bytes()[:2000])
    with pytest.raises(Exception, match=r"broken\.tif"):
        train(tiny_config({"data.labels": str(broken)}), out, overwrite=True)
    broken.unlink()
    assert {n: (out / n).read_bytes() for n in kept} == kept


class Flat:
    """Every score is the same, so that only the first epoch is a gain."""

    def __init__(self, classes):
        pass

    def update(self, labels, predicted):
        pass

    def scores(self):
        return SimpleNamespace(mean_iou=0.5)


def test_an_early_end(tiny_config, tmp_path, monkeypatch):
    """Not before four fifths of the epochs, so that the learning rate is low."""
    monkeypatch.setattr("geocrodino.training.task.ConfusionMatrix", Flat)
    result = train(
        tiny_config({"method.name": "single", "training.epochs": 9, "training.patience": 2}), tmp_path / "run"
    )
    assert result.epochs == 8
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["best_epoch"]) == (8, {"optical": 0, "elevation": 0})


@pytest.mark.parametrize("patience", [2, 9])  # ended early, or after the last epoch
def test_a_run_broken_off_between_its_end_and_the_bundle(tiny_config, tmp_path, monkeypatch, patience):
    monkeypatch.setattr("geocrodino.training.task.ConfusionMatrix", Flat)
    settings = tiny_config({"method.name": "single", "training.epochs": 5, "training.patience": patience})
    expected = train(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("geocrodino.training.run._save", Stop._fail)
        with pytest.raises(RuntimeError, match="power cut"):
            train(settings, tmp_path / "run")
    seen = Seen()
    resumed = train(settings, tmp_path / "run", resume=True, callbacks=[seen])
    assert seen.epochs == []
    assert (resumed.epochs, resumed.val_miou) == (expected.epochs, expected.val_miou)
    assert same_weights(resumed.bundle, expected.bundle)


@pytest.mark.parametrize(
    ("key", "value"),
    [("training.accelerator", "tpu")],
)
def test_what_the_machine_cannot_do_is_told(tiny_config, tmp_path, key, value):
    with pytest.raises(ConfigError, match=rf"'{value}'.* cannot be used here: "):
        train(tiny_config({key: value}), tmp_path / "run")


# --- every method --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_of(tiny_config, tmp_path_factory):
    """A finished run of a method, by name: its folder, its result, what was told. Not to be changed."""
    finished = {}

    def run(name):
        if name not in finished:
            out, told = tmp_path_factory.mktemp("methods") / name, []
            with pytest.MonkeyPatch.context() as patch:  # the pace of every method is measured here
                patch.setattr("geocrodino.training.run.measure", measure)
                finished[name] = out, train(tiny_config({"method.name": name}), out, tell=told.append), told
        return finished[name]

    return run


def each(name):
    return {f"loss/{name}/{m}" for m in MODALITIES}


LOGGED = {
    "single": each("segmentation"),
    "crodino": each("segmentation") | each("auxiliary") | each("orthogonality") | each("agreement") | {"loss/contrast"},
    "mutual": each("segmentation") | each("agreement"),
    "discom": each("segmentation") | each("auxiliary") | each("orthogonality") | each("adversary"),
    "fusion": {"loss/segmentation/fusion"},
    "dropout": {"loss/segmentation/fusion"},
    "kd": each("segmentation") | each("distillation"),
    "protokd": each("segmentation") | each("distillation") | each("prototype"),
    "maskedkd": each("segmentation") | each("masked") | {"loss/masks/segmentation", "loss/masks/diversity"},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_logs_its_terms(run_of, name):
    out, result, _ = run_of(name)
    networks = ("fusion",) if name == "fusion" else MODALITIES
    logged = log_of(out)
    assert len(logged) == 4
    first = {k for k, v in logged["0", True].items() if k.startswith("loss/") and v}
    assert first == LOGGED[name] | {"loss/total"}
    assert all(math.isfinite(float(v)) for row in logged.values() for k, v in row.items() if v and k != "step")
    assert result.epochs == 2
    assert set(result.val_miou) == set(networks)
    assert all(0 < v < 1 for v in result.val_miou.values())
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["method"]["name"] == name
    assert set(metrics["parameters"]) == set(metrics["val_miou"]) == set(networks)
    assert not list(out.rglob("best-*"))
    assert load_config(out / "config.yaml").method.name == name


@pytest.mark.parametrize("name", [n for n in METHODS if n != "fusion"])
def test_every_method_makes_a_bundle_that_predicts(run_of, town, tmp_path, name):
    out, result, _ = run_of(name)
    assert result.bundle == out / "bundle.safetensors"
    bundle = load_bundle(result.bundle)
    assert bundle.manifest.network.separate_encoders is (name == "discom")
    for modality, scene in (("optical", town.optical), ("elevation", town.elevation)):
        predict(scene, tmp_path / f"{modality}.tif", bundle, modality, execution=Execution(workers=1))
        with rasterio.open(tmp_path / f"{modality}.tif") as made:
            assert set(np.unique(made.read(1))) <= {*bundle.manifest.classes.values, 255}
    parameters = {m: bundle.branch(m).num_parameters for m in MODALITIES}
    assert bundle.manifest.training["parameters"] == parameters


def test_fusion_leaves_a_network_and_no_bundle(run_of):
    out, result, _ = run_of("fusion")
    assert result.bundle is None
    assert load_file(out / "fusion.safetensors")
    assert not {p.name for p in out.iterdir()} & {"bundle.safetensors", "reliability.png", "teacher"}
    assert "val_calibration_error" not in json.loads((out / "metrics.json").read_text())


def test_a_finished_fusion_is_refused_like_any_finished_run(run_of, tiny_config):
    out, _, _ = run_of("fusion")
    contents = (out / "fusion.safetensors").read_bytes()
    for options, told in (({}, "holds a finished run. Choose"), ({"resume": True}, "nothing to resume")):
        with pytest.raises(OutputError, match=told):
            train(tiny_config({"method.name": "fusion"}), out, **options)
    assert (out / "fusion.safetensors").read_bytes() == contents


def test_probabilities_are_calibrated(trained):
    manifest = load_bundle(trained / "bundle.safetensors").manifest
    assert all(0.05 <= manifest.calibration.temperature[m] <= 20 for m in MODALITIES)
    assert sum(manifest.calibration.weight.values()) == pytest.approx(1)
    error = json.loads((trained / "metrics.json").read_text())["val_calibration_error"]
    assert list(error) == [
        "optical", "optical, calibrated", "elevation", "elevation, calibrated", "both, calibrated",
    ]  # fmt: skip
    assert all(0 <= v <= 1 for v in error.values())
    assert (trained / "reliability.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "precision", "anew"),
    [("mutual", "bf16-mixed", 0), ("maskedkd", "bf16-true", 1), ("crodino", "64-true", 0)],
)
def test_other_number_formats_end_in_a_bundle_too(tiny_config, tmp_path, name, precision, anew):
    changes = {"training.precision": precision, "training.epochs": 1, "training.batch_norm_batches": anew}
    config = tiny_config({"method.name": name, **changes})
    result = train(config, tmp_path / "run")
    branch = load_bundle(result.bundle).branch("optical")
    assert {p.dtype for p in branch.parameters()} == {torch.float32}
    assert all(p.isfinite().all() for p in branch.parameters())


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", ["mutual", "kd"])
def test_modules_that_rest_are_no_warning(tiny_config, tmp_path, name):
    train(tiny_config({"method.name": name, "training.epochs": 1}), tmp_path / "run")


def test_branches_teach_each_other_as_measured_on_val(run_of):
    """Not before the first validation; then where one is more often right than the other."""
    out, _, _ = run_of("mutual")
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert ((state["learner.lead"] >= 0) & (state["learner.lead"] <= 1)).all()
    assert state["learner.lead"].any()
    first, second = state["learner.lead"]
    assert not (first * second.T).any()  # of two predictions one is more often right, or neither
    assert not first.diagonal().any()
    assert (state["learner.temperature"] >= 0.05).all()
    logged = log_of(out)
    told = {epoch: [float(logged[epoch, True][f"loss/agreement/{m}"]) for m in MODALITIES] for epoch in ("0", "1")}
    assert told["0"] == [0, 0]
    assert max(told["1"]) > 0


@pytest.mark.parametrize("name", ["crodino", pytest.param("dropout", marks=SLOW), pytest.param("fusion", marks=SLOW)])
def test_statistics_measured_anew_are_all_that_differs(tiny_config, tmp_path, name):
    def run(batches):
        changes = {"method.name": name, "training.epochs": 1, "training.batch_norm_batches": batches}
        train(tiny_config(changes), tmp_path / str(batches))
        (path,) = list((tmp_path / str(batches)).glob("*.safetensors"))
        return load_file(path)

    plain, measured = run(0), run(2)
    differing = {k.split(".")[-1] for k in plain if not plain[k].equal(measured[k])}
    assert differing - {"num_batches_tracked"} == {"running_mean", "running_var"}


def test_a_run_with_statistics_measured_anew_can_be_resumed(tiny_config, tmp_path):
    config = tiny_config({"method.name": "mutual", "training.epochs": 4, "training.batch_norm_batches": 1})
    expected = train(config, tmp_path / "whole")
    interrupted(config, tmp_path / "run")
    result = train(config, tmp_path / "run", resume=True)
    require_same(tmp_path / "run", result, tmp_path / "whole", expected)


def test_the_average_is_needed_to_agree(tiny_config, tmp_path):
    with pytest.raises(ConfigError) as refused:
        train(tiny_config({"method.name": "mutual", "training.ema_decay": 0}), tmp_path / "run")
    assert str(refused.value) == (
        "method.agreement: the branches learn from the moving average of their weights; expected "
        "training.ema_decay above 0, found 0.\nUse 0.99, or agreement: 0."
    )
    assert not (tmp_path / "run").exists()


# --- teachers ------------------------------------------------------------------------------------------------------


def test_a_teacher_is_trained_first(run_of, tiny_config):
    out, _, told = run_of("kd")
    first = told.index("Training the teacher first: method fusion (middle).")
    assert told[first + 1].startswith("2 epochs of 2 steps, about ")
    assert told[first + 2].startswith("Teacher: best mIoU on val ")
    teacher = out / "teacher"
    assert load_config(teacher / "config.yaml") == tiny_config({"method.name": "fusion", **GRID})
    assert {r["epoch"] for r in log_of(teacher).values()} == {"0", "1"}
    assert {p.name for p in teacher.iterdir()} == {
        "checkpoints", "config.yaml", "encoder_weights.json", "fusion.safetensors", "logs", "tensorboard",
    }  # fmt: skip


@pytest.mark.parametrize("name", RIVALS)
def test_the_teacher_is_the_same_after_the_training(run_of, name):
    out, _, _ = run_of(name)
    before = load_file(out / "teacher" / "fusion.safetensors")
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for place in ("learner.teacher.", "average.module.teacher."):
        after = {k.removeprefix(place): v for k, v in state.items() if k.startswith(place)}
        assert set(after) == set(before)
        assert all(v.equal(before[k]) for k, v in after.items())


@pytest.mark.parametrize("name", ["kd", pytest.param("protokd", marks=SLOW), pytest.param("maskedkd", marks=SLOW)])
def test_the_teacher_of_another_run_will_do(run_of, tiny_config, tmp_path, name):
    told, seen = [], Seen()
    teacher, _, _ = run_of("fusion")
    config = tiny_config({"method.name": name})
    result = train(config, tmp_path / "run", teacher=teacher, tell=told.append, callbacks=[seen])
    # The one that is trained first is trained like any fusion network.
    assert same_weights(result.bundle, run_of(name)[1].bundle)
    assert (seen.of_teacher, seen.epochs) == ([], [0, 1])
    assert not any("teacher" in t.lower() for t in told)
    assert not (tmp_path / "run" / "teacher").exists()
    fusion = teacher / "fusion.safetensors"
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["teacher"] == {
        "run": teacher.name, "sha256": hashlib.sha256(fusion.read_bytes()).hexdigest(),
    }  # fmt: skip


def test_terms_of_labels_are_the_teachers_too(tiny_config, tmp_path):
    changes = {
        "method.name": "kd", "method.dice": 0.5, "method.label_smoothing": 0.1, "method.fusion": "early",
        "training.epochs": 1,
    }  # fmt: skip
    told = []
    train(tiny_config(changes), tmp_path / "run", tell=told.append)
    found = load_config(tmp_path / "run" / "teacher" / "config.yaml").method
    assert (found.name, found.fusion, found.dice, found.label_smoothing) == ("fusion", "early", 0.5, 0.1)
    assert "Training the teacher first: method fusion (early)." in told


ADVICE = "\nLeave `teacher` out, and one is trained first."


def no_teacher(path, found):
    return (
        f"{path}: expected the fusion network of a finished training with the same bands, classes and network, found "
        f"{found}.{ADVICE}"
    )


def test_a_teacher_that_is_none(run_of, tiny_config, tmp_path):
    def refused(teacher, **changes):
        with pytest.raises(ConfigError) as error:
            train(tiny_config({"method.name": "kd", **changes}), tmp_path / "run", teacher=teacher)
        return str(error.value)

    for folder in (tmp_path / "none", run_of("single")[0]):
        assert refused(folder) == no_teacher(folder / "fusion.safetensors", "no such file")
    fusion = run_of("fusion")[0]
    for changes, told in (
        ({"method.fusion": "early"}, "method.fusion"),
        ({"network.invariant_channels": 4}, "network"),
        ({"data.ignore_values": [4], "elevation.channels": ["slope"]}, "data, elevation"),
    ):
        assert refused(fusion, **changes) == f"{fusion}: the teacher was trained with other settings: {told}.{ADVICE}"


def test_a_teacher_whose_files_are_damaged_or_of_another_network(run_of, tiny_config, tmp_path):
    teacher = tmp_path / "teacher"
    network = teacher / "fusion.safetensors"
    teacher.mkdir()

    def refused(content):
        network.write_bytes(content)
        with pytest.raises(ConfigError) as error:
            train(tiny_config({"method.name": "kd"}), tmp_path / "run", teacher=teacher, overwrite=True)
        return str(error.value)

    other = run_of("single")[1].bundle.read_bytes()
    assert refused(other) == no_teacher(teacher / "config.yaml", "no such file")
    (teacher / "config.yaml").write_bytes((run_of("fusion")[0] / "config.yaml").read_bytes())
    assert refused(other) == (
        f"{tmp_path / 'splits.gpkg'}: no such file. Expected the polygons of the teacher's splits, which every run "
        f"writes.{ADVICE}"
    )
    (teacher / "splits.gpkg").write_bytes((run_of("fusion")[0] / "splits.gpkg").read_bytes())
    assert refused(other) == no_teacher(network, "another network")
    for broken in (b"no weights", other[: len(other) // 2]):
        told = refused(broken)
        assert told.startswith(no_teacher(network, "")[: -len(ADVICE) - 1])
        assert told.endswith(ADVICE)


def test_a_teacher_that_learnt_from_what_its_students_are_judged_on(tiny_config, tmp_path, town):
    """Where the area names no splits, they are drawn from the seed and the size of a patch."""
    frame = gpd.read_file(town.aoi).to_crs("EPSG:32631")
    whole = shapely.box(*frame.total_bounds)
    gpd.GeoDataFrame(geometry=[whole], crs="EPSG:32631").to_file(tmp_path / "whole.gpkg")
    settings = {"data.aoi": str(tmp_path / "whole.gpkg"), "training.epochs": 1}
    train(tiny_config({**settings, "method.name": "fusion"}), tmp_path / "teacher")
    settings["method.name"] = "kd"
    told = (
        "teacher: the teacher's split 'train' overlaps the split '(val|test)' of this training: its students must not"
    )
    for key, value in (("seed", 1), ("patch_px", 48)):
        with pytest.raises(ConfigError, match=told):
            train(tiny_config({**settings, f"training.{key}": value}), tmp_path / "run", teacher=tmp_path / "teacher")
    assert train(tiny_config(settings), tmp_path / "run", teacher=tmp_path / "teacher").bundle


def test_another_seed_of_the_students_is_no_other_data(run_of, tiny_config, tmp_path):
    config = tiny_config({"method.name": "kd", "training.seed": 1, "training.epochs": 1})
    assert train(config, tmp_path / "run", teacher=run_of("fusion")[0]).bundle


def test_a_teacher_that_is_not_needed(run_of, tiny_config, tmp_path):
    with pytest.raises(ConfigError) as error:
        train(tiny_config(), tmp_path / "run", teacher=run_of("fusion")[0])
    assert str(error.value) == (
        "`teacher`: the method crodino learns without a teacher. Leave `teacher` out, or use `method.name='kd'`, "
        "protokd or maskedkd."
    )
    assert not (tmp_path / "run").exists()


# --- resuming methods ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_run_of(tiny_config, tmp_path_factory):
    """Settings of four epochs of a method, and the folder and result of an uninterrupted run."""
    finished = {}

    def run(name):
        if name not in finished:
            config = tiny_config({"method.name": name, "training.epochs": 4})
            out = tmp_path_factory.mktemp("long") / "run"
            finished[name] = config, out, train(config, out)
        return finished[name]

    return run


def require_same(out, result, whole, expected):
    assert same_weights(result.bundle, expected.bundle)
    assert (result.val_miou, result.epochs) == (expected.val_miou, expected.epochs)
    assert (out / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert log_of(out) == log_of(whole)
    assert not list(out.rglob("best-*"))


@pytest.mark.parametrize(
    "name",
    [
        "mutual",
        pytest.param("discom", marks=SLOW),
        pytest.param("dropout", marks=SLOW),
        pytest.param("maskedkd", marks=SLOW),
    ],
)
def test_methods_can_be_resumed(long_run_of, tmp_path, name):
    config, whole, expected = long_run_of(name)
    out = tmp_path / "run"
    interrupted(config, out)
    seen = Seen()
    result = train(config, out, resume=True, callbacks=[seen])
    assert (seen.epochs, seen.of_teacher) == ([2, 3], [])
    require_same(out, result, whole, expected)


def test_fusion_can_be_resumed(long_run_of, tiny_config, tmp_path):
    config, out = tiny_config({"method.name": "fusion", "training.epochs": 4}), tmp_path / "run"
    interrupted(config, out, names=("fusion",))
    train(config, out, resume=True)
    _, whole, _ = long_run_of("maskedkd")
    assert same_weights(out / "fusion.safetensors", whole / "teacher" / "fusion.safetensors")


@pytest.mark.parametrize("place", [pytest.param("start", marks=SLOW), pytest.param("middle", marks=SLOW), "validated"])
def test_a_run_broken_off_in_the_teacher(long_run_of, tmp_path, place):
    config, whole, expected = long_run_of("kd")
    out = tmp_path / "run"
    interrupted(config, out, place=place, names=("fusion",))
    assert (out / "teacher" / "checkpoints" / "last.ckpt").exists()
    assert not (out / "teacher" / "fusion.safetensors").exists()
    seen = Seen()
    result = train(config, out, resume=True, callbacks=[seen])
    assert (seen.of_teacher, seen.epochs) == ([2, 3], [0, 1, 2, 3])
    require_same(out, result, whole, expected)
    assert log_of(out / "teacher") == log_of(whole / "teacher")


@pytest.mark.parametrize("place", [pytest.param("start", marks=SLOW), "middle", pytest.param("validated", marks=SLOW)])
def test_a_run_broken_off_in_the_students(long_run_of, tmp_path, place):
    config, whole, expected = long_run_of("kd")
    out = tmp_path / "run"
    interrupted(config, out, place=place)
    seen = Seen()
    result = train(config, out, resume=True, callbacks=[seen])
    assert (seen.of_teacher, seen.epochs) == ([], [2, 3])
    require_same(out, result, whole, expected)


def test_a_run_broken_off_between_teacher_and_students(long_run_of, tmp_path, monkeypatch):
    config, whole, expected = long_run_of("kd")
    out = tmp_path / "run"
    interrupted(config, out, epoch=0, place="start")
    assert (out / "teacher" / "fusion.safetensors").exists()
    seen = Seen()
    result = train(config, out, resume=True, callbacks=[seen])
    assert (seen.of_teacher, seen.epochs) == ([], [0, 1, 2, 3])
    require_same(out, result, whole, expected)


def test_students_go_on_without_naming_their_teacher_again(long_run_of, tmp_path):
    config, whole, expected = long_run_of("kd")
    out = tmp_path / "run"
    interrupted(config, out, teacher=whole / "teacher")
    seen = Seen()
    result = train(config, out, resume=True, callbacks=[seen])
    assert (seen.of_teacher, seen.epochs) == ([], [2, 3])
    require_same(out, result, whole, expected)
    assert not (out / "teacher").exists()


def test_a_run_broken_off_in_the_teacher_is_not_replaced_unasked(tiny_config, tmp_path):
    config, out = tiny_config({"method.name": "kd"}), tmp_path / "run"
    interrupted(config, out, epoch=1, names=("fusion",))
    with pytest.raises(
        OutputError,
        match=r"run: holds an interrupted run\. Continue it with `resume=True`, or replace it with `overwrite=True`",
    ):
        train(config, out)
    assert (out / "teacher" / "checkpoints" / "last.ckpt").exists()


def test_another_method_in_place_of_a_taught_one_leaves_no_teacher_behind(tiny_config, tmp_path):
    out = tmp_path / "run"
    train(tiny_config({"method.name": "kd", "training.epochs": 1}), out)
    train(tiny_config({"method.name": "fusion", "training.epochs": 1}), out, overwrite=True)
    assert not {p.name for p in out.iterdir()} & {"teacher", "bundle.safetensors", "reliability.png"}
    train(tiny_config({"method.name": "single", "training.epochs": 1}), out, overwrite=True)
    assert not (out / "fusion.safetensors").exists()


# --- areas without labels ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(town, tmp_path_factory):
    """The town's area, the eastern half of train as the split ``unlabelled``; and that half in the map's CRS."""
    frame = gpd.read_file(town.aoi).to_crs("EPSG:32631")
    whole = frame.loc[frame["split"] == "train"].union_all()
    left, bottom, right, top = whole.bounds
    middle = (left + right) / 2
    parts = {
        "train": whole.intersection(shapely.box(left, bottom, middle, top)),
        "unlabelled": whole.intersection(shapely.box(middle, bottom, right, top)),
        **{s: frame.loc[frame["split"] == s].union_all() for s in ("val", "test")},
    }
    path = tmp_path_factory.mktemp("bare") / "area.gpkg"
    gpd.GeoDataFrame({"split": list(parts)}, geometry=list(parts.values()), crs="EPSG:32631").to_file(path)
    return path, parts["unlabelled"]


@pytest.fixture(scope="module")
def other_labels(town, bare, tmp_path_factory):
    """The town's labels, each one another inside the split without labels."""
    path = tmp_path_factory.mktemp("labels") / "labels.tif"
    with rasterio.open(town.labels) as source:
        values, profile = source.read(1), source.profile
    inside = rasterio.features.geometry_mask(
        [bare[1]], values.shape, profile["transform"], all_touched=False, invert=True
    )
    changed = np.where(inside & (values != 255), (values + 1) % 5, values).astype(values.dtype)
    changed[inside & (np.random.default_rng(0).random(values.shape) < 0.3)] = 255
    assert (changed != values).mean() > 0.05
    with rasterio.open(path, "w", **profile) as target:
        target.write(changed, 1)
    return path


BARE = {"training.unlabelled_share": 1.0}


@pytest.fixture(scope="module")
def learnt_without(tiny_config, bare, tmp_path_factory):
    """A run that learns from patches without labels, and what was told."""
    out, told = tmp_path_factory.mktemp("unlabelled") / "run", []
    config = tiny_config({"method.name": "mutual", "data.aoi": str(bare[0]), **BARE})
    return out, train(config, out, tell=told.append), told


@pytest.mark.parametrize("name", ["mutual", "kd"])
def test_labels_of_the_split_without_labels_change_no_bit(
    real_picture, tiny_config, bare, other_labels, learnt_without, tmp_path, name
):
    out, expected, told = learnt_without
    config = {"method.name": name, "data.aoi": str(bare[0]), **BARE}
    if name != "mutual":
        out, told = tmp_path / "expected", []
        expected = train(tiny_config(config), out, tell=told.append)
    assert any("patches with labels and " in t for t in told)
    result = train(tiny_config({**config, "data.labels": str(other_labels)}), tmp_path / "run")
    assert same_weights(result.bundle, expected.bundle)
    for name_of_file in ("metrics.json", "statistics.json", "reliability.png"):
        assert (tmp_path / "run" / name_of_file).read_bytes() == (out / name_of_file).read_bytes()
    assert log_of(tmp_path / "run") == log_of(out)


def test_but_the_rasters_there_are_learnt_from(tiny_config, bare, learnt_without, tmp_path):
    _, with_them, told = learnt_without
    counted = next(t for t in told if t.startswith("A batch holds "))
    assert counted in {f"A batch holds 2 patches with labels and {n} without." for n in (1, 2)}
    assert any(", " in t and " unlabelled" in t for t in told if t.startswith("Grid: "))
    config = {"method.name": "mutual", "data.aoi": str(bare[0]), "training.unlabelled_share": 0}
    silent = []
    without = train(tiny_config(config), tmp_path / "run", tell=silent.append)
    assert not same_weights(with_them.bundle, without.bundle)
    assert len(silent) == 4  # the data, the number format as it was asked for, the encoder weights, and the duration


@pytest.mark.parametrize("name", ["single", "fusion"])
def test_a_method_that_cannot_learn_from_them_says_so(tiny_config, bare, tmp_path, name):
    told = []
    config = tiny_config({"method.name": name, "data.aoi": str(bare[0]), "training.epochs": 1, **BARE})
    train(config, tmp_path / "run", tell=told.append)
    assert told[3:-1] == [f"The split unlabelled is not used: the method {name} learns from labels alone."]
    assert told[-1].startswith("1 epoch of 2 steps, about ")


def test_the_teacher_of_students_says_it_for_itself(tiny_config, bare, tmp_path):
    told = []
    config = tiny_config({"method.name": "kd", "data.aoi": str(bare[0]), "training.epochs": 1, **BARE})
    train(config, tmp_path / "run", tell=told.append)
    assert told[4] == "The split unlabelled is not used: the method fusion learns from labels alone."
    assert told[-2].startswith("A batch holds 2 patches with labels and ")
