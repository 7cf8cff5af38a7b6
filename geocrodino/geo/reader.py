"""Windowed reading of any raster on any grid, with validity.

What is invalid (nodata tag, NaN, alpha band, mask band) never takes part in an interpolation; 0 is a value.
The result for a pixel does not depend on the window that it is read with.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from geocrodino.errors import BandWarning, MissingCRSError, OverlapError, RasterError
from geocrodino.geo.grid import (
    SAME_SIZE_TOLERANCE,
    Window,
    beside,
    crs_of,
    describe,
    pixel_offset,
    pixel_size_m,
    share_ground,
    whole,
)
from geocrodino.geo.names import check_raster, explain_failure, gdal_name
from geocrodino.geo.resample import bilinear, block_majority, block_mean, bounding_window, nearest, source_positions

Kind = Literal["continuous", "categorical"]

_AGGREGATE_FROM = 1.5  # target pixels this many times larger than the source's take their mean or majority
_SUB_PIXELS = 2**22  # more are not held at a time: a pixel of 30 m has 3600 of 0.5 m


@dataclass(frozen=True)
class RasterSource:
    """A raster file, known by its header. Files are opened for each read, so it may cross threads and processes.

    Attributes:
        path: The file; a path folds the two slashes of a URL into one, `gdal_name` gives them back.
        geobox: Its grid.
        count: Number of bands, alpha included.
        dtype: Type of its values.
        nodata: Nodata tag of the first band, NaN included, or None; each read goes by that of its bands.
        band_names: Description of each band, ``band 1`` where there is none.
        data_bands: One-based numbers of the bands that hold data: all but a band of transparency.
        alpha_band: One-based number of the band of transparency, or None.
        has_mask: Whether the file carries a mask of its own.
        unit: Unit tag of the first band, or None.
    """

    path: Path
    geobox: GeoBox
    count: int
    dtype: str
    nodata: float | None
    band_names: tuple[str, ...]
    data_bands: tuple[int, ...]
    alpha_band: int | None
    has_mask: bool
    unit: str | None

    @classmethod
    def open(cls, path: str | Path) -> RasterSource:
        """Read the header of a raster.

        Raises:
            RasterError: If the file is missing, empty or no raster.
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
        if dataset.crs is None:
            raise MissingCRSError(
                path,
                "no coordinate reference system. Expected one in the file, found none.\n"
                f"Write the right one into it, for instance: rio edit-info --crs EPSG:32631 {path.name}",
            )
        alpha = _alpha_band(dataset)
        return RasterSource(
            path=path,
            geobox=GeoBox((dataset.height, dataset.width), dataset.transform, CRS(dataset.crs.to_wkt())),
            count=dataset.count,
            dtype=str(dataset.dtypes[0]),
            nodata=dataset.nodata,
            band_names=tuple(d or f"band {i}" for i, d in enumerate(dataset.descriptions, start=1)),
            data_bands=tuple(b for b in dataset.indexes if b != alpha),
            alpha_band=alpha,
            has_mask=dataset.mask_flag_enums[0] == [MaskFlags.per_dataset],
            unit=(dataset.units[0] or None) if dataset.units else None,
        )

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
            Values, float32, shape (bands, H, W), NaN where invalid; validity, bool, shape (H, W): a pixel is valid
            if it is so in every band, by at least half of its weight.

        Raises:
            RasterError: If the file cannot be read there, for instance because it is truncated.
        """
        window = whole(grid) if window is None else window
        grid = beside(grid, self.geobox)
        numbers = self.data_bands if bands is None else bands
        offset = pixel_offset(grid, self.geobox)
        if offset is not None:
            r0, r1, c0, c1 = window
            return self.read_own((r0 + offset[0], r1 + offset[0], c0 + offset[1], c1 + offset[1]), numbers)
        # Sub-pixels as fine as the source's own, where the target's pixels are markedly larger.
        ratio = max(resampling_ratio(grid, self.geobox))
        parts = math.ceil(ratio - SAME_SIZE_TOLERANCE) if ratio >= _AGGREGATE_FROM else 1
        height, width = window[1] - window[0], window[3] - window[2]
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
            ((r0, r1, c0, col), (r0, r1, col, c1)) if across else ((r0, row, c0, c1), (row, r1, c0, c1))
        )
        parts = [self.read(grid, half, bands=bands, kind=kind) for half in halves]
        axis = -1 if across else -2
        return np.concatenate([v for v, _ in parts], axis), np.concatenate([ok for _, ok in parts], axis)

    def read_own(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the file's own grid; arguments and result as for `read`."""
        r0, r1, c0, c1 = window
        height, width = self.geobox.shape
        # Reading beyond the file lets GDAL's memory grow with the number of reads: clip, then pad.
        in_r0, in_r1, in_c0, in_c1 = max(r0, 0), min(r1, height), max(c0, 0), min(c1, width)
        values = np.full((len(bands), r1 - r0, c1 - c0), np.nan, np.float32)
        valid = np.zeros((r1 - r0, c1 - c0), bool)
        if in_r0 >= in_r1 or in_c0 >= in_c1:
            return values, valid
        inner = (slice(in_r0 - r0, in_r1 - r0), slice(in_c0 - c0, in_c1 - c0))
        part = RasterioWindow(in_c0, in_r0, in_c1 - in_c0, in_r1 - in_r0)
        try:
            with rasterio.open(gdal_name(self.path)) as dataset:
                nodata = self._nodata_of(dataset, bands)
                raw = dataset.read(list(bands), window=part)
                ok = self._validity(dataset, raw, part, nodata)
        except RasterioError as error:
            raise RasterError(
                gdal_name(self.path),
                f"cannot be read at rows {in_r0} to {in_r1}, columns {in_c0} to {in_c1}: the file is damaged or cut "
                f"short. Copy or download it again ({error.__cause__ or error}).",
            ) from error
        place = values[:, *inner]
        with np.errstate(over="ignore"):
            place[...] = raw
        place[:, ~ok] = np.nan
        valid[inner] = ok
        return values, valid

    def _nodata_of(self, dataset: rasterio.DatasetReader, bands: tuple[int, ...]) -> float | None:
        for what, each in (("type", dataset.dtypes), ("nodata value", dataset.nodatavals)):
            found = list(dict.fromkeys(str(each[b - 1]) for b in bands))
            if len(found) > 1:
                raise RasterError(
                    self.path,
                    f"expected one {what} for the bands {', '.join(map(str, bands))}, found {', '.join(found)}.\n"
                    f"Give them one, for instance: gdalwarp -ot Float32 -dstnodata -9999 {self.path.name} alike.tif",
                )
        nodata: float | None = dataset.nodatavals[bands[0] - 1]
        return nodata

    def _validity(
        self,
        dataset: rasterio.DatasetReader,
        raw: NDArray[np.generic],
        part: RasterioWindow,
        nodata: float | None,
    ) -> NDArray[np.bool_]:
        ok = np.ones(raw.shape[1:], bool)
        if np.issubdtype(raw.dtype, np.floating):
            # Doubles beyond the range of single precision would come out as infinite.
            ok &= (np.abs(raw) <= np.finfo(np.float32).max).all(axis=0)
        if nodata is not None and not math.isnan(nodata):
            differs = raw != np.asarray(nodata).astype(raw.dtype)
            # Where 0 marks nodata in an image, a dark pixel may hold it in one band and still be data.
            dark = nodata == 0 and raw.dtype.kind == "u"
            ok &= differs.any(axis=0) if dark else differs.all(axis=0)
        if self.alpha_band is not None:
            ok &= dataset.read(self.alpha_band, window=part) > 0
        if self.has_mask:
            ok &= dataset.dataset_mask(window=part) > 0
        return ok


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


def _alpha_band(dataset: rasterio.DatasetReader) -> int | None:
    """The band of transparency: the last one, tagged as alpha, and holding only off and on.

    Four-band aerial images are often written with near infrared in a band that is tagged alpha by mistake.
    """
    if dataset.colorinterp[-1] != ColorInterp.alpha or dataset.count == 1:
        return None
    shape = (min(dataset.height, 512), min(dataset.width, 512))
    try:
        sample = dataset.read(dataset.count, out_shape=shape, resampling=Resampling.nearest)
    except RasterioError:
        return int(dataset.count)  # the damage is reported, with its place, when the pixels are read
    if ((sample > 0) & (sample < sample.max())).mean() > 0.05:
        warnings.warn(
            f"{dataset.name}: band {dataset.count} is tagged as transparency but holds "
            f"{np.unique(sample).size} different values: it is read as data.",
            BandWarning,
            stacklevel=4,
        )
        return None
    return int(dataset.count)
