"""Statistics of the training split, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from geocrodino.data import statistics
from geocrodino.data.scenes import AlignedScene
from geocrodino.data.statistics import class_counts, measure
from geocrodino.errors import RasterError


def scene(layers, train=True):
    inside = np.broadcast_to(train, layers.grid.shape)
    return AlignedScene("", layers, layers.class_indices(), {"train": inside})


def test_only_valid_pixels_of_the_split_are_measured(layers, recipes):
    inside = np.zeros(layers.grid.shape, bool)
    inside[0:12, 0:12] = True  # the hole of 10 x 10 px lies in it: 44 pixels are left
    spec = measure([scene(layers, inside)], recipes["elevation"])
    rows = np.concatenate([np.repeat(np.arange(10), 2), np.repeat([10, 11], 12)])
    height = spec.channels[0]
    low, high = np.quantile(100.0 + rows, (0.001, 0.999))
    values = np.clip(100.0 + rows, low, high)
    assert (height.low, height.high) == pytest.approx((low, high))
    assert (height.mean, height.std) == pytest.approx((values.mean(), values.std()))
    assert (spec.modality, spec.ground_given) == ("elevation", False)


def test_nodata_values_never_enter(layers, recipes):
    spec = measure([scene(layers)], recipes["optical"])
    assert [c.name for c in spec.channels] == ["red", "green", "blue"]
    assert max(spec.channels[0].high, spec.channels[2].high) <= 127  # 255 would be the nodata


def test_a_split_without_a_valid_pixel(layers, recipes):
    inside = np.zeros(layers.grid.shape, bool)
    inside[:10, :10] = True
    with pytest.raises(RasterError, match=r"no valid elevation pixel within the training polygons\.$"):
        measure([scene(layers, inside)], recipes["elevation"])
    with pytest.raises(RasterError, match="no valid optical pixel"):
        measure([scene(layers, False)], recipes["optical"])


def test_a_sample_of_the_pixels_tells_the_same(layers, recipes, monkeypatch):
    whole = measure([scene(layers)], recipes["optical"])
    monkeypatch.setattr(statistics, "_SAMPLE_PX", 3000)
    part = measure([scene(layers)], recipes["optical"])
    for first, second in zip(whole.channels, part.channels, strict=True):
        assert second.mean == pytest.approx(first.mean, rel=0.05)
        assert second.std == pytest.approx(first.std, rel=0.05)


def test_class_counts():
    labels = np.array([[0, 0, 2], [255, 2, 1]], np.uint8)
    inside = np.array([[True, True, True], [True, True, False]])
    assert class_counts(labels, inside, 4).tolist() == [2, 0, 2, 0]
