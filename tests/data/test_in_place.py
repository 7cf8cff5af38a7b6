"""Rasters read in place give the same bytes as their copies; an error says why a raster cannot be read in place."""

from __future__ import annotations

import errno
import os
import pickle
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from torch.utils.data import DataLoader

from geocrodino.data import in_place
from geocrodino.data.alignment import align, bytes_to_write, layers_key
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.in_place import (
    InPlaceError,
    InPlaceLayers,
    choose_in_place,
    copied_bytes,
    in_place_note,
    obstacle,
    states_of,
    with_files,
)
from geocrodino.data.scenes import AlignedScene
from geocrodino.data.sources import Sources, fitted_sources, with_heights
from geocrodino.data.statistics import measure
from geocrodino.errors import AccessError, ConfigError, LabelError, RasterError
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.grid import window_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import elevation_recipe, optical_recipe
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.heights import HeightSettings

SHAPE = (70, 90)
RNG = np.random.default_rng(0)
ROWS, COLS = np.mgrid[: SHAPE[0], : SHAPE[1]]
HOLE = (ROWS > 20) & (ROWS < 30) & (COLS < 40)
IMAGE = RNG.integers(1, 255, (3, *SHAPE)).astype(np.uint8)
HEIGHTS = (RNG.random(SHAPE) * 20).astype(np.float32)
SPIKE = HEIGHTS.copy()
SPIKE[40, 50] = 8000  # a metre wide and 8 km high
WINDOWS = [Window(0, 32, 0, 32), Window(13, 45, 31, 63), Window(38, 70, 58, 90), Window(0, 70, 0, 90)]


def _holes(values, nodata):
    return np.where(HOLE, np.asarray(nodata, values.dtype), values)


def _alpha(write):
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return write("i.tif", np.concatenate([IMAGE, np.where(HOLE, 0, 255)[None].astype(np.uint8)]), colours=colours)


