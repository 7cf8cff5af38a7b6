"""Polygons as pixel masks: by the centres of the pixels, or by their whole area."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geocrodino.geo.rasters.window import Window

_EDGE_PX = 1e-3  # polygons drawn along pixel edges count those pixels in
_STRIP_PX = 2**22  # pixels that are computed at a time


class AreaMask:
    """The pixels whose centres lie in polygons.

    A pixel has the same answer in every window, also where an edge runs through its centre: then the pixels below and
    to the right of the edge count.

    Args:
        polygons_px: Polygons, x in columns and y in rows of a grid, from its upper left corner.
    """

    def __init__(self, polygons_px: BaseGeometry) -> None:
        self._tree = shapely.STRtree(shapely.get_parts(polygons_px))

    @classmethod
    def on(cls, polygons: BaseGeometry, grid: GeoBox) -> AreaMask:
        """Make the mask of polygons in the CRS of a grid.

        Args:
            polygons: Polygons in the CRS of the grid.
            grid: The grid, with any affine transform.

        Returns:
            The mask in the pixels of the grid.
        """
        t = ~grid.affine
        return cls(affine_transform(polygons, (t.a, t.b, t.d, t.e, t.c, t.f)))

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Compute the mask of a window.

        Args:
            window: Part of the grid; it may reach outside.

        Returns:
            True where the centre of a pixel lies in a polygon, bool, shape (H, W).
        """
        height, width = window.shape
        inside = np.zeros((height, width), bool)
        rows = max(1, _STRIP_PX // max(1, width))
        for row in range(0, height, rows):
            strip = Window.at(window.row_start + row, window.col_start, (min(rows, height - row), width))
            inside[row : row + rows] = self._strip(strip)
        return inside

    def _strip(self, window: Window) -> NDArray[np.bool_]:
        r0, r1, c0, c1 = window
        near = self._tree.geometries[self._tree.query(shapely.box(c0, r0, c1, r1), predicate="intersects")]
        corners, ring = shapely.get_coordinates(shapely.get_rings(near), return_index=True)
        along = ring[1:] == ring[:-1]
        (xa, ya), (xb, yb) = corners[:-1][along].T, corners[1:][along].T
        # From the whole edge: with a part that was cut out, a centre on an edge would depend on the window.
        first, stop = (np.clip(np.ceil(of(ya, yb) - 0.5), r0, r1).astype(int) for of in (np.minimum, np.maximum))
        edge = np.repeat(np.arange(len(first)), stop - first)
        row = np.arange(len(edge)) + np.repeat(first - np.cumsum(stop - first) + stop - first, stop - first)
        x = xa[edge] + (row + 0.5 - ya[edge]) * ((xb - xa)[edge] / (yb - ya)[edge])
        crossed = np.zeros((r1 - r0, c1 - c0 + 1), np.int32)
        np.add.at(crossed, (row - r0, np.clip(np.ceil(x - 0.5), c0, c1).astype(int) - c0), 1)
        inside: NDArray[np.bool_] = crossed[:, :-1].cumsum(axis=1) % 2 == 1
        return inside


def inside_mask(polygon: BaseGeometry, grid: GeoBox) -> NDArray[np.bool_]:
    """Find the pixels that lie wholly inside a polygon.

    Args:
        polygon: In the grid's CRS.
        grid: A north-up grid.

    Returns:
        Bool, shape (H, W).
    """
    pixel = abs(grid.affine.a)
    grown = polygon.buffer(_EDGE_PX * pixel, join_style="mitre")
    around = shapely.box(*grid.boundingbox).buffer(2 * pixel)
    outside = around.difference(grown)
    if outside.is_empty:
        return np.ones(grid.shape, bool)
    burnt = rasterize([(outside, 1)], out_shape=grid.shape, transform=grid.affine, all_touched=True, dtype="uint8")
    inside: NDArray[np.bool_] = burnt == 0
    return inside
