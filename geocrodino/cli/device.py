"""The device that a prediction computes on."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from pathlib import Path

from geocrodino.errors import ConfigError
from geocrodino.settings.prediction import BackendName, Execution
from geocrodino.spelling import did_you_mean


def on_device(execution: Execution) -> Execution:
    """Choose the device of a prediction.

    Raises:
        ConfigError: If the device that is named cannot be used.
    """
    # int8 is computed on the CPU, as OpenVINO is
    backend: BackendName = "openvino" if execution.precision == "int8" else execution.backend
    return replace(execution, device=_device(execution.device, backend))


def _device(name: str, backend: BackendName) -> str:
    if name == "cpu" or (name == "auto" and not (backend in {"auto", "torch"} and _has_gpu_driver())):
        return "cpu"
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).partition("\n")[0]
        known = ("auto", "cpu", "cuda", "mps")
        hint = "" if name.partition(":")[0] in known else did_you_mean(name, known)
        raise ConfigError(f"--device {name} cannot be used here: {first}\nUse --device cpu or auto.{hint}") from error
    return name


def _has_gpu_driver() -> bool:
    """Whether a GPU driver is installed. Asking PyTorch would take seconds for its import."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()  # the driver of AMD GPUs
    return True
