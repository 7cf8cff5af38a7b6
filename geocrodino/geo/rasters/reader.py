"""A raster file: its header, and windows of its values with their validity.

What is invalid (nodata value, NaN, transparency, mask, impossible height) never takes part in an interpolation; 0 is a
value. The result for a pixel does not depend on the window that it is read with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from geocrodino.errors import OverlapError, RasterError
from geocrodino.files.names import gdal_name, raster_name
from geocrodino.geo.rasters import open_files
from geocrodino.geo.rasters.bands import Band, bands_of, with_names
from geocrodino.geo.rasters.coding import HeightCoding
from geocrodino.geo.rasters.grid import crs_of, describe, share_ground
from geocrodino.geo.rasters.header_checks import require_real
from geocrodino.geo.rasters.opening import opened
from geocrodino.geo.rasters.place import Place, located
from geocrodino.geo.rasters.protocol import Kind
from geocrodino.geo.rasters.spikes import HeightLimits
from geocrodino.geo.rasters.validity import (
    MaskKind,
    all_nodata,
    alpha_of,
    finite,
    holds,
    mask_kind,
    nodata_values,
    read_mask,
    tagged_alpha,
)
from geocrodino.geo.rasters.warp import read_on_grid
from geocrodino.geo.rasters.window import Window
from geocrodino.phrases import span
from geocrodino.settings.height_words import HeightEncoding, HeightZero

MAP_TAGS = frozenset({"CLASSES", "BUNDLE_SHA256"})
"""Tags of the maps that this package writes."""


@dataclass(frozen=True)
class RasterSource:
    """A raster file, known by its header. Threads and processes may share it: each read opens the file (`open_files`).

    Attributes:
        name: The file: a path, a URL or a name in GDAL's or rasterio's notation, as text.
        geobox: Its grid.
        bands: What the file says about each band, transparency included.
        data_bands: One-based numbers of the bands that hold data, in the order in which they are read.
        alpha_band: One-based number of the band of transparency, or None.
        mask: Masks that the file carries beside its bands.
        nodata_values: Metadata item ``NODATA_VALUES``, a number for each band, or None.
        has_palette: Whether the values are positions in a table of colours.
        is_map: Whether it is a map that this package wrote.
        limits: Heights that are read as missing, None where nothing is checked; see `HeightLimits`.
        coding: How heights are read, where that differs from what the file says, or None.
    """

    name: str
    geobox: GeoBox
    bands: tuple[Band, ...]
    data_bands: tuple[int, ...]
    alpha_band: int | None = None
    mask: MaskKind = "none"
    nodata_values: tuple[float, ...] | None = None
    has_palette: bool = False
    is_map: bool = False
    limits: HeightLimits | None = None
    coding: HeightCoding | None = None

    @property
    def path(self) -> Path:
        """The name as a path, for files of this machine; a path folds the two slashes of a URL into one."""
        return Path(self.name)

    @property
    def count(self) -> int:
        """Number of bands, transparency included."""
        return len(self.bands)

    @property
    def dtype(self) -> str:
        """Type of the stored numbers of the first data band."""
        return self._first.dtype

    @property
    def nodata(self) -> float | None:
        """Nodata tag of the first data band, NaN included, or None."""
        return self._first.nodata

    @property
    def unit(self) -> str | None:
        """Unit tag of the first data band, or None."""
        return self._first.unit

    @property
    def band_names(self) -> tuple[str, ...]:
        """Name of every band, ``band 1`` and so on where the file gives none."""
        return tuple(band.name or f"band {i}" for i, band in enumerate(self.bands, start=1))

    @property
    def data_names(self) -> tuple[str, ...]:
        """Names of the data bands."""
        return tuple(self.band_names[number - 1] for number in self.data_bands)

    @property
    def is_scaled(self) -> bool:
        """Whether all values differ from the stored numbers."""
        return self._first.is_scaled

    @property
    def zero(self) -> HeightZero:
        """Where heights are 0, see `HeightSettings`."""
        return "sea" if self.coding is None else self.coding.zero

    @property
    def says_validity(self) -> bool:
        """Whether the file marks missing pixels in any way but NaN."""
        tagged = any(self.bands[number - 1].nodata is not None for number in self.data_bands)
        return tagged or self.mask != "none" or self.alpha_band is not None or self.nodata_values is not None

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files that hold the pixels, as GDAL opens them."""
        return (gdal_name(self.name),)

    @property
    def covered(self) -> NDArray[np.int64]:
        """Rows and columns ``(row_start, row_stop, col_start, col_stop)`` that each of its files covers, (files, 4)."""
        height, width = self.geobox.shape
        return np.array([[0, height, 0, width]], np.int64)

    @property
    def header_key(self) -> tuple[object, ...]:
        """All of the header that determines values and validity, besides path and grid; NaN as nodata equals itself."""
        marks = (self.alpha_band, self.mask, self.nodata_values, self.has_palette, self.limits)
        coding = () if self.coding is None else self.coding.key
        encodings = tuple(dict.fromkeys(band.encoding for band in self.bands if band.encoding is not None))
        return (repr(self.bands), self.data_bands, *map(repr, marks), *coding, *encodings)

    @property
    def layout_key(self) -> list[object]:
        """What else identifies the raster, besides header and grid; for a mosaic place and header of its members."""
        return []

    @property
    def _first(self) -> Band:
        return self.bands[self.data_bands[0] - 1] if self.data_bands else self.bands[0]

    @classmethod
    def open(cls, path: str | Path, place: Place | None = None) -> RasterSource:
        """Read the header of a raster.

        Args:
            path: A file, a file in an archive, or a URL that GDAL reads. To open what a user names, use
                `geocrodino.geo.rasters.scene`.
            place: CRS and pixel size for a file that states none; None: not given.

        Returns:
            The raster; the file is closed again.

        Raises:
            RasterError: If the file is missing, empty, no raster, holds complex numbers, or does not say where it lies.
            MissingCRSError: If it has no coordinate reference system.
            AccessError: If the operating system does not let it be looked up or read.
        """
        name = raster_name(path)
        with opened(name) as dataset:
            return RasterSource.of_dataset(name, dataset, place)

    @staticmethod
    def of_dataset(name: str, dataset: rasterio.DatasetReader, place: Place | None = None) -> RasterSource:
        """Read the header of a raster that is open.

        Args:
            name: Its name.
            dataset: The open raster.
            place: CRS and pixel size for a file that states none; None: not given.

        Returns:
            The raster.

        Raises:
            RasterError: If it has no bands, holds complex numbers, or does not say where it lies.
            MissingCRSError: If it has no coordinate reference system.
        """
        if dataset.count == 0:
            inside = ", ".join(dataset.subdatasets[:4]) or "none"
            raise RasterError(name, f"holds no band itself. Save one of its sub-datasets as a file: {inside}.")
        grid = located(name, dataset, place)
        bands = bands_of(dataset)
        require_real(name, bands)
        alpha = alpha_of(bands, dataset)
        return RasterSource(
            name=name,
            geobox=grid,
            bands=bands,
            data_bands=tuple(b for b in dataset.indexes if b != alpha),
            alpha_band=alpha,
            mask=mask_kind(dataset),
            nodata_values=nodata_values(dataset),
            has_palette=dataset.colorinterp[0] == ColorInterp.palette,
            is_map=bool(MAP_TAGS & dataset.tags().keys()),
        )

    def with_bands(self, numbers: tuple[int, ...]) -> Self:
        """Choose the data bands and their order.

        A band that is tagged as transparency is data if it is among them; otherwise it marks validity.

        Args:
            numbers: One-based numbers of bands.

        Returns:
            The raster with these data bands.
        """
        tagged = tagged_alpha(self.bands)
        return replace(self, data_bands=numbers, alpha_band=None if tagged in numbers else tagged)

    def rescaled(self, factor: float) -> Self:
        """Multiply all values by a number.

        Args:
            factor: The number, for instance metres per foot.

        Returns:
            The raster whose values are multiplied.
        """
        bands = tuple(replace(b, scale=b.scale * factor, offset=b.offset * factor) for b in self.bands)
        return replace(self, bands=bands)

    def recoded(
        self, *, scale: float | None, offset: float | None, encoding: HeightEncoding | None, unit: str | None
    ) -> Self:
        """Read stored numbers in another way than the file says.

        Args:
            scale: A value is the stored number times the scale, plus the offset; None: as the file says.
            offset: See ``scale``.
            encoding: How stored numbers hold values; None: they are numbers.
            unit: Unit of the values; None: as the file says.

        Returns:
            The raster with these values.
        """
        given = {"scale": scale, "offset": offset, "encoding": encoding, "unit": unit}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return replace(self, bands=tuple(replace(band, **changes) for band in self.bands))

    def with_coding(self, coding: HeightCoding | None) -> Self:
        """Note how heights are read.

        Args:
            coding: The meaning of the values.

        Returns:
            The raster with this note.
        """
        return replace(self, coding=coding)

    def with_names(self, names: Sequence[str | None]) -> Self:
        """Name the bands that the file does not name itself.

        Args:
            names: A name for each band, or None.

        Returns:
            The raster with these names.
        """
        return replace(self, bands=with_names(self.bands, names))

    def with_limits(self, limits: HeightLimits | None) -> Self:
        """Read impossible heights as missing.

        Args:
            limits: What is impossible; None checks nothing.

        Returns:
            The raster with these limits.
        """
        return replace(self, limits=limits)

    def describe(self) -> str:
        """Describe the raster in one line.

        Returns:
            Number of data bands, type and grid.
        """
        bands = f"{len(self.data_bands)} band{'s' if len(self.data_bands) > 1 else ''} {self.dtype}"
        return f"{bands}, {describe(self.geobox)}"

    def read(
        self,
        grid: GeoBox,
        window: Window | None = None,
        *,
        bands: tuple[int, ...] | None = None,
        kind: Kind = "continuous",
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of a grid, warping where the grid is not the file's own.

        Values are interpolated bilinearly, or averaged where the grid's pixels are at least 1.5 times larger;
        classes are taken from the nearest pixel, or the most frequent one.

        Args:
            grid: Grid of the result.
            window: Part of it, all by default; what lies outside the file is invalid.
            bands: One-based band numbers; the data bands by default.
            kind: Whether numbers can be interpolated.

        Returns:
            Values, float32, shape (bands, H, W), NaN where invalid; validity, bool, shape (H, W): at least half of a
            pixel's weight is valid. A pixel of the file is missing where all of its bands hold their nodata value, or
            a band that is read holds no number.

        Raises:
            RasterError: If the file cannot be read there, for instance because it is truncated.
        """
        window = Window.of(grid.shape) if window is None else Window(*window)
        return read_on_grid(self, grid, window, self.data_bands if bands is None else bands, kind)

    def read_own(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the file's own grid.

        Args:
            window: Pixels of the file; what lies outside is invalid.
            bands: One-based band numbers.

        Returns:
            Values, float32, shape (bands, H, W), NaN where invalid; validity, bool, shape (H, W).

        Raises:
            RasterError: If the file cannot be read there.
        """
        window = Window(*window)
        if self.limits is None:
            return self._read_pixels(window, bands)
        reach = self.limits.reach_px
        out, out_valid = np.full((len(bands), *window.shape), np.nan, np.float32), np.zeros(window.shape, bool)
        held = window.intersect(Window.of(self.geobox.shape))
        if not held.pixels:
            return out, out_valid
        values, valid = self._read_pixels(held.grow(reach), bands)
        impossible = self.limits.impossible(values[0])
        values[:, impossible] = np.nan
        valid &= ~impossible
        inside = slice(reach, valid.shape[0] - reach), slice(reach, valid.shape[1] - reach)
        place = held.within(window).slices
        out[:, *place], out_valid[place] = values[:, *inside], valid[inside]
        return out, out_valid

    def impossible_px(self, window: Window) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        """Find impossible heights in a window of the file's own grid.

        Args:
            window: Pixels of the file.

        Returns:
            Rows, columns (int) and values (float32) of these pixels, each of shape (N,).

        Raises:
            RasterError: If the file cannot be read there.
        """
        if self.limits is None:
            nowhere = np.zeros(0, np.intp)
            return nowhere, nowhere, np.zeros(0, np.float32)
        window, reach = Window(*window), self.limits.reach_px
        values, _ = self._read_pixels(window.grow(reach), self.data_bands[:1])
        inside = slice(reach, values.shape[1] - reach), slice(reach, values.shape[2] - reach)
        rows, cols = np.nonzero(self.limits.impossible(values[0])[inside])
        return rows + window.row_start, cols + window.col_start, values[0][inside][rows, cols]

    def _read_pixels(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the file's own grid, before heights are checked; arguments and result as for `read`."""
        # Reading beyond the file lets GDAL's memory grow with the number of reads: clip, then pad.
        held = window.intersect(Window.of(self.geobox.shape))
        values = np.full((len(bands), *window.shape), np.nan, np.float32)
        valid = np.zeros(window.shape, bool)
        if not held.pixels:
            return values, valid
        self._require_one_type(bands)
        inner = held.within(window).slices
        part = RasterioWindow.from_slices(*held.slices)
        try:
            with open_files.dataset(gdal_name(self.name), alone=self.mask == "none") as dataset:
                stored = dataset.read(list(bands), window=part)
                ok = self._valid_in(dataset, stored, part, bands)
        except RasterioError as error:
            reason = str(error.__cause__ or error)
            why = "the file is damaged or cut short. Copy or download it again"
            if "No such file" in reason:  # a virtual raster opens without its files
                why = "a file that it refers to is missing. Restore that file, or make this one again"
            raise RasterError(
                gdal_name(self.name),
                f"cannot be read at rows {held.row_start} to {held.row_stop}, columns {held.col_start} to "
                f"{held.col_stop}: {why} ({reason}).",
            ) from error
        place = values[:, *inner]
        self._scale(stored, bands, out=place)
        ok &= np.isfinite(place).all(axis=0)
        place[:, ~ok] = np.nan
        valid[inner] = ok
        return values, valid

    def _require_one_type(self, bands: tuple[int, ...]) -> None:
        found = list(dict.fromkeys(self.bands[b - 1].dtype for b in bands))
        if len(found) > 1:
            raise RasterError(
                self.name,
                f"expected one type for the bands {', '.join(map(str, bands))}, found {', '.join(found)}.\n"
                f"Give them one, for instance: gdal_translate -ot Float32 {self.path.name} alike.tif",
            )

    def _scale(self, stored: NDArray[np.generic], bands: tuple[int, ...], out: NDArray[np.float32]) -> None:
        """Stored numbers, shape (B, H, W), as values."""
        with np.errstate(over="ignore", invalid="ignore"):
            for number, band, target in zip(bands, stored, out, strict=True):
                target[...] = self.bands[number - 1].values(band)

    def _valid_in(
        self, dataset: rasterio.DatasetReader, stored: NDArray[np.generic], part: RasterioWindow, bands: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        """Where a part of an open file holds data: by nodata, transparency and masks; bool, shape (H, W)."""
        ok = finite(stored)
        ok &= ~self._missing(dataset, stored, part, bands, [band.nodata for band in self.bands])
        if self.nodata_values is not None:
            ok &= ~self._missing(dataset, stored, part, bands, self.nodata_values)
        if self.alpha_band is not None:
            ok &= dataset.read(self.alpha_band, window=part) > 0
        if self.mask != "none":
            ok &= read_mask(dataset, self.mask, part)
        return ok

    def _missing(
        self,
        dataset: rasterio.DatasetReader,
        stored: NDArray[np.generic],
        part: RasterioWindow,
        bands: tuple[int, ...],
        marks: Sequence[float | None],
    ) -> NDArray[np.bool_]:
        """Where all data bands hold their nodata value: a saturated or dark band alone is data."""
        missing = all_nodata(stored, [marks[b - 1] for b in bands])
        alone = self.coding is not None and self.coding.alone
        if alone or not missing.any():
            return missing
        others = [b for b in dataset.indexes if b not in bands and b != self.alpha_band]
        for number in others:
            missing &= holds(dataset.read(number, window=part), marks[number - 1])
        return missing


def require_overlap(sources: dict[str, RasterSource], grid: GeoBox) -> None:
    """Check that every raster meets a grid.

    Args:
        sources: Rasters by role; the roles appear in messages.
        grid: The grid.

    Raises:
        OverlapError: If a raster does not meet the grid, with the extents of both in the grid's CRS.
    """
    for role, source in sources.items():
        if share_ground(source.geobox, grid):
            continue
        try:
            there = source.geobox.extent.to_crs(crs_of(grid), resolution=math.inf).boundingbox
        except ProjError:
            raise OverlapError(
                f"{source.name}: the {role} raster cannot be put on the reference grid: there is no transformation "
                f"from its CRS ({describe(source.geobox)}) to that of the reference ({describe(grid)}).\n"
                "Check that the files show the same place and carry the right CRS."
            ) from None
        here = grid.boundingbox
        raise OverlapError(
            f"{source.name}: the {role} raster does not meet the reference grid.\n"
            f"Expected some part of {span(*here.bbox)}; found {span(*there.bbox)} (in the CRS of the reference).\n"
            "Check that the files show the same place and carry the right CRS."
        )
