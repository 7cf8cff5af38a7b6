"""Batches: shapes, nothing from outside the split, every validation pixel once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geocrodino.data.datamodule import BatchPlan, CoregisteredDataModule
from geocrodino.data.statistics import measure
from geocrodino.errors import AOIError

PLAN = BatchPlan(patch_px=32, batch_size=3, steps_per_epoch=4, seed=1)


@pytest.fixture
def make(layers, recipes):
    def build(plan=PLAN, labels=None, **inside):
        masks = {}
        for split, (rows, cols) in {"train": ((0, 96), (0, 60)), "val": ((20, 96), (70, 125)), **inside}.items():
            masks[split] = np.zeros(layers.grid.shape, bool)
            masks[split][slice(*rows), slice(*cols)] = True
        specs = {m: measure(layers, recipes[m], np.ones(layers.grid.shape, bool)) for m in ("optical", "elevation")}
        labels = layers.class_indices() if labels is None else labels
        return CoregisteredDataModule(layers, specs, masks, labels, plan, "aoi.gpkg"), masks

    return build


def test_training_batches(make):
    module, _ = make()
    batches = list(module.train_dataloader())
    assert len(batches) == 4
    for batch in batches:
        shapes = {k: (tuple(v.shape), v.dtype) for k, v in batch.items()}
        assert shapes == {
            "optical": ((3, 3, 32, 32), torch.float32),
            "optical_valid": ((3, 32, 32), torch.bool),
            "elevation": ((3, 2, 32, 32), torch.float32),
            "elevation_valid": ((3, 32, 32), torch.bool),
            "labels": ((3, 32, 32), torch.int64),
        }
        assert set(batch["labels"].unique().tolist()) <= {0, 1, 2, 255}
        for modality in ("optical", "elevation"):
            blank = batch[modality].movedim(1, -1)[~batch[f"{modality}_valid"]]
            assert (blank == 0).all()


def test_epochs_are_repeatable(make):
    def epoch(number):
        module, _ = make()
        loader = module.train_dataloader()
        loader.sampler.set_epoch(number)
        return torch.cat([b["optical"] for b in loader])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))


def test_validation_holds_every_pixel_of_its_split_once_and_no_other(make, layers):
    module, masks = make()
    labels = torch.cat([b["labels"] for b in module.val_dataloader()])
    expected = layers.class_indices()[masks["val"]]
    assert labels.shape[1:] == (256, 256)
    assert np.bincount(labels[labels != 255]).tolist() == np.bincount(expected[expected != 255]).tolist()
    valid = torch.cat([b["optical_valid"] for b in module.val_dataloader()])
    assert valid.sum() == 76 * 55 - 6 * 5  # 30 pixels of nodata lie in the split
    optical = torch.cat([b["optical"] for b in module.val_dataloader()])
    assert (optical.movedim(1, -1)[~valid] == 0).all()


def test_refusals(make, layers):
    with pytest.raises(
        AOIError, match=r"^aoi\.gpkg: the polygons of the split 'train' hold no patch: expected room for"
    ):
        make(train=((0, 31), (0, 96)))
    with pytest.raises(AOIError, match=r"^aoi\.gpkg: the polygons of the split 'val' hold no labelled pixel\. "):
        make(val=((0, 96), (0, 8)))
    labels = layers.class_indices().copy()
    labels[:, :60] = 255
    with pytest.raises(AOIError, match=r"^aoi\.gpkg: no patch of the split 'train' holds a labelled pixel\."):
        make(labels=labels)
