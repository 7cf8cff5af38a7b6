"""Labels that are held compressed."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from geocrodino.data import held_labels
from geocrodino.data.held_labels import PackedLabels, packed, part_of, unpacked
from geocrodino.geo.rasters.window import Window


def test_packed_labels_are_the_same():
    labels = np.random.default_rng(0).integers(0, 3, (40, 70)).astype(np.uint8)
    held = packed(labels[:, ::2])
    assert isinstance(held, PackedLabels)
    assert held.shape == (40, 35)
    assert np.array_equal(unpacked(held), labels[:, ::2])


@pytest.mark.parametrize(
    "window", [Window(0, 600, 0, 300), Window(250, 260, 250, 262), Window(511, 600, 10, 20), Window(599, 600, 299, 300)]
)
def test_a_window_is_read_from_the_tiles_on_which_it_lies(window, monkeypatch):
    labels = np.random.default_rng(0).integers(0, 3, (600, 300)).astype(np.uint8)
    held = packed(labels)
    read = []
    counted = SimpleNamespace(decompress=lambda tile: read.append(tile) or zlib.decompress(tile))
    monkeypatch.setattr(held_labels, "zlib", counted)
    assert np.array_equal(part_of(held, window), labels[window.slices])
    touched = {(r // 256, c // 256) for r in range(*window[:2]) for c in range(*window[2:])}
    assert len(read) == len(touched)


def test_labels_of_one_class_take_no_memory():
    held = packed(np.full((100, 100), 255, np.uint8))
    assert held.strides == (0, 0)
    assert unpacked(held).shape == (100, 100)
    assert (unpacked(held) == 255).all()
