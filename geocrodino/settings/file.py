"""Read a YAML configuration: resolve its paths, and put in the values of the command line. Values are checked later.

This module imports no heavy library, so that the command line can look up files quickly.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from geocrodino.errors import AreaWarning, ConfigError
from geocrodino.files.access import absence, access_errors, exists, is_folder, read_text
from geocrodino.files.area_names import absolute_source, box_numbers
from geocrodino.files.names import absolute_name, gdal_name, in_archive, is_gdal_name, is_remote, is_url
from geocrodino.phrases import arguments, listed
from geocrodino.settings.encoder_weights import is_weights_file
from geocrodino.settings.scene_table import read_scene_table

PROJECT_FILE = "geocrodino.yaml"
"""Default name of the configuration file, in the working folder."""

RASTERS = ("optical", "elevation", "labels", "ground")


def read_settings(file: Path | None, overrides: Mapping[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """Read a configuration as nested dictionaries, with absolute paths.

    Args:
        file: YAML file; None: ``geocrodino.yaml`` of the working folder if there is one.
        overrides: Values of the command line by dotted key, for instance ``{"training.seed": 1}``; a value of None
            replaces nothing.

    Returns:
        The file that was read, None if there is none, and the nested values of file and command line.

    Raises:
        ConfigError: If the file is missing or not YAML, or has no sections, or a number is not finite.
        AccessError: If the operating system denies access to a file.
    """
    source = file if file is not None else (Path(PROJECT_FILE) if exists(PROJECT_FILE) else None)
    tree = {} if source is None else _read(source)
    _keep_crs_with_its_area(tree, overrides, source)
    return source, complete_settings(tree, overrides, source)


def complete_settings(tree: dict[str, Any], overrides: Mapping[str, Any], source: Path | None) -> dict[str, Any]:
    """Put the values of the command line into those of a file, and make all paths absolute.

    Args:
        tree: Nested values of the file, changed in place; empty without a file.
        overrides: As for `read_settings`.
        source: The file, for messages; None without a file.

    Returns:
        The changed ``tree``.

    Raises:
        ConfigError: If a section holds a value instead of keys, a number is not finite, or a table of scenes cannot be
            read.
    """
    for key, value in overrides.items():
        if value is not None:
            *sections, last = key.split(".")
            place = tree
            for section in sections:
                inner = place.get(section)
                if inner is None:  # a missing section, or a heading without keys
                    inner = place[section] = {}
                if not isinstance(inner, dict):
                    raise ConfigError(f"{source}: {section}: expected keys and values, found {inner!r}.")
                place = inner
            place[last] = value
    _read_table_of_scenes(tree.get("data"))
    _require_effect(tree.get("data"), overrides, source)
    _require_finite(tree, source)
    _make_absolute(tree)
    return tree


def _require_effect(data: object, overrides: Mapping[str, Any], source: Path | None) -> None:
    """Refuse a value for all scenes that some scenes of the file would not take, because they have their own."""
    scenes = data.get("scenes") if isinstance(data, dict) else None
    if not isinstance(scenes, list) or overrides.get("data.scenes") is not None:
        return
    for name, value in overrides.items():
        section, _, rest = name.partition(".")
        key = rest.partition(".")[0]
        if value is None or section != "data":
            continue
        own = [
            str(scene.get("name", f"scene-{number}"))
            for number, scene in enumerate(scenes, start=1)
            if isinstance(scene, dict) and scene.get(key) is not None
        ]
        if own:
            raise ConfigError(
                f"`{name}`: expected a value that all scenes take, found scenes of {source} with their own {key}: "
                f"{listed(own)}. Change it there, or leave it out here."
            )


def _read_table_of_scenes(data: object) -> None:
    """Put the rows of a table in the place of its name; paths in it are relative to it."""
    if not isinstance(data, dict) or not isinstance(data.get("scenes"), str):
        return
    table = Path(data["scenes"])
    data["scenes"] = read_scene_table(table)
    for scene in data["scenes"]:
        change_data_paths(scene, lambda text, area: _resolved(text, table, area=area))


def _keep_crs_with_its_area(tree: dict[str, Any], overrides: Mapping[str, Any], source: Path | None) -> None:
    """Drop the CRS of a file's area if the command line names another area, unless that is a bounding box."""
    data = tree.get("data")
    area, crs = overrides.get("data.aoi"), overrides.get("data.aoi_crs")
    if not isinstance(data, dict) or area is None or crs is not None or {"aoi", "aoi_crs"} - data.keys():
        return
    if box_numbers(str(area)) is None:
        warnings.warn(
            f"{source}: aoi_crs {data['aoi_crs']} is the CRS of the area in this file, and is not used for "
            f"{arguments(aoi=str(area))}. Name its CRS with `aoi_crs` where its file names none.",
            AreaWarning,
            stacklevel=4,
        )
        del data["aoi_crs"]


