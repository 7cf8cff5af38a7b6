"""Smallest and largest values around a pixel, where some pixels are missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)


def opening(surface: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Erosion, then dilation by a square: what is narrower than the square is cut off.

    Args:
        surface: Heights, shape (H, W); ``inf`` marks missing pixels, which take no part.
        radius: The square has a side of ``2 * radius + 1`` pixels.

    Returns:
        Heights, float32, shape (H, W); ``inf`` where no pixel is within reach.
    """
    size = 2 * radius + 1
    low = ndimage.minimum_filter(surface, size, mode="constant", cval=np.inf)
    low[np.isinf(low)] = -np.inf
    high = ndimage.maximum_filter(low, size, mode="constant", cval=-np.inf)
    high[np.isinf(high)] = np.inf
    return np.asarray(high, np.float32)


def highest_neighbour(heights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find the highest of the eight values around each pixel.

    Args:
        heights: Heights, float32, shape (H, W); NaN where missing.

    Returns:
        Float32, shape (H, W). Missing neighbours are left out; ``-inf`` where all are missing.
    """
    known = np.where(np.isfinite(heights), heights, np.float32(-np.inf))
    found = ndimage.maximum_filter(known, footprint=_NEIGHBOURS, mode="constant", cval=-np.inf)
    return np.asarray(found, np.float32)
