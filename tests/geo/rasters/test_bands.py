"""Names of bands, in the words of different makers."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from geocrodino.geo.rasters.bands import common_names
from geocrodino.geo.rasters.reader import RasterSource


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (("red", "Green", " BLUE "), ("red", "green", "blue")),
        (("r", "g", "b", "nir"), ("red", "green", "blue", "nir")),
        (("blue_B2", "green_B3", "red_B4", "nir_B5"), ("blue", "green", "red", "nir")),
        (("Near Infrared", "near-infrared", "NIR", "infrared"), ("nir",) * 4),
        (("B4", "B3", "B2", "B8"), ("red", "green", "blue", "nir")),
        (("B04", "B03", "B02", "B8A"), ("red", "green", "blue", "nir08")),
        (("B4", "B3", "B2", "B5"), ("red", "green", "blue", "nir")),
        (("B5", "B8"), ("rededge", "nir")),
        (("Band 4: red", "Band 1 (Blue)"), ("red", "blue")),
        (("red edge", "Red"), ("rededge", "red")),
        (("red edge 1", "Red_Edge_2", "rededge3"), ("rededge1", "rededge2", "rededge3")),
        (("shortwave infrared 1", "Short-wave infrared", "mid infrared"), ("swir16", "swir", "mwir")),
        (("near infrared narrow", "thermal infrared", "far infrared"), ("nir08", "tir", "farinfrared")),
        (("B06", "B7", "B8A_20m"), ("b6", "b7", "nir08")),
        (("ndvi", "my Band-x"), ("ndvi", "mybandx")),
        (("band 1", "Band_2", "layer 3", "4"), (None,) * 4),
        (("B1", "B2", "B3"), (None,) * 3),
        (("B01", "B02", "B03"), (None,) * 3),
        (("B3", "B2", "B1"), ("green", "blue", "coastal")),
        ((None, "", "  "), (None,) * 3),
        ((None, "red"), (None, "red")),
    ],
)
def test_common_names(names, common):
    assert common_names(names) == common


def test_names_come_from_descriptions_then_from_colours(write_raster):
    colours = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined)
    path = write_raster("a.tif", np.ones((4, 2, 2), np.uint16), colours=colours)
    assert RasterSource.open(path).band_names == ("blue", "green", "red", "band 4")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("B3", "B2", "B1", "near infrared")
    assert RasterSource.open(path).band_names == ("B3", "B2", "B1", "near infrared")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("Band 1", "Band 2", "Band 3", "Band 4")
    assert RasterSource.open(path).band_names == ("blue", "green", "red", "band 4")


def test_gray_is_what_gdal_calls_any_first_band(write_raster):
    colours = (ColorInterp.gray, ColorInterp.undefined)
    assert RasterSource.open(write_raster("a.tif", np.ones((2, 2, 2), np.uint16), colours=colours)).band_names == (
        "band 1",
        "band 2",
    )
