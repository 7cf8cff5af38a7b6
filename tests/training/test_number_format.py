"""The number format of a training: what `auto` stands for, and a line for the user."""

import pytest
import torch

from geocrodino.training import number_format
from geocrodino.training.number_format import describe, resolve


@pytest.fixture
def machine(monkeypatch):
    """Pretend a machine: the kinds of devices beside the CPU, and those that multiply bfloat16."""

    def pretend(devices=(), bfloat16=()):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in devices)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in devices)
        monkeypatch.setattr(number_format, "has_bfloat16", lambda device: device.type in bfloat16)

    return pretend


@pytest.mark.parametrize(
    ("devices", "bfloat16", "accelerator", "expected"),
    [
        ((), ("cpu",), "auto", "bf16-mixed"),
        ((), (), "auto", "32-true"),
        (("cuda",), ("cuda",), "auto", "bf16-mixed"),
        (("cuda",), ("cuda",), "gpu", "bf16-mixed"),
        (("cuda",), ("cuda",), "cuda", "bf16-mixed"),
        (("cuda",), ("cuda",), "cpu", "32-true"),  # what the other device can do does not count
        (("cuda",), ("cpu",), "auto", "32-true"),
        (("cuda",), ("cpu",), "cpu", "bf16-mixed"),
        (("mps",), ("cpu",), "auto", "32-true"),
        (("mps",), ("cpu",), "mps", "32-true"),
    ],
)
def test_auto(machine, devices, bfloat16, accelerator, expected):
    machine(devices, bfloat16)
    assert resolve("auto", accelerator) == expected


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "3-bit"])
@pytest.mark.parametrize("bfloat16", [(), ("cpu",)])
def test_a_named_format_is_kept(machine, precision, bfloat16):
    machine(bfloat16=bfloat16)
    assert resolve(precision, "auto") == precision


@pytest.mark.parametrize(
    ("precision", "bfloat16", "slow"),
    [
        ("32-true", (), False),
        ("bf16-mixed", ("cpu",), False),
        ("bf16-mixed", (), True),
        ("bf16-true", (), True),
        ("64-true", (), False),
    ],
)
def test_a_format_that_the_device_lacks_is_reported(machine, precision, bfloat16, slow):
    machine(bfloat16=bfloat16)
    warning = "; this device has no bfloat16 in hardware, so 32-true would be several times faster"
    assert describe(precision, "cpu") == f"Number format: {precision}{warning if slow else ''}"
