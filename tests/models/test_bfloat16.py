"""Which devices multiply bfloat16 in hardware, by what PyTorch says of them."""

import os
import subprocess
import sys

import pytest
import torch

from geocrodino.models import bfloat16
from geocrodino.models.bfloat16 import has_bfloat16

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch):
    """Pretend a processor with some units and a oneDNN that may use AVX-512."""

    def pretend(units, onednn=True):
        for unit in ("avx512_bf16", "amx_tile"):
            monkeypatch.setattr(torch.cpu, f"_is_{unit}_supported", lambda unit=unit: unit in units, raising=False)
        monkeypatch.setattr(bfloat16, "_onednn_has_bfloat16", lambda: onednn)

    return pretend


@pytest.mark.parametrize(
    ("units", "onednn", "expected"),
    [
        ({"avx512_bf16"}, True, True),
        ({"amx_tile"}, True, True),
        (set(), True, False),  # AVX-512 alone: oneDNN takes bfloat16 and converts it
        ({"avx512_bf16", "amx_tile"}, False, False),
    ],
)
def test_a_processor(processor, units, onednn, expected):
    processor(units, onednn)
    assert has_bfloat16(CPU) == expected


def test_a_torch_that_cannot_say_it(monkeypatch):
    for unit in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{unit}_supported", raising=False)
    assert not has_bfloat16(CPU)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert has_bfloat16(torch.device("cuda", 0)) == expected


def test_other_devices_have_none():
    assert not has_bfloat16(torch.device("mps"))


def test_a_limited_onednn_has_none():
    if not has_bfloat16(torch.device("cpu")):
        pytest.skip("this processor has no bfloat16 to limit")
    code = "import torch; from geocrodino.models.bfloat16 import has_bfloat16; print(has_bfloat16(torch.device('cpu')))"
    limited = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=limited, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
