"""Which pixels of a raster hold data: nodata values, not-a-number, transparency and masks, alone and together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from geocrodino.geo.rasters.bands import Band

MaskKind = Literal["none", "dataset", "bands"]
"""Masks that a file carries beside its bands: none, one for all bands, or one for each."""

_HUGE = 1e30  # sentinels such as -3.40282e+38 lose digits where they are written as text
_HUGE_TOLERANCE = 1e-5
_SOFT_SHARE = 0.05  # pixels that are neither off nor fully on, up to which a band is surely transparency
_OPAQUE_SHARE = 0.25  # share of fully opaque pixels among those not off, from which it surely is as well


def holds(stored: NDArray[Any], value: float | None) -> NDArray[np.bool_]:
    """Find stored numbers that equal a nodata value, compared as GDAL does: in the type of the numbers.

    Args:
        stored: Numbers as the file stores them, any shape.
        value: The nodata value; None and NaN equal nothing.

    Returns:
        Bool, shape as ``stored``.
    """
    if value is None or math.isnan(value):
        return np.zeros(stored.shape, bool)
    if math.isinf(value):
        return np.asarray(stored == value)
    if stored.dtype.kind in "iu":
        limits = np.iinfo(stored.dtype.name)
        if value != math.floor(value) or not limits.min <= value <= limits.max:
            return np.zeros(stored.shape, bool)  # a number that the type cannot hold
        return np.asarray(stored == stored.dtype.type(int(value)))
    # GDAL's own tolerance for two floating-point numbers that are written differently.
    tolerance = 4 * float(np.finfo(np.float32).eps) if abs(value) < _HUGE else _HUGE_TOLERANCE
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.abs(stored.astype(np.float64) - value) <= tolerance * abs(value))


def all_nodata(stored: NDArray[np.generic], values: Sequence[float | None]) -> NDArray[np.bool_]:
    """Where every band holds its nodata value.

    Args:
        stored: Numbers as the file stores them, shape (B, H, W).
        values: Nodata value of each band; a band without one always holds data.

    Returns:
        Bool, shape (H, W).
    """
    missing = np.ones(stored.shape[1:], bool)
    for band, value in zip(stored, values, strict=True):
        missing &= holds(band, value)
        if not missing.any():
            break
    return missing


def finite(stored: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Find pixels whose bands all hold numbers that single precision can hold.

    Args:
        stored: Numbers as the file stores them, shape (B, H, W).

    Returns:
        Bool, shape (H, W).
    """
    if not np.issubdtype(stored.dtype, np.floating):
        return np.ones(stored.shape[1:], bool)
    return np.asarray((np.abs(stored) <= np.finfo(np.float32).max).all(axis=0))


def mask_kind(dataset: rasterio.DatasetReader) -> MaskKind:
    """Look up which masks a raster carries, apart from nodata values and transparency.

    Args:
        dataset: The open raster.

    Returns:
        None, one for the dataset, or one for each band.
    """
    flags = dataset.mask_flag_enums
    if flags[0] == [MaskFlags.per_dataset]:
        return "dataset"
    return "bands" if any(each == [] for each in flags) else "none"


def read_mask(dataset: rasterio.DatasetReader, kind: MaskKind, part: RasterioWindow) -> NDArray[np.bool_]:
    """Read the masks of a raster.

    Args:
        dataset: The open raster.
        kind: Which masks it carries.
        part: Window to read.

    Returns:
        Valid pixels, bool, shape (H, W); with a mask for each band, those that are valid in any band.
    """
    numbers = [1] if kind == "dataset" else list(dataset.indexes)
    return np.asarray((dataset.read_masks(numbers, window=part) > 0).any(axis=0))


def nodata_values(dataset: rasterio.DatasetReader) -> tuple[float, ...] | None:
    """Read the metadata item ``NODATA_VALUES``.

    GDAL ignores it where it does not hold as many numbers as there are bands.

    Args:
        dataset: The open raster.

    Returns:
        A number for each band, or None.
    """
    words = str(dataset.tags().get("NODATA_VALUES", "")).split()
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        return None
    return numbers if len(numbers) == dataset.count else None


def looks_transparent(dataset: rasterio.DatasetReader, number: int) -> bool:
    """Find out whether a band that is tagged as transparency holds transparency.

    Near infrared is often written to a fourth band that GDAL tags as transparency. Transparency is off or fully on
    except at soft edges; brightness seldom reaches its largest value.

    Args:
        dataset: The open raster.
        number: One-based number of the band.

    Returns:
        Whether the values of the band look like transparency.
    """
    shape = (min(dataset.height, 512), min(dataset.width, 512))
    try:
        sample = dataset.read(number, out_shape=shape, resampling=Resampling.nearest)
    except RasterioError:
        return True  # the damage is reported, with its place, when the pixels are read
    opaque, clear = sample == sample.max(), sample == 0
    if (opaque | clear).mean() >= 1 - _SOFT_SHARE:
        return True
    return float(opaque.sum()) >= _OPAQUE_SHARE * float((~clear).sum())


def alpha_of(bands: Sequence[Band], dataset: rasterio.DatasetReader) -> int | None:
    """Find the band that marks transparency, by its tag, name and values.

    Args:
        bands: What the file says about each band.
        dataset: The open raster.

    Returns:
        One-based number of the band; None without one.
    """
    tagged = tagged_alpha(bands)
    return tagged if tagged is not None and looks_transparent(dataset, tagged) else None


def tagged_alpha(bands: Sequence[Band]) -> int | None:
    """Find the band that is tagged as transparency and not named as data.

    Args:
        bands: What the file says about each band.

    Returns:
        One-based number of the last such band; None without one.
    """
    numbers = range(len(bands), 0, -1)
    return next((i for i in numbers if bands[i - 1].is_alpha and not bands[i - 1].is_named_data), None)
