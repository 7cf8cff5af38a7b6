"""Areas on the grid of a raster, and the likely mistake where the two do not meet."""

from __future__ import annotations

import ast
import warnings

import geopandas as gpd
import pyproj
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.errors import AOIError, AreaWarning
from geocrodino.geo.areas.aoi import from_polygons, read_aoi
from geocrodino.geo.areas.place import bounds_on_grid, likely_mistake, meets, on_grid, placement_advice

GRID = GeoBox((1000, 1000), Affine(10, 0, 400_000, 0, -10, 5_010_000), "EPSG:32631")
"""10 km east and north of (400 km, 5000 km) in UTM 31: longitude 1.73 to 1.86, latitude 45.15 to 45.24."""

INSIDE = (1.75, 45.16, 1.8, 45.2)


def given_option(told: str) -> str:
    """The area that a message says to take."""
    return str(ast.literal_eval(told.partition("`aoi=")[2].removesuffix("`")))


def test_an_area_in_the_crs_of_the_grid_stays_as_it_is():
    area = read_aoi("0,0,9000000,9000000", "EPSG:32631")
    assert on_grid(area, GRID).polygons().equals(area.polygons())


def test_rows_and_splits_are_kept():
    shapes = {"train": shapely.box(*INSIDE), "test": shapely.box(60, 0, 61, 1)}
    area = on_grid(from_polygons(shapes, "EPSG:4326", "here"), GRID)
    assert area.splits == ("train", "test")
    assert area.polygons("train").area == pytest.approx(3930 * 4447, rel=0.01)  # 0.05 x 0.04 degrees in metres
    assert area.polygons("test").is_empty


@pytest.mark.parametrize("box", ["-180,-90,180,90", "-20,30,40,70"])
def test_an_area_much_larger_than_the_raster_covers_all_of_it(box):
    """Corners of the world have no position in a UTM zone."""
    assert on_grid(read_aoi(box, "EPSG:4326"), GRID).polygons().covers(GRID.extent.geom)


def test_a_parallel_is_no_straight_line_in_a_projection():
    """The raster's south edge lies 3 km above the parallel that bounds a box of ten degrees; a chord would be above."""
    area = on_grid(read_aoi("-2,45.12,8,50", "EPSG:4326"), GRID)
    assert area.polygons().covers(GRID.extent.geom)
    corners = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32631", always_xy=True).transform([-2, 8], [45.12, 45.12])
    chord = corners[1][0] + (corners[1][1] - corners[1][0]) / 2
    assert chord > 5_000_000  # what the straight line would cut off


def test_another_planet():
    area = read_aoi("1,2,3,4", "ESRI:104905")
    assert not meets(area, GRID)
    assert bounds_on_grid(area, GRID) == "an area without a position there"
    with pytest.raises(AOIError, match="cannot be put in the CRS of the raster"):
        on_grid(area, GRID)


def test_bounds_are_never_nan():
    assert bounds_on_grid(read_aoi("400000,5000000,401000,5001000", "EPSG:32631"), GRID) == (
        "x 400000 to 401000, y 5000000 to 5001000"
    )
    assert bounds_on_grid(read_aoi("1e15,1e15,2e15,2e15", "EPSG:32633"), GRID) == "an area without a position there"


SWAPPED = (
    "With x and y exchanged it meets the raster: latitude and longitude, or northing and easting, seem to be swapped. "
)


@pytest.mark.parametrize(
    ("text", "crs"),
    [
        ("45.16,1.75,45.2,1.8", "EPSG:4326"),
        ("5001000,401000,5002000,402000", "EPSG:32631"),
        ("POLYGON ((45.16 1.75, 45.2 1.75, 45.2 1.8, 45.16 1.8, 45.16 1.75))", "EPSG:4326"),
        (
            '{"type": "Polygon", "coordinates": [[[45.16, 1.75], [45.2, 1.75], [45.2, 1.8], [45.16, 1.75]]]}',
            "EPSG:4326",
        ),
    ],
    ids=["box", "northing before easting", "WKT", "GeoJSON"],
)
def test_x_and_y_exchanged(text, crs):
    area = read_aoi(text, crs)
    assert not meets(area, GRID)
    told = likely_mistake(area, GRID)
    assert told.startswith(f"{SWAPPED}Exchange them: `aoi=")
    assert meets(read_aoi(given_option(told), crs), GRID)


