"""A surface lies on its ground: whether two models of heights are swapped, or differ in unit or zero."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import HeightError, HeightRangeWarning
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import NO_UNIT, ground_unit, height_unit
from geocrodino.geo.rasters.window import Window, spread_windows

_LOOK_PX = 256
_MANY_FILES = 9
"""Files of a mosaic from which windows lie in its files: a grid of scattered plots is empty almost everywhere."""

_NOISE_M = 0.5
"""How far surface and ground differ where both are the same ground."""

_CLEARLY_M = 2.0
"""How far a surface lies from the ground at a low building or a bush; noise and coarse pixels do not explain it."""

_FAR_M = 30.0
"""How far a surface lies above the ground where even its lowest parts do not touch it; forests have gaps."""

_LOWEST = 0.02  # share of the pixels that are the lowest parts

_SOME = 0.05  # share of the pixels: settlements and trees cover more of almost every scene


class _Rise(NamedTuple):
    """Surface minus ground where both are known."""

    pixels: int
    median_m: float
    below: float
    """Share of the pixels whose surface lies more than two metres below the ground."""
    lowest_m: float
    """What a fiftieth of the pixels does not exceed."""


def check_surface_above(
    surface: RasterSource,
    ground: RasterSource,
    unit: str | None = None,
    *,
    names: tuple[str, str] = ("data.elevation", "data.ground"),
    refuse: bool = True,
) -> None:
    """Look whether a surface lies below its ground, as where the two are named the wrong way round, or far above it.

    At most nine windows of 256 x 256 px are read, and only the first few of a surface that lies on the ground.

    Args:
        surface: The heights, with their limits.
        ground: Heights of the bare ground, in any CRS and resolution.
        unit: Unit of height, for files that name none.
        names: What names the surface and the ground, for messages.
        refuse: Whether a surface that lies below the ground on most pixels is an error, not a warning.

    Raises:
        HeightError: If the surface lies more than two metres below the ground on at least half of the pixels that both
            have, and above it hardly anywhere.
        RasterError: If one cannot be read.

    Warns:
        HeightRangeWarning: If it does so on a twentieth of the pixels at least; or if it lies more than 30 m above the
            ground on 98 % of them, as where one of the two is in feet.
    """
    if unit is not None and unit.strip().lower() == NO_UNIT:
        return
    found = _rise(surface, ground, height_unit(surface, unit)[0], ground_unit(ground, unit)[0])
    if found is None:
        return
    if found.lowest_m > _FAR_M:
        warnings.warn(
            f"{surface.name}: this surface lies more than {_FAR_M:g} m above the ground {ground.name} almost "
            f"everywhere, by {found.median_m:.1f} m in the median of {found.pixels:,} pixels; expected open ground "
            "somewhere. Give both in one unit and from one zero of height.",
            HeightRangeWarning,
            stacklevel=3,
        )
    if found.below < _SOME:
        return
    if surface.name == ground.name:
        bands = f"band {surface.data_bands[0]}", f"band {ground.data_bands[0]}"
        pair = f"{surface.name}: the surface in {bands[0]} lies below the ground in {bands[1]}"
        names = ("height.band", "height.ground_band")
    else:
        pair = f"{surface.name}: this surface lies below the ground {ground.name}"
    most = found.median_m <= -_CLEARLY_M
    share = f"by more than {_CLEARLY_M:g} m on {100 * found.below:.0f} % of {found.pixels:,} pixels"
    message = (
        f"{pair}: {share}, by {abs(found.median_m):.1f} m in the median; expected a surface on the ground or above "
        f"it.\nSwap {names[0]} and {names[1]}, or give both in one unit and from one zero of height."
    )
    if most and refuse:
        raise HeightError(message)
    warnings.warn(message, HeightRangeWarning, stacklevel=3)


def _rise(surface: RasterSource, ground: RasterSource, unit_m: float, ground_m: float) -> _Rise | None:
    """Measure surface minus ground; None if no pixel has both, or if a window shows that the surface lies on it."""
    rises: list[NDArray[np.float32]] = []
    for window in _windows(surface):
        upper, there = surface.read_own(window, surface.data_bands[:1])
        if not there.any():
            continue
        lower, also = ground.read(surface.geobox, window, bands=ground.data_bands[:1])
        rise = upper[0] * np.float32(unit_m) - lower[0] * np.float32(ground_m)
        rise = rise[there & also & np.isfinite(rise)]
        if not rise.size:
            continue
        if (rise > _NOISE_M).mean() >= _SOME and np.quantile(rise, _LOWEST) <= _FAR_M:
            return None
        rises.append(rise)
    if not rises:
        return None
    rise = np.concatenate(rises)
    below, lowest_m = (rise < -_CLEARLY_M).mean(), np.quantile(rise, _LOWEST)
    return _Rise(int(rise.size), float(np.median(rise)), float(below), float(lowest_m))


def _windows(raster: RasterSource) -> list[Window]:
    """Windows to look at, the middle first."""
    boxes = raster.covered
    if len(boxes) > _MANY_FILES:
        some = boxes[np.linspace(0, len(boxes) - 1, _MANY_FILES).astype(int)].tolist()
        looks = (spread_windows((r1 - r0, c1 - c0), _LOOK_PX) for r0, r1, c0, c1 in some)
        found = [look[len(look) // 2].shift(r0, c0) for look, (r0, _, c0, _) in zip(looks, some, strict=True)]
    else:
        found = spread_windows(raster.geobox.shape, _LOOK_PX)
    middle = len(found) // 2
    return [found[middle], *found[:middle], *found[middle + 1 :]]
