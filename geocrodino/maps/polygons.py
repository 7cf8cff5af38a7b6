"""A class map as polygons: one for each patch of a class, for maps, statistics and editing by hand.

The pixel edges that two patches share are one line with the same corners in both polygons, before and after they are
simplified, so there are no gaps or overlaps.
"""

from __future__ import annotations

import math
import sqlite3
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pyproj
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.features import shapes, sieve

from geocrodino.errors import OutputError, RasterError
from geocrodino.files.access import whole_file
from geocrodino.files.names import gdal_name
from geocrodino.geo.rasters.grid import crs_of, degrees_per_unit, metres_per_unit, pixel_area_m2
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.maps.files import read_classes
from geocrodino.maps.inputs import require_distinct_output
from geocrodino.maps.writer import check_output
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme

LAYER = "classes"
"""Name of the layer of polygons."""

_EDGE_PX = 16
"""Straight edges are cut this short before they are bent into another projection."""

_STYLE_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
    f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT CURRENT_TIMESTAMP
)
"""


def write_polygons(
    class_map: str | Path,
    out: str | Path,
    *,
    min_area_m2: float = 0,
    simplify_m: float = 0,
    overwrite: bool = False,
) -> int:
    """Write a GeoPackage with a polygon for each patch of pixels of one class that share edges.

    The layer ``classes`` is in the CRS of the map, with the fields ``value`` (of the pixels), ``class`` (its name),
    ``area_m2`` (true area) and ``colour`` (``#rrggbb``); QGIS draws it in these colours by a style in the file.
    Nodata has no polygon.

    GDAL reads the map strip by strip; the polygons are held in memory, and so is the map itself, three bytes for each
    pixel, where there is a least area.

    Args:
        class_map: A class map, of any affine transform and CRS.
        out: The file to write, ``*.gpkg``.
        min_area_m2: Smaller patches join the largest of their neighbours, by GDAL's sieve in steps, tiny ones first,
            until none is left that has a neighbour of this size; those that never get one, as islands in nodata, stay.
            Nodata is no neighbour and no patch: it neither grows nor shrinks. The size of a pixel is taken at the
            middle of the map.
        simplify_m: How coarse lines between patches may become: a corner goes where the triangle that is cut off has
            an area of at most ``simplify_m**2``, from 0.7 pixels on those of the pixels themselves. Edges of the map
            and of nodata stay, so that the sum of all areas does.
        overwrite: Whether an existing file may be replaced.

    Returns:
        Number of polygons.

    Raises:
        RasterError: If the map is missing, damaged, no class map, or does not say its classes.
        OutputError: If the file exists, or cannot be written.
        ValueError: If a size is negative.

    References:
        Visvalingam and Whyatt (1993). Line generalisation by repeated elimination of points.
        https://doi.org/10.1179/000870493786962263
    """
    class_map, out = Path(class_map), Path(out)
    _require_sizes(min_area_m2=min_area_m2, simplify_m=simplify_m)
    if out.suffix.lower() != ".gpkg":
        raise OutputError(f"{out}: expected the name of a GeoPackage, found {out.name!r}.\nLet it end in .gpkg.")
    check_output(out, overwrite=overwrite)
    require_distinct_output(out, map=class_map)
    grid, scheme = map_grid(class_map), read_classes(class_map)
    outlines = _outlines(class_map, math.ceil(min_area_m2 / pixel_area_m2(grid) - 1e-9))
    _require_known(outlines.values, scheme, class_map)
    polygons = _share_corners(outlines).polygons()
    if simplify_m > 0:
        polygons = _simplify(polygons, grid, simplify_m)
    frame = _frame(polygons, outlines.values, grid, scheme)
    try:
        with whole_file(out) as partial:
            frame.to_file(partial, layer=LAYER, driver="GPKG", engine="pyogrio", geometry_type="Polygon")
            _add_style(partial, scheme)
    except (RuntimeError, sqlite3.Error, OSError) as error:
        raise OutputError(
            f"{out}: the polygons could not be written ({error}).\nCheck the free space of the folder."
        ) from error
    return len(frame)


def map_grid(class_map: Path) -> GeoBox:
    """Read the grid of a class map.

    Args:
        class_map: The map.

    Returns:
        Its grid.

    Raises:
        RasterError: If the file is missing, or no class map.
    """
    source = RasterSource.open(class_map)
    if (source.count, source.dtype, source.nodata) != (1, "uint8", IGNORE_INDEX):
        raise RasterError(
            class_map,
            f"not a class map. Expected one band of uint8 with nodata {IGNORE_INDEX}, found {source.count} of "
            f"{source.dtype} with nodata {source.nodata}.\nGive a map that geocrodino predict wrote.",
        )
    return source.geobox


def _require_sizes(**sizes: float) -> None:
    for name, size in sizes.items():
        if not 0 <= size < math.inf:
            raise ValueError(f"{name} must be 0 or more, found {size}")


def _require_known(values: NDArray[np.uint8], scheme: ClassScheme, class_map: Path) -> None:
    unknown = sorted(set(np.unique(values).tolist()) - set(scheme.values))
    if unknown:
        raise RasterError(
            class_map,
            f"holds values outside its classes: {', '.join(map(str, unknown[:8]))}. Expected "
            f"{', '.join(f'{c.value} {c.name}' for c in scheme.classes)}.\nThe map was changed after it was made.",
        )


@dataclass(frozen=True)
class _Outlines:
    """Rings around patches.

    Attributes:
        corners: Columns and rows from the upper left corner of the map, int64, shape (N, 2).
        ring: Ring of each corner, int64, shape (N,).
        patch: Patch of each ring, outer rings first, int64, shape (R,).
        values: Pixel value of each patch, uint8, shape (P,).
    """

    corners: NDArray[np.int64]
    ring: NDArray[np.int64]
    patch: NDArray[np.int64]
    values: NDArray[np.uint8]

    def polygons(self) -> NDArray[np.object_]:
        """One polygon for each patch, shape (P,)."""
        rings = np.asarray(shapely.linearrings(self.corners.astype(float), indices=self.ring), dtype=object)
        return np.asarray(shapely.polygons(rings, indices=self.patch), dtype=object)


def _outlines(class_map: Path, size_px: int) -> _Outlines:
    rings: list[NDArray[np.float64]] = []
    patch: list[int] = []
    values: list[int] = []
    try:
        with rasterio.open(gdal_name(class_map)) as dataset:
            transform = dataset.transform
            source = _readable_band(dataset) if size_px <= 1 else _sieved(dataset.read(1), size_px)
            # A band is placed by its own transform, whatever is asked for.
            for shape, value in shapes(source, connectivity=4, transform=transform):
                if value != IGNORE_INDEX:
                    rings += [np.array(ring) for ring in shape["coordinates"]]
                    patch += [len(values)] * len(shape["coordinates"])
                    values.append(int(value))
    except (RasterioError, CPLE_BaseError) as error:
        raise RasterError(
            class_map, f"cannot be read: the file is damaged or cut short. Copy it again ({error.__cause__ or error})."
        ) from error
    placed = np.concatenate([np.empty((0, 2)), *rings])
    return _Outlines(
        np.rint(_apply(~transform, placed)).astype(np.int64),
        np.repeat(np.arange(len(rings)), [len(r) for r in rings]),
        np.array(patch, np.int64),
        np.array(values, np.uint8),
    )


def _readable_band(dataset: rasterio.DatasetReader) -> Any:
    """The first band, read completely: GDAL makes polygons up to a damaged place and reports no error."""
    for _, window in dataset.block_windows(1):
        dataset.read(1, window=window)
    return rasterio.band(dataset, 1)


def _sieved(values: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Let smaller patches join their largest neighbour, in place.

    One pass joins a patch only to one that is large enough already. Small ones beside each other come together under
    lower limits first, and then from the edges of large ones inwards, pass by pass.
    """
    size_px = min(size_px, values.size)
    valid = values != IGNORE_INDEX
    for step in range(1, math.ceil(math.log2(size_px))):
        sieve(values, 2**step, out=values, mask=valid)
    found, before = zlib.crc32(values.data), None
    while found != before:
        sieve(values, size_px, out=values, mask=valid)
        found, before = zlib.crc32(values.data), found
    return values


def _share_corners(outlines: _Outlines) -> _Outlines:
    """Give each edge the corners that other edges have on it, so that shared lines are identical."""
    for axis in (0, 1):
        outlines = _split_edges(outlines, axis)
    return outlines


def _split_edges(outlines: _Outlines, axis: int) -> _Outlines:
    """Put every corner that lies on an edge along an axis into that edge."""
    corners, ring = outlines.corners, outlines.ring
    along, across = corners[:, axis], corners[:, 1 - axis]
    span = int(along.max(initial=0)) + 1
    key = across * span + along
    places = np.sort(key)
    places = places[np.diff(places, prepend=-1) > 0]
    edges = np.flatnonzero((ring[:-1] == ring[1:]) & (across[:-1] == across[1:]))
    first, last = np.searchsorted(places, key[edges]), np.searchsorted(places, key[edges + 1])
    number = np.maximum(np.abs(last - first) - 1, 0)
    nth = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + 1
    found = places[np.repeat(first, number) + np.repeat(np.sign(last - first), number) * nth]
    inserted = np.stack([found % span, found // span], axis=1)[:, :: 1 if axis == 0 else -1]
    where = np.repeat(edges + 1, number)
    return replace(
        outlines,
        corners=np.insert(corners, where, inserted, axis=0),
        ring=np.insert(ring, where, np.repeat(ring[edges], number)),
    )


def _simplify(polygons: NDArray[np.object_], grid: GeoBox, simplify_m: float) -> NDArray[np.object_]:
    """Take corners away from lines between patches; polygons in pixels, whole numbers.

    Areas of triangles decide, and these differ by one factor between pixels and the ground. Among whole numbers a
    corner lies on a line or beside it; elsewhere rounding would let polygons cross there.
    """
    tolerance_px = simplify_m / math.sqrt(pixel_area_m2(grid))
    simple: NDArray[np.object_] = shapely.coverage_simplify(polygons, tolerance_px, simplify_boundary=False)
    if not shapely.coverage_is_valid(simple):
        raise ValueError("the simplified polygons gape or overlap")
    return simple


def _frame(
    polygons: NDArray[np.object_], values: NDArray[np.uint8], grid: GeoBox, scheme: ClassScheme
) -> gpd.GeoDataFrame:
    by_value = {c.value: c for c in scheme.classes}
    placed = shapely.transform(polygons, lambda xy: _apply(grid.affine, xy))
    return gpd.GeoDataFrame(
        {
            "value": values.astype(np.int16),
            "class": np.array([by_value[v].name for v in values.tolist()], dtype=object),
            "area_m2": areas_m2(polygons, grid),
            "colour": np.array([by_value[v].colour for v in values.tolist()], dtype=object),
        },
        geometry=placed,
        crs=pyproj.CRS.from_user_input(crs_of(grid).wkt),
    )


def areas_m2(polygons: NDArray[np.object_], grid: GeoBox) -> NDArray[np.float64]:
    """True areas of polygons on a grid, in square metres.

    Areas of the projection where it is true to size all over the grid, as everywhere in this package. Elsewhere those
    on the CRS's own ellipsoid: in an equal-area projection, the cylindrical one for degrees, where edges along
    parallels and meridians stay straight.

    Args:
        polygons: In pixels: columns and rows from the upper left corner of the grid.
        grid: Their grid.

    Returns:
        Areas, float64, shape of ``polygons``.
    """
    height, width = grid.shape
    crs = crs_of(grid)
    places = [(0, 0), (width, 0), (0, height), (width, height), (width / 2, height / 2)]
    units = {metres_per_unit(crs, *(grid.affine @ place)) for place in places}
    if not crs.geographic and len(units) == 1:
        return np.asarray(shapely.area(polygons) * pixel_area_m2(grid), np.float64)
    short = shapely.segmentize(polygons, _EDGE_PX)
    return np.asarray(shapely.area(shapely.transform(short, lambda xy: _equal_area(xy, grid))), np.float64)


def _equal_area(xy: NDArray[np.float64], grid: GeoBox) -> NDArray[np.float64]:
    crs = pyproj.CRS.from_user_input(crs_of(grid).wkt)
    degrees, ellipsoid = crs.geodetic_crs, crs.ellipsoid
    if degrees is None or ellipsoid is None:
        raise ValueError("a CRS without an ellipsoid is true to size")
    centre = np.array([[grid.shape[1] / 2, grid.shape[0] / 2]])
    to_degrees = pyproj.Transformer.from_crs(crs, degrees, always_xy=True)
    unit = degrees_per_unit(degrees)  # some old systems count in grads
    (lon0, *lon), (lat0, *lat) = (
        np.multiply(v, unit) for v in to_degrees.transform(*_apply(grid.affine, np.concatenate([centre, xy])).T)
    )
    flat: dict[str, Any] = {"proj": "cea", "over": True}  # a grid may go on beyond 180 degrees
    if not crs.is_geographic:
        flat = {"proj": "laea", "lon_0": lon0, "lat_0": lat0}
    project = pyproj.Proj(a=ellipsoid.semi_major_metre, b=ellipsoid.semi_minor_metre, **flat)
    x, y = project(np.array(lon), np.clip(lat, -90, 90))
    return np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], axis=1)


def _apply(a: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    placed: NDArray[np.float64] = xy @ np.array([[a.a, a.d], [a.b, a.e]]) + (a.c, a.f)
    return placed


def _add_style(path: Path, scheme: ClassScheme) -> None:
    """Add a default style for QGIS to the layer of a GeoPackage."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute(_STYLE_TABLE)
            connection.execute(
                "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES (?, 'attributes', ?)",
                ("layer_styles", "layer_styles"),
            )
            connection.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName,"
                " styleQML, styleSLD, useAsDefault) VALUES ('', '', ?, 'geom', ?, ?, '', 1)",
                (LAYER, LAYER, _style(scheme)),
            )
    finally:
        connection.close()


def _style(scheme: ClassScheme) -> str:
    """A style of QGIS: each value in its colour, without outlines."""
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(root, "renderer-v2", type="categorizedSymbol", attr="value", symbollevels="0")
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for number, c in enumerate(scheme.classes):
        ElementTree.SubElement(
            categories, "category", value=str(c.value), symbol=str(number), label=c.name, render="true"
        )
        symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1")
        layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0"})
        fill = {"color": ",".join(map(str, (*c.rgb, 255))), "style": "solid", "outline_style": "no"}
        options = ElementTree.SubElement(layer, "Option", type="Map")
        for name, value in fill.items():
            ElementTree.SubElement(options, "Option", name=name, type="QString", value=value)
            ElementTree.SubElement(layer, "prop", k=name, v=value)  # as versions before 3.26 read it
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ElementTree.tostring(root, "unicode")