def test_x_and_y_exchanged_in_a_file(tmp_path):
    path = tmp_path / "a.geojson"
    gpd.GeoDataFrame(geometry=[shapely.box(45.16, 1.75, 45.2, 1.8)], crs="EPSG:4326").to_file(path)
    told = likely_mistake(read_aoi(path), GRID)
    assert told.startswith(f"{SWAPPED}Exchange them in a copy, and take areas-xy.gpkg as the area: python -c ")


def test_a_box_that_is_small_in_another_order():
    """Read as minx,miny,maxx,maxy it spans 43 by 43 degrees, the raster among them."""
    with pytest.warns(AreaWarning) as caught:
        on_grid(read_aoi("1.75,1.8,45.16,45.2", "EPSG:4326"), GRID)
    assert [str(w.message) for w in caught] == [
        "bounding box 1.75,1.8,45.16,45.2: check the order of its numbers. It meets the raster if the numbers are "
        "minx,maxx,miny,maxy. Give them as minx,miny,maxx,maxy: `aoi='1.75,45.16,1.8,45.2'`"
    ]


def test_a_box_in_metres_in_another_order():
    told = likely_mistake(read_aoi("400100,400900,5000100,5000900", "EPSG:32631"), GRID)
    assert told == (
        "It meets the raster if the numbers are minx,maxx,miny,maxy. "
        "Give them as minx,miny,maxx,maxy: `aoi='400100,5000100,400900,5000900'`"
    )


def test_an_ordinary_box_is_not_doubted():
    with warnings.catch_warnings():
        warnings.simplefilter("error", AreaWarning)
        on_grid(read_aoi("1.75,45.16,1.8,45.2", "EPSG:4326"), GRID)
        on_grid(read_aoi("0,40,10,50", "EPSG:4326"), GRID)


def test_coordinates_in_the_crs_of_the_raster(tmp_path):
    path = tmp_path / "a.shp"
    gpd.GeoDataFrame(geometry=[shapely.box(401_000, 5_001_000, 402_000, 5_002_000)], crs="EPSG:32632").to_file(path)
    told = likely_mistake(read_aoi(path), GRID)
    assert told == ("It meets the raster if its coordinates are in EPSG:32631. If they are: `aoi_crs='EPSG:32631'`")
    with pytest.warns(AreaWarning, match="the coordinates are read as EPSG:32631"):
        assert meets(read_aoi(path, "EPSG:32631"), GRID)


def test_degrees_that_are_read_as_metres():
    told = likely_mistake(read_aoi("1.75,45.16,1.8,45.2", "EPSG:32631"), GRID)
    assert told == "It meets the raster if its coordinates are in EPSG:4326. If they are: `aoi_crs='EPSG:4326'`"


def test_an_area_elsewhere():
    area = read_aoi("10,10,11,11", "EPSG:4326")
    assert likely_mistake(area, GRID) == ""
    assert placement_advice(area, GRID) == "Check that both show the same place and carry the right CRS."


def test_polygons_of_another_split_that_meet_the_raster(tmp_path):
    """The area as a whole meets the raster, so that its CRS is no mistake."""
    path = tmp_path / "splits.gpkg"
    shapes = [shapely.box(401_000, 5_001_000, 402_000, 5_002_000), shapely.box(501_000, 5_001_000, 502_000, 5_002_000)]
    gpd.GeoDataFrame({"split": ["test", "train"]}, geometry=shapes, crs="EPSG:32631").to_file(path)
    area = read_aoi(path)
    assert likely_mistake(area, GRID) == ""
    assert placement_advice(area, GRID) == "Its polygons of test meet it: name this split, or files of the same place."
