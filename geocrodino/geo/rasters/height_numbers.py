"""What numbers that are no heights in metres may be: smaller units, or the bits of half-precision numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.spikes import EARTH_M, HeightLimits
from geocrodino.geo.rasters.window import spread_windows

_LOOK_PX = 256
_SCALES = {"centimetres": 0.01, "millimetres": 0.001, "decimetres": 0.1}
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
    ways = (
        []
        if raster.is_scaled
        else [
            f"height.scale: {scale:g} for {word} ({low * scale:.4g} to {high * scale:.4g} m)"
            for word, scale in _SCALES.items()
            if limits.low <= low * scale and high * scale <= limits.high
        ][:1]
    )
    half = as_half_precision(raster, seen)
    if half is not None:
        ways.append(
            f"height.encoding: float16 for bits of half-precision numbers ({half.low:.4g} to {half.high:.4g} m)"
        )
    told = f"heights of {low:.6g} to {high:.6g} {unit} are impossible."
    return f"{told}\nState what the numbers are: {', or '.join(ways)}." if ways else told
