"""What an inspection finds in labels."""

from __future__ import annotations

import numpy as np
import pytest
from odc.geo.geobox import GeoBox

from geocrodino.data.label_look import look_at_labels
from geocrodino.geo.labels.opening import open_labels
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.labels import LabelRules

TWO = ClassScheme.from_values([1, 2], ["grass", "road"])


@pytest.fixture
def labels(write_raster):
    def write(values, **options) -> LabelSource:
        return LabelSource.of(RasterSource.open(write_raster("labels.tif", np.array(values, np.uint8), **options)))

    return write


def test_values_with_names_and_shares(labels):
    found = look_at_labels(labels([[1, 1], [2, 1]]), TWO, None)
    assert (found.values, found.notes, found.problems) == ("1 grass 75 %, 2 road 25 %", (), ())
    assert look_at_labels(labels([[1, 1], [2, 1]]), None, None).values == "1 75 %, 2 25 %"


def test_only_so_many_values_are_listed(labels):
    found = look_at_labels(labels([range(30)]), None, None)
    assert found.values.startswith("0 3.3 %, 1 3.3 %, ")
    assert found.values.endswith("19 3.3 % and 10 more")


def test_values_of_no_class_are_a_problem_inside_the_area_alone(labels):
    source = labels([[1, 2, 7], [1, 2, 7]])
    grid = source.geobox
    (note,) = look_at_labels(source, TWO, None).notes
    assert note.startswith("values that belong to no class: 7; a training refuses them in its area. ")
    assert look_at_labels(source, TWO, grid[:, :2]).problems == ()
    (problem,) = look_at_labels(source, TWO, grid).problems
    assert problem.startswith(f"{source.path} holds label values outside the classes: 7. Expected: 1 grass, 2 road.\n")


def test_an_area_without_labels(labels):
    source = labels([[1, 2, 255], [1, 2, 255]], nodata=255)
    part = source.geobox[:, 2:]
    assert isinstance(part, GeoBox)
    assert look_at_labels(source, TWO, part).problems == (
        f"{source.path}: no valid pixel within the area of interest (2 x 1 px): all of it is nodata.\n"
        "Check the nodata tag and the area.",
    )


def test_several_bands(labels):
    found = look_at_labels(labels(np.zeros((3, 4, 4))), TWO, None)
    assert found.values == ""
    assert "found 3 bands" in found.problems[0]


def test_classes_that_a_table_names(write_raster):
    path = write_raster("codes.tif", np.array([[1, 2], [3, 3]], np.uint8))
    labels = open_labels(path, None, rules=LabelRules(table={"house": [1, 2], "road": 3}))
    found = look_at_labels(labels, None, labels.geobox)
    assert (found.values, found.notes, found.problems) == ("house 50 %, road 50 %", (), ())
    labels = open_labels(path, None, rules=LabelRules(table={"house": 1, "road": 3}))
    (problem,) = look_at_labels(labels, None, labels.geobox).problems
    assert problem.startswith(f"{path}: 1 value stands in no class of `data.label_rules.table`: 2 (1 px). ")
