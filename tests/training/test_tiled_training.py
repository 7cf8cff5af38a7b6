"""Trainings on tiles: joined by name, cut from one scene, or scattered over a wide area."""

from __future__ import annotations

import itertools
import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.windows import Window

from geocrodino.errors import ConfigError, LeftOutWarning
from geocrodino.training.checks import check_inputs
from geocrodino.training.run import train
from geocrodino.training.summary import summarise_inputs

ROLES = ("optical", "elevation", "labels")
AB = [{"value": 0, "name": "a"}, {"value": 1, "name": "b"}]


@pytest.fixture
def quarters(town, tmp_path):
    """Cut the rasters of the town into four tiles, in a folder for each role; optionally moved apart, in metres."""

    def cut(apart_m=0.0):
        for role in ROLES:
            (tmp_path / role).mkdir()
            with rasterio.open(getattr(town, role)) as dataset:
                height, width = dataset.height // 2, dataset.width // 2
                for i, j in itertools.product(range(2), range(2)):
                    window = Window(j * width, i * height, width, height)
                    place = Affine.translation(j * apart_m, -i * apart_m) @ dataset.window_transform(window)
                    layout = dict(dataset.profile, width=width, height=height, transform=place)
                    with rasterio.open(tmp_path / role / f"{role}_{i}_{10 + j}.tif", "w", **layout) as target:
                        target.write(dataset.read(window=window))
                        target.descriptions = dataset.descriptions
                        target.units = dataset.units
        return tmp_path

    return cut


def _area(folder, *boxes):
    """Write boxes with their splits to a file."""
    shapes = [shapely.box(*box) for box, _ in boxes]
    frame = gpd.GeoDataFrame({"split": [split for _, split in boxes]}, geometry=shapes, crs="EPSG:32631")
    frame.to_file(folder / "area.gpkg")
    return str(folder / "area.gpkg")


def test_tiles_by_name_hold_the_labels_of_the_scene(tiny_config, quarters):
    folder = quarters()
    by_name = {f"data.{role}": str(folder / role / f"{role}_{{row}}_{{col}}.tif") for role in ROLES}
    (whole,) = check_inputs(tiny_config()).scenes
    tiles = check_inputs(tiny_config(by_name)).scenes
    assert [tile.name for tile in tiles] == ["0_10", "0_11", "1_10", "1_11"]
    found = np.sum([np.bincount(tile.labels.ravel(), minlength=256)[:255] for tile in tiles], axis=0)
    assert found.tolist() == np.bincount(whole.labels.ravel(), minlength=256)[:255].tolist()
    for split in ("train", "val"):
        assert sum(int(tile.inside[split].sum()) for tile in tiles if split in tile.inside) == whole.inside[split].sum()


def test_a_training_on_tiles_by_name(tiny_config, quarters, tmp_path):
    """Of one tile the heights are missing: it is left out."""
    folder = quarters()
    (folder / "elevation" / "elevation_0_10.tif").unlink()
    by_name = {f"data.{role}": str(folder / role / f"{role}_{{tile}}.tif") for role in ROLES}
    with pytest.raises(ConfigError, match=r"found none for 1: 0_10\.\nAdd them"):
        check_inputs(tiny_config(by_name))
    told = []
    with pytest.warns(LeftOutWarning, match="1 of 4 tiles are left out, because they lack a file: 0_10"):
        result = train(tiny_config({**by_name, "data.partial": "leave_out"}), tmp_path / "run", tell=told.append)
    assert set(result.val_miou) == {"optical", "elevation"}
    facts = json.loads((tmp_path / "run" / "scenes.json").read_text())
    assert [scene["name"] for scene in facts] == ["0_11", "1_10", "1_11"]
    assert any("Scenes: 3 (0_11, 1_10, 1_11)" in line for line in told)
    # Of each tile of 160 px the area leaves 145 px; three bands and a height channel of 4 bytes, labels of 1 byte.
    assert f"Layers in {tmp_path / 'aligned-cache'}: {3 * 145 * 145 * 17 / 1e6:.1f} MB to write." in told


def test_a_tile_that_lacks_a_file_is_kept_without_it(tiny_config, quarters):
    folder = quarters()
    (folder / "elevation" / "elevation_0_10.tif").unlink()
    (folder / "optical" / "optical_1_11.tif").unlink()
    by_name = {f"data.{role}": str(folder / role / f"{role}_{{tile}}.tif") for role in ROLES}
    found = check_inputs(tiny_config({**by_name, "data.partial": "keep"})).scenes
    assert {scene.name: tuple(scene.sources.rasters) for scene in found} == {
        "0_10": ("optical",),
        "0_11": ("optical", "elevation"),
        "1_10": ("optical", "elevation"),
        "1_11": ("elevation",),
    }
    assert all((scene.labels != 255).any() for scene in found if {"train", "val"} & set(scene.aoi.splits))


