"""Bands of an image found by name, by number, or not at all."""

from __future__ import annotations

import pytest
from odc.geo.geobox import GeoBox

from geocrodino.errors import BundleError
from geocrodino.geo.rasters.bands import Band
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.band_matching import match_bands

RGB = ("red", "green", "blue")


def image(*names, alpha=None):
    grid = GeoBox.from_bbox((0, 0, 10, 10), "EPSG:32631", resolution=1)
    bands = tuple(Band("uint8", name=name, is_alpha=i == alpha) for i, name in enumerate(names, start=1))
    numbers = tuple(i for i in range(1, len(names) + 1) if i != alpha)
    return RasterSource("image.tif", grid, bands, numbers, alpha)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("red", "green", "blue"), (1, 2, 3)),
        (("blue", "green", "red"), (3, 2, 1)),
        (("nir", "red", "green", "blue"), (2, 3, 4)),
        (("B2", "B3", "B4", "B8"), (3, 2, 1)),
        (("Blue", "Green", "Red", "Near infrared"), (3, 2, 1)),
        (("blue", None, "green", "red"), (4, 3, 1)),
    ],
)
def test_bands_by_name(names, numbers):
    match = match_bands(image(*names), RGB, (1, 2, 3))
    assert match.numbers == numbers
    assert match.known_by == "bands by name: red, green, blue"


def test_names_that_are_equal_to_the_letter_take_precedence():
    trained = ("red edge 1", "red edge 2")  # both are ``rededge`` in common words
    assert match_bands(image("Red edge 2", "Red edge 1"), trained, (1, 2)).numbers == (2, 1)


def test_a_band_of_near_infrared_that_is_tagged_as_transparency():
    rgbn = (*RGB, "nir")
    assert match_bands(image("nir", "red", "green", "blue", alpha=None), rgbn, (1, 2, 3, 4)).numbers == (2, 3, 4, 1)


@pytest.mark.parametrize(
    ("names", "trained", "without"),
    [
        ((None,) * 3, RGB, "the image names no bands"),
        (("band 1", "Band 2", "B3"), RGB, "the image names no bands"),
        (("blue", "green", "red"), ("band 1", "band 2", "band 3"), "the training named no bands"),
        ((None,) * 3, ("band 1", "band 2", "band 3"), "the training named no bands"),
        (("red", "green", "blue", None), (*RGB, "band 4"), "the image names no bands"),
    ],
)
def test_bands_by_number_where_a_side_has_no_names(names, trained, without):
    numbers = tuple(range(1, len(trained) + 1))
    match = match_bands(image(*names), trained, numbers)
    assert match.numbers == numbers
    assert match.known_by == f"bands by number: {', '.join(map(str, numbers))} ({without})"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("nir", "red", "green"), "none named blue (bands: 1 nir, 2 red, 3 green)"),
        (("vv", "vh", "ratio"), "none named red or green or blue (bands: 1 vv, 2 vh, 3 ratio)"),
        (("red", None, None), "none named green or blue (bands: 1 red, 2 band 2, 3 band 3)"),
    ],
)
def test_names_that_do_not_match(names, found):
    with pytest.raises(BundleError) as caught:
        match_bands(image(*names), RGB, (1, 2, 3))
    assert str(caught.value) == (
        f"image.tif: the bands do not match those of the training by name. Expected red, green, blue; found {found}.\n"
        "If the bands have other names in it, give their numbers in the order red, green, blue: `bands=(1, 2, 3)`"
    )
    assert match_bands(image(*names), RGB, (1, 2, 3), (3, 2, 1)).numbers == (3, 2, 1)


def test_two_bands_of_one_name():
    twice = image("Red", "B4", "green", "blue")
    with pytest.raises(BundleError, match=r"found several of one name \(bands: 1 Red, 2 B4, 3 green, 4 blue\)"):
        match_bands(twice, ("B04", "green", "blue"), (1, 2, 3))
    assert match_bands(twice, RGB, (1, 2, 3)).numbers == (1, 3, 4)  # equal to the letter


def test_no_band_serves_two_channels():
    with pytest.raises(BundleError, match="found several of one name"):
        match_bands(image("red", "nir", "ndvi"), ("red", "near infrared", "NIR"), (1, 2, 3))


def test_a_name_at_another_place_where_one_band_has_none():
    with pytest.raises(BundleError, match="found other names at these places"):
        match_bands(image("nir", "red", "green", "blue"), (*RGB, "band 4"), (1, 2, 3, 4))


@pytest.mark.parametrize("asked", [(1, 2), (1, 2, 5), (0, 1, 2), (1, 2, 4)])
def test_numbers_that_name_no_band_of_data(asked):
    with pytest.raises(
        BundleError,
        match=r"`bands`: expected 3 different numbers of its bands \(1 band 1, 2 band 2, 3 band 3\), in the order "
        rf"red, green, blue; found {', '.join(map(str, asked))}\.",
    ):
        match_bands(image(None, None, None, None, alpha=4), RGB, (1, 2, 3), asked)
