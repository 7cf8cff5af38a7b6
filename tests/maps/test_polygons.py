import json
import math
import sqlite3
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geocrodino.errors import OutputError, RasterError
from geocrodino.maps.files import read_classes
from geocrodino.maps.polygons import areas_m2, write_polygons

CLASSES = [
    {"value": 1, "name": "grass & moss", "colour": "#00ff00"},
    {"value": 2, "name": "Gebäude", "colour": "#ff0000"},
    {"value": 3, "name": "water", "colour": "#0000ff"},
]
VALUES = [
    [1, 1, 1, 2, 2, 2],
    [1, 255, 1, 2, 2, 2],
    [1, 1, 1, 3, 3, 2],
    [1, 1, 1, 3, 3, 2],
]  # 11, 8 and 4 pixels
FEET = Affine(10, 0, 500_000, 0, -10, 200_000)
US_FOOT = 1200 / 3937
PIXEL_M2 = (10 * US_FOOT) ** 2
TURNED = Affine(3**0.5, 1, 100_000, 1, -(3**0.5), 200_000)  # 2 m, turned by 30 degrees


@pytest.fixture
def write_map(tmp_path):
    def write(values=VALUES, *, transform=FEET, crs="EPSG:2263", tags=None, **options):
        values = np.asarray(values, options.pop("dtype", np.uint8))
        size = {"count": 1, "height": values.shape[0], "width": values.shape[1], "dtype": values.dtype}
        options = {"nodata": 255, **options}
        with rasterio.open(
            tmp_path / "map.tif", "w", driver="GTiff", crs=crs, transform=transform, **size, **options
        ) as target:
            target.write(values, 1)
            target.update_tags(**({"CLASSES": json.dumps(CLASSES)} if tags is None else tags))
        return tmp_path / "map.tif"

    return write


@pytest.fixture
def polygons(tmp_path):
    def read(class_map, **options):
        number = write_polygons(class_map, tmp_path / "out.gpkg", overwrite=True, **options)
        frame = gpd.read_file(tmp_path / "out.gpkg", layer="classes")
        assert len(frame) == number
        return frame.sort_values(["value", "area_m2"], ignore_index=True)

    return read


def area_px(frame):
    return np.round(frame["area_m2"] / PIXEL_M2, 9).tolist()


def ring(polygon):
    return set(polygon.exterior.coords)


def test_a_polygon_for_each_patch_with_name_area_and_colour(write_map, polygons):
    frame = polygons(write_map())
    assert frame.crs.to_epsg() == 2263
    assert frame.drop(columns=["geometry", "area_m2"]).values.tolist() == [
        [1, "grass & moss", "#00ff00"],
        [2, "Gebäude", "#ff0000"],
        [3, "water", "#0000ff"],
    ]
    # A US survey foot is 0.3048006 m: a pixel of 10 of them has 9.290341 square metres.
    np.testing.assert_allclose(frame["area_m2"], [102.193752, 74.322729, 37.161364], rtol=1e-7)
    assert ring(frame.geometry[2]) == {(500_030, 199_980), (500_050, 199_980), (500_050, 199_960), (500_030, 199_960)}
    assert [list(hole.coords) for hole in frame.geometry[0].interiors] == [
        [(500_010, 199_990), (500_020, 199_990), (500_020, 199_980), (500_010, 199_980), (500_010, 199_990)]
    ]


def test_neighbours_have_the_same_corners_on_the_edge_that_they_share(write_map, polygons):
    grass, building, water = polygons(write_map()).geometry
    assert (500_030, 199_980) in ring(grass)  # a corner of its neighbours in the middle of its own straight edge
    assert ring(grass) & ring(building) == {(500_030, 200_000), (500_030, 199_980)}
    assert ring(grass) & ring(water) == {(500_030, 199_980), (500_030, 199_960)}
    assert len(ring(grass)) == 5
    assert shapely.coverage_is_valid([grass, building, water])


def test_pixels_that_touch_at_a_corner_are_two_patches(write_map, polygons):
    frame = polygons(write_map([[1, 2], [2, 1]]))
    assert frame["value"].tolist() == [1, 1, 2, 2]
    assert area_px(frame) == [1, 1, 1, 1]


