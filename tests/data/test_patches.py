"""Patches lie wholly inside the polygons of their split, whatever these look like."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from small_polygons import polygons

from geocrodino.data.patches import (
    box_sums,
    covering_windows,
    largest_square_px,
    patch_advice,
    patch_corners,
    require_patches,
)
from geocrodino.errors import AOIError
from geocrodino.geo.areas.masks import inside_mask

LEFT, TOP, PIXEL = 400_000.0, 5_000_000.0, 0.3
GRID = GeoBox((60, 70), Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP), "EPSG:32631")


def to_map(geometry):
    return shapely.transform(geometry, lambda xy: np.array([LEFT, TOP]) + xy * [PIXEL, -PIXEL])


def pixels(rows, cols):
    return to_map(shapely.box(cols[0], rows[0], cols[1], rows[1]))


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
        require_patches([corners], "train", "aoi.gpkg", 10, GRID)
    assert str(caught.value) == (
        "aoi.gpkg: the polygons of the split 'train' hold no patch: expected room for one of 10 x 10 px (3 m) inside "
        "the rasters, found none.\nDraw larger polygons, or use smaller patches (`patch_px`)."
    )


@settings(max_examples=40, deadline=None)
@given(polygons())
def test_the_largest_square(shape):
    mask = inside_mask(to_map(shape), GRID)
    side = largest_square_px(mask)
    assert side == max((n for n in range(1, 61) if patch_corners(mask, n).any()), default=0)


def test_advice_where_no_pixel_lies_inside():
    assert patch_advice([np.zeros((9, 9), bool)], 64, 32, 1.0, 0.1) == (
        "No pixel lies wholly inside. Draw larger polygons."
    )
