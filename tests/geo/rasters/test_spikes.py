"""Heights that cannot be, wherever a window begins; slopes, towers and canyons stay."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.spikes import HeightLimits
from geocrodino.geo.rasters.units import with_height_limits

METRES = HeightLimits.of_unit(1.0, 1.0, on_earth=True, scaled=False)


def terrain(shape=(40, 50), seed=0):
    """Hills between 280 and 320 m."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return (300 + 15 * np.sin(rows / 7) + np.random.default_rng(seed).normal(0, 1, shape) + 0.1 * cols).astype(
        np.float32
    )


def found_in(heights, limits=METRES):
    reach = limits.reach_px
    padded = np.pad(heights, reach, constant_values=np.nan)
    inside = slice(reach, reach + heights.shape[0]), slice(reach, reach + heights.shape[1])
    return limits.impossible(padded)[inside]


def test_ordinary_heights_are_possible():
    assert not found_in(terrain()).any()


@pytest.mark.parametrize("value", [-9999, -99999, -32768, -32767, 1e38, -3.4e38, 1e6, 9501, -11501, 600, 0])
def test_a_pixel_that_no_ground_has_or_that_jumps_away(value):
    heights = terrain()
    heights[20, 30] = value
    found = found_in(heights)
    assert found.sum() == 1
    assert found[20, 30]


@pytest.mark.parametrize("value", [3000, -1200])
@pytest.mark.parametrize(("high", "wide"), [(1, 2), (3, 3), (4, 4), (2, 9)])
def test_a_small_group_of_pixels_that_jumps_far(value, high, wide):
    heights = terrain()
    heights[12 : 12 + high, 20 : 20 + wide] = value
    expected = np.zeros(heights.shape, bool)
    expected[12 : 12 + high, 20 : 20 + wide] = True
    np.testing.assert_array_equal(found_in(heights), expected)


def test_a_field_of_sentinels_is_missing_as_a_whole():
    heights = terrain()
    heights[5:25, 10:40] = -9999
    np.testing.assert_array_equal(found_in(heights), heights == -9999)


def test_what_occurs_on_the_ground_stays():
    rows, cols = np.mgrid[:60, :60].astype(np.float32)
    cliff = np.where(cols < 30, 1500, 300).astype(np.float32)
    steep = (2 * cols + rows).astype(np.float32)
    tower = np.full((60, 60), 30, np.float32)
    tower[20:26, 20:26] = 858  # 828 m high, 6 m wide
    mast = np.full((60, 60), 30, np.float32)
    mast[20, 20] = 170
    canyon = np.full((60, 60), 1500, np.float32)
    canyon[:, 30:32] = 1100
    for heights in (cliff, steep, tower, mast, canyon):
        assert not found_in(heights).any()


def test_a_pixel_without_neighbours_cannot_be_judged():
    heights = np.full((20, 20), np.nan, np.float32)
    heights[0, 0], heights[10, 10] = 10, 900
    assert not found_in(heights).any()


def test_in_feet_and_on_other_planets():
    heights = np.full((20, 20), 29_000, np.float32)  # feet: Everest
    assert not found_in(heights, HeightLimits.of_unit(0.3048, 1.0, on_earth=True, scaled=False)).any()
    assert found_in(heights).all()
    assert not found_in(
        np.full((9, 9), 21_229, np.float32), HeightLimits.of_unit(1, 100, on_earth=False, scaled=False)
    ).any()


def test_numbers_without_a_unit_can_have_any_value():
    heights = np.array([[0, 1e9, -5e7], [-9999, 0, 0]], np.float32)
    assert found_in(heights, HeightLimits()).tolist() == [[False] * 3, [True, False, False]]


@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_what_is_impossible_does_not_depend_on_the_window(row, col, height, width, seed):
    rng = np.random.default_rng(seed)
    heights = terrain(seed=seed)
    heights[rng.random(heights.shape) < 0.03] = 5000
    heights[rng.random(heights.shape) < 0.05] = np.nan
    whole, reach = found_in(heights), METRES.reach_px
    padded = np.pad(heights, reach, constant_values=np.nan)
    part = padded[row : row + height + 2 * reach, col : col + width + 2 * reach]
    inside = slice(reach, part.shape[0] - reach), slice(reach, part.shape[1] - reach)
    np.testing.assert_array_equal(METRES.impossible(part)[inside], whole[row : row + height, col : col + width])


# --- in rasters -----------------------------------------------------------------------------------------------------


def checked(source: RasterSource) -> RasterSource:
    return with_height_limits(source, 1.0, None)


def test_an_impossible_height_takes_part_in_no_interpolation(write_raster):
    heights = np.full((30, 30), 200, np.float32)
    heights[10, 12] = -9999
    source = checked(RasterSource.open(write_raster("dsm.tif", heights)))
    read, valid = source.read(source.geobox)
    assert np.argwhere(~valid).tolist() == [[10, 12]]
    finer = source.geobox.zoom_to((75, 75))
    read, valid = source.read(finer)
    assert valid.mean() > 0.99
    np.testing.assert_allclose(read[0, valid], 200)
    rows, cols, values = source.impossible_px((0, 30, 0, 30))
    assert (rows.tolist(), cols.tolist(), values.tolist()) == ([10], [12], [-9999])
    assert source.impossible_px((11, 30, 0, 30))[0].size == 0


def test_neighbours_lie_in_other_files_of_a_scene(write_raster, tmp_path):
    heights = terrain((20, 40))
    heights[7, 19] = 2000
    whole = checked(RasterSource.open(write_raster("whole.tif", heights)))
    (tmp_path / "tiles").mkdir()
    for col in (0, 20):
        write_raster(f"tiles/{col}.tif", heights[:, col : col + 20], origin=(400_000.0 + col, 5_000_000.0))
    tiles = checked(open_scene(tmp_path / "tiles"))
    for raster in (whole, tiles):
        valid = raster.read_own((0, 20, 0, 40), (1,))[1]
        assert np.argwhere(~valid).tolist() == [[7, 19]]


def test_stored_numbers_with_a_scale_are_no_sentinels(write_raster):
    path = write_raster("dsm.tif", np.full((9, 9), -9999, np.int16))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.01,), (200.0,)
    source = checked(RasterSource.open(path))
    read, valid = source.read(source.geobox)
    assert valid.all()
    np.testing.assert_allclose(read, 100.01, rtol=1e-6)


@pytest.mark.parametrize("order", [("scaled", "plain"), ("plain", "scaled")])
def test_sentinels_of_plain_tiles_beside_scaled_ones(write_raster, tmp_path, order):
    (tmp_path / "tiles").mkdir()
    for col, name in enumerate(order):
        values = np.full((8, 8), 2000, np.int16) if name == "scaled" else np.full((8, 8), 200, np.float32)
        values[3, 3] = values[3, 3] if name == "scaled" else -9999
        path = write_raster(f"tiles/{col}.tif", values, origin=(400_000.0 + 8 * col, 5_000_000.0))
        if name == "scaled":
            with rasterio.open(path, "r+") as dataset:
                dataset.scales = (0.1,)
    tiles = checked(open_scene(tmp_path / "tiles"))
    valid = tiles.read_own((0, 8, 0, 16), (1,))[1]
    assert np.argwhere(~valid).tolist() == [[3, 3 + 8 * order.index("plain")]]
