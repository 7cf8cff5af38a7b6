"""Pixel grids: true pixel sizes, windows, the grid that a network works on.

A grid is an ``odc.geo.geobox.GeoBox``; a `Window` is a rectangle of its pixels and may reach
outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyproj
from affine import Affine
from odc.geo import CRS, resxy_
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError

from geocrodino.errors import GridError
from geocrodino.geo.rasters.window import Window

SAME_SIZE_TOLERANCE = 0.01
"""Pixel sizes that differ by less than this share count as equal: a map projection alone changes them as much."""


def metres_per_unit(crs: CRS, x: float, y: float) -> tuple[float, float]:
    """Measure one unit of a CRS on the ground, along x and along y.

    The unit of a projected CRS counts as it is named where the projection is true to 1 %. Elsewhere (Web Mercator away
    from the equator, degrees) the geodesic on the CRS's own ellipsoid counts.

    Args:
        crs: The CRS.
        x: Place of the measurement, in units of the CRS.
        y: See ``x``.

    Returns:
        Ground length of one unit along x and along y, metres.

    Raises:
        GridError: If the place has no position on the ellipsoid.
    """
    proj, to_degrees, geod, nominal = _measures_of(crs.wkt)
    if to_degrees is None:
        return nominal, nominal
    step = 1e-4 if proj.is_geographic else 1.0
    lon, lat = to_degrees.transform([x, x + step, x], [y, y, y + step])
    if not all(map(math.isfinite, (*lon, *lat))):
        if math.isfinite(nominal):
            return nominal, nominal
        raise GridError(f"({x:g}, {y:g}) is not a position in {crs.to_epsg() or 'its CRS'}: no pixel size in metres.")
    assert geod is not None  # noqa: S101 - a CRS with a geodetic CRS has an ellipsoid
    assert proj.geodetic_crs is not None  # noqa: S101 - there is a transformation to it
    degrees = degrees_per_unit(proj.geodetic_crs)  # not 1 in the grads of older French systems
    lon, lat = [v * degrees for v in lon], [v * degrees for v in lat]
    _, _, along_x = geod.inv(lon[0], lat[0], lon[1], lat[1])
    _, _, along_y = geod.inv(lon[0], lat[0], lon[2], lat[2])
    found = (along_x / step, along_y / step)
    if all(abs(f / nominal - 1) < SAME_SIZE_TOLERANCE for f in found if math.isfinite(nominal)) and proj.is_projected:
        return nominal, nominal
    return found


@lru_cache(maxsize=64)  # thousands of tiles share one CRS
def _measures_of(wkt: str) -> tuple[pyproj.CRS, pyproj.Transformer | None, pyproj.Geod | None, float]:
    """A CRS, its way to degrees if it has one, its ellipsoid, and the nominal length of its unit, m."""
    proj = proj_crs(wkt)
    nominal = math.nan if proj.is_geographic else float(proj.axis_info[0].unit_conversion_factor)
    if proj.geodetic_crs is None:
        return proj, None, None, nominal
    return proj, pyproj.Transformer.from_crs(proj, proj.geodetic_crs, always_xy=True), proj.get_geod(), nominal


@lru_cache(maxsize=64)
def proj_crs(wkt: str) -> pyproj.CRS:
    """Make a CRS of pyproj, or take the one that was made of the same text.

    Args:
        wkt: The CRS as text.

    Returns:
        The CRS.
    """
    return pyproj.CRS.from_user_input(wkt)


def degrees_per_unit(geographic: pyproj.CRS) -> float:
    """Look up how a geographic CRS counts angles.

    Args:
        geographic: A geographic CRS.

    Returns:
        Degrees in one unit of its longitudes and latitudes: 1, or 0.9 for grads.
    """
    return math.degrees(geographic.axis_info[0].unit_conversion_factor)


@lru_cache(maxsize=256)
def pixel_size_m(grid: GeoBox) -> tuple[float, float]:
    """Measure a pixel at the middle of a grid.

    Args:
        grid: The grid.

    Returns:
        True width and height, metres.

    Raises:
        GridError: If the grid has no CRS, or its middle no position on the ellipsoid.
    """
    a = grid.affine
    x, y = a @ (grid.shape[1] / 2, grid.shape[0] / 2)
    along_x, along_y = metres_per_unit(crs_of(grid), x, y)
    return math.hypot(a.a * along_x, a.d * along_y), math.hypot(a.b * along_x, a.e * along_y)


def pixel_side_m(grid: GeoBox) -> float:
    """Measure the side of a square as large as a pixel at the middle of a grid.

    Args:
        grid: The grid.

    Returns:
        The side, metres.

    Raises:
        GridError: If the grid has no CRS, or its middle no position on the ellipsoid.
    """
    return math.sqrt(math.prod(pixel_size_m(grid)))


@lru_cache(maxsize=256)
def pixel_area_m2(grid: GeoBox) -> float:
    """Measure the area of a pixel at the middle of a grid.

    The product of the sides is not the area of pixels that are rotated in degrees.

    Args:
        grid: The grid.

    Returns:
        True area, square metres.

    Raises:
        GridError: If the grid has no CRS, or its middle no position on the ellipsoid.
    """
    x, y = grid.affine @ (grid.shape[1] / 2, grid.shape[0] / 2)
    return abs(grid.affine.determinant) * math.prod(metres_per_unit(crs_of(grid), x, y))


def window_grid(grid: GeoBox, window: Window) -> GeoBox:
    """Make a grid of the part that a window covers.

    Args:
        grid: The grid.
        window: Its pixels; the window may reach outside.

    Returns:
        The grid of these pixels.
    """
    window = Window(*window)
    # Not `grid[window.slices]`: negative numbers would count from the far edge.
    return grid.translate_pix(window.col_start, window.row_start).crop(window.shape)


def pixel_offset(grid: GeoBox, other: GeoBox, tolerance_px: float = 0.01) -> tuple[int, int] | None:
    """Compare the lattices of two grids.

    The corners of the part that they share must agree within the tolerance, so that a shift that grows along the rows
    is found.

    Args:
        grid: A grid.
        other: Another one.
        tolerance_px: Largest deviation from a shift by whole pixels, px of ``other``.

    Returns:
        Rows and columns by which ``grid`` is shifted in ``other``; None if they are not one lattice.
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


