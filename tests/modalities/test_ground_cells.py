"""The ground of small pixels, from cells that are kept: the same bytes as from all pixels around a window."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from geocrodino.geo.rasters.grid import window_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities import elevation, ground_cells
from geocrodino.modalities.ground_cells import GroundCells
from geocrodino.modalities.recipe import elevation_recipe
from geocrodino.settings.ground import GroundFilter

CHANNELS = ("height_above_ground", "slope", "topographic_position")
SMALL = GroundFilter(radii_m=(2.0, 5.0), fill_m=3.0)
"""Reaches 28 m: 2 (2 + 5) m of openings, 4 times 3 m of filling, and two cells."""


@pytest.fixture
def surface(write_raster):
    """A town of boxes on a slope, 300 x 260 px of 0.2 m, with a hole."""
    rng = np.random.default_rng(0)
    heights = np.add.outer(np.arange(300) * 0.01, np.arange(260) * 0.02) + rng.normal(0, 0.05, (300, 260))
    for row, column in rng.integers(0, 240, (12, 2)):
        heights[row : row + 40, column : column + 30] += 6
    heights[100:130, 50:90] = np.nan
    return RasterSource.open(write_raster("dsm.tif", heights.astype(np.float32), pixel=0.2))


@pytest.mark.parametrize("part", [Window(0, 300, 0, 260), Window(37, 281, 11, 203)])
def test_the_same_bytes_as_from_all_pixels(surface, monkeypatch, part):
    recipe, grid = elevation_recipe(CHANNELS, SMALL), window_grid(surface.geobox, part)
    fitted = recipe.fitted(surface)
    windows = [Window(0, 300, 0, 260), Window(13, 77, 101, 199), Window(-20, 40, 200, 290)]
    found = [recipe.read(fitted, grid, window) for window in windows]
    monkeypatch.setattr(elevation, "FEWEST_PX", 10**6)
    for window, (values, valid) in zip(windows, found, strict=True):
        expected, there = recipe.read(fitted, grid, window)
        assert values.tobytes() == expected.tobytes()
        np.testing.assert_array_equal(valid, there)
    assert np.nanmax(found[0][0][0]) > 5


def reader(asked):
    def read(window):
        asked.append(window)
        return np.add.outer(np.arange(*window[:2]), np.zeros(window.shape[1])).astype(np.float32)

    return read


def test_pixels_are_read_once(surface, monkeypatch):
    """Cells of 5 px in blocks of 10 px: rows 5 to 24 touch three blocks, columns 0 to 9 one."""
    monkeypatch.setattr(ground_cells, "_BLOCK_PX", 10)
    cells, asked = GroundCells(), []
    found = cells.read(surface, surface.geobox, 5, 1.0, Window(7, 24, 0, 9), reader(asked))
    np.testing.assert_array_equal(found, [[5, 5], [10, 10], [15, 15], [20, 20]])
    assert asked == [Window(0, 10, 0, 10), Window(10, 20, 0, 10), Window(20, 30, 0, 10)]
    cells.read(surface, surface.geobox, 5, 1.0, Window(12, 28, 3, 10), reader(asked))
    assert len(asked) == 3
    cells.read(surface, surface.geobox, 5, 0.3048, Window(12, 28, 3, 10), reader(asked))  # in another unit
    assert len(asked) == 5


def test_memory_is_bounded_and_freed(surface, monkeypatch):
    monkeypatch.setattr(ground_cells, "_BLOCK_PX", 10)
    monkeypatch.setattr(ground_cells, "_KEPT_BYTES", 3 * 4 * 4)  # three blocks of 2 x 2 cells
    cells, asked = GroundCells(), []
    other = RasterSource.open(surface.path)
    cells.read(other, other.geobox, 5, 1.0, Window(0, 50, 0, 10), reader(asked))
    assert (len(asked), len(cells._kept), cells._bytes) == (5, 3, 48)
    del other
    gc.collect()
    cells.read(surface, surface.geobox, 5, 1.0, Window(0, 10, 0, 10), reader(asked))
    assert (len(cells._kept), cells._bytes) == (1, 16)
