"""What of a data set lies in a folder: its scenes with their splits, and what is missing."""

from __future__ import annotations

import csv
import fnmatch
import glob
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from geocrodino.errors import ConfigError, LeftOutWarning, SplitWarning
from geocrodino.files.access import access_errors, is_folder, read_text
from geocrodino.files.tile_names import match_tiles, matching_files
from geocrodino.phrases import listed
from geocrodino.presets.packed import UNPACKED, Packed, Progress, not_unpacked, unpack
from geocrodino.presets.preset import Layer, Preset
from geocrodino.settings.splits import SceneSplit

_WORLD_FILES = {".jpg": (".jgw", ".jpgw", ".wld"), ".png": (".pgw", ".pngw", ".wld")}
"""Endings of world files that GDAL reads beside a picture; other files: `_OF_TIFF`."""

_OF_TIFF = (".tfw", ".tifw", ".wld")


class NotUnpackedError(ConfigError):
    """Tiles of a data set are not unpacked yet.

    Args:
        found: What was expected, and what was found.
    """

    def __str__(self) -> str:
        """Put the way out in Python behind it; a command has one of its own."""
        return f"{self.found} Unpack them first: geocrodino.presets.contents.unpack_dataset."

    @property
    def found(self) -> str:
        """What was expected, and what was found."""
        return str(self.args[0])


@dataclass(frozen=True)
class PresetScene:
    """A tile of a data set.

    Attributes:
        name: The parts of its name, joined by ``_``.
        split: Its split.
        files: Path of each layer that is there.
    """

    name: str
    split: SceneSplit
    files: Mapping[str, str]


@dataclass(frozen=True)
class Contents:
    """What of a data set lies in a folder.

    Attributes:
        scenes: The tiles that can be used, by name.
        files: Number of files of each layer.
        incomplete: What other tiles lack, by name: ``optical``, ``elevation``, ``ground`` or ``labels``.
        absent: Names of tiles that the preset lists, of which nothing is there.
        chosen_val: Whether tiles of train became val, because none of val is named or there.
        packed: The packed files, if the tiles are those in them, or nothing else is there; their rasters may not be
            written yet, see `geocrodino.presets.packed.not_unpacked`.
        obstacle: Why files that are there cannot be unpacked, and what to do; empty: nothing is in the way.
        unlisted: What is not known because no file that lists the tiles of each split is there; empty: nothing.
    """

    scenes: tuple[PresetScene, ...] = ()
    files: Mapping[Layer, int] = field(default_factory=dict)
    incomplete: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    chosen_val: bool = False
    packed: Packed | None = None
    obstacle: str = ""
    unlisted: str = ""

    def count(self, split: SceneSplit) -> int:
        """Count the scenes of a split.

        Args:
            split: The split.

        Returns:
            Their number.
        """
        return sum(scene.split == split for scene in self.scenes)


def look(preset: Preset, root: Path) -> Contents:
    """Look for the files of a data set in a folder and all folders in it.

    Args:
        preset: The data set.
        root: The folder.

    Returns:
        What is there.

    Raises:
        ConfigError: If there is no such folder, or two files are of one tile.
        AccessError: If the operating system does not let the folder be read.
    """
    if not is_folder(root):
        raise ConfigError(f"{root}: expected the folder of {preset.name}, found none. Check `root`.")
    packed, paths, patterns, files = _found(preset, root, _all_files(root))
    counts = {layer: len(files.get(layer, ())) for layer in preset.layers}
    obstacle = "" if packed is None else packed.obstacle
    if not files:
        return Contents(files=counts, absent=_named(preset), obstacle=obstacle)
    tiles = match_tiles(patterns, "keep", among=files)
    there = {tile.name: tile.files for tile in tiles}
    lists = (packed.lists if packed is not None else {}) or _read_lists(preset, root, paths)
    splits = _splits(preset, there, lists)
    lacking: dict[str, str] = {}
    for name, own in there.items():
        needed = [layer for layer in preset.layers if layer != "labels" or splits.get(name) != "unlabelled"]
        missing = [layer for layer in needed if layer not in own]
        if name in splits and missing:
            lacking[name] = " and ".join(missing)
    usable = {name: split for name, split in splits.items() if name not in lacking}
    chosen = "val" not in usable.values()
    if chosen:
        usable = _with_val(preset, usable)
    scenes = tuple(PresetScene(name, split, there[name]) for name, split in usable.items())
    absent = tuple(name for name in _named(preset) if name not in there)
    unlisted = "" if lists else _unlisted(preset, packed)
    return Contents(scenes, counts, lacking, absent, chosen, packed, obstacle, unlisted)


