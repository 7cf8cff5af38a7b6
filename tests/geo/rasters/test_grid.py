"""Pixel sizes in metres, lattices, working grids, crops: against numbers worked out by hand or by the geodesic."""

from __future__ import annotations

import math

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geocrodino.errors import GridError
from geocrodino.geo.rasters import grid as g
from geocrodino.geo.rasters.window import Window

UTM31 = "EPSG:32631"


def north_up(pixel: float, shape: tuple[int, int] = (100, 100), origin=(400_000.0, 5_000_000.0), crs=UTM31) -> GeoBox:
    return GeoBox(shape, Affine(pixel, 0, origin[0], 0, -pixel, origin[1]), crs)


def test_pixel_size_in_utm_is_the_nominal_one():
    assert g.pixel_size_m(north_up(0.5)) == (0.5, 0.5)


def test_pixel_size_in_feet():
    # EPSG:2994 counts in international feet of 0.3048 m.
    assert g.pixel_size_m(north_up(3.0, origin=(636_000.0, 853_000.0), crs="EPSG:2994")) == pytest.approx((0.9144,) * 2)


def test_pixel_size_in_degrees_at_latitude_37():
    # On WGS84 at 37 N 111412.84 cos(a) - 93.5 cos(3a) = 89012 m and 111132.92 - 559.82 cos(2a) = 110978 m a degree.
    grid = GeoBox((100, 100), Affine(0.001, 0, -113.05, 0, -0.001, 37.05), "EPSG:4326")
    assert g.pixel_size_m(grid) == pytest.approx((89.012, 110.978), rel=1e-4)


def test_pixel_size_in_web_mercator_at_latitude_60_is_half_the_nominal_one():
    _, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(10, 60)
    wide, high = g.pixel_size_m(north_up(2.0, origin=(1_113_194.9 - 100, y + 100), crs="EPSG:3857"))
    # Scale of the sphere is 1 / cos(60 deg) = 2; the ellipsoid shifts it by less than 0.6 %.
    assert (wide, high) == pytest.approx((1.0, 1.0), rel=6e-3)


def test_pixel_size_of_a_rotated_grid_is_that_of_its_sides():
    rotated = Affine.translation(400_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(2, -3)
    assert g.pixel_size_m(GeoBox((50, 50), rotated, UTM31)) == pytest.approx((2, 3))


def test_pixel_area_of_a_grid_turned_in_degrees_is_not_the_product_of_its_sides():
    turned = Affine.translation(10, 60) @ Affine.rotation(45) @ Affine.scale(1e-3, -1e-3)
    grid = GeoBox((10, 10), turned, "EPSG:4326")
    corners = [turned @ corner for corner in ((0, 0), (10, 0), (10, 10), (0, 10))]
    area, _ = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*zip(*corners, strict=True))
    assert g.pixel_area_m2(grid) == pytest.approx(abs(area) / 100, rel=1e-4)
    assert math.prod(g.pixel_size_m(grid)) > 1.2 * abs(area) / 100
    assert g.pixel_area_m2(north_up(0.5)) == pytest.approx(0.25)


def test_pixel_size_in_grads():
    # A grad of latitude is a hundredth of a quarter of the meridian: 100 km, as the metre was meant.
    grid = GeoBox((10, 10), Affine(1e-5, 0, 1.0, 0, -1e-5, 54.0), "EPSG:4807")
    assert g.pixel_size_m(grid)[1] == pytest.approx(1.0, rel=2e-3)
    assert g.working_grid(grid).crs.epsg == 32631
    # NTF (Paris) / Lambert II etendu counts in metres, its geographic CRS in grads.
    assert g.pixel_size_m(north_up(0.5, origin=(600_000, 2_400_000), crs="EPSG:27572")) == (0.5, 0.5)


def test_a_local_crs_has_its_named_unit():
    grid = GeoBox((5, 5), Affine(2, 0, 0, 0, -2, 10), 'LOCAL_CS["site",UNIT["metre",1]]')
    assert g.pixel_size_m(grid) == (2.0, 2.0)
    assert g.working_grid(grid) == grid


