"""Scenes whose files are tiles: of one raster by place, or of their own by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geocrodino.data.tiles import tile_scenes
from geocrodino.errors import ConfigError, RasterError
from geocrodino.geo.rasters import opening
from geocrodino.settings.scenes import SceneConfig


@pytest.fixture
def tile(write_raster, tmp_path, monkeypatch):
    """Write a tile of 8 x 8 px into a folder of the working folder, at a place in pixels."""
    monkeypatch.chdir(tmp_path)

    def write(name, row=0, col=0, *, bands=1, dtype="uint8", **options):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        origin = (400_000 + col, 5_000_000 - row)
        return write_raster(name, np.ones((bands, 8, 8), dtype), origin=origin, **options)

    return write


def _listed(scene, *args):
    told = []
    return tile_scenes(SceneConfig(**scene), *args, tell=told.append), told


FOLDERS = {"optical": "img", "elevation": "dsm", "labels": "msk"}


def test_tiles_on_one_lattice_stay_one_scene(tile):
    for row, col in [(0, 0), (0, 8), (8, 0), (8, 8)]:
        tile(f"img/a_{row}_{col}.tif", row, col, bands=3)
        tile(f"msk/b_{col}_{row}.tif", row, col)  # names that do not matter
    tile("dsm.tif", dtype="float32", pixel=20.0)
    scene = {**FOLDERS, "elevation": "dsm.tif"}
    (found,), told = _listed(scene)
    assert found == SceneConfig(**scene)
    assert told == []


@pytest.fixture
def zones(tile):
    """Two tiles in two UTM zones."""
    for name, crs in (("1_02", "EPSG:32631"), ("1_10", "EPSG:32632")):
        tile(f"img/top_{name}_RGB.tif", bands=3, crs=crs)
        tile(f"dsm/dsm_{name.replace('_', '_0')}.tif", dtype="float32", crs=crs)
        tile(f"msk/top_{name}_label.tif", crs=crs)


def test_tiles_of_two_zones_are_joined_by_name(zones):
    scenes, told = _listed({**FOLDERS, "height_unit": "ft", "aoi": "a.gpkg"})
    assert [scene.model_dump(mode="json") for scene in scenes] == [
        {
            "name": name,
            "optical": f"img/top_1_{name}_RGB.tif",
            "elevation": f"dsm/dsm_1_0{name}.tif",
            "labels": f"msk/top_1_{name}_label.tif",
            "aoi": "a.gpkg",
            "rasters": {},
            "height_unit": "ft",
        }
        for name in ("02", "10")
    ]
    assert told == [
        "Tiles without a common raster, joined by name to 2 scenes:\n"
        "  optical: img/top_1_{tile}_RGB.tif\n"
        "  elevation: dsm/dsm_1_{tile}.tif\n"
        "  labels: msk/top_1_{tile}_label.tif\n"
        "Other patterns can be named."
    ]


def test_patterns_with_parts_make_a_scene_for_each_tile(zones):
    scene = {"name": "city", "optical": "img/top_{row}_{col}_RGB.tif", "labels": "msk/top_{row}_{col}_label.tif"}
    scenes, told = _listed({**scene, "elevation": "dsm.tif", "ground": "dsm/dsm_{row}_{col}.tif"})
    assert [scene.name for scene in scenes] == ["city-1_02", "city-1_10"]
    assert scenes[1].raster_paths == {
        "optical": Path("img/top_1_10_RGB.tif"),
        "elevation": Path("dsm.tif"),  # of all tiles
    }
    assert scenes[1].ground == Path("dsm/dsm_1_010.tif")
    assert told == []


def test_files_that_are_listed_alone_are_tiles(zones):
    names = [f"img/top_1_{n}_RGB.tif" for n in ("02", "10")]
    Path("img/top_1_11_RGB.tif").touch()  # not listed
    scenes, _ = _listed({**FOLDERS, "optical": names})
    assert [str(scene.optical) for scene in scenes] == names


def test_partial_tiles(zones):
    Path("msk/top_1_10_label.tif").unlink()
    Path("img/top_1_02_RGB.tif").unlink()
    Path("dsm/dsm_1_002.tif").unlink()
    patterns = {
        "optical": "img/top_1_{n}_RGB.tif",
        "elevation": "dsm/dsm_1_{n}.tif",
        "labels": "msk/top_1_{n}_label.tif",
    }
    (scene,), _ = _listed(patterns, "keep")  # labels alone are no scene
    assert (scene.name, scene.optical, scene.labels) == ("10", Path("img/top_1_10_RGB.tif"), None)


def test_names_that_join_nothing(zones):
    Path("img/top_1_02_RGB.tif").rename("img/north.tif")
    Path("img/top_1_10_RGB.tif").rename("img/south.tif")
    with pytest.raises(RasterError) as caught:
        _listed(FOLDERS)
    assert str(caught.value) == (
        "img/south.tif: not of one scene with img/north.tif: expected the CRS EPSG:32631, found EPSG:32632.\n"
        "Warp it onto the pixels of the other one first, or read it as a scene of its own."
    )


def test_two_kinds_of_tiles(tile):
    for number in (1, 2):
        tile(f"img/top_{number}_RGB.tif", col=8 * number, bands=3)
        tile(f"img/top_{number}_RGBIR.tif", col=8 * number, bands=4, photometric="minisblack")
    tile("dsm.tif", dtype="float32")
    with pytest.raises(ConfigError) as caught:
        _listed({"optical": "img", "elevation": "dsm.tif"})
    assert str(caught.value) == (
        "data.optical: img: expected tiles of one kind, found 2: 2 files (top_1_RGB.tif, top_2_RGB.tif) of 3 bands "
        "uint8; 2 files (top_1_RGBIR.tif, top_2_RGBIR.tif) of 4 bands uint8.\n"
        "Name those of one kind with a pattern, for instance img/top_*_RGB.tif."
    )


def test_two_kinds_of_tiles_that_no_pattern_divides(tile):
    """The pattern of three images would match the surface model among them."""
    for number in (1, 2):
        tile(f"img/o_{number}.tif", col=8 * number, bands=3)
    tile("img/o_3.tif", col=24, dtype="float32")
    tile("dsm.tif", dtype="float32")
    with pytest.raises(ConfigError) as caught:
        _listed({"optical": "img", "elevation": "dsm.tif"})
    assert str(caught.value).endswith(
        "1 file (o_3.tif) of 1 band real numbers.\n"
        "Move the others elsewhere, or name those of one kind in a list: optical: [FILE, FILE]. If all are right, "
        "make each tile a scene of its own, by patterns with a part in braces for all layers: optical: img/{tile}.tif."
    )


def test_two_tiles_of_one_place(tile):
    for name, col in (("may_1", 0), ("may_2", 8), ("june_1", 0)):
        tile(f"img/{name}.tif", col=col, bands=3)
    tile("dsm.tif", dtype="float32")
    with pytest.raises(ConfigError) as caught:
        _listed({"optical": "img", "elevation": "dsm.tif"})
    assert str(caught.value) == (
        "data.optical: img/june_1.tif and img/may_1.tif cover the same 8 x 8 px.\n"
        "Name one file for each place with a pattern or a list, or make tiles of their own of them by named parts: "
        "{tile}.tif."
    )


def test_each_header_is_read_once(zones, monkeypatch):
    """Those of one scene: what its files are is decided by the headers that join or do not."""
    opened = []
    real = opening.DatasetReader
    monkeypatch.setattr(opening, "DatasetReader", lambda name: (opened.append(name), real(name))[1])
    _listed(FOLDERS)
    assert 0 < len(opened) == len(set(opened)) <= 6
