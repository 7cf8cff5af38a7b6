"""Calibration by hand, against torchmetrics, and whatever the scale, the order and the blocks."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from helpers.rounding import rounding
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from torchmetrics.classification import MulticlassCalibrationError

from geocrodino.errors import OutputError
from geocrodino.evaluation.calibration import Reliability, fit_pooling, fit_temperature
from geocrodino.report.figures import plot_reliability


def _softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _drawn(probabilities, rng):
    """A label for each sample, as likely as the probabilities say."""
    return (probabilities.cumsum(axis=1) > rng.random((len(probabilities), 1))).argmax(axis=1)


@pytest.fixture
def samples():
    """Logits that tell the truth, and labels drawn from them."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (20_000, 5))
    return logits, _drawn(_softmax(logits), rng)


# Temperature


def test_temperature_by_hand():
    # Three of four samples are right by a margin of 2: softmax must say 3/4, hence margin / T = log 3.
    logits = np.array([[2, 0], [2, 0], [0, 2], [2, 0]], np.float32)
    assert fit_temperature(logits, np.array([0, 0, 1, 1])) == pytest.approx(2 / math.log(3), rel=1e-4)


def test_logits_that_tell_the_truth_keep_their_temperature(samples):
    assert fit_temperature(*samples) == pytest.approx(1, abs=0.03)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.floats(0.2, 5))
def test_temperature_grows_with_the_logits(seed, scale):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (500, 4))
    labels = _drawn(_softmax(logits), rng)
    assert fit_temperature(scale * logits, labels) == pytest.approx(scale * fit_temperature(logits, labels), rel=1e-4)


def test_temperature_takes_no_notice_of_what_is_added_to_all_logits_of_a_sample(samples):
    logits, labels = samples
    shifted = logits + np.random.default_rng(0).normal(0, 50, (len(logits), 1))
    assert fit_temperature(shifted, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-4)


def test_temperature_makes_the_labels_likelier_and_changes_no_class(samples):
    logits, labels = 3 * samples[0], samples[1]
    cooled = logits / fit_temperature(logits, labels)

    def likelihood(scores):
        return np.log(_softmax(scores)[np.arange(len(labels)), labels]).mean()

    assert likelihood(cooled) > likelihood(logits) + 0.1
    assert all(likelihood(cooled) >= likelihood(cooled * factor) for factor in (0.98, 1.02))
    np.testing.assert_array_equal(cooled.argmax(axis=1), logits.argmax(axis=1))
    errors = [Reliability.of(_softmax(s), labels).expected_calibration_error for s in (logits, cooled)]
    assert errors[1] < 0.02 < 0.1 < errors[0]


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        (np.eye(3), [0, 1, 2], 0.05),
        (100 * np.eye(3), [0, 1, 2], 0.05),
        (np.eye(3), [1, 2, 0], 20),
        (np.full((3, 3), 7.0), [0, 1, 2], 1),
        (np.full((2, 1), 7.0), [0, 0], 1),
    ],
    ids=["all right", "all right and sure", "all wrong", "all the same", "one class"],
)
def test_temperature_where_there_is_no_valley(logits, labels, expected):
    found = fit_temperature(logits, np.array(labels))
    assert found == pytest.approx(expected)
    assert 0.05 <= found <= 20


def test_half_precision_and_extreme_logits_are_no_trouble():
    logits = np.array([[6e4, -6e4], [6e4, -6e4], [-6e4, 6e4]], np.float16)
    with np.errstate(all="raise", under="ignore"):
        assert fit_temperature(logits, np.array([0, 1, 1], np.uint8)) == pytest.approx(20)


# Pooling


def test_pooling_by_hand():
    # The optical image gives the label 0.8 twice and 0.2 once, elevation always 0.5. Pooled, these are 0.5 + 0.3 w
    # and 0.5 - 0.3 w, likeliest together where 2 (0.5 - 0.3 w) = 0.5 + 0.3 w, hence w = 5 / 9.
    optical = np.array([[0.8, 0.2], [0.2, 0.8], [0.8, 0.2]], np.float32)
    assert fit_pooling(optical, np.full((3, 2), 0.5), np.array([0, 1, 1])) == pytest.approx(5 / 9, abs=1e-4)


def test_all_weight_to_what_is_right_against_noise():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 2000)
    right = np.where(np.eye(4)[labels] == 1, 0.94, 0.02)
    noise = rng.dirichlet(np.ones(4), 2000)
    assert fit_pooling(right, noise, labels) == 1
    assert fit_pooling(noise, right, labels) == 0


