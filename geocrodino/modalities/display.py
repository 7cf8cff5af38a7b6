"""Pictures of rasters for previews."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window


def stretched(image: RasterSource, grid: GeoBox) -> NDArray[np.float32]:
    """Draw up to three bands as a picture, stretched between their 1 % and 99 % quantiles.

    Args:
        image: A raster; its first three bands are shown, or the first one in grey if there are fewer.
        grid: Grid of the picture.

    Returns:
        Red, green and blue in 0 to 1, white where the raster is not valid, float32, shape (H, W, 3).

    Raises:
        RasterError: If the raster cannot be read.
    """
    bands = image.data_bands[:3] if len(image.data_bands) >= 3 else image.data_bands[:1] * 3
    height, width = grid.shape
    strips = (Window(r, min(r + 16, height), 0, width) for r in range(0, height, 16))
    rows = [image.read(grid, strip, bands=bands) for strip in strips]
    values, valid = (np.concatenate(parts, axis=-2) for parts in zip(*rows, strict=True))
    if not valid.any():
        return np.ones((height, width, 3), np.float32)
    low, high = np.percentile(values[:, valid], (1, 99), axis=1)[..., None, None]
    values = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.where(valid[..., None], values.transpose(1, 2, 0), 1).astype(np.float32)
