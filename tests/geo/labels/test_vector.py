"""Polygons, lines and points as labels, by grids of a few pixels worked out by hand."""

from __future__ import annotations

import math
import pickle
import unicodedata

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.errors import LabelError, LabelWarning, OverlapError, RasterError
from geocrodino.geo.labels.opening import open_labels
from geocrodino.geo.labels.source import label_classes
from geocrodino.geo.rasters.identity import fingerprint
from geocrodino.geo.rasters.place import Place
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import UNKNOWN_INDEX, ClassScheme
from geocrodino.settings.labels import LabelRules

X, Y, N = 400_000.0, 5_000_000.0, 255
LEFT, RIGHT, ALL = (0, 0, 2, 4), (2, 0, 4, 4), (0, 0, 4, 4)


@pytest.fixture
def image(write_raster) -> RasterSource:
    """An image of 4 x 4 px of 1 m; the lower left corner of its grid is (0, 0) in `box`."""
    return RasterSource.open(write_raster("image.tif", np.ones((4, 4), np.uint8), origin=(X, Y + 4)))


def box(west, south, east, north):
    return shapely.box(X + west, Y + south, X + east, Y + north)


@pytest.fixture
def draw(tmp_path, image):
    """Write shapes with attributes and open them as labels over the image."""

    def write(
        shapes, *, rules=None, name="shapes.gpkg", crs="EPSG:32631", to=None, like=image, options=None, **columns
    ):
        drawn = [box(*shape) if isinstance(shape, tuple) else shape for shape in shapes]
        frame = gpd.GeoDataFrame(columns, geometry=drawn, crs=crs)
        (frame if to is None else frame.to_crs(to)).to_file(tmp_path / name)
        return open_labels(tmp_path / name, like, rules=LabelRules(**(rules or {})), **(options or {}))

    return write


def indices(labels, grid=None, scheme=None):
    scheme = scheme or label_classes([labels], None)
    grid = grid or labels.geobox
    return labels.indices(scheme, Window.of(grid.shape), grid).tolist()


def test_words_become_classes_in_alphabetical_order(draw):
    labels = draw([LEFT, RIGHT], landuse=["road", "crop"])
    scheme = label_classes([labels], None)
    assert scheme.by_value == {0: "crop", 1: "road"}
    assert len({c.colour for c in scheme.classes}) == 2
    assert indices(labels) == [[1, 1, 0, 0]] * 4
    assert labels.origin == "found in column landuse of shapes.gpkg, in alphabetical order"
    assert labels.describe() == "2 polygons, column landuse, EPSG:32631"


def test_capitals_and_blanks_make_no_other_class(draw):
    labels = draw([LEFT, (2, 0, 3, 4), (3, 0, 4, 4)], landuse=["Bare soil", "bare_soil ", "water"])
    assert label_classes([labels], None).names == ("Bare soil", "water")
    assert indices(labels) == [[0, 0, 0, 1]] * 4


def test_accents_in_one_or_two_characters_make_no_other_class(draw):
    labels = draw([LEFT, RIGHT, (3, 0, 4, 4)], landuse=["b\u00e2ti", "ba\u0302ti", "water"])
    assert [unicodedata.normalize("NFC", name) for name in label_classes([labels], None).names] == [
        "b\u00e2ti",
        "water",
    ]
    assert indices(labels) == [[0, 0, 0, 1]] * 4


def test_numbers_are_class_values(draw):
    labels = draw([LEFT, RIGHT], code=[7, 3])
    assert label_classes([labels], None).values == (3, 7)
    assert indices(labels) == [[1, 1, 0, 0]] * 4
    again = draw([LEFT, RIGHT], code=["7", "3"], options={"ignore_values": [3], "label_values": {7: 0}})
    assert indices(again, scheme=ClassScheme.from_values([0, 1])) == [[0, 0]] * 4


