"""Areas of interest on the grid of a raster, and advice if the two do not meet."""

from __future__ import annotations

import json
import math
import shlex
import warnings

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from shapely.geometry.base import BaseGeometry

from geocrodino.errors import AOIError, AreaWarning
from geocrodino.files.area_names import box_numbers
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.crs import crs_name
from geocrodino.geo.areas.sources import AreaSource, swapped_option
from geocrodino.geo.areas.text import box_option
from geocrodino.geo.rasters.grid import crs_of
from geocrodino.phrases import arguments, span

_MUCH_SMALLER = 0.01  # share of the size of a bounding box
_EDGE_PARTS = 200  # of the longest side of an area: its edges stay where they are in another CRS


def on_grid(aoi: AOI, grid: GeoBox) -> AOI:
    """The part of an area around a grid, in the CRS of the grid.

    Far-away parts may have no position in that CRS, and straight edges become curves. Areas are therefore cut first,
    and their edges get more points.

    Args:
        aoi: The area.
        grid: Grid of a raster.

    Returns:
        The same rows; polygons without a position in that CRS are empty.

    Raises:
        AOIError: If no transformation leads there.

    Warns:
        AreaWarning: If the area is a bounding box whose numbers may be in another order.
    """
    _warn_of_order(aoi, grid)
    crs = pyproj.CRS.from_user_input(crs_of(grid).wkt)
    if aoi.crs.equals(crs, ignore_axis_order=True):
        return AOI(aoi.frame.set_crs(crs, allow_override=True), aoi.source)
    frame = _around(aoi, grid)
    left, bottom, right, top = frame.total_bounds
    side = max(right - left, top - bottom)
    if side > 0:
        frame = frame.set_geometry(shapely.segmentize(frame.geometry.values, side / _EDGE_PARTS), crs=aoi.crs)
    moved = AOI(frame, aoi.source).to_crs(crs)
    shapes = [_with_position(shape) for shape in moved.frame.geometry]
    return AOI(moved.frame.set_geometry(shapes, crs=crs), aoi.source)


def meets(aoi: AOI, grid: GeoBox) -> bool:
    """Find out whether an area shares ground with a grid.

    Args:
        aoi: The area.
        grid: The grid.

    Returns:
        Whether they intersect; False if there is no transformation between their CRSs.
    """
    try:
        return bool(on_grid(aoi, grid).polygons().intersects(grid.extent.geom))
    except AOIError:
        return False


def bounds_on_grid(aoi: AOI, grid: GeoBox, split: str | None = None) -> str:
    """Write the bounds of an area in the CRS of a grid.

    Args:
        aoi: The area.
        grid: The grid.
        split: Only the polygons of this split; all by default.

    Returns:
        The bounds in words, or that the area has no position in that CRS.
    """
    try:
        area = aoi.to_crs(crs_of(grid).wkt).polygons(split)
    except (AOIError, shapely.errors.ShapelyError):
        return "an area without a position there"
    if area.is_empty or not all(map(math.isfinite, area.bounds)):
        return "an area without a position there"
    return span(*area.bounds)


def placement_advice(aoi: AOI, grid: GeoBox) -> str:
    """Advise a user whose area does not meet a grid.

    Args:
        aoi: The area as it was read.
        grid: Grid of the raster that it should meet.

    Returns:
        What `likely_mistake` finds, or that polygons of another split meet the grid; otherwise the advice to check
        place and CRS.
    """
    if aoi.splits and meets(aoi, grid):
        area = on_grid(aoi, grid)
        there = [split for split in aoi.splits if area.polygons(split).intersects(grid.extent.geom)]
        if there:
            return f"Its polygons of {' and '.join(there)} meet it: name this split, or files of the same place."
    return likely_mistake(aoi, grid) or "Check that both show the same place and carry the right CRS."


def likely_mistake(aoi: AOI, grid: GeoBox) -> str:
    """Find a common mistake that explains why an area does not meet a grid.

    Args:
        aoi: The area as it was read.
        grid: Grid of the raster that it should meet.

    Returns:
        That x and y are exchanged, that a box has its numbers in another order, or that the coordinates are in the CRS
        of the raster or in degrees; empty where none of these would make the area meet the grid.
    """
    if aoi.given is not None:
        reordered = _reordered_box(aoi, grid)
        if reordered:
            return reordered
        if meets(_moved(aoi, shapely.transform(aoi.frame.geometry.values, lambda c: c[:, ::-1]), aoi.crs), grid):
            return (
                "With x and y exchanged it meets the raster: latitude and longitude, or northing and easting, seem to "
                f"be swapped. {swapped_option(aoi.given)}"
            )
        crss = () if meets(aoi, grid) else (pyproj.CRS.from_user_input(crs_of(grid).wkt), pyproj.CRS.from_epsg(4326))
        for crs in crss:
            if meets(_moved(aoi, aoi.frame.geometry.values, crs), grid):
                name = crs_name(crs)
                code = name if crs.to_epsg() else crs.to_wkt()
                given = arguments(aoi_crs=code) if aoi.given.role == "aoi" else _with_other_crs(aoi.given, code)
                return f"It meets the raster if its coordinates are in {name}. If they are: {given}"
    return ""


