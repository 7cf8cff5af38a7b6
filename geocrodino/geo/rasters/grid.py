"""Pixel grids: true pixel sizes, windows, the grid that a network works on.

A grid is an ``odc.geo.geobox.GeoBox``; a `Window` is a rectangle of its pixels and may reach
outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import pyproj
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError

from geocrodino.errors import GridError
from geocrodino.geo.rasters.window import Window

SAME_SIZE_TOLERANCE = 0.01
"""Pixel sizes that differ by less than this share are one size: a map projection alone changes as much."""


def metres_per_unit(crs: CRS, x: float, y: float) -> tuple[float, float]:
    """Ground length of one CRS unit along x and y, in metres, at a place given in the CRS.

    The unit of a projected CRS is taken as it is named where the projection is true to 1 %; elsewhere (Web
    Mercator away from the equator, degrees) the geodesic on the CRS's own ellipsoid decides.

    Raises:
        GridError: If the place has no position on the ellipsoid.
    """
    proj = pyproj.CRS.from_user_input(crs.wkt)
    nominal = math.nan if proj.is_geographic else float(proj.axis_info[0].unit_conversion_factor)
    if proj.geodetic_crs is None:
        return nominal, nominal
    step = 1e-4 if proj.is_geographic else 1.0
    to_degrees = pyproj.Transformer.from_crs(proj, proj.geodetic_crs, always_xy=True)
    lon, lat = to_degrees.transform([x, x + step, x], [y, y, y + step])
    if not all(map(math.isfinite, (*lon, *lat))):
        if math.isfinite(nominal):
            return nominal, nominal
        raise GridError(f"({x:g}, {y:g}) is not a position in {crs.to_epsg() or 'its CRS'}: no pixel size in metres.")
    geod = proj.get_geod()
    assert geod is not None  # noqa: S101 - a CRS with a geodetic CRS has an ellipsoid
    degrees = degrees_per_unit(proj.geodetic_crs)  # not 1 in the grads of older French systems
    lon, lat = [v * degrees for v in lon], [v * degrees for v in lat]
    _, _, along_x = geod.inv(lon[0], lat[0], lon[1], lat[1])
    _, _, along_y = geod.inv(lon[0], lat[0], lon[2], lat[2])
    found = (along_x / step, along_y / step)
    if all(abs(f / nominal - 1) < SAME_SIZE_TOLERANCE for f in found if math.isfinite(nominal)) and proj.is_projected:
        return nominal, nominal
    return found


def degrees_per_unit(geographic: pyproj.CRS) -> float:
    """Degrees in one unit of longitude and latitude, as a CRS counts them."""
    return math.degrees(geographic.axis_info[0].unit_conversion_factor)


@lru_cache(maxsize=256)
def pixel_size_m(grid: GeoBox) -> tuple[float, float]:
    """True width and height of a pixel at the middle of a grid, in metres."""
    a = grid.affine
    x, y = a @ (grid.shape[1] / 2, grid.shape[0] / 2)
    along_x, along_y = metres_per_unit(crs_of(grid), x, y)
    return math.hypot(a.a * along_x, a.d * along_y), math.hypot(a.b * along_x, a.e * along_y)


@lru_cache(maxsize=256)
def pixel_area_m2(grid: GeoBox) -> float:
    """True area of a pixel at the middle of a grid, in square metres; sides do not give it where degrees are turned."""
    x, y = grid.affine @ (grid.shape[1] / 2, grid.shape[0] / 2)
    return abs(grid.affine.determinant) * math.prod(metres_per_unit(crs_of(grid), x, y))


def window_grid(grid: GeoBox, window: Window) -> GeoBox:
    """The part of a grid that a window covers, itself a grid."""
    window = Window(*window)
    return GeoBox(window.shape, grid.affine @ Affine.translation(window.col_start, window.row_start), grid.crs)


def pixel_offset(grid: GeoBox, other: GeoBox, tolerance_px: float = 0.01) -> tuple[int, int] | None:
    """Rows and columns by which ``grid`` is shifted in ``other``, or None if they are not one lattice.

    The corners of the part that they share must agree within ``tolerance_px``, so that a shift that grows along the
    rows is not missed.
    """
    if grid.crs != other.crs:
        return None
    to_other = ~other.affine @ grid.affine
    (r0, r1), (c0, c1) = _shared_px(grid.shape, other.shape, ~to_other)
    start_c, start_r = to_other @ (c0, r0)
    row, col = round(start_r - r0), round(start_c - c0)
    for r, c in ((r0, c0), (r0, c1), (r1, c0), (r1, c1)):
        found_c, found_r = to_other @ (c, r)
        if abs(found_c - c - col) > tolerance_px or abs(found_r - r - row) > tolerance_px:
            return None
    return row, col


def _shared_px(
    shape: Sequence[int], other: Sequence[int], from_other: Affine
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Rows and columns of a grid that another covers, all of them along an axis on which the two do not meet."""
    corners = [from_other @ (c, r) for r in (0, other[0]) for c in (0, other[1])]
    spans = []
    for size, places in ((shape[0], [y for _, y in corners]), (shape[1], [x for x, _ in corners])):
        start, stop = max(0.0, min(places)), min(float(size), max(places))
        spans.append((start, stop) if start < stop else (0.0, float(size)))
    return spans[0], spans[1]


