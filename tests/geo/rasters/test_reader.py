"""Reading on any grid: exact values, validity that never bleeds, and no dependence on the window."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from helpers.rounding import rounding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp

from geocrodino.errors import MissingCRSError, OverlapError, RasterError
from geocrodino.geo.rasters import warp
from geocrodino.geo.rasters.grid import working_grid
from geocrodino.geo.rasters.reader import RasterSource, require_overlap

UTM31 = "EPSG:32631"
LEFT, TOP = 400_000.0, 5_000_000.0


def grid_at(pixel: float, shape=(40, 50), x=0.0, y=0.0, crs=UTM31) -> GeoBox:
    """A grid whose corner lies ``x`` m east and ``y`` m south of the rasters' corner."""
    return GeoBox(shape, Affine(pixel, 0, LEFT + x, 0, -pixel, TOP - y), crs)


def plane(shape, pixel, east=0.1, south=-0.07, base=100.0):
    """Heights that rise by ``east`` and ``south`` a metre, at pixel centres."""
    rows, cols = ((np.arange(n) + 0.5) * pixel for n in shape)
    return base + east * cols[None, :] + south * rows[:, None]


# --- header ---------------------------------------------------------------------------------------------------------


def test_header(write_raster):
    source = RasterSource.open(write_raster("a.tif", np.ones((3, 4, 5), np.uint16), nodata=7, units="metre"))
    assert (source.count, source.dtype, source.nodata, source.unit) == (3, "uint16", 7.0, "metre")
    assert (source.data_bands, source.band_names) == ((1, 2, 3), ("band 1", "band 2", "band 3"))
    assert source.geobox.shape == (4, 5)
    assert source.describe() == "3 bands uint16, 4 rows x 5 columns at 1 m, EPSG:32631"
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "no such file. Check the path; relative ones start at the working folder."),
        (lambda p: p.touch(), "the file is empty (0 bytes). Copy or download it again."),
        (lambda p: p.write_text("hello"), "not a raster that GDAL can open ("),
    ],
    ids=["missing", "empty", "text"],
)
def test_files_that_are_no_raster(tmp_path, make, words):
    path = tmp_path / "image.tif"
    make(path)
    with pytest.raises(RasterError) as caught:
        RasterSource.open(path)
    assert str(caught.value).startswith(f"{path}: {words}")
    assert caught.value.path == path


def test_without_crs(write_raster):
    path = write_raster("a.tif", np.ones((4, 5), np.uint8), crs=None)
    with pytest.raises(MissingCRSError) as caught:
        RasterSource.open(path)
    assert str(caught.value) == (
        f"{path}: no coordinate reference system. Expected one in the file, found none.\n"
        f"Write the right one into it, for instance: rio edit-info --crs EPSG:32631 {path}\n"
        "Or state it, for instance: `crs='EPSG:32631'`"
    )


def test_a_container_of_rasters_names_what_is_inside(tmp_path):
    path = tmp_path / "two.gpkg"
    options = {"driver": "GPKG", "height": 4, "width": 4, "count": 1, "dtype": "uint8", "crs": UTM31}
    for table, more in (("first", {}), ("second", {"APPEND_SUBDATASET": "YES"})):
        where = Affine(1, 0, LEFT, 0, -1, TOP)
        with rasterio.open(path, "w", RASTER_TABLE=table, transform=where, **options, **more) as target:
            target.write(np.ones((1, 4, 4), np.uint8))
    with pytest.raises(RasterError, match=r"holds no band itself.*GPKG:.*:first, GPKG:.*:second"):
        RasterSource.open(path)


def test_a_file_cut_short_is_told_where_it_breaks(write_raster):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    path = write_raster("a.tif", noise, tiled=True, blockxsize=16, blockysize=16)
    path.write_bytes(path.read_bytes()[:-1000])
    source = RasterSource.open(path)
    assert source.read(source.geobox, (0, 16, 0, 16))[1].all()
    with pytest.raises(RasterError) as caught:
        source.read(source.geobox, (40, 64, 0, 64))
    assert str(caught.value).startswith(
        f"{path}: cannot be read at rows 40 to 64, columns 0 to 64: the file is damaged or cut short. "
        "Copy or download it again ("
    )


# --- validity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_the_nodata_tag_is_invalid_and_zero_is_a_height(write_raster, dtype):
    values = np.array([[0, 7, 100]], dtype)
    source = RasterSource.open(write_raster("a.tif", values, nodata=7))
    read, valid = source.read(source.geobox)
    assert read.dtype == np.float32
    assert valid.tolist() == [[True, False, True]]
    np.testing.assert_array_equal(read, [[[0, np.nan, 100]]])


