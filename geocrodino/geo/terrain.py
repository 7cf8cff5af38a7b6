"""From a surface model to what a network reads: height above ground, slope, absolute height.

All functions use a bounded neighbourhood, so that a pixel's value does not depend on the window in which it is
computed. Heights are in metres.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geocrodino.geo.rasters.morphology import opening
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.ground import FILL_REACH_STD, GroundFilter, whole_cells

_Value = TypeVar("_Value", bound=np.generic)


def ground_surface(
    surface_m: NDArray[np.float32],
    settings: GroundFilter,
    pixel_m: float,
    anchor: tuple[int, int] = (0, 0),
    trim_px: int = 0,
) -> NDArray[np.float32]:
    """Ground under a surface model.

    Args:
        surface_m: Surface heights in metres, float32, shape (H, W), NaN where there is none.
        settings: The filter.
        pixel_m: Pixel size, metres.
        anchor: Row and column of the first pixel in its grid: cells are laid out from the grid's own origin.
        trim_px: Pixels along the edge whose ground is not wanted, which saves time.

    Returns:
        Ground heights in metres, float32, shape (H - 2 * trim_px, W - 2 * trim_px); NaN where no surface is within
        reach. True only at least ``settings.halo_px`` pixels inside the edge of ``surface_m``.
    """
    factor = settings.factor(pixel_m)
    cells, _ = _cells_of(surface_m, factor, anchor, lowest=True)
    return ground_of_cells(cells, settings, pixel_m, anchor, surface_m.shape, trim_px)


def lowest_cells(surface_m: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Find the lowest height of each cell.

    Args:
        surface_m: Surface heights in metres, float32, shape (H, W), NaN where there is none; both sides are multiples
            of ``factor``.
        factor: Pixels along the side of a cell.

    Returns:
        Heights in metres, float32, shape (H / factor, W / factor), infinite where there are none.
    """
    return _cells_of(surface_m, factor, (0, 0), lowest=True)[0]


