"""Outlines of maps in longitude and latitude, as GeoJSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from geocrodino.errors import RasterError
from geocrodino.geo.rasters.grid import crs_of

_EDGE_PARTS = 64
"""Straight edges of the longer side are cut into so many parts before they are bent into degrees."""


def footprint(class_map: Path, grid: GeoBox) -> BaseGeometry | None:
    """Compute the outline of a grid in longitude and latitude.

    Args:
        class_map: The file that the grid is of, for messages.
        grid: The grid, of any affine transform and CRS.

    Returns:
        Polygon in degrees (EPSG:4326; on another celestial body in degrees of its own); longitudes continue beyond 180
        where the outline crosses the antimeridian. None where the CRS has no place on a globe.

    Raises:
        RasterError: If a point of the outline has no longitude and latitude.
    """
    crs = pyproj.CRS.from_user_input(crs_of(grid).wkt)
    try:
        to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    except ProjError:
        if crs.geodetic_crs is None:
            return None
        to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    height, width = grid.shape
    outline = shapely.segmentize(shapely.box(0, 0, width, height), max(height, width) / _EDGE_PARTS)
    placed = [grid.affine @ place for place in outline.exterior.coords]
    lon, lat = map(np.array, to_degrees.transform(*np.transpose(placed)))
    if not np.isfinite([lon, lat]).all():
        raise RasterError(class_map, "the outline of the map has no longitude and latitude. Check its CRS.")
    lon = np.unwrap(lon, period=360)
    if abs(lon[-1] - lon[0]) > 180:  # once around: a pole lies inside
        pole = math.copysign(90, lat.mean())
        lon, lat = np.append(lon, [lon[-1], lon[0]]), np.append(lat, [pole, pole])
    polygon = shapely.Polygon(np.stack([lon, lat], axis=1))
    pixel = math.sqrt(polygon.area / (height * width))
    simple: BaseGeometry = shapely.simplify(polygon, pixel / 10)
    return simple


def on_globe(polygon: BaseGeometry) -> tuple[dict[str, Any], list[float]]:
    """Bring a polygon of any longitudes to -180 to 180 degrees, cut at the antimeridian (RFC 7946).

    Args:
        polygon: Polygon in degrees.

    Returns:
        GeoJSON geometry; bounding box west, south, east, north in degrees, where west is larger than east if the
        polygon crosses the antimeridian.
    """
    west, south, east, north = polygon.bounds
    first, last = math.floor((west + 180) / 360), math.ceil((east + 180) / 360) - 1
    parts: list[Any] = []
    for turn in range(first, last + 1):
        inside = polygon.intersection(shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
        parts += [translate(p, -360 * turn) for p in shapely.get_parts(inside) if p.area > 0]
    cut = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    around = east - west >= 360
    box = [-180.0 if around else west - 360 * first, south, 180.0 if around else east - 360 * last, north]
    oriented: Any = shapely.orient_polygons(cut)
    return shapely.geometry.mapping(oriented), box
