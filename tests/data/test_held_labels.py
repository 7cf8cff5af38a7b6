"""Labels that are held compressed."""

from __future__ import annotations

import numpy as np

from geocrodino.data.held_labels import PackedLabels, packed, unpacked


def test_packed_labels_are_the_same():
    labels = np.random.default_rng(0).integers(0, 3, (40, 70)).astype(np.uint8)
    held = packed(labels[:, ::2])
    assert isinstance(held, PackedLabels)
    assert held.shape == (40, 35)
    assert np.array_equal(unpacked(held), labels[:, ::2])


def test_labels_of_one_class_take_no_memory():
    held = packed(np.full((100, 100), 255, np.uint8))
    assert held.strides == (0, 0)
    assert unpacked(held).shape == (100, 100)
    assert (unpacked(held) == 255).all()
