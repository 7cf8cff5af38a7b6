"""Every layer of each data set is read as it is meant: heights in metres, labels as classes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from geocrodino.data.sources import open_sources
from geocrodino.geo.labels.source import label_classes
from geocrodino.geo.rasters.place import is_placeless
from geocrodino.geo.rasters.units import height_unit
from geocrodino.geo.rasters.window import Window
from geocrodino.presets.catalogue import PRESETS
from geocrodino.presets.contents import dataset_settings
from geocrodino.settings.scenes import DataConfig
from tests.helpers.data_sets import WRITERS, blocks, write_potsdam, write_us3d

HEIGHTS = {
    "potsdam": {30, 32, 33},
    "vaihingen": {260, 264},
    "geonrw": {80, 86},
    "us3d": {0, 12.5},
    "flair": {0, 6},
    "flair-hub": {100, 107},
    "gamus": {0, 8.5},
    "mid-air": {12.5, 13.5, 14.5, 15.5, 16.5},
}
"""All heights in the files, m, as the writers mean them."""

GROUND = {"dfc2022": (5, 9), "flair-hub": (100, 100)}
"""Lowest and highest ground, m."""


def scenes_of(name, root, *args, **options):
    WRITERS[name](root, *args, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tiles that lack a file: tested elsewhere
        return DataConfig(**dataset_settings(PRESETS[name], root)["data"]).resolved()


def pixels(raster):
    values, valid = raster.read_own(Window.of(raster.geobox.shape), raster.data_bands)
    return values, valid


def heights(raster):
    values, valid = pixels(raster)
    return values[0][valid] * np.float32(height_unit(raster)[0])


@pytest.mark.parametrize("name", PRESETS)
def test_every_layer_opens(name, tmp_path):
    preset = PRESETS[name]
    opened = [open_sources(scene) for scene in scenes_of(name, tmp_path)]
    for sources in opened:
        assert set(sources.rasters) == {"optical", "elevation"}
        assert len(sources.rasters["elevation"].data_bands) == 1
        assert pixels(sources.rasters["optical"])[1].all()
        assert is_placeless(sources.reference.geobox) == (
            name not in {"potsdam", "geonrw", "dfc2022", "flair", "flair-hub"}
        )
    found = np.unique(np.concatenate([heights(sources.rasters["elevation"]) for sources in opened]))
    if name in HEIGHTS:
        assert set(found.tolist()) == HEIGHTS[name]
    if name in GROUND:
        ground = np.concatenate([heights(sources.ground) for sources in opened])
        assert (ground.min(), ground.max()) == GROUND[name]
    labelled = [sources.labels for sources in opened if sources.labels is not None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lossy colours: tested below
        classes = label_classes(labelled, None)
    if not preset.classes:
        assert classes.values == (0, 1, 2, 3, 4)
        return
    assert classes.names == tuple(preset.classes)
    if preset.has_own_colours:
        assert {each.name: each.colour for each in classes.classes} == preset.colours
    seen = np.unique(np.concatenate([labels[0][valid] for labels, valid in map(pixels, labelled)]))
    np.testing.assert_array_equal(seen, np.arange(len(preset.classes)))


@pytest.mark.parametrize(
    ("name", "highest"), [("potsdam-ndsm", 3.0), ("vaihingen-ndsm", 4.0), ("nyu", 1.9), ("nyu-raw", 1.9)]
)
def test_coded_heights(name, highest, tmp_path):
    found = np.concatenate([heights(open_sources(s).rasters["elevation"]) for s in scenes_of(name, tmp_path)])
    if name.startswith("nyu"):  # exact millimetres
        assert found.min() == np.float32(1.5)
        assert found.max() == pytest.approx(highest, abs=1e-6)
    else:  # JPEG moves values by a few decimetres
        assert found.min() == 0
        assert found.max() == pytest.approx(highest, abs=0.5)


def test_lossy_and_wrong_colours_of_potsdam(tmp_path):
    tiles = ("2_10", "4_12", "6_7", "4_10")
    for scene in scenes_of("potsdam", tmp_path, tiles):
        labels = open_sources(scene).labels
        found, valid = pixels(labels)
        assert valid.all()
        np.testing.assert_array_equal(found[0], blocks(tiles.index(scene.name), 6))
        notes = labels.check()
        if scene.name == "4_12":
            assert "are read as the class of the nearest colour" in notes[0]
        if scene.name == "6_7":
            cars = int((blocks(2, 6) == 4).sum())
            assert notes[0].startswith(f"{cars} px ")
            assert "of 1 colour " in notes[0]
        if scene.name in {"2_10", "4_10"}:
            assert notes == ()


def test_heights_that_are_no_number_are_missing(tmp_path):
    for scene in scenes_of("us3d", tmp_path):
        _, valid = pixels(open_sources(scene).rasters["elevation"])
        assert np.count_nonzero(~valid) == 16


def test_a_normalised_tile_that_lacks_a_column(tmp_path):
    write_potsdam(tmp_path, ("2_10", "4_10", "3_13"))
    scenes = DataConfig(**dataset_settings(PRESETS["potsdam-ndsm"], tmp_path)["data"]).resolved()
    (test,) = (open_sources(scene) for scene in scenes if scene.name == "3_13")
    assert {role: raster.geobox.shape for role, raster in test.roles.items()} == {
        "optical": (128, 128),
        "elevation": (128, 127),
        "label": (128, 128),
    }


def test_images_of_one_place_are_of_one_split(tmp_path):
    write_us3d(tmp_path)
    splits = {scene["name"]: scene["split"] for scene in dataset_settings(PRESETS["us3d"], tmp_path)["data"]["scenes"]}
    assert splits["JAX_004_006"] == splits["JAX_004_011"]
