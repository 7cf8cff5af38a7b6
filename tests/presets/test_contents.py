"""Each preset finds the scenes of its data set, on small files with the true names, and tells what is missing."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from geocrodino.errors import ConfigError, LeftOutWarning
from geocrodino.presets.catalogue import PRESETS, preset_of
from geocrodino.presets.contents import dataset_settings, look, missing_text
from tests.helpers.data_sets import (
    WRITERS,
    write_flair_hub,
    write_potsdam,
    write_vaihingen,
)

SCENES = {
    "potsdam": {"train": ["2_10", "4_12", "6_7"], "val": ["4_10"], "test": ["3_13"]},
    "potsdam-ndsm": {"train": ["2_10", "4_12", "6_7"], "val": ["4_10"], "test": ["3_13"]},
    "vaihingen": {"train": ["1", "3"], "val": ["11"], "test": ["2"]},
    "vaihingen-ndsm": {"train": ["1", "3"], "val": ["11"], "test": ["2"]},
    "geonrw": {
        "train": ["aachen_300_5700", "aachen_301_5700"],
        "val": ["bochum_310_5700", "bochum_311_5700"],
        "test": ["herne_320_5700", "herne_321_5700"],
    },
    "dfc2022": {
        "train": ["labeled_train_Nice_06-2014-1000-6300-LA93-0M50-E080"],
        "val": ["labeled_train_Nice_06-2014-1005-6300-LA93-0M50-E080"],
        "unlabelled": [
            "unlabeled_train_Brest_06-2014-1000-6310-LA93-0M50-E080",
            "unlabeled_train_Brest_06-2014-1005-6310-LA93-0M50-E080",
        ],
    },
    "us3d": {"train": ["JAX_004_006", "JAX_004_011", "JAX_068_001"], "val": ["OMA_132_2"]},
    "flair": {
        "train": ["train_D006_2020_Z10_AU_000000", "train_D006_2020_Z10_AU_000001"],
        "val": ["train_D004_2021_Z10_AU_000010", "train_D004_2021_Z10_AU_000011"],
        "test": ["test_D012_2019_Z10_AU_000020", "test_D012_2019_Z10_AU_000021"],
    },
    "flair-hub": {
        "train": ["D006-2020_FF-S1-14_5-5"],
        "val": ["D004-2021_FF-S1-14_5-5"],
        "test": ["D012-2019_FF-S1-14_5-5"],
    },
    "gamus": {
        "train": ["train_DC_01_25", "train_NYC_00735"],
        "val": ["val_DC_01_25", "val_NYC_00735"],
        "test": ["test_DC_01_25", "test_NYC_00735"],
    },
    "nyu": {"train": ["0", "1"], "val": ["2"], "test": ["3"]},
    "nyu-13": {"train": ["0", "1"], "val": ["2"], "test": ["3"]},
    "nyu-raw": {
        "train": ["bedroom_0010a-0003", "bedroom_0010a-0004"],
        "val": ["kitchen_0004-0001", "kitchen_0004-0002"],
        "test": ["office_0002-0005"],
    },
    "mid-air": {
        "train": ["Kite_training_sunny_3001_000000", "Kite_training_sunny_3001_000001"],
        "val": ["PLE_training_sunny_4000_000000"],
        "test": ["PLE_test_sunny_4001_000000"],
    },
}
"""Tiles of each split in the files of the writers."""


def by_split(contents):
    found = defaultdict(list)
    for scene in contents.scenes:
        found[scene.split].append(scene.name)
    return {split: sorted(names) for split, names in found.items()}


def test_each_preset_has_a_writer_and_an_expectation():
    assert set(PRESETS) == set(WRITERS) == set(SCENES)


@pytest.mark.parametrize("name", PRESETS)
def test_scenes_and_splits(name, tmp_path):
    WRITERS[name](tmp_path)
    contents = look(PRESETS[name], tmp_path)
    assert by_split(contents) == SCENES[name]
    for scene in contents.scenes:
        layers = set(PRESETS[name].layers) - ({"labels"} if scene.split == "unlabelled" else set())
        assert set(scene.files) == layers
        assert all(Path(file).is_file() for file in scene.files.values())


def test_the_four_bands_of_potsdam_are_preferred(tmp_path):
    write_potsdam(tmp_path, ("2_10",))
    rgb = next(tmp_path.glob("**/top_potsdam_2_10_RGB.tif"))
    infrared = tmp_path / "4_Ortho_RGBIR/top_potsdam_2_10_RGBIR.tif"
    infrared.parent.mkdir()
    rgb.rename(infrared)
    (scene,) = look(PRESETS["potsdam"], tmp_path).scenes
    assert scene.files["optical"] == str(infrared)


def test_what_is_missing_is_named(tmp_path):
    write_potsdam(tmp_path, ("2_10", "4_10", "3_13"))
    (tmp_path / "1_DSM/dsm_potsdam_03_13.tif").unlink()
    contents = look(PRESETS["potsdam"], tmp_path)
    assert contents.incomplete == {"3_13": "elevation"}
    assert len(contents.absent) == 38 - 3 - 1  # of the tiles that ISPRS names, without 7_10
    assert missing_text(PRESETS["potsdam"], contents) == (
        "Not there: 2_12, 5_11, 7_8, 2_11, 3_10 and 29 more. Left out for a missing file: 3_13 (no elevation)."
    )


def test_a_layer_without_files(tmp_path):
    write_vaihingen(tmp_path)
    for file in (tmp_path / "dsm").iterdir():
        file.unlink()
    contents = look(PRESETS["vaihingen"], tmp_path)
    assert contents.scenes == ()
    assert missing_text(PRESETS["vaihingen"], contents) == (
        "No file is there for elevation (dsm_09cm_matching_area{area}.tif)."
    )


def test_an_empty_folder(tmp_path):
    with pytest.raises(ConfigError) as error:
        dataset_settings(PRESETS["geonrw"], tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected tiles of geonrw for the split train, found none. No file of it is there. Expected names "
        "such as {city}/{east}_{north}_rgb.jp2. Get the data from https://ieee-dataport.org/open-access/geonrw."
    )


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: expected the folder of nyu, found none\. Check `root`\."):
        look(PRESETS["nyu"], tmp_path / "nowhere")


def test_an_unknown_name():
    with pytest.raises(ConfigError, match=r"postdam: expected the name of a data set, .* Did you mean potsdam"):
        preset_of("postdam")


def test_without_lists_whole_domains_become_val(tmp_path):
    write_flair_hub(tmp_path, lists=False)
    contents = look(PRESETS["flair-hub"], tmp_path)
    assert contents.chosen_val
    assert by_split(contents) == {
        "train": ["D004-2021_FF-S1-14_5-5", "D006-2020_FF-S1-14_5-5"],
        "val": ["D012-2019_FF-S1-14_5-5"],
    }


def test_lists_that_are_there_twice(tmp_path):
    write_flair_hub(tmp_path)
    (tmp_path / "train_old.csv").write_text("AERIAL_RGBI\n")
    with pytest.raises(ConfigError, match="expected one list of the split train"):
        look(PRESETS["flair-hub"], tmp_path)


def test_settings_of_potsdam(tmp_path):
    write_potsdam(tmp_path, ("2_10", "4_10"))
    values = dataset_settings(PRESETS["potsdam"], tmp_path)
    assert values["data"]["crs"] == "EPSG:32633"
    assert "pixel_m" not in values["data"]
    assert values["data"]["label_rules"]["tolerance"] == 255
    assert values["data"]["absent_classes"] == "warn"  # of some tiles, some classes are normal
    assert values["data"]["scenes"][0] == {
        "name": "2_10",
        "optical": str(tmp_path / "2_Ortho_RGB/2_Ortho_RGB/top_potsdam_2_10_RGB.tif"),
        "elevation": str(tmp_path / "1_DSM/dsm_potsdam_02_10.tif"),
        "labels": str(tmp_path / "top_potsdam_2_10_label.tif"),
        "split": "train",
    }
    assert values["classes"][1] == {"value": 1, "name": "building", "colour": "#0000ff"}


def test_tiles_without_world_files_have_a_pixel_size_alone(tmp_path):
    write_potsdam(tmp_path, ("2_10", "4_10"), world_files=False)
    data = dataset_settings(PRESETS["potsdam"], tmp_path)["data"]
    assert (data["pixel_m"], data.get("crs")) == (0.05, None)


def test_labels_that_are_kept_back(tmp_path):
    write_vaihingen(tmp_path)
    with pytest.warns(LeftOutWarning, match=r"1 of 5 tiles of vaihingen are left out, .*: 4 \(no labels\)\."):
        dataset_settings(PRESETS["vaihingen"], tmp_path)
