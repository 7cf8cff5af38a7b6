"""How many processes share a batch: what `auto` means, and what cannot be divided."""

from __future__ import annotations

import pytest

from geocrodino.errors import ConfigError
from geocrodino.training import devices
from geocrodino.training.devices import describe_devices, with_devices


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 4)


def test_auto_is_one_process_without_gpus(tiny_config):
    assert with_devices(tiny_config({"training.devices": "auto"})).training.devices == 1


def test_auto_on_gpus_is_a_number_that_divides_the_batch(tiny_config, monkeypatch):
    monkeypatch.setattr(devices.number_format, "device_of", lambda _: devices.torch.device("cuda", 0))
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 5)
    found = with_devices(tiny_config({"training.devices": "auto", "training.batch_size": 8})).training
    assert found.devices == 4


def test_too_many(tiny_config):
    with pytest.raises(ConfigError) as refused:
        with_devices(tiny_config({"training.devices": 5}))
    assert str(refused.value) == (
        "training.devices: expected at most 4, the number of processor cores here, found 5. "
        "Use `training.devices='auto'`."
    )


def test_a_batch_that_cannot_be_divided(tiny_config):
    with pytest.raises(ConfigError) as refused:
        with_devices(tiny_config({"training.devices": 3, "training.batch_size": 8}))
    assert str(refused.value) == (
        "training.batch_size: 8 patches cannot be divided among 3 devices evenly. Use 6 or 9, or another "
        "`training.devices`."
    )


def test_the_line_for_the_user(tiny_config, monkeypatch):
    monkeypatch.setattr("geocrodino.training.companions.torch.get_num_threads", lambda: 4)
    alone = tiny_config({"training.batch_size": 4}).training
    assert describe_devices(alone) == ""
    shared = tiny_config({"training.batch_size": 4, "training.devices": 2, "training.accumulate": 3}).training
    assert describe_devices(shared) == (
        "Each step: 12 patches with labels, divided among 2 processes of 2 threads, and computed in 3 passes of 4."
    )
    measured = tiny_config({"training.batch_size": "auto", "training.accumulate": 3}).training
    assert describe_devices(measured) == "Each step: computed in 3 passes."


def test_a_gpu_that_is_not_there_is_refused_before_files_are_read(tiny_config, monkeypatch):
    monkeypatch.setattr(devices.number_format, "device_of", lambda _: devices.torch.device("cpu"))
    with pytest.raises(ConfigError) as refused:
        with_devices(tiny_config({"training.accelerator": "gpu"}))
    assert str(refused.value) == (
        "training.accelerator: expected a device of this machine, found gpu, and PyTorch sees no GPU that it can "
        "use.\nUse `training.accelerator='auto'`."
    )
