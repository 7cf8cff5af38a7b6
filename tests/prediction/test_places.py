"""Where scenes and maps lie, what they are called, and in how many files."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from helpers.small_scenes import (
    SCHEME,
    UTM,
    bands_of,
    brightest,
    classes_of,
    decided_in,
    grouped,
    heights,
    image,
    make_bundle,
    names_in,
    write_raster,
)

from geocrodino.errors import LeftOutWarning, OutputError, RasterError
from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.prediction.engine import predict
from geocrodino.settings.classes import ClassScheme, LandClass
from geocrodino.settings.prediction import Execution, Outputs, Tiling

pytestmark = pytest.mark.usefixtures("kept_networks")

SHAPE = (70, 90)


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "s.tif", image(*SHAPE))


# --- many files as one scene ---


def cut(folder, values, rows, cols, **options):
    """Files of parts of an image, with their own place in the world."""
    folder.mkdir(parents=True)
    for r0, r1 in pairwise(rows):
        for c0, c1 in pairwise(cols):
            write_raster(
                folder / f"{r0}-{c0}.tif",
                values[..., r0:r1, c0:c1],
                transform=UTM @ Affine.translation(c0, r0),
                **options,
            )


@pytest.mark.parametrize("resolution_m", [1.0, 1.4])
def test_tiles_of_a_scene_give_the_map_of_the_scene(bundle, tmp_path, resolution_m):
    """Byte for byte, though files end in the middle of what a network sees; no part of a file is larger than another
    one, and where two overlap they agree."""
    used = bundle if resolution_m == 1 else make_bundle(tmp_path / "b", resolution_m=resolution_m)
    values = image(*SHAPE)
    (tmp_path / "whole").mkdir()
    write_raster(tmp_path / "whole" / "town", values)
    cut(tmp_path / "cut" / "town", values, (0, 13, 50, 70), (0, 41, 90))
    write_raster(
        tmp_path / "cut" / "town" / "over.tif", values[:, 5:30, 30:60], transform=UTM @ Affine.translation(30, 5)
    )
    for part, options in (("whole", {}), ("cut", {"block_px": 40, "workers": 2})):
        predict(
            tmp_path / part / "town",
            tmp_path / f"{part}.tif",
            used,
            "optical",
            **grouped(core_px=32, backend="torch", **options),
        )
    assert (tmp_path / "whole.tif").read_bytes() == (tmp_path / "cut.tif").read_bytes()
    assert len(np.unique(classes_of(tmp_path / "cut.tif"))) == 3


def test_tiles_of_both_modalities(bundle, tmp_path):
    values, metres = image(*SHAPE), heights(*SHAPE)
    metres[20:30, 20:40] = -9999
    write_raster(tmp_path / "i.tif", values)
    write_raster(tmp_path / "d.tif", metres, nodata=-9999)
    cut(tmp_path / "images", values, (0, 33, 70), (0, 90))
    cut(tmp_path / "heights", metres[None], (0, 70), (0, 25, 90), nodata=-9999)
    options = {"core_px": 32, "backend": "torch"}
    predict(tmp_path / "i.tif", tmp_path / "1.tif", bundle, elevation=tmp_path / "d.tif", **grouped(**options))
    predict(
        str(tmp_path / "images" / "*.tif"),
        tmp_path / "2.tif",
        bundle,
        elevation=tmp_path / "heights",
        **grouped(**options),
    )
    np.testing.assert_array_equal(classes_of(tmp_path / "1.tif"), classes_of(tmp_path / "2.tif"))
    np.testing.assert_array_equal(decided_in(tmp_path / "1.tif"), decided_in(tmp_path / "2.tif"))


def test_a_tile_that_is_missing_is_nodata(bundle, by_pixel, tmp_path):
    cut(tmp_path / "t", image(*SHAPE), (0, 35, 70), (0, 45, 90))
    (tmp_path / "t" / "35-0.tif").unlink()
    summary = predict(tmp_path / "t", tmp_path / "m.tif", bundle, "optical")
    expected = brightest(image(*SHAPE))
    expected[35:, :45] = 255
    np.testing.assert_array_equal(classes_of(tmp_path / "m.tif"), expected)
    assert summary.nodata_share == 0.25


def test_a_map_among_the_tiles_is_no_part_of_the_scene(bundle, by_pixel, tmp_path):
    cut(tmp_path / "t", image(*SHAPE), (0, 35, 70), (0, 90))
    predict(tmp_path / "t", tmp_path / "t" / "map.tif", bundle, "optical")
    with pytest.warns(LeftOutWarning, match=r"1 map made by geocrodino \(map\.tif\)"):
        predict(tmp_path / "t", tmp_path / "t" / "map.tif", bundle, "optical", outputs=Outputs(overwrite=True))
    np.testing.assert_array_equal(classes_of(tmp_path / "t" / "map.tif"), brightest(image(*SHAPE)))


def test_no_tile_is_replaced(bundle, tmp_path):
    cut(tmp_path / "t", image(*SHAPE), (0, 35, 70), (0, 90))
    tile = tmp_path / "t" / "35-0.tif"
    before = tile.read_bytes()
    with pytest.raises(OutputError, match="the map would replace the scene itself"):
        predict(tmp_path / "t", tile, bundle, "optical", outputs=Outputs(overwrite=True))
    assert tile.read_bytes() == before


# --- names ---


@pytest.mark.parametrize(
    "name", ["Größe 地図.tif", "a b#c?&<d>'.vrt", "100%20.tif", "[x]*.tif", "map:1.TIF", "noext", ".m.tif"]
)
def test_names(bundle, by_pixel, tmp_path, monkeypatch, name):
    """Scene, folder and map; absolute and relative."""
    folder = tmp_path / "Süd & Ost" / "a:b"
    folder.mkdir(parents=True)
    scene = write_raster(folder / f"scene {name}.tif", image(20, 30))
    summary = predict(str(scene), folder / name, bundle, "optical", outputs=Outputs(layers=["confidence"]))
    np.testing.assert_array_equal(classes_of(folder / name), brightest(image(20, 30)))
    assert summary.path == folder / name
    with rasterio.open(folder / name) as found:
        assert found.tags()["SCENE"] == scene.name
    content = (folder / name).read_bytes()
    monkeypatch.chdir(folder)
    summary = predict(scene.name, name, bundle, "optical", outputs=Outputs(layers=["confidence"], overwrite=True))
    assert (summary.path, (folder / name).read_bytes()) == (Path(name), content)
    assert bands_of(summary.layers_path).shape == (1, 20, 30)


def test_relative_names_from_another_folder(bundle, by_pixel, tmp_path, monkeypatch):
    for name in ("in", "out", "at"):
        (tmp_path / name).mkdir()
    write_raster(tmp_path / "in" / "s.tif", image(20, 30))
    shutil.copy(bundle.path, tmp_path / "in" / "b")
    monkeypatch.chdir(tmp_path / "at")
    predict("../in/s.tif", "../out/m.tif", "../in/b", "optical")
    np.testing.assert_array_equal(classes_of(tmp_path / "out" / "m.tif"), brightest(image(20, 30)))
    assert names_in(tmp_path / "at") == []
    assert names_in(tmp_path / "in") == ["b", "s.tif"]
    assert names_in(tmp_path / "out") == ["m.tif", "m.tif.aux.xml"]


def test_a_link_to_the_scene_is_the_scene(bundle, scene, tmp_path):
    (tmp_path / "link.tif").symlink_to(scene)
    before = scene.read_bytes()
    with pytest.raises(OutputError, match="the map would replace the scene itself"):
        predict(scene, tmp_path / "link.tif", bundle, "optical", outputs=Outputs(overwrite=True))
    assert scene.read_bytes() == before


def test_inside_the_folder_of_work_that_was_stopped(bundle, by_pixel, scene, tmp_path):
    """A hidden folder is a folder like another one, until its own work starts anew."""

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(scene, tmp_path / "m.tif", bundle, "optical", on_progress=stop, execution=Execution(workers=1))
    hidden = tmp_path / ".m.tif.part"
    predict(scene, hidden / "x.tif", bundle, "optical")
    np.testing.assert_array_equal(classes_of(hidden / "x.tif"), brightest(image(*SHAPE)))
    assert predict(scene, tmp_path / "m.tif", bundle, "optical", outputs=Outputs(resume=True)).resumed == 1
    assert names_in(tmp_path) == ["m.tif", "m.tif.aux.xml", "s.tif"]


def test_a_folder_that_cannot_be_written(bundle, by_pixel, scene, tmp_path, monkeypatch):
    shut = tmp_path / "shut"
    shut.mkdir()
    can = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != shut and can(path, mode))
    with pytest.raises(OutputError) as error:
        predict(scene, shut / "m.tif", bundle, "optical")
    assert str(error.value) == (
        f"{shut / 'm.tif'}: the folder {shut} cannot be written.\nChoose a folder with write permission."
    )
    assert (by_pixel, names_in(shut)) == ([], [])


def test_a_scene_in_a_read_only_folder(bundle, by_pixel, tmp_path):
    (tmp_path / "in").mkdir()
    scene = write_raster(tmp_path / "in" / "s.tif", image(20, 20))
    (tmp_path / "in").chmod(0o500)
    try:
        if os.access(tmp_path / "in", os.W_OK):
            pytest.skip("nothing is read-only for this user")
        predict(scene, tmp_path / "m.tif", bundle, "optical")
        with pytest.raises(OutputError, match="cannot be written"):
            predict(scene, tmp_path / "in" / "m.tif", bundle, "optical")
    finally:
        (tmp_path / "in").chmod(0o700)
    assert names_in(tmp_path / "in") == ["s.tif"]


# --- a map in parts ---


@pytest.mark.parametrize("with_area", [False, True])
def test_a_map_in_parts_holds_the_pixels_of_a_map_in_one(bundle, scene, tmp_path, with_area):
    metres = heights(*SHAPE)
    metres[10:40, 10:60] = np.nan
    dsm = write_raster(tmp_path / "d.tif", metres)
    options = {
        "elevation": dsm, "core_px": 32, "block_px": 32, "backend": "torch", "layers": ["confidence", "disagreement"],
        "aoi": read_aoi("500005,3999940,500050,3999990", "EPSG:32610") if with_area else None,
    }  # fmt: skip
    for name in ("m.tif", "m.vrt"):
        predict(scene, tmp_path / name, bundle, **grouped(**options))
    for what in ("", ".decided", ".layers"):
        one, parts = tmp_path / f"m{what}.tif", tmp_path / f"m{what}.vrt"
        np.testing.assert_array_equal(bands_of(parts), bands_of(one))
        with rasterio.open(one) as a, rasterio.open(parts) as b:
            assert (a.crs, a.transform, a.nodata, a.descriptions) == (b.crs, b.transform, b.nodata, b.descriptions)
            assert (a.scales, a.dtypes) == (b.scales, b.dtypes)
            same = {key: value for key, value in a.tags().items() if key in b.tags() and key != "TIFFTAG_SOFTWARE"}
            assert {"MODALITY", "BUNDLE_SHA256"} <= same.keys()
            assert all(b.tags()[key] == value for key, value in same.items() if key != "AREA_OR_POINT")
            if what != ".layers":
                assert a.colormap(1) == b.colormap(1)
    parts = names_in(tmp_path / "m.parts")
    # Of 3 x 3 blocks those that meet columns 5 to 50 and rows 10 to 60.
    assert len(parts) == (4 if with_area else 9)
    for name in parts:
        with rasterio.open(tmp_path / "m.parts" / name) as part:
            r0, r1, c0, c1 = map(int, name.removesuffix(".tif").split("-"))
            assert part.transform == UTM @ Affine.translation(c0, r0)
            np.testing.assert_array_equal(part.read(1), classes_of(tmp_path / "m.tif")[r0:r1, c0:c1])


def test_a_map_in_parts_can_be_moved(bundle, by_pixel, scene, tmp_path):
    predict(scene, tmp_path / "m.vrt", bundle, "optical", tiling=Tiling(block_px=32))
    (tmp_path / "elsewhere").mkdir()
    for name in ("m.vrt", "m.parts"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    np.testing.assert_array_equal(classes_of(tmp_path / "elsewhere" / "m.vrt"), brightest(image(*SHAPE)))


def test_a_map_in_parts_that_was_stopped(bundle, by_pixel, scene, tmp_path):
    def stop(finished, _):
        if finished == 4:
            raise KeyboardInterrupt

    options = {"block_px": 32, "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        predict(scene, tmp_path / "m.vrt", bundle, "optical", on_progress=stop, **grouped(**options))
    assert names_in(tmp_path) == [".m.vrt.lock", ".m.vrt.part", "s.tif"]
    assert predict(scene, tmp_path / "m.vrt", bundle, "optical", **grouped(resume=True, **options)).resumed == 4
    np.testing.assert_array_equal(classes_of(tmp_path / "m.vrt"), brightest(image(*SHAPE)))
    assert names_in(tmp_path) == ["m.parts", "m.vrt", "s.tif"]


# --- two at once ---


def test_two_predictions_in_threads_of_one_process(bundle, tmp_path):
    """They share the number of torch's threads, GDAL's cache and nothing else."""
    scenes = [write_raster(tmp_path / f"{i}.tif", image(*SHAPE, seed=i)) for i in range(2)]
    options = {"core_px": 32, "block_px": 32, "backend": "torch", "workers": 2}
    for i, path in enumerate(scenes):
        predict(path, tmp_path / f"alone-{i}.tif", bundle, "optical", **grouped(**options))
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(predict, path, tmp_path / f"beside-{i}.tif", bundle, "optical", **grouped(**options))
                for i, path in enumerate(scenes)
            ]
        assert [job.result().nodata_share for job in jobs] == [0, 0]
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(1)
    for i in range(2):
        assert (tmp_path / f"beside-{i}.tif").read_bytes() == (tmp_path / f"alone-{i}.tif").read_bytes()


def test_two_predictions_of_one_map(bundle, by_pixel, scene, tmp_path):
    started, refused = Event(), Event()

    def wait(*_):
        started.set()
        assert refused.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(predict, scene, tmp_path / "m.tif", bundle, "optical", on_progress=wait)
        assert started.wait(60)
        try:
            for more in ({}, {"resume": True}, {"overwrite": True}):
                with pytest.raises(OutputError) as error:
                    predict(scene, tmp_path / "m.tif", bundle, "optical", **grouped(**more))
                assert str(error.value) == (
                    f"{tmp_path / 'm.tif'}: another process is working on this file.\n"
                    "Wait for it, or choose another name."
                )
        finally:
            refused.set()
        first.result()
    np.testing.assert_array_equal(classes_of(tmp_path / "m.tif"), brightest(image(*SHAPE)))
    assert names_in(tmp_path) == ["m.tif", "m.tif.aux.xml", "s.tif"]


# --- small and odd ---


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (8, 8), (9, 17), (31, 33)])
@pytest.mark.parametrize("stitch", ["exact", "blend"])
def test_any_size_has_every_pixel(bundle, by_pixel, tmp_path, shape, stitch):
    """Smaller than a tile, than the stride, and with remainders of both."""
    values = image(*shape, seed=3)
    scene = write_raster(tmp_path / "s.tif", values)
    for name in ("m.tif", "m.vrt"):
        summary = predict(
            scene, tmp_path / name, bundle, "optical", tiling=Tiling(core_px=16, block_px=11, stitch=stitch)
        )
        np.testing.assert_array_equal(classes_of(tmp_path / name), brightest(values))
        assert sum(summary.pixels.values()) == shape[0] * shape[1]


def test_classes_that_are_not_numbered_in_order(bundle, by_pixel, tmp_path):
    scheme = ClassScheme(
        classes=(
            LandClass(value=254, name="last", colour="#0000ff"),
            LandClass(value=7, name="seven", colour="#00ff00"),
            LandClass(value=0, name="zero", colour="#ff0000"),
        )
    )
    used = replace(bundle, manifest=bundle.manifest.model_copy(update={"classes": scheme}))
    values = image(60, 70)
    scene = write_raster(tmp_path / "s.tif", values)
    summary = predict(scene, tmp_path / "m.tif", used, "optical")
    index = values.argmax(axis=0)
    np.testing.assert_array_equal(classes_of(tmp_path / "m.tif"), np.array([254, 7, 0])[index])
    assert list(summary.pixels.items()) == [
        (name, int((index == i).sum())) for i, name in enumerate(("last", "seven", "zero"))
    ]


def test_one_band_and_two_classes(tmp_path):
    two = ClassScheme.from_values([3, 1], ["one", "three"])
    bundle = make_bundle(tmp_path / "b", constant=1, scheme=two, bands=("grey",))
    scene = write_raster(tmp_path / "s.tif", image(9, 9)[:1])
    summary = predict(
        scene,
        tmp_path / "m.tif",
        bundle,
        "optical",
        execution=Execution(backend="torch"),
        outputs=Outputs(layers=["entropy", "confidence"]),
    )
    assert (classes_of(tmp_path / "m.tif") == 3).all()
    assert summary.pixels == {"one": 0, "three": 81}
    # Logits 0 and 1: the probability of the second is e / (1 + e) = 0.731059, the entropy 0.840188 of a bit.
    assert bands_of(tmp_path / "m.layers.tif")[:, 4, 4].tolist() == [213, 186]


def test_types_of_pixels(bundle, by_pixel, tmp_path):
    values = image(20, 30)
    for dtype in ("uint8", "int16", "uint16", "int32", "float32", "float64"):
        scene = write_raster(tmp_path / f"{dtype}.tif", values.astype(dtype))
        predict(scene, tmp_path / "m.tif", bundle, "optical", outputs=Outputs(overwrite=True))
        np.testing.assert_array_equal(classes_of(tmp_path / "m.tif"), brightest(values))
    assert SCHEME.values == (0, 2, 5)


def test_a_tile_that_fails_is_named_with_its_file(bundle, by_pixel, tmp_path):
    cut(
        tmp_path / "t",
        image(*SHAPE),
        (0, 35, 70),
        (0, 90),
        interleave="pixel",
        tiled=True,
        blockxsize=32,
        blockysize=32,
    )
    broken = tmp_path / "t" / "35-0.tif"
    broken.write_bytes(broken.read_bytes()[:4000])
    with pytest.raises(RasterError, match=r"35-0\.tif: cannot be read at rows .* damaged or cut short"):
        predict(tmp_path / "t", tmp_path / "m.tif", bundle, "optical")
    assert names_in(tmp_path) == ["t"]
