"""Bounding boxes, WKT and GeoJSON as text: every way to write them, and what is said about wrong ones."""

from __future__ import annotations

import json

import pytest
import shapely

from geocrodino.errors import AOIError
from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.geo.areas.text import box_numbers, swapped_text

SQUARE = "POLYGON ((1 2, 3 2, 3 4, 1 4, 1 2))"
GEOJSON = {"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 4], [1, 4], [1, 2]]]}


def refusal(source, crs=None) -> str:
    with pytest.raises(AOIError) as caught:
        read_aoi(source, crs)
    return str(caught.value)


@pytest.mark.parametrize(
    "box", ["1,2,3,4", " 1, 2, 3, 4 ", "1;2;3;4", "1 2 3 4", "[1, 2, 3, 4]", "(1,2,3,4)", "1e0,2,3,4."]
)
def test_ways_to_write_a_bounding_box(box):
    assert read_aoi(box, "EPSG:4326").polygons().bounds == (1, 2, 3, 4)


def test_what_is_no_bounding_box():
    assert box_numbers("areas.gpkg") is None
    assert box_numbers("2024") is None
    assert box_numbers("1,2,3,x") is None


NUMBERS = "expected a bounding box of four numbers minx,miny,maxx,maxy,"
ORDER = "expected minx,miny,maxx,maxy with minx < maxx and miny < maxy, found"


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ("3,2,1,4", f"{ORDER} minx 3 and maxx 1.\nIf minimum and maximum are exchanged: `aoi='1,2,3,4'`"),
        ("1,4,3,2", f"{ORDER} miny 4 and maxy 2.\nIf minimum and maximum are exchanged: `aoi='1,2,3,4'`"),
        (
            "3,4,1,2",
            f"{ORDER} minx 3 and maxx 1 and miny 4 and maxy 2.\nIf minimum and maximum are exchanged: `aoi='1,2,3,4'`",
        ),
        ("1,2,1,4", f"{ORDER} minx 1 and maxx 1.\nA bounding box needs a width and a height."),
        ("nan,2,3,4", f"{ORDER} a number that is not finite."),
        ("1,2,inf,4", f"{ORDER} a number that is not finite."),
        (
            "1,2,3",
            f"{NUMBERS} found 3 numbers.\nWrite decimals with a point.",
        ),
        (
            "2,1;45,1;2,2;45,2",
            f"{NUMBERS} found 8 numbers.\nWrite decimals with a point.",
        ),
    ],
)
def test_bounding_boxes_that_are_refused(box, told):
    assert refusal(box, "EPSG:4326") == f"{box}: {told}"


def test_a_box_across_the_antimeridian():
    """From 179 east to 179 west: two parts of 1 x 2 degrees, as the way out gives them."""
    told = refusal("179,-18,-179,-16", "EPSG:4326")
    first, second, third = told.splitlines()
    assert first == f"179,-18,-179,-16: {ORDER} minx 179 and maxx -179."
    assert second == "If minimum and maximum are exchanged: `aoi='-179,-18,179,-16'`"
    assert third.startswith("If the box crosses the antimeridian, give its two parts: `aoi='MULTIPOLYGON (((180 -18")
    assert read_aoi(third.partition("`aoi='")[2].removesuffix("'`"), "EPSG:4326").polygons().area == 4


@pytest.mark.parametrize(
    "text",
    [
        SQUARE,
        SQUARE.lower(),
        "MULTIPOLYGON (((1 2, 3 2, 3 4, 1 4, 1 2)))",
        "POLYGON Z ((1 2 9, 3 2 9, 3 4 9, 1 4 9, 1 2 9))",
        "GEOMETRYCOLLECTION (POLYGON ((1 2, 3 2, 3 4, 1 4, 1 2)))",
        f"SRID=32631;{SQUARE}",
        f"SRID=0; {SQUARE}",
    ],
)
def test_wkt(text):
    aoi = read_aoi(text, "EPSG:32631")
    assert aoi.polygons().equals(shapely.box(1, 2, 3, 4))
    assert aoi.crs.to_epsg() == 32631


def test_wkt_that_is_refused():
    assert refusal(SQUARE) == f"{SQUARE}: a geometry in WKT needs a CRS. Name it, for instance: `aoi_crs='EPSG:4326'`"
    example = "Expected for instance: POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0))"
    for broken in (
        "POLYGON ((0 0, 1 1",
        "POLYGON ((0 0, 1 0, 1 1))",
        "SRID=x;POLYGON EMPTY",
        "TRIANGLE ((0 0, 1 0, 1 1))",
    ):
        told = refusal(broken, "EPSG:32631").splitlines()
        assert told[0].startswith(f"{broken}: not a geometry in WKT (")
        assert told[1:] == [example]
    assert refusal("POINT (0 0)", "EPSG:32631") == "POINT (0 0): expected polygons only, found Point."
    assert refusal(f"SRID=1;{SQUARE}") == (
        "SRID=1;POLYGON ((1 2, 3 2, 3 4, 1 4, 1 2...: SRID 1 is not a code of EPSG. Expected for instance 32631."
    )


def test_an_srid_is_the_crs():
    assert read_aoi(f"SRID=2154;{SQUARE}").crs.to_epsg() == 2154


@pytest.mark.parametrize(
    "tree",
    [
        GEOJSON,
        {"type": "Feature", "properties": {}, "geometry": GEOJSON},
        {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": GEOJSON}]},
        {"type": "GeometryCollection", "geometries": [GEOJSON]},
    ],
)
def test_geojson(tree):
    aoi = read_aoi(json.dumps(tree))
    assert aoi.polygons().equals(shapely.box(1, 2, 3, 4))
    assert aoi.crs.to_epsg() == 4326


def test_geojson_names_its_crs():
    tree = {**GEOJSON, "crs": {"type": "name", "properties": {"name": "EPSG:32631"}}}
    assert read_aoi(json.dumps(tree)).crs.to_epsg() == 32631


@pytest.mark.parametrize("text", ['{"type": "Polygon"', '{"a": 1}', '{"type": "Polygon", "coordinates": "x"}'])
def test_geojson_that_is_refused(text):
    first, second = refusal(text).splitlines()
    assert first.startswith(f"{text}: not a geometry in GeoJSON (")
    assert second.startswith('Expected for instance: {"type": "Polygon"')


def test_text_with_x_and_y_exchanged():
    assert swapped_text(f"SRID=32631;{SQUARE}") == "SRID=32631;POLYGON ((2 1, 2 3, 4 3, 4 1, 2 1))"
    exchanged = json.loads(
        swapped_text(json.dumps({"type": "Feature", "properties": {"a": [1, 2]}, "geometry": GEOJSON}))
    )
    assert exchanged["geometry"]["coordinates"] == [[[2, 1], [2, 3], [4, 3], [4, 1], [2, 1]]]
    assert exchanged["properties"] == {"a": [1, 2]}
    assert swapped_text(str(shapely.Point(0, 0).buffer(1, quad_segs=64))) is None
