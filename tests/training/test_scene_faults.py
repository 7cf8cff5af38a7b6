"""Faults of scenes and of what they share: one message that names the file, the key and a way out."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from geocrodino.errors import AOIError, BundleError, ConfigError, LabelError, OverlapError
from geocrodino.settings.config import config_of
from geocrodino.training.checks import check_inputs

X, Y = 400_000, 5_000_000


@pytest.fixture
def scenes(write_raster):
    """Two scenes of 32 x 32 px of 1 m, beside each other, without labels."""
    rng = np.random.default_rng(0)
    found = []
    for number, (name, split) in enumerate((("west", "train"), ("east", "val"))):
        origin = (X + 32 * number, Y)
        image = write_raster(f"{name}.tif", rng.integers(1, 250, (3, 32, 32)).astype(np.uint8), origin=origin)
        surface = write_raster(f"{name}_dsm.tif", rng.normal(0, 1, (32, 32)).astype(np.float32), origin=origin)
        found.append({"name": name, "optical": str(image), "elevation": str(surface), "split": split})
    return found


def configured(scenes, **data):
    given = {"classes" if key == "classes" else f"data.{key}": value for key, value in data.items()}
    return config_of({
        "data.scenes": scenes, **given, "training.patch_px": 32, "elevation.channels": ["height"],
        "encoder_weights": {},
    })  # fmt: skip


def test_shapes_in_another_hemisphere(scenes, tmp_path):
    """Shapes of the southern zone with the same numbers: their coordinates belong to the northern one."""
    shapes = [shapely.box(X + 8 * n, Y - 30, X + 8 * n + 6, Y - 2) for n in range(8)]
    frame = gpd.GeoDataFrame({"use": ["a", "b"] * 4}, geometry=shapes, crs="EPSG:32731")
    frame.to_file(tmp_path / "south.gpkg")
    with pytest.raises(OverlapError) as error:
        check_inputs(configured(scenes, labels=str(tmp_path / "south.gpkg")))
    told = str(error.value)
    assert told.startswith(f"{tmp_path / 'south.gpkg'} (labels): does not meet the raster that it belongs to: expected")
    assert "It meets the raster if its coordinates are in EPSG:32631." in told
    frame.set_crs("EPSG:32631", allow_override=True).to_file(tmp_path / "north.gpkg")
    assert check_inputs(configured(scenes, labels=str(tmp_path / "north.gpkg"))).classes.names == ("a", "b")


def test_labels_that_give_a_value_different_names(scenes, write_raster):
    """The ground of the east would be trained as the water of the west, unless the user names the classes."""
    values = np.repeat([[0, 1]], [16, 16], axis=1).repeat(32, axis=0).astype(np.uint8)
    for number, (scene, names) in enumerate(zip(scenes, (("ground", "water"), ("water", "ground")), strict=True)):
        path = write_raster(f"{scene['name']}_labels.tif", values, origin=(X + 32 * number, Y))
        classes = [{"value": v, "name": name, "colour": f"#00000{v}"} for v, name in enumerate(names)]
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(CLASSES=json.dumps(classes))
        scene["labels"] = str(path)
    west, east = (scene["labels"] for scene in scenes)
    with pytest.raises(LabelError) as error:
        check_inputs(configured(scenes))
    assert str(error.value) == (
        f"{east}: names the value 0 'water', but {west} names it 'ground'.\n"
        f"Give the scene of {east} `label_values: {{0: 1, 1: 0}}`, so that a value is one class in all files. Where "
        "these are two names of one class, list value and name of each class under `classes`."
    )
    named = [{"value": 0, "name": "low"}, {"value": 1, "name": "high"}]
    by_value = check_inputs(configured(scenes, classes=named))
    assert by_value.classes.names == ("low", "high")
    scenes[1]["label_values"] = {0: 1, 1: 0}
    found = check_inputs(configured(scenes))
    assert found.classes.names == ("ground", "water")
    there = [np.asarray(scene.labels) for scene in found.scenes]
    np.testing.assert_array_equal(there, [values, 1 - values])


@pytest.mark.parametrize("own", [False, True])
def test_an_area_is_taken_for_labels_only_in_the_scene_that_it_fails_in(scenes, tmp_path, own):
    """The areas of the west are its labels. Those of the east fail: the file is not there, or its splits overlap."""
    west, east = scenes
    for scene in scenes:
        del scene["split"]
    drawn = {name: str(tmp_path / f"{name}.gpkg") for name in ("west", "east")}
    for left, name in ((X, "west"), (X + 32, "east")):
        shapes = [shapely.box(left, Y - 15, left + 30, Y - 2), shapely.box(left, Y - 30, left + 30, Y - 16)]
        if name == "east":
            shapes = [shapes[0], shapes[0].buffer(1)]
        frame = gpd.GeoDataFrame({"use": ["a", "b"], "split": ["train", "val"]}, geometry=shapes, crs="EPSG:32631")
        frame.to_file(drawn[name])
    west |= {"labels": drawn["west"], "aoi": drawn["west"]}
    east |= {"labels": drawn["east"], "aoi": drawn["east"] if own else str(tmp_path / "none.gpkg")}
    with pytest.raises(AOIError) as error:
        check_inputs(configured(scenes, label_rules={"column": "use"}))
    told = str(error.value)
    assert ("none.gpkg: no such file" in told, "train and val overlap" in told) == (not own, own)
    assert ("The area and the labels are one file" in told) == own


def test_scenes_without_any_labels(scenes):
    with pytest.raises(
        ConfigError, match=r"^data\.scenes: no scene has labels\. Name the class raster of at least one"
    ):
        check_inputs(configured([{**scene, "split": "unlabelled"} for scene in scenes]))


@pytest.fixture
def labelled(scenes, write_raster):
    """The two scenes with labels of two classes in stripes."""
    stripes = np.tile([[0, 1]], (32, 16)).astype(np.uint8)
    for number, scene in enumerate(scenes):
        origin = (X + 32 * number, Y)
        scene["labels"] = str(write_raster(f"{scene['name']}_labels.tif", stripes, origin=origin))
    return scenes


def test_a_number_that_is_no_band_of_a_later_scene(labelled, write_raster):
    six = np.arange(6 * 32 * 32).reshape(6, 32, 32).astype(np.uint16)
    eight = np.arange(8 * 32 * 32).reshape(8, 32, 32).astype(np.uint16)
    labelled[0]["optical"] = str(write_raster("eight.tif", eight, origin=(X, Y)))
    labelled[1]["optical"] = fewer = str(write_raster("six.tif", six, origin=(X + 32, Y)))
    with pytest.raises(BundleError) as error:
        check_inputs(configured(labelled, bands=[1, 4, 7]))
    assert str(error.value) == (
        f"{fewer}: data.bands: expected numbers of its 6 bands (1 band 1, 2 band 2, 3 band 3, 4 band 4, 5 band 5, "
        "6 band 6), found 7 among 1, 4, 7.\nName only bands that the image has. Of several scenes, each may have a "
        "key bands of its own, with the numbers of the same bands in its image."
    )
    labelled[1]["bands"] = [1, 2]
    with pytest.raises(ConfigError) as refused:
        check_inputs(configured(labelled, bands=[1, 4, 7]))
    assert str(refused.value) == (
        f"{fewer}: data.scenes: scene east: bands: expected 3 numbers as for scene west (1, 4, 7), found 2 (1, 2).\n"
        "Name the same bands, in the same order, for both scenes."
    )
    labelled[1]["bands"] = [1, 2, 5]
    assert check_inputs(configured(labelled, bands=[1, 4, 7])).recipes["optical"].bands == (1, 4, 7)


def test_labels_that_do_not_meet_the_only_scene_of_a_split(labelled, write_raster):
    there = labelled[1]["labels"]
    elsewhere = write_raster("elsewhere.tif", np.tile([[0, 1]], (32, 16)).astype(np.uint8), origin=(X + 1000, Y))
    labelled[1]["labels"] = str(elsewhere)
    with pytest.raises(ConfigError) as error:
        check_inputs(configured(labelled))
    assert str(error.value) == (
        "data.scenes: no label lies on scene east, and no other scene of the split val has any.\n"
        f"{elsewhere}: the label raster does not meet the reference grid.\n"
        "Expected some part of x 400032 to 400064, y 4999968 to 5000000; found x 401000 to 401032, y 4999968 to "
        "5000000 (in the CRS of the reference).\nCheck that the files show the same place and carry the right CRS.\n"
        "Or give a scene with labels the split val."
    )
    labelled[1]["labels"] = there
    assert check_inputs(configured(labelled)).classes.values == (0, 1)


def test_a_label_raster_without_a_label_on_the_only_scene_of_a_split(labelled, write_raster):
    empty = write_raster("empty.tif", np.full((32, 32), 255, np.uint8), origin=(X + 32, Y), nodata=255)
    labelled[1]["labels"] = str(empty)
    with pytest.raises(ConfigError) as error:
        check_inputs(configured(labelled))
    assert str(error.value) == (
        "data.scenes: no label lies on scene east, and no other scene of the split val has any.\n"
        f"{empty}: no valid pixel within the area of interest (32 x 32 px): all of it is nodata.\n"
        "Check the nodata tag and the area.\nOr give a scene with labels the split val."
    )


def test_a_class_whose_value_is_the_nodata_value(labelled, write_raster):
    files = []
    for number, scene in enumerate(labelled):
        codes = np.tile([[0, 1, 2, 1]], (32, 8)).astype(np.uint8)
        files.append(str(write_raster(f"codes_{number}.tif", codes, origin=(X + 32 * number, Y), nodata=0)))
        scene["labels"] = files[-1]
    classes = [{"value": value, "name": name} for value, name in enumerate(("soil", "grass", "tree"))]
    config = configured(labelled, classes=classes)
    with pytest.raises(ConfigError) as error:
        check_inputs(config)
    assert str(error.value) == (
        "classes: soil (0) has no labelled pixel in any split of 2 scenes.\n"
        f"0 is the nodata value of {files[0]}, which marks pixels without a label. Remove the nodata tag if these "
        f"pixels hold a class: rio edit-info --unset-nodata {files[0]}\n"
        "Leave it out of `classes`, or correct the values of the labels or the splits of the scenes. With the key "
        "data.absent_classes: warn, the training starts all the same."
    )
    for file in files:
        with rasterio.open(file, "r+") as dataset:
            dataset.nodata = None
    assert check_inputs(config).leaks.in_no_split == ()
