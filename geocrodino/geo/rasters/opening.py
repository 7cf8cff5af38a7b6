"""Opening one raster file, with errors that say why it cannot be opened."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geocrodino.errors import RasterError
from geocrodino.files.names import check_raster, explain_failure, gdal_name


@contextmanager
def opened(path: str | Path) -> Iterator[rasterio.DatasetReader]:
    """Open a raster for reading.

    Args:
        path: A local file, also inside an archive, or a URL that GDAL reads.

    Yields:
        The open raster; it is closed at the end of the block.

    Raises:
        RasterError: If it is missing, empty or no raster.
        AccessError: If the operating system does not let it be looked up or read.
    """
    name = gdal_name(path)
    check_raster(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(name)
    except RasterioError as error:
        explain_failure(path)
        vector = Path(path).suffix.lower() in {".shp", ".geojson", ".gpkg", ".kml"}
        hint = "\nPolygons, lines and points can be labels: name them as `labels`." if vector else ""
        raise RasterError(name, f"not a raster that GDAL can open ({error}).{hint}") from error
    with dataset:
        yield dataset
