"""The CRS of an area of interest: named by the source or by the user, and checked against the coordinates."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from pyproj.exceptions import CRSError

from geocrodino.errors import AOIError, AreaWarning
from geocrodino.geo.areas.sources import RawArea, swapped_option
from geocrodino.geo.rasters.grid import degrees_per_unit
from geocrodino.phrases import arguments, span

_MOST_LON_DEG, _MOST_LAT_DEG = 360.0, 90.0
_SLACK_DEG = 1e-6


def user_crs(text: str) -> pyproj.CRS:
    """Read a CRS that a user writes down.

    Args:
        text: A code such as ``EPSG:32631`` or ``32631``, a URN, WKT, or a PROJ string.

    Returns:
        The CRS, projected or geographic.

    Raises:
        AOIError: If it is none, or one without positions on a map (heights alone, geocentric).
    """
    bare = text.strip()
    try:
        crs = pyproj.CRS.from_user_input(f"EPSG:{bare}" if bare.isdigit() else bare)
    except CRSError as error:
        raise AOIError(
            f"{text!r} is not a coordinate reference system. Expected for instance EPSG:32631, WKT or a PROJ string."
        ) from error
    if not (crs.is_geographic or crs.is_projected):
        raise AOIError(
            f"{text!r} is a {crs.type_name} ({crs.name}). Expected a projected or geographic CRS, for instance "
            "EPSG:32631."
        )
    return crs


def with_crs(raw: RawArea, given: str | None) -> gpd.GeoDataFrame:
    """Give the rows of a source their CRS: the one that the user names, otherwise the source's own.

    Args:
        raw: What the source holds.
        given: The CRS that the user names, None if none is named.

    Returns:
        The rows, unchanged but for the CRS.

    Raises:
        AOIError: If there is no CRS, the user's CRS cannot be read, or the CRS counts in degrees and the coordinates
            are no degrees.

    Warns:
        AreaWarning: If the user's CRS differs from that of the source.
    """
    label = raw.source.label
    crs = raw.crs if given is None else user_crs(given)
    if crs is None:
        raise AOIError(_without_crs(raw))
    if given is None or raw.crs is None or _same(crs, raw.crs):
        _require_degrees(raw, crs, "" if given is None else "`aoi_crs` names")
    else:
        _require_degrees(raw, crs, "`aoi_crs` names")
        warnings.warn(
            f"{label}: the coordinates are read as {crs_name(crs)}, as `aoi_crs` says; {raw.crs_is} "
            f"{crs_name(raw.crs)}.",
            AreaWarning,
            stacklevel=3,
        )
    frame: gpd.GeoDataFrame = raw.frame.set_crs(crs, allow_override=True)
    return frame


def crs_name(crs: pyproj.CRS) -> str:
    """Name a CRS in messages.

    Args:
        crs: The CRS.

    Returns:
        Its code, for instance ``EPSG:32631``; its name if it has no code.
    """
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.name)


def _same(first: pyproj.CRS, second: pyproj.CRS) -> bool:
    """Whether two CRSs give the same positions: by definition or by code; vertical parts do not count."""
    flat = [c.to_2d() for c in (first, second)]
    codes = [c.to_epsg() for c in flat]
    return bool(flat[0].equals(flat[1], ignore_axis_order=True)) or (codes[0] is not None and codes[0] == codes[1])


def _without_crs(raw: RawArea) -> str:
    label, kind = raw.source.label, raw.source.kind
    if kind == "file":
        return (
            f"{label}: no coordinate reference system. Expected one in the file (a .prj beside a Shapefile), "
            f"found none.\nName it, for instance: {_naming(raw, 'EPSG:4326')}"
        )
    what = {"box": "a bounding box needs a CRS", "wkt": "a geometry in WKT needs a CRS"}.get(kind, "no CRS")
    return f"{raw.source.text if kind == 'box' else label}: {what}. Name it, for instance: `aoi_crs='EPSG:4326'`"


def _require_degrees(raw: RawArea, crs: pyproj.CRS, who: str) -> None:
    """Check that coordinates can be longitude and latitude where a CRS counts in degrees."""
    if not crs.is_geographic:
        return
    unit = degrees_per_unit(crs)
    xy = np.abs(shapely.get_coordinates(raw.frame.geometry.values)) * unit
    if not xy.size:
        return
    x, y = xy.max(axis=0)
    if _are_degrees(x, y):
        return
    found = shapely.get_coordinates(raw.frame.geometry.values)
    (west, south), (east, north) = found.min(axis=0), found.max(axis=0)
    why = who or raw.crs_is
    problem = (
        f"{raw.source.label}: {why} {crs_name(crs)}, which counts in degrees: expected x from -360 to 360 and y from "
        f"-90 to 90, found {span(west, south, east, north)}."
    )
    raise AOIError(f"{problem}\n{_advice(raw, crs, swapped=_are_degrees(y, x), named=bool(who))}")


def _are_degrees(lon: float, lat: float) -> bool:
    return bool(lon <= _MOST_LON_DEG + _SLACK_DEG and lat <= _MOST_LAT_DEG + _SLACK_DEG)


def _advice(raw: RawArea, crs: pyproj.CRS, *, swapped: bool, named: bool) -> str:
    if swapped:
        return f"Latitude and longitude seem to be swapped. {swapped_option(raw.source)}"
    if named and raw.crs is not None and not _same(raw.crs, crs):
        return f"Leave out `aoi_crs`: {raw.crs_is} {crs_name(raw.crs)}."
    return f"Name the CRS of these coordinates, for instance: {_naming(raw, 'EPSG:32631')}"


def _naming(raw: RawArea, code: str) -> str:
    """How a user names the CRS of a source."""
    return arguments(aoi_crs=code) if raw.source.role == "aoi" else f"`data.crs`, such as {code}"
