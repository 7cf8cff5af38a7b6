"""Patches lie wholly inside the polygons of their split, whatever these look like."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geocrodino.data.datasets import CoregisteredDataset, window_of
from geocrodino.data.sampling import (
    BalancedPatchSampler,
    EvenDraw,
    MixedSampler,
    box_sums,
    covering_windows,
    inside_mask,
    patch_corners,
    require_patches,
)
from geocrodino.data.statistics import measure
from geocrodino.errors import AOIError

LEFT, TOP, PIXEL = 400_000.0, 5_000_000.0, 0.3
GRID = GeoBox((60, 70), Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP), "EPSG:32631")


def to_map(geometry):
    return shapely.transform(geometry, lambda xy: np.array([LEFT, TOP]) + xy * [PIXEL, -PIXEL])


def pixels(rows, cols):
    return to_map(shapely.box(cols[0], rows[0], cols[1], rows[1]))


@st.composite
def polygons(draw):
    """Stars of any shape, in pixels, some reaching over the grid's edge; now and then with a hole."""
    n = draw(st.integers(3, 9))
    radii = [draw(st.floats(4, 45)) for _ in range(n)]
    turn = draw(st.floats(0, 6.28))
    centre = draw(st.tuples(st.floats(5, 65), st.floats(5, 55)))
    ring = [
        (centre[0] + r * math.cos(turn + 6.283 * i / n), centre[1] + r * math.sin(turn + 6.283 * i / n))
        for i, r in enumerate(radii)
    ]
    shape = shapely.make_valid(shapely.Polygon(ring))
    if draw(st.booleans()):
        shape = shape.difference(shapely.Point(centre).buffer(draw(st.floats(0.5, 3))))
    return shape


@settings(max_examples=80, deadline=None)
@given(polygons(), st.integers(1, 12))
def test_every_patch_lies_wholly_inside(shape, patch):
    mask = inside_mask(to_map(shape), GRID)
    # GDAL leaves out lines within a hundredth of a pixel of a pixel's edge.
    grown = shape.buffer(0.02, join_style="mitre")
    rows, cols = np.nonzero(mask)
    assert shapely.contains(grown, shapely.box(cols, rows, cols + 1, rows + 1)).all()
    rows, cols = np.nonzero(patch_corners(mask, patch))
    assert shapely.contains(grown, shapely.box(cols, rows, cols + patch, rows + patch)).all()


@settings(max_examples=40, deadline=None)
@given(polygons())
def test_no_pixel_that_lies_well_inside_is_lost(shape):
    mask = inside_mask(to_map(shape), GRID)
    rows, cols = np.mgrid[:60, :70]
    well = shapely.contains(shape.buffer(-0.02), shapely.box(cols, rows, cols + 1, rows + 1))
    assert mask[well].all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(0, 60), st.integers(1, 30), st.integers(1, 30))
def test_a_polygon_along_pixel_edges_keeps_its_rows_and_columns(row, col, height, width):
    mask = inside_mask(pixels((row, row + height), (col, col + width)), GRID)
    expected = np.zeros((60, 70), bool)
    expected[row : row + height, col : col + width] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_cell_of_128_px_holds_one_patch_of_128_px():
    grid = GeoBox((300, 300), Affine(0.9144, 0, 636_000.2, 0, -0.9144, 853_000.4), "EPSG:2994")
    (left, top), (right, bottom) = grid.affine @ (64, 100), grid.affine @ (192, 228)
    corners = patch_corners(inside_mask(shapely.box(left, bottom, right, top), grid), 128)
    assert np.argwhere(corners).tolist() == [[100, 64]]


def test_neighbouring_cells_do_not_run_into_each_other():
    apart = shapely.MultiPolygon([pixels((0, 10), (0, 10)), pixels((10, 20), (10, 20))])
    corners = patch_corners(inside_mask(apart, GRID), 10)
    assert np.argwhere(corners).tolist() == [[0, 0], [10, 10]]
    joined = shapely.union_all([pixels((0, 10), (0, 10)), pixels((0, 10), (10, 20))])
    assert patch_corners(inside_mask(joined, GRID), 10).sum() == 11


def test_the_whole_grid():
    assert inside_mask(to_map(shapely.box(-50, -50, 200, 200)), GRID).all()
    assert not inside_mask(to_map(shapely.box(200, 200, 300, 300)), GRID).any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_box_sums(seed, height, width, size):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    sums = box_sums(mask, size)
    if size > height or size > width:
        assert sums.size == 0
        return
    assert sums.shape == (height - size + 1, width - size + 1)
    for r in range(sums.shape[0]):
        for c in range(sums.shape[1]):
            assert sums[r, c] == mask[r : r + size, c : c + size].sum()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 17), st.floats(0, 0.2))
def test_covering_windows_hold_every_chosen_pixel_once(seed, height, width, size, share):
    chosen = np.random.default_rng(seed).random((height, width)) < share
    count = np.zeros((height + size, width + size), int)
    for r0, r1, c0, c1 in covering_windows(chosen, size):
        assert (r1 - r0, c1 - c0) == (size, size)
        assert chosen[r0:r1, c0:c1].any()
        count[r0:r1, c0:c1] += 1
    assert (count[:height, :width][chosen] == 1).all()
    assert count.max() <= 1


def test_a_split_without_room():
    corners = patch_corners(inside_mask(pixels((0, 9), (0, 30)), GRID), 10)
    with pytest.raises(AOIError) as caught:
        require_patches(corners, "train", "aoi.gpkg", 10, GRID)
    assert str(caught.value) == (
        "aoi.gpkg: the polygons of the split 'train' hold no patch: expected room for one of 10 x 10 px (3 m) inside "
        "the rasters, found none.\nDraw larger polygons, or take smaller patches (--patch-px)."
    )


# --- sampler --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(layers, recipes):
    inside = np.ones(layers.grid.shape, bool)
    return CoregisteredDataset(layers, {m: measure(layers, recipes[m], inside) for m in ("optical", "elevation")})


def windows(sampler):
    dataset = getattr(sampler, "labelled", sampler).dataset
    return [window_of(dataset.grid, q) for q in sampler]


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
        sampler = BalancedPatchSampler(dataset, inside, labels, patch_px=patch, length=30, balance=balance, seed=seed)
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
    return BalancedPatchSampler(dataset, inside, labels, **{"patch_px": 16, "length": 400, **options})


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
    assert BalancedPatchSampler(dataset, inside, labels, patch_px=16, length=1).is_empty
    assert BalancedPatchSampler(dataset, inside, labels * 0, patch_px=97, length=1).is_empty
    assert not BalancedPatchSampler(dataset, inside, labels * 0, patch_px=96, length=1).is_empty


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.floats(0.05, 1))
@settings(max_examples=30, deadline=None)
def test_an_even_draw(seed, height, width, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    assume(mask.any())
    draw = EvenDraw(mask)
    count = np.zeros(mask.shape, int)
    for _ in range(100 * mask.sum()):
        count[draw.draw(rng)] += 1
    assert not count[~mask].any()
    # Each is drawn 100 times, give or take six standard deviations.
    assert (abs(count[mask] - 100) < 60).all()


def mixed(dataset, *, unlabelled=2, batch=4, **options):
    corners = np.zeros((dataset.grid.shape[0] - 15, dataset.grid.shape[1] - 15), bool)
    corners[:20, 30:50] = True
    return MixedSampler(make(dataset, **options), corners, batch, unlabelled)


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
