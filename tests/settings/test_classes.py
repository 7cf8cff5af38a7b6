"""File values to indices and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from geocrodino.errors import LabelError
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme, LandClass, number


def test_from_values_sorts_and_names():
    scheme = ClassScheme.from_values([7, 1, 7, 4])
    assert scheme.values == (1, 4, 7)
    assert scheme.names == ("class 1", "class 4", "class 7")
    assert len(scheme) == 3
    assert len({c.colour for c in scheme.classes}) == 3
    assert ClassScheme.model_validate_json(scheme.model_dump_json()) == scheme


@given(st.sets(st.integers(0, 254), min_size=2, max_size=40), st.integers(0, 2**32 - 1))
def test_values_to_indices_and_back(values, seed):
    scheme = ClassScheme.from_values(values)
    rng = np.random.default_rng(seed)
    raster = rng.choice(sorted(values), (7, 9))
    valid = rng.random((7, 9)) < 0.7
    indices = scheme.to_indices(raster, valid, "labels.tif")
    assert indices.dtype == np.uint8
    assert (indices[~valid] == IGNORE_INDEX).all()
    assert (indices[valid] < len(scheme)).all()
    back = scheme.to_values(indices)
    np.testing.assert_array_equal(back[valid], raster[valid])
    assert (back[~valid] == IGNORE_INDEX).all()


def test_indices_follow_the_order_of_the_classes():
    scheme = ClassScheme(classes=(LandClass(value=9, name="roof"), LandClass(value=2, name="grass")))
    indices = scheme.to_indices(np.array([[2, 9]]), np.ones((1, 2), bool), "x")
    assert indices.tolist() == [[1, 0]]


def test_unknown_values_are_listed_but_not_where_there_is_no_label():
    scheme = ClassScheme.from_values([1, 2], ["grass", "road"])
    values = np.array([[1, 300, -4, 300, 77]])
    with pytest.raises(LabelError) as caught:
        scheme.to_indices(values, np.array([[True, True, True, True, False]]), "labels.tif")
    assert str(caught.value) == (
        "labels.tif holds label values outside the classes: -4, 300. Expected: 1 grass, 2 road.\n"
        "A class has a value from 0 to 254. Read values as classes, for instance with `label_values={-4: 1, 300: 2}`; "
        "or leave them out with `ignore_values=[-4, 300]`."
    )
    with pytest.raises(LabelError) as small:
        scheme.to_indices(np.array([[1, 3, 9]]), np.ones((1, 3), bool), "labels.tif")
    assert str(small.value) == (
        "labels.tif holds label values outside the classes: 3, 9. Expected: 1 grass, 2 road.\n"
        "Name every value under `classes`; or leave values out with `ignore_values=[3, 9]`; or read a value as a "
        "class, for instance with `label_values={3: 2}`."
    )


def test_fractions_and_many_unknown_values_are_no_classes():
    scheme = ClassScheme.from_values([1, 2], ["grass", "road"])
    for values, listed in (([[1, 2.5]], "2.5"), ([range(20)], "0, 3, 4, 5, 6, 7, 8, 9 and 10 more")):
        raster = np.array(values, np.float32)
        with pytest.raises(LabelError) as caught:
            scheme.to_indices(raster, np.ones(raster.shape, bool), "labels.tif")
        assert str(caught.value) == (
            f"labels.tif holds label values outside the classes: {listed}. Expected: 1 grass, 2 road.\n"
            "Are these labels? JPEG compression and interpolation change class values: use a raster that was "
            "compressed without loss and resampled with the nearest pixel."
        )


def test_unknown_values_of_a_map():
    scheme = ClassScheme.from_values([1, 2], ["grass", "road"])
    with pytest.raises(LabelError) as caught:
        scheme.to_indices(np.array([[1, 3]]), np.ones((1, 2), bool), "map.tif", "map")
    assert str(caught.value) == (
        "map.tif holds values outside the classes: 3. Expected: 1 grass, 2 road.\n"
        "Give a class map that holds the values of its classes."
    )


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([{"value": 1, "name": "a"}], "at least 2"),
        ([{"value": 1, "name": "a"}, {"value": 1, "name": "b"}], r"two classes share a value: \[1, 1\]"),
        ([{"value": 1, "name": "a"}, {"value": 2, "name": "a"}], "two classes share a name"),
        ([{"value": 1, "name": "a"}, {"value": 255, "name": "b"}], "less than or equal to 254"),
        ([{"value": 1, "name": "a"}, {"value": 2, "name": ""}], "at least 1 character"),
        ([{"value": 1, "name": "a"}, {"value": 2, "name": "b", "colour": "rde"}], "Did you mean red"),
    ],
)
def test_schemes_that_are_refused(classes, words):
    with pytest.raises(ValidationError, match=words):
        ClassScheme.model_validate({"classes": classes})


def test_colour_as_numbers():
    assert LandClass(value=1, name="a", colour="#ff8001").rgb == (255, 128, 1)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (7.0, "7"),
        (-9999.0, "-9999"),
        (2.0**24, "16777216"),
        (2.0**24 + 2, "1.67772e+07"),
        (0.1, "0.1"),
        (1e30, "1e+30"),
    ],
)
def test_whole_numbers_are_shown_in_full(value, told):
    assert number(value) == told
