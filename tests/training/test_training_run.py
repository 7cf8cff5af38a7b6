"""From a configuration to a run folder: contents, reproducibility, resuming, refusals."""

from __future__ import annotations

import csv
import json
import signal
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from geocrodino.bundle.io import load_bundle
from geocrodino.config import load_config
from geocrodino.errors import ConfigError, OutputError
from geocrodino.training.run import train


class Stop(Callback):
    """Breaks a training off."""

    def __init__(self, epoch, place, error):
        self.epoch, self.place, self.error = epoch, place, error

    @staticmethod
    def _fail(*_):
        raise RuntimeError("power cut")

    def _at(self, trainer, place):
        if trainer.current_epoch == self.epoch and place == self.place:
            raise self.error

    def on_train_epoch_start(self, trainer, pl_module):
        self._at(trainer, "start")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            self._at(trainer, "middle")

    def on_validation_end(self, trainer, pl_module):
        self._at(trainer, "validated")


class Seen(Callback):
    """Notes the epochs that are run."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append(trainer.current_epoch)


def interrupted(config, out, epoch=2, place="middle", error=None):
    with pytest.raises((RuntimeError, KeyboardInterrupt)) as broken:
        train(config, out, callbacks=[Stop(epoch, place, error or RuntimeError("power cut"))])
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
        "splits.gpkg", "statistics.json", "tensorboard/hparams.yaml",
    }  # fmt: skip
    assert load_config(trained / "config.yaml", {}) == tiny_config()


def test_what_the_run_folder_says(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    manifest = load_bundle(trained / "bundle.safetensors").manifest
    assert manifest.training == metrics
    assert (metrics["epochs"], metrics["patch_px"], metrics["seed"]) == (2, 32, 0)
    logged = log_of(trained)
    assert len(logged) == 4  # two epochs, each with losses and with scores
    for modality in ("optical", "elevation"):
        best, epoch = metrics["val_miou"][modality], metrics["best_epoch"][modality]
        scores = [float(logged[str(e), False][f"val_miou/{modality}"]) for e in (0, 1)]
        assert best == pytest.approx(max(scores), rel=1e-6)
        assert epoch == scores.index(max(scores))
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


@pytest.mark.parametrize("place", ["start", "middle", "validated"])
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
    settings = tiny_config({"training.epochs": 3, "training.ema_decay": 0})
    whole = train(settings, tmp_path / "whole")
    interrupted(settings, tmp_path / "run", epoch=0)
    with pytest.raises(RuntimeError, match="power cut"):
        train(settings, tmp_path / "run", resume=True, callbacks=[Stop(1, "middle", RuntimeError("power cut"))])
    resumed = train(settings, tmp_path / "run", resume=True)
    assert same_weights(resumed.bundle, whole.bundle)


def test_ctrl_c_reaches_the_caller_and_further_ones_too(settings, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    assert isinstance(interrupted(settings, tmp_path / "run", error=KeyboardInterrupt()), KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) == before


def test_an_interrupted_run_is_neither_replaced_nor_resumed_with_other_settings(settings, tiny_config, tmp_path):
    out = tmp_path / "run"
    interrupted(settings, out, epoch=1)
    with pytest.raises(OutputError, match=r"run: holds an interrupted run\. Say --resume to go on, or --overwrite"):
        train(settings, out)
    changed = tiny_config({"training.epochs": 4, "training.seed": 3, "method.temperature": 0.2})
    with pytest.raises(ConfigError) as refused:
        train(changed, out, resume=True)
    assert str(refused.value) == (
        f"{out}: a run can only be resumed with its own settings; changed: method.temperature, training.seed.\n"
        "Take the change back, or start anew in another folder with --out."
    )
    assert (out / "checkpoints" / "last.ckpt").exists()
    assert load_config(out / "config.yaml", {}) == settings


def test_a_finished_run_is_refused_unless_it_may_be_replaced(trained, tiny_config):
    contents = (trained / "bundle.safetensors").read_bytes()
    with pytest.raises(OutputError) as refused:
        train(tiny_config(), trained)
    assert str(refused.value) == (
        f"{trained}: holds a finished run. Choose another folder with --out, or say --overwrite."
    )
    with pytest.raises(OutputError) as refused:
        train(tiny_config(), trained, resume=True)
    assert str(refused.value) == (
        f"{trained}: holds a finished run; nothing to resume. Start anew in another folder with --out."
    )
    with pytest.raises(ConfigError, match="say one of them"):
        train(tiny_config(), trained, resume=True, overwrite=True)
    assert (trained / "bundle.safetensors").read_bytes() == contents


def test_nothing_to_resume(tiny_config, tmp_path):
    with pytest.raises(OutputError, match="nowhere: holds no run to resume"):
        train(tiny_config(), tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_overwriting_leaves_nothing_of_the_earlier_run(tiny_config, tmp_path):
    out = tmp_path / "run"
    train(tiny_config({"training.epochs": 1}), out)
    earlier = {p.name for p in (out / "tensorboard").iterdir()} - {"hparams.yaml"}
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
    monkeypatch.setattr("geocrodino.training.task.ConfusionMatrix", Flat)
    result = train(tiny_config({"training.epochs": 9, "training.patience": 2}), tmp_path / "run")
    assert result.epochs == 3
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["best_epoch"]) == (3, {"optical": 0, "elevation": 0})


@pytest.mark.parametrize("patience", [2, 9])  # ended early, or after the last epoch
def test_a_run_broken_off_between_its_end_and_the_bundle(tiny_config, tmp_path, monkeypatch, patience):
    monkeypatch.setattr("geocrodino.training.task.ConfusionMatrix", Flat)
    settings = tiny_config({"training.epochs": 5, "training.patience": patience})
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
    [("training.accelerator", "abacus"), ("training.precision", "3-bit"), ("training.accelerator", "tpu")],
)
def test_what_the_machine_cannot_do_is_told(tiny_config, tmp_path, key, value):
    with pytest.raises(ConfigError, match=rf"'{value}'.* cannot be used here: "):
        train(tiny_config({key: value}), tmp_path / "run")


def test_two_singles_have_no_auxiliary_decoder_and_train(tiny_config, tmp_path):
    plain = {"method.auxiliary": 0.0, "method.orthogonality": 0.0, "method.contrast": "none", "training.epochs": 1}
    train(tiny_config(plain), tmp_path / "run")
    (row,) = [r for (_, losses), r in log_of(tmp_path / "run").items() if losses]
    assert {k for k in row if k.startswith("loss/")} == {
        "loss/segmentation/optical", "loss/segmentation/elevation", "loss/total",
    }  # fmt: skip
