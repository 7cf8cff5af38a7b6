"""Units of height: every spelling of a unit, and the order in which a raster is asked for its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pyproj.database import get_units_map

from geocrodino.errors import HeightError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import ground_unit, height_unit, metres_in, unit_as_trained, unit_in_metres

US_FOOT = 1200 / 3937

SPELLINGS = {
    1.0: "m metre Metres meters METER Mètre [m] metros none unitless",
    0.3048: "ft foot feet FOOT Ft. [ft_i] ft-int international_foot Foot_International Foot_Intl",
    US_FOOT: "us-ft ftUS USFT US_survey_foot us_survey_feet Foot_US feet_(US) FOOT-US U.S._Survey_Feet [ft_us] sft",
    0.01: "cm centimetre centimeters",
    0.1: "dm decimetre decimeter",
    1000.0: "km kilometre kilometers",
    0.9144: "yd yard yards",
    1.8288: "fath fathom fathoms",
    1609.344: "mi mile Statute_mile",
}


@pytest.mark.parametrize(
    ("spelling", "metres"), [(s, metres) for metres, words in SPELLINGS.items() for s in words.split()]
)
def test_spellings_of_units(spelling, metres):
    for name in {spelling, spelling.replace("_", " ")}:
        assert metres_in(name) == metres


def test_every_unit_of_length_of_the_registry_is_known():
    for name, unit in get_units_map(category="linear").items():
        if name != "decimeter":  # its factor is that of the centimetre in PROJ's database
            assert metres_in(name) == pytest.approx(unit.conv_factor, rel=1e-12), name


@pytest.mark.parametrize("word", ["furlong", "K", "degree", "metre per second", "m2", ""])
def test_words_that_are_no_length(word):
    assert metres_in(word) is None


def test_an_unknown_unit_names_some_that_are_known():
    with pytest.raises(HeightError) as caught:
        unit_in_metres("furlong", "dsm.tif")
    assert str(caught.value) == (
        "dsm.tif: unknown unit of height 'furlong'. Expected a unit of length such as m, ft, us-ft, cm, dm, mm, km, "
        "none.\nGive the unit of the heights, for instance `height_unit='m'`."
    )


def without_unit(source: RasterSource) -> RasterSource:
    return replace(source, bands=tuple(replace(band, unit=None) for band in source.bands))


def test_units_are_sought_in_order(write_raster):
    ones = np.ones((4, 4), np.float32)
    feet = {"crs": "EPSG:2994", "origin": (636_000.0, 853_000.0)}
    tagged = RasterSource.open(write_raster("tagged.tif", ones, units="m", **feet))
    assert height_unit(tagged, "cm") == (0.01, "heights in cm, as asked")
    assert height_unit(tagged) == (1.0, "heights in m, by the band's unit tag")
    vertical = RasterSource.open(write_raster("vertical.tif", ones, crs="EPSG:32631+6360"))  # NAVD88 height, US feet
    # GDAL's own reading of the vertical axis comes as a unit tag; either way it is not the metres across.
    assert height_unit(vertical)[0] == pytest.approx(US_FOOT)
    assert height_unit(without_unit(vertical)) == (
        pytest.approx(US_FOOT),
        "heights in US survey foot, by the vertical axis of the CRS",
    )
    horizontal = RasterSource.open(write_raster("horizontal.tif", ones, **feet))
    assert height_unit(horizontal) == (
        pytest.approx(0.3048),
        "heights taken as foot, the horizontal unit of the CRS; the file names no unit of height",
    )
    degrees = RasterSource.open(write_raster("degrees.tif", ones, crs="EPSG:4326", origin=(3.0, 45.0)))
    assert height_unit(degrees) == (1.0, "heights taken as metres; the file names no unit of height")


@pytest.mark.parametrize(
    ("given", "trained_crs", "named", "unit"),
    [
        ("m", "EPSG:2994", {}, "m"),
        ("m", "EPSG:32631", {}, None),  # a training that says nothing on grids in feet
        (None, "EPSG:2994", {}, None),
        ("m", "EPSG:2994", {"units": "ft"}, None),  # the file decides
        ("m", "EPSG:2994", {"crs": "EPSG:32631"}, None),
        ("m", "EPSG:2994", {"crs": "EPSG:2994+8228"}, None),  # NAVD88 height, feet
    ],
)
def test_heights_on_a_grid_in_feet_as_they_were_trained(write_raster, given, trained_crs, named, unit):
    options = {"crs": "EPSG:2994", "origin": (636_000.0, 853_000.0), **named}
    source = RasterSource.open(write_raster("dsm.tif", np.ones((4, 4), np.float32), **options))
    assert unit_as_trained(source, given, trained_crs) == unit


KILOMETRES = "+proj=utm +zone=31 +datum=WGS84 +units=km"


def test_kilometres_across_are_no_kilometres_up(write_raster):
    ones = np.ones((4, 4), np.float32)
    source = RasterSource.open(write_raster("km.tif", ones, crs=KILOMETRES, pixel=0.001, origin=(400.0, 5000.0)))
    assert height_unit(source) == (1.0, "heights taken as metres; the file names no unit of height")
    assert height_unit(source, None, "ft") == (
        0.3048,
        "heights taken as ft, the unit given for the training; the file names no unit of height",
    )


def test_a_unit_tag_that_is_not_known_is_refused_and_can_be_overruled(write_raster):
    path = write_raster("dsm.tif", np.ones((4, 4), np.float32), units="furlong")
    source = RasterSource.open(path)
    for ask in (height_unit, lambda raster: ground_unit(raster, "m")):
        with pytest.raises(HeightError, match=r"dsm\.tif: unknown unit of height 'furlong'"):
            ask(source)
    assert height_unit(source, "m")[0] == 1.0


@pytest.mark.parametrize("tag", ["unknown", "n/a", " "])
def test_tags_that_name_no_unit(write_raster, tag):
    source = RasterSource.open(write_raster("dsm.tif", np.ones((4, 4), np.float32), units=tag))
    assert height_unit(source)[1] == "heights taken as metres; the file names no unit of height"