def test_a_place_outside_the_earth_is_refused():
    with pytest.raises(GridError, match=r"\(inf, inf\) is not a position in 4326: no pixel size in metres"):
        g.metres_per_unit(GeoBox((1, 1), Affine.identity(), "EPSG:4326").crs, math.inf, math.inf)


def test_a_grid_without_crs_is_refused():
    with pytest.raises(GridError, match=r"^The grid has no coordinate reference system\.$"):
        g.pixel_size_m(GeoBox((5, 5), Affine(1, 0, 0, 0, -1, 5), None))


def test_window_grid_starts_at_the_windows_corner_and_may_lie_outside():
    part = g.window_grid(north_up(0.5), Window(-2, 8, 10, 14))
    assert part.shape == (10, 4)
    assert (part.affine.c, part.affine.f) == (400_005.0, 5_000_001.0)


def test_pixel_offset_of_a_part_of_the_same_lattice():
    grid = north_up(0.5)
    assert g.pixel_offset(g.window_grid(grid, (7, 20, -3, 30)), grid) == (7, -3)


@pytest.mark.parametrize(
    "other",
    [
        north_up(0.5, origin=(400_000.1, 5_000_000.0)),
        north_up(0.501),
        north_up(0.5, crs="EPSG:32632"),
        GeoBox((100, 100), Affine(0.5, 0.01, 400_000, 0, -0.5, 5_000_000), UTM31),
    ],
    ids=["a fifth of a pixel aside", "other pixels", "other CRS", "sheared"],
)
def test_pixel_offset_is_none_for_another_lattice(other):
    assert g.pixel_offset(north_up(0.5), other) is None


def test_a_shift_that_grows_along_the_rows_is_another_lattice_wherever_the_two_meet():
    # 1.00005 m pixels: half a pixel off after 10 000, though at the upper left corner both agree.
    wide = GeoBox((10, 100_000), Affine(1.00005, 0, 400_000, 0, -1, 5_000_000), UTM31)
    assert g.pixel_offset(wide, north_up(1.0, (10, 100_000))) is None
    assert g.pixel_offset(wide, north_up(1.0, (10, 100), (450_000.0, 5_000_000.0))) is None


def test_pixel_offset_is_taken_where_the_two_meet():
    # Off by 1e-7 of a pixel for each pixel: nothing, also 100 000 pixels from the corner.
    wide = GeoBox((10, 100_000), Affine(1 + 1e-8, 0, 400_000, 0, -1, 5_000_000), UTM31)
    assert g.pixel_offset(wide, north_up(1.0, (10, 100), (450_000.0, 5_000_000.0))) == (0, -50_000)


def test_working_grid_is_the_rasters_own_where_that_is_good():
    grid = north_up(0.5)
    assert g.working_grid(grid) is grid
    assert g.working_grid(grid, 0.503) is grid


def test_working_grid_at_another_size():
    made = g.working_grid(north_up(0.5, (100, 75)), 1.0)
    assert made.shape == (50, 38)  # 37.5 m wide: the last column reaches over the edge
    assert made.affine == Affine(1, 0, 400_000, 0, -1, 5_000_000)


def test_working_grid_in_feet_has_pixels_of_the_asked_metres():
    made = g.working_grid(north_up(1.0, (1000, 1000), (636_000.0, 853_000.0), "EPSG:2994"), 0.6096)
    assert made.shape == (500, 500)
    assert made.affine.a == pytest.approx(2.0)


def test_working_grid_of_non_square_pixels_is_square_with_the_same_area():
    made = g.working_grid(GeoBox((100, 100), Affine(1, 0, 400_000, 0, -4, 5_000_000), UTM31))
    assert (made.affine.a, made.affine.e, made.shape) == (2.0, -2.0, (200, 50))


