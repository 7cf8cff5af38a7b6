"""Reading a raster on another grid, by exact positions; a pixel does not depend on the window that it is read with."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.geo.rasters.grid import SAME_SIZE_TOLERANCE, align_longitudes, pixel_offset, pixel_size_m
from geocrodino.geo.rasters.protocol import Kind, Raster
from geocrodino.geo.rasters.resample import (
    bilinear,
    block_majority,
    block_mean,
    bounding_window,
    nearest,
    separable,
    source_positions,
)
from geocrodino.geo.rasters.window import Window

AGGREGATE_FROM = 1.5
"""Target pixels at least this many times larger than those of the source take their mean or majority."""

_SUB_PIXELS = 2**20  # more are not held at a time: a pixel of 30 m has 3600 of 0.5 m


def read_on_grid(
    raster: Raster, grid: GeoBox, window: Window, bands: tuple[int, ...], kind: Kind
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read a window of a grid, resampling where the grid is not the raster's own.

    Values are interpolated bilinearly, or averaged where the grid's pixels are at least 1.5 times larger;
    classes are taken from the nearest pixel, or the most frequent one.

    Args:
        raster: The raster.
        grid: Grid of the result.
        window: Part of it; what lies outside the raster is invalid.
        bands: One-based band numbers.
        kind: Whether values may be interpolated.

    Returns:
        Values, float32, shape (bands, H, W), NaN where invalid; validity, bool, shape (H, W): at least half of a
        pixel's weight is valid.

    Raises:
        RasterError: If a file cannot be read there.
    """
    grid = align_longitudes(grid, raster.geobox)
    offset = pixel_offset(grid, raster.geobox)
    if offset is not None:
        return raster.read_own(window.shift(*offset), bands)
    # Sub-pixels as fine as the source's own, where the target's pixels are markedly larger.
    ratio = max(resampling_ratio(grid, raster.geobox))
    parts = math.ceil(ratio - SAME_SIZE_TOLERANCE) if ratio >= AGGREGATE_FROM else 1
    # Arrays of positions, shares and gathered values are several times as large as the result.
    pieces = _pieces(window, max(1, _SUB_PIXELS // parts**2), rows_alone=parts <= 2 and separable(grid, raster.geobox))
    if len(pieces) == 1:
        return _resampled(raster, grid, window, bands, kind, parts)
    values, valid = np.empty((len(bands), *window.shape), np.float32), np.empty(window.shape, bool)
    for piece in pieces:
        place = piece.within(window).slices
        values[:, *place], valid[place] = _resampled(raster, grid, piece, bands, kind, parts)
    return values, valid


def _resampled(
    raster: Raster, grid: GeoBox, window: Window, bands: tuple[int, ...], kind: Kind, parts: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read a window at once, each of its pixels split into ``parts`` x ``parts``; result as for `read_on_grid`."""
    positions = source_positions(grid, window, raster.geobox, parts)
    needed = bounding_window(positions, (raster.geobox.shape[0], raster.geobox.shape[1]))
    if needed is None:
        return np.full((len(bands), *window.shape), np.nan, np.float32), np.zeros(window.shape, bool)
    values, valid = raster.read_own(needed, bands)
    if kind == "categorical":
        values, valid = nearest(values, valid, needed, positions)
        return (values, valid) if parts == 1 else block_majority(values, valid, parts)
    values, weight = bilinear(values, valid, needed, positions)
    if parts > 1:
        values, weight = block_mean(values, weight, parts)
    valid = weight >= 0.5
    values[:, ~valid] = np.nan
    return values, valid


def _pieces(window: Window, most: int, *, rows_alone: bool) -> list[Window]:
    """Cut a window into halves until none has more pixels than ``most``.

    Whole rows are the best pieces where grids are parallel, because files store rows of tiles or whole rows. In other
    grids the box around a long piece holds mostly pixels that it does not need, and very coarse pixels leave few rows;
    halves of the longer side stay compact.
    """
    if window.pixels <= most or max(window.shape) == 1:
        return [window]
    height, width = window.shape
    if height > 1 and (rows_alone or height >= width):
        middle = (window.row_start + window.row_stop) // 2
        halves = (window._replace(row_stop=middle), window._replace(row_start=middle))
    else:
        middle = (window.col_start + window.col_stop) // 2
        halves = (window._replace(col_stop=middle), window._replace(col_start=middle))
    return [piece for half in halves for piece in _pieces(half, most, rows_alone=rows_alone)]


@lru_cache(maxsize=256)
def resampling_ratio(target: GeoBox, source: GeoBox) -> tuple[float, float]:
    """Compare the pixel sizes of two grids.

    Args:
        target: A grid.
        source: Another one.

    Returns:
        Pixels of ``source`` that a pixel of ``target`` spans, along columns and along rows.
    """
    wide, high = pixel_size_m(target)
    source_wide, source_high = pixel_size_m(source)
    return wide / source_wide, high / source_high
