"""Cells from which the ground is estimated, each computed once from its pixels.

The ground of a window depends on the surface some 220 m around it. With pixels of 5 cm these are a hundred times the
pixels of a window of 1024 px, but only a few hundred cells of 1 m: so cells are kept, and pixels read once.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.geo.terrain import lowest_cells

FEWEST_PX = 4
"""Pixels along the side of a cell from which cells are kept; larger pixels are as quickly read again."""

_BLOCK_PX = 1024  # side of the blocks in which cells are computed
_KEPT_BYTES = 1 << 26

Read = Callable[[Window], NDArray[np.float32]]
"""Function that reads the surface in a window of the grid, m, float32, shape (H, W), NaN where there is none."""


class _Key(NamedTuple):
    raster: int
    grid: GeoBox
    factor: int
    metres: float
    row: int
    column: int


class GroundCells:
    """Cells of the rasters that were read last, in bounded memory; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, NDArray[np.float32]] = OrderedDict()
        self._bytes = 0
        self._known: set[int] = set()
        self._gone: deque[int] = deque()  # rasters may be collected at any moment, also while the lock is held

    def read(
        self, raster: RasterSource, grid: GeoBox, factor: int, metres: float, window: Window, read: Read
    ) -> NDArray[np.float32]:
        """Compute the lowest height of every cell of a window, or take what is kept.

        Args:
            raster: The surface model. Its file must not change while it is used.
            grid: The grid.
            factor: Pixels along the side of a cell.
            metres: Metres in one unit of the heights.
            window: Pixels of the grid; it may reach outside.
            read: How pixels are read.

        Returns:
            Heights, m, float32, shape (cells, cells), infinite where there are none: all cells that the window touches,
            laid out from the origin of the grid.
        """
        top, left = window.row_start // factor, window.col_start // factor
        bottom, right = -(-window.row_stop // factor), -(-window.col_stop // factor)
        out = np.empty((bottom - top, right - left), np.float32)
        side = max(1, _BLOCK_PX // factor)
        for row in range(math.floor(top / side), math.ceil(bottom / side)):
            for column in range(math.floor(left / side), math.ceil(right / side)):
                block = self._block(raster, grid, _Key(id(raster), grid, factor, metres, row, column), side, read)
                r0, r1 = max(top, row * side), min(bottom, (row + 1) * side)
                c0, c1 = max(left, column * side), min(right, (column + 1) * side)
                out[r0 - top : r1 - top, c0 - left : c1 - left] = block[
                    r0 - row * side : r1 - row * side, c0 - column * side : c1 - column * side
                ]
        return out

    def _block(self, raster: RasterSource, grid: GeoBox, key: _Key, side: int, read: Read) -> NDArray[np.float32]:
        with self._lock:
            self._forget_gone()
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            if key.raster not in self._known:
                self._known.add(key.raster)
                weakref.finalize(raster, self._gone.append, key.raster).atexit = False
        px = side * key.factor
        window = Window.at(key.row * px, key.column * px, (px, px))
        inside = window.intersect(Window.of(grid.shape))
        found = np.full((side, side), np.inf, np.float32)
        if inside.pixels or raster.geobox != grid:  # a raster may be larger than a grid that is a part of it
            found = lowest_cells(read(window), key.factor)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = found
                self._bytes += found.nbytes
            while self._bytes > _KEPT_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return found

    def _forget_gone(self) -> None:
        while self._gone:
            raster = self._gone.popleft()
            self._known.discard(raster)
            for key in [key for key in self._kept if key.raster == raster]:
                self._bytes -= self._kept.pop(key).nbytes
