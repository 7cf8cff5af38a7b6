"""From a surface model to what a network reads: height above ground, slope, absolute height.

All functions use a bounded neighbourhood, so that a pixel's value does not depend on the window in which it is
computed. Heights are in metres.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geocrodino.geo.rasters.morphology import opening
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.ground import FILL_REACH_STD, GroundFilter, whole_cells

_STRIP_PX = 1 << 15  # pixels that are interpolated together

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
    whole = Window.at(*anchor, (surface_m.shape[0], surface_m.shape[1]))
    return ground_of_part(surface_m, whole, whole, settings, pixel_m, trim_px)


def ground_of_part(
    surface_m: NDArray[np.float32],
    part: Window,
    window: Window,
    settings: GroundFilter,
    pixel_m: float,
    trim_px: int = 0,
) -> NDArray[np.float32]:
    """Ground under a surface model that covers a part of a window.

    Args:
        surface_m: Surface heights of the part in metres, float32, shape (h, w), NaN where there is none.
        part: Pixels of the grid that ``surface_m`` holds; there is no surface in the rest of the window.
        window: Pixels of the grid, H x W px.
        settings: The filter.
        pixel_m: Pixel size, metres.
        trim_px: Pixels along the edge of the window whose ground is not wanted.

    Returns:
        As for `ground_surface`.
    """
    factor = settings.factor(pixel_m)
    held, all_cells = _touched(part, factor), _touched(window, factor)
    cells = np.full(all_cells.shape, np.inf, np.float32)
    cells[held.within(all_cells).slices] = _cells_of(surface_m, factor, part.corner, lowest=True)[0]
    return ground_of_cells(cells, settings, pixel_m, window.corner, window.shape, trim_px)


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
    padded = np.pad(values, pads, constant_values=np.nan) if any(map(any, pads)) else values
    height, width = padded.shape
    out = np.empty((height // factor, width // factor), np.float32)
    for row, mean in enumerate(out):
        blocks = padded[row * factor : (row + 1) * factor].reshape(factor, -1, factor)
        known = np.isfinite(blocks)
        with np.errstate(invalid="ignore"):
            # In double precision: heights above the sea would cost the digits that small differences need.
            total = np.where(known, blocks, 0).sum(axis=(0, 2), dtype=np.float64)
            mean[:] = total / known.sum(axis=(0, 2))
    return out, before


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
    cells = _touched(moved, factor)
    part = np.full((cells.shape[0] * factor, cells.shape[1] * factor), np.inf, np.float32)
    place = moved.shift(-cells.row_start * factor, -cells.col_start * factor).slices
    part[place] = np.where(known[held.slices], values[held.slices], np.float32(np.inf))
    # One axis after the other: NumPy is slow at reducing several short axes at once.
    rows = part.reshape(cells.shape[0], factor, -1).min(axis=1)
    out[cells.slices] = reduce(np.minimum, (rows[:, first::factor] for first in range(factor)))
    return out


def _touched(pixels: Window, factor: int) -> Window:
    """The cells that a window of pixels touches."""
    rows, cols = (pixels.row_start, pixels.row_stop), (pixels.col_start, pixels.col_stop)
    (top, bottom), (left, right) = ((start // factor, -(-stop // factor)) for start, stop in (rows, cols))
    return Window(top, bottom, left, right)


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
    radii = [whole_cells(radius_m, cell_m) for radius_m in settings.radii_m]
    sigma = whole_cells(settings.fill_m, cell_m)
    cut = max(0, unused - FILL_REACH_STD * sigma - 1)  # one more, as pixels lie between cells
    every = Window.of(cells.shape)
    kept = every.grow(-cut)
    is_ground = np.isfinite(cells)
    near, is_ground = _box(is_ground), is_ground[kept.slices]
    opened, there, before, to_come = cells, every, 0.0, sum(radii)
    for radius_m, radius in zip(settings.radii_m, radii, strict=True):
        step = min(settings.step_m + settings.slope * (radius_m - before), settings.highest_step_m)
        near = near.grow(2 * radius).intersect(every)  # farther away, all remains missing
        # The squares that follow look at this far around the cells that are kept.
        looked_at, to_come = kept.grow(2 * to_come).intersect(near), to_come - radius
        needed = kept.grow(2 * to_come).intersect(near)
        opened, there = _on_window(opened, there, looked_at), looked_at
        smoother = opening(opened, radius)[needed.within(there).slices]
        some = kept.intersect(near)
        if some.pixels:
            with np.errstate(invalid="ignore"):
                higher = opened[some.within(there).slices] - smoother[some.within(needed).slices] > step
            is_ground[some.within(kept).slices] &= ~higher
        opened, there, before = smoother, needed, radius_m
    ground = np.where(is_ground, cells[kept.slices], 0).astype(np.float32)
    return _fill(ground, is_ground, _on_window(opened, there, kept), sigma), cut


def _on_window(values: NDArray[np.float32], there: Window, window: Window) -> NDArray[np.float32]:
    """Cells of another window than that which the values are on, infinite where there are none."""
    common = there.intersect(window)
    if common == window:
        return values[window.within(there).slices]
    found = np.full(window.shape, np.inf, np.float32)
    if common.pixels:
        found[common.within(window).slices] = values[common.within(there).slices]
    return found


def _fill(
    ground: NDArray[np.float32], known: NDArray[np.bool_], fallback: NDArray[np.float32], sigma: int
) -> NDArray[np.float32]:
    """Keep known ground; under objects take the weighted mean of the ground around, or else the opened surface."""
    # Weights are truncated: the reach is finite, and so the result independent of tiles.
    # Heights are taken relative to the opened surface, which keeps the steepness of the ground.
    out, held = np.full(known.shape, np.nan, np.float32), _box(np.isfinite(fallback))
    near = _box(known).grow(FILL_REACH_STD * sigma).intersect(held)  # farther away, weights are 0
    some = known[near.slices]
    base = fallback[held.slices]
    there = np.isfinite(base)
    filled = np.where(there, base, np.float32(0))
    filled += np.float32(0)
    inside = near.within(held).slices
    over = np.where(some, ground[near.slices] - filled[inside], np.float32(0))
    weight = ndimage.gaussian_filter(some.astype(np.float32), sigma, mode="constant", truncate=FILL_REACH_STD)
    above = ndimage.gaussian_filter(over, sigma, mode="constant", truncate=FILL_REACH_STD)
    with np.errstate(invalid="ignore", divide="ignore"):
        filled[inside] += np.where(weight > 1e-3, above / weight, np.float32(0))
    np.copyto(filled, ground[held.slices], where=known[held.slices])
    filled[~there] = np.nan
    out[held.slices] = filled
    return out


def _refine(cells: NDArray[np.float32], factor: int, rows: slice, cols: slice) -> NDArray[np.float32]:
    """Cells to some of their pixels, bilinear between cell centres."""
    if factor == 1:
        return cells[rows, cols]
    wanted = [_between(part, factor, size) for part, size in zip((rows, cols), cells.shape, strict=True)]
    out = np.empty((len(wanted[0].low), len(wanted[1].low)), np.float32)
    # In strips, because new memory for large arrays takes longer than the arithmetic.
    for strip in Window.of(out.shape).strips(_STRIP_PX):
        out[strip.slices] = _mixed(_mixed(cells, wanted[0].part(strip.slices[0]), 0), wanted[1], 1)
    return out


class _Between(NamedTuple):
    """Positions between the cells along an axis: the cells before and after, and the share of the latter."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    share: NDArray[np.float32]

    def part(self, some: slice) -> _Between:
        return _Between(self.low[some], self.high[some], self.share[some])


def _between(pixels: slice, factor: int, cells: int) -> _Between:
    position = (np.arange(pixels.start, pixels.stop) + 0.5) / factor - 0.5
    low = np.clip(np.floor(position).astype(int), 0, cells - 1)
    return _Between(low, np.clip(low + 1, 0, cells - 1), np.clip(position - low, 0, 1).astype(np.float32))


def _mixed(cells: NDArray[np.float32], at: _Between, axis: int) -> NDArray[np.float32]:
    """Interpolate along an axis; where one of two cells is missing, the other one counts alone."""
    share = at.share[:, None] if axis == 0 else at.share[None, :]
    first, second = cells.take(at.low, axis), cells.take(at.high, axis)
    out = first * (1 - share)
    out += second * share
    if not np.isfinite(out).all():
        np.copyto(out, second, where=~np.isfinite(first))
        np.copyto(out, first, where=~np.isfinite(second))
    return out