def test_optical_and_elevation_change_places(samples):
    logits, labels = samples
    rng = np.random.default_rng(2)
    one, other = (_softmax(logits + rng.normal(0, spread, logits.shape)) for spread in (1.5, 2))
    weight = fit_pooling(one, other, labels)
    assert 0.5 < weight < 1
    assert fit_pooling(other, one, labels) == pytest.approx(1 - weight, abs=1e-4)


def test_certain_and_wrong_does_not_become_infinite():
    # Nothing helps the last sample; the others want the optical image, but one of them needs elevation.
    optical = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [1, 0]], float)
    elevation = np.array([[0, 1], [0, 1], [0, 1], [1, 0], [1, 0]], float)
    labels = np.array([0, 0, 0, 0, 1])
    with np.errstate(all="raise"):
        assert fit_pooling(optical, elevation, labels) == pytest.approx(3 / 4, abs=1e-4)


def test_the_same_twice_pools_to_the_same(samples):
    probabilities = _softmax(samples[0])
    assert 0 <= fit_pooling(probabilities, probabilities, samples[1]) <= 1


# Reliability


def test_reliability_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.45, 0.55], [1, 0]], np.float32)
    found = Reliability.of(probabilities, np.array([0, 0, 0, 1, 0]), bins=4)
    np.testing.assert_allclose(found.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(found.count, [0, 0, 2, 3])
    np.testing.assert_allclose(found.confidence, [np.nan, np.nan, (0.7 + 0.55) / 2, (0.9 + 0.8 + 1) / 3], rtol=1e-6)
    np.testing.assert_allclose(found.accuracy, [np.nan, np.nan, 1, 2 / 3])
    error = (2 * (1 - 0.625) + 3 * (0.9 - 2 / 3)) / 5
    assert found.expected_calibration_error == pytest.approx(error, rel=1e-6)


def test_a_bin_holds_its_lower_end_and_the_last_one_both():
    confidence = np.array([0.5, 0.75, 1.0, 1.0005])
    found = Reliability.of(np.column_stack([confidence, 1 - confidence]), np.zeros(4, np.uint8), bins=4)
    np.testing.assert_array_equal(found.count, [0, 0, 1, 3])
    assert found.confidence[-1] == pytest.approx((0.75 + 1 + 1) / 3)


def test_samples_without_a_label_do_not_count(samples):
    logits, labels = 2 * samples[0], samples[1].copy()
    labels[::3] = 255
    kept = labels != 255
    probabilities = _softmax(logits)
    everything, labelled = (
        Reliability.of(p, y) for p, y in ((probabilities, labels), (probabilities[kept], labels[kept]))
    )
    np.testing.assert_array_equal(everything.count, labelled.count)
    assert everything.expected_calibration_error == labelled.expected_calibration_error
    assert fit_temperature(logits, labels) == fit_temperature(logits[kept], labels[kept])
    noise = np.full_like(probabilities, 0.2)
    pooled = fit_pooling(probabilities, noise, labels)
    assert pooled == fit_pooling(probabilities[kept], noise[kept], labels[kept])


def test_invalid_values_where_there_is_no_label_do_no_harm():
    logits = np.array([[2, 0], [2, 0], [np.nan, np.inf]])
    assert fit_temperature(logits, np.array([0, 1, 255])) == pytest.approx(20)
    assert Reliability.of(logits / 2, np.array([0, 1, 255])).count.sum() == 2


def test_without_samples_there_is_no_error():
    found = Reliability.of(np.empty((0, 3)), np.empty(0, np.uint8))
    assert found.count.sum() == 0
    assert np.isnan([*found.confidence, *found.accuracy, found.expected_calibration_error]).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), cut=st.integers(0, 300), bins=st.integers(1, 20))
