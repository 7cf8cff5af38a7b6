"""Weights of classes from their numbers of pixels, by three rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocrodino.data.class_weights import class_weights


def test_a_power_of_the_frequency_by_hand():
    # Shares 0.9 and 0.1: inverse frequency 1 / 0.9 and 10, mean over the pixels 2, so 0.5556 and 5.
    np.testing.assert_allclose(class_weights(np.array([[90, 10]]), power=1), [5 / 9, 5], rtol=1e-6)
    # Square root: 1 / sqrt(0.9) and 1 / sqrt(0.1), divided by sqrt(0.9) + sqrt(0.1).
    total = 0.9**0.5 + 0.1**0.5
    np.testing.assert_allclose(class_weights(np.array([[90, 10]])), [0.9**-0.5 / total, 0.1**-0.5 / total], rtol=1e-6)
    assert class_weights(np.array([[7, 0, 7]]), power=0).tolist() == [1, 0, 1]
    assert class_weights(np.array([[0, 0]])).tolist() == [0, 0]


def test_the_effective_number_by_hand():
    # beta 1/2: effective numbers 1 (of 1 pixel) and 1.5 (of 2), so weights 1 and 2/3, mean over the three pixels 7/9.
    found = class_weights(np.array([[1, 2, 0]]), "effective", beta=0.5)
    np.testing.assert_allclose(found, [9 / 7, 6 / 7, 0], rtol=1e-6)
    assert class_weights(np.array([[5, 70]]), "effective", beta=0.0).tolist() == [1, 1]
    # Many pixels: both effective numbers are 1 / (1 - beta).
    many = class_weights(np.array([[10**8, 10**9]]), "effective")
    np.testing.assert_allclose(many, [1, 1], rtol=1e-6)


def test_the_median_frequency_counts_scenes_with_the_class_alone():
    # Class 1 occurs in the second scene alone: its frequency there is 50 / 100, that of class 0 150 / 200.
    counts = np.array([[100, 0], [50, 50]])
    median = (0.75 + 0.5) / 2
    raw = np.array([median / 0.75, median / 0.5])
    np.testing.assert_allclose(class_weights(counts, "median"), raw / ((150 * raw[0] + 50 * raw[1]) / 200), rtol=1e-6)
    # In one scene it is the inverse frequency.
    np.testing.assert_allclose(class_weights(np.array([[90, 10]]), "median"), [5 / 9, 5], rtol=1e-6)


@given(
    st.lists(st.lists(st.integers(0, 10**9), min_size=3, max_size=3), min_size=1, max_size=4),
    st.sampled_from(["power", "effective", "median"]),
    st.floats(0, 1),
)
def test_mean_one_over_the_pixels_and_none_for_absent_classes(counts, rule, power):
    counts = np.array(counts)
    weights = class_weights(counts, rule, power=power)
    total = counts.sum(axis=0)
    assert ((weights > 0) == (total > 0)).all()
    if total.any():
        assert (weights * total).sum() / total.sum() == pytest.approx(1, rel=1e-4)