def _mosaic(write, values=IMAGE):
    """Two halves that overlap by ten columns, in a folder's list; the first one counts where both are valid."""
    left, right = np.array_split(values, [50], axis=2)
    right = np.concatenate([values[..., 40:50] // 2, right], axis=2)
    write("left.tif", left, nodata=0)
    return (
        str(write("left.tif", left, nodata=0)),
        str(write("right.tif", right, nodata=0, origin=(400_040.0, 5_000_000.0))),
    )


IMAGES = {
    "uint8 with nodata": lambda write: write("i.tif", _holes(IMAGE, 0), nodata=0),
    "uint16 with nodata": lambda write: write("i.tif", _holes(IMAGE.astype(np.uint16) * 200, 65535), nodata=65535),
    "float32 with NaN": lambda write: write("i.tif", _holes(IMAGE / np.float32(255), np.nan), nodata=float("nan")),
    "float32 with a number": lambda write: write("i.tif", _holes(IMAGE.astype(np.float32), -9999), nodata=-9999),
    "transparency": _alpha,
    "a mask": lambda write: write("i.tif", IMAGE, mask=~HOLE),
    "compressed, in tiles": lambda write: write(
        "i.tif", _holes(IMAGE, 0), nodata=0, compress="deflate", tiled=True, blockxsize=32, blockysize=32
    ),
    "several files": _mosaic,
}
SURFACES = {
    "metres": lambda write: write("h.tif", _holes(HEIGHTS, np.nan), nodata=float("nan")),
    "feet": lambda write: write("h.tif", _holes(HEIGHTS, -9999), nodata=-9999, units="ft"),
    "decimetres": lambda write: write("h.tif", _holes((HEIGHTS * 10).astype(np.uint8), 255), nodata=255),
    "an impossible height": lambda write: write("h.tif", SPIKE),
}


def _labels(write):
    return LabelSource.of(RasterSource.open(write("l.tif", (1 + ROWS // 30).astype(np.uint8), nodata=0)))


def _scaled(path):
    """The file says that values are the stored numbers times 0.5, minus 3."""
    import rasterio

    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5,) * file.count, (-3.0,) * file.count
    return path


@pytest.fixture
def scheme():
    return ClassScheme.from_values([1, 2, 3])


@pytest.fixture
def opened(write_raster):
    """Function of an image and heights above ground, as `write_raster` wrote them, to sources and recipes."""

    def make(image=None, surface=None, coding=None, channels=("height_above_ground", "slope"), **changes):
        image = image or IMAGES["uint8 with nodata"](write_raster)
        surface = surface or SURFACES["metres"](write_raster)
        coding = coding or HeightSettings(zero="ground")
        rasters = {"optical": open_scene(image), "elevation": open_scene(surface)}
        sources = with_heights(Sources(rasters, _labels(write_raster), **changes), coding)
        recipes = {"optical": optical_recipe(sources.rasters["optical"]), "elevation": elevation_recipe(channels)}
        return fitted_sources(sources, recipes, {}), recipes

    return make


def in_both_ways(sources, recipes, scheme, folder, grid=None):
    """The layers of a scene, copied and read in place."""
    grid = grid or sources.reference.geobox
    every = frozenset(sources.rasters)
    states = states_of(sources, recipes, every)
    copied = align(sources, recipes, scheme, grid, folder / "copied")
    labels = align(sources, recipes, scheme, grid, folder / "in place", in_place=every)
    return copied, with_files(labels, sources, recipes, every, states)


def require_same(copied, placed):
    """Statistics, samples and messages are equal, byte for byte."""
    assert isinstance(placed, InPlaceLayers)
    assert placed.modalities == copied.modalities
    assert placed.impossible == copied.impossible
    assert list(placed.copied.labels.parent.glob("*.img")) == [placed.copied.labels]
    scenes = [
        replace(AlignedScene.of(each), inside={"train": np.ones(each.grid.shape, bool)}) for each in (copied, placed)
    ]
    recipes = placed.recipes
    specs = [{m: measure([scene], recipes[m]) for m in recipes} for scene in scenes]
    assert specs[0] == specs[1]
    one, other = (CoregisteredDataset([scene], specs[0]) for scene in scenes)
    whole = Window.of(copied.grid.shape)
    for window in (window.intersect(whole) for window in (*WINDOWS, whole)):
        first, second = one.read(window), other.read(window)
        assert first.keys() == second.keys()
        for key, values in first.items():
            assert values.dtype == second[key].dtype
            assert values.numpy().tobytes() == second[key].numpy().tobytes()


@pytest.mark.parametrize("kind", IMAGES)
def test_images_are_those_of_the_copy(opened, scheme, write_raster, tmp_path, kind):
    sources, recipes = opened(image=IMAGES[kind](write_raster))
    copied, placed = in_both_ways(sources, recipes, scheme, tmp_path)
    require_same(copied, placed)
    missing = ~np.isfinite(placed.read("optical", Window.of(SHAPE))[0])
    assert np.array_equal(missing, np.zeros(SHAPE, bool) if kind == "several files" else HOLE)


@pytest.mark.parametrize("kind", SURFACES)
def test_heights_are_those_of_the_copy(opened, scheme, write_raster, tmp_path, kind):
    coding = HeightSettings(zero="ground", scale=0.1) if kind == "decimetres" else None
    copied, placed = in_both_ways(*opened(surface=SURFACES[kind](write_raster), coding=coding), scheme, tmp_path)
    require_same(copied, placed)
    pixel = placed.read("elevation", Window(10, 11, 10, 11))[0, 0, 0]
    expected = {"feet": HEIGHTS[10, 10] * 0.3048, "decimetres": int(HEIGHTS[10, 10] * 10) / 10}
    assert pixel == pytest.approx(expected.get(kind, HEIGHTS[10, 10]), rel=1e-6)
    assert placed.impossible.keys() == ({"elevation"} if kind == "an impossible height" else set())


def test_scales_and_offsets_of_a_file_count(opened, scheme, write_raster, tmp_path):
    image, surface = _scaled(IMAGES["uint16 with nodata"](write_raster)), _scaled(SURFACES["metres"](write_raster))
    copied, placed = in_both_ways(*opened(image, surface), scheme, tmp_path)
    require_same(copied, placed)
    assert placed.read("optical", Window(5, 6, 5, 6)).ravel().tolist() == (IMAGE[:, 5, 5] * 100.0 - 3).tolist()


def test_heights_over_a_ground_of_the_same_grid(opened, scheme, write_raster, tmp_path):
    ground = RasterSource.open(write_raster("g.tif", _holes(HEIGHTS / 2, -9999), nodata=-9999))
    sources, recipes = opened(coding=HeightSettings(zero="sea"), ground=ground)
    copied, placed = in_both_ways(sources, recipes, scheme, tmp_path)
    require_same(copied, placed)
    assert set(placed.states) == {raster.name for raster in (*sources.rasters.values(), ground)}


@pytest.mark.parametrize(
    "window",
    [Window(10, 60, 20, 80), Window(-5, 70, 0, 90), Window(30, 100, 40, 140)],
    ids=["cropped", "above", "below"],
)
def test_a_part_of_the_files_and_pixels_beside_them(opened, scheme, tmp_path, window):
    """The area of interest cuts the grid; a grid may also reach beyond the files, as that of a small scene does."""
    sources, recipes = opened()
    grid = window_grid(sources.reference.geobox, window)
    require_same(*in_both_ways(sources, recipes, scheme, tmp_path, grid))


def test_one_raster_in_place_beside_a_copied_one(opened, scheme, tmp_path):
    sources, recipes = opened()
    some = frozenset({"optical"})
    states = states_of(sources, recipes, some)
    copied = align(sources, recipes, scheme, sources.reference.geobox, tmp_path / "copied")
    part = align(sources, recipes, scheme, sources.reference.geobox, tmp_path / "part", in_place=some)
    placed = with_files(part, sources, recipes, some, states)
    assert sorted(path.name for path in (tmp_path / "part").glob("*.img")) == ["elevation.img", "labels.img"]
    assert placed.modalities == ("optical", "elevation")
    assert placed.files() == {
        "optical": sources.rasters["optical"].name,
        "elevation": str(tmp_path / "part" / "elevation.img"),
        "labels": str(tmp_path / "part" / "labels.img"),
    }
    for modality in placed.modalities:
        assert placed.read(modality, WINDOWS[1]).tobytes() == copied.read(modality, WINDOWS[1]).tobytes()


# --- other processes --------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(opened, scheme, tmp_path):
    sources, recipes = opened()
    _, placed = in_both_ways(sources, recipes, scheme, tmp_path)
    scene = replace(AlignedScene.of(placed), inside={"train": np.ones(SHAPE, bool)})
    return CoregisteredDataset([scene], {m: measure([scene], recipes[m]) for m in recipes})


def _batches(dataset, **options):
    windows = [Window.at(row, col, (32, 32)) for row in (0, 7, 30) for col in (0, 11, 50)]
    return list(DataLoader(dataset, 2, sampler=windows, **options))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_reading_processes_open_their_own_files(dataset, method):
    """The statistics have opened the files in this process."""
    alone = _batches(dataset)
    parallel = _batches(dataset, num_workers=2, multiprocessing_context=method)
    for one, other in zip(alone, parallel, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("optical", "elevation", "labels", "optical_valid"))


def test_no_open_file_is_sent_to_other_processes(dataset):
    dataset.read(WINDOWS[0])
    there = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(there.read(WINDOWS[0])["optical"], dataset.read(WINDOWS[0])["optical"])


def test_a_changed_file_is_told_by_a_reading_process_in_its_own_words(dataset):
    path = dataset.scenes[0].layers.sources.rasters["optical"].path
    os.utime(path, ns=(0, 0))
    with pytest.raises(InPlaceError) as alone:
        dataset.read(WINDOWS[0])
    with pytest.raises(InPlaceError) as caught:
        _batches(dataset, num_workers=1)
    assert str(caught.value) == str(alone.value)
    assert str(caught.value).startswith(f"{path}: changed while a training reads it in place: expected ")
    assert caught.value.path == path


@pytest.mark.skipif(sys.platform == "win32", reason="names cannot hold a colon there")
def test_a_file_whose_name_holds_a_colon(tmp_path):
    """What a reading process tells: the traceback of the error, with its text at the end."""
    path = tmp_path / "site: north" / "o: 1.tif"
    path.parent.mkdir()
    path.touch()
    text = f"Caught InPlaceError in DataLoader worker process 0.\nInPlaceError: {path}: changed: expected 3, found 4"
    assert InPlaceError(text).parts == (str(path), "changed: expected 3, found 4")
    assert InPlaceError("InPlaceError: gone.tif: no such file: check it").parts == (
        "gone.tif",
        "no such file: check it",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_out_of_reach_is_told_in_its_own_words(dataset, workers):
    path = dataset.scenes[0].layers.sources.rasters["optical"].path
    path.unlink()
    path.symlink_to(path.name)  # a link to itself
    with pytest.raises(InPlaceError) as caught:
        _batches(dataset, num_workers=workers)
    assert str(caught.value) == str(AccessError.because(path, OSError(errno.ELOOP, os.strerror(errno.ELOOP))))
    assert caught.value.path == path


# --- checks before the training ---------------------------------------------------------------------------------------


def test_errors_are_those_of_the_copy(opened, scheme, write_raster, tmp_path):
    sources, recipes = opened()
    grid, every = sources.reference.geobox, frozenset(sources.rasters)
    with pytest.raises(LabelError, match="3"):
        align(sources, recipes, ClassScheme.from_values([1, 2]), grid, tmp_path / "a", in_place=every)
    path = write_raster("empty.tif", np.zeros((1, *SHAPE), np.float32), nodata=0)
    sources, recipes = opened(surface=path)
    with pytest.raises(RasterError, match=r"empty\.tif: no valid pixel within the area of interest"):
        align(sources, recipes, scheme, grid, tmp_path / "a", in_place=every)
    assert not list((tmp_path / "a").glob("*.img"))


def test_impossible_heights_are_counted_once(opened, scheme, write_raster, tmp_path):
    sources, recipes = opened(surface=SURFACES["an impossible height"](write_raster))
    grid, every = sources.reference.geobox, frozenset(sources.rasters)
    calls = []
    first = align(sources, recipes, scheme, grid, tmp_path / "a", lambda *p: calls.append(p), every)
    again = align(sources, recipes, scheme, grid, tmp_path / "a", lambda *p: calls.append(p), every)
    assert calls == [(1, 1)]
    assert first.impossible == again.impossible
    assert (first.impossible["elevation"].pixels, first.impossible["elevation"].low) == (1, 8000)


def test_copies_and_layers_in_place_are_not_taken_for_each_other(opened, scheme, tmp_path):
    sources, recipes = opened()
    grid, folder, every = sources.reference.geobox, tmp_path / "aligned", frozenset(sources.rasters)
    pixels = SHAPE[0] * SHAPE[1]
    inputs = (sources, recipes, scheme, grid)
    assert layers_key(*inputs) != layers_key(*inputs, every) != layers_key(*inputs, {"optical"})
    assert bytes_to_write(*inputs, folder) == pixels * (3 * 4 + 2 * 4 + 1)
    align(*inputs, folder)
    assert bytes_to_write(*inputs, folder) == 0
    assert bytes_to_write(*inputs, folder, every) == pixels
    align(*inputs, folder, in_place=every)
    assert bytes_to_write(*inputs, folder, every) == 0
    assert bytes_to_write(*inputs, folder) == pixels * (3 * 4 + 2 * 4 + 1)
    assert [path.name for path in folder.glob("*.img")] == ["labels.img"]


# --- which rasters, and when ------------------------------------------------------------------------------------------

AT = Affine(1, 0, 400_000, 0, -1, 5_000_000)
OTHER_GRIDS = {
    "CRS": (GeoBox(SHAPE, AT, "EPSG:32632"), "expected the CRS EPSG:32632, found EPSG:32631"),
    "size": (
        GeoBox((35, 45), AT @ Affine.scale(2), "EPSG:32631"),
        "expected pixels with steps of (2, 0) a column and (0, -2) a row, found steps of (1, 0) a column and (0, -1) a "
        "row, in units of the CRS",
    ),
    "edges": (
        GeoBox(SHAPE, AT @ Affine.translation(0.25, 0), "EPSG:32631"),
        "expected a shift by whole pixels, found 0 rows and -0.25 columns more",
    ),
}


@pytest.mark.parametrize("what", OTHER_GRIDS)
def test_another_grid(opened, what):
    sources, recipes = opened()
    grid, difference = OTHER_GRIDS[what]
    assert obstacle("optical", sources, recipes["optical"], grid) == (
        f"{sources.rasters['optical'].name}: cannot be read in place: its pixels are not those of the working grid: "
        f"{difference}."
    )


def test_channels_that_need_pixels_around(opened):
    sources, recipes = opened(coding=HeightSettings(zero="sea"))
    halo = recipes["elevation"].halo_px(sources.reference.geobox)
    assert obstacle("elevation", sources, recipes["elevation"], sources.reference.geobox) == (
        f"{sources.rasters['elevation'].name}: cannot be read in place: expected channels of a pixel and its direct "
        f"neighbours, found height_above_ground, slope, which depend on {halo} pixels on each side."
    )
    for channels in (("height",), ("height", "slope")):
        assert obstacle("elevation", sources, elevation_recipe(channels), sources.reference.geobox) is None


def test_a_ground_on_another_grid(opened, write_raster):
    ground = RasterSource.open(write_raster("g.tif", HEIGHTS[::2, ::2], pixel=2.0))
    sources, recipes = opened(coding=HeightSettings(zero="sea"), ground=ground)
    grid = sources.reference.geobox
    found = obstacle("elevation", sources, recipes["elevation"], grid)
    assert f": cannot be read in place: the pixels of its ground {ground.name} are not those of the working gr" in found
    assert obstacle("elevation", sources, elevation_recipe(("height",)), grid) is None  # does not read the ground


@pytest.mark.parametrize(
    ("name", "where"),
    [("/vsicurl/https://example.org/a.tif", "a remote file"), ("/vsizip/{folder}/a.zip/a.tif", "a file inside an arc")],
)
def test_files_that_are_not_on_this_machine(opened, tmp_path, name, where):
    sources, recipes = opened()
    (tmp_path / "a.zip").write_bytes(b"")
    name = name.format(folder=tmp_path)
    sources = replace(sources, rasters={**sources.rasters, "optical": replace(sources.rasters["optical"], name=name)})
    found = obstacle("optical", sources, recipes["optical"], sources.reference.geobox)
    assert f"{name}: cannot be read in place: expected files on the disks of this machine, found {where}" in found


@pytest.fixture
def two(opened):
    """A scene all of whose rasters can be read in place, and one of whose heights cannot."""
    sources, recipes = opened()
    coarse = replace(sources.rasters["elevation"], geobox=GeoBox((35, 45), AT @ Affine.scale(2), "EPSG:32631"))
    other = replace(sources, rasters={**sources.rasters, "elevation": coarse})
    grid = sources.reference.geobox
    return [(sources, grid), (other, grid)], recipes


def test_what_auto_reads_in_place(two, monkeypatch):
    scenes, recipes = two
    size = 2 * SHAPE[0] * SHAPE[1] * (5 * 4 + 1)
    assert copied_bytes(scenes, recipes) == size
    assert choose_in_place(scenes, recipes, "auto", list) == [frozenset(), frozenset()]
    monkeypatch.setattr(in_place, "COPIED_BYTES", size)
    assert choose_in_place(scenes, recipes, "auto", list) == [frozenset(), frozenset()]
    monkeypatch.setattr(in_place, "COPIED_BYTES", size - 1)
    both, image = frozenset({"optical", "elevation"}), frozenset({"optical"})
    assert choose_in_place(scenes, recipes, "auto", lambda: [False, False]) == [both, image]
    assert choose_in_place(scenes, recipes, "auto", lambda: [True, False]) == [frozenset(), image]
    assert choose_in_place(scenes, recipes, "copy", list) == [frozenset(), frozenset()]
    assert in_place_note(scenes, [both, image]) == "; optical and elevation of 1 of 2 scenes read in place"
    assert in_place_note(scenes, [frozenset(), frozenset()]) == ""


def test_in_place_is_refused_with_a_way_out(two):
    scenes, recipes = two
    assert choose_in_place(scenes[:1], recipes, "in_place", list) == [frozenset({"optical", "elevation"})]
    with pytest.raises(ConfigError) as caught:
        choose_in_place(scenes, recipes, "in_place", list)
    first, way_out = str(caught.value).splitlines()
    assert re.match(r".*h\.tif: cannot be read in place: its pixels are not those of the working grid: expected", first)
    assert way_out == (
        "`data.cache='copy'` copies all rasters to the grid of the training; with `data.cache='auto'`, those are read "
        "in place that can be, if the copies take more than 2 GB."
    )
