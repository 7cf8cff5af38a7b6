"""Batches: shapes, nothing from outside the split, every validation pixel once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from geocrodino.data.datamodule import BatchPlan, CoregisteredDataModule
from geocrodino.data.scenes import AlignedScene
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
        whole = AlignedScene("", layers, layers.class_indices(), {"train": np.ones(layers.grid.shape, bool)})
        specs = {m: measure([whole], recipes[m]) for m in ("optical", "elevation")}
        scene = AlignedScene("", layers, layers.class_indices() if labels is None else labels, masks)
        return CoregisteredDataModule([scene], specs, plan, "aoi.gpkg"), masks

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


BESIDE = dataclasses.replace(PLAN, unlabelled=2)


VAL, BARE = ((20, 96), (8, 50)), ((0, 96), (60, 125))


@pytest.fixture
def blank(layers):
    """Labels west of column 60 alone."""
    labels = layers.class_indices().copy()
    labels[:, 60:] = 255
    return labels


def test_patches_without_labels_come_after_those_with(make, blank):
    module, _ = make(BESIDE, labels=blank, val=VAL, unlabelled=BARE)
    plain, _ = make(labels=blank, val=VAL)
    assert (module.unlabelled, plain.unlabelled) == (2, 0)
    assert len(module.train_dataloader()) == 4
    for found, expected in zip(module.train_dataloader(), plain.train_dataloader(), strict=True):
        assert {len(v) for v in found.values()} == {5}
        assert all(torch.equal(found[k][:3], expected[k]) for k in expected)
        assert (found["labels"][3:] == 255).all()
        assert (found["labels"][:3] != 255).flatten(1).any(dim=1).all()
        assert found["optical"][3:].any()


def places(module, labelled=3):
    """First and last row and column of what the patches without labels show: heights count rows, the image columns."""
    found = []
    for modality in ("elevation", "optical"):
        channel = module.dataset.specs[modality].channels[0]
        seen = torch.cat([b[modality][labelled:, 0] for b in module.train_dataloader()])
        values = (seen * channel.std + channel.mean).round()
        found += [int(values.min()), int(values.max())]
    return found[0] - 100, found[1] - 100, found[2], found[3]


def test_patches_without_labels_lie_wholly_in_their_area(make, blank):
    plan = dataclasses.replace(BESIDE, steps_per_epoch=60, batch_size=2, unlabelled=4)
    module, _ = make(plan, labels=blank, val=VAL, unlabelled=((20, 90), (70, 118)), train=((0, 40), (0, 60)))
    assert module.unlabelled == 4
    assert places(module, labelled=2) == (20, 89, 70, 117)


def test_patches_of_train_that_hold_no_label_are_learnt_from_too(make, blank):
    plan = dataclasses.replace(BESIDE, steps_per_epoch=60, batch_size=2, unlabelled=4)
    blank[:, 40:] = 255
    module, _ = make(plan, labels=blank, val=VAL, train=((12, 86), (8, 118)))
    assert module.unlabelled > 0
    assert places(module, labelled=2) == (12, 85, 40, 117)
    for batch in module.train_dataloader():
        assert (batch["labels"][2:] == 255).all()


def test_few_places_without_labels_are_not_drawn_over_and_over(make, blank):
    """A share of the batch for a share of the places."""
    plan = dataclasses.replace(PLAN, unlabelled=10)
    assert make(plan, labels=blank, val=VAL)[0].unlabelled == 0
    # An area that is given is read, however small it is.
    assert make(plan, labels=blank, val=VAL, unlabelled=((0, 32), (60, 92)))[0].unlabelled == 1
    corners = 65 * 29  # with labels
    for columns, places_there in (((60, 93), 65 * 2), ((60, 100), 65 * 9), ((60, 125), 65 * 34)):
        module, _ = make(plan, labels=blank, val=VAL, unlabelled=((0, 96), columns))
        assert module.unlabelled == round(10 * min(1, places_there / corners))


def test_an_area_without_labels_is_left_alone_unless_asked_for(make):
    module, _ = make(unlabelled=BARE)
    plain, _ = make()
    for found, expected in zip(module.train_dataloader(), plain.train_dataloader(), strict=True):
        assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_epochs_of_patches_without_labels_are_repeatable(make):
    def epoch(number):
        module, _ = make(BESIDE, unlabelled=BARE)
        loader = module.train_dataloader()
        loader.sampler.set_epoch(number)
        return torch.cat([b["optical"][3:] for b in loader])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))


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
    with pytest.raises(AOIError, match=r"^aoi\.gpkg: no patch of the split 'train' holds a labelled pixel"):
        make(labels=labels)
    with pytest.raises(
        AOIError, match=r"^aoi\.gpkg: the polygons of the split 'unlabelled' hold no patch: expected room for"
    ):
        make(BESIDE, unlabelled=((0, 31), (60, 125)))


# --- a large val ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of 16 px instead of 256, so that the small scene has many."""
    monkeypatch.setattr("geocrodino.data.datamodule._VALIDATION_PX", 16)
    return dataclasses.replace(PLAN, patch_px=16, batch_size=2, steps_per_epoch=10)


def test_a_large_val_is_validated_in_part_between_epochs_and_whole_at_the_end(make, layers, small_windows):
    module, masks = make(small_windows)
    # 20 patches x 3 x 1/5 = 12 windows. val has rows 20 to 95 and columns 70 to 124: 5 x 4 windows of 16 px.
    assert module.val_windows == (12, 20)
    expected = layers.class_indices()[masks["val"]]
    every, some = (
        torch.cat([b["labels"] for b in loader]) for loader in (module.whole_val_dataloader(), module.val_dataloader())
    )
    assert np.bincount(every[every != 255]).tolist() == np.bincount(expected[expected != 255]).tolist()
    assert len(some) == 12
    assert module.val_labelled_px == int((some != 255).sum())
    assert module.whole_val_labelled_px == int((expected != 255).sum())
    assert set(some[some != 255].tolist()) == set(expected[expected != 255].tolist())  # no class is missing


def test_the_part_is_the_same_every_time_and_depends_on_the_seed(make, small_windows):
    def labels(plan):
        module, _ = make(plan)
        return [torch.cat([b["labels"] for b in module.val_dataloader()]) for _ in range(2)]

    first, again = labels(small_windows)
    assert torch.equal(first, again)
    assert torch.equal(first, labels(small_windows)[0])
    assert not torch.equal(first, labels(dataclasses.replace(small_windows, seed=2))[0])


def test_windows_without_a_label_are_not_computed(make, layers, small_windows):
    labels = layers.class_indices().copy()
    labels[:, 80:] = 255
    module, _ = make(small_windows, labels=labels)
    assert module.val_windows == (5, 5)  # columns 70 to 79 lie in one column of windows


def test_a_modality_that_is_rarely_valid_is_scored_too(make, layers, small_windows, monkeypatch):
    """Elevation is valid in one window of val alone."""
    channels = type(layers).channels

    def sparse(self, modality):
        values = np.array(channels(self, modality))
        if modality == "elevation":
            values[:, :, 64:] = np.nan
            values[:, 48:64, 96:112] = 1
        return values

    for seed in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(type(layers), "channels", sparse)
            module, _ = make(dataclasses.replace(small_windows, seed=seed))
            assert any(b["elevation_valid"].any() for b in module.val_dataloader())
