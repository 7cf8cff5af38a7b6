"""Numbers and colours that become classes by a table."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from geocrodino.errors import LabelError, LabelWarning
from geocrodino.geo.labels.opening import open_labels
from geocrodino.geo.labels.source import label_classes
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.labels import LabelRules

ISPRS = {"building": "#0000ff", "tree": "#00ff00", "car": "#ffff00", "road": ["#ffffff", "#808080"]}
BLUE, GREEN, YELLOW, WHITE, BLACK = (0, 0, 255), (0, 255, 0), (255, 255, 0), (255, 255, 255), (0, 0, 0)
N = 255


@pytest.fixture
def colours(write_raster):
    """Labels of a raster of one row of colours."""

    def write(row, name="label.tif", *, rules=None, table=ISPRS, **options):
        path = write_raster(name, np.array(row, np.uint8).T[:, None, :], **options)
        return open_labels(path, None, rules=LabelRules(table=table, ignore="#000000", **(rules or {})))

    return write


def indices(labels, scheme=None):
    scheme = label_classes([labels], scheme)
    return labels.indices(scheme, Window.of(labels.geobox.shape)).tolist()


def told(labels) -> str:
    with pytest.raises(LabelError) as caught:
        label_classes([labels], None)
    return str(caught.value)


def test_colours_become_the_classes_of_a_table_in_its_order(colours):
    labels = colours([BLUE, YELLOW, BLACK, WHITE, (128, 128, 128), GREEN])
    scheme = label_classes([labels], None)
    assert scheme.by_value == {0: "building", 1: "tree", 2: "car", 3: "road"}
    assert [c.colour for c in scheme.classes] == ["#0000ff", "#00ff00", "#ffff00", "#ffffff"]
    assert indices(labels) == [[0, 2, N, 3, 3, 1]]


@pytest.mark.parametrize("nodata", [0, 255])
def test_a_nodata_tag_hides_no_colour_of_the_table(colours, nodata):
    assert indices(colours([WHITE, BLACK, BLUE], nodata=nodata)) == [[3, N, 0]]


def test_classes_of_a_configuration_are_matched_by_name(colours):
    scheme = ClassScheme.from_values([3, 5, 7, 9], ["Road", "tree", "Building", "car"])
    assert indices(colours([BLUE, GREEN, WHITE]), scheme) == [[2, 1, 0]]


def test_a_colour_of_no_class(colours):
    labels = colours([(252, 255, 0), (252, 255, 0), BLUE, (0, 9, 0)])
    assert told(labels) == (
        f"{labels.name}: 3 px of 2 colours match no class within tolerance 0; most frequent 252,255,0 (2 px), nearest "
        "car 255,255,0 at 3.\n"
        "Set `data.label_rules.tolerance` to 9 to read each as the nearest class, or add colours:\n"
        'data:\n  label_rules:\n    table:\n      class 1: ["#fcff00"]\n      class 2: ["#000900"]'
    )


def test_a_colour_far_from_every_class_is_offered_as_a_class(colours):
    labels = colours([BLUE, (255, 0, 200), (255, 0, 200)], table={"building": "#0000ff", "tree": "#00ff00"})
    assert told(labels).endswith(
        'nearest building 0,0,255 at 255.\nAdd colours:\ndata:\n  label_rules:\n    table:\n      class 1: ["#ff00c8"]'
    )


def test_many_colours_far_from_every_class_may_come_from_a_codec(colours):
    labels = colours([BLUE, *((240 - n, 0, 200) for n in range(10))], table={"building": "#0000ff", "tree": "#00ff00"})
    assert told(labels).endswith(
        "\nIf none is a class, `data.label_rules.tolerance` 240 takes each for the nearest one."
    )


def test_the_nearest_colour_within_the_tolerance_counts(colours):
    labels = colours([(252, 255, 0), (0, 9, 0), (100, 255, 20)], rules={"tolerance": 110})
    with pytest.warns(
        LabelWarning, match=r"3 px \(100 %\) of 3 colours are read as the class of the nearest colour, at"
    ):
        assert indices(labels) == [[2, N, 1]]
    assert (
        told(colours([(100, 255, 20)], rules={"tolerance": 99}))
        .partition("nearest ")[2]
        .startswith("tree 0,255,0 at 100.\n")
    )


def test_ties_go_to_the_smaller_sum_over_the_channels(colours):
    """(15, 10, 10) is 5 from both in the channel that differs most: in two channels of b, in one of a."""
    labels = colours([(15, 10, 10)], table={"b": "#140f0a", "a": "#0a0a0a"}, rules={"tolerance": 5})
    with pytest.warns(LabelWarning):
        assert indices(labels) == [[1]]


def test_a_lossy_codec(write_raster):
    """Colours in the corners of the cube bear any change below a half of the range."""
    rng = np.random.default_rng(0)
    place = rng.integers(0, 5, (40, 40))
    table = np.array([BLUE, GREEN, YELLOW, WHITE, BLACK])
    changed = np.clip(table[place] + rng.integers(-127, 128, (40, 40, 3)), 0, 255).astype(np.uint8)
    path = write_raster("label.tif", changed.transpose(2, 0, 1))
    corners = {**ISPRS, "road": "#ffffff"}
    labels = open_labels(path, None, rules=LabelRules(table=corners, ignore="#000000", tolerance=127))
    with pytest.warns(LabelWarning, match="are read as the class of the nearest colour"):
        assert indices(labels) == np.where(place == 4, N, place).tolist()


def test_a_raster_of_classes_is_no_raster_of_colours(write_raster):
    path = write_raster("a.tif", np.ones((4, 4), np.uint8))
    with pytest.raises(
        LabelError, match=r"expected three bands of 8 bits for `data.label_rules.colours`, found 1 band"
    ):
        open_labels(path, None, rules=LabelRules(table=ISPRS, colours=True))


def test_colours_without_a_table_are_offered_as_one(write_raster):
    path = write_raster("a.tif", np.array([BLUE, BLUE, WHITE], np.uint8).T[:, None, :], nodata=255)
    with pytest.raises(LabelError) as caught:
        open_labels(path, None, rules=LabelRules(colours=True))
    assert str(caught.value) == (
        f"{path}: expected the colour of each class in `data.label_rules.table`, found none.\n"
        "Name the classes of the colours in the configuration:\n"
        'data:\n  label_rules:\n    table:\n      class 1: ["#0000ff"]\n      class 2: ["#ffffff"]'
    )


@pytest.fixture
def numbers(write_raster):
    def write(values, table, *, ignore=(), **options):
        path = write_raster("codes.tif", np.array(values), **options)
        return open_labels(path, None, rules=LabelRules(table=table, ignore=ignore))

    return write


def test_numbers_are_merged_renamed_and_ignored(numbers):
    labels = numbers(
        np.array([[1110, 1120, 2], [65, 2, -1]], np.int32), {"town": [1110, 1120], "sea": 2}, ignore=65, nodata=-1
    )
    assert label_classes([labels], None).by_value == {0: "town", 1: "sea"}
    assert indices(labels) == [[0, 0, 1], [N, 1, N]]


def test_a_number_of_no_class(numbers):
    labels = numbers(np.array([[2, 5, 6, 9]], np.uint8), {"ground": 2, "trees": 5}, ignore=9)
    assert told(labels) == (
        f"{labels.name}: 1 value stands in no class of `data.label_rules.table`: 6 (1 px). Expected one of 2, 5, 9.\n"
        "Write them under a class, or under `data.label_rules.ignore`: ignore: [6]"
    )


def test_a_value_of_no_class_is_named_as_the_file_names_it(write_raster, tmp_path):
    path = write_raster("codes.tif", np.array([[0, 1, 1, 1]], np.uint8))
    names = "<CategoryNames><Category>Roof</Category><Category>Bare soil</Category></CategoryNames>"
    (tmp_path / "codes.tif.aux.xml").write_text(
        f"<PAMDataset><PAMRasterBand band='1'>{names}</PAMRasterBand></PAMDataset>"
    )
    assert told(open_labels(path, None, rules=LabelRules(table={"house": "roof"}))) == (
        f"{path}: 1 value stands in no class of `data.label_rules.table`: 1 Bare soil (3 px). Expected one of 0.\n"
        "Write them under a class, or under `data.label_rules.ignore`: ignore: [1]"
    )


def test_words_of_a_table_are_names_that_the_file_gives(write_raster, tmp_path):
    path = write_raster("codes.tif", np.array([[0, 1, 2]], np.uint8))
    side = "<PAMDataset><PAMRasterBand band='1'><CategoryNames>{}</CategoryNames></PAMRasterBand></PAMDataset>"
    names = "".join(f"<Category>{name}</Category>" for name in ("Roof", "Bare soil", "Water"))
    (tmp_path / "codes.tif.aux.xml").write_text(side.format(names))
    labels = open_labels(path, None, rules=LabelRules(table={"house": "roof", "other": ["bare_soil", 2]}))
    assert indices(labels) == [[0, 1, 1]]


def test_classes_are_decided_before_pixels_are_combined(numbers, write_raster):
    """Two of four pixels are houses of different codes, which together are the most frequent class."""
    labels = numbers(np.array([[1, 2], [3, 4]], np.uint8), {"house": [1, 2, 3], "road": 4})
    scheme = label_classes([labels], None)
    coarse = labels.geobox.zoom_out(2)
    assert labels.indices(scheme, Window(0, 1, 0, 1), coarse).tolist() == [[0]]


def test_several_rasters_are_one(tmp_path, write_raster):
    write_raster("west.tif", np.full((2, 2), 1, np.uint8))
    write_raster("east.tif", np.full((2, 2), 4, np.uint8), origin=(400_002.0, 5_000_000.0))
    for name in (tmp_path, tmp_path / "*.tif", (str(tmp_path / "west.tif"), str(tmp_path / "east.tif"))):
        labels = open_labels(name, None)
        assert label_classes([labels], None).values == (1, 4)
        assert indices(labels) == [[0, 0, 1, 1]] * 2


def test_colours_in_tiles(tmp_path, write_raster):
    for name, colour, x in (("a.tif", BLUE, 0), ("b.tif", WHITE, 2)):
        pixels = np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, 2, 2))
        write_raster(name, pixels, origin=(400_000.0 + x, 5_000_000.0), nodata=255)
    labels = open_labels(tmp_path, None, rules=LabelRules(table=ISPRS))
    assert indices(labels) == [[0, 0, 3, 3]] * 2


def test_scenes_of_one_value_each_are_judged_together(write_raster):
    scenes = [open_labels(write_raster(f"{v}.tif", np.full((2, 2), v, np.uint8)), None) for v in (3, 8)]
    assert label_classes(scenes, None).values == (3, 8)


def test_names_and_values_do_not_mix(numbers, write_raster):
    by_value = open_labels(write_raster("v.tif", np.array([[0, 1]], np.uint8)), None)
    by_name = numbers(np.array([[2, 5]], np.uint8), {"ground": 2, "trees": 5})
    with pytest.raises(
        LabelError, match=r"v.tif: expected names of classes as in .*codes.tif, found class values.\nList"
    ):
        label_classes([by_name, by_value], None)


def test_a_table_names_all_codes(write_raster):
    path = write_raster("v.tif", np.array([[0, 1]], np.uint8))
    with pytest.raises(
        LabelError, match="names all codes of the labels: expected no `ignore_values` and `label_values`"
    ):
        open_labels(path, None, rules=LabelRules(table={"a": 0, "b": 1}), ignore_values=[1])


@pytest.mark.parametrize("rules", [{"column": "landuse"}, {"touched": "all"}, {"width_m": 2}])
def test_rules_of_shapes_do_not_apply_to_rasters(write_raster, rules):
    (key,) = rules
    with pytest.raises(LabelError, match=rf"`data.label_rules.{key}`: does not apply to a raster"):
        open_labels(write_raster("v.tif", np.array([[0, 1]], np.uint8)), None, rules=LabelRules(**rules))


def test_todays_labels_keep_their_identity(write_raster):
    labels = open_labels(write_raster("v.tif", np.array([[0, 1]], np.uint8)), None)
    assert labels.layout_key == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert label_classes([labels], None).values == (0, 1)
