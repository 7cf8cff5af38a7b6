"""Windowed reading of any raster on any grid, with validity.

What is invalid (nodata value, NaN, transparency, mask, impossible height) never takes part in an interpolation; 0 is a
value. The result for a pixel does not depend on the window that it is read with.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from geocrodino.errors import OverlapError, RasterError
from geocrodino.files.names import check_raster, explain_failure, gdal_name
from geocrodino.geo.rasters.bands import Band, bands_of, with_names
from geocrodino.geo.rasters.grid import (
    SAME_SIZE_TOLERANCE,
    beside,
    crs_of,
    describe,
    pixel_offset,
    pixel_size_m,
    share_ground,
)
from geocrodino.geo.rasters.header_checks import require_place, require_real
from geocrodino.geo.rasters.resample import (
    bilinear,
    block_majority,
    block_mean,
    bounding_window,
    nearest,
    source_positions,
)
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
from geocrodino.geo.rasters.window import Window

Kind = Literal["continuous", "categorical"]

MAP_TAGS = frozenset({"CLASSES", "BUNDLE_SHA256"})
"""Tags of the maps that this package writes."""

_AGGREGATE_FROM = 1.5  # target pixels this many times larger than the source's take their mean or majority
_SUB_PIXELS = 2**22  # more are not held at a time: a pixel of 30 m has 3600 of 0.5 m


@dataclass(frozen=True)
class RasterSource:
    """A raster file, known by its header. Files are opened for each read, so it may cross threads and processes.

    Attributes:
        path: The file; a path folds the two slashes of a URL into one, `gdal_name` gives them back.
        geobox: Its grid.
        bands: What the file says about each band, transparency included.
        data_bands: One-based numbers of the bands that hold data, in the order in which they are read.
        alpha_band: One-based number of the band of transparency, or None.
        mask: Masks that the file carries beside its bands.
        nodata_values: Metadata item ``NODATA_VALUES``, a number for each band, or None.
        has_palette: Whether the values are positions in a table of colours.
        is_map: Whether it is a map that this package wrote.
        limits: Heights that are read as missing, None where nothing is checked; see `HeightLimits`.
    """

    path: Path
    geobox: GeoBox
    bands: tuple[Band, ...]
    data_bands: tuple[int, ...]
    alpha_band: int | None = None
    mask: MaskKind = "none"
    nodata_values: tuple[float, ...] | None = None
    has_palette: bool = False
    is_map: bool = False
    limits: HeightLimits | None = None

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
    def says_validity(self) -> bool:
        """Whether the file marks missing pixels in any way but NaN."""
        tagged = any(self.bands[number - 1].nodata is not None for number in self.data_bands)
        return tagged or self.mask != "none" or self.alpha_band is not None or self.nodata_values is not None

    @property
    def _first(self) -> Band:
        return self.bands[self.data_bands[0] - 1] if self.data_bands else self.bands[0]

    @classmethod
    def open(cls, path: str | Path) -> RasterSource:
        """Read the header of a raster.

        Raises:
            RasterError: If the file is missing, empty, no raster, holds complex numbers, or does not say where it lies.
            MissingCRSError: If it has no coordinate reference system.
        """
        with opened(Path(path)) as dataset:
            return RasterSource.of_dataset(Path(path), dataset)

    @staticmethod
    def of_dataset(path: Path, dataset: rasterio.DatasetReader) -> RasterSource:
        """The header of a raster that is open; errors as for `open`."""
        if dataset.count == 0:
            inside = ", ".join(dataset.subdatasets[:4]) or "none"
            raise RasterError(path, f"holds no band itself. Save one of its sub-datasets as a file: {inside}.")
        require_place(path, dataset)
        bands = bands_of(dataset)
        require_real(path, bands)
        alpha = alpha_of(bands, dataset)
        return RasterSource(
            path=path,
            geobox=GeoBox((dataset.height, dataset.width), dataset.transform, CRS(dataset.crs.to_wkt())),
            bands=bands,
            data_bands=tuple(b for b in dataset.indexes if b != alpha),
            alpha_band=alpha,
            mask=mask_kind(dataset),
            nodata_values=nodata_values(dataset),
            has_palette=dataset.colorinterp[0] == ColorInterp.palette,
            is_map=bool(MAP_TAGS & dataset.tags().keys()),
        )

    def with_bands(self, numbers: tuple[int, ...]) -> Self:
        """The same raster with these data bands, in this order.

        A band that is tagged as transparency is data where it is among them; where it is not, it marks validity.

        Args:
            numbers: One-based numbers of bands.
        """
        tagged = tagged_alpha(self.bands)
        return replace(self, data_bands=numbers, alpha_band=None if tagged in numbers else tagged)

    def rescaled(self, factor: float) -> Self:
        """The same raster, all of whose values are multiplied by a number."""
        bands = tuple(replace(b, scale=b.scale * factor, offset=b.offset * factor) for b in self.bands)
        return replace(self, bands=bands)

    def with_names(self, names: Sequence[str | None]) -> Self:
        """The same raster, with names for bands that the file does not name itself."""
        return replace(self, bands=with_names(self.bands, names))

    def with_limits(self, limits: HeightLimits | None) -> Self:
        """The same raster, whose impossible heights are read as missing."""
        return replace(self, limits=limits)

    def describe(self) -> str:
        """One line for people."""
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
        grid = beside(grid, self.geobox)
        numbers = self.data_bands if bands is None else bands
        offset = pixel_offset(grid, self.geobox)
        if offset is not None:
            return self.read_own(window.shift(*offset), numbers)
        # Sub-pixels as fine as the source's own, where the target's pixels are markedly larger.
        ratio = max(resampling_ratio(grid, self.geobox))
        parts = math.ceil(ratio - SAME_SIZE_TOLERANCE) if ratio >= _AGGREGATE_FROM else 1
        height, width = window.shape
        if parts > 1 and height * width > max(1, _SUB_PIXELS // parts**2):
            return self._read_halves(grid, window, numbers, kind)
        positions = source_positions(grid, window, self.geobox, parts)
        needed = bounding_window(positions, (self.geobox.shape[0], self.geobox.shape[1]))
        if needed is None:
            return np.full((len(numbers), height, width), np.nan, np.float32), np.zeros((height, width), bool)
        values, valid = self.read_own(needed, numbers)
        if kind == "categorical":
            values, valid = nearest(values, valid, needed, positions)
            return (values, valid) if parts == 1 else block_majority(values, valid, parts)
        values, weight = bilinear(values, valid, needed, positions)
        if parts > 1:
            values, weight = block_mean(values, weight, parts)
        valid = weight >= 0.5
        values[:, ~valid] = np.nan
        return values, valid

    def _read_halves(
        self, grid: GeoBox, window: Window, bands: tuple[int, ...], kind: Kind
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        r0, r1, c0, c1 = window
        row, col = (r0 + r1) // 2, (c0 + c1) // 2
        across = c1 - c0 > r1 - r0
        halves: tuple[Window, Window] = (
            (Window(r0, r1, c0, col), Window(r0, r1, col, c1))
            if across
            else (Window(r0, row, c0, c1), Window(row, r1, c0, c1))
        )
        parts = [self.read(grid, half, bands=bands, kind=kind) for half in halves]
        axis = -1 if across else -2
        return np.concatenate([v for v, _ in parts], axis), np.concatenate([ok for _, ok in parts], axis)

    def read_own(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the file's own grid; arguments and result as for `read`."""
        window = Window(*window)
        if self.limits is None:
            return self._read_pixels(window, bands)
        reach = self.limits.reach_px
        values, valid = self._read_pixels(window.grow(reach), bands)
        impossible = self.limits.impossible(values[0])
        values[:, impossible] = np.nan
        valid &= ~impossible
        inside = slice(reach, valid.shape[0] - reach), slice(reach, valid.shape[1] - reach)
        return np.ascontiguousarray(values[:, *inside]), np.ascontiguousarray(valid[inside])

    def impossible_px(self, window: Window) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        """Rows, columns and values, each of shape (N,), of impossible heights in a window of the file's own grid."""
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
            with rasterio.open(gdal_name(self.path)) as dataset:
                stored = dataset.read(list(bands), window=part)
                ok = self._valid_in(dataset, stored, part, bands)
        except RasterioError as error:
            raise RasterError(
                gdal_name(self.path),
                f"cannot be read at rows {held.row_start} to {held.row_stop}, columns {held.col_start} to "
                f"{held.col_stop}: the file is damaged or cut "
                f"short. Copy or download it again ({error.__cause__ or error}).",
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
                self.path,
                f"expected one type for the bands {', '.join(map(str, bands))}, found {', '.join(found)}.\n"
                f"Give them one, for instance: gdal_translate -ot Float32 {self.path.name} alike.tif",
            )

    def _scale(self, stored: NDArray[np.generic], bands: tuple[int, ...], out: NDArray[np.float32]) -> None:
        """Stored numbers, shape (B, H, W), as values."""
        with np.errstate(over="ignore", invalid="ignore"):
            for number, band, target in zip(bands, stored, out, strict=True):
                said = self.bands[number - 1]
                target[...] = band.astype(np.float64) * said.scale + said.offset if said.is_scaled else band

    def _valid_in(
        self, dataset: rasterio.DatasetReader, stored: NDArray[np.generic], part: RasterioWindow, bands: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        """Where a part of an open file holds data by all that the file says, bool, shape (H, W)."""
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
        others = [b for b in dataset.indexes if b not in bands and b != self.alpha_band] if missing.any() else []
        for number in others:
            missing &= holds(dataset.read(number, window=part), marks[number - 1])
        return missing


@contextmanager
def opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    """A raster that is open for reading: a local file, also inside an archive, or a URL that GDAL reads.

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
        vector = path.suffix.lower() in {".shp", ".geojson", ".gpkg", ".kml"}
        hint = "\nPolygons become a raster with gdal_rasterize, see the README." if vector else ""
        raise RasterError(name, f"not a raster that GDAL can open ({error}).{hint}") from error
    with dataset:
        yield dataset


@lru_cache(maxsize=256)
def resampling_ratio(target: GeoBox, source: GeoBox) -> tuple[float, float]:
    """How many source pixels a target pixel spans, along columns and rows."""
    wide, high = pixel_size_m(target)
    source_wide, source_high = pixel_size_m(source)
    return wide / source_wide, high / source_high


def require_overlap(sources: dict[str, RasterSource], grid: GeoBox) -> None:
    """Check that every raster meets a grid.

    Raises:
        OverlapError: Naming the rasters that do not, with their distance in the grid's CRS.
    """
    for role, source in sources.items():
        if share_ground(source.geobox, grid):
            continue
        try:
            there = source.geobox.extent.to_crs(crs_of(grid), resolution=math.inf).boundingbox
        except ProjError:
            raise OverlapError(
                f"{source.path}: the {role} raster cannot be put on the reference grid: there is no transformation "
                f"from its CRS ({describe(source.geobox)}) to that of the reference ({describe(grid)}).\n"
                "Check that the files show the same place and carry the right CRS."
            ) from None
        here = grid.boundingbox
        raise OverlapError(
            f"{source.path}: the {role} raster does not meet the reference grid.\n"
            f"Expected some part of x {here.left:.6g} to {here.right:.6g}, y {here.bottom:.6g} to {here.top:.6g}; "
            f"found x {there.left:.6g} to {there.right:.6g}, y {there.bottom:.6g} to {there.top:.6g} "
            "(in the CRS of the reference).\n"
            "Check that the files show the same place and carry the right CRS."
        )
