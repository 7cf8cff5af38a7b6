"""Drawn patches lie inside their split and follow seed, epoch and balance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_polygons import polygons

from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.sampling import BalancedPatchSampler, EvenDraw, MixedSampler
from geocrodino.data.scenes import AlignedScene
from geocrodino.data.statistics import measure
from geocrodino.geo.areas.masks import inside_mask


@pytest.fixture
def dataset(layers, recipes):
    whole = AlignedScene("", layers, layers.class_indices(), {"train": np.ones(layers.grid.shape, bool)})
    return CoregisteredDataset([whole], {m: measure([whole], recipes[m]) for m in ("optical", "elevation")})


def windows(sampler):
    drawn = list(sampler)
    assert {scene for scene, _ in drawn} == {0}
    return [window for _, window in drawn]


def sampler_on(dataset, inside, labels, **options):
    """A sampler of the same layers with another split and other labels."""
    scene = dataclasses.replace(dataset.scenes[0], held=labels, inside={"train": inside})
    return BalancedPatchSampler(CoregisteredDataset([scene], dataset.specs), "train", **options)


def test_sampled_patches_lie_inside_and_hold_a_label(dataset):
    @settings(max_examples=25, deadline=None)
    @given(polygons(), st.integers(2, 20), st.floats(0, 1), st.integers(0, 99))
    def check(shape, patch, balance, seed):
        grid = dataset.grid
        inside = inside_mask(
            shapely.transform(shape, lambda xy: [grid.affine.c, grid.affine.f] + xy * [1.5, -1.5]), grid
        )
        labels = np.full(grid.shape, 255, np.uint8)
        labels[20:40, 20:60] = 1
        labels[30, 30] = 0
        sampler = sampler_on(dataset, inside, labels, patch_px=patch, length=30, balance=balance, seed=seed)
        assume(not sampler.is_empty)
        drawn = windows(sampler)
        assert len(drawn) == len(sampler) == 30
        for r0, r1, c0, c1 in drawn:
            assert (r1 - r0, c1 - c0) == (patch, patch)
            assert inside[r0:r1, c0:c1].sum() == patch**2
            assert (labels[r0:r1, c0:c1] != 255).any()

    check()


def make(dataset, **options):
    labels = np.ones(dataset.grid.shape, np.uint8)
    labels[70:73, 100:103] = 0
    inside = np.ones(dataset.grid.shape, bool)
    return sampler_on(dataset, inside, labels, **{"patch_px": 16, "length": 400, **options})


def test_seeds_and_epochs(dataset):
    first, second = make(dataset, seed=3), make(dataset, seed=3)
    assert windows(first) == windows(second) == windows(first)
    second.set_epoch(5)
    fifth = windows(second)
    assert fifth != windows(first)
    again = make(dataset, seed=3)
    again.set_epoch(5)
    assert windows(again) == fifth
    assert windows(make(dataset, seed=4)) != windows(first)


@pytest.mark.parametrize(("balance", "low", "high"), [(0.0, 0.0, 0.06), (1.0, 0.42, 0.7), (0.5, 0.2, 0.4)])
def test_a_rare_class_is_drawn_as_often_as_the_balance_says(dataset, balance, low, high):
    # Without balance at most (16 + 2)^2 of 81 x 113 corners show the rare class: 3.5 %. With it, half of the patches.
    hits = [r0 < 73 and r1 > 70 and c0 < 103 and c1 > 100 for r0, r1, c0, c1 in windows(make(dataset, balance=balance))]
    assert low <= np.mean(hits) <= high


def test_anywhere_is_even(dataset):
    rows = np.array([w[0] for w in windows(make(dataset, balance=0.0, length=4000, patch_px=95))])
    assert set(rows) == {0, 1}
    assert rows.mean() == pytest.approx(0.5, abs=0.03)


def test_a_split_without_labels_is_empty(dataset):
    labels = np.full(dataset.grid.shape, 255, np.uint8)
    inside = np.ones(dataset.grid.shape, bool)
    assert sampler_on(dataset, inside, labels, patch_px=16, length=1).is_empty
    assert sampler_on(dataset, inside, labels * 0, patch_px=97, length=1).is_empty
    assert not sampler_on(dataset, inside, labels * 0, patch_px=96, length=1).is_empty


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.floats(0.05, 1))
@settings(max_examples=30, deadline=None)
def test_an_even_draw(seed, height, width, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    assume(mask.any())
    draw = EvenDraw([mask])
    count = np.zeros(mask.shape, int)
    for _ in range(100 * mask.sum()):
        count[draw.draw(rng)[1:]] += 1
    assert not count[~mask].any()
    # Each is drawn 100 times, give or take six standard deviations.
    assert (abs(count[mask] - 100) < 60).all()


def mixed(dataset, *, unlabelled=2, batch=4, **options):
    corners = np.zeros((dataset.grid.shape[0] - 15, dataset.grid.shape[1] - 15), bool)
    corners[:20, 30:50] = True
    return MixedSampler(make(dataset, **options), [corners], batch, unlabelled)


def test_patches_with_labels_are_those_of_a_training_without_others(dataset):
    for epoch in (0, 3):
        plain, sampler = make(dataset, seed=3), mixed(dataset, seed=3)
        plain.set_epoch(epoch)
        sampler.set_epoch(epoch)
        drawn = windows(sampler)
        assert len(drawn) == len(sampler) == 600
        batches = [drawn[i : i + 6] for i in range(0, 600, 6)]
        assert [w for b in batches for w in b[:4]] == windows(plain)
        others = [w for b in batches for w in b[4:]]
        assert all(0 <= r0 < 20 and 30 <= c0 < 50 and (r1 - r0, c1 - c0) == (16, 16) for r0, r1, c0, c1 in others)
        assert len(set(others)) > 100


def test_patches_without_labels_follow_seed_and_epoch(dataset):
    def others(seed=3, epoch=0):
        sampler = mixed(dataset, seed=seed)
        sampler.set_epoch(epoch)
        return [w for i, w in enumerate(windows(sampler)) if i % 6 >= 4]

    assert others() == others()
    assert others(epoch=1) != others()
    assert others(seed=4) != others()


def test_patches_without_labels_come_from_anywhere_in_their_area(dataset):
    sampler = mixed(dataset, length=4000, unlabelled=4)
    others = np.array([w for i, w in enumerate(windows(sampler)) if i % 8 >= 4])
    assert others[:, 0].mean() == pytest.approx(9.5, abs=0.4)
    assert others[:, 2].mean() == pytest.approx(39.5, abs=0.4)
    assert set(others[:, 0]) == set(range(20))
