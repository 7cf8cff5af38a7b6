"""Units of height: every spelling that GDAL, EPSG, PROJ, ESRI and UDUNITS have for a unit of length."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from odc.geo.geobox import GeoBox
from pyproj.database import get_units_map

from geocrodino.errors import HeightError
from geocrodino.geo.rasters.grid import crs_of, pixel_size_m, proj_crs
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.spikes import HeightLimits

if TYPE_CHECKING:
    from pyproj._crs import Axis  # pyproj exports no name for it

NO_UNIT = "none"
"""Name for numbers without a unit, which are used as they are."""

UNNAMED = "the file names no unit of height"
"""What the sentence of `height_unit` ends with where the unit is not known from the file."""

_COMMON = ("m", "ft", "us-ft", "cm", "dm", "mm", "km", NO_UNIT)
_FOOT_M = (0.3, 0.31)  # metres in a foot, whichever
_EARTH_RADIUS_M = (6.3e6, 6.45e6)

_UNSAID = {"", "unknown", "unspecified", "n/a", "na", "null"}
"""Unit tags that name no unit."""

_WORDS = {
    "m": "metre", "meter": "metre", "mtr": "metre", "metro": "metre",
    "feet": "foot", "ft": "foot", "yd": "yard",
    "intl": "international", "int": "international", "i": "international",
    "survey": "us", "usa": "us", "u": "us",
    "mm": "millimetre", "millimeter": "millimetre", "cm": "centimetre", "centimeter": "centimetre",
    "dm": "decimetre", "decimeter": "decimetre", "km": "kilometre", "kilometer": "kilometre",
    "in": "inch", "inche": "inch", "mi": "mile", "fm": "fathom", "fath": "fathom",
}  # fmt: skip
"""Words of unit names, in the singular, and the one that stands for all of them."""

_JOINED = {
    "ftus": "us foot", "usft": "us foot", "ussft": "us foot", "sft": "us foot", "usfoot": "us foot",
    "usfeet": "us foot", "footus": "us foot", "feetus": "us foot", "surveyfoot": "us foot", "surveyfeet": "us foot",
    "ift": "foot", "ftint": "foot", "ftintl": "foot", "fti": "foot", "intlft": "foot", "footintl": "foot",
    "internationalfoot": "foot", "internationalfeet": "foot", "internationalft": "foot",
}  # fmt: skip
"""Names that are written as one word."""

_PREFIXED_M = {"decimetre": 0.1, "centimetre": 0.01, "millimetre": 0.001, "kilometre": 1000.0, "metre": 1.0}


def metres_in(unit: str) -> float | None:
    """Metres in one unit of length.

    Args:
        unit: Name in any spelling: ``m``, ``US survey foot``, ``ftUS``, ``Foot_US``, ``feet (US)`` ... ``none`` is 1.

    Returns:
        The length in metres, or None if no such unit is known.
    """
    if unit.strip().lower() in {NO_UNIT, "unitless", "dimensionless", "1"}:
        return 1.0
    return _lengths().get(_key(unit))


def unit_in_metres(unit: str, source: str) -> float:
    """Metres in one of the named units of height.

    Args:
        unit: Name of the unit.
        source: The file that the heights are in, for the message.

    Returns:
        Metres in one unit.

    Raises:
        HeightError: If the unit is not known, naming some that are.
    """
    found = metres_in(unit)
    if found is None:
        raise HeightError(
            f"{source}: unknown unit of height {unit!r}. Expected a unit of length such as {', '.join(_COMMON)}.\n"
            "Give the unit of the heights, for instance `height_unit='m'`."
        )
    return found


def height_unit(raster: RasterSource, override: str | None = None, otherwise: str | None = None) -> tuple[float, str]:
    """Metres in one unit of a height raster, and how that is known.

    In this order: ``override``, the coding that the user gave (`HeightCoding`), the band's unit tag, the vertical axis
    of the CRS, the horizontal unit of a projected CRS that counts in feet (feet across come with feet up),
    ``otherwise``, metres.

    Args:
        raster: The heights.
        override: Unit that the user gave for this raster.
        otherwise: Unit that the user gave for the training, for files that name none.

    Returns:
        The factor and a sentence for people.

    Raises:
        HeightError: If a unit is named that is not known.
    """
    coding, path = raster.coding, str(raster.path)
    if override is not None:
        found = unit_in_metres(override, path), f"heights in {override}, as asked"
    elif coding is not None and coding.unit_known_by is not None:
        found = 1.0, coding.unit_known_by
    else:
        found = _unit_of_file(raster, otherwise)
    return found if coding is None else (found[0], coding.words(found[1]))


def _unit_of_file(raster: RasterSource, otherwise: str | None) -> tuple[float, str]:
    path = str(raster.path)
    tag = (raster.unit or "").strip()
    if tag.lower() not in _UNSAID:
        return unit_in_metres(tag, path), f"heights in {tag}, by the band's unit tag"
    wkt = crs_of(raster.geobox).wkt
    axes, _ = _axes_of(wkt)
    if len(axes) == 3:
        axis = axes[2]
        return float(axis.unit_conversion_factor), f"heights in {axis.unit_name}, by the vertical axis of the CRS"
    across = _foot_across(wkt)
    if across is not None:
        return float(across.unit_conversion_factor), (
            f"heights taken as {across.unit_name}, the horizontal unit of the CRS; {UNNAMED}"
        )
    if otherwise is not None:
        known = f"heights taken as {otherwise}, the unit given for the training; {UNNAMED}"
        return unit_in_metres(otherwise, path), known
    return 1.0, f"heights taken as metres; {UNNAMED}"


def unit_as_trained(raster: RasterSource, trained: str | None, trained_crs: str) -> str | None:
    """The unit that the user gave for a training on a grid in feet, for heights whose CRS alone speaks of feet.

    The user gave it because the training's files are not in feet, although their CRS counts in feet. So a file of this
    kind is read as it was in the training.

    Args:
        raster: The heights.
        trained: Unit that the user gave for the training.
        trained_crs: CRS of the training's grid, in any spelling.

    Returns:
        That unit; None if it is not to be used, or none was given.

    Raises:
        HeightError: If the raster names a unit that is not known.
    """
    if trained is None or UNNAMED not in height_unit(raster)[1]:
        return None
    return trained if _foot_across(crs_of(raster.geobox).wkt) and _foot_across(trained_crs) else None


def _foot_across(wkt: str) -> Axis | None:
    """The first axis of a projected CRS that counts in feet."""
    axes, is_projected = _axes_of(wkt)
    across = axes[0] if is_projected else None
    return across if across is not None and _FOOT_M[0] < across.unit_conversion_factor < _FOOT_M[1] else None


@lru_cache(maxsize=256)
def _axes_of(wkt: str) -> tuple[tuple[Axis, ...], bool]:
    """The axes of a CRS, and whether it is projected; asked for with every window of heights that is read."""
    crs = proj_crs(wkt)
    return tuple(crs.axis_info), crs.is_projected


def ground_unit(ground: RasterSource, given: str | None) -> tuple[float, str]:
    """Find the unit of a ground raster. As `height_unit`, but the file's own tag takes precedence over the given unit.

    Args:
        ground: The raster of ground heights.
        given: The unit that the user gives for the surface, or None.

    Returns:
        Metres in one unit, and where the unit comes from.
    """
    return height_unit(ground, None, given)


def with_height_limits(raster: RasterSource, unit_m: float, unit: str | None) -> RasterSource:
    """Read impossible heights of a raster as missing.

    Args:
        raster: The heights.
        unit_m: Metres in one unit of them.
        unit: Name of the unit, where one was given; numbers without a unit can have any value.

    Returns:
        The raster with limits.
    """
    if unit is not None and unit.strip().lower() == NO_UNIT:
        return raster.with_limits(HeightLimits())
    if raster.zero == "camera":  # neighbours may be any distance apart, and no distance is impossible
        return raster.with_limits(HeightLimits(sentinels=()) if raster.is_scaled else HeightLimits())
    side = max(pixel_size_m(raster.geobox))
    return raster.with_limits(
        HeightLimits.of_unit(unit_m, side, on_earth=on_earth(raster.geobox), scaled=raster.is_scaled)
    )


def on_earth(grid: GeoBox) -> bool:
    """Find out whether a grid lies on the Earth.

    Args:
        grid: The grid.

    Returns:
        Whether the ellipsoid of its CRS is as large as that of the Earth; True without an ellipsoid.
    """
    ellipsoid = proj_crs(crs_of(grid).wkt).ellipsoid
    return ellipsoid is None or _EARTH_RADIUS_M[0] < ellipsoid.semi_major_metre < _EARTH_RADIUS_M[1]


@lru_cache(maxsize=1)
def _lengths() -> dict[frozenset[str], float]:
    """Metres in every unit of length of the EPSG registry, by the words of its name."""
    found = {frozenset({name}): length for name, length in _PREFIXED_M.items()}
    found[frozenset({"us", "foot"})] = 1200 / 3937  # as it is defined; the registry rounds it
    for name, unit in get_units_map(category="linear").items():
        found.setdefault(_key(name), unit.conv_factor)
        if unit.proj_short_name is not None:
            found.setdefault(_key(unit.proj_short_name), unit.conv_factor)
    found[frozenset({"mile"})] = found[_key("Statute mile")]
    return found


def _key(unit: str) -> frozenset[str]:
    """The words of a unit's name, whatever their order, number and spelling."""
    plain = unicodedata.normalize("NFKD", unit).encode("ascii", "ignore").decode()  # mètre
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)  # ftUS
    words = re.findall(r"[a-z]+|\d+", text.lower())
    joined = "".join(words)
    if joined in _JOINED:
        words = _JOINED[joined].split()
    singular = [w[:-1] if len(w) > 2 and w.endswith("s") and not w.endswith("ss") else w for w in words]
    known = {_WORDS.get(word, word) for word in singular} - {"s", "legal"} if "german" not in words else set(words)
    if known in ({"international", "foot"}, {"international", "metre"}):
        known.discard("international")
    return frozenset(known)
