"""Class maps of labelled arrays."""

import math
import shutil
from dataclasses import replace
from threading import Lock

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from affine import Affine
from helpers.small_scenes import (
    UTM,
    PixelByPixel,
    brightest,
    classes_of,
    grouped,
    heights,
    image,
    make_bundle,
    write_raster,
)
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from geocrodino.bundle.manifest import Calibration
from geocrodino.errors import BundleError, GridError, HeightError, MissingCRSError, ValueRangeWarning
from geocrodino.prediction import lazy
from geocrodino.prediction.engine import predict
from geocrodino.prediction.lazy import predict_array
from geocrodino.settings.ground import GroundFilter

pytestmark = pytest.mark.usefixtures("kept_networks")

SHAPE = (70, 90)
TILES = {"core_px": 32, "backend": "torch"}


@pytest.fixture(autouse=True)
def no_networks_of_other_tests():
    yield
    lazy._networks.cache_clear()


@pytest.fixture
def by_pixel_lazily(monkeypatch):
    calls = []
    lazy._networks.cache_clear()
    monkeypatch.setattr(lazy, "open_backend", lambda *_, temperature, **__: PixelByPixel(calls, temperature))
    return calls


def labelled(values, *, chunks=None, nodata=None, transform=UTM, crs="EPSG:32610", name="scene", **attributes):
    grid = GeoBox(values.shape[-2:], transform, crs)
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    found = xr.DataArray(data, xr_coords(grid, dims=("y", "x")), ("band", "y", "x")[-values.ndim :], name, attributes)
    if nodata is not None:
        found.attrs["nodata"] = nodata
    return found


def of_file(folder, values, bundle, modality, nodata=None):
    path = write_raster(folder / "s.tif", values, nodata=nodata)
    predict(path, folder / "m.tif", bundle, modality, **grouped(overwrite=True, **TILES))
    return classes_of(folder / "m.tif")


@pytest.fixture(scope="module")
def dark(bundle, tmp_path_factory):
    """An image with a hole and with pixels that are dark in one band, and the map of its file."""
    values = image(*SHAPE)
    values[:, 10:30, 40:60] = 0  # nodata
    values[0, 40:50, 10:30] = 0
    return values, of_file(tmp_path_factory.mktemp("dark"), values, bundle, "optical", nodata=0)


CHUNKS = [None, (3, 70, 90), (1, 13, 29), (2, 64, 7)]


@pytest.mark.parametrize("chunks", CHUNKS)
def test_an_image_gives_the_map_of_its_file(bundle, dark, chunks):
    values, expected = dark
    found = predict_array(labelled(values, chunks=chunks, nodata=0), bundle, "optical", **TILES)
    assert (found.dims, found.shape, found.dtype, found.attrs["nodata"]) == (("y", "x"), SHAPE, np.uint8, 255)
    assert found.odc.geobox == GeoBox(SHAPE, UTM, "EPSG:32610")
    assert found.chunks == ((32, 32, 6), (32, 32, 26))
    np.testing.assert_array_equal(found.values, expected)
    assert len(np.unique(expected)) == 4
    assert (expected == 255).sum() == 400


@pytest.mark.filterwarnings("ignore::geocrodino.errors.HeightRangeWarning")
def test_impossible_heights_beside_the_edge_of_a_chunk(bundle, tmp_path):
    metres = heights(*SHAPE)
    metres[[31, 32, 5], [31, 64, 89]] = -9999, 4000, -32768
    metres[30:34, 62:66][1:3, 1:3] = 3000  # in four chunks
    expected = of_file(tmp_path, metres, bundle, "elevation")
    found = predict_array(labelled(metres, chunks=(13, 29)), bundle, "elevation", **TILES)
    np.testing.assert_array_equal(found.values, expected)
    assert (expected == 255).sum() >= 3


def test_bands_are_found_by_the_names_of_an_array(bundle, by_pixel_lazily):
    values = image(40, 40)
    expected = brightest(values)
    by_attribute = labelled(values[::-1], long_name=("blue", "green", "red"))
    by_coordinate = labelled(values[::-1]).assign_coords(band=["B2", "B3", "B4"])
    for array in (by_attribute, by_coordinate):
        found = predict_array(array, bundle, "optical", **TILES)
        np.testing.assert_array_equal(found.values, expected)