def _outline(source: GeoBox, crs: object) -> tuple[np.ndarray, np.ndarray]:
    height, width = source.shape
    along = np.linspace(0, 1, 201)
    cols = np.concatenate([along * width, along * width, 0 * along, 0 * along + width])
    rows = np.concatenate([0 * along, 0 * along + height, along * height, along * height])
    x, y = source.affine @ (cols, rows)
    return pyproj.Transformer.from_crs(str(source.crs), str(crs), always_xy=True).transform(x, y)


@settings(max_examples=25, deadline=None)
@given(lon=st.floats(-179, 178), lat=st.floats(-70, 70), size=st.floats(0.01, 0.5), pixels=st.integers(20, 50_000))
def test_working_grid_of_a_scene_in_degrees_covers_it(lon, lat, size, pixels):
    source = GeoBox((pixels, pixels), Affine(size / pixels, 0, lon, 0, -size / pixels, lat), "EPSG:4326")
    made = g.working_grid(source)
    zone = int((lon + size / 2 + 180) // 6) + 1
    assert made.crs.epsg == (32600 if lat - size / 2 >= 0 else 32700) + zone
    cols, rows = ~made.affine @ _outline(source, made.crs)
    # Every pixel of the edge has four neighbours to be interpolated from.
    assert min(cols.min(), rows.min()) > 0.5
    assert cols.max() < made.shape[1] - 0.5
    assert rows.max() < made.shape[0] - 0.5
    assert made.affine.a == -made.affine.e == pytest.approx(math.sqrt(math.prod(g.pixel_size_m(source))))


def test_working_grid_beyond_the_antimeridian():
    for left in (179.0, 539.0, -181.0):  # as the longitudes are counted
        made = g.working_grid(GeoBox((100, 100), Affine(0.02, 0, left, 0, -0.02, -16), "EPSG:4326"))
        assert made.crs.epsg == 32701  # 180 degrees, the middle, is the western end of zone 1


@settings(max_examples=25, deadline=None)
@given(angle=st.floats(1, 359), pixel=st.floats(0.2, 30), height=st.integers(1, 90), width=st.integers(1, 90))
def test_working_grid_of_a_rotated_scene_covers_it(angle, pixel, height, width):
    affine = Affine.translation(400_000, 5_000_000) @ Affine.rotation(angle) @ Affine.scale(pixel, -pixel)
    source = GeoBox((height, width), affine, UTM31)
    made = g.working_grid(source)
    assert made.affine.b == made.affine.d == 0
    assert made.affine.a == -made.affine.e == pytest.approx(pixel)
    cols, rows = ~made.affine @ _outline(source, made.crs)
    assert min(cols.min(), rows.min()) > -1e-5
    assert cols.max() < made.shape[1] + 1e-5
    assert rows.max() < made.shape[0] + 1e-5


def test_crop_is_the_smallest_part_that_covers():
    part = g.crop(north_up(1.0), (400_010.2, 4_999_950.0, 400_020.0, 4_999_979.5))
    assert part is not None
    assert (part.affine.c, part.affine.f, part.shape) == (400_010.0, 4_999_980.0, (30, 10))


def test_crop_is_cut_at_the_edge_and_none_outside():
    grid = north_up(1.0)
    part = g.crop(grid, (399_000, 4_999_999, 400_001, 5_001_000))
    assert part is not None
    assert part.shape == (1, 1)
    assert g.crop(grid, (390_000, 0, 399_000, 1)) is None


def test_grids_share_ground_across_crs_and_when_one_spans_the_globe():
    scene = north_up(10.0)
    globe = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    assert g.share_ground(scene, globe)
    assert g.share_ground(globe, scene)
    assert not g.share_ground(scene, north_up(10.0, origin=(600_000.0, 5_000_000.0)))
    mars = GeoBox((5, 5), Affine(1, 0, 0, 0, -1, 5), "ESRI:104905")
    assert not g.share_ground(scene, mars)


def test_describe():
    assert g.describe(north_up(0.5)) == "100 rows x 100 columns at 0.5 m, EPSG:32631"
    tall = GeoBox((10, 20), Affine(1, 0, 400_000, 0, -4, 5_000_000), UTM31)
    assert g.describe(tall) == "10 rows x 20 columns at 1 x 4 m, EPSG:32631"
