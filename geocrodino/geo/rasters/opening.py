"""Opening one raster file, with errors that say why it cannot be opened."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio import Affine
from rasterio.env import env_ctx_if_needed, getenv, hasenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from geocrodino.errors import RasterError
from geocrodino.files.names import check_raster, explain_failure, gdal_name, is_url

_LISTING = "GDAL_DISABLE_READDIR_ON_OPEN"


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
            if _is_special(name):
                dataset = rasterio.open(name)
            else:
                with env_ctx_if_needed():  # `rasterio.open` sets up an environment of its own for each file
                    dataset = DatasetReader(name)
    except RasterioError as error:
        explain_failure(path)
        vector = Path(path).suffix.lower() in {".shp", ".geojson", ".gpkg", ".kml"}
        labels = "Polygons, lines and points can be labels: name them as `labels`."
        hint = labels if vector else "If it is one, copy or download it again: it may be cut short."
        raise RasterError(name, f"not a raster that GDAL can open ({error}).\n{hint}") from error
    with dataset:
        yield dataset


@contextmanager
def without_listing() -> Iterator[None]:
    """Open files inside the block without that GDAL lists the folder of each.

    The user's own setting of the environment is respected.

    Yields:
        Nothing.
    """
    if hasenv() and _LISTING in getenv():  # inside another block
        yield
        return
    with rasterio.Env(**({} if _LISTING in os.environ else {_LISTING: "TRUE"})):
        yield


def _is_special(name: str) -> bool:
    """Whether a name is that of no plain file of this machine."""
    return is_url(name) or name.startswith("/vsi")


class _Pixels(DatasetReader):  # type: ignore[misc]
    """A raster whose place is not read: to parse the CRS takes three times as long as to open a small file."""

    def read_crs(self) -> None:
        """Read no CRS."""

    def read_transform(self) -> list[float]:
        """Read no place.

        Returns:
            Coefficients of the identity, as GDAL orders them.
        """
        return list(Affine.identity().to_gdal())


def open_pixels(name: str, *, alone: bool = False) -> DatasetReader:
    """Open a raster to read its pixels by rows and columns.

    Args:
        name: Its name as GDAL opens it.
        alone: Whether no file beside a TIFF changes its pixels, as a mask does; then its folder is not listed.

    Returns:
        The open raster, which a ``with`` block closes. That of a local file has no CRS and no transform.

    Raises:
        RasterioError: If it cannot be opened.
    """
    if _is_special(name):
        return rasterio.open(name)
    listed = not (alone and name.lower().endswith((".tif", ".tiff")))
    with env_ctx_if_needed() if listed else without_listing():
        return _Pixels(name)
