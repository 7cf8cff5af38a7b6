"""Class maps on disk: one Cloud Optimized GeoTIFF, complete under its name or not there at all.

Names of classes reach people in two ways. GDAL keeps category names of a GeoTIFF in a side file ``<map>.aux.xml`` and
nowhere else, and QGIS reads its legend from there, so that file is written too. The same names, values and colours
are in the tag ``CLASSES`` of the map as JSON, so that a map that lost its side file still explains itself.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from types import TracebackType
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from geocrodino.errors import OutputError
from geocrodino.geo.classes import IGNORE_INDEX, ClassScheme
from geocrodino.geo.grid import Window

TILE_PX = 512
"""Side of the internal tiles of a map."""

_DISK_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What rasterio raises where a disk is full: closing and copying let GDAL's own errors through."""

WORK_TILE_PX = 256
"""Side of the tiles of the working file: windows that are multiples of it are written without a rewrite."""


class ClassMapWriter:
    """Write a class map window by window.

    Use it as a context manager. The output is checked on entry, before anything is computed. Windows go to a working
    file in a hidden folder beside the output; on success it becomes a Cloud Optimized GeoTIFF with overviews (most
    frequent class), which then takes the final name in one step. On failure the hidden folder is removed and nothing
    else was touched. A process that is killed may leave the hidden folder, never a file under the final name.

    Args:
        path: The map to write.
        grid: Its grid, any affine transform and CRS.
        scheme: Its classes; pixel values are the classes' file values, 255 is nodata.
        tags: Metadata of the map, for instance the hash of the bundle.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: On entry, if the map exists, or cannot be written there; on exit, if it cannot be completed, or
            a file of that name has come into being meanwhile.
    """

    def __init__(
        self,
        path: str | Path,
        grid: GeoBox,
        scheme: ClassScheme,
        *,
        tags: Mapping[str, str] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.grid = grid
        self.scheme = scheme
        self.tags = {**(tags or {}), "CLASSES": _classes_json(scheme)}
        self.overwrite = overwrite
        self._lock = Lock()
        self._folder: Path | None = None
        self._dataset: rasterio.io.DatasetWriter | None = None

    def __enter__(self) -> ClassMapWriter:
        check_output(self.path, overwrite=self.overwrite)
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent))
        except OSError as error:
            raise OutputError(
                f"{self.path}: the folder {self.path.parent} cannot be written ({error.strerror}).\n"
                "Expected a folder with write permission and free space. Choose another one."
            ) from error
        try:
            self._dataset = self._create(self._folder / "map.tif")
        except BaseException as error:
            self._discard()
            if isinstance(error, _DISK_ERRORS):
                raise self._incomplete(error) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._dataset is not None:
                self._dataset.close()
            if kind is None:
                self._publish()
        except _DISK_ERRORS as failure:
            if kind is None:
                raise self._incomplete(failure) from failure
        finally:
            self._discard()

    def write(self, window: Window, values: NDArray[np.uint8]) -> None:
        """Write one window; may be called from several threads.

        Args:
            window: Pixels of the map, inside its grid.
            values: File values of the classes, 255 for nodata, uint8, shape (H, W) of the window.

        Raises:
            ValueError: If type or shape are not those of the window, or the writer is not open.
            OutputError: If the disk does not take it.
        """
        r0, r1, c0, c1 = window
        if values.dtype != np.uint8 or values.shape != (r1 - r0, c1 - c0):
            raise ValueError(f"expected uint8 {(r1 - r0, c1 - c0)}, found {values.dtype} {values.shape}")
        if self._dataset is None:
            raise ValueError("the writer is not open: use it in a with statement")
        with self._lock:
            try:
                self._dataset.write(values, 1, window=RasterioWindow(c0, r0, c1 - c0, r1 - r0))
            except _DISK_ERRORS as error:
                raise OutputError(
                    f"{self.path}: cannot write rows {r0} to {r1} ({error}).\nCheck the free space of the folder."
                ) from error

    def _create(self, path: Path) -> rasterio.io.DatasetWriter:
        height, width = self.grid.shape
        dataset = rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=1,
            dtype="uint8",
            crs=str(self.grid.crs),
            transform=self.grid.affine,
            nodata=IGNORE_INDEX,
            tiled=True,
            blockxsize=WORK_TILE_PX,
            blockysize=WORK_TILE_PX,
            compress="deflate",
            zlevel=1,
            sparse_ok=True,  # what is never written reads as nodata
            bigtiff="IF_SAFER",
        )
        dataset.write_colormap(1, {c.value: (*c.rgb, 255) for c in self.scheme.classes})
        dataset.set_band_description(1, "land cover")
        dataset.update_tags(**self.tags)
        return dataset

    def _publish(self) -> None:
        folder = self._folder
        if folder is None:
            raise ValueError("the writer was never opened")
        finished, names = folder / "cog.tif", folder / "names.xml"
        # No predictor: differences between class numbers say nothing and compress worse than the numbers.
        rasterio.shutil.copy(
            str(folder / "map.tif"),
            str(finished),
            driver="COG",
            compress="DEFLATE",
            predictor="NO",
            blocksize=TILE_PX,
            overviews="IGNORE_EXISTING",
            overview_resampling="MODE",
            bigtiff="IF_SAFER",
        )
        _read_through(finished)
        names.write_text(_category_names(self.scheme), encoding="utf-8")
        if self.path.exists() and not self.overwrite:
            raise OutputError(
                f"{self.path}: another program wrote this file while the map was made, and it is kept.\n"
                "Run again with another name, or replace it with --overwrite."
            )
        names.replace(self.path.with_name(self.path.name + ".aux.xml"))
        finished.replace(self.path)

    def _incomplete(self, failure: BaseException) -> OutputError:
        return OutputError(
            f"{self.path}: the map could not be completed ({failure}).\nCheck the free space of the folder."
        )

    def _discard(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Check that a file may be written, before the work that fills it.

    Raises:
        OutputError: If the folder is missing or cannot be written, the path is a folder, or the file exists and
            ``overwrite`` is false.
    """
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(
            f"{path}: the folder {folder} does not exist.\nExpected an existing folder. Create it: mkdir -p {folder}"
        )
    if path.is_dir():
        raise OutputError(f"{path}: expected the name of a file, found a folder.\nAdd a file name such as map.tif.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: the file exists.\nChoose another name, or replace it with --overwrite.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: the folder {folder} cannot be written.\nChoose a folder with write permission.")


def _read_through(path: Path) -> None:
    """Read every tile once: GDAL may call a copy done that a full disk has cut short."""
    with rasterio.open(path) as dataset:
        levels = len(dataset.overviews(1))
    for level in range(-1, levels):
        with rasterio.open(path, **({} if level < 0 else {"overview_level": level})) as dataset:
            for _, window in dataset.block_windows(1):
                dataset.read(1, window=window)


def _classes_json(scheme: ClassScheme) -> str:
    return json.dumps([c.model_dump(mode="json") for c in scheme.classes], ensure_ascii=False, separators=(",", ":"))


def _category_names(scheme: ClassScheme) -> str:
    """GDAL's side file: position in the list is the pixel value, values without a class have no name."""
    names = {c.value: c.name for c in scheme.classes}
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    listed = ElementTree.SubElement(band, "CategoryNames")
    for value in range(max(names) + 1):
        ElementTree.SubElement(listed, "Category").text = names.get(value, "")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"
