"""Impossible heights are counted once each, on whatever grid the work is done."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.geo.rasters.impossible_heights import Impossible, impossible_heights, total
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import with_height_limits
from geocrodino.geo.rasters.window import Window


@pytest.fixture
def dsm(write_raster):
    heights = np.full((60, 80), 50, np.float32)
    for i in range(5):
        heights[7 + 10 * i, 5 + 15 * i] = -9999 + i
    heights[30, 70] = 1e6
    source = RasterSource.open(write_raster("dsm.tif", heights, units="metre"))
    return with_height_limits(source, 1.0, None)


GRIDS = {
    "own": lambda own: own,
    "finer": lambda own: own.zoom_to((170, 233)),
    "coarser": lambda own: own.zoom_to((13, 17)),
    "turned": lambda own: GeoBox((90, 90), own.affine @ Affine.translation(-5, 0) @ Affine.rotation(10), own.crs),
    "another CRS": lambda own: own.to_crs("EPSG:4326"),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("side", [7, 32, 500])
def test_blocks_of_any_grid_count_each_pixel_once(dsm, name, side):
    grid = GRIDS[name](dsm.geobox)
    height, width = grid.shape
    found = [impossible_heights(dsm, grid, window) for window in Window(0, height, 0, width).blocks(side)]
    notes = [json.loads(json.dumps({"elevation": each.as_list()})) for each in found if each.pixels]
    assert total(notes) == {"elevation": Impossible(6, -9999, 1e6)}


def test_within_an_area(dsm):
    """In pixels of the grid: the first three pits, and the half of a pixel that holds the spike's centre."""
    area = shapely.union_all([shapely.box(0, 0, 40, 30), shapely.box(70.4, 30.4, 71, 31)])
    for side in (7, 500):
        found = [impossible_heights(dsm, dsm.geobox, window, area) for window in Window(0, 60, 0, 80).blocks(side)]
        notes = [{"elevation": each.as_list()} for each in found]
        assert total(notes) == {"elevation": Impossible(4, -9999, 1e6)}


def test_longitudes_are_counted_from_either_side(write_raster):
    heights = np.full((20, 20), 50, np.float32)
    heights[5, 6] = -9999
    source = RasterSource.open(write_raster("east.tif", heights, crs="EPSG:4326", pixel=0.01, origin=(190.0, 10.0)))
    west = GeoBox((20, 20), Affine(0.01, 0, -170, 0, -0.01, 10), "EPSG:4326")
    assert impossible_heights(with_height_limits(source, 1.0, None), west, Window(0, 20, 0, 20)).pixels == 1


def test_without_limits_nothing_is_counted(dsm):
    assert impossible_heights(dsm.with_limits(None), dsm.geobox, Window(0, 60, 0, 80)) == Impossible()


def test_what_a_user_reads(dsm):
    assert Impossible(6, -9999, 1e6).note(dsm) == (
        f"{dsm.path}: 6 impossible heights (-9999 to 1e+06 metre), read as missing: no ground lies so high or low, or "
        "a pixel jumps away from all its neighbours. If the value stands for missing data, tag it as nodata."
    )
    assert "dsm.tif: 1 impossible height (-9999 metre), read" in Impossible(1, -9999, -9999).note(dsm)
