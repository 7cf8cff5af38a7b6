"""The canvas on which the town is built, its hills and its river."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocrodino.town.noise import FloatGrid, octaves, smooth_noise

RIVER_SPACING_M = 900.0
"""Height of the canvas for each river."""

WATER_LEVEL_M = 171.3
"""Absolute height of the water surface."""


@dataclass(frozen=True)
class Canvas:
    """Working grid, larger than the image on every side. Positions are metres east and south of its corner.

    Attributes:
        rows: Number of rows.
        columns: Number of columns.
        pixel_m: Side of a pixel in metres.
        margin_px: Pixels between the edges of canvas and image.
    """

    rows: int
    columns: int
    pixel_m: float
    margin_px: int

    @classmethod
    def around(cls, size_px: int, pixel_m: float, margin_m: float) -> Canvas:
        """Create the canvas for a square image.

        Args:
            size_px: Side of the image in pixels.
            pixel_m: Side of a pixel in metres.
            margin_m: Margin on every side in metres.

        Returns:
            The canvas.
        """
        margin_px = round(margin_m / pixel_m)
        return cls(size_px + 2 * margin_px, size_px + 2 * margin_px, pixel_m, margin_px)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the image within the canvas."""
        m = self.margin_px
        return slice(m, self.rows - m), slice(m, self.columns - m)

    def coordinates(self) -> tuple[FloatGrid, FloatGrid]:
        """Compute the positions of the pixel centres.

        Returns:
            Metres east, float32, shape (1, columns), and metres south, float32, shape (rows, 1).
        """
        east = (np.arange(self.columns, dtype=np.float32) + 0.5) * self.pixel_m
        south = (np.arange(self.rows, dtype=np.float32) + 0.5) * self.pixel_m
        return east[None, :].astype(np.float32), south[:, None].astype(np.float32)

    def noise(self, rng: np.random.Generator, cell_m: float) -> FloatGrid:
        """Draw one octave of noise over the canvas.

        Args:
            rng: Source of the random numbers.
            cell_m: Distance between the knots in metres; at least one pixel is used.

        Returns:
            Field of standard deviation about 1, float32, shape (rows, columns).
        """
        return smooth_noise(rng, self.shape, max(cell_m / self.pixel_m, 1.0))

    def octaves(self, rng: np.random.Generator, *cells_m: float) -> FloatGrid:
        """Draw a sum of octaves of noise over the canvas.

        Args:
            rng: Source of the random numbers.
            *cells_m: Distance between the knots of each octave in metres; at least one pixel is used.

        Returns:
            Field of standard deviation about 1, float32, shape (rows, columns).
        """
        return octaves(rng, self.shape, [max(c / self.pixel_m, 1.0) for c in cells_m])

    def sample(self, field: NDArray[Any], east: NDArray[Any], south: NDArray[Any]) -> NDArray[Any]:
        """Read a field at the nearest pixels. Positions outside the canvas get the value at its edge.

        Args:
            field: Any dtype, shape (rows, columns).
            east: Metres east, any shape.
            south: Metres south, same shape or one that broadcasts.

        Returns:
            Values of the field, in the shape of the positions.
        """
        row = np.clip((south / self.pixel_m).astype(int), 0, self.rows - 1)
        column = np.clip((east / self.pixel_m).astype(int), 0, self.columns - 1)
        values: NDArray[Any] = field[row, column]
        return values


@dataclass(frozen=True)
class Terrain:
    """Bare ground and water.

    Attributes:
        ground_m: Height of the ground or the water surface in metres, float32, shape (rows, columns).
        bank_m: Distance to the river's edge in metres, negative in the water, float32, shape (rows, columns).
    """

    ground_m: FloatGrid
    bank_m: FloatGrid


def river_distance(rng: np.random.Generator, canvas: Canvas) -> FloatGrid:
    """Draw rivers, and compute the distance to the edge of the nearest one.

    Rivers run from west to east, one for every 900 m from north to south. Any part of the scene that extends from its
    northern to its southern edge therefore has water.

    Args:
        rng: Source of the random numbers.
        canvas: Working grid.

    Returns:
        Metres, negative in the water, float32, shape (rows, columns).
    """
    east, south = canvas.coordinates()
    height_m = canvas.rows * canvas.pixel_m
    count = max(1, round(height_m / RIVER_SPACING_M))
    wiggle = canvas.octaves(rng, 30, 9) * 1.6
    nearest = np.full(canvas.shape, np.inf, np.float32)
    for index in range(count):
        middle = height_m * (index + 0.5 + rng.uniform(-0.14, 0.14)) / count
        phase = rng.uniform(0, 2 * np.pi, 3)
        wave = east * (2 * np.pi / 410)
        amplitude = min(34.0, 0.06 * height_m / count)
        course = middle + amplitude * (np.sin(wave + phase[0]) + 0.4 * np.sin(2.3 * wave + phase[1]))
        slope = np.gradient(course[0], canvas.pixel_m)[None, :]
        half_width = 11.5 + 2.5 * np.sin(east / 47 + phase[2])
        distance = np.abs(south - course) / np.sqrt(1 + slope**2) - half_width
        nearest = np.minimum(nearest, distance.astype(np.float32))
    return (nearest + wiggle).astype(np.float32)


def build_terrain(rng: np.random.Generator, canvas: Canvas, relief_m: float) -> Terrain:
    """Draw rivers, and hills that flatten towards them. The banks are a few centimetres above the water.

    Args:
        rng: Source of the random numbers.
        canvas: Working grid.
        relief_m: Height of the hills above the river in metres.

    Returns:
        The terrain. All water is flat, at one level.
    """
    bank = river_distance(rng, canvas)
    hills = canvas.octaves(rng, 190, 85, 38)
    hills = relief_m * (0.45 + 0.22 * hills)
    dry = np.maximum(bank, 0)
    rise = 1 - np.exp(-((np.maximum(dry - 14, 0) / 95) ** 2))
    meadow = 0.25 * (1 - np.exp(-dry / 2.5)) + 0.05 * canvas.octaves(rng, 12, 5) * (1 - np.exp(-dry / 4))
    ground = WATER_LEVEL_M + np.maximum(meadow, 0.03) + rise * np.maximum(hills, -1.5)
    ground = np.where(bank < 0, WATER_LEVEL_M, ground)
    return Terrain(ground_m=ground.astype(np.float32), bank_m=bank)
