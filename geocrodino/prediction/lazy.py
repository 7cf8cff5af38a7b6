"""Class maps of labelled arrays as lazy Dask arrays."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.errors import BundleError, GridError, HeightError, MissingCRSError, ValueRangeWarning
from geocrodino.geo.rasters.bands import Band, with_names
from geocrodino.geo.rasters.grid import describe, round_up, working_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.validity import all_nodata, finite
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.prediction.backends.open import open_backend
from geocrodino.prediction.backends.protocol import Backend
from geocrodino.prediction.schedule import same_bundle
from geocrodino.prediction.tiles.choose import EXACT_CORE_PX
from geocrodino.prediction.tiles.lattice import TileIndex, TileLattice
from geocrodino.prediction.tiles.predictor import SceneInput, TileClassifier
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import BackendName


@dataclass(frozen=True, kw_only=True)
class ArraySource(RasterSource):
    """A part of an array, read as a raster; pixels outside the part are missing.

    Attributes:
        values: Bands of the part, shape (B, H, W).
        corner: Row and column of its first pixel in the whole array.
    """

    values: NDArray[np.generic] = field(repr=False, compare=False)
    corner: tuple[int, int] = (0, 0)

    def _read_pixels(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        own = Window.at(*self.corner, (self.values.shape[1], self.values.shape[2]))
        found = np.full((len(bands), *window.shape), np.nan, np.float32)
        valid = np.zeros(window.shape, bool)
        shared = window.intersect(own)
        if shared.pixels:
            part = self.values[:, *shared.within(own).slices]
            stored = part[[b - 1 for b in bands]]
            # As in a file, a pixel is missing where all of its bands hold the nodata value.
            missing = all_nodata(part, [band.nodata for band in self.bands])
            place = shared.within(window).slices
            valid[place] = finite(stored) & ~missing
            self._scale(stored, bands, out=found[:, *place])
        found[:, ~valid] = np.nan
        return found, valid


def predict_array(
    array: xr.DataArray,
    bundle: Bundle | str | Path,
    modality: Modality,
    *,
    height_unit: str | None = None,
    core_px: int = EXACT_CORE_PX,
    backend: BackendName = "auto",
) -> xr.DataArray:
    """Predict a class map of a labelled array lazily: only the chunks that are used are read and computed.

    The map equals that of `geocrodino.predict` with ``stitch="exact"`` and the same ``core_px`` on a file with the same
    pixels.

    Args:
        array: Image or heights, shape (B, H, W) with dimensions ``(band, y, x)``, or (H, W) with ``(y, x)``, any type,
            a Dask array or not; north up, with a CRS that rioxarray or odc-geo wrote. NaN and the nodata value are
            invalid. Pixels must have the size of those of the training, to 1 %; resample others first, for instance
            with ``odc.geo.xr.xr_reproject``.
        bundle: The trained networks, or their file.
        modality: The modality of the array.
        height_unit: Unit of heights if the attribute ``units`` does not name it, see `Inputs`.
        core_px: Side of the chunks of the result, px, rounded up to a multiple of the network's stride.
        backend: Inference backend.

    Returns:
        File values of the classes, uint8, shape (H, W), dimensions ``(y, x)``, 255 for nodata, a Dask array.

    Raises:
        BundleError: If the bundle lacks the branch, the array lacks its bands, or tiles cannot be joined exactly.
        GridError: If the array is not north up or has pixels of another size than the training.
        HeightError: If the training read the ground from another band of the heights.
        MissingCRSError: If it has no CRS.

    Warns:
        ValueRangeWarning: If the array has another integer type than the training. As nothing is computed yet, values
            are not compared with those of the training, and an array on another scale is not refused.
    """
    bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    bundle.require(modality)
    field_px = bundle.manifest.receptive_field_px
    if field_px is None:
        raise BundleError(f"{bundle.path}: tiles of this network cannot be joined exactly. Use geocrodino.predict.")
    grid = _grid(array, bundle.manifest.resolution_m)
    bands = da.asarray(array.data if array.ndim == 3 else array.data[None])
    header = _header(array, grid, len(bands))
    spec = bundle.manifest.modalities[modality]
    coded = spec.recipe.coded(header, unit=height_unit)
    if coded.ground is not None:
        raise HeightError(
            f"{header.name}: the model was trained on heights with their ground in another band, which a lazy array "
            "cannot have.\nUse geocrodino.predict on a file."
        )
    header = replace(
        header, bands=coded.surface.bands, data_bands=coded.surface.data_bands, coding=coded.surface.coding
    )
    spec.recipe.check(header)
    _compare_type(header, spec)
    stride = bundle.manifest.network.stride_px
    shape = (int(grid.shape[0]), int(grid.shape[1]))
    core = round_up(core_px, stride)
    lattice = TileLattice.exact(shape, core_px=core, stride_px=stride, receptive_field_px=field_px)
    source = SceneInput(spec.recipe.fitted(header, unit=height_unit), spec, grid, None, height_unit)
    limits = source.raster.limits
    margin_px = spec.recipe.halo_px(grid) + (0 if limits is None else limits.reach_px)
    work = _TileWork(source, lattice, (bundle.path.resolve(), bundle.sha256), backend)
    rows, cols = lattice.count
    chunks = [[work.chunk(bands, (row, col), margin_px) for col in range(cols)] for row in range(rows)]
    return xr.DataArray(
        da.block(chunks), xr_coords(grid, dims=("y", "x")), ("y", "x"), "classes", {"nodata": IGNORE_INDEX}
    )


@dataclass(frozen=True)
class _TileWork:
    """Computes chunks of the map from parts of the array."""

    source: SceneInput
    lattice: TileLattice
    bundle: tuple[Path, str]
    backend: BackendName

    def chunk(self, bands: da.Array, index: TileIndex, margin_px: int) -> da.Array:
        """The chunk of one tile, lazily."""
        needed = self.lattice.read_window(index).grow(margin_px).intersect(Window.of(self.lattice.shape))
        classes = delayed(self.classes, pure=False)(bands[:, *needed.slices], needed.corner, index)
        lazy: da.Array = da.from_delayed(classes, self.lattice.support(index).shape, np.uint8)
        return lazy

    def classes(self, part: NDArray[np.generic], corner: tuple[int, int], index: TileIndex) -> NDArray[np.uint8]:
        """File values of the classes of one tile."""
        raster = self.source.raster
        if not isinstance(raster, ArraySource):
            raise ValueError("expected an array")
        source = replace(self.source, raster=replace(raster, values=part, corner=corner))
        shape = None if self.backend == "torch" else self.lattice.tile_shape
        with _open_lock:  # without it, several threads could open the same network
            backend, scheme = _networks(*self.bundle, source.spec.modality, self.backend, self.lattice.unused_px, shape)
        return scheme.to_values(TileClassifier(backend, source, self.lattice, keep_tiles=0)(index)[0])


_open_lock = Lock()


@lru_cache(maxsize=4)
def _networks(
    path: Path, sha256: str, modality: Modality, backend: BackendName, unused_px: int, shape: tuple[int, int] | None
) -> tuple[Backend, ClassScheme]:
    """Open a branch once in each process, and once for each shape of tiles if the backend is compiled for one shape."""
    bundle = same_bundle(path, sha256)
    temperature = bundle.manifest.temperature(modality)
    opened = open_backend(bundle, modality, name=backend, temperature=temperature, unused_px=unused_px)
    return opened, bundle.manifest.classes


def _grid(array: xr.DataArray, resolution_m: float) -> GeoBox:
    if not isinstance(array, xr.DataArray):
        raise GridError(
            f"expected an xarray.DataArray with a CRS, found {type(array).__name__}.\nOpen the file with "
            "rioxarray.open_rasterio, or use geocrodino.predict on it."
        )
    if array.ndim not in {2, 3} or array.dims[-2:] != tuple(array.odc.spatial_dims or ()):
        raise GridError(f"expected an array (band, y, x) or (y, x), found {array.dims}.\nTranspose it.")
    grid = array.odc.geobox
    if grid is None or grid.crs is None:
        raise MissingCRSError(
            "array", "no coordinate reference system. Write one with array.odc.assign_crs or rioxarray."
        )
    if working_grid(grid, resolution_m) != grid:
        raise GridError(
            f"expected an array north up with pixels of {resolution_m:.4g} m, as in training, found {describe(grid)}.\n"
            "Bring it there with odc.geo.xr.xr_reproject, or use geocrodino.predict on a file."
        )
    found: GeoBox = grid
    return found


def _header(array: xr.DataArray, grid: GeoBox, count: int) -> ArraySource:
    """The bands of an array, from the attributes that rioxarray and xarray write."""
    names, units = (_for_each(array.attrs.get(key), count) for key in ("long_name", "units"))
    scales, offsets = (_for_each(array.attrs.get(key), count) for key in ("scale_factor", "add_offset"))
    if not any(names) and "band" in array.coords and array.coords["band"].dtype.kind in "UO":
        names = [str(name) for name in np.atleast_1d(array.coords["band"].values)]
    nodata = array.odc.nodata
    numbers = tuple(range(1, count + 1))
    bands = tuple(
        Band(
            dtype=str(array.dtype),
            nodata=None if nodata is None else float(nodata),
            scale=float(scales[i] or 1.0),
            offset=float(offsets[i] or 0.0),
            unit=units[i] or None,
        )
        for i in range(count)
    )
    return ArraySource(
        name=str(array.name or "array"),
        geobox=grid,
        bands=with_names(bands, names),
        data_bands=numbers,
        values=np.empty((count, 0, 0), array.dtype),
    )


def _compare_type(header: ArraySource, spec: ModalitySpec) -> None:
    """Warn if the type differs from that of the training: values of a lazy array cannot be compared in advance."""
    if spec.definition.holds_heights:
        return  # a coding counts only for numbers of the same kind
    trained, found = spec.recipe.dtype, "float32" if header.bands[0].is_scaled else header.dtype
    if trained is not None and trained != found and not found.startswith("float"):
        warnings.warn(
            f"{header.path}: the array has the type {found}, and the model was trained on {trained}. The values are "
            "not compared: make sure that they have the same scale.",
            ValueRangeWarning,
            stacklevel=3,
        )


def _for_each(value: Any, count: int) -> list[Any]:
    """A value for each band, from a list, one value for all, or None."""
    if isinstance(value, list | tuple) and len(value) == count:
        return list(value)
    return [None if isinstance(value, list | tuple) else value] * count
