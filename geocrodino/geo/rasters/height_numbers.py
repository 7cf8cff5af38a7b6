"""What numbers that are no heights in metres may be: smaller units, or the bits of half-precision numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import GeocrodinoError
from geocrodino.geo.rasters.grid import pixel_size_m
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.spikes import EARTH_M, PLANETS_M, HeightLimits
from geocrodino.geo.rasters.units import on_earth
from geocrodino.geo.rasters.window import spread_windows

_LOOK_PX = 256
_SCALES = {"centimetres": 0.01, "millimetres": 0.001, "decimetres": 0.1}  # the usual ones first
_LEAST_M = 0.1
"""Heights and distances reach at least so far; whole numbers up to 10,000 read as bits stay below 0.001."""


class HalfPrecision(NamedTuple):
    """Whole numbers of 16 bits, read as the bits of half-precision numbers.

    Attributes:
        low: The lowest finite value.
        high: The highest.
        missing: Whether some are the bits of infinity or of no number, which whole numbers of heights hardly ever are.
    """

    low: float
    high: float
    missing: bool


def as_half_precision(raster: RasterSource, values: NDArray[np.float32]) -> HalfPrecision | None:
    """Read stored numbers as the bits of half-precision numbers.

    Args:
        raster: The raster, whose numbers are read as they are stored.
        values: Some of its valid values, any shape.

    Returns:
        What they are; None if the numbers are no uint16 without a scale, or these would be no heights on Earth.
    """
    if raster.dtype != "uint16" or raster.is_scaled or not values.size:
        return None
    numbers = values.astype(np.uint16).view(np.float16).astype(np.float32)
    finite = numbers[np.isfinite(numbers)]
    if 2 * finite.size < numbers.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if low < EARTH_M[0] or not _LEAST_M <= high <= EARTH_M[1]:
        return None
    return HalfPrecision(low, high, finite.size < numbers.size)


class DecimalCoding(NamedTuple):
    """A unit that whole numbers of heights may count.

    Attributes:
        scale: Metres in the unit.
        word: Its name, in the plural.
        low: The lowest height, m.
        high: The highest, m.
        is_steep: Whether they differ by more than the diagonal of the raster, as heights of hardly any place do.
    """

    scale: float
    word: str
    low: float
    high: float
    is_steep: bool

    @property
    def told(self) -> str:
        """The scale with its meaning, as a phrase."""
        return f"scale: {self.scale:g} for {self.word} ({self.low:.4g} to {self.high:.4g} m)"


def decimal_codings(raster: RasterSource, low: float, high: float) -> list[DecimalCoding]:
    """List the decimal units that numbers of heights may count.

    Args:
        raster: The raster.
        low: The lowest number.
        high: The highest.

    Returns:
        Units that make possible heights, the most likely first: those that make no place too steep; of these
        centimetres, millimetres, decimetres.
    """
    diagonal = diagonal_m(raster)
    lowest_m, highest_m = EARTH_M if on_earth(raster.geobox) else PLANETS_M
    found = [
        DecimalCoding(scale, word, low * scale, high * scale, (high - low) * scale > diagonal)
        for word, scale in _SCALES.items()
        if lowest_m <= low * scale and high * scale <= highest_m
    ]
    return sorted(found, key=lambda coding: coding.is_steep)


def diagonal_m(raster: RasterSource) -> float:
    """Measure the diagonal of a raster.

    Args:
        raster: The raster.

    Returns:
        The diagonal, m; infinite where the raster has no place that can be measured.
    """
    try:
        sides = pixel_size_m(raster.geobox)
    except GeocrodinoError:
        return math.inf
    height, width = raster.geobox.shape
    return math.hypot(sides[0] * width, sides[1] * height)


def advice_on_numbers(raster: RasterSource) -> str:
    """Advise users whose heights are all impossible.

    Args:
        raster: The heights, with their limits.

    Returns:
        The values, and the settings with which they would be possible; empty if the raster has no limits, or nine
        windows of 256 x 256 px hold no impossible value.

    Raises:
        RasterError: If it cannot be read.
    """
    limits = raster.limits
    if limits is None:
        return ""
    stored = raster.with_limits(HeightLimits(sentinels=()))
    found = []
    for window in spread_windows(raster.geobox.shape, _LOOK_PX):
        values, valid = stored.read_own(window, raster.data_bands[:1])
        found.append(values[0][valid & np.isfinite(values[0])])
    seen = np.concatenate(found)
    seen = seen[~np.isin(seen, np.array(limits.sentinels, np.float32))]
    if not seen.size or not ((seen < limits.low) | (seen > limits.high)).any():
        return ""
    low, high = float(seen.min()), float(seen.max())
    unit = raster.unit or "m"
    codings = [] if raster.is_scaled else decimal_codings(raster, low, high)
    ways = [f"height.{coding.told}" for coding in codings]
    half = as_half_precision(raster, seen)
    if half is not None:
        ways.append(
            f"height.encoding: float16 for bits of half-precision numbers ({half.low:.4g} to {half.high:.4g} m)"
        )
    told = f"heights of {low:.6g} to {high:.6g} {unit} are impossible."
    return f"{told}\nState what the numbers are: {', or '.join(ways)}." if ways else told
