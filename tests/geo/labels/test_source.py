"""Labels: rules for values, classes with their names, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.errors import LabelError, LabelWarning
from geocrodino.geo.labels.source import LabelSource, find_classes, label_classes
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.settings.classes import ClassScheme

WHOLE = (0, 2, 0, 3)


@pytest.fixture
def labels(write_raster):
    """Write values as labels."""

    def write(values, *, dtype=np.uint8, ignore_values=(), label_values=None, **options) -> LabelSource:
        source = RasterSource.open(write_raster("labels.tif", np.array(values, dtype), **options))
        return LabelSource.of(source, ignore_values, label_values)

    return write


def _told(labels: LabelSource) -> str:
    with pytest.raises(LabelError) as caught:
        find_classes(labels)
    return str(caught.value).removeprefix(f"{labels.path}: ")


# --- rules ----------------------------------------------------------------------------------------------------------


def test_values_can_change_places_and_meet(labels):
    source = labels([[1, 2, 255], [3, 1, 2]], ignore_values=(3,), label_values={1: 2, 2: 1, 255: 1})
    values, valid = source.read_own(WHOLE, (1,))
    np.testing.assert_array_equal(values[0], [[2, 1, 1], [np.nan, 2, 1]])
    np.testing.assert_array_equal(valid, [[True, True, True], [False, True, True]])


def test_a_rule_that_makes_a_value_of_no_class(labels):
    scheme = ClassScheme.from_values([1, 2])
    source = labels([[1, 2, 1], [2, 1, 1]], label_values={1: 9})
    with pytest.raises(LabelError) as refused:
        source.indices(scheme, WHOLE)
    assert str(refused.value) == (
        f"{source.name}: `label_values={{1: 9}}`: expected the value of a class behind the value of the file, found 9. "
        "Classes: 1 class 1, 2 class 2."
    )
    unused = labels([[1, 2, 1], [2, 1, 1]], label_values={7: 9})
    np.testing.assert_array_equal(unused.indices(scheme, WHOLE), [[0, 1, 0], [1, 0, 0]])


def test_ignored_values_are_like_nodata_for_coarser_pixels(labels):
    """Of four pixels, two are unlabelled: the class of the other two decides, with a tag or with a rule."""
    values = [[9, 9, 1, 2], [2, 2, 1, 1]]
    grid = GeoBox((1, 2), Affine(2, 0, 400_000, 0, -2, 5_000_000), "EPSG:32631")
    scheme = ClassScheme.from_values([1, 2])
    for rules in ({"nodata": 9}, {"ignore_values": (9,)}):
        assert labels(values, **rules).indices(scheme, (0, 1, 0, 2), grid).tolist() == [[1, 0]]


def test_classes_that_become_one_are_counted_together(labels):
    """1 and 2 are one class: three of nine and two of nine win against four of nine."""
    grid = GeoBox((1, 1), Affine(3, 0, 400_000, 0, -3, 5_000_000), "EPSG:32631")
    source = labels([[1, 1, 1], [2, 2, 5], [5, 5, 5]], label_values={2: 1})
    assert source.indices(ClassScheme.from_values([1, 5]), (0, 1, 0, 1), grid).tolist() == [[0]]


def test_real_numbers_are_rounded_where_they_are_nearly_whole(labels):
    values, _ = labels([[1.0004, 1.9996, 2.002]], dtype=np.float32).read_own((0, 1, 0, 3), (1,))
    np.testing.assert_array_equal(values[0], np.array([[1, 2, 2.002]], np.float32))


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"label_values": {7: 255}}, "expected class values from 0 to 254 in `label_values`, found 255."),
        ({"ignore_values": (2**24 + 1,)}, "expected values that single precision can hold, up to 16,777,216, in"),
        (
            {"label_values": {7: 1}, "ignore_values": (7,)},
            "the value 7 stands both in `ignore_values` and in `label_values`, there as class 1.\nName it in one",
        ),
        ({"label_values": {255: 1}, "nodata": 255}, "`label_values` reads 255 as class 1, but it is the file's"),
    ],
)  # fmt: skip
def test_rules_that_contradict(labels, rules, told):
    with pytest.raises(LabelError, match=r"labels\.tif: ") as caught:
        labels([[1, 2]], **rules)
    assert told in str(caught.value)


# --- classes --------------------------------------------------------------------------------------------------------


def test_classes_without_names(labels):
    found = find_classes(labels([[4, 4, 9], [4, 9, 255]], nodata=255))
    assert found.scheme.names == ("class 4", "class 9")
    assert found.shares == {4: 0.6, 9: 0.4}
    assert found.notes == ()


def test_named_classes_are_kept(labels):
    scheme = ClassScheme.from_values([1, 2], ["grass", "road"])
    assert label_classes([labels([[1, 255]])], scheme) is scheme


def test_names_follow_the_rules_for_values(labels):
    source = labels([[0, 255, 3]], label_values={255: 1})
    names = "".join(f"<Category>{'roof' if v == 255 else 'sea' if v == 3 else ''}</Category>" for v in range(256))
    band = f'<PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand>'
    source.path.with_name("labels.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    assert find_classes(source).scheme.names == ("class 0", "roof", "sea")


def _named(path, *names):
    listed = "".join(f"<Category>{name}</Category>" for name in names)
    band = f'<PAMRasterBand band="1"><CategoryNames>{listed}</CategoryNames></PAMRasterBand>'
    path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    return path


def test_files_that_give_a_value_different_names(write_raster):
    """Both files have the same category names, at other values: they are not merged by value."""
    a = _named(write_raster("a.tif", np.array([[0, 1, 2]], np.uint8)), "ground", "Low_wood", "water")
    b = _named(write_raster("b.tif", np.array([[0, 1, 2]], np.uint8)), "water", "low wood", "ground")
    opened = [LabelSource.of(RasterSource.open(path)) for path in (a, b)]
    with pytest.raises(LabelError) as caught:
        label_classes(opened, None)
    assert str(caught.value) == (
        f"{b}: names the value 0 'water', but {a} names it 'ground'.\n"
        f"Give the scene of {b} `label_values: {{0: 2, 2: 0}}`, so that a value is one class in all files. Where these "
        "are two names of one class, list value and name of each class under `classes`."
    )
    given = ClassScheme.from_values([0, 1, 2])
    assert label_classes(opened, given) is given
    opened[1] = LabelSource.of(RasterSource.open(b), label_values={0: 2, 2: 0})
    assert label_classes(opened, None).names == ("ground", "Low_wood", "water")


def test_names_of_values_that_one_file_lacks(write_raster):
    a = _named(write_raster("a.tif", np.array([[0, 1]], np.uint8)), "ground", "wood")
    b = _named(write_raster("b.tif", np.array([[0, 2]], np.uint8)), "ground", "water", "road")
    opened = [LabelSource.of(RasterSource.open(path)) for path in (a, b)]
    assert label_classes(opened, None).names == ("ground", "wood", "road")


def test_a_name_of_several_values_is_warned_of(labels):
    source = labels([[0, 1, 2]])
    band = '<PAMRasterBand band="1"><CategoryNames>{}</CategoryNames></PAMRasterBand>'
    names = "<Category>wood</Category><Category>class 0</Category><Category>wood</Category>"
    source.path.with_name("labels.tif.aux.xml").write_text(f"<PAMDataset>{band.format(names)}</PAMDataset>")
    with pytest.warns(LabelWarning) as warned:
        scheme = label_classes([source], None)
    assert scheme.names == ("class 0", "class 1", "class 2")
    assert str(warned[0].message) == (
        f"{source.path}: the name 'wood' stands for the values 0 and 2, which are called after their value instead."
    )


def test_colours_of_the_file(labels):
    source = labels([[4, 9]])
    with rasterio.open(source.path, "r+") as dataset:
        dataset.write_colormap(1, {4: (1, 2, 3, 255), 9: (255, 0, 16, 255)})
    again = LabelSource.of(RasterSource.open(source.path))  # the header says whether there is a table of colours
    assert [c.colour for c in find_classes(again).scheme.classes] == ["#010203", "#ff0010"]


# --- refusals -------------------------------------------------------------------------------------------------------

EXPECTED = "expected two or more classes with whole values from 0 to 254, found "


@pytest.mark.parametrize(
    ("values", "rules", "told"),
    [
        ([[1, 1]], {}, "the value 1 alone.\nGive a raster that holds every class."),
        ([[255, 255]], {"nodata": 255}, "no labelled pixel.\nThe file's nodata value 255 marks pixels without"),
        ([[1, 3]], {"ignore_values": (3,)}, "the value 1 alone.\nCheck the file's mask, the values left out with"),
        (
            [[0, 255]],
            {},
            "the values 0 and 255.\nThis looks like a mask. Read 255 as a class with `label_values={255: 1}`",
        ),
        ([[0, 255]], {"nodata": 0}, "the value 255 alone.\nThe file's nodata value 0 marks pixels without a label."),
        ([[1, 255]], {}, "the values 1 and 255.\nRead 255 as a class with `label_values={255: 0}`"),
        ([[1, 2, 255]], {}, "the values 1, 2 and 255.\nLeave out what is no class with `ignore_values=[255]`"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_labels(labels, values, rules, told):
    assert _told(labels(values, **rules)).startswith(EXPECTED + told)


def test_a_mask_with_a_nodata_tag(labels):
    source = labels([[0, 255]], nodata=0)
    assert _told(source) == (
        f"{EXPECTED}the value 255 alone.\nThe file's nodata value 0 marks pixels without a label. Remove the nodata "
        f"tag if these pixels hold a class: rio edit-info --unset-nodata {source.path}\n"
        "This looks like a mask. Read 255 as a class with `label_values={255: 1}`."
    )


def test_values_that_are_all_too_large(labels):
    assert _told(labels([[300, 301]], dtype=np.uint16)) == (
        f"{EXPECTED}the values 300 and 301.\nRead 300 and 301 as classes with `label_values={{300: 0, 301: 1}}`."
        "\nOr name the class of each in the configuration:\n"
        "data:\n  label_rules:\n    table:\n      class 300: [300]\n      class 301: [301]"
    )


def test_values_below_and_above_the_classes(labels):
    assert _told(labels([[-9999, 1, 2, 300]], dtype=np.int16)) == (
        f"{EXPECTED}the values -9999, 1, 2 and 300.\n"
        "Leave out what is no class with `ignore_values=[-9999, 300]`. "
        "Read what is a class as a value from 0 to 254, for instance with "
        "`label_values={-9999: 0}`.\n"
        "Or name the class of each in the configuration:\n"
        "data:\n  label_rules:\n    table:\n"
        "      class -9999: [-9999]\n      class 1: [1]\n      class 2: [2]\n      class 300: [300]"
    )


def test_mostly_whole_values(labels):
    source = labels([[1, 2, 1.5, 1]], dtype=np.float32)
    assert _told(source) == (
        f"{EXPECTED}1, 1.5 and 2.\n"
        "25 % of the pixels hold fractions: these look like classes that were interpolated. Resample the original with "
        f"the nearest pixel, for instance: rio warp ORIGINAL.tif {source.path} --like OPTICAL.tif --resampling nearest "
        "--overwrite"
    )


def test_many_rare_values(labels):
    """41 values, of which 38 hold one of 1,000 pixels each."""
    values = np.repeat([0, 100, 200], [400, 400, 162]).tolist() + list(range(1, 39))
    told = _told(labels(np.reshape(values, (10, 100))))
    assert told.startswith(
        f"{EXPECTED}41 values (0, 1, 2, 3, 4, 5, 6, 7 ... 200); 38 of them hold less than 1 % of the labelled pixels "
        "each, 3.8 % together.\n"
    )


def test_many_values_that_the_file_names(labels):
    source = labels(np.reshape(np.repeat([0, 1], [500, 500])[:960].tolist() + list(range(2, 42)), (10, 100)))
    names = "".join(f"<Category>kind {v}</Category>" for v in range(42))
    band = f'<PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand>'
    source.path.with_name("labels.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    found = find_classes(source)
    assert len(found.scheme) == 42
    assert found.notes == ()


def test_many_frequent_values_are_classes(labels):
    assert len(find_classes(labels(np.arange(60).reshape(6, 10))).scheme) == 60


def test_jpeg_compression_is_warned_of(labels):
    source = labels(np.repeat([[0, 100]], 64, axis=0).repeat(32, axis=1), compress="jpeg")
    with pytest.warns(LabelWarning, match="JPEG compression may have changed class values"):
        label_classes([source], ClassScheme.from_values([0, 100]))
    scheme = ClassScheme.from_values([0, 100])
    with pytest.warns(LabelWarning) as caught:
        label_classes([replace(source) for _ in range(5)], scheme)
    name = source.name
    assert [str(each.message) for each in caught] == [
        f"5 files of labels ({name}, {name} and 3 more): JPEG compression may have changed class values."
    ]
