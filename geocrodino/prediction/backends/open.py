"""Open an inference backend: PyTorch on any device, or OpenVINO on CPUs if it is installed.

Both give the same probabilities apart from rounding. OpenVINO is compared with PyTorch on a small tile each time it is
opened. Each call computes with one thread, so the result does not depend on the number of threads that call. A backend
is imported only when it is used: PyTorch takes seconds and several hundred megabytes, which a converted network does
not need.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import get_args

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BackendWarning, BundleError, ConfigError
from geocrodino.prediction.backends.comparison import no_half_precision
from geocrodino.prediction.backends.protocol import Backend
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import BackendName, Precision
from geocrodino.spelling import did_you_mean


def open_backend(
    bundle: Bundle,
    modality: Modality,
    *,
    name: BackendName = "auto",
    device: str = "cpu",
    workers: int = 1,
    temperature: float = 1.0,
    precision: Precision = "auto",
    unused_px: int = 0,
    batch: int = 1,
    takes_turns: bool = False,
    cache: Path | None = None,
) -> Backend:
    """Make a branch of a bundle ready to predict.

    Args:
        bundle: The trained networks.
        modality: The modality of the branch.
        name: The backend.
        device: Torch device.
        workers: Tiles computed at the same time, at least 1.
        temperature: Divisor of the logits, above 0.
        precision: Numbers to compute in.
        unused_px: Width of the margin of tiles whose result is not needed; less is computed there.
        batch: Tiles of one shape in one call of the network, collected from the calling threads; only with PyTorch.
        takes_turns: Whether other networks compute between its tiles. With OpenVINO, memory is then given back after
            each tile, which takes a tenth longer; PyTorch does so anyway.
        cache: Folder for networks converted to OpenVINO, ``$XDG_CACHE_HOME/geocrodino`` or ``~/.cache/geocrodino`` by
            default. If it cannot be written, each call converts again.

    Returns:
        The branch, ready to compute.

    Raises:
        BundleError: If the bundle has no such branch, or OpenVINO, requested by name, cannot run it or computes
            other probabilities than PyTorch, or half precision, requested by name, is too inaccurate, or there is no
            int8 network that can be used.
        ConfigError: If OpenVINO is requested by name and not installed, or with another device than the CPU, or with
            batches, or the processor has no half precision; int8 needs OpenVINO on the CPU.
        ValueError: If a name is unknown or a number is out of its range.

    Warns:
        BackendWarning: If ``auto`` takes PyTorch because OpenVINO cannot run the network or computes other
            probabilities.
    """
    if name not in get_args(BackendName):
        hint = did_you_mean(name, get_args(BackendName))
        raise ValueError(f"backend must be one of {', '.join(get_args(BackendName))}, found {name!r}.{hint}")
    if precision not in get_args(Precision):
        hint = did_you_mean(precision, get_args(Precision))
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, found {precision!r}.{hint}")
    if workers < 1 or batch < 1:
        raise ValueError(f"workers and batch must be at least 1, found workers {workers} and batch {batch}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be above 0, found {temperature}")
    bundle.require(modality)
    if precision == "int8":
        _require_int8(name, device, batch)
        from geocrodino.prediction.backends.int8 import open_int8

        return open_int8(
            bundle,
            modality,
            workers=workers,
            temperature=temperature,
            unused_px=unused_px,
            takes_turns=takes_turns,
        )

    def torch_backend() -> Backend:
        from geocrodino.prediction.backends.torch import open_torch

        return open_torch(
            bundle,
            modality,
            device=device,
            temperature=temperature,
            precision=precision,
            unused_px=unused_px,
            batch=batch,
        )

    if name == "torch" or (name == "auto" and (batch > 1 or not _on_cpu(device))):
        return torch_backend()
    from geocrodino.prediction.backends import openvino

    if name == "auto" and not openvino.installed():
        return torch_backend()
    _require_openvino(device, batch, installed=openvino.installed())
    half = precision == "half"
    if half and not openvino.has_half():
        if name == "openvino":
            raise no_half_precision(device)
        return torch_backend()
    try:
        return openvino.open_openvino(
            bundle,
            modality,
            workers=workers,
            temperature=temperature,
            half=half,
            unused_px=unused_px,
            takes_turns=takes_turns,
            cache=cache,
        )
    except openvino.UnusableError as error:
        message = f"{bundle.path}: OpenVINO cannot stand in for PyTorch with the {modality} branch: {error}"
        if name == "openvino":
            raise BundleError(f"{message}\nUse `backend='torch'`.") from error
        warnings.warn(f"{message}\nPyTorch is used instead and takes longer.", BackendWarning, stacklevel=2)
        return torch_backend()


def _require_int8(name: BackendName, device: str, batch: int) -> None:
    from geocrodino.prediction.backends import openvino

    if name == "torch":
        raise ConfigError(
            "`precision='int8'` needs OpenVINO. Expected backend openvino or auto, found torch.\n"
            "Use `backend='openvino'`, or `precision='full'`."
        )
    if not _on_cpu(device):
        raise ConfigError(
            f"`precision='int8'` is computed on the CPU. Expected device cpu, found {device}.\n"
            "Use `device='cpu'`, or `precision='half'`."
        )
    if not openvino.installed():
        raise ConfigError(
            "`precision='int8'` needs OpenVINO. Expected the package openvino, found none.\n"
            "Install it by pip install \"geocrodino[openvino]\", or use `precision='full'`."
        )
    _require_openvino(device, batch, installed=True)


def _on_cpu(device: str) -> bool:
    return device.partition(":")[0] == "cpu"


def _require_openvino(device: str, batch: int, *, installed: bool) -> None:
    if not _on_cpu(device):
        raise ConfigError(
            f"The backend openvino computes on the CPU. Expected device cpu, found {device}.\nUse `backend='torch'`."
        )
    if batch > 1:
        raise ConfigError(
            f"The backend openvino computes tiles side by side. Expected batch 1, found {batch}.\n"
            "Use `backend='torch'`, or leave `batch` out."
        )
    if not installed:
        raise ConfigError(
            "The backend openvino is not installed. Expected the package openvino, found none.\n"
            "Install it by pip install \"geocrodino[openvino]\", or use `backend='torch'`."
        )
