"""Hills, the river and the canvas on which the town is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocrodino.town.noise import FloatGrid, octaves, smooth_noise

RIVER_SPACING_M = 900.0
WATER_LEVEL_M = 171.3


@dataclass(frozen=True)
class Canvas:
    """Working grid, larger than the image on every side, in metres east and south of its corner."""

    rows: int
    columns: int
    pixel_m: float
    margin_px: int

    @classmethod
    def around(cls, size_px: int, pixel_m: float, margin_m: float) -> Canvas:
        """Canvas for a square image with a margin around it."""
        margin_px = round(margin_m / pixel_m)
        return cls(size_px + 2 * margin_px, size_px + 2 * margin_px, pixel_m, margin_px)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def inside(self) -> tuple[slice, slice]:
        """The image within the canvas."""
        m = self.margin_px
        return slice(m, self.rows - m), slice(m, self.columns - m)

    def coordinates(self) -> tuple[FloatGrid, FloatGrid]:
        """Pixel centres: metres east, shape (1, columns), and metres south, shape (rows, 1)."""
        east = (np.arange(self.columns, dtype=np.float32) + 0.5) * self.pixel_m
        south = (np.arange(self.rows, dtype=np.float32) + 0.5) * self.pixel_m
        return east[None, :].astype(np.float32), south[:, None].astype(np.float32)

    def noise(self, rng: np.random.Generator, cell_m: float) -> FloatGrid:
        """One octave of noise over the canvas."""
        return smooth_noise(rng, self.shape, max(cell_m / self.pixel_m, 1.0))

    def octaves(self, rng: np.random.Generator, *cells_m: float) -> FloatGrid:
        """Several octaves of noise over the canvas."""
        return octaves(rng, self.shape, [max(c / self.pixel_m, 1.0) for c in cells_m])

    def sample(self, field: NDArray[Any], east: NDArray[Any], south: NDArray[Any]) -> NDArray[Any]:
        """Values of a field at the nearest pixels; positions outside take the border's value."""
        row = np.clip((south / self.pixel_m).astype(int), 0, self.rows - 1)
        column = np.clip((east / self.pixel_m).astype(int), 0, self.columns - 1)
        values: NDArray[Any] = field[row, column]
        return values


@dataclass(frozen=True)
class Terrain:
    """Bare ground and water.

    Attributes:
        ground_m: Height of the ground or the water surface, float32 (rows, columns).
        bank_m: Distance to the river's edge, negative in the water, float32 (rows, columns).
    """

    ground_m: FloatGrid
    bank_m: FloatGrid


def river_distance(rng: np.random.Generator, canvas: Canvas) -> FloatGrid:
    """Distance to the edge of the nearest river, negative in the water.

    Rivers run from west to east, one for every 900 m from north to south, so that every part of the
    scene that reaches from its northern to its southern end has water.
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
    """Hills that flatten towards the river, whose banks lie a hand above the water.

    Args:
        rng: Source of the random numbers.
        canvas: Working grid.
        relief_m: Height of the hills above the river.

    Returns:
        The terrain; water is flat at one level.
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