def test_a_table_merges_words_and_numbers(draw):
    shapes = [(0, 0, 1, 4), (1, 0, 2, 4), (2, 0, 3, 4), (3, 0, 4, 4)]
    rules = {"table": {"building": ["House", "shed", "#ff0000"], "water": []}, "ignore": ["none"]}
    labels = draw(shapes, use=["house", "SHED", "water", "none"], rules=rules)
    scheme = label_classes([labels], None)
    assert scheme.by_value == {0: "building", 1: "water"}
    assert scheme.classes[0].colour == "#ff0000"
    assert indices(labels, GRID) == [[0, 0, 1, N]] * 4
    labels = draw(shapes, use=[1, 2, 3, 4], rules={"table": {"a": [1, 3], "b": 2}, "ignore": 4})
    assert indices(labels, GRID) == [[0, 1, 0, N]] * 4


GRID = GeoBox((4, 4), Affine(1, 0, X, 0, -1, Y + 4), "EPSG:32631")


def test_the_usual_spelling_names_a_class(draw):
    """Of two that are as frequent the first in alphabetical order."""
    shapes = [LEFT, RIGHT, LEFT, RIGHT, LEFT, RIGHT]
    labels = draw(shapes, use=["GRASS", "oak  ", "grass ", "Oak", " grass", None])
    assert labels.names == ("grass", "Oak")
    assert label_classes([labels], None).names == ("grass", "Oak")


def test_shapes_without_a_number_are_told(draw):
    labels = draw([LEFT, RIGHT, LEFT], use=[1.0, 2.0, np.nan])
    with pytest.warns(LabelWarning) as told:
        assert label_classes([labels], None).values == (1, 2)
    note = "1 of 3 shapes have no class in column use, and label nothing"
    assert [str(warning.message) for warning in told] == [f"{labels.name}: {note}."]


def test_codes_of_no_class(draw):
    with pytest.raises(LabelError) as caught:
        draw([LEFT, RIGHT], use=["hous", "water"], rules={"table": {"building": "house", "water": "water"}})
    assert str(caught.value).partition("shapes.gpkg: ")[2] == (
        "column use: 1 of 2 shapes hold codes that stand in no class of `data.label_rules.table`: hous. Expected one "
        "of house, building, water. Did you mean house?\n"
        "Write them under a class, or under `data.label_rules.ignore`: ignore: [hous]"
    )


def test_classes_of_a_map_are_matched_by_name(draw):
    labels = draw([LEFT, RIGHT], use=["Trees", "bare soil"])
    scheme = ClassScheme.from_values([4, 6, 9], ["bare_soil", "water", "trees"])
    assert indices(labels, scheme=scheme) == [[2, 2, 0, 0]] * 4
    with pytest.raises(LabelError) as caught:
        indices(labels, scheme=ClassScheme.from_values([4, 6], ["bare_soil", "tree"]))
    assert str(caught.value) == (
        f"{labels.name} holds labels outside the classes: Trees. Expected: bare_soil, tree. Did you mean tree?\n"
        "In the configuration, write them under a class in `data.label_rules.table`, or under "
        "`data.label_rules.ignore`."
    )
    outside = np.zeros((4, 4), bool)
    outside[:, :2] = True
    fewer = ClassScheme.from_values([4, 6], ["bare_soil", "tree"])
    found = labels.indices(fewer, Window(0, 4, 0, 4), unchecked=outside)
    assert found.tolist() == [[UNKNOWN_INDEX, UNKNOWN_INDEX, 0, 0]] * 4


def test_scenes_share_their_names(draw):
    first = draw([LEFT, RIGHT], name="a.gpkg", use=["road", "crop"])
    second = draw([LEFT, RIGHT], name="b.gpkg", use=["Road", "forest"])
    scheme = label_classes([first, second], None)
    assert scheme.names == ("crop", "forest", "road")
    assert indices(first, scheme=scheme) == [[2, 2, 0, 0]] * 4
    assert indices(second, scheme=scheme) == [[2, 2, 1, 1]] * 4