def test_scale_and_offset_of_an_array(bundle, by_pixel_lazily):
    values = image(40, 40)
    stored = (values.astype(np.uint16) - 1) * 2
    array = labelled(stored, scale_factor=0.5, add_offset=1.0)
    np.testing.assert_array_equal(predict_array(array, bundle, "optical", **TILES).values, brightest(values))


def test_another_type_than_the_training_s_is_a_warning(tmp_path):
    bundle = make_bundle(tmp_path / "b")
    spec = bundle.manifest.modalities["optical"]
    recipe = spec.recipe.model_copy(update={"dtype": "uint8"})
    modalities = {**bundle.manifest.modalities, "optical": spec.model_copy(update={"recipe": recipe})}
    typed = replace(bundle, manifest=bundle.manifest.model_copy(update={"modalities": modalities}))
    with pytest.warns(ValueRangeWarning, match="the array has the type uint16, and the model was trained on uint8"):
        predict_array(labelled(image(40, 40).astype(np.uint16)), typed, "optical", **TILES)


def test_margins_are_told_to_the_backend(bundle, monkeypatch):
    asked = []
    monkeypatch.setattr(lazy, "open_backend", lambda *_, unused_px, **__: asked.append(unused_px) or PixelByPixel())
    lazy._networks.cache_clear()
    predict_array(labelled(image(40, 40)), bundle, "optical", **TILES).compute()
    lazy._networks.cache_clear()
    assert asked == [56]


@pytest.mark.filterwarnings("ignore::geocrodino.errors.HeightRangeWarning")
def test_heights_give_the_map_of_their_file(tmp_path):
    """The ground is sought far beyond a tile."""
    near = GroundFilter(radii_m=(2, 5), fill_m=3)
    bundle = make_bundle(tmp_path / "b", heights=("slope", "height_above_ground"), ground=near)
    metres = heights(*SHAPE)
    metres[20:30, 20:50] = -9999
    expected = of_file(tmp_path, metres, bundle, "elevation", nodata=-9999)
    for chunks in CHUNKS[:3]:
        array = labelled(metres[None], chunks=chunks, nodata=-9999)
        np.testing.assert_array_equal(predict_array(array, bundle, "elevation", **TILES).values, expected)
    np.testing.assert_array_equal(predict_array(array[0], bundle, "elevation", **TILES).values, expected)
    assert len(np.unique(expected)) > 2
    assert (expected == 255).sum() >= 300


@pytest.mark.filterwarnings("ignore::geocrodino.errors.HeightRangeWarning")
def test_ground_is_the_same_as_far_as_a_network_sees(tmp_path, monkeypatch):
    """A stand-in that looks at one pixel alone, 52 rows and columns away, where a trained network hardly looks."""

    class FarSighted(PixelByPixel):
        def __call__(self, values):
            return super().__call__(np.roll(values[:1], (-52, -52), axis=(1, 2)))

    for module in ("job", "lazy"):
        monkeypatch.setattr(f"geocrodino.prediction.{module}.open_backend", lambda *_, **__: FarSighted())
    near = GroundFilter(radii_m=(2, 5), fill_m=3)
    bundle = make_bundle(tmp_path / "b", heights=("height_above_ground",), ground=near)
    metres = 4 * heights(150, 170)
    expected = of_file(tmp_path, metres, bundle, "elevation")
    np.testing.assert_array_equal(predict_array(labelled(metres), bundle, "elevation", **TILES).values, expected)
    assert len(np.unique(expected)) == 3


def test_more_threads_of_torch_make_no_difference(bundle, dark):
    values, expected = dark
    torch.set_num_threads(2)
    try:
        found = predict_array(labelled(values, nodata=0), bundle, "optical", **TILES).compute(num_workers=3)
    finally:
        torch.set_num_threads(1)
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", None), ("uint8", 7), ("uint8", -9999), ("uint8", 1e30), ("uint8", math.nan), ("uint16", -9999),
        ("int16", 7), ("float32", None), ("float32", -9999), ("float64", math.nan), ("float64", 7),
    ],
)  # fmt: skip
def test_types_and_marks_of_nodata(bundle, by_pixel, by_pixel_lazily, tmp_path, dtype, nodata):
    """A mark that no pixel of the type can hold marks none."""
    values = image(20, 30).astype(dtype)
    values[:, 5:9, 5:9] = 7
    if values.dtype.kind == "u":
        values[:, 12, 12] = 2 ** (8 * values.itemsize) - 9999 % 2 ** (8 * values.itemsize)  # the same bits as -9999
    if values.dtype.kind == "f":
        values[1, 0, :3] = np.nan, np.inf, -np.inf
    if dtype == "float64":
        values[2, 1, 0] = 1e300
    mark = None if nodata is None or (nodata != 7 and values.dtype.kind != "f") else nodata
    expected = of_file(tmp_path, values, bundle, "optical", nodata=mark)
    found = predict_array(labelled(values, nodata=nodata), bundle, "optical", **TILES)
    np.testing.assert_array_equal(found.values, expected)
    lost = 3 * (values.dtype.kind == "f") + (dtype == "float64") + 16 * (nodata == 7)
    assert (expected == 255).sum() == lost