def lattice_difference(found: GeoBox, expected: GeoBox) -> str:
    """Describe why two grids do not share their pixels, as `pixel_offset` found.

    Args:
        found: A grid.
        expected: The grid whose pixels it should have.

    Returns:
        The first of CRS, steps from pixel to pixel and shift that differs: what was expected and what was found.
    """
    a, b = expected.affine, found.affine
    hair = 1e-6 * abs(a.determinant) ** 0.5
    if found.crs != expected.crs:
        return f"expected the CRS {grid_crs_name(expected)}, found {grid_crs_name(found)}"
    if not np.allclose((a.a, a.b, a.d, a.e), (b.a, b.b, b.d, b.e), rtol=0, atol=hair):
        return f"expected pixels with {_steps(a)}, found {_steps(b)}, in units of the CRS"
    height, width = found.shape
    corners = [~a @ (b @ corner) for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    cols, rows = (max((place - round(place) for place in axis), key=abs) for axis in zip(*corners, strict=True))
    return f"expected a shift by whole pixels, found {rows:.2g} rows and {cols:.2g} columns more"


def _steps(affine: Affine) -> str:
    return f"steps of ({affine.a:.9g}, {affine.d:.9g}) a column and ({affine.b:.9g}, {affine.e:.9g}) a row"


def _shared_px(
    shape: Sequence[int], other: Sequence[int], from_other: Affine
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Rows and columns of a grid that another covers; all of them along an axis on which the two do not meet."""
    corners = [from_other @ (c, r) for r in (0, other[0]) for c in (0, other[1])]
    spans = []
    for size, places in ((shape[0], [y for _, y in corners]), (shape[1], [x for x, _ in corners])):
        start, stop = max(0.0, min(places)), min(float(size), max(places))
        spans.append((start, stop) if start < stop else (0.0, float(size)))
    return spans[0], spans[1]


def working_grid(source: GeoBox, resolution_m: float | None = None) -> GeoBox:
    """Choose the grid on which a network reads a raster: north up, square pixels of true size, covering the raster.

    It is the raster's own grid if that is such a grid already and its pixels have the wanted size within 1 %. Otherwise
    it has the same CRS (the local UTM zone if the CRS counts in degrees) and starts at the raster's upper left corner.

    Args:
        source: Grid of the raster.
        resolution_m: Pixel size in metres; the raster's own size by default.

    Returns:
        The working grid.

    Raises:
        GridError: If the raster's grid has no CRS, or its middle no position on the ellipsoid.
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
        # Straight edges in degrees are curves in the zone, so they get many points; the error between these is far
        # below a pixel. One more pixel on each side gives every pixel at the edge its four neighbours.
        extent = source.extent
        box = extent.to_crs(crs, resolution=max(extent.boundingbox.span_x, extent.boundingbox.span_y) / 500).boundingbox
        box = box.buffered(target)
        unit: tuple[float, float] = (1.0, 1.0)
    else:
        box = source.boundingbox
        unit = metres_per_unit(crs, (box.left + box.right) / 2, (box.bottom + box.top) / 2)
    steps = resxy_(target / unit[0], -target / unit[1])
    # The tolerance keeps 300.0000001 pixels from becoming 301.
    return GeoBox.from_bbox(box, crs, resolution=steps, tight=True, tol=1e-6)


@lru_cache(maxsize=256)  # asked for at every read
def turn_of(crs: CRS) -> float:
    """Look up a whole turn of longitude in the unit of a geographic CRS.

    Args:
        crs: A geographic CRS.

    Returns:
        360 for degrees, 400 for grads.
    """
    return 360 / degrees_per_unit(pyproj.CRS.from_user_input(crs.wkt))


def align_longitudes(grid: GeoBox, other: GeoBox) -> GeoBox:
    """Count the longitudes of a grid as another grid does, for instance from 0 to 360 degrees.

    Args:
        grid: The grid.
        other: The other grid.

    Returns:
        The grid moved by whole turns, so that its middle is nearest to that of the other; the same grid if the CRSs
        differ or are not geographic.
    """
    if grid.crs != other.crs or not crs_of(grid).geographic:
        return grid
    (x, _), (to, _) = (g.affine @ (g.shape[1] / 2, g.shape[0] / 2) for g in (grid, other))
    turn = turn_of(crs_of(grid))
    turns = round((to - x) / turn)
    return GeoBox(grid.shape, Affine.translation(turns * turn, 0) @ grid.affine, grid.crs) if turns else grid


def crop(grid: GeoBox, bounds: tuple[float, float, float, float]) -> GeoBox | None:
    """Find the smallest part of a grid that covers a rectangle.

    Args:
        grid: A north-up grid.
        bounds: The rectangle ``(minx, miny, maxx, maxy)`` in units of the CRS.

    Returns:
        The part; None if the two do not meet.
    """
    window = _covering(grid, bounds).intersect(Window.of(grid.shape))
    return window_grid(grid, window) if window.pixels else None


def on_lattice(grid: GeoBox, lattice: GeoBox, step_px: int = 1) -> GeoBox:
    """Cover a grid with pixels of another grid, continued beyond its edges.

    Args:
        grid: A north-up grid.
        lattice: Another one of the same CRS.
        step_px: The result begins a multiple of so many pixels from the first pixel of ``lattice``.

    Returns:
        The smallest grid that covers ``grid``, begins there, and whose pixels are those of ``lattice``.
    """
    box = grid.boundingbox
    r0, r1, c0, c1 = _covering(lattice, (box.left, box.bottom, box.right, box.top))
    return window_grid(lattice, Window(r0 // step_px * step_px, r1, c0 // step_px * step_px, c1))


def _covering(grid: GeoBox, bounds: tuple[float, float, float, float]) -> Window:
    """The smallest window of a north-up grid, not limited to its pixels, that covers a rectangle."""
    c0, r0 = ~grid.affine @ (bounds[0], bounds[3])
    c1, r1 = ~grid.affine @ (bounds[2], bounds[1])
    return Window(math.floor(r0 + 1e-6), math.ceil(r1 - 1e-6), math.floor(c0 + 1e-6), math.ceil(c1 - 1e-6))


def share_ground(first: GeoBox, second: GeoBox) -> bool:
    """Find out whether two grids meet.

    They are compared in the CRS of either, because the outline of a raster that spans the globe has no image in a UTM
    zone.

    Args:
        first: A grid.
        second: Another grid, of any CRS.

    Returns:
        Whether they meet; False if there is no transformation between their CRSs, as on two planets.
    """
    if first.crs is not None and first == second:
        return True
    first = align_longitudes(first, second)
    try:
        return any(
            a.extent.to_crs(crs_of(b), resolution=math.inf).intersects(b.extent)
            for a, b in ((first, second), (second, first))
        )
    except ProjError:
        return False


def describe(grid: GeoBox) -> str:
    """Describe a grid in one line.

    Args:
        grid: The grid.

    Returns:
        Rows, columns, pixel size in metres, CRS.
    """
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
    """Look up the CRS of a grid.

    Args:
        grid: The grid.

    Returns:
        Its CRS.

    Raises:
        GridError: If it has none.
    """
    if grid.crs is None:
        raise GridError("The grid has no coordinate reference system.")
    return grid.crs


def grid_crs_name(grid: GeoBox) -> str:
    """Name the CRS of a grid.

    Args:
        grid: The grid.

    Returns:
        Its code, for instance ``EPSG:32631``; as text, usually WKT, if it has no code.

    Raises:
        GridError: If it has none.
    """
    crs = crs_of(grid)
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs)


def round_up(value: int, multiple: int) -> int:
    """Round up to a multiple.

    Args:
        value: The number.
        multiple: A number above 0.

    Returns:
        The smallest multiple that is not below the number.
    """
    return -(-value // multiple) * multiple
