"""Numbers of impossible heights, counted block by block, each pixel once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geocrodino.geo.rasters.grid import align_longitudes, crs_of
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.resample import bounding_window, source_positions
from geocrodino.geo.rasters.window import Window

_PIECE_PX = 1024  # of either grid: one may be much finer than the other

WHY_IMPOSSIBLE = (
    "read as missing: no ground lies so high or low, or a pixel jumps away from all its neighbours. If the value "
    "stands for missing data, tag it as nodata."
)
"""The end of a message on impossible heights."""


@dataclass(frozen=True)
class Impossible:
    """Impossible heights of one raster.

    Attributes:
        pixels: How many there are.
        low: The lowest of them, in the unit of the file.
        high: The highest.
    """

    pixels: int = 0
    low: float = np.inf
    high: float = -np.inf

    def as_list(self) -> list[float]:
        """List the attributes in order, as JSON can hold them.

        Returns:
            Number of pixels, lowest and highest value.
        """
        return [self.pixels, self.low, self.high]

    def add(self, other: Impossible) -> Impossible:
        """Add what was found in another part of the same raster.

        Args:
            other: What was found there.

        Returns:
            Both parts together.
        """
        return Impossible(self.pixels + other.pixels, min(self.low, other.low), max(self.high, other.high))

    def note(self, raster: RasterSource) -> str:
        """Write a note for the user.

        Args:
            raster: The raster.

        Returns:
            How many heights are impossible, their values, and what to do about them.
        """
        found = "1 impossible height" if self.pixels == 1 else f"{self.pixels:,} impossible heights"
        return f"{raster.name}: {found} ({self._values(raster)}), {WHY_IMPOSSIBLE}"

    def count_in(self, raster: RasterSource) -> str:
        """Count them in few words, for a list of rasters.

        Args:
            raster: The raster.

        Returns:
            How many heights are impossible, and their values.
        """
        return f"{self.pixels:,} px: {self._values(raster)}"

    def _values(self, raster: RasterSource) -> str:
        unit = f" {raster.unit}" if raster.unit else ""
        return (f"{self.low:.6g}" if self.low == self.high else f"{self.low:.6g} to {self.high:.6g}") + unit


def impossible_heights(
    raster: RasterSource, grid: GeoBox, window: Window, area: BaseGeometry | None = None
) -> Impossible:
    """Count the impossible heights of a raster whose pixel centres lie in a window of another grid.

    Args:
        raster: The heights.
        grid: The grid.
        window: Part of it; windows that do not overlap count no pixel twice.
        area: Count only within these polygons, in pixels of the grid; everywhere by default.

    Returns:
        What was found; nothing if the raster has no limits.

    Raises:
        RasterError: If the raster cannot be read there.
    """
    found = Impossible()
    if raster.limits is None:
        return found
    grid = align_longitudes(grid, raster.geobox)
    for part in window.blocks(_PIECE_PX):  # positions of a whole block would take much memory
        needed = part if raster.geobox == grid else _needed(raster, grid, part)
        for piece in () if needed is None else needed.blocks(_PIECE_PX):
            rows, cols, values = raster.impossible_px(piece)
            if rows.size:
                values = values[_centres_in(raster.geobox, rows, cols, grid, part, area)]
            if values.size:
                found = found.add(Impossible(values.size, float(values.min()), float(values.max())))
    return found


def total(notes: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, Impossible]:
    """Sum what blocks found, by role of the raster.

    Args:
        notes: For each block the lists of `Impossible.as_list` by role.

    Returns:
        The sum for each role.
    """
    sums: dict[str, Impossible] = {}
    for note in notes:
        for role, counted in note.items():
            pixels, low, high = counted
            sums[role] = sums.get(role, Impossible()).add(Impossible(int(pixels), low, high))
    return sums


def _needed(raster: RasterSource, grid: GeoBox, window: Window) -> Window | None:
    height, width = raster.geobox.shape
    # One pixel more: positions are those of centres, and half a pixel of the window lies beyond the outer ones.
    return bounding_window(source_positions(grid, window.grow(1), raster.geobox), (height, width))


def _centres_in(
    source: GeoBox,
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    grid: GeoBox,
    window: Window,
    area: BaseGeometry | None,
) -> NDArray[np.bool_]:
    """Which pixel centres of a grid lie in a window of another one, and in an area if there is one."""
    a = source.affine
    x, y = a.a * (cols + 0.5) + a.b * (rows + 0.5) + a.c, a.d * (cols + 0.5) + a.e * (rows + 0.5) + a.f
    if source.crs != grid.crs:
        transformer = pyproj.Transformer.from_crs(crs_of(source).wkt, crs_of(grid).wkt, always_xy=True)
        x, y = transformer.transform(x, y)
    i = ~grid.affine
    col, row = i.a * x + i.b * y + i.c, i.d * x + i.e * y + i.f
    rows_in = (row >= window.row_start) & (row < window.row_stop)
    inside = np.asarray(rows_in & (col >= window.col_start) & (col < window.col_stop))
    return inside if area is None else inside & np.asarray(shapely.contains_xy(area, col, row))
