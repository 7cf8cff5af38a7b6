"""What a STAC item says of an asset's bands completes what the file says."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import rasterio

from geocrodino.errors import RasterError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.stac_bands import StacBand, stac_bands, with_stac_bands


@pytest.mark.parametrize(
    ("asset", "bands"),
    [
        ({}, ()),
        ({"eo:bands": [{"name": "B4", "common_name": "red"}, {"name": "B8"}]}, (StacBand("red"), StacBand("B8"))),
        (
            {
                "eo:bands": [{"name": "B4"}],
                "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0, "unit": "1"}],
            },
            (StacBand("B4", 0, 0.0001, -0.1, "1"),),
        ),
        (
            {"bands": [{"name": "x", "eo:common_name": "nir", "raster:scale": 2}], "nodata": 9, "raster:offset": 1},
            (StacBand("nir", 9, 2, 1, None),),
        ),
        ({"bands": "red"}, ()),
    ],
)
def test_bands_of_an_asset(asset, bands):
    assert stac_bands(asset) == bands


def test_numbers_that_json_cannot_hold():
    (band,) = stac_bands({"raster:bands": [{"nodata": "nan", "scale": True}]})
    assert math.isnan(band.nodata)
    assert band.scale == 1.0


def test_the_file_itself_takes_precedence(write_raster):
    path = write_raster("a.tif", np.ones((2, 2, 2), np.uint16), nodata=5)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("green", None)
        dataset.scales = (3.0, 1.0)
    source = with_stac_bands(RasterSource.open(path), [StacBand("red", 0, 2.0), StacBand("nir", 0, 2.0)])
    assert source.band_names == ("green", "nir")
    assert [(band.scale, band.nodata) for band in source.bands] == [(3.0, 5.0), (2.0, 5.0)]
    assert with_stac_bands(source, [StacBand("red")]) == source


def test_a_scene_by_items_has_the_bands_that_they_name(write_raster, tmp_path):
    values = np.array([[[10, 0]], [[20, 0]], [[30, 0]], [[40, 0]]], np.uint16)
    write_raster("a.tif", values)
    asset = {
        "href": "a.tif",
        "roles": ["data"],
        "eo:bands": [{"common_name": name} for name in ("blue", "green", "red", "nir")],
        "raster:bands": [{"scale": 0.5, "nodata": 0}] * 4,
    }
    item = {"type": "Feature", "id": "one", "assets": {"image": asset}}
    (tmp_path / "item.json").write_text(json.dumps(item))
    source = open_scene(tmp_path / "item.json")
    assert source.band_names == ("blue", "green", "red", "nir")
    read, valid = source.read(source.geobox)
    assert valid.tolist() == [[True, False]]
    np.testing.assert_array_equal(read[:, 0, 0], [5, 10, 15, 20])


@pytest.mark.parametrize("scale", ["nan", 0])
def test_a_scale_that_loses_the_values(write_raster, tmp_path, scale):
    write_raster("a.tif", np.ones((2, 2), np.uint16))
    item = {"type": "Feature", "id": "one", "assets": {"image": {"href": "a.tif", "roles": ["data"]}}}
    item["assets"]["image"]["raster:bands"] = [{"scale": scale}]
    (tmp_path / "item.json").write_text(json.dumps(item))
    with pytest.raises(RasterError, match=r"a\.tif: expected a scale that is a number other than 0"):
        open_scene(tmp_path / "item.json")
