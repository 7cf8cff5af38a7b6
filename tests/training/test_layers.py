"""A training on layers in memory equals that on files bit for bit; layers that do not fit are refused at the start."""

from __future__ import annotations

import csv

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from geocrodino.data.datamodule import CoregisteredDataModule
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.errors import ConfigError
from geocrodino.settings.config import TrainingConfig, config_of
from geocrodino.settings.town import SceneSettings
from geocrodino.town.write import write_scene
from geocrodino.training import layers, number_format
from geocrodino.training.checks import check_inputs
from geocrodino.training.dry_run import plan_training
from geocrodino.training.layers import describe_layers, layers_on_device
from geocrodino.training.run import train

pytestmark = pytest.mark.usefixtures("no_picture")


def result(out):
    """Losses and scores of each epoch, and the final weights."""
    with (out / "logs" / "metrics.csv").open() as file:
        rows = [{name: value for name, value in row.items() if "time" not in name} for row in csv.DictReader(file)]
    weights = load_file(out / "bundle.safetensors")
    return rows, {name: values.numpy().tobytes() for name, values in weights.items()}


@pytest.fixture
def no_patches_from_disk(monkeypatch):
    """Let no training batch be read from files."""

    def refuse(*_):
        raise AssertionError("a batch was read from files")

    monkeypatch.setattr("geocrodino.data.batches.BatchReader.__getitems__", refuse)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training.accumulate": 2, "training.unlabelled_share": 1, "training.batch_norm_batches": 2},
        {"training.precision": "64-true", "method.name": "single"},
    ],
    ids=["as it is", "passes, patches without labels, batch-norm statistics", "float64"],
)
@pytest.mark.usefixtures("no_measurement")
def test_a_training_is_that_on_files(tiny_config, tmp_path, request, changes):
    train(tiny_config({**changes, "training.layers": "disk"}), tmp_path / "disk")
    request.getfixturevalue("no_patches_from_disk")
    train(tiny_config({**changes, "training.layers": "device"}), tmp_path / "device")
    expected, found = result(tmp_path / "disk"), result(tmp_path / "device")
    assert len(expected[0]) == 4  # two epochs, each with a validation
    assert found == expected


@pytest.mark.slow
@pytest.mark.usefixtures("no_measurement")
def test_two_processes_load_their_own(tiny_config, tmp_path):
    shared = {"training.devices": 2, "training.batch_size": 4, "method.name": "kd"}  # with a teacher
    for place in ("disk", "device"):
        train(tiny_config({**shared, "training.layers": place}), tmp_path / place)
    assert result(tmp_path / "device") == result(tmp_path / "disk")


@pytest.fixture
def scenes(tmp_path):
    """A complete scene, one with heights alone, one with an image and without labels, and one that is validated."""
    found = {}
    for seed, name in enumerate(("both", "heights", "bare", "val"), start=1):
        (tmp_path / name).mkdir()
        write_scene(tmp_path / name, SceneSettings(size_m=96, seed=seed))
        files = {"optical": "optical.tif", "elevation": "dsm.tif", "labels": "labels.tif"}
        found[name] = {"name": name, **{role: str(tmp_path / name / file) for role, file in files.items()}}
        found[name]["split"] = {"bare": "unlabelled", "val": "val"}.get(name, "train")
    del found["heights"]["optical"], found["bare"]["elevation"], found["bare"]["labels"]
    return list(found.values())


def configured(tiny, scenes, **training):
    sections = {f"{section}.{k}": v for section, keys in tiny.items() for k, v in keys.items()}
    changes = {f"training.{key}": value for key, value in training.items()}
    return config_of({**sections, "encoder_weights": {}, "data.scenes": scenes, **changes})


@pytest.mark.filterwarnings("ignore::geocrodino.errors.SplitWarning")  # the towns overlap
@pytest.mark.usefixtures("no_measurement")
def test_scenes_that_lack_a_modality_or_labels(tiny, scenes, tmp_path, monkeypatch):
    train(configured(tiny, scenes, layers="disk", unlabelled_share=1), tmp_path / "runs" / "disk")
    modules, told, plain = [], [], CoregisteredDataModule.__init__

    def noted(self, *args):
        modules.append(self)
        plain(self, *args)

    monkeypatch.setattr(CoregisteredDataModule, "__init__", noted)
    config = configured(tiny, scenes, layers="device", unlabelled_share=1)
    train(config, tmp_path / "runs" / "device", tell=told.append)
    assert result(tmp_path / "runs" / "device") == result(tmp_path / "runs" / "disk")
    (module,) = modules
    assert module.on_device.scenes == (0, 1, 2)  # none of the scene that is validated
    assert not module.on_device.is_loaded  # the memory is given back
    assert module.unlabelled > 0
    assert sum(line.startswith("Patches: cut from layers in memory, ") for line in told) == 1


