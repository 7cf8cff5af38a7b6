from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geocrodino.geo.rasters.window import Window

SIDES = st.integers(-5, 12)
WINDOWS = st.builds(
    lambda row, col, rows, cols: Window.at(row, col, (rows, cols)), SIDES, SIDES, st.integers(1, 9), st.integers(1, 9)
)


def pixels(window):
    return {(r, c) for r in range(window.row_start, window.row_stop) for c in range(window.col_start, window.col_stop)}


def test_shape_corner_and_pixels():
    window = Window(2, 5, -1, 3)
    assert (window.shape, window.corner, window.pixels) == ((3, 4), (2, -1), 12)
    assert Window(5, 2, 0, 4).pixels == 0


def test_it_is_the_tuple_of_its_numbers():
    assert Window(1, 2, 3, 4) == (1, 2, 3, 4)
    assert pickle.loads(pickle.dumps(Window(1, 2, 3, 4))) == Window(1, 2, 3, 4)


def test_of_and_at():
    assert Window.of((3, 7)) == (0, 3, 0, 7)
    assert Window.at(2, 5, (3, 7)) == (2, 5, 5, 12)


def test_slices_cut_the_window_out_of_an_array():
    values = np.arange(30).reshape(5, 6)
    assert values[Window(1, 3, 2, 5).slices].tolist() == [[8, 9, 10], [14, 15, 16]]


def test_grow_shift_and_within():
    window = Window(2, 4, 6, 9)
    assert window.grow(2) == (0, 6, 4, 11)
    assert window.grow(2).grow(-2) == window
    assert window.shift(1, -2) == (3, 5, 4, 7)
    assert window.within(Window(1, 9, 5, 9)) == (1, 3, 1, 4)


@given(WINDOWS, WINDOWS)
def test_intersection_holds_the_pixels_of_both(first, second):
    shared = first.intersect(second)
    assert shared.pixels == len(pixels(first) & pixels(second))
    assert first.contains(second) == (pixels(second) <= pixels(first))
    assert pixels(shared) == pixels(first) & pixels(second)


def test_windows_that_do_not_meet_have_an_empty_intersection():
    assert Window(0, 4, 0, 4).intersect(Window(2, 6, 9, 12)).shape == (2, 0)
    assert Window(0, 4, 0, 4).intersect(Window(-5, -1, 7, 9)).shape == (0, 0)
    assert not Window(0, 4, 0, 4).contains(Window(7, 7, 7, 7))


@given(WINDOWS, st.integers(1, 5))
def test_blocks_hold_every_pixel_once_row_by_row(window, side):
    blocks = list(window.blocks(side))
    held = [pixel for block in blocks for pixel in pixels(block)]
    assert len(held) == len(set(held))
    assert set(held) == pixels(window)
    assert max(max(block.shape) for block in blocks) <= side
    assert blocks == sorted(blocks)


def test_hull_is_the_smallest_window_around_two():
    assert Window(2, 5, 0, 10).hull(Window(4, 9, -6, 3)) == (2, 9, -6, 10)


def test_strips_are_whole_rows_of_at_most_that_many_pixels():
    assert list(Window(2, 7, 0, 10).strips(25)) == [(2, 4, 0, 10), (4, 6, 0, 10), (6, 7, 0, 10)]
    assert list(Window(0, 2, 0, 10).strips(5)) == [(0, 1, 0, 10), (1, 2, 0, 10)]
