"""Numbers that are no heights in metres: what they may be."""

from __future__ import annotations

import numpy as np
import pytest

from geocrodino.data.alignment import nothing_valid
from geocrodino.data.inspection import inspect_files
from geocrodino.geo.rasters.height_numbers import as_half_precision, decimal_codings, diagonal_m
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import with_height_limits

SIDE = 20


@pytest.fixture
def opened(write_raster):
    def make(values, **options):
        source = RasterSource.open(write_raster("dsm.tif", values, **options))
        return with_height_limits(source, 1.0, None)

    return make


def _message(source):
    return str(nothing_valid(source, source.geobox)).removeprefix(f"{source.name}: ")


def test_centimetres(opened):
    """Bits of 17,060 and 18,680 as half-precision numbers: 2 x (1 + 676/1024) and 8 x (1 + 248/1024)."""
    values = np.full((SIDE, SIDE), 17_060, np.uint16)
    values[0] = 18_680
    expected = (
        "heights of 17060 to 18680 m are impossible.\nState what the numbers are: height.scale: 0.01 for centimetres "
        "(170.6 to 186.8 m), or height.scale: 0.001 for millimetres (17.06 to 18.68 m), or height.scale: 0.1 for "
        "decimetres (1706 to 1868 m), or height.encoding: float16 for bits of half-precision numbers (3.32 to 9.938 m)."
    )
    assert _message(opened(values)) == f"no valid pixel within the area of interest (20 x 20 px): {expected}"
    assert inspect_files({"elevation": opened(values)}).problems == (
        f"{opened(values).name}: no valid pixel among those read: {expected}",
    )


def test_millimetres_in_32_bits(opened):
    """2,000 m are no centimetres of a place on Earth: 20 km."""
    assert _message(opened(np.full((SIDE, SIDE), 2_000_000, np.int32))).endswith(
        "heights of 2e+06 to 2e+06 m are impossible.\n"
        "State what the numbers are: height.scale: 0.001 for millimetres (2000 to 2000 m)."
    )


def test_the_coding_that_makes_the_place_too_steep_comes_last(opened):
    """A place of 20 x 20 m: 29 m from corner to corner, within which 5 m may rise and 50 m do not."""
    values = np.full((SIDE, SIDE), 100_000, np.int32)
    values[0] = 105_000
    source = opened(values)
    assert decimal_codings(source, 100_000, 105_000) == [
        (0.001, "millimetres", 100, 105, False),
        (0.01, "centimetres", 1_000, 1_050, True),
    ]
    assert diagonal_m(source) == pytest.approx(20 * 2**0.5, rel=1e-3)
    assert _message(source).endswith(
        "height.scale: 0.001 for millimetres (100 to 105 m), or height.scale: 0.01 for centimetres (1000 to 1050 m)."
    )


def test_possible_heights_are_metres_in_a_place_in_feet_too(write_raster):
    """9,500 m are 31,168 ft: numbers of 125,000 are 12,500 m as decimetres, which no place has."""
    source = RasterSource.open(write_raster("dsm.tif", np.full((SIDE, SIDE), 125_000, np.int32), crs="EPSG:2994"))
    source = with_height_limits(source, 0.3048, None)
    assert _message(source).endswith(
        "height.scale: 0.01 for centimetres (1250 to 1250 m), or height.scale: 0.001 for millimetres (125 to 125 m)."
    )


def test_no_number_that_could_be_a_height(opened):
    assert _message(opened(np.full((SIDE, SIDE), 3e30, np.float32))).endswith(
        "(20 x 20 px): heights of 3e+30 to 3e+30 m are impossible."
    )


def test_nothing_but_nodata(opened):
    assert _message(opened(np.zeros((SIDE, SIDE), np.uint16), nodata=0)) == (
        "no valid pixel within the area of interest (20 x 20 px): all of it is nodata.\n"
        "Check the nodata tag and the area."
    )


def test_bits_of_half_precision_numbers(write_raster):
    heights = np.full((SIDE, SIDE), 170.5, np.float16)
    heights[0], heights[1] = np.nan, 187.0
    source = RasterSource.open(write_raster("f16.tif", heights.view(np.uint16)))
    values, _ = source.read_own((0, SIDE, 0, SIDE), (1,))
    assert as_half_precision(source, values) == (170.5, 187.0, True)
    assert as_half_precision(source, values[:, 1:]) == (170.5, 187.0, False)
    assert as_half_precision(source, values[:, :1]) is None  # no number at all
    assert as_half_precision(source, np.full((9, 9), 9_000, np.float32)) is None  # 0.0023
    assert as_half_precision(source, np.full((9, 9), 60_000, np.float32)) is None  # -3264: nothing above 0
