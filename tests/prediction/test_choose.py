from dataclasses import replace
from pathlib import Path

import pytest
from helpers.small_scenes import UTM, make_manifest, make_specs
from odc.geo.geobox import GeoBox

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError, ConfigError
from geocrodino.geo.rasters.bands import Band
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.prediction.choose import choose_modalities


def raster(name, bands, dtype="uint8", pixel=1.0):
    numbers = tuple(range(1, bands + 1))
    grid = GeoBox((10, 10), UTM @ UTM.scale(pixel), "EPSG:32610")
    return RasterSource(name, grid, (Band(dtype),) * bands, numbers)


def bundle(*modalities, **specs):
    found = make_specs(**specs)
    return Bundle(Path("model"), make_manifest({m: found[m] for m in modalities or found}), {})


IMAGE, DSM = raster("image.tif", 3), raster("dsm.tif", 1, "float32")
BOTH = bundle()


def message(error, *asked):
    with pytest.raises(error) as raised:
        choose_modalities(*asked)
    return str(raised.value)


@pytest.mark.parametrize("wanted", ["both", "auto"])
def test_an_image_with_a_surface_model_is_both(wanted):
    expected = (("optical", "elevation"), "an image and a surface model were given", False)
    assert choose_modalities(wanted, IMAGE, DSM, BOTH) == expected


def test_both_of_one_raster():
    assert message(ConfigError, "both", IMAGE, None, BOTH) == (
        "image.tif: `modality='both'` needs an image and a surface model, found one raster.\n"
        "Give the surface model with `elevation`."
    )


@pytest.mark.parametrize("wanted", ["optical", "elevation"])
def test_a_surface_model_that_would_not_be_used(wanted):
    assert message(ConfigError, wanted, IMAGE, DSM, BOTH) == (
        "dsm.tif: a surface model beside the scene needs `modality='both'` or auto, found "
        f"{wanted}.\nLeave one of the two out."
    )


@pytest.mark.parametrize(("there", "missing"), [("optical", "elevation"), ("elevation", "optical")])
@pytest.mark.parametrize("wanted", ["both", "auto"])
def test_both_of_a_bundle_of_one_branch(there, missing, wanted):
    assert message(BundleError, wanted, IMAGE, DSM, bundle(there)) == (
        f"model: no branch for {missing} in this bundle. Expected {missing}, found {there}.\n"
        f"Predict with {there}, or use a bundle that was trained with {missing}."
    )


@pytest.mark.parametrize(("wanted", "scene"), [("optical", IMAGE), ("elevation", DSM), ("elevation", IMAGE)])
def test_what_is_asked_for_is_taken_without_a_look_at_the_scene(wanted, scene):
    assert choose_modalities(wanted, scene, None, BOTH) == ((wanted,), "as requested", True)


def test_a_branch_that_is_not_there():
    assert message(BundleError, "elevation", DSM, None, bundle("optical")).startswith(
        "model: no branch for elevation in this bundle. Expected elevation, found optical."
    )


def test_auto_takes_the_branch_that_fits():
    assert choose_modalities("auto", IMAGE, None, BOTH) == (
        ("optical",),
        "3 bands of uint8: an image, for the optical branch (red, green, blue)",
        False,
    )
    assert choose_modalities("auto", DSM, None, BOTH) == (
        ("elevation",),
        "1 band of float32: heights, for the elevation branch",
        False,
    )


def test_auto_with_transparency_counts_the_bands_of_data():
    grey = replace(raster("grey.tif", 2, "float32"), data_bands=(1,), alpha_band=2)
    assert choose_modalities("auto", grey, None, BOTH)[0] == ("elevation",)


def test_auto_with_more_bands_than_the_network_reads():
    found = choose_modalities("auto", raster("four.tif", 4, "uint16"), None, BOTH)
    assert found == (("optical",), "4 bands of uint16: an image, for the optical branch (red, green, blue)", False)


def test_auto_of_one_band_that_both_branches_read():
    assert message(ConfigError, "auto", DSM, None, bundle(bands=("grey",))) == (
        "dsm.tif: 1 band of float32 can be an image or heights, and the bundle reads both.\n"
        "Say which: `modality='optical'` or `modality='elevation'`."
    )


def test_auto_of_one_band_with_a_bundle_of_one_branch():
    assert choose_modalities("auto", DSM, None, bundle("optical", bands=("grey",)))[0] == ("optical",)
    assert choose_modalities("auto", DSM, None, bundle("elevation"))[0] == ("elevation",)


def test_auto_of_what_no_branch_reads():
    two = raster("a: b/two.tif", 2)
    assert message(BundleError, "auto", two, None, BOTH) == (
        "a: b/two.tif: fits no branch of model. As optical: expected 3 optical bands (red, green, blue; numbers 1, 2, "
        "3), found 2 (band 1, band 2).\n"
        "Predict with a raster that has these bands, or train a bundle on the bands that there are. "
        "As elevation: expected one band of heights, found 2 (band 1, band 2).\n"
        "If it is an image, give it as the optical raster, not as heights. Where two bands are the surface and the "
        "bare ground, a training names them under `data.height`: band and ground_band."
    )


def test_auto_of_heights_too_coarse_for_objects_above_ground():
    coarse = raster("coarse.tif", 1, "float32", pixel=10)
    found = message(BundleError, "auto", coarse, None, bundle("elevation", heights=("height_above_ground",)))
    assert found.startswith(
        "coarse.tif: fits no branch of model. As elevation: Height above ground needs a surface model that shows "
        "single objects: expected pixels of at most 5 m, found 10 m."
    )


@pytest.mark.parametrize("elevation", [None, DSM])
def test_a_word_that_names_no_modality(elevation):
    assert message(ValueError, "Optical", IMAGE, elevation, BOTH) == (
        "modality must be one of optical, elevation, both, auto, found 'Optical'. Did you mean optical?"
    )
