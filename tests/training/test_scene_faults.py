"""Faults of scenes and of what they share: one message that names the file, the key and a way out."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geocrodino.errors import AOIError, ConfigError, OverlapError
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
    given = {f"data.{key}": value for key, value in data.items()}
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
