"""The aligned layers as a torchgeo dataset: torchgeo's own samplers and operations must work on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from torch.utils.data import DataLoader
from torchgeo.samplers import GridGeoSampler, RandomGeoSampler, Units

from geocrodino.data.datasets import CoregisteredDataset, window_of
from geocrodino.data.scenes import AlignedScene
from geocrodino.data.statistics import measure
from geocrodino.geo.rasters.window import Window


@pytest.fixture
def dataset(layers, recipes):
    whole = AlignedScene("", layers, layers.class_indices(), {"train": np.ones(layers.grid.shape, bool)})
    return CoregisteredDataset([whole], {m: measure([whole], recipes[m]) for m in ("optical", "elevation")})


def query_of(grid, window):
    """The torchgeo query of a window of a north-up grid."""
    a = grid.affine
    r0, r1, c0, c1 = window
    return slice(a.c + a.a * c0, a.c + a.a * c1, a.a), slice(a.f + a.e * r1, a.f + a.e * r0, -a.e)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_sample(dataset):
    sample = dataset.read((0, 20, 100, 128))
    shapes = {k: (tuple(v.shape), v.dtype) for k, v in sample.items()}
    assert shapes == {
        "optical": ((3, 20, 28), torch.float32),
        "optical_valid": ((20, 28), torch.bool),
        "elevation": ((2, 20, 28), torch.float32),
        "elevation_valid": ((20, 28), torch.bool),
        "labels": ((20, 28), torch.int64),
    }
    assert sample["optical_valid"].all()
    corner = dataset.read((0, 12, 0, 12))
    assert not corner["elevation_valid"][:10, :10].any()
    assert (corner["elevation"][:, :10, :10] == 0).all()
    assert (corner["labels"][:, :8] == 255).all()
    assert (corner["labels"][:, 8:] == 0).all()
    low = dataset.read((88, 96, 112, 128))
    assert not low["optical_valid"][2:, 8:].any()
    assert low["optical_valid"][:2].all()


def test_other_labels_than_those_of_the_layers(layers, dataset):
    labels = layers.class_indices().copy()
    labels[:, 64:] = 255
    blanked = CoregisteredDataset([AlignedScene("", layers, labels, {})], dataset.specs)
    first, second = (d.read((0, 20, 50, 78)) for d in (dataset, blanked))
    assert same({k: v for k, v in first.items() if k != "labels"}, {k: v for k, v in second.items() if k != "labels"})
    assert (first["labels"] == 0).all()
    assert (second["labels"][:, :14] == 0).all()
    assert (second["labels"][:, 14:] == 255).all()


def test_a_sample_can_be_changed_without_changing_the_files(dataset):
    first = dataset.read((0, 8, 20, 28))
    for value in first.values():
        value.zero_()
    assert dataset.read((0, 8, 20, 28))["optical"].any()


@given(
    st.integers(-5000, 5000), st.integers(-5000, 5000), st.integers(1, 999), st.integers(1, 999),
    st.sampled_from([0.1, 0.2, 1 / 3, 0.9144, 30.0]),
)  # fmt: skip
def test_windows_to_queries_and_back(row, col, height, width, pixel):
    grid = GeoBox((100, 100), Affine(pixel, 0, 636_000.123, 0, -pixel, 853_000.7), "EPSG:2994")
    window = (row, row + height, col, col + width)
    assert window_of(grid, query_of(grid, window)) == window


def test_a_query_names_a_window(dataset):
    sample = dataset[400_010:400_042, 4_999_950:4_999_966]
    assert same(sample, dataset.read((34, 50, 10, 42)))


@pytest.mark.parametrize("window", [(-1, 31, 0, 32), (0, 32, 100, 132)])
def test_a_query_outside(dataset, window):
    with pytest.raises(IndexError, match="reaches outside the layers, whose bounds are"):
        dataset[query_of(dataset.grid, window)]


def test_torchgeo_random_sampler(dataset):
    sampler = RandomGeoSampler(dataset, size=32, length=20, units=Units.PIXELS)
    seen = set()
    for query in sampler:
        window = window_of(dataset.grid, query)
        assert (window[1] - window[0], window[3] - window[2]) == (32, 32)
        assert same(dataset[query], dataset.read(window))
        seen.add(window)
    assert len(seen) > 10
    batches = list(DataLoader(dataset, batch_size=4, sampler=RandomGeoSampler(dataset, size=32, length=8)))
    assert [tuple(b["optical"].shape) for b in batches] == [(4, 3, 32, 32)] * 2


def test_torchgeo_grid_sampler(dataset):
    windows = [window_of(dataset.grid, q) for q in GridGeoSampler(dataset, size=32, stride=32, units=Units.PIXELS)]
    assert sorted(windows) == [(r, r + 32, c, c + 32) for r in range(0, 96, 32) for c in range(0, 128, 32)]
    for query in GridGeoSampler(dataset, size=32, stride=32):
        assert same(dataset[query], dataset.read(window_of(dataset.grid, query)))


def test_torchgeo_operations(dataset):
    both = dataset & dataset
    assert both.crs == dataset.crs
    assert len(both) == 1
    assert len(dataset | dataset) == 2
    assert dataset.res == (1.0, 1.0)


def test_prediction_reads_what_training_reads(layers, sources, dataset):
    specs, window = dataset.specs, (5, 69, 3, 67)
    sample = dataset.read(window)
    for modality, raster in sources.rasters.items():
        values, valid = specs[modality].read(raster, layers.grid, window)
        assert sample[modality].numpy().tobytes() == values.tobytes()
        np.testing.assert_array_equal(sample[f"{modality}_valid"], valid)
        assert (values[:, ~valid] == 0).all()


def test_a_window_is_an_index_too(dataset):
    window = Window(3, 23, 40, 68)
    assert same(dataset[window], dataset.read(window))
    with pytest.raises(IndexError, match="reaches outside the layers"):
        dataset[Window(-1, 23, 40, 68)]


def test_the_index_names_the_file_of_each_layer(dataset, layers):
    assert dataset.index[["optical", "elevation", "labels"]].to_numpy().tolist() == [
        [str(layers.rasters["optical"]), str(layers.rasters["elevation"]), str(layers.labels)]
    ]