def test_tiles_outside_a_common_area_are_left_out(tiny_config, quarters):
    folder = quarters()
    by_name = {f"data.{role}": str(folder / role / f"{role}_{{row}}_{{col}}.tif") for role in ROLES}
    with rasterio.open(folder / "optical" / "optical_0_10.tif") as dataset:
        box = dataset.bounds
    middle = (box.left + box.right) / 2
    area = _area(
        folder,
        ((box.left, box.bottom, middle, box.top), "train"),
        ((middle, box.bottom, box.right, box.top), "val"),  # shares an edge with the next tile
    )
    with pytest.warns(LeftOutWarning, match=r"^data.aoi: 3 of 4 scenes lie outside the area .*: 0_11, 1_10, 1_11\.$"):
        found = check_inputs(tiny_config({**by_name, "data.aoi": area}))
    assert [scene.name for scene in found.scenes] == ["0_10"]


def test_scattered_tiles_take_the_space_of_their_pixels(tiny_config, quarters, tmp_path):
    """Four plots 20 km apart are one mosaic of 1.6 billion pixels; the layers hold those of the plots alone."""
    folder = quarters(apart_m=20_000)
    shapes, pixels = [], 0
    for file in sorted((folder / "optical").iterdir()):
        with rasterio.open(file) as dataset:
            shapes.append((dataset.bounds, "val" if file.stem.endswith("1_11") else "train"))
            pixels += dataset.width * dataset.height
    folders = {f"data.{role}": str(folder / role) for role in ROLES}
    train(tiny_config({**folders, "data.aoi": _area(folder, *shapes)}), tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "scenes.json").read_text())
    assert [(scene["name"], scene["splits"]) for scene in facts] == [
        ("part-1", ["train"]),
        ("part-2", ["train"]),
        ("part-3", ["train"]),
        ("part-4", ["val"]),
    ]
    written = sum(path.stat().st_size for path in (tmp_path / "aligned-cache").glob("*/*.img"))
    assert written == pixels * (4 * 3 + 4 * 1 + 1)  # three bands and one height channel of 4 bytes, labels of 1


def test_tiles_without_a_polygon_are_unlabelled(tiny_config, quarters, town):
    """Two polygons lie on two of four tiles: the others are learnt from without labels."""
    folder = quarters()
    frames = []
    for tile in ("0_10", "1_11"):
        with rasterio.open(folder / "optical" / f"optical_{tile}.tif") as dataset:
            west, south, east, north = dataset.bounds
        middle = (west + east) / 2
        frames += [shapely.box(west, south, middle, north), shapely.box(middle, south, east, north)]
    names = {"kind": ["a", "b", "a", "b"]}
    gpd.GeoDataFrame(names, geometry=frames, crs="EPSG:32631").buffer(-1).to_frame("geometry").assign(**names).to_file(
        folder / "drawn.gpkg"
    )
    settings = {f"data.{role}": str(folder / role / f"{role}_{{row}}_{{col}}.tif") for role in ROLES[:2]}
    settings |= {"data.labels": str(folder / "drawn.gpkg"), "data.label_rules.column": "kind", "classes": AB}
    with pytest.warns(LeftOutWarning, match=r"no label lies on 2 of 4 scenes, which count as unlabelled: 0_11, 1_10"):
        found = check_inputs(tiny_config(settings))
    assert [scene.sources.labels is None for scene in found.scenes] == [False, True, True, False]
    assert [bool((scene.labels != 255).any()) for scene in found.scenes] == [True, False, False, True]


def test_several_files_of_polygons_are_the_labels_of_one_scene(tiny_config, town, tmp_path):
    with rasterio.open(town.optical) as dataset:
        west, south, east, north = dataset.bounds
    middle = (west + east) / 2
    for name, box in (("a", (west, south, middle, north)), ("b", (middle, south, east, north))):
        frame = gpd.GeoDataFrame({"kind": [name]}, geometry=[shapely.box(*box)], crs="EPSG:32631")
        frame.to_file(tmp_path / f"{name}.gpkg")
    files = [str(tmp_path / "a.gpkg"), str(tmp_path / "b.gpkg")]
    found = check_inputs(tiny_config({"data.labels": files, "data.label_rules.column": "kind", "classes": AB}))
    (scene,) = found.scenes
    assert found.classes.names == ("a", "b")
    assert set(np.unique(scene.labels)) == {0, 1, 255}


def test_a_missing_tile_of_one_raster_is_warned_of_and_its_labels_are_counted(tiny_config, quarters):
    """Four tiles of the image by place, three of the heights; pixels with a label are counted apart from ground."""
    folder = quarters()
    (folder / "elevation" / "elevation_1_11.tif").unlink()
    by_place = {f"data.{role}": str(folder / role) for role in ROLES}
    with pytest.warns(LeftOutWarning, match="covers 1 of 4 tiles of data.optical: optical_1_11.tif. There, elevation"):
        found = check_inputs(tiny_config(by_place))
    (scene,) = found.scenes
    labelled = {split: int((scene.labels[scene.inside[split]] != 255).sum()) for split in ("train", "val")}
    assert found.labelled_px() == labelled
    assert labelled["train"] < found.split_px()["train"]
    line = next(line for line in summarise_inputs(found, 64, None).splitlines() if line.startswith("Pixels: "))
    area = found.split_px()
    assert line == "Pixels: " + ", ".join(
        f"{area[split]:,} {split} ({labelled[split]:,} with a label)" for split in ("train", "val")
    )
