"""Heights as they come: every coding against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from odc.geo.geobox import GeoBox

from geocrodino.errors import HeightError
from geocrodino.geo.rasters.heights import ground_like, set_heights, trained_heights
from geocrodino.geo.rasters.identity import fingerprint
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import height_unit, with_height_limits
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.options import RecipeOptions
from geocrodino.modalities.recipe import elevation_recipe
from geocrodino.modalities.registry import definition_of
from geocrodino.settings.heights import HeightSettings

ALL = Window(0, 4, 0, 5)


def opened(write_raster, values, name="h.tif", **options):
    return RasterSource.open(write_raster(name, np.asarray(values), **options))


def metres(raster):
    """Heights in metres, shape (4, 5)."""
    values, _ = raster.read_own(ALL, raster.data_bands)
    return values[0] * np.float32(height_unit(raster)[0])


def same(number, dtype):
    return np.full((4, 5), number, dtype)


# --- stored numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "dtype", "settings", "expected"),
    [
        (62, np.uint8, {"scale": 0.1}, 6.2),  # decimetres of 8 bits
        (255, np.uint8, {"scale": 0.1}, 25.5),
        (1250, np.int16, {"scale": 0.01}, 12.5),  # centimetres
        (40, np.uint8, {"scale": 0.5, "offset": -10}, 10.0),
        (7, np.float32, {"offset": 100}, 107.0),
        (0x4900, np.uint16, {"encoding": "float16"}, 10.0),  # sign 0, exponent 18 - 15 = 3, mantissa 1.25
        (0x3555, np.uint16, {"encoding": "float16"}, 0.333251953125),
        (0x4900, np.uint16, {"encoding": "float16", "scale": 0.01}, 0.1),
    ],
)
def test_values_in_metres(write_raster, stored, dtype, settings, expected):
    read = set_heights(opened(write_raster, same(stored, dtype)), HeightSettings(**settings))
    assert read.ground is None
    np.testing.assert_array_equal(metres(read.surface), np.float32(expected))


def test_bits_of_half_precision_that_are_no_number_are_missing(write_raster):
    values = same(0x3C00, np.uint16)  # 1.0
    values[0, :3] = 0x7C00, 0x7E00, 0xFC00  # infinity, not a number, minus infinity
    read = set_heights(opened(write_raster, values), HeightSettings(encoding="float16")).surface
    found, valid = read.read_own(ALL, (1,))
    assert valid.sum() == 20 - 3
    assert not valid[0, :3].any()
    assert np.unique(found[0][valid]).tolist() == [1.0]


def test_the_nodata_value_is_a_stored_number(write_raster):
    values = same(30, np.uint8)
    values[1, 1] = 255
    read = set_heights(opened(write_raster, values, nodata=255), HeightSettings(scale=0.1)).surface
    _, valid = read.read_own(ALL, (1,))
    assert (valid.sum(), valid[1, 1]) == (19, False)


def test_an_offset_in_metres_to_heights_in_feet(write_raster):
    raster = opened(write_raster, same(100, np.float32))
    read = set_heights(raster, HeightSettings(offset=3.048), "ft").surface
    found, _ = read.read_own(ALL, (1,))
    np.testing.assert_allclose(found, 110)  # 3.048 m are 10 ft
    assert height_unit(read, "ft") == (0.3048, "heights in ft, as asked")


def test_without_a_coding_a_raster_stays_as_it_is(write_raster):
    raster = opened(write_raster, same(3, np.uint8))
    for settings in (None, HeightSettings(), HeightSettings(zero="sea")):
        assert set_heights(raster, settings).surface is raster
    assert "float16" not in repr(raster.bands)
    assert len(raster.header_key) == 7  # as in version 0.1


def test_a_coding_changes_the_identity(write_raster):
    raster = opened(write_raster, same(0x3C00, np.uint16))
    codings = [None, {"scale": 0.1}, {"encoding": "float16"}, {"zero": "ground"}, {"zero": "camera"}, {"band": 1}]
    found = {fingerprint(set_heights(raster, c and HeightSettings(**c)).surface) for c in codings}
    assert len(found) == len(codings)


def test_sentences(write_raster):
    raster = opened(write_raster, same(3, np.uint8))
    told = {
        "heights of 0.1 m a stored unit, as set": {"scale": 0.1},
        "heights above ground of 0.1 m a stored unit from -2 m on, as set": {
            "scale": 0.1,
            "offset": -2,
            "zero": "ground",
        },
        "distances from the camera taken as metres; the file names no unit of height": {"zero": "camera"},
    }
    for sentence, settings in told.items():
        assert height_unit(set_heights(raster, HeightSettings(**settings)).surface)[1] == sentence


# --- bands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"ground_band": 2}, {"band": 1, "ground_band": 2}])
def test_surface_and_terrain_in_two_bands(write_raster, settings):
    raster = opened(write_raster, np.stack([same(112, np.float32), same(100, np.float32)]))
    read = set_heights(raster, HeightSettings(**settings))
    assert read.ground is not None
    assert (metres(read.surface)[0, 0], metres(read.ground)[0, 0]) == (112, 100)


def test_a_band_is_missing_by_its_own_nodata_value(write_raster):
    surface, terrain = same(112, np.float32), same(100, np.float32)
    surface[0, 0] = terrain[1, 1] = -1000
    raster = opened(write_raster, np.stack([surface, terrain]), nodata=-1000)
    read = set_heights(raster, HeightSettings(ground_band=2))
    for band, (row, col) in ((read.surface, (0, 0)), (read.ground, (1, 1))):
        _, valid = band.read_own(ALL, band.data_bands)
        assert (valid.sum(), valid[row, col]) == (19, False)


def test_two_bands_of_a_mosaic_in_decimetres(write_raster):
    values = np.stack([same(62, np.int16), same(50, np.int16)])
    left = opened(write_raster, values, "a.tif")
    right = opened(write_raster, values + 10, "b.tif", origin=(400_005.0, 5_000_000.0))
    read = set_heights(MosaicSource.join([left, right], "both"), HeightSettings(scale=0.1, ground_band=2))
    wide = Window(0, 4, 0, 10)
    found = [
        raster.read_own(wide, raster.data_bands)[0][0, 0, [0, 9]].tolist() for raster in (read.surface, read.ground)
    ]
    np.testing.assert_allclose(found, [[6.2, 7.2], [5.0, 6.0]], rtol=1e-6)


def test_bands_that_are_not_there(write_raster):
    one, three = opened(write_raster, same(1, np.uint8)), opened(write_raster, np.ones((3, 4, 5), np.uint8), "3.tif")
    with pytest.raises(HeightError, match=r"h\.tif: height\.band: expected a band from 1 to 1, found 5\."):
        set_heights(one, HeightSettings(band=5))
    with pytest.raises(HeightError, match=r"height\.ground_band 2: expected one other band, .* found 2\.\nName it"):
        set_heights(three, HeightSettings(ground_band=2))
    with pytest.raises(
        HeightError, match=r"height\.encoding float16: expected whole numbers of 16 bits.* found uint8\."
    ):
        set_heights(one, HeightSettings(encoding="float16"))


def test_a_ground_file_is_read_like_the_heights(write_raster):
    ground = opened(write_raster, same(1000, np.int16))
    settings = HeightSettings(scale=0.01)
    assert metres(ground_like(ground, settings, "int16"))[0, 0] == 10
    assert ground_like(opened(write_raster, same(10, np.float32), "f.tif"), settings, "int16").bands[0].scale == 1
    with pytest.raises(HeightError, match="found heights that count from the camera"):
        ground_like(ground, HeightSettings(zero="camera"), "int16")


# --- predictions ----------------------------------------------------------------------------------------------------

DECIMETRES = HeightSettings(scale=0.1, zero="ground")


@pytest.mark.parametrize(
    ("dtype", "options", "given", "expected", "zero"),
    [
        (np.uint8, {}, None, 6.0, "ground"),  # a file of the same kind
        (np.int16, {}, None, 6.0, "ground"),
        (np.float32, {}, None, 60.0, "ground"),  # metres, as files of real numbers hold
        (np.uint8, {"scale": 0.5}, None, 30.0, "ground"),  # the file states its own scale
        (np.uint8, {}, {"scale": 0.25}, 15.0, "ground"),
        (np.float32, {}, {"scale": 0.01}, 0.6, "ground"),
        (np.uint8, {}, {"zero": "sea"}, 6.0, "sea"),
    ],
)
def test_a_prediction_reads_as_the_training(write_raster, dtype, options, given, expected, zero):
    raster = opened(write_raster, same(60, dtype))
    if options:
        raster = raster.rescaled(options["scale"])
    given = given and HeightSettings(**given)
    found = trained_heights(raster, DECIMETRES, "uint8", given).surface
    assert metres(found)[0, 0] == np.float32(expected)
    assert found.zero == zero


def test_an_offset_beside_a_unit_is_read_as_in_the_training(write_raster):
    """60 ft from 30.48 m on are 160 ft; a file that names metres has 60 m from there on."""
    settings = HeightSettings(offset=30.48)
    plain, tagged = (opened(write_raster, same(60, np.float32), f"{n}.tif") for n in ("plain", "tagged"))
    tagged = replace(tagged, bands=(replace(tagged.bands[0], unit="m"),))
    for found in (set_heights(plain, settings, "ft").surface,
                  trained_heights(plain, settings, "float32", trained_unit="ft").surface,
                  ground_like(plain, settings, "float32", "ft"),
                  ground_like(plain, settings, "float32", trained_unit="ft")):  # fmt: skip
        assert metres(found)[0, 0] == pytest.approx(160)
    for found in (trained_heights(tagged, settings, "float32", trained_unit="ft").surface,
                  ground_like(tagged, settings, "float32", "ft")):  # fmt: skip
        assert metres(found)[0, 0] == pytest.approx(90.48)


def test_a_unit_that_is_given_decides_against_the_scale_of_the_training(write_raster):
    found = trained_heights(opened(write_raster, same(60, np.uint8)), DECIMETRES, "uint8", unit="m").surface
    assert (found.bands[0].scale, found.zero) == (1, "ground")


def test_a_file_without_the_ground_band_holds_heights_alone(write_raster):
    trained = HeightSettings(band=1, ground_band=2)
    one = opened(write_raster, same(60, np.float32))
    assert trained_heights(one, trained, "float32").surface is one
    two = opened(write_raster, np.stack([same(60, np.float32), same(50, np.float32)]), "two.tif")
    assert trained_heights(two, trained, "float32").ground.data_bands == (2,)


# --- what heights count from ----------------------------------------------------------------------------------------


def grid_of(raster):
    return GeoBox((4, 5), raster.geobox.affine, raster.geobox.crs)


def test_heights_above_ground_are_the_channel(write_raster):
    values = same(0, np.uint8)
    values[1, 2] = 62
    raster = set_heights(opened(write_raster, values), DECIMETRES).surface
    recipe = elevation_recipe(("height_above_ground",))
    assert recipe.halo_px(grid_of(raster), ground_given=True) == 0
    found, valid = recipe.read(raster, grid_of(raster), ALL)
    assert valid.all()
    assert found[0, 1, 2] == np.float32(6.2)
    assert found.sum() == np.float32(6.2)


def test_distances_from_a_camera_have_no_ground(write_raster):
    raster = set_heights(opened(write_raster, same(9, np.float32)), HeightSettings(zero="camera")).surface
    with pytest.raises(
        HeightError, match=r"the channel height_above_ground needs the ground.*\nTrain on .*\(height, sl"
    ):
        elevation_recipe(("height_above_ground",)).check(raster)
    assert elevation_recipe(("height", "slope")).check(raster) is None


def test_no_distance_from_a_camera_is_impossible(write_raster):
    values = same(3, np.float32)
    values[2, 2] = 60_000
    raster = opened(write_raster, values)
    assert with_height_limits(raster, 1.0, None).read_own(ALL, (1,))[1].sum() == 19
    read = set_heights(raster, HeightSettings(zero="camera")).surface
    assert with_height_limits(read, 1.0, None).read_own(ALL, (1,))[1].sum() == 20


def test_the_shape_of_the_ground_is_not_in_heights_above_it(write_raster):
    raster = set_heights(opened(write_raster, same(9, np.uint8)), DECIMETRES).surface
    with pytest.raises(HeightError, match=r"topographic_position describes the shape of the ground.*\nLeave it out"):
        definition_of("elevation").recipe(raster, RecipeOptions(channels=("slope", "topographic_position")))


def test_a_recipe_without_a_coding_has_the_text_of_version_0_1(write_raster):
    raster = opened(write_raster, same(9, np.uint8))
    plain = definition_of("elevation").recipe(raster, RecipeOptions(channels=("slope",)))
    assert list(plain.model_dump(mode="json")) == [
        "modality", "bands", "band_names", "dtype", "channels", "ground", "position_m", "height_unit"
    ]  # fmt: skip
    assert plain.dtype is None
    coded = definition_of("elevation").recipe(raster, RecipeOptions(channels=("slope",), height=DECIMETRES))
    assert (coded.dtype, coded.height) == ("uint8", DECIMETRES)
    assert type(coded).model_validate_json(coded.model_dump_json()) == coded