@pytest.mark.parametrize(
    ("order", "middle"),
    [("area", "b"), ("file", "c"), ("level", "a")],
)
def test_which_polygon_is_on_top(draw, order, middle):
    """Three polygons over the middle: b is the smallest, c the last, a the highest."""
    shapes, use = [(0, 0, 4, 4), (1, 1, 3, 3), (0, 1, 4, 3)], ["a", "b", "c"]
    labels = draw(shapes, use=use, level=[9, 1, 5], rules={"order": order, "column": "use"})
    assert indices(labels)[1][1] == use.index(middle)


def test_touched_pixels(draw):
    shape = [(0.6, 0.6, 2.4, 2.4), (3.9, 3.9, 4, 4)]
    assert indices(draw(shape, use=["a", "b"], rules={"touched": "all"}), GRID) == [
        [N, N, N, 1],
        [0, 0, 0, N],
        [0, 0, 0, N],
        [0, 0, 0, N],
    ]
    labels = draw(shape, use=["a", "b"])
    assert indices(labels, GRID, ClassScheme.from_names(["a", "b"])) == [
        [N, N, N, N],
        [N, N, N, N],
        [N, 0, N, N],
        [N, N, N, N],
    ]


def test_lines_and_points_have_a_width(draw):
    """A line along y = 2 with 2.2 m reaches the centres 1 m away; a point of 0.1 m labels its pixel alone."""
    line = shapely.LineString([(X - 9, Y + 2.5), (X + 9, Y + 2.5)])
    point = shapely.Point(X + 3.9, Y + 0.1)
    labels = draw([line, point], use=["path", "tree"], rules={"width_m": 2.2})
    assert indices(labels, GRID) == [[0] * 4, [0] * 4, [0] * 4, [N, N, N, 1]]
    labels = draw([line, point], use=["path", "tree"], rules={"width_m": 0.1})
    assert indices(labels, GRID) == [[N] * 4, [0] * 4, [N] * 4, [N, N, N, 1]]
    assert labels.describe() == "1 line, 1 point, column use, EPSG:32631"


def test_a_width_is_metres_whatever_the_unit_of_the_crs(write_raster, draw):
    """In a CRS in feet (EPSG:2994), a line of 2.2 ft = 0.67 m labels three rows of pixels of 1 ft."""
    image = RasterSource.open(write_raster("feet.tif", np.ones((5, 5), np.uint8), crs="EPSG:2994", origin=(6e5, 8e5)))
    line = shapely.LineString([(6e5 - 9, 8e5 - 2.5), (6e5 + 9, 8e5 - 2.5)])
    labels = draw([line], crs="EPSG:2994", like=image, code=[1], rules={"width_m": 2.2 * 0.3048})
    _, valid = labels.read(image.geobox)
    assert valid.sum(axis=1).tolist() == [0, 5, 5, 5, 0]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32632"])
def test_any_crs(draw, crs):
    labels = draw([(0, 0, 2.2, 4), (2.2, 0, 4, 4)], to=crs, use=["a", "b"])
    assert indices(labels, GRID) == [[0, 0, 1, 1]] * 4


def test_a_polygon_as_large_as_the_world(draw):
    labels = draw([shapely.box(-180, -90, 180, 90), shapely.box(2.9, 45, 3, 45.01)], crs="EPSG:4326", use=["a", "b"])
    assert indices(labels, GRID, ClassScheme.from_names(["a", "b"])) == [[0] * 4] * 4


def test_the_grid_ends_where_the_shapes_end(draw):
    labels = draw([(1, 1, 2, 3)], code=[5])
    assert labels.geobox.shape == (2, 1)
    assert labels.geobox.affine @ (0, 0) == (X + 1, Y + 3)
    assert not labels.has_pixels


def test_any_grid_is_burnt_directly(draw):
    """Not resampled from the image's grid: pixels of 0.25 m follow an edge at 1.3 m."""
    labels = draw([(0, 0, 1.3, 4), (1.3, 0, 4, 4)], use=["a", "b"])
    fine = GeoBox((1, 16), Affine(0.25, 0, X, 0, -0.25, Y + 4), "EPSG:32631")
    assert indices(labels, fine) == [[0] * 5 + [1] * 11]
    turned = GeoBox((2, 4), Affine(0, 1, X, 1, 0, Y), "EPSG:32631")  # rows go east, columns north
    assert indices(labels, turned) == [[0] * 4, [1] * 4]


