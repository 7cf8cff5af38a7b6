"""Patches that are cut from layers in memory are those that are read from disk."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from geocrodino.data import alignment
from geocrodino.data.batches import BatchReader, as_read
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.on_device import PLACES, LayersOnDevice, PlaceReader, bytes_on_device
from geocrodino.data.scenes import SceneWindow
from geocrodino.geo.rasters.window import Window

CPU = torch.device("cpu")
WINDOWS = [SceneWindow(0, Window(0, 32, 0, 32)), SceneWindow(1, Window(64, 96, 96, 128))]


def held_bytes(held):
    return sum(t.untyped_storage().nbytes() for layers in held._held.values() for t in layers.values() if t.ndim > 0)


@pytest.mark.parametrize("block_px", [1024, 50], ids=["whole scenes", "blocks"])
def test_a_batch_is_that_from_disk(dataset, monkeypatch, block_px):
    monkeypatch.setattr(alignment, "_BLOCK_PX", block_px)
    (expected,) = DataLoader(BatchReader(dataset), 2, sampler=WINDOWS, collate_fn=as_read)
    (named,) = DataLoader(PlaceReader(dataset), 2, sampler=WINDOWS, collate_fn=as_read)
    held, told = LayersOnDevice([0, 1]), []
    held.load(dataset, CPU, lambda *numbers: told.append(numbers))
    found = held.cut(named[PLACES], 32)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert (found[name].dtype, found[name].stride()) == (values.dtype, values.stride())
        assert torch.equal(found[name], values)
    assert found["elevation_there"].tolist() == [True, False]
    assert told == [(1, 2), (2, 2)]


def test_a_batch_of_places_names_scene_row_and_column(dataset):
    reader = PlaceReader(dataset)
    assert len(reader) == 2
    assert reader.__getitems__(WINDOWS)[PLACES].tolist() == [[0, 0, 0], [1, 64, 96]]
    assert reader[WINDOWS[1]] == WINDOWS[1]
    with pytest.raises(IndexError, match="reaches outside"):
        reader.__getitems__([SceneWindow(0, Window(0, 32, -1, 31))])


def test_the_memory_of_scenes(dataset):
    assert bytes_on_device((10, 20), [3, 1]) == 200 * (1 + 13 + 5)
    channels = {m: len(spec.channels) for m, spec in dataset.specs.items()}
    shape = dataset.grid.shape
    expected = bytes_on_device(shape, channels.values()), bytes_on_device(shape, [channels["optical"]])
    for number, size in enumerate(expected):
        held = LayersOnDevice([number])
        held.load(dataset, CPU)
        lacking = 5 * number  # the value and the validity that stand for all pixels
        assert held_bytes(held) == size + lacking


def test_layers_are_read_once(dataset, monkeypatch):
    held = LayersOnDevice([0])
    assert not held.is_loaded
    held.load(dataset, CPU)
    monkeypatch.delattr(CoregisteredDataset, "read")
    held.load(dataset, CPU)
    assert held.is_loaded
    held.clear()
    assert not held.is_loaded


def test_another_process_gets_no_pixels(dataset):
    held = LayersOnDevice([1])
    held.load(dataset, CPU)
    sent = pickle.loads(pickle.dumps(held))
    assert (sent.scenes, sent.is_loaded) == ((1,), False)