def ground_of_cells(
    cells: NDArray[np.float32],
    settings: GroundFilter,
    pixel_m: float,
    anchor: tuple[int, int],
    shape: tuple[int, ...],
    trim_px: int = 0,
) -> NDArray[np.float32]:
    """Ground of pixels from the lowest heights of cells.

    Args:
        cells: Lowest height of each cell that the window touches, m, float32, infinite where there are none.
        settings: The filter.
        pixel_m: Pixel size, metres.
        anchor: Row and column of the window's first pixel in its grid.
        shape: Height and width of the window, px.
        trim_px: Pixels along the edge whose ground is not wanted.

    Returns:
        As for `ground_surface`.
    """
    factor = settings.factor(pixel_m)
    before = (anchor[0] % factor, anchor[1] % factor)
    ground, cut = _cell_ground(cells, settings, factor * pixel_m, trim_px // factor)
    return _pixels_of(ground, factor, before, shape, trim_px, cut)


def slope_deg(surface_m: NDArray[np.float32], pixel_m: tuple[float, float]) -> NDArray[np.float32]:
    """Steepest slope by central differences.

    Args:
        surface_m: Heights in metres, float32, shape (H, W), NaN where there is none.
        pixel_m: Pixel width and height, metres.

    Returns:
        Slope in degrees, 0 to 90, float32, shape (H, W); NaN where a pixel or all its neighbours along an axis are
        missing. One missing neighbour is replaced by the pixel itself.
    """
    squares = np.zeros(surface_m.shape, np.float32)
    for axis, step in ((0, pixel_m[1]), (1, pixel_m[0])):
        ahead, behind = (_shifted(surface_m, axis, by) for by in (1, -1))
        run = (np.isfinite(ahead).astype(np.float32) + np.isfinite(behind)) * np.float32(step)
        rise = np.where(np.isfinite(ahead), ahead, surface_m) - np.where(np.isfinite(behind), behind, surface_m)
        with np.errstate(invalid="ignore", divide="ignore"):
            squares += np.square(rise / run)
    squares[~np.isfinite(surface_m)] = np.nan
    return np.degrees(np.arctan(np.sqrt(squares))).astype(np.float32)


def topographic_position(
    ground_m: NDArray[np.float32], pixel_m: float, sigma_m: float, anchor: tuple[int, int] = (0, 0), trim_px: int = 0
) -> NDArray[np.float32]:
    """Height of the ground above the mean of the ground around it: water and hollows are negative, ridges positive.

    Args:
        ground_m: Ground heights in metres, float32, shape (H, W), NaN where there are none.
        pixel_m: Pixel size, metres.
        sigma_m: Standard deviation of the Gaussian that weighs the surroundings, metres.
        anchor: Row and column of the first pixel in its grid: cells are laid out from the grid's own origin.
        trim_px: Pixels along the edge whose position is not wanted, which saves time.

    Returns:
        Metres, float32, shape (H - 2 * trim_px, W - 2 * trim_px), NaN where the ground is. True only at least
        ``position_halo_px`` pixels inside the edge of ``ground_m``.

    References:
        Weiss (2001). Topographic position and landforms analysis. ESRI User Conference, poster.
    """
    factor = _position_factor(pixel_m, sigma_m)
    cells, before = _cells_of(ground_m, factor, anchor)
    known = np.isfinite(cells)
    sigma = sigma_m / (factor * pixel_m)
    total = ndimage.gaussian_filter(np.where(known, cells, 0).astype(np.float64), sigma, mode="constant", truncate=3)
    weight = ndimage.gaussian_filter(known.astype(np.float64), sigma, mode="constant", truncate=3)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(weight > 0, total / weight, np.nan).astype(np.float32)
    return inner(ground_m, trim_px) - _pixels_of(mean, factor, before, ground_m.shape, trim_px)


def position_halo_px(pixel_m: float, sigma_m: float) -> int:
    """Compute how far a topographic position sees.

    Args:
        pixel_m: Pixel size, metres.
        sigma_m: Standard deviation of the Gaussian, metres.

    Returns:
        Pixels around a window that its topographic position depends on.
    """
    factor = _position_factor(pixel_m, sigma_m)
    return (math.ceil(3 * sigma_m / (factor * pixel_m)) + 2) * factor


def inner(values: NDArray[_Value], trim_px: int) -> NDArray[_Value]:
    """Cut pixels off along the edge.

    Args:
        values: Values, shape (H, W).
        trim_px: Pixels to cut off on each side.

    Returns:
        Values, shape (H - 2 * trim_px, W - 2 * trim_px), a view.
    """
    return values[trim_px : values.shape[0] - trim_px, trim_px : values.shape[1] - trim_px]


def _position_factor(pixel_m: float, sigma_m: float) -> int:
    # Cells of an eighth of the width change the mean by millimetres and take a fraction of the time.
    return max(1, math.floor(sigma_m / 8 / pixel_m))


def _shifted(values: NDArray[np.float32], axis: int, by: int) -> NDArray[np.float32]:
    out = np.full_like(values, np.nan)
    to, of = [slice(None)] * 2, [slice(None)] * 2
    to[axis], of[axis] = (slice(None, -1), slice(1, None)) if by > 0 else (slice(1, None), slice(None, -1))
    out[tuple(to)] = values[tuple(of)]
    return out


def _cells_of(
    values: NDArray[np.float32], factor: int, anchor: tuple[int, int], *, lowest: bool = False
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Lowest or mean value of ``factor`` x ``factor`` pixels (missing: infinite or NaN); pixels added in front."""
    before = (anchor[0] % factor, anchor[1] % factor)
    pads = [(b, -(size + b) % factor) for size, b in zip(values.shape, before, strict=True)]
    if lowest:
        return _lowest_of(values, factor, pads), before
    padded = np.pad(values, pads, constant_values=np.nan)
    height, width = padded.shape
    blocks = padded.reshape(height // factor, factor, width // factor, factor)
    known = np.isfinite(blocks)
    with np.errstate(invalid="ignore"):
        # In double precision: heights above the sea would cost the digits that small differences need.
        total = np.where(known, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
        return (total / known.sum(axis=(1, 3))).astype(np.float32), before


def _lowest_of(values: NDArray[np.float32], factor: int, pads: list[tuple[int, int]]) -> NDArray[np.float32]:
    """Lowest value of each cell, infinite where there are none; ``pads``: pixels missing before and after each axis."""
    shape = [size + sum(pad) for size, pad in zip(values.shape, pads, strict=True)]
    out = np.full((shape[0] // factor, shape[1] // factor), np.inf, np.float32)
    known = np.isfinite(values)
    held = _box(known)
    if not held.pixels:
        return out
    (top, _), (left, _) = pads
    moved = held.shift(top, left)
    cells = Window(
        moved.row_start // factor,
        -(-moved.row_stop // factor),
        moved.col_start // factor,
        -(-moved.col_stop // factor),
    )
    part = np.full((cells.shape[0] * factor, cells.shape[1] * factor), np.inf, np.float32)
    place = moved.shift(-cells.row_start * factor, -cells.col_start * factor).slices
    part[place] = np.where(known[held.slices], values[held.slices], np.float32(np.inf))
    # One axis after the other: NumPy is slow at reducing several short axes at once.
    rows = part.reshape(cells.shape[0], factor, -1).min(axis=1)
    out[cells.slices] = reduce(np.minimum, (rows[:, first::factor] for first in range(factor)))
    return out


def _box(known: NDArray[np.bool_]) -> Window:
    """The smallest window around all known values; empty if there is none."""
    rows, cols = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    if not rows.size:
        return Window(0, 0, 0, 0)
    return Window(int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1)


def _pixels_of(
    cells: NDArray[np.float32], factor: int, before: tuple[int, int], shape: tuple[int, ...], trim: int, cut: int = 0
) -> NDArray[np.float32]:
    """Interpolate cells, of which some were cut off at the edge, to pixels, of which some are trimmed."""
    rows, cols = (
        slice(b + trim - cut * factor, b + size - trim - cut * factor) for b, size in zip(before, shape, strict=True)
    )
    return _refine(cells, factor, rows, cols)


def _cell_ground(
    cells: NDArray[np.float32], settings: GroundFilter, cell_m: float, unused: int
) -> tuple[NDArray[np.float32], int]:
    """Ground of cells, ``unused`` of which along the edge are not wanted, and the number cut off there."""
    is_ground = np.isfinite(cells)
    opened, before, reach = cells, 0.0, 0
    held = _box(is_ground)
    for radius_m in settings.radii_m:
        step = min(settings.step_m + settings.slope * (radius_m - before), settings.highest_step_m)
        radius = whole_cells(radius_m, cell_m)
        reach += 2 * radius
        near = held.grow(reach).intersect(Window.of(cells.shape)).slices  # farther away, all remains missing
        smoother = np.full(cells.shape, np.inf, np.float32)
        smoother[near] = opening(opened[near], radius)
        with np.errstate(invalid="ignore"):
            is_ground[near] &= ~(opened[near] - smoother[near] > step)
        opened, before = smoother, radius_m
    sigma = whole_cells(settings.fill_m, cell_m)
    cut = max(0, unused - FILL_REACH_STD * sigma - 1)  # one more, as pixels lie between cells
    kept = inner(np.where(is_ground, cells, 0).astype(np.float32), cut)
    return _fill(kept, inner(is_ground, cut), inner(opened, cut), sigma), cut


def _fill(
    ground: NDArray[np.float32], known: NDArray[np.bool_], fallback: NDArray[np.float32], sigma: int
) -> NDArray[np.float32]:
    """Keep known ground; under objects take the weighted mean of the ground around, or else the opened surface."""
    # Weights are truncated: the reach is finite, and so the result independent of tiles.
    # Heights are taken relative to the opened surface, which keeps the steepness of the ground.
    base = np.where(np.isfinite(fallback), fallback, 0).astype(np.float32)
    near = _box(known).grow(FILL_REACH_STD * sigma).intersect(Window.of(known.shape)).slices  # farther, weights are 0
    there, over = known[near], (ground - base)[near]
    weight = ndimage.gaussian_filter(there.astype(np.float32), sigma, mode="constant", truncate=FILL_REACH_STD)
    above = ndimage.gaussian_filter(np.where(there, over, 0), sigma, mode="constant", truncate=FILL_REACH_STD)
    filled = base + np.float32(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        filled[near] = base[near] + np.where(weight > 1e-3, above / weight, 0)
    out = np.where(known, ground, filled)
    return np.where(np.isfinite(fallback), out, np.nan).astype(np.float32)


def _refine(cells: NDArray[np.float32], factor: int, rows: slice, cols: slice) -> NDArray[np.float32]:
    """Cells to some of their pixels, bilinear between cell centres."""
    if factor == 1:
        return cells[rows, cols]
    out = cells
    for axis, wanted in enumerate((rows, cols)):
        position = (np.arange(wanted.start, wanted.stop) + 0.5) / factor - 0.5
        low = np.clip(np.floor(position).astype(int), 0, out.shape[axis] - 1)
        high = np.clip(low + 1, 0, out.shape[axis] - 1)
        share = np.clip(position - low, 0, 1).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None, :]
        first, second = out.take(low, axis), out.take(high, axis)
        mixed = first * (1 - share) + second * share
        mixed = np.where(np.isfinite(first), mixed, second)
        out = np.where(np.isfinite(second), mixed, first).astype(np.float32)
    return out
