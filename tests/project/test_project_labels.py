"""Columns of classes, colours, and values that are no class."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geocrodino.errors import ConfigError, LabelError
from geocrodino.project.classes import guess_rules
from geocrodino.project.layers import named_layer
from geocrodino.project.shapes import class_column, holds_classes, named_shapes, shape_layers

BOXES = [shapely.box(i, 0, i + 1, 1) for i in range(12)]


@pytest.fixture
def write_shapes(tmp_path):
    """Write twelve squares with columns."""

    def write(file, **columns):
        gpd.GeoDataFrame(columns, geometry=BOXES, crs="EPSG:32631").to_file(tmp_path / file)
        return str(tmp_path / file)

    return write


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"kind": ["a", "b"] * 6, "owner": [f"n{i}" for i in range(12)]}, "kind"),  # owners differ in every row
        ({"code": [1, 2] * 6, "kind": ["a", "b"] * 6}, "kind"),  # words for the codes
        ({"landuse": ["a", "b", "c"] * 4, "zone": ["x", "y"] * 6}, "landuse"),  # the name speaks of classes
        ({"value": [1, 2, 3] * 4, "height": [float(i) + 0.5 for i in range(12)]}, "value"),  # fractions are no classes
    ],
)
def test_the_column_of_classes(write_shapes, columns, expected):
    assert class_column(write_shapes("a.gpkg", **columns), None).column == expected


def test_two_columns_are_asked_about(write_shapes):
    name = write_shapes("a.gpkg", one=["a", "b"] * 6, two=["x", "y", "z"] * 4)
    with pytest.raises(ConfigError, match="2 columns may hold the class of each shape") as refused:
        class_column(name, None)
    assert "  two: 3 different values, such as x, y, z\nName the right one: `label_column='one'`." in str(refused.value)
    assert class_column(name, "two").why == "as named"


def test_no_column(write_shapes):
    with pytest.raises(ConfigError, match="expected a column with the class of each shape"):
        class_column(write_shapes("a.gpkg", name=[f"n{i}" for i in range(12)]), None)


def test_areas_and_labels(write_shapes):
    splits = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    names = [
        write_shapes("parcels.shp", landuse=["a", "b"] * 6),
        write_shapes("aoi.gpkg", split=splits),
        write_shapes("aoi.geojson", split=splits),
        write_shapes("park.gpkg", name=[f"n{i}" for i in range(12)]),
    ]
    found = shape_layers(names)
    assert [(layer.role, layer.files) for layer in found.layers] == [("labels", (names[0],)), ("aoi", (names[1],))]
    assert found.layers[1].why == "polygons with a column of splits: 8 train, 2 val, 2 test"
    assert found.left_out == {
        names[2]: "the same in another format as aoi.gpkg",
        names[3]: "shapes without a column of classes or splits",
    }


def test_labels_lie_where_their_layers_with_classes_do(tmp_path):
    """The first layer lies in the north and has no classes; those with classes lie 2 to 3 and 5 to 6 degrees east."""
    file = tmp_path / "drawn.gpkg"
    north = gpd.GeoDataFrame({"name": ["office"]}, geometry=[shapely.box(2, 60, 3, 61)], crs="EPSG:4326")
    north.to_file(file, layer="a_office")
    for layer, west in (("b_trees", 2), ("c_houses", 5)):
        boxes = [shapely.box(west + n / 12, 45, west + (n + 1) / 12, 46) for n in range(12)]
        frame = gpd.GeoDataFrame({"kind": ["a", "b"] * 6}, geometry=boxes, crs="EPSG:4326")
        frame.to_file(file, layer=layer)
    expected = pytest.approx((2.0, 45.0, 6.0, 46.0))
    (found,) = shape_layers([str(file)]).layers
    assert (found.role, found.why, found.box) == ("labels", "24 shapes with attributes in 2 layers", expected)
    assert named_shapes("labels", str(file)).box == expected
    assert named_shapes("aoi", str(file)).box == pytest.approx((2.0, 60.0, 3.0, 61.0))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2], {}),
        ([0, 1, 255], {"ignore_values": [255]}),
        ([0, 255], {"label_values": {255: 1}}),
        ([1, 2, 300], {"ignore_values": [300]}),
    ],
)
def test_values_that_are_no_class(write_raster, values, expected):
    file = write_raster("l.tif", np.resize(values, (30, 30)).astype("uint16"))
    assert guess_rules(named_layer("labels", file, None), None, None).values == expected


def _picture(write_raster, colours, name="l.tif"):
    codes = np.resize(range(len(colours)), (30, 30))
    return named_layer("labels", write_raster(name, np.array(colours, "uint8")[codes].transpose(2, 0, 1)), None)


def test_colours_of_a_public_data_set(write_raster):
    found = guess_rules(_picture(write_raster, [(255, 255, 255), (0, 0, 255), (0, 255, 0)]), None, None)
    rules = found.values["label_rules"]
    assert rules["table"]["building"] == ["#0000ff"]
    assert rules["ignore"] == ["#000000"]
    assert "tolerance" not in rules
    assert "ISPRS Potsdam" in found.why["label_rules"]


def test_colours_without_names(write_raster):
    layer = _picture(write_raster, [(1, 2, 3), (100, 50, 0), (1, 2, 3)])
    assert guess_rules(layer, None, None).values["label_rules"] == {
        "colours": True,
        "table": {"class 1": ["#010203"], "class 2": ["#643200"]},
    }


def test_colours_after_a_lossy_codec(write_raster):
    rng = np.random.default_rng(0)
    pure = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 0)], "int64")[rng.integers(0, 3, (400, 400))]
    noise = np.where(rng.random(pure.shape) < 0.02, rng.integers(0, 4, pure.shape), 0)
    values = np.where(pure == 255, pure - noise, pure + noise).astype("uint8").transpose(2, 0, 1)
    rules = guess_rules(named_layer("labels", write_raster("l.tif", values), None), None, None).values["label_rules"]
    assert rules["tolerance"] == 127  # channels are 0 or 255, so each pixel has a nearest class
    assert rules["table"]["tree"] == ["#00ff00"]


def test_an_image_is_no_picture_of_classes(write_raster):
    image = np.random.default_rng(0).integers(0, 3, (3, 60, 60)).astype("uint8") * 100
    layer = named_layer("labels", write_raster("l.tif", image), None)
    with pytest.raises(LabelError, match="found 27 colours, of which 27 are frequent"):
        guess_rules(layer, None, None)


def test_drawn_labels_with_a_column_of_splits(write_shapes):
    splits = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    drawn = write_shapes("drawn.gpkg", landuse=["a", "b"] * 6, split=splits)
    assert class_column(drawn, None).column == "landuse"
    assert holds_classes(drawn)
    assert not holds_classes(write_shapes("areas.gpkg", name=["a", "b"] * 6, split=splits))


def test_shapes_of_the_layers_that_may_hold_classes_are_counted(write_shapes, tmp_path):
    """An outline of one shape has no class, so that it is none of the shapes that may be labels."""
    name = write_shapes("a.gpkg", kind=["a", "b"] * 6)
    gpd.GeoDataFrame({"site": ["x"]}, geometry=BOXES[:1], crs="EPSG:32631").to_file(name, layer="outline")
    (layer,) = shape_layers([name]).layers
    assert layer.why == "12 shapes with attributes"
