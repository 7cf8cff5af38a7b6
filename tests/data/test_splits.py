"""Spatial blocks: apart by a patch, inside the area, holding every class."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geocrodino.data.patches import patch_corners
from geocrodino.data.splits import block_splits
from geocrodino.errors import AOIError
from geocrodino.geo.areas.masks import inside_mask

PIXEL = 0.5
GRID = GeoBox((400, 500), Affine(PIXEL, 0, 400_000, 0, -PIXEL, 5_000_000), "EPSG:32631")
WHOLE = GRID.extent.geom
LABELS = np.random.default_rng(0).integers(0, 3, (400, 500)).astype(np.uint8)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([16, 32, 48]))
def test_splits_are_apart_inside_and_usable(seed, patch):
    area = WHOLE.intersection(shapely.Point(400_130, 4_999_900).buffer(115))
    aoi = block_splits(area, GRID, LABELS, 3, patch_px=patch, seed=seed)
    assert aoi.splits == ("train", "val", "test")
    shapes = {s: aoi.polygons(s) for s in aoi.splits}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert shapes[first].distance(shapes[second]) >= patch * PIXEL
    for shape in shapes.values():
        assert shape.difference(area.buffer(1e-6)).area == 0
        assert set(np.unique(LABELS[inside_mask(shape, GRID)])) == {0, 1, 2}
    assert patch_corners(inside_mask(shapes["train"], GRID), patch).any()


def test_shares_are_near_those_asked():
    aoi = block_splits(WHOLE, GRID, LABELS, 3, patch_px=4, seed=0)
    areas = {s: aoi.polygons(s).area / WHOLE.area for s in aoi.splits}
    assert areas["test"] == pytest.approx(0.2, abs=0.05)
    assert areas["val"] == pytest.approx(0.2, abs=0.07)
    assert areas["train"] == pytest.approx(0.55, abs=0.1)


def test_seeds():
    first = block_splits(WHOLE, GRID, LABELS, 3, patch_px=16, seed=1)
    again = block_splits(WHOLE, GRID, LABELS, 3, patch_px=16, seed=1)
    assert first.frame.geometry.equals(again.frame.geometry)
    other = block_splits(WHOLE, GRID, LABELS, 3, patch_px=16, seed=2)
    assert not first.frame.geometry.equals(other.frame.geometry)


def test_a_class_in_three_places_comes_into_each_split():
    labels = np.zeros(GRID.shape, np.uint8)
    for row, col in ((40, 40), (200, 250), (360, 460)):
        labels[row - 5 : row + 5, col - 5 : col + 5] = 1
    aoi = block_splits(WHOLE, GRID, labels, 2, patch_px=4, seed=0)
    for split in aoi.splits:
        assert (labels[inside_mask(aoi.polygons(split), GRID)] == 1).any()


@pytest.mark.parametrize("seed", range(4))
def test_labels_outside_the_area_do_not_count(seed):
    # Class 1 lies in three blocks of the area; outside it is everywhere, which must not count as a share.
    area = shapely.Polygon([(400_000, 5_000_000), (400_250, 5_000_000), (400_000, 4_999_800)])
    labels = np.where(inside_mask(area.buffer(2), GRID), 0, 1).astype(np.uint8)
    for row, col in ((20, 20), (30, 300), (250, 40)):
        labels[row : row + 8, col : col + 8] = 1
    aoi = block_splits(area, GRID, labels, 2, patch_px=4, seed=seed)
    for split in aoi.splits:
        assert (labels[inside_mask(aoi.polygons(split), GRID)] == 1).any()


def test_areas_without_labels_are_split_all_the_same():
    labels = np.full(GRID.shape, 255, np.uint8)
    assert block_splits(WHOLE, GRID, labels, 3, patch_px=16).splits == ("train", "val", "test")


def test_too_small_an_area():
    with pytest.raises(AOIError) as caught:
        block_splits(WHOLE, GRID, LABELS, 3, patch_px=128)
    assert str(caught.value) == (
        "The area of interest is too small to be cut into train, val and test: expected room for blocks of at least "
        "384 px with strips of 128 px between them, found 500 x 400 px, width x height (250 x 200 in units of the "
        "CRS).\n"
        "Draw polygons with a column `split`, or use smaller patches: `patch_px=64` leaves room."
    )
    assert block_splits(WHOLE, GRID, LABELS, 3, patch_px=64).splits == ("train", "val", "test")


def test_too_small_an_area_for_any_patch():
    with pytest.raises(AOIError) as caught:
        block_splits(shapely.box(*GRID.boundingbox).buffer(-90), GRID, LABELS, 3, patch_px=64)
    assert str(caught.value).endswith("\nDraw polygons with a column `split`.")