def test_style_shows_each_value_in_its_colour(write_map, polygons, tmp_path):
    polygons(write_map())
    with sqlite3.connect(tmp_path / "out.gpkg") as file:
        (row,) = file.execute(
            "SELECT f_table_schema, f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        )
        (column,) = file.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = 'classes'"
        ).fetchone()
    file.close()
    assert row[:4] == ("", "classes", column, 1)
    style = ElementTree.fromstring(row[4])
    shown = style.find("renderer-v2")
    assert shown.attrib["attr"] == "value"
    assert [(c.get("value"), c.get("label"), c.get("symbol")) for c in shown.iter("category")] == [
        ("1", "grass & moss", "0"),
        ("2", "Gebäude", "1"),
        ("3", "water", "2"),
    ]
    colours = {
        symbol.get("name"): symbol.find("layer/Option/Option[@name='color']").get("value")
        for symbol in shown.iter("symbol")
    }
    assert colours == {"0": "0,255,0,255", "1": "255,0,0,255", "2": "0,0,255,255"}
    assert pyogrio.list_layers(tmp_path / "out.gpkg")[:, 0].tolist() == ["classes", "layer_styles"]


def test_small_patches_join_their_largest_neighbour(write_map, polygons):
    values = [
        [1, 1, 1, 2, 2, 2, 2, 2],
        [1, 1, 1, 3, 3, 2, 2, 2],
        [1, 1, 1, 2, 2, 2, 2, 2],
    ]  # 9, 13 and 2 pixels: water joins the buildings
    class_map = write_map(values)
    assert area_px(polygons(class_map, min_area_m2=2 * PIXEL_M2)) == [9, 13, 2]
    frame = polygons(class_map, min_area_m2=2 * PIXEL_M2 + 0.01)
    assert frame["value"].tolist() == [1, 2]
    assert area_px(frame) == [9, 15]


def test_a_patch_of_the_least_area_itself_stays(write_map, polygons):
    # 0.27 square metres over the 0.3 m x 0.3 m of a pixel is a hair more than 3 in binary fractions.
    class_map = write_map([[1, 1, 1, 1, 1, 2, 2, 2]], transform=Affine(0.3, 0, 0, 0, -0.3, 0), crs="EPSG:32631")
    np.testing.assert_allclose(polygons(class_map, min_area_m2=0.27)["area_m2"], [0.45, 0.27])
    np.testing.assert_allclose(polygons(class_map, min_area_m2=0.28)["area_m2"], [0.72])


def test_small_patches_beside_each_other_join_one_after_the_other(write_map, polygons):
    frame = polygons(write_map([[1, 1, 1, 1, 1, 2, 3, 2, 3]]), min_area_m2=5 * PIXEL_M2)
    assert frame["value"].tolist() == [1]
    assert area_px(frame) == [9]


def test_small_patches_come_together_where_no_large_one_is_near(write_map, polygons):
    # All are below six pixels, but under the lower limit of four the grass is large and takes the water in.
    frame = polygons(write_map([[1, 1, 1, 1, 3, 3, 255]]), min_area_m2=6 * PIXEL_M2)
    assert (frame["value"].tolist(), area_px(frame)) == ([1], [6])
    frame = polygons(write_map([[1, 3, 1, 255]]), min_area_m2=6 * PIXEL_M2)
    assert frame["value"].tolist() == [1, 1, 3]  # none is larger than the other: they stay


def test_nodata_is_no_neighbour_and_no_patch(write_map, polygons):
    values = [
        [1, 1, 1, 1, 255, 255, 255],
        [1, 255, 1, 1, 255, 2, 255],
        [1, 1, 1, 3, 255, 255, 255],
    ]
    frame = polygons(write_map(values), min_area_m2=1000)  # more than the whole map
    # The hole of one pixel stays a hole, the island stays building, and nothing grows into the nodata around.
    assert frame["value"].tolist() == [1, 2]
    assert area_px(frame) == [11, 1]
    assert len(frame.geometry[0].interiors) == 1
    assert polygons(write_map([[255, 255], [255, 255]]), min_area_m2=10).empty