def dataset_settings(preset: Preset, root: Path) -> dict[str, Any]:
    """Make the settings of a training on a data set.

    Args:
        preset: The data set.
        root: Its folder.

    Returns:
        Values by dotted key of the configuration, see `geocrodino.settings.config.load_config`. ``data`` holds a scene
        for each tile.

    Raises:
        ConfigError: If no tile of the split train, or none of val, can be used.
        NotUnpackedError: If tiles are not unpacked yet.
        AccessError: If the operating system does not let the folder be read.

    Warns:
        LeftOutWarning: If tiles are left out because they lack a file.
        SplitWarning: If a file that names the official splits is not there.
    """
    contents = look(preset, root)
    if not contents.count("train") or not contents.count("val"):
        raise ConfigError(_nothing_usable(preset, root, contents))
    if contents.packed is not None:
        _require_unpacked(preset, root, contents.packed)
    if contents.unlisted:
        warnings.warn(f"{root}: {contents.unlisted}", SplitWarning, stacklevel=2)
    if contents.incomplete:
        told = [f"{name} (no {what})" for name, what in contents.incomplete.items()]
        warnings.warn(
            f"{root}: {len(told)} of {len(told) + len(contents.scenes)} tiles of {preset.name} are left out, because "
            f"they lack a file: {listed(told)}.",
            LeftOutWarning,
            stacklevel=2,
        )
    values = preset.settings()
    data = values["data"]
    data["absent_classes"] = "warn"  # of some tiles of a data set, some classes are normal
    data["scenes"] = [{"name": scene.name, **scene.files, "split": scene.split} for scene in contents.scenes]
    if preset.crs is not None and _have_world_files(contents.scenes):
        data["crs"] = preset.crs
    elif preset.pixel_m is not None:
        data["pixel_m"] = preset.pixel_m
    return values


def unpack_dataset(
    preset: Preset, root: Path, tell: Callable[[str], None] = lambda _: None, on_progress: Progress | None = None
) -> None:
    """Unpack the files of a data set that are not read as they are; of other data sets, do nothing.

    Args:
        preset: The data set.
        root: Its folder; the rasters come into the folder ``geocrodino-unpacked`` in it.
        tell: Called with the size of the rasters before any is written.
        on_progress: Called with the number of finished rasters and that of all.

    Raises:
        GeocrodinoError: One of its kinds, see `look` and `geocrodino.presets.packed.unpack`.
    """
    if preset.packed is None:
        return
    packed = look(preset, root).packed
    if packed is not None:
        unpack(packed, root, tell, on_progress)


def missing_text(preset: Preset, contents: Contents) -> str:
    """Tell in one sentence what of a data set is missing.

    Args:
        preset: The data set.
        contents: What is there.

    Returns:
        The sentence; empty if nothing is known to be missing.
    """
    if contents.obstacle and not contents.scenes:
        return contents.obstacle
    layers = [layer for layer, count in contents.files.items() if not count]
    if len(layers) == len(preset.layers):
        return f"No file of it is there. {_where(preset)}"
    if layers:
        expected = [f"{layer} ({preset.layers[layer][0]})" for layer in layers]
        return f"No file is there for {' and '.join(expected)}."
    parts = []
    if contents.absent:
        parts.append(f"Not there: {listed(contents.absent)}.")
    if contents.incomplete:
        told = [f"{name} (no {what})" for name, what in contents.incomplete.items()]
        parts.append(f"Left out for a missing file: {listed(told)}.")
    if contents.unlisted:
        parts.append(contents.unlisted)
    return " ".join(parts)


def _require_unpacked(preset: Preset, root: Path, packed: Packed) -> None:
    if missing := len(not_unpacked(packed, root)):
        raise NotUnpackedError(
            f"{root}: expected the tiles of {preset.name} in {root / UNPACKED}, found {missing} of "
            f"{len(packed.rasters)} rasters not unpacked yet."
        )


def _where(preset: Preset) -> str:
    first = next(iter(preset.layers.values()))[0]
    return f"Expected names such as {first}. Get the data from {preset.source}."


def _nothing_usable(preset: Preset, root: Path, contents: Contents) -> str:
    split = "val" if contents.count("train") else "train"
    missing = missing_text(preset, contents)
    found = f"found {len(contents.scenes)} tiles that can be used" if contents.scenes else "found none"
    return f"{root}: expected tiles of {preset.name} for the split {split}, {found}. {missing}".rstrip()


# --- files ------------------------------------------------------------------------------------------------------------


def _all_files(root: Path) -> list[str]:
    """All files of a folder and the folders in it; linked folders are followed once, hidden names left out."""
    found, seen = [], set[str]()
    with access_errors(root):
        for folder, folders, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            found += [f"{folder}/{name}" for name in sorted(names) if not name.startswith(".")]
    return found


def _below(root: Path, pattern: str) -> str:
    return f"{glob.escape(str(root))}/**/{pattern}"


