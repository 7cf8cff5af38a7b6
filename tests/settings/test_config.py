"""What a YAML file may say, and what is said of one that cannot be used."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from geocrodino.errors import AreaWarning, ConfigError, OutputError
from geocrodino.settings.config import TrainConfig, load_config, save_config

STUDIES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
FILES = {"optical": "o.tif", "elevation": "e.tif", "labels": "l.tif", "aoi": "a.geojson"}


@pytest.fixture
def write(tmp_path):
    def make(content, name="study.yaml"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return make


def refused(file, overrides=None):
    with pytest.raises(ConfigError) as error:
        load_config(file, overrides or {})
    return str(error.value)


def test_defaults_and_files(write, tmp_path):
    config = load_config(write({"data": FILES}), {})
    assert config.data.optical == tmp_path / "o.tif"
    assert config.data.aoi == str(tmp_path / "a.geojson")
    assert config.training.epochs == 30
    assert config.class_scheme() is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"data": {**FILES, "optcal": "x"}}, "data.optcal: is not a known key. Did you mean optical?"),
        ({"data": FILES, "trainig": {}}, "trainig: is not a known key. Did you mean training?"),
        (
            {"data": FILES, "training": {"optimiser": {"zzz": 1}}},
            "optimiser.zzz: is not a known key. Expected one of encoder_rate, gradient_norm, layer_decay, "
            "learning_rate, warmup, weight_decay",
        ),
        (
            {"data": {k: v for k, v in FILES.items() if k != "labels"}},
            "data.labels: is needed, found nothing\n"
            "Name `data.labels`, or write them under `data:` in geocrodino.yaml.",
        ),
        ({"data": FILES, "training": {"epochs": "many"}}, "training.epochs: input should be a valid integer"),
        ({"data": FILES, "training": {"epochs": 0}}, "training.epochs: input should be greater than or equal to 1"),
        ({"data": FILES, "training": {"seed": 2**32}}, "training.seed: input should be less than 4294967296, found"),
        ({"data": {**FILES, "bands": [0]}}, "data.bands.0: input should be greater than or equal to 1, found 0"),
        ({"data": FILES, "method": {"contrast": "all"}}, "method.contrast: input should be 'none', 'image', 'class'"),
        ({"data": FILES, "method": {"name": "crodno"}}, "method.name: input should be 'single', 'crodino', 'mutual'"),
        ({"data": FILES, "method": {"name": ["kd"]}}, "method.name: input should be 'single', 'crodino', 'mutual'"),
        (
            {"data": FILES, "method": {"name": "single", "agreement": 1}},
            "  method: agreement has no meaning for the method single: it belongs to crodino, mutual, discom",
        ),
        ({"data": FILES, "training": None}, "training: input should be a valid dictionary"),
        ({"data": FILES, "network": {"decoder": "fpn", "decoder_channels": [1, 2]}}, "needs 1 numbers, found 2"),
        ({"data": FILES, "augmentation": {"scale": [2, 1]}}, "scale must be two numbers above 0, the smaller first"),
        (
            {"data": FILES, "augmentation": {"optical": {"gian": 0.1}}},
            "augmentation.optical.gian: is not a known key. Did you mean gain?",
        ),
        (
            {"data": FILES, "augmentation": {"optical": {"gain": 2}}},
            "augmentation.optical.gain: input should be less than 1, found 2",
        ),
        (
            {"data": FILES, "augmentation": {"optical": [{"RandomErasing": 0.5}]}},
            "augmentation.optical.0: expected parameters by name, such as {RandomErasing: {p: 0.5}}, found 0.5",
        ),
        (
            {"data": FILES, "augmentation": {"elevation": [{"RandomErasing": None, "RandomInvert": None}]}},
            "augmentation.elevation.0: expected one operation with its parameters, such as {RandomHorizontalFlip: {p: "
            "0.5}}, found 2 keys (RandomErasing, RandomInvert)",
        ),
        (
            {"data": FILES, "augmentation": {"optical": [7]}},
            "augmentation.optical.0: expected one operation with its parameters, such as {RandomHorizontalFlip: {p: "
            "0.5}}, found 7",
        ),
        (
            {"data": FILES, "augmentation": {"flip": True, "optical": [], "elevation": []}},
            "augmentation: flip changes nothing, because optical and elevation list all their operations",
        ),
        ({"data": FILES, "classes": [{"value": 1, "name": "a"}]}, "classes: tuple should have at least 2 items"),
        (
            {"data": FILES, "classes": [{"value": 1, "name": "a"}, {"value": 1, "name": "b"}]},
            "classes: two classes share a value: [1, 1]",
        ),
        ({"data": FILES, "classes": [{"value": 255, "name": "a"}, {"value": 1, "name": "b"}]}, "classes.0.value: "),
        (
            {"data": FILES, "training": {"minutes": 10, "epochs": 3}},
            "  training: expected minutes or epochs, found both: minutes 10 and epochs 3. Give only one of them",
        ),
        ({"data": FILES, "training": {"minutes": 0}}, "training.minutes: input should be greater than 0, found 0"),
        (
            {"data": FILES, "training": {"epochs_from_minutes": True}},
            "  training: epochs_from_minutes: expected minutes beside it, found none",
        ),
    ],
)  # fmt: skip
def test_a_message_names_file_key_expected_and_found(write, content, told):
    path = write(content)
    message = refused(path)
    assert message.startswith(f"{path}: the configuration cannot be used:\n")
    assert told in message


def test_several_mistakes_are_told_at_once(write):
    message = refused(write({"data": {**FILES, "x": 1}, "training": {"epochs": 0, "seed": -1}}))
    assert [line.split(":")[0] for line in message.splitlines()[1:]] == [
        "  data.x", "  training.epochs", "  training.seed",
    ]  # fmt: skip


@pytest.mark.parametrize("content", ["- a\n- b\n", "words\n"])
def test_a_file_without_sections(write, content):
    assert "expected sections such as `data:`, found " in refused(write(content))


def test_files_that_cannot_be_read(write, tmp_path):
    assert refused(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: no such configuration file."
    assert "not a readable YAML file" in refused(write("a: [1"))
    assert "not a readable YAML file" in refused(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("data: {optical: ä.tif}".encode("latin-1"))
    assert refused(tmp_path / "latin.yaml").startswith(f"{tmp_path / 'latin.yaml'}: cannot be read as text (")
    assert refused(tmp_path / "latin.yaml").endswith("). Expected YAML in UTF-8.")


def test_classes_without_a_colour_get_hues_that_are_spread_evenly(write):
    classes = [{"value": 3, "name": "a"}, {"value": 1, "name": "b", "colour": "red"}, {"value": 2, "name": "c"}]
    found = load_config(write({"data": FILES, "classes": classes}), {}).classes
    # a third of a turn from red to green to blue, saturation 0.65, value 0.85
    assert [land.colour for land in found] == ["#d94c4c", "#ff0000", "#4c4cd9"]


def test_nothing_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(None) == (
        "the given configuration cannot be used:\n"
        "  data: is needed, found nothing\n"
        "Name `data.optical`, `data.elevation` and `data.labels`, or write them under `data:` in geocrodino.yaml."
    )


@pytest.mark.parametrize("heading", ["data:\n", "data: {}\n", ""])
def test_a_heading_with_nothing_under_it_can_be_filled_from_the_command_line(write, heading):
    config = load_config(write(heading), {f"data.{k}": f"/x/{v}" for k, v in FILES.items()})
    assert config.data.labels == Path("/x/l.tif")


def test_a_section_that_is_a_word(write):
    message = refused(write("data: town\n"), {"data.optical": "x.tif"})
    assert "data: expected keys and values, found 'town'" in message


def test_the_command_line_wins(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write({"data": FILES, "training": {"epochs": 3, "seed": 4}})
    config = load_config(
        path, {"training.epochs": 7, "training.seed": None, "network.depth": 3, "data.optical": "n.tif"}
    )
    assert (config.training.epochs, config.training.seed, config.network.depth) == (7, 4, 3)
    assert config.data.optical == tmp_path / "n.tif"
    assert config.data.elevation == tmp_path / "e.tif"


def test_the_project_file_is_read_by_default_and_another_instead_of_it(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write({"data": FILES, "training": {"epochs": 3}}, "geocrodino.yaml")
    other = write({"data": FILES}, "other.yaml")
    assert load_config(None, {}).training.epochs == 3
    assert load_config(other, {}).training.epochs == 30


def test_paths_are_relative_to_the_file(write, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    path = write({"data": {**FILES, "ground": "../g.tif"}, "encoder_weights": {"optical": "w.pth"}}, "deep/study.yaml")
    monkeypatch.chdir(tmp_path)
    config = load_config(path.relative_to(tmp_path), {})
    assert config.data.elevation == tmp_path / "deep" / "e.tif"
    assert config.data.ground == tmp_path / "g.tif"
    assert config.encoder_weights == {"optical": str(tmp_path / "deep" / "w.pth")}


def test_variables_in_paths(write, tmp_path, monkeypatch):
    path = write({"data": {**FILES, "optical": "${PLACE}/o.tif", "aoi": "$PLACE/a.gpkg", "labels": "~/l.tif"}})
    monkeypatch.setenv("PLACE", "/far/away")
    monkeypatch.setenv("HOME", "/home/me")
    config = load_config(path, {})
    assert config.data.optical == Path("/far/away/o.tif")
    assert config.data.aoi == "/far/away/a.gpkg"
    assert config.data.labels == Path("/home/me/l.tif")
    monkeypatch.delenv("PLACE")
    assert refused(path) == (
        f"{path}: ${{PLACE}}/o.tif needs the environment variable PLACE, which is not set.\n"
        "Set it, for instance: export PLACE=/path/to/data"
    )


def test_a_bounding_box_is_no_path(write):
    config = load_config(write({"data": {**FILES, "aoi": "1,2,3,4", "aoi_crs": "EPSG:4326"}}), {})
    assert config.data.aoi == "1,2,3,4"


@pytest.mark.parametrize(
    ("area", "text"),
    [
        ([1, 2.5, 3, 4], "1,2.5,3,4"),
        ({"coordinates": [1, 2], "type": "Point"}, '{"coordinates": [1, 2], "type": "Point"}'),
        ("POLYGON ((0 0, 1 0, 1 1, 0 0))", "POLYGON ((0 0, 1 0, 1 1, 0 0))"),
        ("https://example.org/a.gpkg", "https://example.org/a.gpkg"),
        ("1 2 3 4", "1 2 3 4"),
    ],
)
def test_areas_that_are_no_paths(write, area, text):
    config = load_config(write({"data": {**FILES, "aoi": area, "aoi_crs": 32631}}), {})
    assert (config.data.aoi, config.data.aoi_crs) == (text, "32631")


def test_areas_with_more_than_a_path(write, tmp_path):
    config = load_config(write({"data": {**FILES, "aoi": "a,b,c,d.gpkg|layername=x"}}), {})
    assert config.data.aoi == f"{tmp_path}/a,b,c,d.gpkg|layername=x"
    config = load_config(write({"data": {**FILES, "aoi": "zip://a.zip!b.shp"}}), {})
    assert config.data.aoi == f"zip://{tmp_path}/a.zip!b.shp"


def test_a_crs_belongs_to_the_area_beside_it(write):
    """A file named by an option has a CRS of its own; a bounding box has none."""
    file = write({"data": {**FILES, "aoi": "1,2,3,4", "aoi_crs": "EPSG:4326"}})
    with pytest.warns(AreaWarning) as caught:
        assert load_config(file, {"data.aoi": "b.gpkg"}).data.aoi_crs is None
    assert [str(w.message) for w in caught] == [
        f"{file}: aoi_crs EPSG:4326 is the CRS of the area in this file, and is not used for `aoi='b.gpkg'`. "
        "Name its CRS with `aoi_crs` where its file names none."
    ]
    assert load_config(file, {"data.aoi": "5,6,7,8"}).data.aoi_crs == "EPSG:4326"
    assert load_config(file, {"data.aoi": "b.gpkg", "data.aoi_crs": "EPSG:2154"}).data.aoi_crs == "EPSG:2154"
    only_crs = write({"data": {k: v for k, v in FILES.items() if k != "aoi"} | {"aoi_crs": "EPSG:4326"}})
    assert load_config(only_crs, {"data.aoi": "b.gpkg"}).data.aoi_crs == "EPSG:4326"


@pytest.mark.parametrize("name", ["https://host/o.tif", "s3://bucket/o.tif", "/vsicurl/https://host/o.tif"])
def test_a_url_is_no_path_also_in_the_copy(write, tmp_path, name):
    config = load_config(write({"data": {**FILES, "optical": name}}), {"data.labels": str(Path(name))})
    assert config.data.optical == config.data.labels == Path(name)
    save_config(config, tmp_path / "copy.yaml")
    assert load_config(tmp_path / "copy.yaml", {}) == config


def test_the_resolved_copy_means_the_same_from_anywhere(write, tmp_path, monkeypatch):
    classes = [{"value": 3, "name": "forêt", "colour": "#00ff00"}, {"value": 9, "name": "eau"}]
    write({"data": FILES, "classes": classes, "augmentation": {"scale": [0.5, 2]}}, "geocrodino.yaml")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    config = load_config(None, {"data.ground": "g.tif", "training.seed": 5})
    save_config(config, Path("run/config.yaml"))
    monkeypatch.chdir("/")
    assert load_config(tmp_path / "run" / "config.yaml", {}) == config
    assert config.data.ground == tmp_path / "g.tif"
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_lists_of_operations_are_copied_as_written(write, tmp_path):
    blur = {"RandomGaussianBlur": {"kernel_size": [3, 3], "sigma": [0.1, 1.0], "p": 0.2}}
    lists = {"optical": ["RandomVerticalFlip", blur, {"RandomErasing": None}], "elevation": []}
    config = load_config(write({"data": FILES, "augmentation": {"decoupled": False, **lists}}), {})
    save_config(config, tmp_path / "copy.yaml")
    assert load_config(tmp_path / "copy.yaml", {}) == config
    assert yaml.safe_load((tmp_path / "copy.yaml").read_text())["augmentation"] == {
        "decoupled": False,
        "optical": [{"RandomVerticalFlip": {}}, blur, {"RandomErasing": {}}],
        "elevation": [],
    }
    one_list = load_config(write({"data": FILES, "augmentation": {"flip": False, "optical": [blur]}}), {})
    save_config(one_list, tmp_path / "copy.yaml")
    assert load_config(tmp_path / "copy.yaml", {}) == one_list
    assert one_list.augmentation.operations("elevation")[0].name == "RandomQuarterTurn"


def test_the_copy_of_the_first_version(write, tmp_path):
    """What `config.yaml` of version 0.1 says of the augmentation, and what is written today."""
    values = {"gain": 0.2, "offset_std": 0.2, "band_gain": 0.1, "band_offset_std": 0.1}
    optical = values | {"curve": 0.15, "noise_std": 0.05, "blur_sigma_px": 1.0, "blur_probability": 0.2}
    elevation = dict.fromkeys(optical, 0.0) | {"gain": 0.05, "offset_std": 0.05, "noise_std": 0.02}
    first = {
        "decoupled": True,
        "flip": True,
        "quarter_turn": True,
        "rotation_deg": 20.0,
        "scale": [0.8, 1.25],
        "resample_probability": 0.5,
        "optical": optical,
        "elevation": elevation,
    }
    config = load_config(write({"data": FILES, "augmentation": first}), {})
    assert config.augmentation == load_config(write({"data": FILES}), {}).augmentation
    save_config(config, tmp_path / "copy.yaml")
    assert yaml.safe_load((tmp_path / "copy.yaml").read_text())["augmentation"] == first


def test_a_copy_that_cannot_be_written(write, tmp_path):
    config = load_config(write({"data": FILES}), {})
    with pytest.raises(OutputError, match=r"none.config\.yaml: cannot be written"):
        save_config(config, tmp_path / "none" / "config.yaml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_study_loads(path, monkeypatch, tmp_path):
    monkeypatch.setenv("GEOCRODINO_REAL_DATA", str(tmp_path))
    config = load_config(path, {})
    assert config.training.patch_px % config.network.stride_px == 0
    assert config.data.optical.is_relative_to(tmp_path)
    assert path.read_text().startswith("# ")


def test_there_are_studies():
    assert STUDIES


def models(model, seen=None):
    """A model and those that its fields hold."""
    seen = {} if seen is None else seen
    if model not in seen:
        seen[model] = None
        for field in model.model_fields.values():
            waiting = [field.annotation]
            while waiting:
                kind = waiting.pop()
                waiting += typing.get_args(kind)
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    models(kind, seen)
    return list(seen)


@pytest.mark.parametrize("model", models(TrainConfig), ids=lambda m: m.__name__)
def test_every_key_is_described(model):
    told_together = (model.__doc__ or "").split(":", 1)[-1]  # "One class: the value ..., the name, the colour"
    silent = [n for n, f in model.model_fields.items() if not f.description and f"the {n}" not in told_together]
    assert silent == []


def test_the_walk_reaches_the_inner_models():
    names = {m.__name__ for m in models(TrainConfig)}
    assert {"OptimiserSettings", "RadiometrySettings", "GroundFilter", "LandClass", "MethodSettings"} <= names


def test_the_budget_of_the_command_line_replaces_that_of_the_file(write):
    path = write({"data": FILES, "training": {"epochs": 3}})
    training = load_config(path, {"training.minutes": 2.5}).training
    assert (training.minutes, training.needs_measurement) == (2.5, True)
    path = write({"data": FILES, "training": {"minutes": 2.5, "epochs": 7, "epochs_from_minutes": True}})
    training = load_config(path).training  # as a run folder records it
    assert (training.minutes, training.epochs, training.needs_measurement) == (2.5, 7, False)
    training = load_config(path, {"training.epochs": 4}).training
    assert (training.minutes, training.epochs, training.epochs_from_minutes) == (None, 4, False)
    training = load_config(path, {"training.minutes": 9}).training
    assert (training.minutes, training.needs_measurement) == (9, True)


def test_two_budgets_of_the_command_line_are_one_error(write):
    path = write({"data": FILES})
    with pytest.raises(ConfigError) as error:
        load_config(path, {"training.minutes": 2.5, "training.epochs": 4})
    assert str(error.value) == (
        f"{path}: the configuration cannot be used:\n"
        "  training: expected minutes or epochs, found both: minutes 2.5 and epochs 4. Give only one of them"
    )


def test_a_key_of_a_mapping_that_is_unknown(write):
    """Pydantic calls the key of a mapping ``[key]``, which stands in no file."""
    message = refused(write("method: {losses: {tversky: 1}}\n"), {f"data.{k}": f"/x/{v}" for k, v in FILES.items()})
    assert "\n  method.losses.tversky: input should be " in message
    assert "[key]" not in message