def test_shares_follow_the_areas(draw):
    assert draw([(0, 0, 1, 4), (1, 0, 4, 4)], code=[1, 2]).count_labels().shares() == {1.0: 0.25, 2.0: 0.75}


# --- what is repaired -------------------------------------------------------------------------------------------------


def test_repaired_shapes_are_counted(draw):
    bow = shapely.Polygon([(X, Y), (X + 4, Y + 4), (X + 4, Y), (X, Y + 4)])
    flat = shapely.Polygon([(X, Y), (X + 1, Y), (X + 2, Y)])
    shapes = [bow, flat, None, shapely.Polygon(), (0, 0, 4, 0.4), ALL]
    labels = draw(shapes, use=["a", "b", "b", "b", "c", None])
    notes = [
        "1 of 6 shapes were invalid, and are repaired",
        "1 of 6 shapes have no area, and are left out",
        "2 of 6 shapes have no geometry, and are left out",
        "1 of 6 shapes have no class in column use, and label nothing",
        "1 polygon is narrower than a pixel of 1 m, and may label none",
    ]
    with pytest.warns(LabelWarning) as told:
        scheme = label_classes([labels], None)
    assert [str(w.message) for w in told] == [f"{labels.name}: {note}." for note in notes]
    assert scheme.names == ("a", "b", "c")
    # The two halves of the bow tie; a centre on an edge belongs to the pixels right of it.
    assert indices(labels, GRID, scheme)[1][0] == 0
    assert indices(labels, GRID, scheme)[0][2] == N


def test_nothing_is_left(draw):
    flat = shapely.Polygon([(X, Y), (X + 1, Y), (X + 2, Y)])
    with pytest.raises(LabelError) as caught:
        draw([flat, flat], use=["a", "b"])
    assert str(caught.value).endswith(
        "holds no polygon, line or point that can be drawn. 2 of 2 shapes have no area, and are left out.\n"
        "Repair the shapes, for instance with Fix geometries in QGIS, or export them again with their geometries."
    )


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(error=LabelError):
    return pytest.raises(error)


def test_a_missing_column(draw):
    with refused() as caught:
        draw([LEFT], rules={"column": "klass"}, **{"class": ["a"], "id": [1]})
    assert str(caught.value).partition("shapes.gpkg: ")[2] == (
        "data.label_rules.column: no column 'klass'. Expected one of class, id. Did you mean class?"
    )


def test_several_columns_and_none_is_named(draw):
    with refused() as caught:
        draw([LEFT, RIGHT], owner=["x", "y"], land_use=["a", "b"])
    assert str(caught.value).partition("shapes.gpkg: ")[2] == (
        "expected the name of the column that holds the class of each shape, found 2 columns:\n"
        "  owner: 2 different values, such as x, y\n"
        "  land_use: 2 different values, such as a, b\n"
        "Name one, for instance: `label_column='land_use'`"
    )


def test_a_column_of_splits_is_no_choice(draw):
    splits = ["train", "test"]
    assert indices(draw([LEFT, RIGHT], use=["a", "b"], split=splits)) == [[0, 0, 1, 1]] * 4
    with refused() as caught:
        draw([LEFT, RIGHT], owner=["x", "x"], use=["a", "b"], split=splits)
    assert "found 2 columns:\n  owner: one value, x\n  use: 2 different values, such as a, b\n" in str(caught.value)


def test_a_number_for_each_row_is_no_choice(draw):
    assert indices(draw([LEFT, RIGHT], id=[1, 2], use=["a", "b"])) == [[0, 0, 1, 1]] * 4


def test_a_missing_column_of_the_order(draw):
    with refused() as caught:
        draw([LEFT], use=["a"], level=[1], rules={"column": "use", "order": "levels"})
    assert str(caught.value).partition("shapes.gpkg: ")[2] == (
        "data.label_rules.order: no column 'levels'. Expected area, file, or one of use, level. Did you mean level?"
    )