STAIRS = np.where(np.add.outer(np.arange(12), np.arange(12)) < 12, 1, np.where(np.arange(12)[:, None] < 6, 2, 3))


@pytest.mark.parametrize("transform", [Affine(2, 0, 100_000, 0, -2, 200_000), TURNED])
def test_simplified_lines_stay_shared_and_edges_of_the_map_stay(write_map, polygons, transform):
    class_map = write_map(STAIRS, transform=transform, crs="EPSG:32631")
    before = polygons(class_map)
    # The corner of a pixel of 2 m is a triangle of 2 square metres.
    assert list(map(ring, polygons(class_map, simplify_m=1.4).geometry)) == list(map(ring, before.geometry))
    # The largest triangle over the longest line, from one of its ends to the other: 6 * 1 / 2 pixels, 12 square metres.
    after = polygons(class_map, simplify_m=3.5)
    assert shapely.coverage_is_valid(after.geometry.values)
    assert after.is_valid.all()
    assert [len(ring(p)) for p in before.geometry] == [26, 12, 15]
    assert [len(ring(p)) for p in after.geometry] == [6, 3, 4]
    assert after["area_m2"].sum() == pytest.approx(144 * 4, rel=1e-12)
    outline = shapely.union_all(after.geometry.values)
    corners = [transform @ place for place in [(0, 0), (12, 0), (12, 12), (0, 12)]]
    assert outline.symmetric_difference(shapely.Polygon(corners)).area < 1e-6
    np.testing.assert_allclose(after["area_m2"], after.area, rtol=1e-9)


def test_simplified_lines_keep_away_from_nodata(write_map, polygons):
    values = STAIRS.copy()
    values[STAIRS == 1] = 255
    before = polygons(write_map(values))
    after = polygons(write_map(values), simplify_m=100)
    assert after["area_m2"].sum() == pytest.approx(before["area_m2"].sum(), rel=1e-12)
    assert shapely.union_all(after.geometry.values).equals(shapely.union_all(before.geometry.values))


@st.composite
def maps(draw):
    height, width = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    cells = st.lists(st.sampled_from([1, 2, 3, 255]), min_size=height * width, max_size=height * width)
    # Enlarged twofold at times: edges then have corners of neighbours in their middle, and stairs are not all alike.
    values = np.array(draw(cells), np.uint8).reshape(height, width)
    return values.repeat(draw(st.sampled_from([1, 2, 3])), axis=draw(st.sampled_from([0, 1])))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=maps(), transform=st.sampled_from([FEET, TURNED]), simplify_m=st.sampled_from([0, 3, 8, 50]))
def test_any_map_is_covered_without_gaps_and_overlaps(write_map, polygons, values, transform, simplify_m):
    frame = polygons(write_map(values, transform=transform), simplify_m=simplify_m)
    shapes = frame.geometry.values
    assert shapely.coverage_is_valid(shapes)
    assert shapely.is_valid(shapes).all()
    pixel = abs(transform.determinant) * US_FOOT**2
    assert frame["area_m2"].sum() == pytest.approx((values != 255).sum() * pixel)
    if simplify_m == 0:
        for value in (1, 2, 3):
            found = frame.loc[frame["value"] == value, "area_m2"].sum()
            assert found == pytest.approx((values == value).sum() * pixel)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=maps(), size_px=st.integers(2, 9))
def test_sieved_maps_keep_nodata_and_only_small_patches_without_a_large_neighbour(write_map, polygons, values, size_px):
    frame = polygons(write_map(values), min_area_m2=size_px * PIXEL_M2)
    assert frame["area_m2"].sum() == pytest.approx((values != 255).sum() * PIXEL_M2)
    small = frame["area_m2"] < (size_px - 0.5) * PIXEL_M2
    for patch in frame.geometry[small]:
        beside = frame.geometry.intersection(patch).length > 0
        assert not (beside & ~small).any()


