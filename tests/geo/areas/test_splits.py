"""The column of splits: by which names it is found, which words it may hold, and when it is refused."""

from __future__ import annotations

import warnings

import geopandas as gpd
import pytest
import shapely

from geocrodino.errors import AOIError, AreaWarning
from geocrodino.geo.areas.splits import split_column, split_name


def frame(**columns):
    rows = len(next(iter(columns.values())))
    return gpd.GeoDataFrame(columns, geometry=[shapely.box(i, 0, i + 1, 1) for i in range(rows)], crs="EPSG:32631")


def told(areas, **options):
    """The splits, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        column = split_column(areas, "a.gpkg", **options)
    assert all(w.category is AreaWarning for w in caught)
    return None if column is None else list(column), [str(w.message) for w in caught]


WORDS = ["train", "val", "test"]


@pytest.mark.parametrize("name", ["split", "Split", "SPLIT", " Split ", "split_"])
def test_a_column_split_needs_no_word(name):
    assert told(frame(**{name: WORDS, "other": ["x", "y", "z"]})) == (WORDS, [])


@pytest.mark.parametrize("name", ["set", "Subset", "fold", "partition", "dataset", "data_split", "part of the study"])
def test_other_columns_of_splits(name):
    note = f"a.gpkg: no column `split`; the splits are read from the column `{name}`."
    assert told(frame(**{name: WORDS, "id": [1, 2, 3]})) == (WORDS, [note])


@pytest.mark.parametrize(
    ("word", "split"),
    [("training", "train"), ("Validation", "val"), ("VALID", "val"), ("testing", "test"), ("unlabeled", "unlabelled")],
)
def test_synonyms(word, split):
    note = f"a.gpkg: in the column `split`, {word.lower()!r} is read as {split!r}."
    assert told(frame(split=[word])) == ([split], [note])


def test_columns_that_hold_no_splits():
    assert told(frame(name=["a", "b"], fold=[0, 1], set=["A", "B"], note=["train", "other"])) == (None, [])
    assert told(frame(name=["test", "test"])) == (None, [])  # not a likely name, and nothing to train on


def test_several_columns():
    areas = frame(set=WORDS, subset=["test", "val", "train"])
    with pytest.raises(AOIError) as caught:
        split_column(areas, "a.gpkg")
    assert str(caught.value) == (
        "a.gpkg: expected one column of splits, found 2 that differ: 'set', 'subset'.\n"
        "Delete those that are not meant, or rename the right one to `split` where there is none."
    )
    with pytest.raises(AOIError, match="found 2 that differ: 'split', 'SPLIT'"):
        split_column(frame(split=WORDS, SPLIT=WORDS[::-1]), "a.gpkg")


def test_columns_that_repeat_each_other():
    assert told(frame(split=WORDS, set=["training", "validation", "test"])) == (WORDS, [])
    assert told(frame(set=WORDS, subset=WORDS))[0] == WORDS


def test_a_column_split_goes_before_others():
    note = "a.gpkg: the column `fold` holds other splits than 'split', and is not used."
    assert told(frame(fold=WORDS[::-1], split=WORDS)) == (WORDS, [note])


@pytest.mark.filterwarnings("ignore::geocrodino.errors.AreaWarning")
def test_misspelt_words_in_a_likely_column():
    with pytest.raises(AOIError) as caught:
        split_column(frame(set=["train", "vla", "test"]), "a.gpkg")
    assert str(caught.value) == (
        "a.gpkg: unknown split 'vla' in the column `set`. Expected train, val, test, unlabelled. "
        "If the column is about something else, rename it."
    )


@pytest.mark.parametrize("missing", [None, float("nan"), "", "  "])
@pytest.mark.parametrize("name", ["split", "set"])
@pytest.mark.filterwarnings("ignore::geocrodino.errors.AreaWarning")
def test_rows_without_a_value(name, missing):
    with pytest.raises(AOIError) as caught:
        split_column(frame(**{name: ["train", "val", missing, missing]}), "a.gpkg")
    assert str(caught.value) == (
        f"a.gpkg: 2 of 4 rows have no value in the column `{name}`. Expected train, val, test, unlabelled. "
        "Fill them in, or delete the rows."
    )


def test_one_split_is_wanted():
    column, notes = told(frame(split=["train", "oops", None, "test"]), wanted="test")
    assert column == ["train", None, None, "test"]
    assert notes == ["a.gpkg: 2 of 4 rows have no known split in the column `split`, and are left out."]


def test_names_of_splits():
    with pytest.warns(AreaWarning, match=r"^The split 'Validation' is read as 'val'\.$"):
        assert split_name("Validation") == "val"
    assert split_name(" Test") == "test"
    assert split_name("other") == "other"
