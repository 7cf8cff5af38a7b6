"""Scores by hand, against torchmetrics, and whatever the blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_cohen_kappa,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)

from geocrodino.evaluation.metrics import ConfusionMatrix


def _scores(labels, predicted, classes=3):
    matrix = ConfusionMatrix(classes)
    matrix.update(np.array(labels, np.uint8), np.array(predicted, np.uint8))
    return matrix.scores()


def test_scores_by_hand():
    # class 0: 2 right of 3, 1 taken by class 1; class 1: 1 right; one pixel of class 2 goes to 0; 255 does not count
    scores = _scores([0, 0, 0, 1, 2, 255], [0, 0, 1, 1, 0, 2])
    assert scores.iou == pytest.approx((2 / 4, 1 / 2, 0))
    assert scores.precision == pytest.approx((2 / 3, 1 / 2, math.nan), nan_ok=True)
    assert scores.recall == pytest.approx((2 / 3, 1, 0))
    assert scores.f1 == pytest.approx((2 / 3, 2 / 3, 0))
    assert scores.support == (3, 1, 1)
    assert scores.mean_iou == pytest.approx(1 / 3)
    assert scores.mean_f1 == pytest.approx(4 / 9)
    assert scores.accuracy == pytest.approx(3 / 5)
    assert scores.kappa == pytest.approx((3 / 5 - (9 + 2) / 25) / (1 - (9 + 2) / 25))
    assert (scores.pixels, scores.missed) == (5, 0)


def test_a_class_in_neither_is_nan_and_outside_the_mean():
    scores = _scores([0, 0, 1, 1], [0, 0, 1, 0])
    assert math.isnan(scores.iou[2])
    assert math.isnan(scores.f1[2])
    assert scores.mean_iou == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_only_in_the_map_is_zero_and_outside_the_mean():
    scores = _scores([0, 0, 1, 1], [0, 2, 1, 1])
    assert scores.iou == pytest.approx((1 / 2, 1, 0))
    assert scores.mean_iou == pytest.approx(3 / 4)


def test_pixels_without_a_class_in_the_map_count_as_wrong_if_asked():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 0, 0, 1, 255]), np.array([0, 255, 255, 1, 255]))
    assert matrix.scores().iou == pytest.approx((1, 1))
    scores = matrix.scores(count_missed=True)
    np.testing.assert_array_equal(matrix.counts, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(matrix.missed, [2, 0])
    assert scores.iou == pytest.approx((1 / 3, 1))
    assert scores.recall == pytest.approx((1 / 3, 1))
    assert scores.precision == pytest.approx((1, 1))
    assert scores.accuracy == pytest.approx(1 / 2)
    assert (scores.pixels, scores.missed) == (4, 2)


def test_without_labels_there_are_no_scores():
    scores = _scores([255, 255], [0, 1])
    assert all(map(math.isnan, (*scores.iou, scores.mean_iou, scores.mean_f1, scores.accuracy, scores.kappa)))
    assert (scores.pixels, scores.missed) == (0, 0)


def test_rows_are_labels_and_columns_the_map():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[0, 0]]), np.array([[1, 1]]))
    np.testing.assert_array_equal(matrix.counts, [[0, 2], [0, 0]])
    assert matrix.counts.dtype == np.int64


def test_many_pixels_do_not_overflow():
    matrix = ConfusionMatrix(2)
    matrix.counts[:] = [[2**45, 2**44], [2**44, 2**45]]
    scores = matrix.scores()
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.kappa == pytest.approx(1 / 3)


def test_wrong_arrays_are_refused():
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=r"labels and map of one shape, found \(2,\) and \(3,\)"):
        matrix.update(np.zeros(2, int), np.zeros(3, int))
    with pytest.raises(ValueError, match=r"expected label indices 0 to 1 or 255, found 2$"):
        matrix.update(np.array([2]), np.array([0]))
    with pytest.raises(ValueError, match=r"expected map indices 0 to 1 or 255, found 2$"):
        matrix.update(np.array([0]), np.array([2]))
    with pytest.raises(ValueError, match="at least one class"):
        ConfusionMatrix(0)
    assert not matrix.counts.any()


_labels = arrays(np.uint8, (12, 9), elements=st.sampled_from([0, 1, 2, 3, 255]))
_maps = arrays(np.uint8, (12, 9), elements=st.sampled_from([0, 1, 2, 3]))


@settings(max_examples=60, deadline=None)
@given(_labels, _maps)
def test_agrees_with_torchmetrics(labels, predicted):
    keep = labels != 255
    if not keep.any():
        return
    scores = _scores(labels, predicted, 4)
    p, t = (torch.from_numpy(x[keep].astype(np.int64)) for x in (predicted, labels))
    for found, metric in (
        (scores.iou, multiclass_jaccard_index),
        (scores.f1, multiclass_f1_score),
        (scores.precision, multiclass_precision),
        (scores.recall, multiclass_recall),
    ):
        expected = metric(p, t, num_classes=4, average="none").numpy()
        np.testing.assert_allclose(np.nan_to_num(found), expected, atol=1e-6)
    present = np.array(scores.support) > 0
    iou = multiclass_jaccard_index(p, t, num_classes=4, average="none").numpy()
    assert scores.mean_iou == pytest.approx(iou[present].mean(), abs=1e-6)
    if present.all():
        assert scores.mean_iou == pytest.approx(float(multiclass_jaccard_index(p, t, num_classes=4)), abs=1e-6)
    assert scores.accuracy == pytest.approx(float(multiclass_accuracy(p, t, num_classes=4, average="micro")), abs=1e-6)
    if not math.isnan(scores.kappa):
        assert scores.kappa == pytest.approx(float(multiclass_cohen_kappa(p, t, num_classes=4)), abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(_labels, arrays(np.uint8, (12, 9), elements=st.sampled_from([0, 1, 2, 3, 255])), st.integers(1, 12))
def test_blocks_do_not_change_the_result(labels, predicted, rows):
    whole, parts = ConfusionMatrix(4), ConfusionMatrix(4)
    whole.update(labels, predicted)
    for start in range(0, 12, rows):
        parts.update(labels[start : start + rows], predicted[start : start + rows])
    np.testing.assert_array_equal(whole.counts, parts.counts)
    np.testing.assert_array_equal(whole.missed, parts.missed)
    assert whole.counts.sum() + whole.missed.sum() == (labels != 255).sum()


def test_an_excluded_class_is_in_no_mean_and_its_pixels_stay():
    matrix = ConfusionMatrix(3)
    # Labels 0: 3 right, 1 mapped as clutter (2). Labels 1: 4 right. Labels 2: 1 right, 1 mapped as 1.
    matrix.update(np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2]), np.array([0, 0, 0, 2, 1, 1, 1, 1, 2, 1]))
    all_classes, without = matrix.scores(), matrix.scores(excluded=(2,))
    assert without.iou == all_classes.iou == (3 / 4, 4 / 5, 1 / 3)
    assert without.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert without.mean_f1 == pytest.approx((6 / 7 + 8 / 9) / 2)
    assert without.accuracy == all_classes.accuracy == 0.8
