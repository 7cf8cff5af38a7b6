"""Files of aligned layers: ENVI, numbers without compression behind a header that GDAL writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError, RasterioIOError

from geocrodino.files.access import writing
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import IGNORE_INDEX


@contextmanager
def layer_file(
    path: Path, grid: GeoBox, count: int, dtype: str
) -> Iterator[Callable[[Window, NDArray[np.generic]], None]]:
    """Open a layer as a function that writes an array (C, h, w) to a window of it.

    GDAL writes the header. The pixels are written here: GDAL may lose the error of a full disk, or report it late.

    Args:
        path: The file, in a staging folder; messages name it as it is called afterwards, in the folder above.
        grid: Its grid, H x W px.
        count: Number of channels C.
        dtype: Type of the numbers.

    Yields:
        The function of a window and its values.

    Raises:
        OutputError: If it cannot be written.
    """
    shown = path.parent.parent / path.name
    with writing(shown, RasterioError, CPLE_BaseError, SystemError):  # rasterio raises it if GDAL gives no message
        _write_header(path, grid, count, dtype)
        file = path.open("r+b")

    def write(window: Window, values: NDArray[np.generic]) -> None:
        r0, _, c0, _ = window
        values = np.ascontiguousarray(values, dtype)
        if values.shape[2] == grid.shape[1]:  # rows that follow each other in the file are written at once
            values = values.reshape(len(values), 1, -1)
        with writing(shown):
            for band, row in np.ndindex(values.shape[:2]):
                file.seek(((band * grid.shape[0] + r0 + row) * grid.shape[1] + c0) * values.itemsize)
                file.write(values[band, row].data)

    try:
        yield write
        with writing(shown):
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):  # after a failed write, closing tries to write the rest and fails again
            file.close()


def _write_header(path: Path, grid: GeoBox, count: int, dtype: str) -> None:
    """Write the header of a layer and its pixel file, all zero.

    Raises:
        RasterioError: If GDAL cannot write the files, or the written header is incomplete.
    """
    size = {"height": grid.shape[0], "width": grid.shape[1], "count": count, "dtype": dtype}
    place = {"crs": str(grid.crs), "transform": grid.affine}
    nodata = IGNORE_INDEX if dtype == "uint8" else float("nan")
    with rasterio.open(path, "w", driver="ENVI", interleave="bsq", nodata=nodata, **size, **place):
        pass
    try:
        with rasterio.open(path) as written:
            complete = (written.height, written.width, written.count) == (
                *grid.shape,
                count,
            ) and written.crs is not None
    except RasterioError:
        complete = False
    if not complete:
        raise RasterioIOError("GDAL did not write its header in full")
