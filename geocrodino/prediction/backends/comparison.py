"""Comparison of two backends, or two precisions, on a small tile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import ConfigError
from geocrodino.settings.modality import Modality

CHECK_SHAPE = (128, 160)
"""Rows and columns that are compared: multiples of every stride, and different, to notice swapped axes."""


ASKED_TOLERANCE = 0.25
"""Largest difference of a probability if the user requested half precision. bfloat16 differs by up to 0.1 with random
networks; a larger difference means an overflow."""


def check_tile(channels: int, trim_px: int) -> NDArray[np.float32]:
    """Random input of the comparison, the same in every call.

    Args:
        channels: Number of channels C.
        trim_px: Pixels on each side that the backend leaves out of its result.

    Returns:
        Standard normal values, float32, shape (C, H, W); the result has the rows and columns of `CHECK_SHAPE`.
    """
    height, width = (side + 2 * trim_px for side in CHECK_SHAPE)
    return np.random.default_rng(0).standard_normal((channels, height, width), np.float32)


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Compare two results.

    Args:
        found: Probabilities, shape (K, H, W).
        expected: Probabilities, shape (K, H, W).

    Returns:
        Largest difference of a probability, NaN if any is NaN, and share of pixels with another class, 0 to 1.
    """
    other = found.argmax(axis=0) != expected.argmax(axis=0)
    return float(np.abs(found - expected).max()), float(other.mean())


def too_coarse(modality: Modality, found: float) -> str:
    """Error text when half precision is too inaccurate.

    Args:
        modality: The modality of the branch.
        found: Largest difference of a probability.

    Returns:
        The text.
    """
    return (
        f"half precision is too coarse for the {modality} branch. Expected probabilities that differ by at most "
        f"{ASKED_TOLERANCE:g}, found {found:.2g}."
    )


def no_half_precision(device: str) -> ConfigError:
    """Error when half precision would not be faster.

    Args:
        device: Torch device.

    Returns:
        The error, to raise.
    """
    return ConfigError(
        f"`precision='half'`: {device} is not faster in half precision. Expected a CPU with bfloat16 (AVX-512) or a "
        "GPU of compute capability 7.0 or newer.\nUse `precision='full'`."
    )
