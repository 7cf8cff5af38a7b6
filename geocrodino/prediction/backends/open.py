"""What computes the classes of a tile: PyTorch on any device, OpenVINO on processors where it is installed.

Both give the same probabilities but for rounding, and OpenVINO is compared with PyTorch on a small tile each time that
it is opened. With one thread for each call, neither result depends on how many threads call. Each is imported where it
is asked for: PyTorch takes seconds and several hundred megabytes, which a network that was converted before can spare.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BackendWarning, BundleError, ConfigError
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import BackendName, Precision
from geocrodino.spelling import did_you_mean


class Backend(Protocol):
    """Computes what a network says of tiles; may be called from several threads at once.

    Attributes:
        name: ``torch`` or ``openvino``.
        number: What it computes in: ``float32``, ``float16`` or ``bfloat16``.
        trim_px: Pixels on each side of a tile that it gives no answer for.
    """

    name: BackendName
    number: str
    trim_px: int

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a tile.

        Args:
            values: Normalised channels, float32, shape (C, H, W), H and W multiples of the network's stride.

        Returns:
            softmax(logits / temperature), float32, shape (K, H - 2 * trim_px, W - 2 * trim_px), an array of the
            caller's own.
        """
        ...

    def classes(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Index of the most likely class at each pixel, the first of equals, without the way over probabilities.

        Args:
            values: As for the call.

        Returns:
            uint8, shape (H - 2 * trim_px, W - 2 * trim_px), an array of the caller's own.
        """
        ...


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
    cache: Path | None = None,
) -> Backend:
    """Make a branch of a bundle ready to predict.

    Args:
        bundle: The trained networks.
        modality: Which of them to use.
        name: What computes.
        device: Torch device.
        workers: Tiles computed at the same time.
        temperature: Divides the logits, above 0.
        precision: What to compute in.
        unused_px: Margin of the tiles whose answer is not wanted; what can be saved there is not computed.
        batch: Tiles of one shape in one call of the network, gathered from the threads that call; PyTorch alone.
        cache: Folder for networks converted to OpenVINO, ``$XDG_CACHE_HOME/geocrodino`` or ``~/.cache/geocrodino`` by
            default. Where nothing can be written, each call converts again.

    Raises:
        BundleError: If the bundle has no such branch, or OpenVINO, asked for by name, cannot run it or computes
            other probabilities than PyTorch, or half precision, asked for, changes them beyond use.
        ConfigError: If OpenVINO is asked for by name and not installed, or for another device than the CPU, or for
            batches, or the processor has no half precision.
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
            cache=cache,
        )
    except openvino.UnusableError as error:
        told = f"{bundle.path}: OpenVINO cannot stand in for PyTorch with the {modality} branch: {error}"
        if name == "openvino":
            raise BundleError(f"{told}\nUse --backend torch.") from error
        warnings.warn(f"{told}\nPyTorch is used instead and takes longer.", BackendWarning, stacklevel=2)
        return torch_backend()


CHECK_SHAPE = (128, 160)
"""Rows and columns that are compared: multiples of every stride, and sides that cannot be taken for each other."""

ASKED_TOLERANCE = 0.25
"""Largest difference of a probability in half precision that was asked for. bfloat16 differs by up to 0.1 with random
networks; beyond this something overflows."""


def check_tile(channels: int, trim_px: int) -> NDArray[np.float32]:
    """Random values of a tile whose answer has the shape that is compared, float32, shape (C, H, W)."""
    height, width = (side + 2 * trim_px for side in CHECK_SHAPE)
    return np.random.default_rng(0).standard_normal((channels, height, width), np.float32)


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Largest difference of a probability, NaN if there is one, and share of pixels of another class."""
    other = found.argmax(axis=0) != expected.argmax(axis=0)
    return float(np.abs(found - expected).max()), float(other.mean())


def too_coarse(modality: Modality, found: float) -> str:
    """What is said of half precision that is of no use."""
    return (
        f"half precision is too coarse for the {modality} branch. Expected probabilities that differ by at most "
        f"{ASKED_TOLERANCE:g}, found {found:.2g}."
    )


def no_half_precision(device: str) -> ConfigError:
    """What is said where half precision would save nothing."""
    return ConfigError(
        f"--precision half: {device} has no half precision that is quicker. Expected a CPU with bfloat16 (AVX-512) or "
        "a GPU of compute capability 7.0 or newer.\nUse --precision full."
    )


def _on_cpu(device: str) -> bool:
    return device.partition(":")[0] == "cpu"


def _require_openvino(device: str, batch: int, *, installed: bool) -> None:
    if not _on_cpu(device):
        raise ConfigError(
            f"The backend openvino computes on the CPU. Expected device cpu, found {device}.\nUse --backend torch."
        )
    if batch > 1:
        raise ConfigError(
            f"The backend openvino computes tiles side by side. Expected batch 1, found {batch}.\n"
            "Use --backend torch, or leave --batch out."
        )
    if not installed:
        raise ConfigError(
            "The backend openvino is not installed. Expected the package openvino, found none.\n"
            'Install it by pip install "geocrodino[openvino]", or use --backend torch.'
        )