def test_zero_is_invalid_only_if_tagged(write_raster):
    values = np.array([[0, 1]], np.uint8)
    assert RasterSource.open(write_raster("a.tif", values)).read(grid_at(1, (1, 2)))[1].tolist() == [[True, True]]
    tagged = RasterSource.open(write_raster("b.tif", values, nodata=0))
    assert tagged.read(grid_at(1, (1, 2)))[1].tolist() == [[False, True]]


def test_negative_heights_and_nodata(write_raster):
    source = RasterSource.open(write_raster("a.tif", np.array([[-9999, -3, 32767]], np.int16), nodata=-9999))
    np.testing.assert_array_equal(source.read(source.geobox)[0], [[[np.nan, -3, 32767]]])


@pytest.mark.parametrize("nodata", [None, float("nan"), -9999.0])
def test_nan_and_infinity_are_invalid_whatever_the_tag(write_raster, nodata):
    source = RasterSource.open(write_raster("a.tif", np.array([[np.nan, np.inf, 5]], np.float32), nodata=nodata))
    assert source.read(source.geobox)[1].tolist() == [[False, False, True]]


def test_doubles_beyond_single_precision_are_invalid(write_raster):
    source = RasterSource.open(write_raster("a.tif", np.array([[1e300, -1e39, 2.5]])))
    read, valid = source.read(source.geobox)
    assert valid.tolist() == [[False, False, True]]
    np.testing.assert_array_equal(read, [[[np.nan, np.nan, 2.5]]])


@pytest.mark.parametrize(("dtype", "nodata"), [(np.uint8, 255), (np.uint16, 0), (np.int16, -9999), (np.float32, 9)])
def test_a_pixel_is_missing_where_all_bands_hold_the_nodata_value(write_raster, dtype, nodata):
    values = np.array([[[1, nodata, 1, nodata]], [[1, 1, nodata, nodata]], [[1, 1, 1, nodata]]], dtype)
    source = RasterSource.open(write_raster("a.tif", values, nodata=nodata))
    read, valid = source.read(source.geobox)
    assert valid.tolist() == [[True, True, True, False]]
    np.testing.assert_array_equal(read[:, 0, :3], values[:, 0, :3])
    # Those bands decide that are not read as well: a saturated band alone is data.
    for bands in ((1,), (2, 1)):
        assert source.read(source.geobox, bands=bands)[1].tolist() == [[True, True, True, False]]


def test_not_a_number_in_one_band_loses_the_pixel(write_raster):
    values = np.array([[[np.nan, 1, 1]], [[1, np.inf, 1]]], np.float32)
    source = RasterSource.open(write_raster("a.tif", values, nodata=np.nan))
    assert source.read(source.geobox)[1].tolist() == [[False, False, True]]


@pytest.mark.parametrize("nodata", [None, 7])
def test_nodata_values_of_the_bands_as_metadata(write_raster, nodata):
    values = np.array([[[0, 0, 7]], [[0, 5, 7]], [[0, 0, 7]]], np.uint8)
    path = write_raster("a.tif", values, nodata=nodata)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NODATA_VALUES="0 0 0")
    source = RasterSource.open(path)
    assert source.nodata_values == (0, 0, 0)
    assert source.read(source.geobox)[1].tolist() == [[False, True, nodata is None]]


