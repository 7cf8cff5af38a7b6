"""Counting the values of a band."""

from __future__ import annotations

import numpy as np
import pytest

from geocrodino.geo.rasters import values as values_module
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.values import MOST_VALUES, ValueCounts, count_values, file_blocks


def test_counts_add_up():
    counts = ValueCounts()
    counts.add(np.array([0, 255, 7, 7, 2.5], np.float32))
    counts.add(np.array([[-3, 256], [2.5, 7]], np.float32))
    assert {v: int(counts.whole[v]) for v in np.flatnonzero(counts.whole)} == {0: 1, 7: 3, 255: 1}
    assert counts.others == {2.5: 2, -3: 1, 256: 1}
    assert not counts.more
    assert list(counts.shares().items()) == [
        (-3, 1 / 9),
        (0, 1 / 9),
        (2.5, 2 / 9),
        (7, 3 / 9),
        (255, 1 / 9),
        (256, 1 / 9),
    ]


def test_nothing_has_no_shares():
    counts = ValueCounts()
    counts.add(np.array([], np.float32))
    assert counts.shares() == {}


def test_only_so_many_other_values_are_kept():
    counts = ValueCounts()
    counts.add(np.arange(100_000, dtype=np.float32) + 1000)
    assert counts.more
    assert len(counts.others) == MOST_VALUES + 1


@pytest.mark.parametrize("tiled", [False, True])
def test_blocks_cover_each_pixel_once(write_raster, monkeypatch, tiled):
    monkeypatch.setattr(values_module, "_BLOCK_PX", 16)
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    source = RasterSource.open(write_raster("a.tif", np.zeros((50, 70), np.uint8), **layout))
    seen = np.zeros((50, 70), int)
    blocks = list(file_blocks(source))
    for r0, r1, c0, c1 in blocks:
        seen[r0:r1, c0:c1] += 1
    assert (seen == 1).all()
    assert {c1 - c0 for _, _, c0, c1 in blocks} == ({16, 6} if tiled else {70})


def test_values_of_a_band_without_nodata(write_raster):
    path = write_raster("a.tif", np.array([[1, 2], [9, 9]], np.uint16), nodata=9)
    assert count_values(RasterSource.open(path), 1).shares() == {1: 0.5, 2: 0.5}
    path = write_raster("b.tif", np.array([[[1, 2], [9, 9]], [[4, 5], [6, 7]]], np.uint16))
    assert count_values(RasterSource.open(path), 2).shares() == {4: 0.25, 5: 0.25, 6: 0.25, 7: 0.25}


def test_counting_ends_where_there_are_far_too_many_values(write_raster, monkeypatch):
    source = RasterSource.open(write_raster("a.tif", np.arange(64 * 64, dtype=np.float32).reshape(64, 64) + 0.5))
    monkeypatch.setattr(values_module, "_BLOCK_PX", 32)  # strips of 16 rows
    windows = []
    read = RasterSource.read_own
    monkeypatch.setattr(RasterSource, "read_own", lambda s, w, b: windows.append(w) or read(s, w, b))
    assert count_values(source, 1).more
    assert windows == [(0, 16, 0, 64)]


def test_the_space_between_the_files_of_a_mosaic_is_not_read(write_raster, monkeypatch):
    """Two files of 20 x 20 px in opposite corners of 1000 x 1000 px, in blocks of 16 px."""
    monkeypatch.setattr(values_module, "_BLOCK_PX", 16)
    first = write_raster("a.tif", np.full((20, 20), 3, np.uint8), origin=(400_000, 5_000_000))
    second = write_raster("b.tif", np.full((20, 20), 4, np.uint8), origin=(400_980, 4_999_020))
    mosaic = open_scene([first, second])
    assert [tuple(block) for block in file_blocks(mosaic)] == [
        (0, 16, 0, 16),
        (0, 16, 16, 32),
        (16, 32, 0, 16),
        (16, 32, 16, 32),
        (976, 992, 976, 992),
        (976, 992, 992, 1000),
        (992, 1000, 976, 992),
        (992, 1000, 992, 1000),
    ]
    assert count_values(mosaic, 1).shares() == {3: 0.5, 4: 0.5}
