"""Comparison of two backends, or two precisions, on a small tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import ConfigError
from geocrodino.settings.modality import Modality

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
        f"`precision='half'`: {device} is not faster in half precision. Expected a CPU with bfloat16 (AVX-512) or a "
        "GPU of compute capability 7.0 or newer.\nUse `precision='full'`."
    )
