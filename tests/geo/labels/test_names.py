"""Names that several files give to class values: which differ, and which values the same names have elsewhere."""

from __future__ import annotations

import pytest

from geocrodino.errors import LabelError
from geocrodino.geo.labels.names import Legend, differing_values, moves_by_name, require_same_names

A = {0: "ground", 1: "vegetation", 2: "building", 3: "water"}
B = {0: "water", 1: "building", 2: "vegetation", 3: "ground"}
MOVES = {0: 3, 1: 2, 2: 1, 3: 0}
WAY_OUT = (
    ", so that a value is one class in all files. Where these are two names of one class, list value and name of each "
    "class under `classes`."
)


def _legend(file, names, values=None, rules=None):
    return Legend(file, names, names.keys() if values is None else values, rules or {})


def _told(*legends):
    with pytest.raises(LabelError) as caught:
        require_same_names(legends)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "others", "differ"),
    [
        (B, A, [0, 1, 2, 3]),
        ({0: "Bare_soil ", 1: "x"}, {0: "bare soil", 2: "y"}, []),
        ({3: "class 3", 4: "wood"}, {3: "water", 4: "Class_4"}, []),
        ({3: "class 4"}, {3: "water"}, [3]),
    ],
)
def test_values_with_different_names(names, others, differ):
    assert differing_values(names, others) == differ


@pytest.mark.parametrize(
    ("names", "others", "moves"),
    [
        (B, A, MOVES),
        (A, A, {}),
        ({0: "GROUND", 1: "Building"}, A, {1: 2}),  # fewer names
        ({0: "water", 1: "snow"}, A, {}),  # a name that is not there
        ({1: "ground", 2: "class 2"}, A, {1: 0}),  # a value without a name stays
        ({0: "class 0", 1: "ground"}, A, {}),  # two different classes would become one
        ({1: "ground", 2: "Ground"}, A, {1: 0, 2: 0}),  # one class of two values
        ({2: "wood"}, {1: "wood", 2: "wood"}, {}),
    ],
)
def test_values_of_the_same_names_elsewhere(names, others, moves):
    assert moves_by_name(names, others) == moves


def test_a_value_with_another_name_in_a_later_file():
    assert _told(_legend("a.tif", A), _legend("b.tif", B)) == (
        "b.tif: names the value 0 'water', but a.tif names it 'ground'.\n"
        "Give the scene of b.tif `label_values: {0: 3, 1: 2, 2: 1, 3: 0}`" + WAY_OUT
    )


def test_names_of_other_classes_have_no_values_to_move_to():
    assert _told(_legend("a.tif", A), _legend("b.tif", {1: "vegetation", 2: "snow"})) == (
        "b.tif: names the value 2 'snow', but a.tif names it 'building'.\nGive the scene of b.tif `label_values`"
        + WAY_OUT
    )


def test_the_file_that_first_names_the_value_is_told():
    legends = [_legend("a.tif", {0: "ground", 1: "class 1"}), _legend("b.tif", {1: "water"}), _legend("c.tif", B)]
    assert _told(*legends).startswith("c.tif: names the value 0 'water', but a.tif names it 'ground'.\n")
    legends[2] = _legend("c.tif", {0: "ground", 1: "building"})
    assert _told(*legends).startswith("c.tif: names the value 1 'building', but b.tif names it 'water'.\n")


def test_values_that_do_not_occur_have_any_name():
    require_same_names([_legend("a.tif", A), _legend("b.tif", {**A, 3: "snow"}, values=[0, 1, 2])])
    # A name that the first file gives to no pixel would still become that of the second file's pixels.
    assert _told(_legend("a.tif", A, values=[0]), _legend("b.tif", {3: "snow"})).startswith("b.tif: names the value 3")


def test_rules_for_values_are_the_users_word():
    """Names are those after the rules: 255 of the second file is read as 1, which the file called rock."""
    names = {0: "ground", 1: "rock"}
    require_same_names([_legend("a.tif", A), _legend("b.tif", names, rules={255: 1})])
    require_same_names([_legend("a.tif", names, rules={255: 1}), _legend("b.tif", A)])
    require_same_names([_legend("a.tif", A), _legend("b.tif", B, rules={v: v for v in B})])
    told = _told(_legend("a.tif", A), _legend("b.tif", {0: "ground", 1: "water", 2: "rock"}, rules={255: 2}))
    assert "`label_values: {1: 3, 255: 2}`" in told
