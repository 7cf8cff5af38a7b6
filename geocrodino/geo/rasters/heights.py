"""Heights as they come: from stored numbers, bands and codings to metres above a known zero."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from geocrodino.errors import HeightError
from geocrodino.geo.rasters.coding import HeightCoding
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import height_unit
from geocrodino.settings.heights import HeightSettings

_HALF_PRECISION = {"uint16", "int16"}


@dataclass(frozen=True)
class CodedHeights:
    """A raster of heights, read as its coding says.

    Attributes:
        surface: The heights.
        ground: Heights of the bare ground, if the same file holds them.
    """

    surface: RasterSource
    ground: RasterSource | None = None


class _Unit(NamedTuple):
    """What a user gives as the unit of heights: for a file, and for files that name none; see `height_unit`."""

    given: str | None = None
    otherwise: str | None = None


def set_heights(raster: RasterSource, settings: HeightSettings | None, unit: str | None = None) -> CodedHeights:
    """Read heights as a user says.

    Args:
        raster: A raster of heights, as its file describes itself.
        settings: The coding, which decides against the file; None: the file decides.
        unit: Unit of the heights, where the user gave one.

    Returns:
        The heights, and the ground where a band of the same file holds it.

    Raises:
        HeightError: If the file has no such band, or numbers that cannot hold the encoding.
    """
    if settings is None or settings.is_default:
        return CodedHeights(raster)
    band, ground_band = _bands_set(raster, settings)
    _require_encoding(raster, settings)
    return _coded(raster, settings, band, ground_band, _Unit(unit), "as set")


def trained_heights(
    raster: RasterSource,
    trained: HeightSettings | None,
    dtype: str | None,
    given: HeightSettings | None = None,
    unit: str | None = None,
    trained_unit: str | None = None,
) -> CodedHeights:
    """Read heights for a prediction: as the user says, otherwise like those of the training.

    Args:
        raster: A raster of heights, as its file describes itself.
        trained: The coding of the training. Its scale, offset and encoding count for files that store the same kind of
            numbers and state neither a scale nor a unit; its bands count for files that have them.
        dtype: Type of the stored numbers of the training.
        given: What the user says of this raster: a scale replaces scale and offset of the training, a zero that is
            named that of the training.
        unit: Unit of the heights, where the user gave one; the scale of the training does then not count.
        trained_unit: Unit that the user gave for the training, for files that name none. An offset is counted in it.

    Returns:
        The heights, and the ground where a band of the same file holds it.
    """
    settings = trained or HeightSettings()
    if given is not None and "zero" in given.model_fields_set:
        ground_band = settings.ground_band if given.zero == "sea" else None
        settings = settings.model_copy(update={"zero": given.zero, "ground_band": ground_band})
    band, ground_band = _bands_like(raster, settings)
    if given is not None and given.scale is not None:
        update: dict[str, Any] = {"scale": given.scale, "offset": given.offset}
        if raster.dtype not in _HALF_PRECISION:
            update["encoding"] = None
        return _coded(raster, settings.model_copy(update=update), band, ground_band, _Unit(), "as set")
    settings = _counting(raster, settings, dtype, unit)
    return _coded(raster, settings, band, ground_band, _Unit(unit, trained_unit), "as in the training")


def trained_ground(
    ground: RasterSource,
    trained: HeightSettings | None,
    heights: RasterSource,
    given: HeightSettings | None = None,
    unit: str | None = None,
    trained_unit: str | None = None,
) -> RasterSource:
    """Read a ground raster of its own for a prediction as the heights that it belongs to, see `ground_like`.

    Args:
        ground: The ground raster, as its file describes itself.
        trained: The coding of the training.
        heights: The heights, see `trained_heights`.
        given: What the user says of the heights.
        unit: Unit of height, where the user gave one.
        trained_unit: Unit of height of the training, where the user gave one.

    Returns:
        The ground.

    Raises:
        HeightError: If the heights count from the ground or from the camera.
    """
    settings, known_by = trained or HeightSettings(), "as in the training"
    if given is not None and given.scale is not None:
        settings = settings.model_copy(update={"scale": given.scale, "offset": given.offset})
        known_by = "as set"
    settings = settings.model_copy(update={"zero": heights.zero, "band": None, "ground_band": None})
    return ground_like(ground, settings, heights.dtype, unit, trained_unit=trained_unit, known_by=known_by)


def ground_like(
    ground: RasterSource,
    settings: HeightSettings | None,
    dtype: str | None,
    unit: str | None = None,
    *,
    trained_unit: str | None = None,
    known_by: str = "as set",
) -> RasterSource:
    """Read a ground raster that is a file of its own like the heights that it belongs to.

    Args:
        ground: The ground raster.
        settings: The coding of the heights.
        dtype: Type of the stored numbers of the heights.
        unit: Unit of the heights, where the user gave one.
        trained_unit: Unit that the user gave for the training, for files that name none.
        known_by: Where the coding is from, in words.

    Returns:
        The ground with the scale, offset and encoding of the heights. It stays as it is where its file states a scale
        or a unit, or stores another kind of numbers.

    Raises:
        HeightError: If the heights count from the ground or from the camera.
    """
    settings = settings or HeightSettings()
    if settings.zero != "sea":
        raise HeightError(
            f"{ground.name}: a ground raster belongs to heights above sea level, found heights that count from the "
            f"{settings.zero}.\nLeave `ground` out."
        )
    values = settings.model_copy(update={"band": None, "ground_band": None})
    of_ground = _Unit(None, unit or trained_unit)  # the tag of its file takes precedence, see `ground_unit`
    return _coded(ground, _counting(ground, values, dtype, unit), None, None, of_ground, known_by).surface


def _coded(
    raster: RasterSource,
    settings: HeightSettings,
    band: int | None,
    ground_band: int | None,
    unit: _Unit,
    known_by: str,
) -> CodedHeights:
    """Apply a coding to the bands of a raster; without a scale, its offset is added in the unit of the heights."""
    if band is None and HeightSettings(zero=settings.zero, **_of_values(settings)).is_default:
        return CodedHeights(raster)
    said = None
    if settings.scale is not None:
        step = "1 m" if settings.scale == 1 else f"{settings.scale:g} m"
        start = f" from {settings.offset:g} m on" if settings.offset else ""
        said = f"heights of {step} a stored unit{start}, {known_by}"
        offset: float | None = settings.offset
    else:
        offset = settings.offset / height_unit(raster, *unit)[0] if settings.offset else None
    metres = None if settings.scale is None else "m"
    read = raster.recoded(scale=settings.scale, offset=offset, encoding=settings.encoding, unit=metres)
    read = read.with_coding(HeightCoding(settings.zero, said, alone=band is not None))
    if band is None:
        return CodedHeights(read)
    if ground_band is None:
        return CodedHeights(read.with_bands((band,)))
    both = read.with_bands((band, ground_band))  # neither is transparency, whatever its tag
    return CodedHeights(replace(both, data_bands=(band,)), replace(both, data_bands=(ground_band,)))


def _of_values(settings: HeightSettings) -> dict[str, Any]:
    return {"scale": settings.scale, "offset": settings.offset, "encoding": settings.encoding}


def _counting(raster: RasterSource, settings: HeightSettings, dtype: str | None, unit: str | None) -> HeightSettings:
    """What counts of a coding for a file that was not meant when it was given."""
    stated = raster.bands[raster.data_bands[0] - 1] if raster.data_bands else raster.bands[0]
    other_kind = dtype is not None and dtype.startswith("float") != stated.dtype.startswith("float")
    half = settings.encoding is not None and stated.dtype not in _HALF_PRECISION
    said = settings.scale is not None and (unit is not None or stated.unit is not None)
    if other_kind or half or said or stated.is_scaled:
        return settings.model_copy(update={"scale": None, "offset": 0.0, "encoding": None})
    return settings


def _bands_set(raster: RasterSource, settings: HeightSettings) -> tuple[int | None, int | None]:
    """The bands of heights and of the ground that a user names; of two bands, one name is enough."""
    band, ground_band = settings.band, settings.ground_band
    for key, number in (("band", band), ("ground_band", ground_band)):
        if number is not None and number > raster.count:
            raise HeightError(
                f"{raster.name}: height.{key}: expected a band from 1 to {raster.count}, found {number}.\n"
                "Name the band that holds the heights."
            )
    if band is None and ground_band is not None:
        others = [b for b in raster.data_bands if b != ground_band]
        if len(others) != 1:
            raise HeightError(
                f"{raster.name}: height.ground_band {ground_band}: expected one other band, which holds the heights, "
                f"found {len(others)}.\nName it with height.band."
            )
        band = others[0]
    return band, ground_band


def _bands_like(raster: RasterSource, settings: HeightSettings) -> tuple[int | None, int | None]:
    """The bands of the training in a file that has several; a file of one band holds heights alone."""
    if len(raster.data_bands) == 1 and settings.band is None:
        return None, None
    named = [b for b in (settings.band, settings.ground_band) if b is not None]
    return (None, None) if not named or max(named) > raster.count else _bands_set(raster, settings)


def _require_encoding(raster: RasterSource, settings: HeightSettings) -> None:
    if settings.encoding is not None and raster.dtype not in _HALF_PRECISION:
        raise HeightError(
            f"{raster.name}: height.encoding {settings.encoding}: expected whole numbers of 16 bits, which hold the "
            f"bits of half-precision numbers, found {raster.dtype}.\nLeave the encoding out."
        )
