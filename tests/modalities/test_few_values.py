"""Rasters of whole numbers, few of them."""

from __future__ import annotations

import numpy as np
import pytest

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.few_values import few_values, few_values_note


@pytest.mark.parametrize(
    ("values", "options", "count"),
    [
        (np.arange(5, dtype=np.uint8).repeat(5).reshape(5, 5), {}, 5),
        (np.arange(25, dtype=np.int16).reshape(5, 5), {"nodata": 3}, 24),
        (np.arange(36, dtype=np.uint8).reshape(6, 6), {}, 0),
        (np.arange(4, dtype=np.int16).reshape(2, 2), {"units": "metre"}, 0),
        (np.arange(4, dtype=np.float32).reshape(2, 2), {}, 0),
        (np.zeros((4, 4), np.uint8), {"nodata": 0}, 0),
    ],
)
def test_number_of_values(write_raster, values, options, count):
    assert few_values(RasterSource.open(write_raster("a.tif", values, **options))) == count


def test_the_corners_and_the_middle_of_a_large_raster_are_read(write_raster):
    values = np.zeros((2000, 1800), np.uint8)
    values[-1, -1], values[1000, 900], values[0, 0] = 1, 2, 3
    source = RasterSource.open(write_raster("a.tif", values))
    assert few_values(source) == 4
    assert few_values_note(source, 4) == (
        f"{source.path}: expected heights, found 4 different whole numbers, as class rasters hold them."
    )