@pytest.mark.parametrize("words", ["0 0", "0", ""])
def test_nodata_values_that_fit_no_bands_are_ignored_as_gdal_does(write_raster, words):
    path = write_raster("a.tif", np.zeros((3, 2, 2), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NODATA_VALUES=words)
    source = RasterSource.open(path)
    assert source.read(source.geobox)[1].all()
    with rasterio.open(path) as dataset:
        assert dataset.dataset_mask().all()


@pytest.mark.parametrize("sources", [("mask", "nodata"), ("mask", "alpha"), ("alpha", "nodata"), ("mask", "tag")])
def test_all_marks_of_validity_count_together(write_raster, sources):
    values = np.full((4, 1, 4), 100, np.uint8)
    values[3] = 255
    mask = np.full((1, 4), 255, np.uint8)
    if "mask" in sources:
        mask[0, 0] = 0
    if "nodata" in sources or "tag" in sources:
        values[:3, 0, 1] = 9
    if "alpha" in sources:
        values[3, 0, 2] = 0
    colours = RGBA if "alpha" in sources else [ColorInterp.gray] * 4
    values = values if "alpha" in sources else values[:3]
    path = write_raster(
        "a.tif",
        values,
        colours=colours[: len(values)],
        nodata=9 if "nodata" in sources else None,
        mask=mask if "mask" in sources else None,
    )
    if "tag" in sources:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(NODATA_VALUES="9 9 9")
    valid = RasterSource.open(path).read(grid_at(1, (1, 4)))[1]
    expected = ["mask" not in sources, not {"nodata", "tag"} & set(sources), "alpha" not in sources, True]
    assert valid.tolist() == [expected]


@pytest.mark.parametrize(("dtype", "nodata"), [("Byte", -9999), ("Byte", 256), ("Byte", 1.5), ("Int16", 65535)])
def test_a_nodata_value_that_the_type_cannot_hold_marks_nothing(tmp_path, write_raster, dtype, nodata):
    source = virtual_bands(tmp_path, write_raster, (dtype, nodata))
    assert source.read(source.geobox)[1].all()


@pytest.mark.parametrize("nodata", [np.inf, -np.inf])
def test_infinity_as_nodata_marks_no_other_value(write_raster, nodata):
    source = RasterSource.open(write_raster("a.tif", np.array([[nodata, 0, 3e38]], np.float32), nodata=nodata))
    assert source.read(source.geobox)[1].tolist() == [[False, True, True]]


def test_infinity_as_nodata_of_whole_numbers_marks_nothing(write_raster):
    path = write_raster("a.tif", np.ones((1, 2), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NODATA_VALUES="inf")
    assert RasterSource.open(path).read(grid_at(1, (1, 2)))[1].all()


@pytest.mark.parametrize("text", ["-3.40282e+38", "-3.4028234663852886e+38", "-3.402823466e+38"])
def test_a_sentinel_that_lost_digits_as_text(tmp_path, write_raster, text):
    lowest = np.finfo(np.float32).min
    write_raster("low.tif", np.array([[lowest, 5, -9999.9]], np.float32))
    path = tmp_path / "low.vrt"
    path.write_text(
        "<VRTDataset rasterXSize='3' rasterYSize='1'><SRS>EPSG:32631</SRS>"
        "<GeoTransform>400000,1,0,5000000,0,-1</GeoTransform><VRTRasterBand dataType='Float32' band='1'>"
        f"<NoDataValue>{text}</NoDataValue><SimpleSource><SourceFilename relativeToVRT='1'>low.tif</SourceFilename>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    source = RasterSource.open(path)
    with rasterio.open(path) as dataset:
        assert dataset.read_masks(1).tolist() == [[0, 255, 255]]
    assert source.read(source.geobox)[1].tolist() == [[False, True, True]]


def test_scale_and_offset_make_values_of_stored_numbers(write_raster):
    stored = np.array([[[-9999, 0, 250]], [[10, 20, -9999]]], np.int16)
    path = write_raster("a.tif", stored, nodata=-9999)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.01, 1.0), (100.0, -5.0)
    source = RasterSource.open(path)
    read, valid = source.read(source.geobox, bands=(1,))
    np.testing.assert_array_equal(read, np.array([[[-9999 * 0.01 + 100, 100, 102.5]]], np.float32))
    assert valid.all()  # the other band holds data in the first pixel
    np.testing.assert_array_equal(source.read(source.geobox)[0][1], [[5, 15, -10004]])
    np.testing.assert_array_equal(source.rescaled(2).read(source.geobox, bands=(2,))[0], [[[10, 30, -20008]]])


@pytest.mark.parametrize(("scale", "offset"), [(0.0, 0.0), (np.nan, 0.0), (1.0, np.inf)])
def test_scales_that_lose_the_values(write_raster, scale, offset):
    path = write_raster("a.tif", np.ones((2, 2), np.int16))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (scale,), (offset,)
    with pytest.raises(
        RasterError, match=rf"found scale {scale:g}, offset {offset:g}\.\nCorrect the tags, for instance"
    ):
        RasterSource.open(path)


def test_complex_numbers(write_raster):
    path = write_raster("a.tif", np.ones((2, 2), np.complex64))
    with pytest.raises(RasterError) as caught:
        RasterSource.open(path)
    assert str(caught.value) == (
        f"{path}: expected real numbers, found complex64: each value has a real and an imaginary part.\n"
        "Save the part or the magnitude that you need as a raster of its own, for instance with numpy.abs."
    )


def test_bands_come_in_the_order_asked(write_raster):
    source = RasterSource.open(write_raster("a.tif", np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((3, 2, 2))))
    assert source.read(source.geobox, bands=(3, 1))[0][:, 0, 0].tolist() == [2, 0]


RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


def rgba(dtype, bands=4):
    values = np.full((bands, 8, 8), 100, dtype)
    values[-1] = np.iinfo(dtype).max
    values[-1, :2] = 0
    return values


@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_alpha_band_is_validity(write_raster, dtype, nodata):
    source = RasterSource.open(write_raster("a.tif", rgba(dtype), colours=RGBA, nodata=nodata))
    assert (source.alpha_band, source.data_bands, source.count) == (4, (1, 2, 3), 4)
    read, valid = source.read(source.geobox)
    assert read.shape == (3, 8, 8)
    assert (valid.sum(axis=1) == [0, 0, 8, 8, 8, 8, 8, 8]).all()


def test_alpha_of_an_image_with_five_bands(write_raster):
    colours = (*RGBA[:3], ColorInterp.undefined, ColorInterp.alpha)
    source = RasterSource.open(write_raster("a.tif", rgba(np.uint8, 5), colours=colours))
    assert (source.alpha_band, source.data_bands) == (5, (1, 2, 3, 4))


def test_near_infrared_that_is_tagged_alpha_is_data(write_raster):
    values = np.random.default_rng(0).integers(1, 250, (4, 20, 20)).astype(np.uint8)
    source = RasterSource.open(write_raster("a.tif", values, colours=RGBA))
    assert (source.alpha_band, source.data_bands) == (None, (1, 2, 3, 4))
    read, valid = source.read(source.geobox)
    assert valid.all()
    np.testing.assert_array_equal(read, values)


def test_soft_edges_of_transparency_are_no_near_infrared(write_raster):
    values = np.full((4, 40, 100), 100, np.uint8)
    values[3] = np.clip(np.arange(-9, 91) * 6.4, 0, 255)  # off for 10 columns, rising for 40, then fully on
    source = RasterSource.open(write_raster("a.tif", values, colours=RGBA))
    assert (source.alpha_band, source.data_bands) == (4, (1, 2, 3))
    assert source.read(source.geobox)[1].sum(axis=0).tolist() == [0] * 10 + [40] * 90


def test_who_asks_for_bands_decides_what_transparency_is(write_raster):
    values = np.full((4, 1, 3), 100, np.uint8)
    values[3] = [0, 128, 255]
    source = RasterSource.open(write_raster("a.tif", values, colours=RGBA))
    three, four = source.with_bands((3, 2, 1)), source.with_bands((1, 2, 3, 4))
    assert (three.alpha_band, four.alpha_band) == (4, None)
    assert three.read(three.geobox)[1].tolist() == [[False, True, True]]
    assert four.read(four.geobox)[1].all()


def test_a_band_that_is_named_as_data_is_no_transparency(write_raster):
    values = np.full((4, 8, 8), 255, np.uint8)
    path = write_raster("a.tif", values, colours=RGBA)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("red", "green", "blue", "nir")
    source = RasterSource.open(path)
    assert source.data_bands == (1, 2, 3, 4)
    assert source.with_bands((1, 2, 3)).alpha_band is None


def test_a_mask_band_is_validity(write_raster):
    mask = np.full((6, 6), 255, np.uint8)
    mask[:, 0] = 0
    source = RasterSource.open(write_raster("a.tif", np.zeros((6, 6), np.uint8), mask=mask))
    assert source.mask == "dataset"
    assert source.read(source.geobox)[1].tolist() == [[False] + [True] * 5] * 6


# --- values ---------------------------------------------------------------------------------------------------------


def test_the_own_grid_gives_the_files_own_values(write_raster):
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    source = RasterSource.open(write_raster("a.tif", values))
    read, valid = source.read(source.geobox, (-1, 3, 2, 7))
    assert valid.tolist() == [[False] * 5, *[[True] * 3 + [False] * 2] * 3]
    np.testing.assert_array_equal(read[0, 1:, :3], values[:3, 2:])
    assert np.isnan(read[0, ~valid]).all()


@pytest.mark.parametrize("pixel", [0.4, 1.0, 1.3])
def test_interpolation_reproduces_a_plane(write_raster, pixel):
    source = RasterSource.open(write_raster("a.tif", plane((40, 50), 1.0)))
    grid = grid_at(pixel, (20, 24), x=3.17, y=4.81)
    read, valid = source.read(grid)
    assert valid.all()
    rows, cols = ((np.arange(n) + 0.5) * pixel for n in grid.shape)
    expected = 100 + 0.1 * (cols[None, :] + 3.17) - 0.07 * (rows[:, None] + 4.81)
    # Four values, each times a weight from four operations.
    np.testing.assert_allclose(read[0], expected, rtol=0, atol=rounding(110, terms=4 * 4))


@pytest.mark.parametrize("pixel", [1.5, 2.5, 3.0, 7.0])
def test_averages_reproduce_a_plane(write_raster, pixel):
    source = RasterSource.open(write_raster("a.tif", plane((60, 60), 1.0)))
    grid = grid_at(pixel, (5, 6), x=6.0, y=7.0)
    rows, cols = ((np.arange(n) + 0.5) * pixel for n in grid.shape)
    expected = 100 + 0.1 * (cols[None, :] + 6) - 0.07 * (rows[:, None] + 7)
    # The mean of up to 8 x 8 sub-pixels, each interpolated between 4 pixels.
    np.testing.assert_allclose(source.read(grid)[0][0], expected, rtol=0, atol=rounding(110, terms=64 * 4))


def test_a_plane_in_degrees_arrives_exactly_on_a_utm_grid(write_raster):
    """Heights 100 + 2000 (lon - 3) + 3000 (lat - 45): 90 m pixels, where an approximate warp is metres off."""
    pixel, shape = 1 / 1200, (60, 60)
    lon = 1.7 + (np.arange(60) + 0.5) * pixel
    lat = 45.2 - (np.arange(60) + 0.5) * pixel
    heights = 100 + 2000 * (lon[None, :] - 1.7) + 3000 * (lat[:, None] - 45.15)
    source = RasterSource.open(
        write_raster("dem.tif", heights.astype(np.float64), pixel=pixel, origin=(1.7, 45.2), crs="EPSG:4326")
    )
    x, y = pyproj.Transformer.from_crs(4326, 32631, always_xy=True).transform(1.725, 45.175)
    grid = GeoBox((40, 30), Affine(25, 0, x - 375, 0, -25, y + 500), UTM31)
    read, valid = source.read(grid)
    assert valid.all()
    assert shape == source.geobox.shape
    cols, rows = np.meshgrid(np.arange(30) + 0.5, np.arange(40) + 0.5)
    at_lon, at_lat = pyproj.Transformer.from_crs(32631, 4326, always_xy=True).transform(*(grid.affine @ (cols, rows)))
    expected = 100 + 2000 * (at_lon - 1.7) + 3000 * (at_lat - 45.15)
    assert np.abs(read[0] - expected).max() < 1e-3


def test_a_rotated_raster_on_a_north_up_grid(write_raster):
    turn = Affine.translation(LEFT, TOP) @ Affine.rotation(30) @ Affine.scale(1, -1)
    cols, rows = np.meshgrid(np.arange(60) + 0.5, np.arange(60) + 0.5)
    x, y = turn @ (cols, rows)
    source = RasterSource.open(write_raster("a.tif", (x - LEFT) + 2 * (y - TOP), transform=turn))
    grid = GeoBox((10, 10), Affine(1, 0, LEFT + 38, 0, -1, TOP - 6), UTM31)
    read, valid = source.read(grid)
    assert valid.all()
    cols, rows = np.meshgrid(np.arange(10) + 38.5, np.arange(10) + 6.5)
    np.testing.assert_allclose(read[0], cols - 2 * rows, rtol=0, atol=rounding(200, terms=4))


def test_three_to_one_is_the_exact_mean(write_raster):
    values = np.random.default_rng(0).integers(0, 255, (2, 30, 42)).astype(np.uint8)
    source = RasterSource.open(write_raster("a.tif", values))
    read, valid = source.read(grid_at(3, (10, 14)))
    assert valid.all()
    np.testing.assert_allclose(read, values.reshape(2, 10, 3, 14, 3).mean(axis=(2, 4)), rtol=rounding(1, terms=9 * 4))


@pytest.mark.parametrize(("pixel", "expected"), [(1.49, 1.0), (1.5, 0.625**2), (2.0, 0.5**2)])
def test_the_mean_is_taken_from_one_and_a_half_times_the_size_on(write_raster, pixel, expected):
    values = np.zeros((30, 30), np.float32)
    values[10, 10] = 1
    source = RasterSource.open(write_raster("a.tif", values))
    # A pixel centred on the spike: interpolated it is 1; its four sub-pixels lie pixel / 4 off along each axis.
    corner = 10.5 - pixel / 2
    read, _ = source.read(grid_at(pixel, (1, 1), x=corner, y=corner))
    assert read[0, 0, 0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("pixel", [0.3, 1.1, 1.7, 2.5, 4.0])
def test_what_is_invalid_never_bleeds(write_raster, pixel):
    values = np.full((60, 60), 50.25, np.float32)
    values[np.random.default_rng(1).random((60, 60)) < 0.4] = -9999
    source = RasterSource.open(write_raster("a.tif", values, nodata=-9999))
    read, valid = source.read(grid_at(pixel, (int(60 / pixel), int(60 / pixel)), x=0.11, y=0.07))
    assert 0.2 < valid.mean() < 1
    np.testing.assert_allclose(read[0, valid], 50.25, rtol=rounding(1, terms=16 * 4))
    assert np.isnan(read[0, ~valid]).all()


def test_half_of_the_weight_makes_a_pixel_valid(write_raster):
    values = np.array([[10, -1, -1, 30]] * 2, np.float32)
    source = RasterSource.open(write_raster("a.tif", values, nodata=-1))
    # Half-pixel shift: each new pixel has half of its weight on each neighbour.
    read, valid = source.read(GeoBox((2, 3), Affine(1, 0, LEFT + 0.5, 0, -1, TOP), UTM31))
    assert valid.tolist() == [[True, False, True]] * 2
    np.testing.assert_array_equal(read[0, 0], [10, np.nan, 30])
    # A quarter of the weight is not enough.
    _, valid = source.read(GeoBox((2, 1), Affine(1, 0, LEFT + 0.75, 0, -1, TOP), UTM31))
    assert not valid.any()


@pytest.mark.parametrize("window", [(1000, 1010, 0, 5), (-20, -10, 0, 5), (10**9, 10**9 + 4, -(10**9), 4 - 10**9)])
@pytest.mark.parametrize("pixel", [1.0, 0.7, 3.0])
def test_a_window_outside_is_invalid(write_raster, window, pixel):
    source = RasterSource.open(write_raster("a.tif", np.ones((3, 10, 10), np.uint8)))
    read, valid = source.read(grid_at(pixel), window)
    assert read.shape == (3, window[1] - window[0], window[3] - window[2])
    assert not valid.any()
    assert np.isnan(read).all()


def test_a_window_partly_outside(write_raster):
    source = RasterSource.open(write_raster("a.tif", np.full((10, 10), 4.0, np.float32)))
    read, valid = source.read(grid_at(0.5), (-2, 3, 17, 23))
    assert valid.tolist() == [[False] * 6] * 2 + [[True] * 3 + [False] * 3] * 3
    np.testing.assert_array_equal(read[0, valid], 4.0)


# --- classes --------------------------------------------------------------------------------------------------------


def test_classes_never_become_others(write_raster):
    values = np.random.default_rng(2).choice([1, 5, 200], (40, 40)).astype(np.uint8)
    source = RasterSource.open(write_raster("a.tif", values))
    for pixel in (0.37, 1.2, 1.9, 3.3):
        read, valid = source.read(grid_at(pixel, (10, 10), x=0.3, y=0.4), kind="categorical")
        assert set(np.unique(read[0, valid])) <= {1, 5, 200}


def test_nearest_of_a_finer_grid_repeats_pixels(write_raster):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    source = RasterSource.open(write_raster("a.tif", values))
    read, valid = source.read(grid_at(0.5, (6, 8)), kind="categorical")
    assert valid.all()
    np.testing.assert_array_equal(read[0], values.repeat(2, 0).repeat(2, 1))


def test_majority_and_ties(write_raster):
    values = np.array([[7, 7, 3, 9], [7, 1, 9, 3], [4, 255, 255, 255], [255, 4, 255, 8]], np.uint8)
    source = RasterSource.open(write_raster("a.tif", values, nodata=255))
    read, valid = source.read(grid_at(2, (2, 2)), kind="categorical")
    # Two 3 and two 9: the smaller. Two of four pixels valid: enough. One of four: not enough.
    np.testing.assert_array_equal(read[0], [[7, 3], [4, np.nan]])
    assert valid.tolist() == [[True, True], [True, False]]


# --- windows and lattices -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> RasterSource:
    path = tmp_path_factory.mktemp("noise") / "noise.tif"
    rng = np.random.default_rng(3)
    values = rng.normal(1000, 300, (2, 90, 110)).astype(np.float32)
    values[:, rng.random((90, 110)) < 0.1] = np.nan
    where = Affine(1.0, 0, LEFT, 0, -1.0, TOP)
    with rasterio.open(
        path, "w", driver="GTiff", crs=UTM31, transform=where, count=2, height=90, width=110, dtype="float32"
    ) as target:
        target.write(values)
    return RasterSource.open(path)


def _lon_lat_grid(shape, pixel):
    lon, lat = pyproj.Transformer.from_crs(32631, 4326, always_xy=True).transform(LEFT - 3, TOP + 2)
    return GeoBox(shape, Affine(pixel, 0, lon, 0, -pixel, lat), "EPSG:4326")


TURNED = Affine.translation(LEFT + 50, TOP + 20) @ Affine.rotation(-40) @ Affine.scale(0.9, -1.2)
GRIDS = {
    "own": grid_at(1.0, (90, 110)),
    "shifted": grid_at(1.0, (80, 90), x=0.31, y=-0.44),
    "finer": grid_at(0.6, (120, 140), x=-5.2, y=3),
    "mean of 2": grid_at(2.0, (50, 60), x=-3.1, y=-2.2),
    "mean of 3.3": grid_at(3.3, (30, 36)),
    "mean of 9": grid_at(9.0, (11, 13)),
    "rotated": GeoBox((70, 80), TURNED, UTM31),
    "degrees": _lon_lat_grid((80, 80), 1.1e-5),
    "coarse degrees": _lon_lat_grid((25, 25), 4e-5),
}


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
@pytest.mark.parametrize("name", GRIDS)
def test_a_pixel_does_not_depend_on_the_window(noise, name, kind):
    grid = GRIDS[name]
    whole, valid = noise.read(grid, kind=kind, bands=(1,) if kind == "categorical" else None)
    assert valid.any()

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        r0 = data.draw(st.integers(0, grid.shape[0] - 1))
        c0 = data.draw(st.integers(0, grid.shape[1] - 1))
        r1 = data.draw(st.integers(r0 + 1, min(grid.shape[0], r0 + 40)))
        c1 = data.draw(st.integers(c0 + 1, min(grid.shape[1], c0 + 40)))
        part, ok = noise.read(grid, (r0, r1, c0, c1), kind=kind, bands=(1,) if kind == "categorical" else None)
        assert part.tobytes() == whole[:, r0:r1, c0:c1].tobytes()
        assert ok.tobytes() == valid[r0:r1, c0:c1].tobytes()

    check()


@pytest.mark.parametrize("limit", [1, 50, 700])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_a_strong_reduction_in_parts_equals_one_at_once(noise, monkeypatch, limit, kind):
    bands = (1,)
    whole, valid = noise.read(GRIDS["mean of 9"], bands=bands, kind=kind)
    monkeypatch.setattr(warp, "_SUB_PIXELS", limit)
    parts, ok = noise.read(GRIDS["mean of 9"], bands=bands, kind=kind)
    assert whole.tobytes() == parts.tobytes()
    np.testing.assert_array_equal(ok, valid)


def test_reads_from_threads_are_equal(noise):
    windows = [(r, r + 20, c, c + 20) for r in range(0, 60, 20) for c in range(0, 60, 20)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda w: noise.read(GRIDS["degrees"], w)[0], windows))
    for window, read in zip(windows, results, strict=True):
        assert read.tobytes() == noise.read(GRIDS["degrees"], window)[0].tobytes()


def test_a_shift_that_grows_along_the_rows_is_resampled(write_raster):
    # Pixels of 1.001 m: 0.4 px off at column 400, where the same-lattice shortcut would return the wrong pixel.
    values = np.tile(np.arange(400, dtype=np.float32), (4, 1))
    source = RasterSource.open(write_raster("a.tif", values))
    grid = GeoBox((4, 399), Affine(1.001, 0, LEFT, 0, -1, TOP), UTM31)
    read, _ = source.read(grid)
    expected = (np.arange(399) + 0.5) * 1.001 - 0.5
    np.testing.assert_allclose(read[0, 1], expected, atol=1e-3)


# --- overlap --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crs", "left"), [("EPSG:4326", 178.0), ("EPSG:4326", -182.0), ("EPSG:4326", 538.0), ("EPSG:4807", 197.5)]
)
def test_longitudes_beyond_half_a_turn(write_raster, crs, left):
    """A scene across the antimeridian, in whatever way its longitudes are counted."""
    values = np.arange(1, 401, dtype=np.float32).reshape(20, 20)
    grad = crs == "EPSG:4807"
    source = RasterSource.open(
        write_raster("s.tif", values, crs=crs, transform=Affine(0.2, 0, left, 0, -0.2, -17.0), nodata=0)
    )
    assert source.geobox.crs.geographic
    grid = working_grid(source.geobox, 5000)
    found, valid = source.read(grid)
    # All of it is there: the area of 4 x 4 degrees (or grads) in cells of 25 km2.
    side = 0.9 if grad else 1.0
    expected = (4 * side) ** 2 * 111.2**2 * np.cos(np.radians(19 * side)) / 25
    assert valid.sum() == pytest.approx(expected, rel=0.03)
    assert np.nanmax(found) > 395
    assert np.nanmin(found) < 6


def test_a_raster_from_0_to_360_degrees_meets_one_from_minus_180_to_180(write_raster):
    values = np.arange(360, dtype=np.float32)[None].repeat(10, 0)
    source = RasterSource.open(write_raster("s.tif", values, crs="EPSG:4326", transform=Affine(1, 0, 0, 0, -1, 5)))
    for left, pixel in ((-70, 1.0), (290, 1.0), (-70, 0.5)):
        west = GeoBox((1, round(4 / pixel)), Affine(pixel, 0, left, 0, -1, 0), "EPSG:4326")
        found = source.read(west)[0][0, 0]
        np.testing.assert_allclose(found, np.arange(290 - 0.5 + pixel / 2, 293.5, pixel), atol=1e-4)
        require_overlap({"source": source}, west)


def virtual_bands(tmp_path, write_raster, *bands):
    """A virtual raster over ones, with the type and nodata value of each band."""
    write_raster("ones.tif", np.ones((9, 9), np.uint8))
    source = "<SimpleSource><SourceFilename relativeToVRT='1'>ones.tif</SourceFilename></SimpleSource>"
    listed = "".join(
        f"<VRTRasterBand dataType='{kind}' band='{i}'>"
        f"{'' if nodata is None else f'<NoDataValue>{nodata}</NoDataValue>'}{source}</VRTRasterBand>"
        for i, (kind, nodata) in enumerate(bands, start=1)
    )
    path = tmp_path / "s.vrt"
    path.write_text(
        "<VRTDataset rasterXSize='9' rasterYSize='9'><SRS>EPSG:32631</SRS>"
        f"<GeoTransform>400000,1,0,5000000,0,-1</GeoTransform>{listed}</VRTDataset>"
    )
    return RasterSource.open(path)


def test_bands_of_different_types_are_refused_where_both_are_read(tmp_path, write_raster):
    found = virtual_bands(tmp_path, write_raster, ("Byte", None), ("UInt16", None))
    with pytest.raises(RasterError) as caught:
        found.read(found.geobox)
    assert str(caught.value) == (
        f"{found.path}: expected one type for the bands 1, 2, found uint8, uint16.\n"
        "Give them one, for instance: gdal_translate -ot Float32 s.vrt alike.tif"
    )
    assert found.read(found.geobox, bands=(2,))[1].all()


def test_each_band_has_its_own_nodata_value(tmp_path, write_raster):
    one_of_two = virtual_bands(tmp_path, write_raster, ("Byte", None), ("Byte", 1))
    assert one_of_two.read(one_of_two.geobox)[1].all()
    both = virtual_bands(tmp_path, write_raster, ("Byte", 1), ("Byte", 1))
    assert not both.read(both.geobox)[1].any()
    other = virtual_bands(tmp_path, write_raster, ("Byte", 1), ("Byte", 2))
    assert other.read(other.geobox)[1].all()


def test_polygons_in_place_of_a_raster(tmp_path):
    path = tmp_path / "labels.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(RasterError, match=r"Polygons, lines and points can be labels: name them as `labels`\.$"):
        RasterSource.open(path)


def test_rasters_that_do_not_meet(write_raster):
    path = write_raster("dsm.tif", np.ones((10, 10), np.float32), origin=(500_000.0, TOP))
    with pytest.raises(OverlapError) as caught:
        require_overlap({"elevation": RasterSource.open(path)}, grid_at(1.0, (10, 10)))
    assert str(caught.value) == (
        f"{path}: the elevation raster does not meet the reference grid.\n"
        "Expected some part of x 400000 to 400010, y 4999990 to 5000000; "
        "found x 500000 to 500010, y 4999990 to 5000000 (in the CRS of the reference).\n"
        "Check that the files show the same place and carry the right CRS."
    )


def test_a_raster_that_spans_the_globe_meets_any_scene(write_raster):
    path = write_raster("dem.tif", np.ones((90, 180), np.float32), pixel=2.0, origin=(-180.0, 90.0), crs="EPSG:4326")
    require_overlap({"elevation": RasterSource.open(path)}, grid_at(1.0))


def test_a_raster_of_another_planet(write_raster):
    path = write_raster("mars.tif", np.ones((9, 9), np.uint8), crs="ESRI:104905", origin=(0.0, 10.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = RasterSource.open(path)
    with pytest.raises(
        OverlapError, match="the optical raster cannot be put on the reference grid: there is no transf"
    ):
        require_overlap({"optical": source}, grid_at(1.0))


def test_no_file_is_held_open(write_raster):
    path = Path(write_raster("a.tif", np.ones((9, 9), np.uint8)))
    source = RasterSource.open(path)
    source.read(source.geobox)
    path.unlink()
    with pytest.raises(RasterError, match="cannot be read at rows 0 to 9"):
        source.read(source.geobox)


def test_a_dark_pixel_is_no_nodata_where_zero_marks_it(write_raster):
    values = np.array([[[0, 0, 5]], [[0, 7, 5]], [[0, 0, 0]]], np.uint8)
    source = RasterSource.open(write_raster("a.tif", values, nodata=0))
    np.testing.assert_array_equal(source.read(source.geobox)[1], [[False, True, True]])
