"""Pixels near another class are left out by a disc."""

from __future__ import annotations

import numpy as np
import pytest

from geocrodino.evaluation.boundaries import without_boundaries

NO = 255


def test_a_disc_around_a_pixel_of_another_class():
    labels = np.zeros((7, 7), np.uint8)
    labels[3, 3] = 1
    found = without_boundaries(labels, 2)
    # A disc of radius 2: 13 pixels; the single pixel of class 1 is near class 0 itself.
    assert np.count_nonzero(found == NO) == 13
    assert found[3, 5] == NO
    assert found[2, 5] == 0  # at a distance of the root of 5


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_one_class_has_no_boundary(radius):
    labels = np.full((5, 5), 4, np.uint8)
    labels[0] = NO
    np.testing.assert_array_equal(without_boundaries(labels, radius), labels)


def test_pixels_without_a_label_are_no_class():
    labels = np.array([[0, 0, NO, NO, NO, NO, 1, 1]], np.uint8)
    np.testing.assert_array_equal(without_boundaries(labels, 3), labels)


def test_windows_with_a_margin_agree_with_the_whole():
    labels = np.random.default_rng(0).integers(0, 3, (40, 40)).astype(np.uint8).repeat(4, axis=1)
    whole = without_boundaries(labels, 3)
    part = without_boundaries(labels[7:23, 17:63], 3)[3:-3, 3:-3]
    np.testing.assert_array_equal(part, whole[10:20, 20:60])
