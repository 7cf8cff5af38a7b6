"""Real rasters: each is read right, or refused with its reason."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pyproj
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from scipy import ndimage

from geocrodino.data.inspection import inspect_files
from geocrodino.errors import BandWarning, MissingCRSError, RasterError
from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.rasters.grid import pixel_size_m, window_grid, working_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import height_unit
from geocrodino.modalities.recipe import elevation_recipe, optical_recipe

pytestmark = pytest.mark.usefixtures("real_data")


def positions_in(grid: GeoBox, source: RasterSource) -> np.ndarray:
    """Rows and columns of the grid's pixel centres in a source, worked out apart from the code under test."""
    cols, rows = np.meshgrid(np.arange(grid.shape[1]) + 0.5, np.arange(grid.shape[0]) + 0.5)
    transform = pyproj.Transformer.from_crs(str(grid.crs), str(source.geobox.crs), always_xy=True).transform
    x, y = transform(*(grid.affine @ (cols, rows)))
    col, row = ~source.geobox.affine @ (x, y)
    return np.stack([row - 0.5, col - 0.5])


# --- awkward files --------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_told_with_its_place(real_data):
    path = real_data / "awkward" / "corrupt.tif"
    source = RasterSource.open(path)
    with pytest.raises(RasterError) as caught:
        source.read(source.geobox)
    assert str(caught.value).startswith(
        f"{path}: cannot be read at rows 0 to 1024, columns 0 to 1024: the file is damaged or cut short. Copy or"
    )


def test_a_rotated_grid_without_crs_and_with_one(real_data, tmp_path):
    path = real_data / "awkward" / "rotated.tif"
    with pytest.raises(
        MissingCRSError, match=r"rotated\.tif: no coordinate reference system\. Expected one in the fil"
    ):
        RasterSource.open(path)
    copy = tmp_path / "rotated.tif"
    shutil.copyfile(path, copy)
    with rasterio.open(copy, "r+") as dataset:
        dataset.crs = "EPSG:32631"
        own, where = dataset.read(1), dataset.transform
    assert where.b != 0
    source = RasterSource.open(copy)
    grid = working_grid(source.geobox)
    read, valid = source.read(grid, kind="categorical")
    row, col = np.round(positions_in(grid, source)).astype(int)
    there = (row >= 0) & (row < own.shape[0]) & (col >= 0) & (col < own.shape[1])
    assert there.any()
    clear = valid & there
    assert clear.sum() >= 0.95 * there.sum()
    assert (read[0][clear] == own[row[clear], col[clear]]).mean() > 0.95


def test_an_image_of_nodata_alone_is_a_problem(real_data):
    path = real_data / "awkward" / "all-nodata.tif"
    source = RasterSource.open(path)
    assert not source.read(source.geobox)[1].any()
    told = "no valid pixel among those read: all of it seems to be nodata."
    assert inspect_files({"optical": source}).problems == (f"{path}: {told}",)


@pytest.mark.parametrize(("name", "dtype"), [("RGBA.uint16.tif", "uint16"), ("alpha.tif", "uint8")])
def test_alpha_is_validity(real_data, name, dtype):
    path = real_data / "awkward" / name
    source = RasterSource.open(path)
    assert (source.dtype, source.alpha_band, source.data_bands) == (dtype, 4, (1, 2, 3))
    read, valid = source.read(source.geobox)
    with rasterio.open(path) as dataset:
        values = dataset.read()
    np.testing.assert_array_equal(valid, values[3] > 0)
    np.testing.assert_array_equal(read[:, valid], values[:3, values[3] > 0])


def test_web_mercator_pixels_are_measured_on_the_ground(real_data):
    # At 39.5 S: 3.99998 m nominal times cos(latitude).
    source = RasterSource.open(real_data / "awkward" / "alpha.tif")
    _, lat = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform(
        *(source.geobox.affine @ (source.geobox.shape[1] / 2, source.geobox.shape[0] / 2))
    )
    assert pixel_size_m(source.geobox)[0] == pytest.approx(3.99998 * np.cos(np.radians(lat)), rel=6e-3)


# --- scenes ---------------------------------------------------------------------------------------------------------


def test_ign_near_infrared_is_data_though_tagged_alpha(real_data):
    path = real_data / "ign77055" / "optical.tif"
    source = RasterSource.open(path)
    with pytest.warns(BandWarning, match="band 4 is tagged as transparency, but its values look like those of an"):
        optical_recipe(source)
    read, valid = source.read(source.geobox)
    assert (read.shape, valid.all()) == ((4, 252, 252), True)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(read, dataset.read())
    dsm = RasterSource.open(real_data / "ign77055" / "dsm.tif")
    assert height_unit(dsm)[0] == 1.0


