"""Facts about bands from STAC items, for files that do not contain them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from geocrodino.geo.rasters.bands import Band
from geocrodino.geo.rasters.reader import RasterSource

_LISTS = ("bands", "eo:bands", "raster:bands")
_COMMON = ("nodata", "unit", "raster:scale", "raster:offset")
"""Facts that an asset may state for all of its bands at once, since STAC 1.1."""


@dataclass(frozen=True)
class StacBand:
    """One band, by ``bands`` of STAC 1.1 or ``eo:bands`` and ``raster:bands`` of STAC 1.0.

    Attributes:
        name: Common name where there is one, else the name; None without one.
        nodata: Nodata value, or None.
        scale: A value is the stored number times the scale, plus the offset.
        offset: See ``scale``.
        unit: Unit, or None.
    """

    name: str | None = None
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None


def stac_bands(asset: dict[str, Any]) -> tuple[StacBand, ...]:
    """Read the bands that an asset of a STAC item describes.

    Args:
        asset: The asset, as in the item.

    Returns:
        One entry for each band; none if the asset describes none.
    """
    listed: list[list[dict[str, Any]]] = [asset[key] for key in _LISTS if _is_list(asset.get(key))]
    count = max((len(part) for part in listed), default=0)
    common = {key.partition(":")[2] or key: asset[key] for key in _COMMON if key in asset}
    merged: list[dict[str, Any]] = [dict(common) for _ in range(count)]
    for part in listed:
        for whole, facts in zip(merged, part, strict=False):
            whole.update({key.partition(":")[2] or key: value for key, value in facts.items()})
    return tuple(
        StacBand(
            name=facts.get("common_name") or facts.get("name"),
            nodata=_number(facts.get("nodata")),
            scale=_or(_number(facts.get("scale")), 1.0),
            offset=_or(_number(facts.get("offset")), 0.0),
            unit=facts.get("unit"),
        )
        for facts in merged
    )


def with_stac_bands(raster: RasterSource, described: Sequence[StacBand]) -> RasterSource:
    """Add to a raster what a STAC item says about its bands, where the file itself says nothing.

    Args:
        raster: The raster.
        described: Its bands as the item describes them; ignored where their number is another one.

    Returns:
        The raster with these additions.
    """
    if len(described) not in {raster.count, len(raster.data_bands)}:
        return raster
    bands = list(raster.bands)
    numbers = range(1, raster.count + 1) if len(described) == raster.count else raster.data_bands
    for number, facts in zip(numbers, described, strict=True):
        bands[number - 1] = _completed(bands[number - 1], facts)
    return replace(raster, bands=tuple(bands)).with_names(
        [described[list(numbers).index(n)].name if n in numbers else None for n in range(1, raster.count + 1)]
    )


def _completed(band: Band, facts: StacBand) -> Band:
    return replace(
        band,
        nodata=facts.nodata if band.nodata is None else band.nodata,
        unit=band.unit or facts.unit,
        scale=band.scale if band.is_scaled else facts.scale,
        offset=band.offset if band.is_scaled else facts.offset,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _is_list(part: object) -> bool:
    return isinstance(part, list) and all(isinstance(facts, dict) for facts in part)


def _number(value: object) -> float | None:
    """A number, also one of the words for numbers that JSON cannot hold."""
    if isinstance(value, str):
        return {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}.get(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
