"""What a branch reads, and that training and prediction scale it by the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp

from geocrodino.errors import BundleError, HeightError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.recipe import Channel, ModalitySpec, elevation_recipe, optical_recipe
from geocrodino.settings.ground import GroundFilter

LEFT, TOP = 400_000.0, 5_000_000.0


def scaled(channel: Channel, values) -> np.ndarray:
    values = np.asarray(values, np.float32)
    out = np.empty_like(values)
    channel.apply(values, out)
    return out


# --- channels -------------------------------------------------------------------------------------------------------


def test_measure_by_hand():
    values = np.arange(1001, dtype=np.float32)
    channel = Channel.measure("red", values)
    assert (channel.low, channel.high) == (1.0, 999.0)
    assert channel.mean == pytest.approx(500)
    clipped = np.clip(np.arange(1001.0), 1, 999)
    assert channel.std == pytest.approx(math.sqrt(((clipped - 500) ** 2).mean()))
    assert (channel.unit, channel.compress) == ("digital number", False)


@pytest.mark.parametrize(
    ("name", "unit", "compress"),
    [("height", "m", False), ("height_above_ground", "m", True), ("topographic_position", "m", True),
     ("slope", "deg", False)],
)  # fmt: skip
def test_units_and_compression(name, unit, compress):
    channel = Channel.measure(name, np.linspace(-1, 5, 50, dtype=np.float32))
    assert (channel.unit, channel.compress) == (unit, compress)


def test_compression_is_odd_and_logarithmic():
    channel = Channel(name="h", unit="m", low=-100, high=100, mean=0, std=1, compress=True)
    np.testing.assert_allclose(scaled(channel, [0, math.e - 1, 1 - math.e, 1000]), [0, 1, -1, math.log(101)], atol=1e-6)


def test_a_constant_channel_is_scaled_by_one():
    for value in (0.0, 0.1, 1e6, -3e-8):
        channel = Channel.measure("red", np.full(1000, value, np.float32))
        assert channel.std == 1.0
        np.testing.assert_allclose(scaled(channel, [value]), 0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 1e4), st.floats(-1e4, 1e4), st.booleans())
def test_training_values_come_out_standardised(seed, spread, centre, compress):
    # Heights above the ground are near zero: the logarithm of single precision has the digits for them.
    centre = centre / 100 if compress else centre
    values = np.random.default_rng(seed).normal(centre, spread, 4000).astype(np.float32)
    channel = Channel.measure("height_above_ground" if compress else "height", values)
    out = scaled(channel, values)
    assert out.mean() == pytest.approx(0, abs=0.02)
    assert out.std() == pytest.approx(1, abs=0.02)
    assert math.isnan(scaled(channel, [np.nan])[0])


def test_values_outside_the_range_are_clipped():
    recipe = elevation_recipe(("height",))
    spec = ModalitySpec(recipe=recipe, channels=(Channel(name="height", unit="m", low=0, high=10, mean=5, std=5),))
    values = np.array([[[-5, 0, 10, 30, np.nan]]], np.float32)
    np.testing.assert_array_equal(spec.normalise(values), [[[-1, -1, 1, 1, 0]]])


def test_normalise_leaves_its_input_alone_and_blanks_what_is_invalid_in_any_channel():
    channels = tuple(Channel(name=n, unit="m", low=0, high=10, mean=0, std=1) for n in ("height", "slope"))
    spec = ModalitySpec(recipe=elevation_recipe(("height", "slope")), channels=channels)
    values = np.array([[[1, np.nan, 2]], [[3, 4, np.nan]]], np.float32)
    before = values.copy()
    np.testing.assert_array_equal(spec.normalise(values), [[[1, 0, 0]], [[3, 0, 0]]])
    np.testing.assert_array_equal(values, before)


def test_a_spec_travels_as_json(write_raster):
    source = RasterSource.open(write_raster("a.tif", np.ones((2, 4, 4), np.uint8)))
    spec = ModalitySpec(
        recipe=optical_recipe(source),
        channels=tuple(Channel.measure(n, np.random.default_rng(0).random(99, np.float32)) for n in ("a", "b")),
    )
    assert ModalitySpec.model_validate_json(spec.model_dump_json()) == spec


# --- recipes --------------------------------------------------------------------------------------------------------


def test_optical_recipe_takes_the_data_bands(write_raster):
    source = RasterSource.open(write_raster("a.tif", np.ones((3, 4, 4), np.uint8)))
    recipe = optical_recipe(source)
    assert (recipe.bands, recipe.band_names) == ((1, 2, 3), ("red", "green", "blue"))
    assert optical_recipe(source, (3, 1)).channel_names == ("blue", "red")
    for bands in ((1, 4), (0,)):
        with pytest.raises(BundleError, match=rf"a\.tif: data\.bands: .* among {', '.join(map(str, bands))}\."):
            optical_recipe(source, bands)


def test_a_raster_with_fewer_bands(write_raster):
    recipe = optical_recipe(RasterSource.open(write_raster("a.tif", np.ones((3, 4, 4), np.uint8))))
    path = write_raster("b.tif", np.ones((1, 4, 4), np.uint8))
    with pytest.raises(BundleError) as caught:
        recipe.check(RasterSource.open(path))
    assert str(caught.value) == (
        f"{path}: expected 3 optical bands (red, green, blue; numbers 1, 2, 3), found 1 (band 1).\n"
        "Predict with a raster that has these bands, or train a bundle on the bands that there are."
    )


def test_transparency_is_no_band_of_data(write_raster):
    four = RasterSource.open(write_raster("a.tif", np.ones((4, 4, 4), np.uint8), colours=[ColorInterp.gray] * 4))
    rgba = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    other = RasterSource.open(write_raster("b.tif", np.ones((4, 4, 4), np.uint8), colours=rgba))
    recipe = optical_recipe(four, (1, 2, 4))
    with pytest.raises(BundleError, match=r"expected 3 optical bands .*; numbers 1, 2, 4.*, found 3"):
        recipe.check(other)


def test_an_image_is_no_elevation(write_raster):
    path = write_raster("a.tif", np.ones((3, 4, 4), np.uint8))
    with pytest.raises(BundleError) as caught:
        elevation_recipe(("height",)).check(RasterSource.open(path))
    assert str(caught.value) == (
        f"{path}: expected one band of heights, found 3 (red, green, blue).\n"
        "If it is an image, give it as the optical raster, not as heights."
    )


def test_no_channel():
    with pytest.raises(
        HeightError, match=r"^elevation\.channels is empty\. Expected at least one of height_above_grou"
    ):
        elevation_recipe(())


def test_halo_is_that_of_the_widest_channel():
    grid = GeoBox((9, 9), Affine(1, 0, LEFT, 0, -1, TOP), "EPSG:32631")
    ground = GroundFilter(radii_m=(1.0, 3.0), fill_m=2.0)
    assert elevation_recipe(("height",)).halo_px(grid) == 0
    assert elevation_recipe(("height", "slope")).halo_px(grid) == 1
    assert elevation_recipe(("height_above_ground",), ground).halo_px(grid) == ground.halo_px(1.0)
    assert elevation_recipe(("height_above_ground",), ground).halo_px(grid, ground_given=True) == 0
    coarse = GeoBox((9, 9), Affine(30, 0, LEFT, 0, -30, TOP), "EPSG:32631")
    with pytest.raises(HeightError, match="at most 5 m, found 30 m"):
        elevation_recipe(("height_above_ground",)).halo_px(coarse)
    assert elevation_recipe(("height_above_ground",)).halo_px(coarse, ground_given=True) == 0


def test_the_unit_of_the_training_is_that_of_files_that_name_none(write_raster):
    rows = np.full((8, 8), 100, np.float32)
    silent, feet = (RasterSource.open(write_raster(f"{u}.tif", rows, units=u)) for u in (None, "ft"))
    recipe = elevation_recipe(("height",), height_unit="km")
    window = (0, 8, 0, 8)

    def read(raster, unit=None):
        return recipe.read(raster, raster.geobox, window, unit=unit)[0][0, 0, 0]

    assert read(silent) == 100_000
    assert read(silent, "m") == 100
    assert read(feet) == pytest.approx(30.48)
    # Oregon's grid counts in feet: heights over it do so too, whatever other scenes were like.
    across = write_raster("or.tif", rows, crs="EPSG:2994", origin=(636_000.0, 853_000.0))
    assert read(RasterSource.open(across)) == pytest.approx(30.48)


def test_the_grounds_own_unit_is_believed(write_raster):
    """A surface in feet that does not say so, over a ground in metres that does: 100 ft are 30.48 m."""
    surface = RasterSource.open(write_raster("dsm.tif", np.full((8, 8), 100, np.float32)))
    recipe, window = elevation_recipe(("height_above_ground",)), (0, 8, 0, 8)
    for unit, ground_m in (("m", 10.0), (None, 3.048)):
        ground = RasterSource.open(write_raster(f"{unit}.tif", np.full((8, 8), 10, np.float32), units=unit))
        found, _ = recipe.read(surface, surface.geobox, window, ground=ground, unit="ft")
        assert found[0, 0, 0] == pytest.approx(30.48 - ground_m, abs=1e-4)


@pytest.mark.parametrize("pixel", [1.0, 0.6, 0.25])
def test_channels_do_not_depend_on_the_window(write_raster, pixel):
    rng = np.random.default_rng(0)
    surface = rng.normal(100, 2, (60, 60)).cumsum(axis=0).astype(np.float32) / 20
    surface[rng.random(surface.shape) < 0.03] = -9999
    source = RasterSource.open(write_raster("dsm.tif", surface, nodata=-9999))
    recipe = elevation_recipe(
        ("height_above_ground", "topographic_position", "height", "slope"),
        GroundFilter(radii_m=(1.0, 2.0), fill_m=1.0),
    ).model_copy(update={"position_m": 3.0})
    shape = (int(60 / pixel), int(60 / pixel))
    grid = GeoBox(shape, Affine(pixel, 0, LEFT, 0, -pixel, TOP), "EPSG:32631")
    whole, valid = recipe.read(source, grid, (0, shape[0], 0, shape[1]))
    assert valid.any()
    assert not valid.all()
    assert np.isnan(whole[:, ~valid]).all()

    @settings(max_examples=8, deadline=None)
    @given(st.integers(-5, 40), st.integers(-5, 40), st.integers(1, 25), st.integers(1, 25))
    def check(r, c, height, width):
        part, ok = recipe.read(source, grid, (r, r + height, c, c + width))
        top, left = max(0, r), max(0, c)
        bottom, right = min(shape[0], r + height), min(shape[1], c + width)
        if top >= bottom or left >= right:
            return
        mine = part[:, top - r : bottom - r, left - c : right - c]
        np.testing.assert_array_equal(ok[top - r : bottom - r, left - c : right - c], valid[top:bottom, left:right])
        np.testing.assert_array_equal(mine, whole[:, top:bottom, left:right])

    check()


def test_a_coarse_surface_model_is_refused_on_any_grid(write_raster):
    coarse = RasterSource.open(write_raster("srtm.tif", np.ones((8, 8), np.float32), pixel=30.0))
    with pytest.raises(HeightError, match=r"srtm\.tif: Height above ground needs .* at most 5 m, found 30 m"):
        elevation_recipe(("height_above_ground",)).check(coarse)
    elevation_recipe(("height_above_ground",)).check(coarse, ground_given=True)
    elevation_recipe(("height", "slope")).check(coarse)