def test_autzen_is_in_feet_up_and_across(real_data):
    dsm = RasterSource.open(real_data / "autzen" / "dsm.tif")
    factor, how = height_unit(dsm)
    assert factor == pytest.approx(0.3048)
    assert how == "heights taken as foot, the horizontal unit of the CRS; the file names no unit of height"
    assert pixel_size_m(dsm.geobox) == pytest.approx((0.9144, 0.9144))
    _, valid = dsm.read(dsm.geobox)
    assert 1 - valid.mean() == pytest.approx(0.086, abs=0.002)


def test_autzen_roofs_above_the_lidar_ground(real_data):
    folder = real_data / "autzen"
    dsm, dtm, labels = (RasterSource.open(folder / f"{n}.tif") for n in ("dsm", "dtm", "labels"))
    height_px, width_px = dsm.geobox.shape
    recipe = elevation_recipe(("height_above_ground",))
    height, valid = recipe.read(dsm, dsm.geobox, (0, height_px, 0, width_px), ground=dtm)
    with rasterio.open(dsm.path) as top, rasterio.open(dtm.path) as bottom:
        feet = top.read(1, masked=True) - bottom.read(1, masked=True)
    np.testing.assert_array_equal(valid, ~feet.mask)
    np.testing.assert_allclose(height[0][valid], feet.compressed() * 0.3048, atol=1e-3)
    classes, labelled = labels.read(dsm.geobox, kind="categorical")
    roof, ground = (valid & labelled & (classes[0] == value) for value in (2, 0))
    # By the lidar points 22.2 ft: 6.8 m.
    assert np.median(height[0][roof]) == pytest.approx(6.8, abs=0.7)
    assert abs(np.median(height[0][ground])) < 0.3


def test_zion_three_crs_land_on_one_grid(real_data):
    optical, dem, labels = (RasterSource.open(real_data / "zion" / f"{n}.tif") for n in ("optical", "dem", "labels"))
    assert len({str(s.geobox.crs) for s in (optical, dem, labels)}) == 3
    assert working_grid(optical.geobox) == optical.geobox
    grid = window_grid(optical.geobox, (600, 700, 500, 620))

    read, valid = dem.read(grid)
    assert valid.all()
    with rasterio.open(dem.path) as dataset:
        own = dataset.read(1).astype(np.float64)
    expected = ndimage.map_coordinates(own, positions_in(grid, dem), order=1)
    np.testing.assert_allclose(read[0], expected, atol=1e-3)
    assert 1000 < read.min() < read.max() < 3000

    classes, labelled = labels.read(grid, kind="categorical")
    with rasterio.open(labels.path) as dataset:
        own = dataset.read(1)
    place = positions_in(grid, labels)
    row, col = np.round(place).astype(int)
    clear = labelled & (np.abs(place - np.floor(place) - 0.5) > 1e-3).all(axis=0)
    np.testing.assert_array_equal(classes[0][clear], own[row[clear], col[clear]])


def test_mars_mask_and_nan(real_data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BandWarning)  # gray is the fourth band of an image written as RGBA
        optical = RasterSource.open(real_data / "mars" / "optical.tif")
    assert optical.mask == "dataset"
    assert optical.data_bands == (1, 2, 3, 4)
    elevation = RasterSource.open(real_data / "mars" / "elevation.tif")
    window = (1000, 1500, 2000, 2600)
    _, seen = optical.read(optical.geobox, window)
    heights, valid = elevation.read(elevation.geobox, window)
    with rasterio.open(optical.path) as dataset:
        mask = dataset.dataset_mask(window=((1000, 1500), (2000, 2600))) > 0
    np.testing.assert_array_equal(seen, mask)
    assert 0 < valid.sum() < valid.size
    np.testing.assert_array_equal(valid, np.isfinite(heights[0]))
    assert 0 <= np.nanmin(heights) <= np.nanmax(heights) <= 1


def test_mars_cells_keep_every_pixel(real_data):
    labels = RasterSource.open(real_data / "mars" / "labels.tif")
    aoi = read_aoi(real_data / "mars" / "aoi.gpkg").to_crs(labels.geobox.crs.wkt)
    grid = window_grid(labels.geobox, (0, 3840, 0, 8960))
    assert {s: inside_mask(aoi.polygons(s), grid).sum() / 128**2 for s in aoi.splits} == {
        "train": 269, "val": 31, "test": 256,
    }  # fmt: skip
