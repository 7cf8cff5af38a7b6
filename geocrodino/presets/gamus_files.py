"""The HDF5 files of GAMUS: one array in each, with the colours in the last dimension."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geocrodino.errors import ConfigError, RasterError
from geocrodino.files.access import access_errors
from geocrodino.presets.hdf5 import EXTRA, can_read
from geocrodino.presets.packed import Packed, PackedRaster, Pixels, content_key

_FILE = re.compile(
    r"(?:.*/)?(?:(?P<images>images)|(?P<heights>heights)|classes)/(?P<part>[^/]+)/(?P<tile>[^/]+)_"
    r"(?(images)(?:RGB|IMG)|(?(heights)AGL|CLS))\.h5"
)
"""Images of New York end in IMG, the others in RGB."""

_KEY = "image"
_WRITTEN = {"images": "RGB", "heights": "AGL", "classes": "CLS"}

_NO_HEIGHT_M = -5.0
"""Marks pixels without a height in the tiles of Washington; other negative heights are the noise of measurements."""

_NO_CLASS = 255


def gamus_packed(paths: Sequence[str]) -> Packed | None:
    """Find the HDF5 files of GAMUS among files.

    Args:
        paths: All files of the data set.

    Returns:
        A raster for each of them; None if there is none.

    Raises:
        ConfigError: If two images are of one tile.
        AccessError: If the operating system does not let a file be looked up.
    """
    rasters: dict[str, PackedRaster] = {}
    for path in paths:
        match = _FILE.fullmatch(path)
        if match is None:
            continue
        layer = match["images"] or match["heights"] or "classes"
        name = f"{layer}/{match['part']}/{match['tile']}_{_WRITTEN[layer]}.tif"
        if name in rasters:
            raise ConfigError(
                f"{path}: expected one image of a tile, found {rasters[name].source} too. Keep the one that counts."
            )
        with access_errors(path):
            size = Path(path).stat().st_size  # the files are not compressed
        rasters[name] = PackedRaster(name, path, (layer, 0), size, content_key([path]))
    if not rasters:
        return None
    if not can_read():
        first = next(iter(rasters.values())).source
        return Packed(obstacle=f"{first}: expected h5py to read it, which is not installed. Install it: {EXTRA}")
    return Packed(tuple(rasters.values()), _read)


def _read(file: Any, raster: PackedRaster) -> Pixels:
    if _KEY not in file:
        raise RasterError(raster.source, f"expected the array {_KEY}, found {', '.join(sorted(file)) or 'none'}.")
    values = np.asarray(file[_KEY])
    layer, _ = raster.part
    coloured = layer == "images"
    if values.ndim != (3 if coloured else 2) or (coloured and values.shape[-1] != 3):
        expected = "(H, W, 3)" if coloured else "(H, W)"
        raise RasterError(raster.source, f"expected an array of shape {expected}, found {values.shape}.")
    if coloured:
        return Pixels(np.ascontiguousarray(np.moveaxis(values, -1, 0)))
    if layer == "heights":
        return Pixels(values.astype(np.float32, copy=False)[None], nodata=_NO_HEIGHT_M)
    whole = np.isfinite(values) & (values >= 0) & (values < _NO_CLASS) & (values == np.floor(values))
    return Pixels(np.where(whole, values, _NO_CLASS).astype(np.uint8)[None], nodata=_NO_CLASS)