def _with_other_crs(source: AreaSource, code: str) -> str:
    """Tell how to write a copy of a file of labels that states another CRS."""
    layer = "" if source.layer is None else f", layer={json.dumps(source.layer)}"
    text = (
        f"import geopandas; geopandas.read_file({json.dumps(source.gdal)}{layer})"
        f'.set_crs({json.dumps(code)}, allow_override=True).to_file("labels.gpkg")'
    )
    return f"python -c {shlex.quote(text)}"


def _warn_of_order(aoi: AOI, grid: GeoBox) -> None:
    """Warn if a bounding box is huge, and with its numbers in another order would be a small one at the raster."""
    other = _reordered_box(aoi, grid, _MUCH_SMALLER)
    if other:
        warnings.warn(f"{aoi.source}: check the order of its numbers. {other}", AreaWarning, stacklevel=3)


def _reordered_box(aoi: AOI, grid: GeoBox, share: float = 1.0) -> str:
    """Advice for a bounding box that meets a grid if its numbers are in another common order.

    Read in a wrong order, a small box becomes a large one, so only boxes smaller than this share of its size count.
    """
    if aoi.given is None or aoi.given.kind != "box":
        return ""
    a, b, c, d = box_numbers(aoi.given.text) or []
    orders = {"minx,maxx,miny,maxy": (a, c, b, d), "miny,maxy,minx,maxx": (c, a, d, b)}
    for order, (west, south, east, north) in orders.items():
        smaller = west < east and south < north and (east - west) * (north - south) < share * (c - a) * (d - b)
        if smaller and meets(_moved(aoi, [shapely.box(west, south, east, north)], aoi.crs), grid):
            option = box_option(west, south, east, north)
            return f"It meets the raster if the numbers are {order}. Give them as minx,miny,maxx,maxy: {option}"
    return ""


def _moved(aoi: AOI, shapes: object, crs: pyproj.CRS) -> AOI:
    return AOI(gpd.GeoDataFrame(geometry=np.asarray(shapes), crs=crs), aoi.source)


def _around(aoi: AOI, grid: GeoBox) -> gpd.GeoDataFrame:
    """The part of an area in the surroundings of a grid, as wide as the grid on each side."""
    try:
        to_area = pyproj.Transformer.from_crs(crs_of(grid).wkt, aoi.crs, always_xy=True)
        left, bottom, right, top = to_area.transform_bounds(*grid.boundingbox.bbox, densify_pts=21)
    except ProjError:
        return aoi.frame
    margin = max(right - left, top - bottom)
    if not (left < right and math.isfinite(margin)):  # across the date line, or without an image there
        return aoi.frame
    near = shapely.box(left - margin, bottom - margin, right + margin, top + margin)
    shapes = np.array(aoi.frame.geometry.values, object)
    outside = ~shapely.covers(near, shapes)
    if not outside.any():
        return aoi.frame
    shapes[outside] = [_polygons(part) for part in shapely.intersection(shapes[outside], near)]
    return aoi.frame.set_geometry(shapes, crs=aoi.crs)


def _polygons(shape: BaseGeometry) -> BaseGeometry:
    """The polygons of an intersection, without the lines and points in which geometries only touch."""
    if shape.geom_type in {"Polygon", "MultiPolygon"}:
        return shape
    return shapely.union_all([p for p in shapely.get_parts(shape) if p.geom_type == "Polygon"] or [shapely.Polygon()])


def _with_position(shape: BaseGeometry) -> BaseGeometry:
    """A shape without the parts that have no position in its CRS."""
    if np.isfinite(shapely.get_coordinates(shape)).all():
        return shape
    parts = [p for p in shapely.get_parts(shape) if np.isfinite(shapely.get_coordinates(p)).all()]
    return shapely.union_all(parts) if parts else shapely.Polygon()