def _found(
    preset: Preset, root: Path, paths: Sequence[str]
) -> tuple[Packed | None, Sequence[str], dict[str, str], dict[str, list[str]]]:
    """Packed files if the data set is read from them, the files that count, pattern and files of each layer.

    Rasters of their own come first. Of packed files, the rasters count that they give, whether or not they are written.
    Unpacked rasters count by themselves if the packed files are gone or cannot be unpacked.
    """
    inside = f"{root}/{UNPACKED}/"
    own = [path for path in paths if not path.startswith(inside)]
    patterns, files = _layers(preset, root, own)
    if preset.packed is None or len(files) == len(preset.layers):
        return None, own, patterns, files
    packed = preset.packed(own)
    unpacked = [path for path in paths if path.startswith(inside)]
    if packed is not None and not packed.obstacle:
        return packed, unpacked, *_layers(preset, root, [f"{inside}{raster.name}" for raster in packed.rasters])
    written, of_layers = _layers(preset, root, unpacked)
    if of_layers:
        return packed, unpacked, written, of_layers
    return packed, own, patterns, files


def _layers(preset: Preset, root: Path, paths: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Pattern and files of each layer that has any."""
    patterns: dict[str, str] = {}
    files: dict[str, list[str]] = {}
    for layer, choices in preset.layers.items():
        for choice in choices:
            pattern = _below(root, choice)
            found = matching_files(pattern, paths)
            if found:
                patterns[layer], files[layer] = pattern, found
                break
    return patterns, files


def _have_world_files(scenes: Iterable[PresetScene]) -> bool:
    return all(_has_world_file(Path(file)) for scene in scenes for file in scene.files.values())


def _has_world_file(file: Path) -> bool:
    endings = _WORLD_FILES.get(file.suffix.lower(), _OF_TIFF)
    return any(file.with_suffix(ending).exists() for ending in endings)


# --- splits -----------------------------------------------------------------------------------------------------------


def _named(preset: Preset) -> tuple[str, ...]:
    """Tiles that a preset lists by their whole names."""
    names = [name for patterns in preset.splits.values() for name in patterns]
    if any(set(name) & set("*?[") for name in names):
        return ()
    return tuple(name for name in names if name not in preset.skipped)


def _splits(
    preset: Preset, tiles: Mapping[str, Mapping[str, str]], listed_names: Mapping[SceneSplit, Collection[str]]
) -> dict[str, SceneSplit]:
    """Split of each tile that has one."""
    found: dict[str, SceneSplit] = {}
    for name, files in tiles.items():
        if name in preset.skipped:
            continue
        split = _listed_split(name, files, listed_names) if listed_names else _named_split(preset, name)
        if split is not None:
            found[name] = split
    return found


def _named_split(preset: Preset, name: str) -> SceneSplit | None:
    if not preset.splits:
        return "train"
    for split, patterns in preset.splits.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return split
    return None


def _read_lists(preset: Preset, root: Path, paths: Sequence[str]) -> dict[SceneSplit, set[str]]:
    """What the lists of splits name: file names without folders and endings."""
    found: dict[SceneSplit, set[str]] = {}
    for split, pattern in preset.lists.items():
        files = [path for path in paths if fnmatch.fnmatch(PurePosixPath(path).name.lower(), pattern)]
        if len(files) > 1:
            raise ConfigError(
                f"{root}: expected one list of the split {split} ({pattern}), found {listed(files, 3)}.\n"
                "Keep the one that counts in this folder."
            )
        if files:
            found[split] = _names_in(Path(files[0]))
    return found


def _unlisted(preset: Preset, packed: Packed | None) -> str:
    """What is not known without lists of the splits; empty for data sets that have none."""
    if not preset.lists:
        return ""
    if packed is not None and packed.lacking:
        return packed.lacking
    names = ", ".join(preset.lists.values())
    return f"No list of the splits is there ({names}): tiles of test are not told from those of train."


def _names_in(path: Path) -> set[str]:
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read as text ({error}). Expected UTF-8.") from error
    cells = [cell.strip() for row in csv.reader(text.splitlines()) for word in row for cell in word.split()]
    return {PurePosixPath(cell.replace("\\", "/")).stem for cell in cells if cell}


def _listed_split(
    name: str, files: Mapping[str, str], listed_names: Mapping[SceneSplit, Collection[str]]
) -> SceneSplit | None:
    own = {name, *(PurePosixPath(file).stem for file in files.values())}
    return next((split for split, names in listed_names.items() if not own.isdisjoint(names)), None)


def _with_val(preset: Preset, splits: Mapping[str, SceneSplit]) -> dict[str, SceneSplit]:
    """Make every so many of the groups of train val; of a few groups the last."""
    groups: dict[str, list[str]] = {}
    for name, split in splits.items():
        if split == "train":
            match = re.match(preset.group, name)
            groups.setdefault(match.group() if match else name, []).append(name)
    names = list(groups)
    if len(names) < 2:
        return dict(splits)
    chosen = names[preset.val_every - 1 :: preset.val_every] or names[-1:]
    val = {name for group in chosen for name in groups[group]}
    return {name: "val" if name in val else split for name, split in splits.items()}
