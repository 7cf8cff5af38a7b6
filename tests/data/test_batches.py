"""Batches that are read into their own memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from geocrodino.data import batches
from geocrodino.data.batches import BatchReader, as_read
from geocrodino.data.scenes import SceneWindow
from geocrodino.geo.rasters.window import Window

WINDOWS = [SceneWindow(0, Window(0, 32, 0, 32)), SceneWindow(1, Window(64, 96, 96, 128))]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_that_of_pytorch(dataset, workers):
    (expected,) = DataLoader(dataset, 2, sampler=WINDOWS)
    (found,) = DataLoader(BatchReader(dataset), 2, sampler=WINDOWS, num_workers=workers, collate_fn=as_read)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert torch.equal(found[name], values)
    assert found["elevation_there"].tolist() == [True, False]


@pytest.mark.parametrize("own", [True, False], ids=["PyTorch's own function", "without it"])
def test_tensors_of_a_reading_process_lie_in_shared_memory(monkeypatch, own):
    monkeypatch.setattr(batches, "get_worker_info", lambda: "a reading process")
    for holder in torch.UntypedStorage.__mro__:
        if not own and "_new_shared" in vars(holder):
            monkeypatch.delattr(holder, "_new_shared")
    for shape, dtype in (((2, 3, 5), torch.float32), ((4,), torch.bool), ((2, 3), torch.int64)):
        values = batches._empty(shape, dtype)
        assert (values.shape, values.dtype) == (shape, dtype)
        assert values.is_shared()
        assert values.is_contiguous()


def test_a_single_sample_is_that_of_the_dataset(dataset):
    reader = BatchReader(dataset)
    assert len(reader) == len(dataset)
    for name, values in dataset[WINDOWS[1]].items():
        assert torch.equal(reader[WINDOWS[1]][name], values)


def test_a_window_outside_its_scene(dataset):
    with pytest.raises(IndexError, match="reaches outside the layers"):
        BatchReader(dataset).__getitems__([SceneWindow(0, Window(-1, 31, 0, 32))])
