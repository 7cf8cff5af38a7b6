"""Areas of interest that are given as text: bounding boxes, WKT and GeoJSON."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import geopandas as gpd
import pyogrio
import pyproj
import shapely
from pyproj.exceptions import CRSError

from geocrodino.errors import AOIError
from geocrodino.files.area_names import WKT, box_numbers
from geocrodino.phrases import arguments

_EXAMPLE = '{"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]}'
_LONGEST = 500  # characters of a geometry that a message still prints


def read_box(text: str) -> shapely.Polygon:
    """Read a bounding box.

    Args:
        text: Four numbers, see `geocrodino.files.area_names.box_numbers`.

    Returns:
        The rectangle, in the units of a CRS that is not known here.

    Raises:
        AOIError: If there are not four finite numbers, or a minimum is not below its maximum.
    """
    numbers = box_numbers(text) or []
    if len(numbers) != 4:
        raise AOIError(
            f"{text}: expected a bounding box of four numbers minx,miny,maxx,maxy, found {len(numbers)} numbers.\n"
            "Write decimals with a point."
        )
    minx, miny, maxx, maxy = numbers
    expected = f"{text}: expected minx,miny,maxx,maxy with minx < maxx and miny < maxy"
    if not all(map(math.isfinite, numbers)):
        raise AOIError(f"{expected}, found a number that is not finite.")
    pairs = (("x", minx, maxx), ("y", miny, maxy))
    wrong = [f"min{a} {low:.10g} and max{a} {high:.10g}" for a, low, high in pairs if low >= high]
    if wrong:
        raise AOIError(f"{expected}, found {' and '.join(wrong)}.\n{_box_advice(minx, miny, maxx, maxy)}")
    return shapely.box(minx, miny, maxx, maxy)


def box_option(minx: float, miny: float, maxx: float, maxy: float) -> str:
    """Write a bounding box as the argument `aoi`, in backticks.

    Args:
        minx: Smallest x.
        miny: Smallest y.
        maxx: Largest x.
        maxy: Largest y.

    Returns:
        The argument, for a message.
    """
    return arguments(aoi=f"{minx:.15g},{miny:.15g},{maxx:.15g},{maxy:.15g}")


def read_wkt(text: str, label: str) -> tuple[gpd.GeoDataFrame, pyproj.CRS | None]:
    """Read a geometry in WKT or EWKT.

    Args:
        text: WKT or EWKT.
        label: What messages call it.

    Returns:
        One row with the geometry; the CRS of its SRID, None without one.

    Raises:
        AOIError: If it cannot be read, or its SRID is unknown.
    """
    found = WKT.fullmatch(text)
    try:
        if found is None:
            raise ValueError("expected SRID=NUMBER;GEOMETRY")
        geometry = shapely.from_wkt(found["wkt"])
    except (shapely.errors.ShapelyError, NotImplementedError, ValueError) as error:
        raise AOIError(
            f"{label}: not a geometry in WKT ({error}).\nExpected for instance: POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0))"
        ) from error
    frame = gpd.GeoDataFrame(geometry=[geometry])
    if int(found["srid"] or 0) == 0:  # 0 means unknown
        return frame, None
    try:
        return frame, pyproj.CRS.from_epsg(int(found["srid"]))
    except CRSError as error:
        raise AOIError(f"{label}: SRID {found['srid']} is not a code of EPSG. Expected for instance 32631.") from error


def read_geojson(text: str, label: str) -> tuple[gpd.GeoDataFrame, bool]:
    """Read the features of a GeoJSON text.

    Args:
        text: A geometry, a Feature or a FeatureCollection.
        label: What messages call it.

    Returns:
        The rows; whether the text names its CRS.

    Raises:
        AOIError: If it cannot be read.
    """
    try:
        tree = json.loads(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            frame = pyogrio.read_dataframe(text.encode())
    except (RuntimeError, ValueError, OSError, shapely.errors.ShapelyError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "no geometry in it can be read"
        raise AOIError(f"{label}: not a geometry in GeoJSON ({reason}).\nExpected for instance: {_EXAMPLE}") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise AOIError(f"{label}: holds no polygon.\nExpected for instance: {_EXAMPLE}")
    return frame, "crs" in tree


def swapped_text(text: str) -> str | None:
    """Exchange x and y of a geometry that is given as text.

    Args:
        text: WKT, EWKT or GeoJSON that can be read.

    Returns:
        The text with x and y exchanged; None if it is too long for a message.
    """
    found = WKT.fullmatch(text)
    if found:
        srid = f"SRID={found['srid']};" if found["srid"] else ""
        flipped = shapely.transform(shapely.from_wkt(found["wkt"]), lambda c: c[:, ::-1])
        swapped = srid + str(shapely.to_wkt(flipped, rounding_precision=-1, trim=True))
    else:
        swapped = json.dumps(_swapped_positions(json.loads(text)))
    return swapped if len(swapped) <= _LONGEST else None


def _swapped_positions(value: Any) -> Any:
    """GeoJSON with the first two numbers of every position exchanged."""
    if isinstance(value, dict):
        geometry = {"coordinates", "geometry", "geometries", "features"}
        return {k: _swapped_positions(v) if k in geometry else v for k, v in value.items() if k != "bbox"}
    if not isinstance(value, list):
        return value
    if len(value) > 1 and all(isinstance(v, int | float) for v in value):
        return [value[1], value[0], *value[2:]]
    return [_swapped_positions(v) for v in value]


def _box_advice(minx: float, miny: float, maxx: float, maxy: float) -> str:
    if minx == maxx or miny == maxy:
        return "A bounding box needs a width and a height."
    x, y = sorted((minx, maxx)), sorted((miny, maxy))
    advice = f"If minimum and maximum are exchanged: {box_option(x[0], y[0], x[1], y[1])}"
    if not -180 <= maxx < 0 < minx <= 180:
        return advice
    halves = shapely.multipolygons([shapely.box(minx, y[0], 180, y[1]), shapely.box(-180, y[0], maxx, y[1])])
    both = shapely.to_wkt(halves, rounding_precision=-1, trim=True)
    return f"{advice}\nIf the box crosses the antimeridian, give its two parts: {arguments(aoi=both)}"
