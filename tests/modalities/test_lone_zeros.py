"""Zeros that stand for missing heights."""

from __future__ import annotations

import numpy as np
import pytest

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.lone_zeros import lone_zeros, lone_zeros_note

HIGH = np.full((10, 10), 180, np.float32)
HOLE = np.where(np.arange(100).reshape(10, 10) < 25, 0, HIGH).astype(np.float32)
SHORE = np.where(np.arange(100).reshape(10, 10) == 99, 3, HOLE).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "options", "unit_m", "share"),
    [
        (HOLE, {}, 1.0, 0.25),
        (-HOLE, {}, 1.0, 0.25),
        (HOLE, {}, 0.1, 0.0),
        (HOLE, {"nodata": -9999}, 1.0, 0.0),
        (HOLE, {"mask": np.full((10, 10), 255, np.uint8)}, 1.0, 0.0),
        (SHORE, {}, 1.0, 0.0),
        (HIGH, {}, 1.0, 0.0),
        (np.zeros((10, 10), np.float32), {}, 1.0, 0.0),
    ],
    ids=["hole", "below the sea", "18 m", "another tag", "mask", "shore", "no zeros", "zeros alone"],
)
def test_share_of_zeros(write_raster, values, options, unit_m, share):
    assert lone_zeros(RasterSource.open(write_raster("a.tif", values, **options)), unit_m) == share


def test_the_note_names_the_command(write_raster):
    source = RasterSource.open(write_raster("a b.tif", HOLE))
    assert lone_zeros_note(source, 0.25) == (
        f"{source.path}: 25 % of the sampled heights are exactly 0 and all others at least 20 m away, so 0 may stand "
        f"for missing data, but is read as a height. If it does, tag it: rio edit-info --nodata 0 '{source.path}'"
    )