def working_grid(source: GeoBox, resolution_m: float | None = None) -> GeoBox:
    """The grid on which a network reads a raster: north up, square pixels, true to size, covering the raster.

    The raster's own grid where that is so already and its pixels have the asked size within 1 %. Otherwise the same
    CRS (the local UTM zone where the CRS counts in degrees), anchored at the raster's upper left corner.

    Args:
        source: Grid of the raster.
        resolution_m: Pixel size in metres; the raster's own size by default.
    """
    size = pixel_size_m(source)
    own = math.sqrt(size[0] * size[1])
    target = own if resolution_m is None else resolution_m
    crs = crs_of(source)
    straight = source.affine.b == 0 and source.affine.d == 0 and source.affine.e < 0 < source.affine.a
    if straight and not crs.geographic and all(abs(s / target - 1) < SAME_SIZE_TOLERANCE for s in size):
        return source
    if crs.geographic:
        crs = CRS(_utm(source))
        # Straight edges in degrees are curves in the zone, so many points of them; what bulges between is far below a
        # pixel, and one more on each side lets every pixel of the edge have its four neighbours.
        extent = source.extent
        box = extent.to_crs(crs, resolution=max(extent.boundingbox.span_x, extent.boundingbox.span_y) / 500).boundingbox
        box = box.buffered(target)
        unit: tuple[float, float] = (1.0, 1.0)
    else:
        box = source.boundingbox
        unit = metres_per_unit(crs, (box.left + box.right) / 2, (box.bottom + box.top) / 2)
    step_x, step_y = target / unit[0], target / unit[1]
    # A hair is taken off so that 300.0000001 pixels do not become 301.
    shape = (math.ceil((box.top - box.bottom) / step_y - 1e-6), math.ceil((box.right - box.left) / step_x - 1e-6))
    return GeoBox((max(1, shape[0]), max(1, shape[1])), Affine(step_x, 0, box.left, 0, -step_y, box.top), crs)


@lru_cache(maxsize=256)  # asked for at every read
def turn_of(crs: CRS) -> float:
    """A whole turn of longitude, as a geographic CRS counts it: 360 degrees or 400 grads."""
    return 360 / degrees_per_unit(pyproj.CRS.from_user_input(crs.wkt))


def beside(grid: GeoBox, other: GeoBox) -> GeoBox:
    """The same grid with longitudes counted as another of its CRS does, for instance from 0 to 360 degrees."""
    if grid.crs != other.crs or not crs_of(grid).geographic:
        return grid
    (x, _), (to, _) = (g.affine @ (g.shape[1] / 2, g.shape[0] / 2) for g in (grid, other))
    turn = turn_of(crs_of(grid))
    turns = round((to - x) / turn)
    return GeoBox(grid.shape, Affine.translation(turns * turn, 0) @ grid.affine, grid.crs) if turns else grid


def crop(grid: GeoBox, bounds: tuple[float, float, float, float]) -> GeoBox | None:
    """The smallest part of a north-up grid that covers ``(minx, miny, maxx, maxy)``, or None if they do not meet."""
    c0, r0 = ~grid.affine @ (bounds[0], bounds[3])
    c1, r1 = ~grid.affine @ (bounds[2], bounds[1])
    covering = Window(math.floor(r0 + 1e-6), math.ceil(r1 - 1e-6), math.floor(c0 + 1e-6), math.ceil(c1 - 1e-6))
    window = covering.intersect(Window.of(grid.shape))
    return window_grid(grid, window) if window.pixels else None


def share_ground(first: GeoBox, second: GeoBox) -> bool:
    """Whether two grids meet; they do not where no transformation joins their CRSs, as on two planets.

    Asked in the CRS of either: the outline of a raster that spans the globe has no image in a UTM zone.
    """
    first = beside(first, second)
    try:
        return any(
            a.extent.to_crs(crs_of(b), resolution=math.inf).intersects(b.extent)
            for a, b in ((first, second), (second, first))
        )
    except ProjError:
        return False


def describe(grid: GeoBox) -> str:
    """One line for people: rows, columns, pixel size in metres, CRS."""
    width, height = pixel_size_m(grid)
    size = f"{width:.3g} m" if abs(width / height - 1) < SAME_SIZE_TOLERANCE else f"{width:.3g} x {height:.3g} m"
    crs = crs_of(grid)
    name = f"EPSG:{crs.epsg}" if crs.epsg else pyproj.CRS.from_user_input(crs.wkt).name
    return f"{grid.shape[0]} rows x {grid.shape[1]} columns at {size}, {name}"


def _utm(grid: GeoBox) -> str:
    degrees = degrees_per_unit(pyproj.CRS.from_user_input(crs_of(grid).wkt))
    lon, lat = (v * degrees for v in grid.affine @ (grid.shape[1] / 2, grid.shape[0] / 2))
    zone = int((lon + 180) % 360 // 6) + 1
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"


def crs_of(grid: GeoBox) -> CRS:
    """The CRS of a grid.

    Raises:
        GridError: If it has none.
    """
    if grid.crs is None:
        raise GridError("The grid has no coordinate reference system.")
    return grid.crs


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not below a value."""
    return -(-value // multiple) * multiple