def test_units_are_those_of_the_attribute_or_as_asked(bundle, by_pixel_lazily):
    """10 m are grass, 10 feet water, 100 feet roof."""
    for value, attributes, options, expected in (
        (10, {}, {}, 2),
        (10, {"units": "ft"}, {}, 0),
        (100, {"units": "ft"}, {}, 5),
        (100, {"units": "ft"}, {"height_unit": "dm"}, 2),
    ):
        array = labelled(np.full((5, 5), value, np.float32), **attributes)
        assert (predict_array(array, bundle, "elevation", **TILES, **options).values == expected).all()
    with pytest.raises(HeightError, match="unknown unit of height 'cubits'"):
        predict_array(labelled(np.zeros((5, 5))), bundle, "elevation", height_unit="cubits").compute()


class Noted:
    """An array that notes which parts of it are read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.reads, self._lock = [], Lock()

    def __getitem__(self, key):
        with self._lock:
            self.reads.append(key)
        return self.values[key]


def test_nothing_is_read_or_computed_before_it_is_asked_for(bundle, by_pixel_lazily):
    values = image(256, 256)
    noted = Noted(values)
    array = labelled(values).copy(data=da.from_array(noted, chunks=(3, 32, 32), meta=np.empty((0, 0, 0), np.uint8)))
    lazily = predict_array(array, bundle, "optical", **TILES)
    assert isinstance(lazily.data, da.Array)
    corner = lazily[:20, :20]
    assert (noted.reads, by_pixel_lazily) == ([], [])
    np.testing.assert_array_equal(corner.values, brightest(values)[:20, :20])
    assert len(by_pixel_lazily) == 1
    # The tile reads 32 px and a margin of 56 px: the first 3 x 3 chunks of 8 x 8.
    assert len(noted.reads) == 9
    assert {key[1].start for key in noted.reads} == {key[2].start for key in noted.reads} == {0, 32, 64}
    np.testing.assert_array_equal(lazily.values, brightest(values))
    assert len(by_pixel_lazily) == 1 + 64


def test_a_part_is_that_of_the_whole(bundle):
    whole = predict_array(labelled(image(*SHAPE), chunks=(3, 20, 20)), bundle, "optical", **TILES)
    values = whole.values
    for rows, cols in ((slice(5, 6), slice(80, 90)), (slice(31, 33), slice(31, 65)), (slice(69, 70), slice(0, 90))):
        np.testing.assert_array_equal(whole[rows, cols].values, values[rows, cols])


def test_a_tile_without_data_is_not_computed(bundle, by_pixel_lazily):
    values = np.zeros((3, 64, 256), np.uint8)
    values[:, :, :10] = 9
    found = predict_array(labelled(values, nodata=0), bundle, "optical", core_px=64, backend="torch")
    assert (found.values[:, 10:] == 255).all()
    assert len(by_pixel_lazily) == 1  # the second of four reads the data in its margin alone


def test_it_is_a_part_of_other_work(bundle, by_pixel_lazily):
    values = image(*SHAPE)
    array = labelled(values, chunks=(3, 32, 32))
    share = (predict_array(array, bundle, "optical", **TILES) == 5).mean()
    brighter = array.max("band").mean()
    found = dask.compute(share, brighter)
    assert float(found[0]) == (brightest(values) == 5).mean()
    assert float(found[1]) == pytest.approx(values.max(axis=0).mean())


def test_it_crosses_to_other_processes(bundle, by_pixel_lazily):
    lazily = predict_array(labelled(image(40, 40), chunks=(3, 20, 20)), bundle, "optical", **TILES)
    again = cloudpickle.loads(cloudpickle.dumps(lazily))
    np.testing.assert_array_equal(again.values, lazily.values)


def test_a_calibration_changes_no_class(bundle, tmp_path):
    sharp = make_bundle(
        tmp_path / "sharp",
        calibration=Calibration(
            temperature={"optical": 0.4, "elevation": 3}, weight={"optical": 0.9, "elevation": 0.1}
        ),
    )
    array = labelled(image(*SHAPE))
    found = [predict_array(array, used, "optical", **TILES).values for used in (bundle, str(sharp.path))]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (20, 1), (33, 31)])
def test_small_arrays(bundle, by_pixel_lazily, shape):
    values = image(*shape)
    found = predict_array(labelled(values), bundle, "optical", core_px=9, backend="torch")
    np.testing.assert_array_equal(found.values, brightest(values))
    assert max(found.data.chunksize) <= 16  # 9, rounded up to the stride


def test_other_names_of_the_axes(bundle, by_pixel_lazily):
    values = image(20, 30)
    named = labelled(values).rename(y="northing", x="easting", band="colour")
    found = predict_array(named, bundle, "optical", **TILES)
    assert found.dims == ("y", "x")
    np.testing.assert_array_equal(found.values, brightest(values))


FOUND = "40 rows x 50 columns at"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda a: a.transpose("y", "x", "band"), GridError,
            "expected an array (band, y, x) or (y, x), found ('y', 'x', 'band').\nTranspose it.",
        ),
        (
            lambda a: a.expand_dims("time"), GridError,
            "expected an array (band, y, x) or (y, x), found ('time', 'band', 'y', 'x').\nTranspose it.",
        ),
        (
            lambda a: xr.DataArray(a.values, dims=a.dims), MissingCRSError,
            "array: no coordinate reference system. Write one with array.odc.assign_crs or rioxarray.",
        ),
        (
            lambda a: labelled(a.values, transform=Affine(2, 0, 5e5, 0, -2, 4e6)), GridError,
            f"expected an array north up with pixels of 1 m, as in training, found {FOUND} 2 m, EPSG:32610.\n"
            "Bring it there with odc.geo.xr.xr_reproject, or use geocrodino.predict on a file.",
        ),
        (
            lambda a: labelled(a.values, transform=Affine(1e-5, 0, 7, 0, -1e-5, 50), crs="EPSG:4326"), GridError,
            f"expected an array north up with pixels of 1 m, as in training, found {FOUND} 0.717 x 1.11 m, EPSG:4326.\n"
            "Bring it there with odc.geo.xr.xr_reproject, or use geocrodino.predict on a file.",
        ),
        (
            lambda a: a[0], BundleError,
            "scene: expected 3 optical bands (red, green, blue; numbers 1, 2, 3), found 1 (band 1).\n"
            "Predict with a raster that has these bands, or train a bundle on the bands that there are.",
        ),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(bundle, change, error, message):
    with pytest.raises(error) as raised:
        predict_array(change(labelled(image(40, 50))), bundle, "optical")
    assert str(raised.value) == message


def test_upside_down(bundle):
    array = labelled(image(40, 50), transform=Affine(1, 0, 5e5, 0, 1, 4e6))
    with pytest.raises(GridError, match="expected an array north up"):
        predict_array(array, bundle, "optical")


def test_bundles_that_do_not_fit(bundle, tmp_path):
    array = labelled(image(20, 20))
    only = replace(bundle, manifest=bundle.manifest.model_copy(update={
        "modalities": {"elevation": bundle.manifest.modalities["elevation"]}
    }))  # fmt: skip
    with pytest.raises(BundleError, match="no branch for optical in this bundle"):
        predict_array(array, only, "optical")
    unbounded = replace(bundle, manifest=bundle.manifest.model_copy(update={"receptive_field_px": None}))
    with pytest.raises(BundleError) as error:
        predict_array(array, unbounded, "optical")
    assert str(error.value) == (
        f"{bundle.path}: tiles of this network cannot be joined exactly. Use geocrodino.predict."
    )
    with pytest.raises(BundleError, match="no such bundle"):
        predict_array(array, tmp_path / "none", "optical")


def test_a_bundle_that_is_replaced_before_it_is_used(bundle, constant, tmp_path):
    path = shutil.copy(bundle.path, tmp_path / "b")
    lazily = predict_array(labelled(image(20, 20)), path, "optical", **TILES)
    shutil.copy(constant.path, path)
    with pytest.raises(BundleError, match="the bundle is another one here"):
        lazily.compute()
