"""Label rules of a configuration with scenes, for labels that are named beside it."""

from __future__ import annotations

import pytest
import yaml

from geocrodino.cli.label_settings import label_settings
from geocrodino.errors import ConfigError

SCENES = [
    {"name": "north", "labels": "north.tif", "ignore_values": [9]},
    {"name": "south", "labels": "tiles/{row}_label.tif", "label_values": {255: 1}},
    {"name": "plots", "labels": "plots.gpkg|layername=2024", "label_rules": {"column": "crop"}},
    {"name": "folder", "labels": ["more/"]},
]


@pytest.fixture
def config(tmp_path):
    def write(scenes, **data):
        (tmp_path / "more").mkdir(exist_ok=True)
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"data": {"scenes": scenes, **data}}))
        return path

    return write


@pytest.mark.parametrize(
    ("labels", "key", "expected"),
    [
        ("north.tif", "ignore_values", (9,)),
        ("tiles/02_label.tif", "label_values", {255: 1}),
        ("plots.gpkg", "label_rules", "crop"),
        ("more/a.tif", "ignore_values", (3,)),
    ],
)
def test_the_scene_that_names_the_labels_decides(config, tmp_path, labels, key, expected):
    found = getattr(label_settings(config(SCENES, ignore_values=[3]), None, tmp_path / labels), key)
    assert (found.column if key == "label_rules" else found) == expected


def test_other_labels_are_read_as_all_scenes_agree(config, tmp_path):
    alike = [{"name": str(n), "labels": f"{n}.tif", "ignore_values": [7]} for n in range(3)]
    assert label_settings(config(alike), None, tmp_path / "other.tif").ignore_values == (7,)
    with pytest.raises(ConfigError) as error:
        label_settings(config(SCENES), None, tmp_path / "other.tif")
    assert str(error.value) == (
        f"{tmp_path / 'config.yaml'}: data.scenes: labels of the scenes are read in 4 ways (label_rules, "
        f"ignore_values, label_values), and {tmp_path / 'other.tif'} does not tell which one counts.\n"
        "Name labels of one scene, or leave --labels out: then each scene is read in its own way."
    )


def test_without_scenes_the_keys_under_data_count(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data: {label_rules: {layer: a}, ignore_values: [1]}\n")
    found = label_settings(path, "crop", tmp_path / "x.gpkg")
    assert (found.label_rules.layer, found.label_rules.column, found.ignore_values) == ("a", "crop", (1,))