class _Loader(yaml.SafeLoader):
    """Refuse duplicate keys, of which YAML would silently keep the last."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    loader.flatten_mapping(node)
    found: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in found:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", key_node.start_mark)
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _read(path: Path) -> dict[str, Any]:
    if not exists(path):
        raise ConfigError(f"{path}: {absence(path).replace('file', 'configuration file', 1)}.")
    if is_folder(path):
        raise ConfigError(f"{path}: not a readable YAML file, but a folder. Name the file in it.")
    try:
        text = read_text(path)
        tree = yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read as text ({error}). Expected YAML in UTF-8.") from error
    except (yaml.YAMLError, TypeError) as error:  # TypeError: a list as a key
        comment = isinstance(error, yaml.YAMLError) and re.search(r":\s+#[0-9a-fA-F]{3}", text)
        hint = "\nA # after a space starts a comment in YAML: put colours in quotes." if comment else ""
        raise ConfigError(f"{path}: not a readable YAML file ({error}).{hint}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as `data:`, found {type(tree).__name__}.")
    change_data_paths(tree.get("data"), lambda text, area: _resolved(text, path, area=area))
    _change_weights_files(tree, lambda name: _resolved(name, path))
    if isinstance(tree.get("start_from"), str):
        tree["start_from"] = _resolved(tree["start_from"], path)
    return tree


def _change_weights_files(tree: dict[str, Any], change: Callable[[str], str]) -> None:
    """Change the names of files of encoder weights; other names stay as they are."""

    def changed(name: object) -> object:
        return change(name) if isinstance(name, str) and is_weights_file(name) else name

    weights = tree.get("encoder_weights")
    if isinstance(weights, dict):
        tree["encoder_weights"] = {modality: changed(name) for modality, name in weights.items()}
    elif weights is not None:
        tree["encoder_weights"] = changed(weights)


def _resolved(text: str, config: Path, *, area: bool = False) -> str:
    """Resolve a path of a configuration file, relative to that file."""
    expanded = os.path.expandvars(text)
    missing = re.search(r"\$\{?(\w+)\}?", expanded)
    if missing:
        raise ConfigError(
            f"{config}: {text} needs the environment variable {missing.group(1)}, which is not set.\n"
            f"Set it, for instance: export {missing.group(1)}=/path/to/data"
        )
    if area:
        return absolute_source(expanded, config.parent)
    member = in_archive(expanded, config.parent)
    if member is not None:
        return member.name
    if is_gdal_name(expanded) or is_url(expanded) or is_remote(expanded):
        return gdal_name(expanded)
    try:
        place = Path(expanded).expanduser()
    except RuntimeError as error:  # ~name of an unknown user
        raise ConfigError(f"{config}: {text}: {error} Write the whole path.") from error
    return str(place if place.is_absolute() else config.parent / place)


def _make_absolute(tree: dict[str, Any]) -> None:
    """Make paths absolute, so that the copy in the run folder names the same files from any folder."""
    _change_weights_files(tree, _absolute)
    change_data_paths(
        tree.get("data"), lambda text, area: absolute_source(text, Path.cwd()) if area else _absolute(text)
    )
    if isinstance(tree.get("start_from"), str):
        tree["start_from"] = _absolute(tree["start_from"])


def change_data_paths(data: object, change: Callable[[str, bool], str]) -> None:
    """Change all names of files in the section ``data``, in place: of the section itself and of each of its scenes.

    Args:
        data: The section, not yet checked; anything but a dictionary stays as it is.
        change: Function of a name, and whether it names an area, that returns the new name.
    """
    if not isinstance(data, dict):
        return
    if isinstance(data.get("scenes"), str):
        data["scenes"] = change(data["scenes"], False)
    splits = data.get("splits")
    if isinstance(splits, dict):
        _change_each(splits.get("lists"), change)
    for scene in (data, *scenes_of(data)):
        _change_each(scene, change, (*RASTERS, "aoi"))
        _change_each(scene.get("rasters"), change)


def scenes_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the scenes of the section ``data``.

    Args:
        data: The section, not yet checked.

    Returns:
        The items of ``scenes`` that are dictionaries; empty where there is one scene, or scenes are a file.
    """
    scenes = data.get("scenes")
    return [scene for scene in scenes if isinstance(scene, dict)] if isinstance(scenes, list | tuple) else []


def _change_each(place: object, change: Callable[[str, bool], str], keys: Sequence[str] | None = None) -> None:
    """Change names of files, or lists of them, under some keys of a dictionary, or all."""
    if not isinstance(place, dict):
        return
    for key in tuple(place) if keys is None else keys:
        value = place.get(key)
        if isinstance(value, str):
            place[key] = change(value, key == "aoi")
        elif isinstance(value, list | tuple) and key != "aoi":
            place[key] = [change(name, False) if isinstance(name, str) else name for name in value]


def _absolute(text: str) -> str:
    if is_remote(text) or in_archive(text) is not None:
        return absolute_name(text)
    with access_errors(text):
        return os.path.abspath(text)  # noqa: PTH100 - symbolic links stay as they were named


def _require_finite(tree: dict[str, Any], source: Path | None) -> None:
    for key, value in _numbers(tree):
        if not math.isfinite(value):
            where = "" if source is None else f"{source}: "
            raise ConfigError(f"{where}{key}: expected a finite number, found {value}.")


def _numbers(value: object, key: str = "") -> Iterator[tuple[str, float]]:
    """Yield every float with its dotted key."""
    if isinstance(value, float):
        yield key, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, inner in pairs:
        yield from _numbers(inner, f"{key}.{name}".lstrip("."))