class _Stop(Callback):
    def on_train_epoch_start(self, trainer, _):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("no_measurement")
def test_a_run_is_resumed_in_the_other_way(tiny_config, tmp_path):
    train(tiny_config(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), tmp_path / "run", callbacks=[_Stop()])
    assert "layers" not in yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]
    train(tiny_config({"training.layers": "device"}), tmp_path / "run", resume=True)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["layers"] == "device"
    assert result(tmp_path / "run")[1] == result(tmp_path / "whole")[1]


def test_a_measured_batch_is_cut_from_layers(tiny_config, tmp_path, monkeypatch):
    reads, plain = [], CoregisteredDataset.read

    def noted(self, window, scene=0):
        reads.append(window.shape)
        return plain(self, window, scene)

    monkeypatch.setattr(CoregisteredDataset, "read", noted)
    monkeypatch.setattr("geocrodino.training.batch_size.usable_memory", lambda _: 0)  # the least: batches of 2
    config = tiny_config({"training.layers": "device", "training.batch_size": "auto"})
    told = []
    train(config, tmp_path / "run", tell=told.append)
    assert [shape for shape in reads if shape[0] > 256] == [reads[0]]  # the scene is read once; the others are of val
    assert any(line.startswith("Batch size: ") for line in told)


def test_a_dry_run_counts_them(tiny_config, tmp_path, no_patches_from_disk):
    told = []
    plan = plan_training(tiny_config({"training.layers": "device"}), tmp_path / "run", tell=told.append)
    assert told[0].startswith("Patches: cut from layers in memory, ")
    assert plan.memory_bytes > 0


@pytest.fixture
def found(tiny_config):
    return check_inputs(tiny_config())


def size_of(found):
    (scene,) = found.scenes
    height, width = scene.grid.shape
    return height * width * (1 + (4 * 3 + 1) + (4 * 1 + 1))  # labels; three bands; heights


def test_layers_that_do_not_fit_are_refused(found, tiny_config, monkeypatch):
    size = size_of(found)
    config = tiny_config({"training.layers": "device"})
    monkeypatch.setattr(layers, "free_memory", lambda _: size * 4 // 3 + 1)
    assert layers_on_device(config, found).scenes == (0,)
    monkeypatch.setattr(layers, "free_memory", lambda _: 400_000)
    with pytest.raises(ConfigError) as refused:
        layers_on_device(config, found)
    assert str(refused.value) == (
        "training.layers: expected layers of at most 300,000 bytes, three quarters of the 400,000 bytes that are free "
        f"on this machine; found layers of {size / 1e6:.1f} MB.\n"
        "Use `training.layers='disk'`, which reads patches from files."
    )


@pytest.mark.parametrize(
    ("device", "workers", "times", "on_device"),
    [("cpu", 0, 100, False), ("cuda", 0, 4, True), ("cuda", 0, 3.99, False), ("cuda", 2, 100, False)],
)
def test_auto_loads_what_takes_a_quarter_of_a_gpu(found, tiny_config, monkeypatch, device, workers, times, on_device):
    monkeypatch.setattr(number_format, "device_of", lambda _: torch.device(device))
    monkeypatch.setattr(number_format, "device_name", lambda _: "a GPU")
    monkeypatch.setattr(layers, "free_memory", lambda _: times * size_of(found))
    told = []
    chosen = layers_on_device(tiny_config({"training.workers": workers}), found, told.append)
    assert (chosen is not None) == on_device
    assert len(told) == (device == "cuda")


def test_the_line_for_the_user(monkeypatch):
    settings = TrainingConfig(accelerator="cpu", devices=2)
    assert describe_layers(settings, 2_000_000, 8_000_000_000, on_device=True) == (
        "Patches: cut from layers in memory, 2.0 MB of the 8.0 GB that are free on this machine for each of 2 "
        "processes."
    )
    monkeypatch.setattr(number_format, "device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(number_format, "device_name", lambda _: "NVIDIA H100")
    assert describe_layers(TrainingConfig(), 30 * 10**9, 79 * 10**9, on_device=False) == (
        "Patches: read from files; layers in memory would take 30.0 GB of the 79.0 GB that are free on NVIDIA H100, "
        "more than a quarter."
    )
    assert describe_layers(TrainingConfig(workers=8), 10**9, 79 * 10**9, on_device=False) == (
        "Patches: read from files, as training.workers asks; layers in memory would take 1.0 GB of the 79.0 GB that "
        "are free on NVIDIA H100."
    )


@pytest.mark.parametrize("workers", [2, "auto"])
def test_readers_beside_layers_on_the_device_are_refused(tiny_config, workers):
    with pytest.raises(ConfigError, match=f"workers: {workers} does nothing with layers: device. Leave one of them"):
        tiny_config({"training.layers": "device", "training.workers": workers})
