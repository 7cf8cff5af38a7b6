"""Detection of class rasters that were given as heights."""

from __future__ import annotations

import numpy as np

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import spread_windows

_FEW = 32
_LOOK_PX = 256


def few_values(raster: RasterSource) -> int:
    """Count the different values of a raster whose values look like classes: whole numbers, at most 32 different ones.

    A raster with a unit, a scale or fractions holds measured values. Nine windows of at most
    256 x 256 pixels are read, spread over the raster.

    Args:
        raster: A raster with one band.

    Returns:
        Number of different valid values that were read, 1 to 32; 0 if the values look measured or none is valid.

    Raises:
        RasterError: If it cannot be read.
    """
    band = raster.bands[raster.data_bands[0] - 1]
    if band.dtype.startswith("float") or band.unit or band.is_scaled:
        return 0
    seen: set[float] = set()
    for window in spread_windows(raster.geobox.shape, _LOOK_PX):
        values, valid = raster.read_own(window, raster.data_bands[:1])
        seen |= set(np.unique(values[0][valid]).tolist())
        if len(seen) > _FEW:
            return 0
    return len(seen)


def few_values_note(raster: RasterSource, count: int) -> str:
    """Compose the warning for a raster of heights whose values look like classes.

    Args:
        raster: The raster.
        count: Number of its different values, see `few_values`.

    Returns:
        One sentence that names the file.
    """
    return f"{raster.path}: expected heights, found {count} different whole numbers, as class rasters hold them."
