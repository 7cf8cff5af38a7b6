"""Rasters of any grid put on one: values, the cache, and each reason to refuse."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioIOError

from geocrodino.data import alignment, layer_files
from geocrodino.data.alignment import Sources, align, reference_grid
from geocrodino.errors import AOIError, LabelError, OutputError, OverlapError, RasterError
from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.grid import working_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.recipe import elevation_recipe, optical_recipe
from geocrodino.settings.classes import ClassScheme

LEFT, TOP = 400_000.0, 5_000_000.0


def _opened(role, path):
    source = RasterSource.open(path)
    return LabelSource.of(source) if role == "labels" else source


def _file(layers, role):
    return layers.labels if role == "labels" else layers.rasters[role]


def _with(sources, role, raster):
    """The sources with another raster in one role."""
    if role in sources.rasters:
        return replace(sources, rasters={**sources.rasters, role: raster})
    return replace(sources, **{role: raster})


class Count:
    """Counts the calls of a progress callback."""

    def __init__(self):
        self.calls = []

    def __call__(self, done, total):
        self.calls.append((done, total))


@pytest.fixture
def align_again(sources, recipes, scheme, tmp_path):
    def run(sources=sources, recipes=recipes, scheme=scheme, grid=None):
        """Whether the layers were written anew."""
        count = Count()
        align(sources, recipes, scheme, grid or sources.reference.geobox, tmp_path / "aligned", count)
        return bool(count.calls)

    return run


def test_layers_hold_physical_values(layers):
    optical, elevation, labels = layers.channels("optical"), layers.channels("elevation"), layers.class_indices()
    assert (optical.dtype, elevation.dtype, labels.dtype) == (np.float32, np.float32, np.uint8)
    assert (optical.shape, elevation.shape, labels.shape) == ((3, 96, 128), (2, 96, 128), (96, 128))
    assert optical[0, 5].tolist() == list(range(128))
    assert np.isnan(optical[:, 90:, 120:]).all()
    assert np.isnan(optical).sum() == 3 * 6 * 8
    assert elevation[0, :, 60].tolist() == list(range(100, 196))
    np.testing.assert_allclose(elevation[1, :, 60], 45, atol=1e-4)
    assert np.isnan(elevation[:, :10, :10]).all()
    assert (labels[:, :8] == 255).all()
    assert labels[:, 8:].mean(axis=1).tolist() == [0] * 32 + [1] * 32 + [2] * 32


def test_three_crs_and_three_resolutions_land_on_one_grid(write_raster, tmp_path):
    """A plane of heights in degrees, an image in UTM 31, labels in UTM 32 split along a meridian."""
    to_degrees = pyproj.Transformer.from_crs(32631, 4326, always_xy=True)
    to_utm32 = pyproj.Transformer.from_crs(32631, 32632, always_xy=True)
    optical = np.random.default_rng(0).integers(0, 200, (2, 60, 80)).astype(np.uint8)
    image = RasterSource.open(write_raster("optical.tif", optical, pixel=10.0))
    lon, lat = to_degrees.transform(LEFT + 400, TOP - 300)
    step = 3e-4
    rows, cols = np.mgrid[:60, :80]
    at_lon, at_lat = lon + (cols - 39.5) * step, lat - (rows - 29.5) * step
    heights = 500 + 3000 * (at_lon - lon) + 2000 * (at_lat - lat)
    where = (lon - 40 * step, lat + 30 * step)
    dem = RasterSource.open(write_raster("dem.tif", heights, pixel=step, origin=where, crs="EPSG:4326"))
    x, y = to_utm32.transform(LEFT + 400, TOP - 300)
    classes = np.where(np.arange(400) < 200, 4, 9).astype(np.uint8) * np.ones((300, 1), np.uint8)
    path = write_raster("labels.tif", classes, pixel=5.0, origin=(x - 1000, y + 750), crs="EPSG:32632")
    labels = LabelSource.of(RasterSource.open(path))
    recipes = {"optical": optical_recipe(image), "elevation": elevation_recipe(("height",))}
    scheme = ClassScheme.from_values([4, 9])
    layers = align(
        Sources({"optical": image, "elevation": dem}, labels), recipes, scheme, image.geobox, tmp_path / "aligned"
    )

    np.testing.assert_array_equal(layers.channels("optical"), optical)
    cols, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    here = image.geobox.affine @ (cols, rows)
    at_lon, at_lat = to_degrees.transform(*here)
    expected = 500 + 3000 * (at_lon - lon) + 2000 * (at_lat - lat)
    np.testing.assert_allclose(layers.channels("elevation")[0], expected, atol=1e-3)
    at_x, _ = to_utm32.transform(*here)
    clear = np.abs(at_x - x) > 5
    np.testing.assert_array_equal(layers.class_indices()[clear], (at_x >= x)[clear])
    assert clear.mean() > 0.9


def test_blocks_make_no_seam(sources, recipes, scheme, tmp_path, monkeypatch):
    grid = GeoBox((60, 70), Affine(1.7, 0, LEFT + 0.4, 0, -1.7, TOP - 0.9), "EPSG:32631")
    whole = align(sources, recipes, scheme, grid, tmp_path / "whole")
    monkeypatch.setattr(alignment, "_BLOCK_PX", 17)
    parts = align(sources, recipes, scheme, grid, tmp_path / "parts")
    for name in ("optical", "elevation", "labels"):
        assert _file(whole, name).read_bytes() == _file(parts, name).read_bytes()


def test_a_ground_raster_gives_dsm_minus_dtm(write_raster, sources, scheme, tmp_path):
    rows, _ = np.mgrid[:60, :60]
    # 2 m pixels, centres at 1, 3, 5 m: the same plane as the surface's 100 + row - 0.5, ten metres lower.
    dtm = RasterSource.open(write_raster("dtm.tif", (89.5 + 2 * rows + 1).astype(np.float32), pixel=2.0))
    sources = replace(sources, ground=RasterSource.open(dtm.path))
    recipes = {
        "optical": optical_recipe(sources.rasters["optical"]),
        "elevation": elevation_recipe(("height_above_ground",)),
    }
    layers = align(sources, recipes, scheme, sources.reference.geobox, tmp_path / "aligned")
    height = layers.channels("elevation")[0]
    np.testing.assert_allclose(height[2:90, 20:110], 10, atol=1e-4)
    assert np.isnan(height[:10, :10]).all()
    # What the ground does not cover is invalid.
    assert np.isnan(height[:, 121:]).all()


def test_heights_in_feet_become_metres(sources, recipes, scheme, tmp_path):
    layers = align(replace(sources, height_unit="ft"), recipes, scheme, sources.reference.geobox, tmp_path / "a")
    np.testing.assert_allclose(layers.channels("elevation")[0, 0, 60], 30.48, rtol=1e-6)


# --- cache ----------------------------------------------------------------------------------------------------------


def test_layers_are_taken_again_if_nothing_changed(layers, align_again):
    assert not align_again()


@pytest.mark.parametrize("name", ["optical.img", "elevation.img", "labels.img", "aligned.json"])
def test_layers_that_are_cut_short_are_written_again(layers, align_again, name):
    path = layers.rasters["optical"].with_name(name)
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    assert align_again()
    assert path.read_bytes() == content
    assert not align_again()


def _touch(sources, recipes, scheme, layers):
    stat = sources.labels.path.stat()
    os.utime(sources.labels.path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    return {}


CHANGES = {
    "a file": _touch,
    "the bands": lambda s, r, c, y: {
        "recipes": {**r, "optical": optical_recipe(s.rasters["optical"], (2, 1))},
        "sources": _with(s, "optical", s.rasters["optical"].with_bands((2, 1))),
    },
    "the channels": lambda s, r, c, y: {"recipes": {**r, "elevation": elevation_recipe(("slope",))}},
    "the unit": lambda s, r, c, y: {"sources": replace(s, height_unit="ft")},
    "ignored values": lambda s, r, c, y: {"sources": replace(s, labels=replace(s.labels, ignore_values=(2,)))},
    "recoded values": lambda s, r, c, y: {"sources": replace(s, labels=replace(s.labels, label_values=((2, 1),)))},
    "a ground raster": lambda s, r, c, y: {"sources": replace(s, ground=s.rasters["elevation"])},
    "the classes": lambda s, r, c, y: {"scheme": ClassScheme.from_values([0, 1, 2, 3])},
    "the grid": lambda s, r, c, y: {"grid": GeoBox((90, 90), s.reference.geobox.affine, s.reference.geobox.crs)},
    "a layer that is gone": lambda s, r, c, y: y.rasters["elevation"].unlink() or {},
    "a record cut short": lambda s, r, c, y: y.labels.with_name("aligned.json").write_text('{"key": "ab') and {},
}


@pytest.mark.parametrize("what", CHANGES)
def test_layers_are_written_again_if_something_changed(what, sources, recipes, scheme, layers, align_again):
    change = CHANGES[what](sources, recipes, scheme, layers)
    assert align_again(**change)
    assert not align_again(**change)


def test_a_failed_attempt_leaves_no_record(layers, align_again):
    with pytest.raises(LabelError):
        align_again(scheme=ClassScheme.from_values([1, 2]))
    assert align_again()


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_raster_elsewhere(write_raster, sources, align_again):
    far = RasterSource.open(write_raster("far.tif", np.ones((9, 9), np.float32), origin=(700_000.0, TOP)))
    for role in ("elevation", "ground"):
        with pytest.raises(OverlapError, match=rf"far\.tif: the {role} raster does not meet the reference grid\."):
            align_again(sources=_with(sources, role, far))


@pytest.mark.parametrize(("role", "dtype"), [("optical", np.uint8), ("elevation", np.float32), ("labels", np.uint8)])
def test_a_raster_without_a_valid_pixel(write_raster, sources, align_again, role, dtype):
    shape = (3, 96, 128) if role == "optical" else (96, 128)
    path = write_raster("void.tif", np.full(shape, 7, dtype), nodata=7)
    with pytest.raises(RasterError) as caught:
        align_again(sources=_with(sources, role, _opened(role, path)), grid=sources.reference.geobox)
    assert str(caught.value) == (
        f"{path}: no valid pixel within the area of interest (96 x 128 px): all of it is nodata.\n"
        "Check the nodata tag and the area."
    )


def test_labels_outside_the_classes(sources, align_again):
    with pytest.raises(
        LabelError, match=r"labels\.tif holds label values outside the classes: 3\. Expected: 1 class 1"
    ):
        align_again(scheme=ClassScheme.from_values([1, 2]))
    assert align_again(
        scheme=ClassScheme.from_values([1, 2]),
        sources=replace(sources, labels=replace(sources.labels, ignore_values=(3,))),
    )


def test_a_folder_that_cannot_be_made(sources, recipes, scheme, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "aligned"
    with pytest.raises(OutputError) as caught:
        align(sources, recipes, scheme, sources.reference.geobox, folder)
    assert str(caught.value).startswith(f"{folder}: cannot be written (")
    assert str(caught.value).endswith("Choose another folder with `out`.")


def test_a_source_cut_short_is_not_blamed_on_the_folder(write_raster, sources, align_again, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 96, 128)).astype(np.uint8)
    path = write_raster("cut.tif", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RasterError, match="the file is damaged or cut short"):
        align_again(sources=_with(sources, "optical", RasterSource.open(path)))


# --- classes and grid -----------------------------------------------------------------------------------------------


def test_reference_grid_is_the_part_that_the_area_covers(sources):
    area = read_aoi(f"{LEFT + 10.2},{TOP - 50},{LEFT + 20},{TOP - 39.5}", "EPSG:32631")
    grid = reference_grid(sources.reference, area, sources.reference.geobox)
    assert (grid.shape, grid.affine.c, grid.affine.f) == ((11, 10), LEFT + 10, TOP - 39)
    assert reference_grid(sources.reference, area, working_grid(sources.reference.geobox, 2.0)).shape == (6, 5)


@pytest.mark.parametrize(
    ("box", "crs", "found"),
    [
        ("399000,4999990,399900,5000000", "EPSG:32631", "x 399000 to 399900, y 4999990 to 5000000"),
        ("1e15,1e15,2e15,2e15", "EPSG:32633", "an area without a position there"),
    ],
    ids=["elsewhere", "no position at all"],
)
def test_an_area_outside_the_image(sources, box, crs, found):
    with pytest.raises(AOIError) as caught:
        reference_grid(sources.reference, read_aoi(box, crs), sources.reference.geobox)
    assert str(caught.value) == (
        f"bounding box {box}: the area of interest lies outside {sources.reference.path}.\n"
        f"Expected some part of x 400000 to 400128, y 4999904 to 5000000; found {found} (in the raster's CRS).\n"
        "Check that both show the same place and carry the right CRS."
    )


def test_moved_files_are_found_to_be_others(sources, recipes, scheme, layers, align_again, tmp_path):
    copy = Path(shutil.copy(sources.labels.path, tmp_path / "copy.tif"))
    assert align_again(sources=replace(sources, labels=LabelSource.of(RasterSource.open(copy))))


# --- the disk -------------------------------------------------------------------------------------------------------


def test_too_little_room_is_found_beforehand(sources, recipes, scheme, tmp_path, monkeypatch):
    """96 x 128 px of 5 channels with 4 bytes and of labels with 1 take 258,048 bytes."""
    free = {"bytes": 258_047}
    monkeypatch.setattr(alignment.shutil, "disk_usage", lambda _: SimpleNamespace(total=10**6, free=free["bytes"]))
    folder = tmp_path / "aligned"
    with pytest.raises(OutputError) as refused:
        align(sources, recipes, scheme, sources.reference.geobox, folder)
    assert str(refused.value) == (
        f"{folder}: not enough free space for the aligned rasters: expected 258,048 bytes, found 258,047 bytes."
    )
    assert not list(folder.iterdir())
    free["bytes"] += 1
    layers = align(sources, recipes, scheme, sources.reference.geobox, folder)
    assert sum(p.stat().st_size for p in (*layers.rasters.values(), layers.labels)) == 258_048


@pytest.mark.parametrize(
    ("size", "expected"), [(999_999, "999,999 bytes"), (10**6, "1.0 MB"), (999 * 10**6, "999.0 MB"), (10**9, "1.0 GB")]
)
def test_sizes_are_readable(size, expected):
    assert alignment.readable_size(size) == expected


def test_a_failed_write_is_not_blamed_on_an_input_and_leaves_nothing(sources, recipes, scheme, tmp_path, monkeypatch):
    folder = tmp_path / "aligned"

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(layer_files.os, "fsync", fail)
        with pytest.raises(OutputError, match=r"aligned/labels\.img: cannot be written \(No space left on device\)\."):
            align(sources, recipes, scheme, sources.reference.geobox, folder)
    with monkeypatch.context() as patch:
        patch.setattr(layer_files, "_write_header", lambda *_: (_ for _ in ()).throw(RasterioIOError("short of space")))
        with pytest.raises(OutputError, match=r"aligned/optical\.img: cannot be written \(short of space\)\."):
            align(sources, recipes, scheme, sources.reference.geobox, folder)
    assert not list(folder.iterdir())


def test_gdal_reads_the_layers(layers):
    for path, kind in (*((path, np.float32) for path in layers.rasters.values()), (layers.labels, np.uint8)):
        with rasterio.open(path) as dataset:
            assert (dataset.driver, dataset.transform) == ("ENVI", layers.grid.affine)
            assert dataset.crs == str(layers.grid.crs)
            mapped = np.memmap(path, kind, mode="r").reshape(dataset.count, *dataset.shape)
            np.testing.assert_array_equal(dataset.read(), mapped)
