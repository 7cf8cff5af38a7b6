"""Maps of several scenes: their scores are those of one mosaic, each pixel counted once."""

from __future__ import annotations

import json

import numpy as np
import pytest
from shapely.geometry import box

from geocrodino.errors import LabelError, NoLabelError
from geocrodino.evaluation.evaluate import evaluate_map
from geocrodino.evaluation.scenes import SceneMap, evaluate_scenes
from geocrodino.geo.areas.aoi import from_polygons
from geocrodino.report.tables import scenes_table, write_json

X, Y = 400_000.0, 5_000_000.0
LABELS = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [7, 7, 255, 255]])
MAP = np.array([[1, 1, 2, 1], [1, 2, 2, 2], [7, 255, 7, 1]])


@pytest.fixture
def halves(write_map, write_labels):
    """The left and the right half of a small map, as two scenes."""
    return [
        SceneMap(
            side,
            write_map(MAP[:, part], name=f"{side}.tif", origin=(X + part.start, Y)),
            write_labels(LABELS[:, part], name=f"{side}.labels.tif", origin=(X + part.start, Y)),
        )
        for side, part in (("left", slice(0, 2)), ("right", slice(2, 4)))
    ]


def test_two_halves_score_as_the_whole(halves, write_map, write_labels):
    whole = evaluate_map(write_map(MAP), write_labels(LABELS))
    found = evaluate_scenes(halves)
    np.testing.assert_array_equal(found.total.confusion, [[3, 1, 0], [1, 3, 0], [0, 0, 1]])
    np.testing.assert_array_equal(found.total.missed, [0, 0, 1])
    assert found.total.scores == whole.scores
    # 3 of 4 pixels of class 1, and the one of class 7, are right on the left; 3 of 4 of class 2 on the right.
    assert found.scenes["left"].scores.iou == pytest.approx((3 / 4, 0, 1), nan_ok=True)
    assert found.scenes["right"].scores.iou == pytest.approx((0, 3 / 4, float("nan")), nan_ok=True)
    assert found.total.scores.mean_iou == pytest.approx((3 / 5 + 3 / 5 + 1) / 3)


def test_missed_pixels_count_as_wrong_in_the_sum(halves):
    scores = evaluate_scenes(halves, count_missed=True).total.scores
    assert scores.iou == pytest.approx((3 / 5, 3 / 5, 1 / 2))


def test_each_scene_has_its_own_areas(halves):
    areas = {"left": box(X, Y - 1, X + 2, Y), "right": box(X + 2, Y - 2, X + 4, Y - 1)}
    cut = [
        SceneMap(m.name, m.map_path, m.labels, from_polygons({"test": areas[m.name]}, "EPSG:32631", m.name))
        for m in halves
    ]
    found = evaluate_scenes(cut, split="test")
    np.testing.assert_array_equal(found.total.confusion, [[2, 0, 0], [0, 2, 0], [0, 0, 0]])


def test_a_scene_without_labels_in_its_areas_is_named(halves):
    bare = from_polygons({"test": box(X + 2, Y - 3, X + 4, Y - 2)}, "EPSG:32631", "bare")
    whole = from_polygons({"test": box(X, Y - 3, X + 2, Y)}, "EPSG:32631", "whole")
    right = SceneMap("right", halves[1].map_path, halves[1].labels, bare)
    left = SceneMap("left", halves[0].map_path, halves[0].labels, whole)
    found = evaluate_scenes([left, right], split="test")
    assert (list(found.scenes), found.without_labels) == (["left"], ("right",))
    with pytest.raises(
        NoLabelError, match="no labelled pixel in areas of the split test in any of the 1 scenes: right"
    ):
        evaluate_scenes([right], split="test")


def test_table_and_json(halves, tmp_path):
    found = evaluate_scenes(halves)
    table = scenes_table(found)
    assert [list(column.cells) for column in table.columns][:3] == [
        ["left", "right", "all"], ["5", "4", "9"], ["87.5", "75.0", "73.3"],
    ]  # fmt: skip
    # The right half has no label of the first and the last class. Its one pixel mapped as the first is an error of 0
    # of 1, which says nothing of how that class is found there.
    assert [list(column.cells)[1] for column in table.columns][5:] == ["-", "75.0", "-"]
    write_json(found, tmp_path / "scores.json")
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["confusion"] == [[3, 1, 0], [1, 3, 0], [0, 0, 1]]
    assert list(written["scenes"]) == ["left", "right"]
    assert written["scenes"]["right"]["scores"]["iou"] == [0, 0.75, None]
    assert written["without_labels"] == []


def test_no_maps():
    with pytest.raises(ValueError, match="expected the maps of one or more scenes, found none"):
        evaluate_scenes([])


def test_other_classes(halves, write_map, scheme):
    fewer = scheme.model_copy(update={"classes": scheme.classes[:2]})
    other = write_map(np.array([[1, 2], [2, 2], [1, 1]]), name="o.tif", origin=(X + 2, Y), scheme=fewer)
    with pytest.raises(LabelError, match=r"o\.tif \(scene right\) has other classes than .*left\.tif \(scene left\)"):
        evaluate_scenes([halves[0], SceneMap("right", other, halves[1].labels)])
