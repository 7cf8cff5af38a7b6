"""Smooth random fields, at a cost per pixel that does not depend on their smoothness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

FloatGrid = NDArray[np.float32]


def _spline_basis(length: int, cell_px: float) -> sparse.csr_array:
    """Weights of the cubic B-spline at every pixel, shape (length, knots), four per row."""
    position = (np.arange(length) + 0.5) / cell_px
    knot = np.floor(position).astype(int)
    t = position - knot
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    rows = np.repeat(np.arange(length), 4)
    columns = (knot[:, None] + np.arange(4)).ravel()
    return sparse.csr_array((weights.ravel().astype(np.float32), (rows, columns)), shape=(length, int(knot[-1]) + 4))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> FloatGrid:
    """Draw one octave of noise: a cubic B-spline through random knots.

    Args:
        rng: Source of the random numbers.
        shape: Rows and columns.
        cell_px: Distance between the knots in pixels. Hills are about twice as wide.

    Returns:
        Field of mean about 0 and standard deviation about 1, float32.
    """
    rows, columns = (_spline_basis(n, cell_px) for n in shape)
    knots = rng.standard_normal((rows.shape[1], columns.shape[1]), np.float32)
    # The squared spline weights sum to 0.479 along an axis: the inverse restores unit variance.
    return np.asarray((rows @ knots) @ columns.T, np.float32) / np.float32(0.479)


def octaves(rng: np.random.Generator, shape: tuple[int, int], cells_px: Sequence[float]) -> FloatGrid:
    """Draw a sum of octaves of noise, each weighted by its cell size.

    Args:
        rng: Source of the random numbers.
        shape: Rows and columns.
        cells_px: Distance between the knots of each octave in pixels.

    Returns:
        Field of mean about 0 and standard deviation about 1, float32.
    """
    weights = np.asarray(cells_px, np.float32) / np.linalg.norm(cells_px)
    total = np.zeros(shape, np.float32)
    for weight, cell_px in zip(weights, cells_px, strict=True):
        total += weight * smooth_noise(rng, shape, cell_px)
    return total


def white_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatGrid:
    """Draw independent normal noise.

    Args:
        rng: Source of the random numbers.
        shape: Any shape.

    Returns:
        Field of mean 0 and standard deviation 1, float32.
    """
    return rng.standard_normal(shape, np.float32)
