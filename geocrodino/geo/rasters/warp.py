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
    source_positions,
)
from geocrodino.geo.rasters.window import Window

AGGREGATE_FROM = 1.5
"""Target pixels at least this many times larger than those of the source take their mean or majority."""

_SUB_PIXELS = 2**22  # more are not held at a time: a pixel of 30 m has 3600 of 0.5 m


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
    if parts > 1 and window.pixels > max(1, _SUB_PIXELS // parts**2):
        halves, axis = _halves(window)
        read = [raster.read(grid, half, bands=bands, kind=kind) for half in halves]
        return np.concatenate([v for v, _ in read], axis), np.concatenate([ok for _, ok in read], axis)
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


def _halves(window: Window) -> tuple[tuple[Window, Window], int]:
    """The two halves of a window across its longer side, and the axis along which they join."""
    height, width = window.shape
    if width > height:
        middle = (window.col_start + window.col_stop) // 2
        return (window._replace(col_stop=middle), window._replace(col_start=middle)), -1
    middle = (window.row_start + window.row_stop) // 2
    return (window._replace(row_stop=middle), window._replace(row_start=middle)), -2


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
