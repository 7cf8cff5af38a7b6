"""Resampling at exact positions, so that a pixel does not depend on the window that it is computed in.

GDAL's warper is not used here. Rasterio's `reproject` approximates positions, with an error that depends on the window;
in steep terrain that is metres of height. `WarpedVRT(tolerance=1e-6)` is exact, but has another rule of validity and is
slower for small windows, see docs/performance.md.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pyproj
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.geo.rasters.grid import crs_of, turn_of
from geocrodino.geo.rasters.window import Window

_AT_ONCE = 2**16  # positions whose neighbours are gathered at once: the arrays then stay in the processor's cache

Positions = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Rows and columns in source pixels, centre of the first pixel at 0, shapes that broadcast to the target's."""


def separable(grid: GeoBox, source: GeoBox) -> bool:
    """Whether the axes of two grids are parallel, so that rows depend on rows alone and columns on columns.

    Args:
        grid: A grid.
        source: Another one.

    Returns:
        True if both have one CRS and neither is rotated.
    """
    a, i = grid.affine, ~source.affine
    return bool(grid.crs == source.crs and a.b == a.d == i.b == i.d == 0)


def source_positions(grid: GeoBox, window: Window, source: GeoBox, parts: int = 1) -> Positions:
    """Where the centres of target pixels lie in a source raster.

    Args:
        grid: Target grid.
        window: Part of it.
        source: Grid of the source raster.
        parts: Each target pixel is split into ``parts`` x ``parts`` sub-pixels.

    Returns:
        Source rows and columns, float64, broadcasting to (H * parts, W * parts); infinite where a position has no
        image in the source's CRS.
    """
    rows = (np.arange(window.row_start * parts, window.row_stop * parts) + 0.5)[:, None] / parts
    cols = (np.arange(window.col_start * parts, window.col_stop * parts) + 0.5)[None, :] / parts
    a, i = grid.affine, ~source.affine
    if separable(grid, source):
        return i.e * (a.e * rows + a.f) + i.f - 0.5, i.a * (a.a * cols + a.c) + i.c - 0.5
    x, y = a.a * cols + a.b * rows + a.c, a.d * cols + a.e * rows + a.f
    if grid.crs != source.crs:
        x, y = _transformer(str(grid.crs), str(source.crs)).transform(x, y)
        x = _align_longitudes(source, x)
    return i.d * x + i.e * y + i.f - 0.5, i.a * x + i.b * y + i.c - 0.5


