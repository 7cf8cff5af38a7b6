"""The settings on labels of a configuration, for labels that a user names beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geocrodino.errors import ConfigError
from geocrodino.files.access import is_folder, same_file
from geocrodino.files.names import absolute_name, is_remote
from geocrodino.files.tile_names import has_parts
from geocrodino.files.vector_names import without_layer

if TYPE_CHECKING:
    from geocrodino.settings.scenes import SceneConfig

_KEYS = ("label_rules", "ignore_values", "label_values")


def label_settings(config: Path | None, column: str | None, labels: Path) -> SceneConfig:
    """Find how a configuration reads labels.

    Of several scenes, those count whose key ``labels`` names the file; if there is none, all do.

    Args:
        config: The YAML file; None: not given.
        column: Column of the classes, where one is named.
        labels: The labels that the user names.

    Returns:
        The settings on labels, the other keys at their defaults.

    Raises:
        ConfigError: If a value is not accepted, or scenes read their labels in different ways and the file does not
            tell which.
    """
    from pydantic import ValidationError

    from geocrodino.settings.file import read_settings, scenes_of
    from geocrodino.settings.scenes import SceneConfig

    data = {} if config is None else read_settings(config, {})[1].get("data")
    data = data if isinstance(data, dict) else {}
    scenes = [{**data, **scene} for scene in scenes_of(data)] or [data]
    ways = _different_ways([s for s in scenes if _names(s.get("labels"), labels)] or scenes)
    if len(ways) > 1:
        raise ConfigError(
            f"{config}: data.scenes: labels of the scenes are read in {len(ways)} ways ({', '.join(_KEYS)}), and "
            f"{labels} does not tell which one counts.\nName labels of one scene, or leave --labels out: then each "
            "scene is read in its own way."
        )
    found = {key: value for key, value in ways[0].items() if value is not None}
    if column is not None:
        found["label_rules"] = {**(found.get("label_rules") or {}), "column": column}
    try:
        return SceneConfig.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("data", *(str(part) for part in first["loc"] if part != "[key]")))
        raise ConfigError(f"{config}: {key}: {first['msg'].removeprefix('Value error, ')}.") from error


def _different_ways(scenes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The different settings on labels of scenes, as their file gives them."""
    found: list[dict[str, Any]] = []
    for scene in scenes:
        own = {key: scene.get(key) or None for key in _KEYS}
        if own not in found:
            found.append(own)
    return found


def _names(given: object, labels: Path) -> bool:
    """Whether what a scene names as its labels is a file, holds it or matches it."""
    names = [given] if isinstance(given, str) else given if isinstance(given, list | tuple) else []
    return any(_leads_to(name, labels) for name in names if isinstance(name, str))


def _leads_to(name: str, labels: Path) -> bool:
    plain, wanted = without_layer(name), without_layer(str(labels))
    if is_remote(wanted) or is_remote(plain):
        return plain == wanted
    full = absolute_name(wanted)
    if has_parts(plain):
        plain = _with_wildcards(plain)
    if plain == full or fnmatch(full, plain) or same_file(Path(plain), Path(full)):
        return True
    return is_folder(plain) and Path(plain) in Path(full).parents


def _with_wildcards(pattern: str) -> str:
    """A pattern with named parts in braces as one with ``*``."""
    head, *rest = pattern.split("{")
    return "*".join((head, *(part.partition("}")[2] for part in rest)))
