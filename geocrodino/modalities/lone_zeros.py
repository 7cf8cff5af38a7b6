"""Detection of zeros that stand for missing heights."""

from __future__ import annotations

import shlex

import numpy as np

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import spread_windows

_FAR_M = 20.0
_LOOK_PX = 256


def lone_zeros(raster: RasterSource, unit_m: float) -> float:
    """Measure how many heights are exactly 0 where all others are at least 20 m away from it.

    A file that marks missing pixels says itself which zeros are heights, and heights above ground are 0 on the ground.
    Nine windows of at most 256 x 256 pixels are read, spread over the raster.

    Args:
        raster: A raster with one band of heights.
        unit_m: Metres in one unit of its heights.

    Returns:
        Share of zeros among the valid heights that were read; 0 if there are none, or other heights lie near 0.

    Raises:
        RasterError: If it cannot be read.
    """
    if raster.says_validity or raster.zero != "sea":
        return 0.0
    zeros, others = 0, 0
    for window in spread_windows(raster.geobox.shape, _LOOK_PX):
        values, valid = raster.read_own(window, raster.data_bands[:1])
        heights = np.abs(values[0][valid])
        apart = heights[heights != 0]
        if apart.size and apart.min() * unit_m < _FAR_M:
            return 0.0
        zeros, others = zeros + heights.size - apart.size, others + apart.size
    return zeros / (zeros + others) if others else 0.0


def lone_zeros_note(raster: RasterSource, share: float) -> str:
    """Compose the warning for zeros that seem to stand for missing heights.

    Args:
        raster: The raster.
        share: Share of the zeros, see `lone_zeros`.

    Returns:
        What was found in the file, and the command that marks the zeros as missing.
    """
    return (
        f"{raster.path}: {100 * share:.2g} % of the sampled heights are exactly 0 and all others at least {_FAR_M:g} m "
        f"away, so 0 may stand for missing data, but is read as a height. If it does, tag it: "
        f"rio edit-info --nodata 0 {shlex.quote(str(raster.path))}"
    )