def test_numbers_that_a_map_cannot_hold_are_offered_as_a_table(draw):
    with refused() as caught:
        draw([LEFT, RIGHT], code=[1110, 12])
    assert str(caught.value).partition("shapes.gpkg: ")[2] == (
        "column code: expected whole class values from 0 to 254, found 1110.\n"
        "Name the class of each in the configuration:\n"
        "data:\n  label_rules:\n    table:\n      class 12: [12]\n      class 1110: [1110]"
    )


def test_measurements_and_names_of_each_shape_are_no_classes(draw):
    with refused() as caught:
        draw([LEFT, RIGHT], area=[1.5, 2.5])
    assert str(caught.value).endswith("This looks like measurements or a number for each shape: name another column.")
    with refused() as caught:
        draw([LEFT] * 300, owner=[f"owner {i}" for i in range(300)])
    assert "expected at most 254 classes, found 300 different words, such as owner 0, owner 1, owner 10." in str(
        caught.value
    )


def test_rules_for_numbers_do_not_apply_to_words(draw):
    with refused() as caught:
        draw([LEFT, RIGHT], use=["a", "b"], options={"ignore_values": [1]})
    assert "column use: expected numbers for `ignore_values` and `label_values`, found words such as a, b." in str(
        caught.value
    )


def test_classes_that_words_do_not_tell_apart(draw):
    labels = draw([LEFT, RIGHT], use=["water", "road"])
    with pytest.raises(LabelError) as caught:
        indices(labels, GRID, ClassScheme.from_names(["road", "water", "WATER"]))
    assert str(caught.value) == (
        f"classes: water and WATER are one word for {labels.path}, whose labels are words: capitals, underscores and "
        "blanks make no other class.\nName this class once."
    )


def test_many_rare_numbers_of_shapes_are_no_artefacts(draw):
    shapes = [(0, 0, 4, 4), *((0, 0, 0.01 * v, 0.01 * v) for v in range(1, 30))]
    assert len(label_classes([draw(shapes, code=list(range(30)))], None)) == 30


def test_one_class_is_not_enough(draw):
    with refused() as caught:
        label_classes([draw([LEFT, RIGHT], code=[3, 3])], None)
    assert str(caught.value).endswith("found the value 3 alone.\nDraw shapes of every class, or name another column.")
    with refused() as caught:
        label_classes([draw([LEFT, RIGHT], use=["a", "A"])], None)
    assert str(caught.value) == "labels: expected from 2 to 254 classes, found 1: A."


def test_another_hemisphere(draw):
    with refused(OverlapError) as caught:
        draw([(0, -9_000_000, 4, -8_999_996)], use=["a"])
    text = str(caught.value)
    assert (
        "shapes.gpkg (labels): does not meet the raster that it belongs to: expected shapes within x 400000 to" in text
    )
    assert "y 5000000 to 5000004, found x 400000 to 400004, y -4000000 to -3999996 (in the CRS of the" in text
    assert text.endswith("Check that both show the same place and carry the right CRS.")


def test_coordinates_in_another_crs_than_stated(draw):
    with refused(OverlapError) as caught:
        draw([LEFT], crs="EPSG:32633", use=["a"])
    told = str(caught.value).splitlines()[-1]
    assert told.startswith("It meets the raster if its coordinates are in EPSG:32631. If they are: python -c ")


def test_exchanged_coordinates(draw):
    swapped = shapely.transform(box(*LEFT), lambda xy: xy[:, ::-1])
    with refused(OverlapError) as caught:
        draw([swapped], use=["a"])
    assert "With x and y exchanged it meets the raster" in str(caught.value)
    assert "take areas-xy.gpkg as the labels" in str(caught.value)


@pytest.mark.parametrize("rules", [{"colours": True}, {"tolerance": 3}])
def test_rules_of_rasters_do_not_apply(draw, rules):
    (key,) = rules
    with pytest.raises(LabelError, match=rf"`data.label_rules.{key}`: does not apply to a vector file, found"):
        draw([LEFT], use=["a"], rules=rules)


# --- names of files ---------------------------------------------------------------------------------------------------