@lru_cache(maxsize=64)  # asked for at every read; pyproj's transformers may be shared between threads
def _transformer(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _align_longitudes(source: GeoBox, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same longitudes, counted as the source counts them: up to 181 degrees, say, or from 0 to 360."""
    crs = crs_of(source)
    if not crs.geographic:
        return x
    turn = turn_of(crs)
    middle, _ = source.affine @ (source.shape[1] / 2, source.shape[0] / 2)
    with np.errstate(invalid="ignore"):  # where there is no position
        away: NDArray[np.float64] = x - turn * np.round((x - middle) / turn)
    return away


def bounding_window(positions: Positions, shape: tuple[int, int]) -> Window | None:
    """Find the source pixels that bilinear interpolation at some positions touches.

    Args:
        positions: The positions; infinite ones are left out.
        shape: Rows and columns of the source.

    Returns:
        The smallest window that holds them; None if there are none.
    """
    limits = []
    for values, size in zip(positions, shape, strict=True):
        finite = values[np.isfinite(values)]
        if finite.size == 0:
            return None
        start, stop = max(0, math.floor(finite.min())), min(size, math.floor(finite.max()) + 2)
        if start >= stop:
            return None
        limits += [start, stop]
    return Window(*limits)


def bilinear(
    values: NDArray[np.float32], valid: NDArray[np.bool_], window: Window, positions: Positions
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Interpolate between valid pixels only.

    Args:
        values: Source values of ``window``, shape (B, h, w); what is invalid may be NaN.
        valid: Validity, shape (h, w).
        window: Which part of the source ``values`` holds.
        positions: Where to interpolate, broadcasting to (H, W).

    Returns:
        Values, float32, shape (B, H, W), NaN without a valid neighbour; share of the weight on valid pixels, float32,
        shape (H, W).
    """
    held = np.where(valid, values, 0).astype(np.float32, copy=False)
    shape = np.broadcast_shapes(positions[0].shape, positions[1].shape)
    total = np.zeros((len(values), *shape), np.float32)
    weight: NDArray[np.float32] = np.zeros(shape, np.float32)
    height, width = shape
    step = max(1, _AT_ONCE // max(1, width))
    for start in range(0, height, step):
        part = slice(start, start + step)
        places = [p[part] if len(p) == height else p for p in positions]
        _add_neighbours(held, valid, window, (places[0], places[1]), total[:, part], weight[part])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(total, weight, out=total), weight


def _add_neighbours(
    held: NDArray[np.float32],
    valid: NDArray[np.bool_],
    window: Window,
    positions: Positions,
    total: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> None:
    """Add the four neighbours of positions, times their shares, to ``total``, and the shares of valid ones."""
    rows, cols = (np.nan_to_num(p, nan=-9.0, posinf=-9.0, neginf=-9.0) for p in positions)
    low_r, low_c = np.floor(rows), np.floor(cols)
    for step_r in (0, 1):
        share_r = np.abs(1 - step_r - (rows - low_r)).astype(np.float32)
        r, in_r = _index(low_r + step_r, window.row_start, window.row_stop)
        for step_c in (0, 1):
            share_c = np.abs(1 - step_c - (cols - low_c)).astype(np.float32)
            c, in_c = _index(low_c + step_c, window.col_start, window.col_stop)
            share = share_r * share_c * (in_r & in_c & valid[r, c])
            weight += share
            for band, so_far in zip(held, total, strict=True):  # one at a time, to hold the gathered values of one
                np.add(so_far, band[r, c] * share, out=so_far)


def nearest(
    values: NDArray[np.float32], valid: NDArray[np.bool_], window: Window, positions: Positions
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Take the value of the pixel that a position lies in.

    Args:
        values: Source values of ``window``, float32, shape (B, h, w).
        valid: Validity, bool, shape (h, w).
        window: The part of the source that ``values`` holds.
        positions: Positions, broadcasting to (H, W).

    Returns:
        Values, float32, shape (B, H, W), NaN where invalid; validity, bool, shape (H, W).
    """
    rows, cols = (np.nan_to_num(p, nan=-9.0, posinf=-9.0, neginf=-9.0) for p in positions)
    # A little towards the upper left, so that the last bit does not decide positions on a pixel edge.
    r, in_r = _index(np.ceil(rows - 0.5 - 1e-6), window.row_start, window.row_stop)
    c, in_c = _index(np.ceil(cols - 0.5 - 1e-6), window.col_start, window.col_stop)
    ok = in_r & in_c & valid[r, c]
    return np.where(ok, values[:, r, c], np.nan).astype(np.float32, copy=False), ok


def block_mean(
    values: NDArray[np.float32], weight: NDArray[np.float32], parts: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Average sub-pixels, weighted by validity.

    Args:
        values: Values, float32, shape (B, H * parts, W * parts); NaN where invalid.
        weight: Weight of each sub-pixel, 0 to 1, float32, shape (H * parts, W * parts).
        parts: Sub-pixels along each side of a pixel.

    Returns:
        Means, float32, shape (B, H, W), NaN without any weight; mean weight, 0 to 1, float32, shape (H, W).
    """
    count, height, width = values.shape
    blocks = (count, height // parts, parts, width // parts, parts)
    weights = weight.reshape(blocks[1:])
    split = values.reshape(blocks)
    of_rows = np.zeros((count, blocks[1], blocks[3], parts), np.float32)
    share_of_rows = np.zeros(of_rows.shape[1:], np.float32)
    total, share = np.zeros(of_rows.shape[:3], np.float32), np.zeros(of_rows.shape[1:3], np.float32)
    # In a fixed order: the order of NumPy's sum depends on the shape, and so would the last bit.
    for row in range(parts):
        of_rows += np.nan_to_num(split[:, :, row]) * weights[:, row]
        share_of_rows += weights[:, row]
    for col in range(parts):
        total += of_rows[..., col]
        share += share_of_rows[..., col]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / share).astype(np.float32), (share / parts**2).astype(np.float32)


def block_majority(
    values: NDArray[np.float32], valid: NDArray[np.bool_], parts: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Find the most frequent valid value of sub-pixels, the smallest one of equally frequent ones.

    Args:
        values: Values, float32, shape (1, H * parts, W * parts).
        valid: Validity, bool, shape (H * parts, W * parts).
        parts: Sub-pixels along each side of a pixel.

    Returns:
        Values, float32, shape (1, H, W), NaN where invalid; validity: at least half of the sub-pixels are valid.
    """
    height, width = valid.shape
    blocks = (height // parts, parts, width // parts, parts)
    best = np.full((blocks[0], blocks[2]), np.nan, np.float32)
    most = np.zeros((blocks[0], blocks[2]), np.int32)
    for value in np.unique(values[0][valid]):
        count = (valid & (values[0] == value)).reshape(blocks).sum(axis=(1, 3))
        best[count > most] = value
        most = np.maximum(most, count)
    ok = valid.reshape(blocks).sum(axis=(1, 3)) * 2 >= parts**2
    best[~ok] = np.nan
    return best[None], ok


def _index(position: NDArray[np.float64], start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Positions as indices into a part that begins at ``start``, clipped, and whether they lay inside."""
    inside = (position >= start) & (position < stop)
    return (np.clip(position, start, stop - 1) - start).astype(np.intp), inside
