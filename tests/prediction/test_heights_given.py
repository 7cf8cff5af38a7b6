"""Heights in the coding of the training, or in one that the user gives. Classes follow from metres: water below 8.75 m,
roof above 11.25 m, grass between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from helpers.small_scenes import classes_of, grouped, make_bundle, write_raster

from geocrodino.errors import ConfigError, HeightError
from geocrodino.prediction.engine import predict
from geocrodino.settings.heights import HeightSettings

pytestmark = pytest.mark.usefixtures("by_pixel")

WATER, GRASS, ROOF = 0, 2, 5
METRES = np.array([6.0, 10.0, 12.0]).repeat(16)[None].repeat(48, axis=0)
EXPECTED = np.array([WATER, GRASS, ROOF]).repeat(16)[None].repeat(48, axis=0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heights")
    return {
        name: make_bundle(folder / f"{name}.safetensors", heights=(name,)) for name in ("height", "height_above_ground")
    }


def trained(bundle, dtype, **coding):
    """The bundle as if it had been trained on heights in a coding."""
    modalities = bundle.manifest.modalities
    recipe = modalities["elevation"].recipe.model_copy(update={"height": HeightSettings(**coding), "dtype": dtype})
    elevation = modalities["elevation"].model_copy(update={"recipe": recipe})
    changed = {"modalities": {**modalities, "elevation": elevation}}
    return replace(bundle, manifest=bundle.manifest.model_copy(update=changed))


def mapped(tmp_path, values, bundle, **options):
    path = write_raster(tmp_path / "heights.tif", values, **options.pop("place", {}))
    whole = {"height": options.pop("height")} if "height" in options else {}
    summary = predict(path, tmp_path / "map.tif", bundle, "elevation", **whole, **grouped(overwrite=True, **options))
    return classes_of(tmp_path / "map.tif"), summary.heights


def test_decimetres_as_in_the_training(plain, tmp_path):
    bundle = trained(plain["height"], "uint8", scale=0.1)
    found, told = mapped(tmp_path, (10 * METRES).astype(np.uint8), bundle)
    np.testing.assert_array_equal(found, EXPECTED)
    assert told == "heights of 0.1 m a stored unit, as in the training"
    found, told = mapped(tmp_path, METRES.astype(np.float32), bundle)  # real numbers are metres
    np.testing.assert_array_equal(found, EXPECTED)
    assert told == "heights taken as metres; the file names no unit of height"


def test_a_scale_that_is_given(plain, tmp_path):
    found, told = mapped(tmp_path, (100 * METRES).astype(np.int16), plain["height"], height_scale=0.01)
    np.testing.assert_array_equal(found, EXPECTED)
    assert told == "heights of 0.01 m a stored unit, as set"


def test_an_offset_beside_the_unit_of_the_training(plain, tmp_path):
    """Heights in feet from 3 m on, without a tag."""
    bundle = trained(plain["height"], "float32", offset=3.0)
    recipe = bundle.manifest.modalities["elevation"].recipe.model_copy(update={"height_unit": "ft"})
    elevation = bundle.manifest.modalities["elevation"].model_copy(update={"recipe": recipe})
    manifest = bundle.manifest.model_copy(update={"modalities": {**bundle.manifest.modalities, "elevation": elevation}})
    values = ((METRES - 3) / 0.3048).astype(np.float32)
    found, told = mapped(tmp_path, values, replace(bundle, manifest=manifest))
    np.testing.assert_array_equal(found, EXPECTED)
    assert told == "heights taken as ft, the unit given for the training; the file names no unit of height"


@pytest.mark.parametrize(("crs", "factor"), [("EPSG:2994", 1), ("EPSG:32610", 0.3048)])
def test_metres_on_a_grid_in_feet(plain, tmp_path, crs, factor):
    """The unit given for a training counts if its own grid was in feet too; otherwise such heights are in feet."""
    bundle = plain["height"]
    recipe = bundle.manifest.modalities["elevation"].recipe.model_copy(update={"height_unit": "m"})
    elevation = bundle.manifest.modalities["elevation"].model_copy(update={"recipe": recipe})
    changed = {"crs": crs, "modalities": {**bundle.manifest.modalities, "elevation": elevation}}
    place = {"crs": "EPSG:2994", "transform": Affine(1 / 0.3048, 0, 636_000, 0, -1 / 0.3048, 853_000)}
    found, _ = mapped(
        tmp_path,
        (METRES / factor).astype(np.float32),
        replace(bundle, manifest=bundle.manifest.model_copy(update=changed)),
        place=place,
    )
    np.testing.assert_array_equal(found, EXPECTED)


def test_a_whole_coding_decides_alone(plain, tmp_path):
    """Band 2 holds decimetres from 2 m on, band 1 something else; the training read single bands of centimetres."""
    bundle = trained(plain["height"], "int16", scale=0.01)
    values = np.stack([np.full(METRES.shape, 7), 10 * (METRES - 2)]).astype(np.int16)
    path = write_raster(tmp_path / "two.tif", values)
    coding = HeightSettings(scale=0.1, offset=2.0, band=2)
    for modality in ("elevation", "auto"):
        target = tmp_path / f"{modality}.tif"
        summary = predict(path, target, bundle, modality, height=coding, **grouped())
        np.testing.assert_array_equal(classes_of(target), EXPECTED)
        assert summary.heights == "heights of 0.1 m a stored unit from 2 m on, as set"


def test_a_whole_coding_beside_single_options(plain, tmp_path):
    with pytest.raises(ConfigError) as caught:
        mapped(tmp_path, METRES.astype(np.float32), plain["height"], height_zero="ground", height=HeightSettings())
    assert str(caught.value) == "`height_zero='ground'`: `height` says this too.\nGive only one of them."


def test_bits_of_half_precision(plain, tmp_path):
    bundle = trained(plain["height"], "uint16", encoding="float16", zero="camera")
    found, told = mapped(tmp_path, METRES.astype(np.float16).view(np.uint16), bundle)
    np.testing.assert_array_equal(found, EXPECTED)
    assert told == "distances from the camera taken as metres; the file names no unit of height"


def test_surface_and_terrain_in_two_bands(plain, tmp_path):
    values = np.stack([1000 + METRES, np.full(METRES.shape, 1000)]).astype(np.float32)
    found, _ = mapped(tmp_path, values, trained(plain["height_above_ground"], "float32", ground_band=2))
    np.testing.assert_array_equal(found, EXPECTED)


def test_heights_above_ground_for_a_network_of_surface_models(plain, tmp_path):
    found, told = mapped(tmp_path, METRES.astype(np.float32), plain["height_above_ground"], height_zero="ground")
    np.testing.assert_array_equal(found, EXPECTED)
    assert told == "heights above ground taken as metres; the file names no unit of height"


def test_terrain_in_a_file_of_its_own_in_centimetres(plain, tmp_path):
    ground = write_raster(tmp_path / "ground.tif", np.full(METRES.shape, 2000, np.int16))
    bundle = trained(plain["height_above_ground"], "int16", scale=0.01)
    found, _ = mapped(tmp_path, (2000 + 100 * METRES).astype(np.int16), bundle, ground=ground)
    np.testing.assert_array_equal(found, EXPECTED)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"height_scale": 0.0}, ConfigError,
         "`height_scale=0`: expected metres in a stored unit, above 0, such as 0.1."),
        ({"pixel_m": -1.0}, ConfigError, "`pixel_m=-1`: expected a pixel size in metres, above 0."),
        ({"height_scale": 0.1, "height_unit": "ft"}, ConfigError,
         "`height_unit='ft', height_scale=0.1`: both say how long a stored unit is.\nGive only one of them."),
        ({"height_zero": "lake"}, ValueError, "height_zero must be one of sea, ground, camera, found 'lake'."),
    ],
)  # fmt: skip
def test_options_that_cannot_be(plain, tmp_path, options, error, told):
    with pytest.raises(error) as caught:
        mapped(tmp_path, METRES.astype(np.float32), plain["height"], **options)
    assert str(caught.value) == told


def test_heights_of_an_image(plain, tmp_path):
    path = write_raster(tmp_path / "image.tif", np.ones((3, 48, 48), np.uint8))
    with pytest.raises(ConfigError) as caught:
        predict(path, tmp_path / "map.tif", plain["height"], "optical", **grouped(height_zero="ground"))
    assert str(caught.value) == "`height_zero='ground'` applies only to elevation, found optical alone.\nLeave it out."


def test_a_ground_under_heights_above_ground(plain, tmp_path):
    ground = write_raster(tmp_path / "ground.tif", np.zeros(METRES.shape, np.float32))
    bundle = trained(plain["height_above_ground"], "float32", zero="ground")
    with pytest.raises(HeightError) as caught:
        mapped(tmp_path, METRES.astype(np.float32), bundle, ground=ground)
    assert str(caught.value) == (
        f"{ground}: a ground raster belongs to heights above sea level, found heights that count from the ground.\n"
        "Leave `ground` out."
    )


def test_distances_from_a_camera_for_a_network_of_surface_models(plain, tmp_path):
    with pytest.raises(
        HeightError, match="the channel height_above_ground needs the ground, and distances from a camera"
    ):
        mapped(tmp_path, METRES.astype(np.float32), plain["height_above_ground"], height_zero="camera")
