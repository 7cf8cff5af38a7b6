"""Settings of many scenes: defaults, paths, what is written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from geocrodino.errors import ConfigError
from geocrodino.settings.config import load_config, save_config

FILES = {"optical": "o.tif", "elevation": "e.tif", "labels": "l.tif"}
TWO = [{"name": "north", **FILES, "split": "train"}, {**FILES, "optical": "p.tif", "aoi": "a.gpkg"}]


@pytest.fixture
def load(tmp_path):
    def make(data, overrides=None):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"data": data}))
        return load_config(path, overrides or {}).data

    return make


def test_files_named_directly_are_one_scene_without_a_name(load, tmp_path):
    data = load({**FILES, "aoi": "a.gpkg", "height_unit": "ft"})
    (scene,) = data.resolved()
    assert (scene.name, scene.optical, scene.height_unit) == ("", tmp_path / "o.tif", "ft")
    assert data.modalities() == ("optical", "elevation")


def test_keys_beside_the_scenes_are_their_defaults(load, tmp_path):
    data = load({"scenes": TWO, "height_unit": "ft", "ignore_values": [9], "ground": "g.tif"})
    north, second = data.resolved()
    assert (north.name, second.name) == ("north", "scene-2")
    assert north.ground == second.ground == tmp_path / "g.tif"
    assert second.optical == tmp_path / "p.tif"
    assert second.aoi == str(tmp_path / "a.gpkg")
    assert second.ignore_values == (9,)
    assert (north.split, second.split) == ("train", None)


def test_a_key_of_a_scene_replaces_the_default_even_by_nothing(load):
    data = load({"scenes": [TWO[0], {**TWO[1], "height_unit": None}], "height_unit": "ft"})
    assert [scene.height_unit for scene in data.resolved()] == ["ft", None]


def test_modalities_are_those_of_all_scenes(load):
    first, second = ({k: v for k, v in TWO[0].items() if k != m} for m in ("elevation", "optical"))
    assert load({"scenes": [{**first, "name": "a"}, {**second, "name": "b"}]}).modalities() == ("optical", "elevation")


def test_paths_are_relative_to_the_file(load, tmp_path):
    lists = {"lists": {"train": "train.txt"}}
    data = load({"scenes": [{"optical": ["1.tif", "/far/2.tif"], "elevation": "e", "labels": "l"}], "splits": lists})
    (scene,) = data.resolved()
    assert scene.optical == (str(tmp_path / "1.tif"), "/far/2.tif")
    assert data.splits.lists == {"train": tmp_path / "train.txt"}
    (tmp_path / "scenes.csv").write_text("optical,elevation\n1.tif,2.tif\n")
    (row,) = load({"scenes": "scenes.csv"}).scenes
    assert (row.optical, row.elevation) == (tmp_path / "1.tif", tmp_path / "2.tif")


@pytest.mark.parametrize(
    "data",
    [
        {**FILES, "aoi": "a.gpkg"},
        {"scenes": TWO, "height_unit": "ft", "resolution_m": 0.5},
        {"scenes": [TWO[0], {**TWO[1], "height_unit": None}], "height_unit": "ft"},
        {
            "scenes": TWO,
            "splits": {"by": "blocks", "block_m": 300},
            "label_rules": {"table": {"house": ["#ff0000", 2]}, "ignore": "unknown"},
            "height": {"scale": 0.1, "zero": "ground"},
        },
    ],
)
def test_what_is_written_is_read_again(load, tmp_path, data):
    config = load_config(tmp_path / "study.yaml", {}) if load(data) else None
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", {}) == config
    assert load_config(tmp_path / "config.yaml", {}).data.resolved() == config.data.resolved()


def test_one_scene_is_written_with_the_keys_of_version_0_1(load, tmp_path):
    written = load({**FILES, "aoi": "1,2,3,4"}).model_dump(mode="json")
    assert list(written) == [
        "optical", "elevation", "labels", "aoi", "ground", "aoi_crs", "resolution_m", "grid_of", "bands",
        "height_unit", "ignore_values", "label_values",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"scenes": [{**TWO[0], "optcal": "x"}]}, "data.scenes.0.optcal: is not a known key. Did you mean optical?"),
        ({"scenes": [TWO[0], TWO[0]]}, "data: scenes: expected a name of its own for each scene, found north more"),
        ({"scenes": [{"optical": "o.tif"}]}, "data: expected the rasters of at least two modalities, found optical"),
        ({"scenes": [{**TWO[0], "split": "tain"}]}, "data.scenes.0.split: input should be 'train', 'val', 'test' or"),
        (
            {"scenes": []},
            "data.scenes: expected a list with an item for each scene, or the name of a CSV file, found []",
        ),
        ({"scenes": None}, "or the name of a CSV file, found None"),
        ({"scenes": {"north": {}}}, "or the name of a CSV file, found keys: north"),
        ({"scenes": [{**TWO[0], "optical": []}]}, "data.scenes.0.optical: tuple should have at least 1 item"),
        (
            {"scenes": TWO, "height_unit": "ft", "height": {"scale": 0.1}},
            "data: height_unit ft and height.scale 0.1 both say how long a stored unit is",
        ),
        (
            {"scenes": [{**TWO[0], "height": {"scale": 2}}], "height_unit": "ft"},
            "data: scene north: height_unit ft and height.scale 2 both say",
        ),
        (
            {"scenes": TWO, "label_rules": {"table": {"a": 1, "b": [2, 1]}}},
            "data.label_rules: expected each code under one class or under ignore, found 1 under a and b",
        ),
        (
            {"scenes": TWO, "label_rules": {"table": {"Bare soil": 1, "bare_soil": 2}}},
            "data.label_rules: table: Bare soil and bare_soil name one class: capitals, underscores and blanks make no",
        ),
        (
            {"scenes": TWO, "label_rules": {"table": {"a": 1}}, "ignore_values": [3]},
            "data: label_rules.table names all codes of the labels: expected no ignore_values",
        ),
        ({"scenes": TWO, "label_rules": {"table": {"a": True}}}, "a code is a number or a text. Put it in quotes"),
        ({"scenes": TWO, "height": {"band": 1, "ground_band": 1}}, "data.height: expected two different bands, found"),
        ({"scenes": TWO, "splits": {"by": "scenes", "shares": [0.5, 0.2, 0.2]}}, "shares: expected three numbers that"),
        ({"scenes": TWO, "splits": {"by": "scenes", "folds": 3, "fold": 3}}, "fold: expected a number below folds (3)"),
        ({"scenes": TWO, "splits": {"folds": 3, "lists": {"train": "t"}}}, "expected folds or lists, found both. Give"),
        ({"scenes": TWO, "splits": {"block_m": 9}}, "block_m and buffer_m apply to by: blocks, found by: nothing"),
        ({"scenes": TWO, "splits": {"column": "n"}}, "column names a column of the files under lists, found no lists"),
    ],
)
def test_a_message_names_the_key(load, data, told):
    with pytest.raises(ConfigError) as error:
        load(data)
    assert told in str(error.value)


def test_one_scene_needs_labels_and_no_area(load):
    with pytest.raises(ConfigError, match=r"data\.labels: is needed, found nothing"):
        load({key: name for key, name in FILES.items() if key != "labels"})
    assert load(FILES).resolved()[0].aoi is None  # the whole scene, cut into blocks


def test_a_list_of_rasters_is_one_raster(load):
    data = load({"scenes": [{**TWO[0], "ground": ["g.tif"]}]})
    assert isinstance(data.resolved()[0].ground, tuple)
    assert Path(data.resolved()[0].ground[0]).name == "g.tif"


def test_where_layers_are_stored(load):
    assert load(FILES).cache == "auto"
    assert "cache" not in load(FILES).model_dump()  # config.yaml of a run keeps its bytes
    chosen = load({"scenes": TWO, "cache": "copy"}, {"data.cache": "in_place"})
    assert (chosen.cache, chosen.model_dump()["cache"]) == ("in_place", "in_place")
    with pytest.raises(ConfigError, match=r"data\.cache.*'auto', 'copy' or 'in_place'"):
        load({**FILES, "cache": "files"})


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ({"data.height_unit": "m"}, "height_unit: a, scene-2"),
        ({"data.ignore_values": [0]}, "ignore_values: a"),
        ({"data.label_rules.column": "use"}, "label_rules: scene-2"),
        ({"data.labels": "x.tif"}, "labels: a"),
    ],
)
def test_a_value_for_all_scenes_that_some_would_not_take(tmp_path, given, own):
    path = tmp_path / "s.yaml"
    path.write_text(
        "data:\n  labels: l.tif\n  scenes:\n"
        "    - {name: a, optical: o.tif, elevation: e.tif, labels: a.tif, height_unit: ft, ignore_values: [4]}\n"
        "    - {optical: o.tif, elevation: e.tif, height_unit: ft, label_rules: {column: kind}}\n"
    )
    [name] = given
    with pytest.raises(ConfigError) as refused:
        load_config(path, given)
    assert str(refused.value) == (
        f"`{name}`: expected a value that all scenes take, found scenes of {path} with their own {own}. Change it "
        "there, or leave it out here."
    )


def test_a_value_that_all_scenes_take(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("data: {height_unit: ft, scenes: [{optical: o.tif, elevation: e.tif, labels: l.tif}]}\n")
    given = {"data.height_unit": "m", "data.ignore_values": [0], "data.labels": None, "data.partial": "keep"}
    [scene] = load_config(path, given).data.resolved()
    assert (scene.height_unit, scene.ignore_values, scene.labels.name) == ("m", (0,), "l.tif")