def test_areas_in_degrees_are_those_on_the_ellipsoid(write_map, polygons):
    # 2 degrees of longitude and 6 rows of 1 degree around 50 to 56 north: large enough for a sphere to be wrong.
    values = np.array([[1, 1], [1, 1], [1, 1], [2, 2], [2, 2], [2, 2]])
    frame = polygons(write_map(values, transform=Affine(1, 0, 7, 0, -1, 56), crs="EPSG:4326"))
    geod = pyproj.Geod(ellps="WGS84")

    def area(south, north):
        lon = np.concatenate([np.linspace(7, 9, 4001), np.linspace(9, 7, 4001)])
        return abs(geod.polygon_area_perimeter(lon, np.repeat([south, north], 4001))[0])

    np.testing.assert_allclose(frame["area_m2"], [area(53, 56), area(50, 53)], rtol=1e-8)


def test_areas_in_degrees_by_hand_on_a_sphere(write_map, polygons):
    # Quarter of a sphere of radius 1000 m between the equator and 30 degrees: R^2 * (pi / 2) * sin 30 degrees.
    class_map = write_map([[1, 1, 1]] * 3, transform=Affine(30, 0, 135, 0, -10, 30), crs="+proj=longlat +R=1000")
    assert polygons(class_map)["area_m2"][0] == pytest.approx(1e6 * math.pi / 2 * 0.5, rel=1e-9)


def test_areas_in_web_mercator_are_true(write_map, polygons):
    # Around 60 degrees north a metre of the projection is half a metre, a square metre a quarter.
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(10, 60)
    frame = polygons(write_map(transform=Affine(10, 0, x, 0, -10, y), crs="EPSG:3857"))
    np.testing.assert_allclose(frame["area_m2"], np.array([11, 8, 4]) * 25, rtol=0.006)  # of an ellipsoid
    assert frame["area_m2"][0] / frame["area_m2"][2] == pytest.approx(11 / 4, rel=1e-4)
    # 1600 x 400 km of the projection, whose long edges follow parallels and are bent in any other one.
    frame = polygons(write_map(np.ones((40, 160)), transform=Affine(10_000, 0, x, 0, -10_000, y), crs="EPSG:3857"))
    to_degrees = pyproj.Transformer.from_crs(3857, 4326, always_xy=True)
    edge = np.linspace(x, x + 1.6e6, 4001)
    lon, lat = to_degrees.transform(np.concatenate([edge, edge[::-1]]), np.repeat([y, y - 4e5], 4001))
    expected = abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])
    assert frame["area_m2"][0] == pytest.approx(expected, rel=1e-4)


def test_areas_of_grads_and_of_a_crs_without_an_earth():
    square = shapely.box(0, 0, 1, 1)
    grads = GeoBox((1, 1), Affine(0.1, 0, 0, 0, -0.1, 50), "EPSG:4807")
    degrees = GeoBox((1, 1), Affine(0.09, 0, 0, 0, -0.09, 45), "EPSG:4275")  # the same datum, from Greenwich
    np.testing.assert_allclose(areas_m2(np.array([square]), grads), areas_m2(np.array([square]), degrees), rtol=1e-9)
    site = GeoBox((1, 1), Affine(2, 0, 0, 0, -2, 0), 'LOCAL_CS["site",UNIT["metre",1]]')
    assert areas_m2(np.array([square]), site).tolist() == [4]


def test_areas_beyond_180_degrees():
    square = np.array([shapely.box(0, 0, 2, 1)])
    here, there = (GeoBox((1, 2), Affine(1, 0, lon, 0, -1, 10), "EPSG:4326") for lon in (0, 179))
    np.testing.assert_allclose(areas_m2(square, there), areas_m2(square, here), rtol=1e-12)


def test_areas_of_a_rotated_grid(write_map, polygons):
    frame = polygons(write_map(transform=TURNED, crs="EPSG:32631"))
    np.testing.assert_allclose(frame["area_m2"], [44, 32, 16], rtol=1e-12)
    np.testing.assert_allclose(frame.area, [44, 32, 16], rtol=1e-9)
    x, y = TURNED @ (3, 2)
    assert min(math.dist((x, y), corner) for corner in ring(frame.geometry[2])) < 1e-6


def refusal(error, class_map, tmp_path, **options):
    with pytest.raises(error) as found:
        write_polygons(class_map, tmp_path / "out.gpkg", **options)
    return str(found.value)