def test_blocks_come_to_one_pass(seed, cut, bins):
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.ones(4), 300).astype(np.float32), rng.integers(0, 4, 300)
    whole = Reliability.of(probabilities, labels, bins)
    first = Reliability.of(probabilities[:cut], labels[:cut], bins)
    second = Reliability.of(probabilities[cut:], labels[cut:], bins)
    for both in (first.add(second), second.add(first)):
        np.testing.assert_array_equal(both.edges, whole.edges)
        np.testing.assert_array_equal(both.count, whole.count)
        np.testing.assert_array_equal(both.accuracy, whole.accuracy)
        np.testing.assert_allclose(both.confidence, whole.confidence, rtol=1e-12)
        assert both.expected_calibration_error == pytest.approx(whole.expected_calibration_error, rel=1e-12, abs=1e-15)
    assert first.count.sum() == cut  # a sum leaves its parts as they are


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), bins=st.sampled_from([1, 4, 10, 15, 20]))
def test_the_error_is_that_of_torchmetrics(seed, bins):
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.full(4, 0.5), 500), rng.integers(0, 4, 500)
    metric = MulticlassCalibrationError(num_classes=4, n_bins=bins, norm="l1", ignore_index=255)
    labels[::7] = 255
    metric.update(torch.from_numpy(probabilities), torch.from_numpy(labels))
    found = Reliability.of(probabilities, labels, bins).expected_calibration_error
    assert found == pytest.approx(metric.compute().item(), abs=rounding(1, terms=500))  # theirs is in float32


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fit_temperature(np.empty((0, 3)), np.empty(0, int)),
            "expected at least one sample with a label, found none",
        ),
        (
            lambda: fit_temperature(np.zeros((2, 3)), np.array([255, 255])),
            "expected at least one sample with a label, found none",
        ),
        (
            lambda: fit_pooling(np.zeros((0, 3)), np.zeros((0, 3)), np.empty(0, int)),
            "expected at least one sample with a label, found none",
        ),
        (
            lambda: fit_temperature(np.zeros((2, 3)), np.zeros(3, int)),
            "expected logits (N, K) and labels (N,), found (2, 3), (3,)",
        ),
        (
            lambda: fit_temperature(np.zeros((1, 2, 3)), np.zeros((1, 2), int)),
            "expected logits (N, K) and labels (N,), found (1, 2, 3), (1, 2)",
        ),
        (
            lambda: fit_pooling(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros(2, int)),
            "expected optical, elevation (N, K) and labels (N,), found (2, 3), (2, 4), (2,)",
        ),
        (
            lambda: Reliability.of(np.zeros(3), np.zeros(3, int)),
            "expected probabilities (N, K) and labels (N,), found (3,), (3,)",
        ),
        (
            lambda: fit_temperature(np.zeros((2, 3)), np.array([0, 3])),
            "expected label indices 0 to 2 or 255, found 3",
        ),
        (
            lambda: Reliability.of(np.zeros((2, 3)), np.array([-1, 0])),
            "expected label indices 0 to 2 or 255, found -1",
        ),
        (
            lambda: fit_temperature(np.array([[0, np.inf]]), np.array([0])),
            "expected finite logits, found infinity or NaN",
        ),
        (
            lambda: fit_pooling(np.ones((1, 2)), np.full((1, 2), np.nan), np.array([0])),
            "expected finite elevation, found infinity or NaN",
        ),
        (
            lambda: fit_pooling(np.ones((1, 2)), np.array([[-3.25, 2]]), np.array([0])),
            "expected elevation within 0 to 1, found -3.25 to 2",
        ),
        (
            lambda: Reliability.of(np.array([[0, 1.5]]), np.array([0])),
            "expected probabilities within 0 to 1, found 0 to 1.5",
        ),
        (lambda: Reliability.of(np.ones((1, 2)), np.array([0]), bins=0), "expected at least one bin, found 0"),
        (
            lambda: Reliability.of(np.ones((1, 2)), np.array([0]), 3).add(
                Reliability.of(np.ones((1, 2)), np.array([0]), 4)
            ),
            "expected the same bins, found 3 and 4",
        ),
        (lambda: plot_reliability({}, "never.png"), "expected one or more curves, found none"),
    ],
)
def test_what_does_not_fit_is_said(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


# Picture


def test_the_picture(tmp_path, samples):
    logits, labels = samples
    curves = {
        "optical": Reliability.of(_softmax(3 * logits), labels),
        "elevation": Reliability.of(_softmax(logits), labels),
        "neither": Reliability.of(np.empty((0, 5)), np.empty(0, np.uint8)),
    }
    plot_reliability(curves, tmp_path / "reliability.png")
    assert [p.name for p in tmp_path.iterdir()] == ["reliability.png"]
    image = np.round(255 * imread(tmp_path / "reliability.png")).astype(int)[..., :3]
    for colour in ((0x2F, 0x6F, 0xB7), (0xE0, 0x8A, 0x2E)):
        drawn = (image == colour).all(axis=-1)
        assert drawn.sum() > 200


def test_a_picture_that_cannot_be_written_is_said(tmp_path):
    path = tmp_path / "missing" / "reliability.png"
    curves = {"optical": Reliability.of(np.ones((1, 2)), np.array([0]))}
    message = (
        f"{path}: cannot be written (No such file or directory).\nExpected a folder with write permission and space."
    )
    with pytest.raises(OutputError, match=f"^{re.escape(message)}$"):
        plot_reliability(curves, path)