def test_layers(tmp_path, image):
    file = tmp_path / "a.gpkg"
    for layer, columns in (("parcels", {"use": ["a", "b"]}), ("roads", {"kind": ["x", "y"]})):
        frame = gpd.GeoDataFrame(columns, geometry=[box(*LEFT), box(*RIGHT)], crs="EPSG:32631")
        frame.to_file(file, layer=layer)
    assert open_labels(file, image, rules=LabelRules(column="kind")).names == ("x", "y")
    assert open_labels(f"{file}|layername=parcels", image).names == ("a", "b")
    assert open_labels(file, image, rules=LabelRules(layer="roads")).names == ("x", "y")
    with refused() as caught:
        open_labels(file, image)
    assert str(caught.value) == (
        f"{file}: expected one layer, found 2 of 2: parcels, roads.\n"
        f"Name one, for instance: `labels='{file}|layername=parcels'`"
    )
    with pytest.raises(
        LabelError, match=r"data.label_rules.layer: no layer 'road'. Expected one of parcels, roads. Did"
    ):
        open_labels(file, image, rules=LabelRules(layer="road"))


def test_folders_patterns_and_lists_are_read_as_one(draw, tmp_path, image):
    (tmp_path / "tiles").mkdir()
    draw([LEFT], name="tiles/a.gpkg", use=["a"])
    draw([RIGHT], name="tiles/b.geojson", to="EPSG:4326", use=["b"])
    both = [str(tmp_path / "tiles" / name) for name in ("a.gpkg", "b.geojson")]
    for name in (tmp_path / "tiles", tmp_path / "tiles" / "*", tuple(both)):
        assert indices(open_labels(name, image)) == [[0, 0, 1, 1]] * 4


def test_no_such_file(tmp_path, image):
    with pytest.raises(RasterError, match="no such file"):
        open_labels(tmp_path / "none.gpkg", image)
    with pytest.raises(RasterError, match="no file of shapes matches the pattern"):
        open_labels(tmp_path / "*.shp", image)


def test_a_stated_crs_is_used_where_the_file_has_none(draw, tmp_path, image):
    frame = gpd.GeoDataFrame({"use": ["a", "b"]}, geometry=[box(*LEFT), box(*RIGHT)])
    with pytest.warns(UserWarning, match="crs"):
        frame.to_file(tmp_path / "bare.shp")
    with pytest.raises(LabelError, match=r"no coordinate reference system.*\nName it, for instance: `data.crs`"):
        open_labels(tmp_path / "bare.shp", image)
    found = open_labels(tmp_path / "bare.shp", image, place=Place(crs="EPSG:32631"))
    assert indices(found) == [[0, 0, 1, 1]] * 4


# --- identity ---------------------------------------------------------------------------------------------------------


def test_the_identity_follows_shapes_classes_and_rules(draw):
    first = fingerprint(draw([LEFT, RIGHT], name="a.gpkg", use=["a", "b"]))
    keys = [
        draw([LEFT, RIGHT], name="a.gpkg", use=use, rules=rules).layout_key
        for use, rules in ((["a", "b"], None), (["b", "a"], None), (["a", "b"], {"touched": "all"}))
    ]
    assert len(first) == 64
    assert len({repr(key) for key in keys}) == 3


def test_labels_travel_to_workers(draw):
    labels = draw([LEFT, RIGHT], use=["a", "b"])
    expected = indices(labels)
    assert indices(pickle.loads(pickle.dumps(labels))) == expected
    assert math.prod(labels.geobox.shape) == 16


def test_overlapping_parts_of_one_shape_leave_no_hole(draw):
    both = shapely.MultiPolygon([shapely.box(X, Y, X + 3, Y + 4), shapely.box(X + 1, Y, X + 4, Y + 4)])
    with pytest.warns(LabelWarning, match="1 of 2 shapes were invalid, and are repaired"):
        found = indices(draw([both, (0, 0, 1, 1)], kind=["field", "house"]))
    assert found == [[0] * 4, [0] * 4, [0] * 4, [1, 0, 0, 0]]