def test_a_map_without_classes_is_refused(write_map, tmp_path):
    class_map = write_map(tags={})
    assert refusal(RasterError, class_map, tmp_path) == (
        f"{class_map}: names no classes: expected a tag CLASSES, found none.\n"
        "Give a map as `geocrodino predict` wrote it: some programs drop the tags when they save a raster."
    )
    with pytest.raises(RasterError, match="the tag CLASSES does not list classes"):
        read_classes(write_map(tags={"CLASSES": "[1, 2]"}))
    with pytest.raises(RasterError, match="the tag CLASSES does not list classes"):
        read_classes(write_map(tags={"CLASSES": "grass, water"}))
    assert not (tmp_path / "out.gpkg").exists()


def test_what_is_no_class_map_is_refused(write_map, tmp_path):
    class_map = write_map(dtype=np.float32, nodata=-9999)
    assert refusal(RasterError, class_map, tmp_path) == (
        f"{class_map}: not a class map. Expected one band of uint8 with nodata 255, found 1 of float32 with nodata "
        "-9999.0.\nGive a map that geocrodino predict wrote."
    )
    class_map = write_map([[1, 7]])
    assert refusal(RasterError, class_map, tmp_path) == (
        f"{class_map}: holds values outside its classes: 7. Expected 1 grass & moss, 2 Gebäude, 3 water.\n"
        "The map was changed after it was made."
    )
    assert "no such file" in refusal(RasterError, tmp_path / "none.tif", tmp_path)


@pytest.mark.parametrize("min_area_m2", [0, 100])
def test_a_damaged_map_is_refused(write_map, tmp_path, min_area_m2):
    values = np.random.default_rng(0).integers(1, 4, (600, 600))
    class_map = write_map(values, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    content = class_map.read_bytes()
    class_map.write_bytes(content[:40_000] + bytes(10_000) + content[50_000:])
    message = refusal(RasterError, class_map, tmp_path, min_area_m2=min_area_m2)
    assert message.startswith(f"{class_map}: cannot be read: the file is damaged or cut short. Copy it again (")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif"]


def test_outputs_are_kept_unless_asked_and_named_as_what_they_are(write_map, tmp_path):
    class_map, out = write_map(), tmp_path / "out.gpkg"
    out.write_bytes(b"mine")
    assert refusal(OutputError, class_map, tmp_path) == (
        f"{out}: the file exists.\nChoose another name, or replace it with `overwrite=True`."
    )
    assert out.read_bytes() == b"mine"
    assert write_polygons(class_map, out, overwrite=True) == 3
    with pytest.raises(OutputError) as error:
        write_polygons(class_map, tmp_path / "out.shp")
    assert str(error.value) == (
        f"{tmp_path / 'out.shp'}: expected the name of a GeoPackage, found 'out.shp'.\nLet it end in .gpkg."
    )
    with pytest.raises(OutputError, match=r"does not exist.*\n.*mkdir -p"):
        write_polygons(class_map, tmp_path / "a" / "out.gpkg")


def test_the_map_itself_is_never_replaced(write_map, tmp_path):
    class_map = write_map().rename(tmp_path / "map.gpkg")
    with pytest.raises(OutputError, match="would replace the map itself"):
        write_polygons(class_map, class_map, overwrite=True)


def test_a_failure_leaves_the_old_file_and_nothing_else(write_map, tmp_path, monkeypatch):
    def fail(self, path, **_):
        path.write_bytes(b"half")
        raise RuntimeError("disk full")

    class_map, out = write_map(), tmp_path / "out.gpkg"
    out.write_bytes(b"old")
    monkeypatch.setattr(gpd.GeoDataFrame, "to_file", fail)
    message = refusal(OutputError, class_map, tmp_path, overwrite=True)
    assert message == f"{out}: the polygons could not be written (disk full).\nCheck the free space of the folder."
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "out.gpkg"]


@pytest.mark.parametrize("sizes", [{"min_area_m2": -1}, {"simplify_m": math.nan}, {"simplify_m": math.inf}])
def test_sizes_are_numbers_from_0_on(write_map, tmp_path, sizes):
    (name, size) = next(iter(sizes.items()))
    assert refusal(ValueError, write_map(), tmp_path, **sizes) == f"{name} must be 0 or more, found {size}"
