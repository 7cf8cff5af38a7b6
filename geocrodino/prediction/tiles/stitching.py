"""Join the results of tiles into the result of a window.

The weights of all tiles add up to one at every pixel by construction: no division is needed, every pixel has a weight,
and a constant stays constant. At the border of the scene there is no neighbour, so there is no ramp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geocrodino.geo.rasters.window import Window
from geocrodino.prediction.tiles.lattice import TileIndex, TileLattice
from geocrodino.prediction.tiles.store import Tile

Number = TypeVar("Number", np.float32, np.uint8)
"""Type of the result of a tile: probabilities, or classes, which cannot be mixed."""


def axis_weights(lattice: TileLattice, axis: int, tile: int, start: int, stop: int) -> NDArray[np.float32]:
    """Weights of one tile along one axis.

    Args:
        lattice: The tiles.
        axis: 0 for rows, 1 for columns.
        tile: Number of the tile along the axis.
        start: First pixel.
        stop: Pixel after the last one.

    Returns:
        Weights in [0, 1], float32, shape (stop - start,): 0 outside the support, 1 in the middle of the core, linear
        between, one half at the common edge of two cores.
    """
    centres = np.arange(start, stop, dtype=np.float64) + 0.5
    rise = np.ones_like(centres) if tile == 0 else _ramp(centres, tile * lattice.core_px, lattice.ramp_px)
    if tile + 1 < lattice.count[axis]:
        rise = rise - _ramp(centres, (tile + 1) * lattice.core_px, lattice.ramp_px)
    return rise.astype(np.float32)


def stitch(lattice: TileLattice, window: Window, source: Callable[[TileIndex], Tile]) -> NDArray[Number]:
    """Join the results of tiles over a window of the scene.

    Args:
        lattice: The tiles.
        window: Pixels inside the scene.
        source: Gives the result of a tile over its support, shape (B, H, W), float32 if tiles are mixed, in memory or
            in a file; called once for each tile that covers part of the window, row by row.

    Returns:
        The result over the window, shape (B, H, W), possibly a view of a tile. The value of a pixel does not depend on
        the window.

    Raises:
        ValueError: If the window is empty or outside the scene, or a tile has the wrong shape, or a type that cannot be
            mixed.
    """
    window = Window(*window)
    total: NDArray[Number] | None = None
    for index in lattice.tiles(window):
        tile = source(index)
        support = lattice.support(index)
        if tile.shape[1:] != support.shape:
            raise ValueError(f"tile {index}: expected (B, {', '.join(map(str, support.shape))}), found {tile.shape}")
        shared: Window = support.intersect(window)
        rows, cols = shared.within(support).slices
        part: NDArray[Number] = tile[:, rows, cols]
        if lattice.ramp_px == 0 and shared == window:
            return part  # one tile covers the window, and nothing is mixed
        if total is None:
            total = np.zeros((tile.shape[0], *window.shape), tile.dtype)
        place = (slice(None), *shared.within(window).slices)
        if lattice.ramp_px == 0:
            total[place] = part
            continue
        if tile.dtype != np.float32:
            raise ValueError(f"tile {index}: expected float32, found {tile.dtype}, which cannot be mixed")
        weights = np.outer(
            axis_weights(lattice, 0, index[0], shared.row_start, shared.row_stop),
            axis_weights(lattice, 1, index[1], shared.col_start, shared.col_stop),
        ).astype(np.float32, copy=False)
        np.add(total[place], weights * part, out=total[place])
    if total is None:
        raise ValueError(f"no tile answers for window {window}")
    return total


def _ramp(centres: NDArray[np.float64], edge: int, half_width: int) -> NDArray[np.float64]:
    """0 before the edge, 1 after it, linear within ``half_width`` of it."""
    if half_width == 0:
        return (centres > edge).astype(np.float64)
    return np.clip((centres - edge + half_width) / (2 * half_width), 0.0, 1.0)
