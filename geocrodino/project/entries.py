"""The settings of a project: each key of its configuration, with the reason for it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geocrodino.errors import GeocrodinoError, RasterError
from geocrodino.files.tile_names import guess_patterns
from geocrodino.geo.labels.source import recoded_categories
from geocrodino.geo.rasters.bands import common_names
from geocrodino.geo.rasters.grid import pixel_side_m
from geocrodino.geo.rasters.place import Place, pictures
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene_files import find_files
from geocrodino.phrases import listed
from geocrodino.project.classes import LabelGuess, guess_rules, guess_rules_of_tiles
from geocrodino.project.heights import HeightGuess, guess_heights
from geocrodino.project.layers import Layer, Role, alone, describe_layer
from geocrodino.project.scenes import Arranged, SceneGuess
from geocrodino.project.text import Block, Entry
from geocrodino.training.checks import CheckedInputs

_PATCHES_PX = (256, 128, 64, 32)
_FINE_M = 0.15
"""Pixel size below which 128 px cover less than 20 m, and patches of 256 px are taken."""

_FEWEST_DRAWN = 6  # scenes from which a training draws whole ones
_TILES_LOOKED_AT = 40  # tiles whose labels are read for the values that are no class
_ROLES: tuple[Role, ...] = ("optical", "elevation", "ground", "labels", "aoi")
_MODALITIES: tuple[Role, ...] = ("optical", "elevation")
_HEIGHT_KEYS = ("height", "height_unit")
_LABEL_KEYS = ("label_rules", "ignore_values", "label_values")


@dataclass(frozen=True)
class SceneSettings:
    """A scene with all that is known of it.

    Attributes:
        scene: Its layers.
        names: What the configuration names for each role.
        labels: How its labels are read.
        heights: What its heights mean.
        bands: Numbers of the bands of its image that all scenes have; None: all.
        split: The split of the whole scene, where it is too small for several; None otherwise.
        rescale: Factor that takes the values of its image to the scale of the first one.
        why_rescale: The reason for it.
        has_splits: Whether its area names splits.
    """

    scene: SceneGuess
    names: Mapping[Role, str | list[str]]
    labels: LabelGuess
    heights: HeightGuess
    bands: tuple[int, ...] | None = None
    split: str | None = None
    rescale: float | None = None
    why_rescale: str = ""

    @property
    def has_splits(self) -> bool:
        """Whether its area names splits."""
        return "aoi" in self.scene.layers and self.scene.layers["aoi"].word == "split"


@dataclass(frozen=True)
class ProjectSettings:
    """The settings of a project.

    Attributes:
        scenes: The scenes; one where there is one, or where tiles are joined by name.
        patch_px: Side of a patch, px.
        why_patch: The reason for it.
        stated: Values by key that the user knows: ``crs``, ``pixel_m``.
        channels: Channels of heights, where they are not the default ones.
        why_channels: The reason for them.
        left_out: Why scenes are not used, by what messages call their image.
    """

    scenes: tuple[SceneSettings, ...]
    patch_px: int
    why_patch: str
    stated: Mapping[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] | None = None
    why_channels: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)

    def with_absolute_heights(self, why: str) -> ProjectSettings | None:
        """Take channels that need no ground.

        Args:
            why: Why the default ones cannot be computed.

        Returns:
            The settings; None if they have these channels already.
        """
        if self.channels is not None and "height_above_ground" not in self.channels:
            return None
        return replace(self, channels=("height", "slope"), why_channels=f"no height above ground: {why}")

    def with_one_scale(self, name: str, factor: float, why: str) -> ProjectSettings | None:
        """Multiply the values of the image of a scene.

        Args:
            name: The scene.
            factor: The factor that takes them to the scale of the first scene.
            why: What tells so.

        Returns:
            The settings; None if the scene has a factor already.
        """
        if all(each.scene.name != name or each.rescale is not None for each in self.scenes):
            return None
        changed = (
            replace(s, rescale=factor, why_rescale=f"? {why}") if s.scene.name == name else s for s in self.scenes
        )
        return replace(self, scenes=tuple(changed))

    def without_scene(self, name: str, why: str) -> ProjectSettings | None:
        """Leave a scene out.

        Args:
            name: The scene.
            why: The reason.

        Returns:
            The settings; None if there is no such scene beside others.
        """
        kept = tuple(each for each in self.scenes if each.scene.name != name)
        gone = [each for each in self.scenes if each.scene.name == name]
        if not kept or not gone:
            return None
        left = {each.scene.layers["optical"].shown: why for each in gone}
        return replace(self, scenes=kept, left_out={**self.left_out, **left})

    def with_room(self, problem: str) -> ProjectSettings | None:
        """Make room for the splits: a small scene of several is for training alone; otherwise patches are smaller.

        Args:
            problem: What a training says.

        Returns:
            The settings; None if it is not a question of room, or patches cannot be smaller.
        """
        if "patch" not in problem and "too small" not in problem:
            return None
        small = next((i for i, s in enumerate(self.scenes) if problem.startswith(f"Scene {s.scene.name}: ")), None)
        if small is not None and self.scenes[small].scene.name and self._others_are_cut(small):
            scenes = list(self.scenes)
            scenes[small] = replace(scenes[small], split="train")
            return replace(self, scenes=tuple(scenes))
        left = [px for px in _PATCHES_PX if px < self.patch_px]
        if not left:
            return None
        anew = tuple(replace(each, split=None) for each in self.scenes)  # smaller patches may have room in them
        return replace(self, scenes=anew, patch_px=left[0], why_patch="smaller than usual, so that each split has room")

    def _others_are_cut(self, number: int) -> bool:
        """Whether other scenes with labels give each raster of a scene pixels in all splits."""
        others = [s.scene for i, s in enumerate(self.scenes) if i != number and s.split is None]
        cut = {role for other in others if "labels" in other.layers for role in other.layers}
        own = self.scenes[number].scene.layers
        return {"labels", *(role for role in _MODALITIES if role in own)} <= cut

    def with_small_scenes(self, checked: CheckedInputs) -> ProjectSettings | None:
        """Take smaller patches where every scene is smaller than a patch, which would be filled up with invalid pixels.

        Args:
            checked: What a training finds with the settings.

        Returns:
            The settings, with the smallest patch that holds the largest scene; None if no smaller one does.
        """
        largest = max(max(scene.choice.grid.shape) for scene in checked.scenes)
        patch = min((px for px in _PATCHES_PX if px >= largest), default=self.patch_px)
        if patch >= self.patch_px:
            return None
        return replace(self, patch_px=patch, why_patch=f"because the largest scene has {largest} px")

    def blocks(self, checked: CheckedInputs | None) -> list[Block]:
        """Write the settings as sections.

        Args:
            checked: What a training finds with them, for classes and pixel sizes; None: not known yet.

        Returns:
            The sections.
        """
        entries: list[Entry | Block] = [Entry(key, value, "as stated") for key, value in self.stated.items()]
        if len(self.scenes) == 1:
            entries = [*_scene_entries(self.scenes[0]), *entries]
        else:
            items = [[Entry("name", each.scene.name), *_scene_entries(each)] for each in self.scenes]
            entries = [Block("scenes", items=items, why="layers that show the same place"), *entries]
        entries += self._split_entries(checked)
        if checked is not None and checked.leaks.in_no_split:  # a training refuses classes that the file names
            why = f"? {listed(checked.leaks.in_no_split)}: in the labels, but in no split"
            entries.append(Entry("absent_classes", "warn", why))
        if checked is not None:
            choice = checked.scenes[0].choice
            entries.append(Entry("resolution_m", float(f"{choice.resolution_m:.4g}"), choice.note, active=False))
        found = [Block("data", entries)]
        if checked is not None and (classes := _classes(checked)) is not None:
            found.append(classes)
        if self.channels is not None:
            channels = Entry("channels", list(self.channels), self.why_channels)
            found.append(Block("elevation", [channels]))
        why_patch = self.why_patch
        if checked is not None:
            pixel_m = pixel_side_m(checked.scenes[0].grid)
            why_patch = f"{why_patch}; {self.patch_px * pixel_m:.3g} m on the ground at {pixel_m:.3g} m a pixel"
        budget = Entry("minutes", 30, "time for the training instead of 30 epochs of 40 steps", active=False)
        found.append(Block("training", [Entry("patch_px", self.patch_px, why_patch), budget]))
        return found

    def _split_entries(self, checked: CheckedInputs | None) -> list[Entry | Block]:
        count = sum(each.scene.tiles for each in self.scenes)
        incomplete = sum(each.scene.incomplete for each in self.scenes)
        found: list[Entry | Block] = []
        if incomplete:
            why = f"? {incomplete} of {count} tiles lack a file"
            found.append(Entry("partial", "leave_out", why))
        if all(each.has_splits for each in self.scenes):
            return found
        hint = "other ways: polygons with a column split, list files; see docs/splits.md"
        parts = 1 if checked is None else len(checked.scenes)
        if count == 1 and checked is None:
            return found  # a training decides by the number of parts that lie far apart
        if count == 1 and parts > 1:
            whole = checked is not None and "scenes" in checked.drawn
            how = "whole ones are drawn" if whole else "those with room for three splits are cut into blocks"
            entry = Entry("splits", {"by": "scenes" if whole else "blocks"}, "", active=whole)
            found.append(replace(entry, why=f"? {parts} parts that lie far apart: {how}; {hint}"))
        elif count == 1:
            why = f"drawn, because no polygons name splits; {hint}"
            found.append(Entry("splits", {"by": "blocks"}, why))
        elif count < _FEWEST_DRAWN:
            found.append(Entry("splits", {"by": "blocks"}, f"? each scene is cut into blocks; {hint}"))
        else:
            found.append(Entry("splits", {"by": "scenes"}, f"? {count} scenes: whole ones are drawn; {hint}"))
        return found


def settings_of(arranged: Arranged, known: Any, place: Place | None) -> ProjectSettings:
    """Find out how the layers of scenes are read.

    Args:
        arranged: The scenes.
        known: What the user knows, see `geocrodino.project.guess.Known`.
        place: CRS and pixel size of files that state none.

    Returns:
        The settings, with the reasons for them.

    Raises:
        ConfigError: If the column of classes is not clear.
        GeocrodinoError: One of its kinds, if a file cannot be read.
    """
    scenes = []
    for scene in arranged.scenes:
        names = {role: _name_of(scene, role, place) for role in _ROLES if role in scene.layers}
        scenes.append(SceneSettings(scene, names, _labels(scene, known, place), _heights(scene, known, place)))
    stated = {key: value for key in ("crs", "pixel_m") if (value := getattr(known, key)) is not None}
    finest = min(_pixel_m(scene) for scene in arranged.scenes)
    patch = 256 if finest < _FINE_M else 128
    why = f"for an image of {finest:.3g} m"
    settings = ProjectSettings(_with_common_bands(scenes), patch, why, stated)
    heights = [scene.scene.layers["elevation"] for scene in scenes if "elevation" in scene.scene.layers]
    if any("terrain model, because" in layer.why for layer in heights):
        channels = ("height", "slope", "topographic_position")
        return replace(settings, channels=channels, why_channels="the heights are those of the ground")
    return settings


def _pixel_m(scene: SceneGuess) -> float:
    first = scene.layers["optical"].first
    try:
        return 1.0 if first is None else pixel_side_m(first.geobox)
    except GeocrodinoError:
        return 1.0


# --- names ----------------------------------------------------------------------------------------------------------


def _name_of(scene: SceneGuess, role: Role, place: Place | None) -> str | list[str]:
    """What the configuration names for a layer: its pattern, file or folder, a pattern of its files, or a list."""
    if role in scene.patterns:
        return scene.patterns[role]
    layer = scene.layers[role]
    if len(layer.files) == 1:
        return layer.files[0]
    folder, files = str(layer.folder), set(layer.files)
    if all(Path(file).parent == layer.folder for file in files):
        try:
            if set(find_files([folder], None, pictures(place)).files) == files:
                return f"{folder}/"
        except RasterError:
            pass
    guessed = guess_patterns({role: sorted(files)})
    if guessed is not None:
        wild = guessed[role]
        for part in ("{tile}", "{folder}", "{folder2}", "{folder3}"):
            wild = wild.replace(part, "*")
        try:
            if set(find_files([wild], None, pictures(place)).files) == files:
                return wild
        except RasterError:
            pass
    return sorted(files)


# --- heights and labels ---------------------------------------------------------------------------------------------


def _heights(scene: SceneGuess, known: Any, place: Place | None) -> HeightGuess:
    layer = scene.layers.get("elevation")
    if layer is None:
        return HeightGuess()
    raster = layer.first if layer.first is not None else layer.raster
    if raster is None:
        return HeightGuess()
    own = {"scale": known.height_scale, "zero": known.height_zero}
    own = {key: value for key, value in own.items() if value is not None}
    if known.height_unit is None and not own:
        return guess_heights(layer, raster)
    bands = guess_heights(layer, raster).values.get("height", {}) if len(raster.data_bands) == 2 else {}
    height = {**{key: bands[key] for key in ("band", "ground_band") if key in bands}, **own}
    values: dict[str, Any] = {} if known.height_unit is None else {"height_unit": known.height_unit}
    if height:
        values["height"] = height
    return HeightGuess(values, dict.fromkeys(values, "as stated"))


def _labels(scene: SceneGuess, known: Any, place: Place | None) -> LabelGuess:
    layer = scene.layers.get("labels")
    if layer is None:
        return LabelGuess()
    if layer.raster is None and layer.first is not None:
        step = max(1, len(layer.files) // _TILES_LOOKED_AT)
        some = replace(layer, files=layer.files[::step])
        return guess_rules_of_tiles(alone(some, place), place)
    return guess_rules(layer, known.label_column, place)


def _with_common_bands(scenes: Sequence[SceneSettings]) -> tuple[SceneSettings, ...]:
    """Name the bands of images that have more than others, so that all scenes have the same."""
    images = [scene.scene.layers["optical"].first for scene in scenes]
    names = [_band_names(image) for image in images if image is not None]
    if len(names) < len(scenes) or len({tuple(each) for each in names}) == 1:
        return tuple(scenes)
    common = [name for name in names[0] if name is not None and all(name in other for other in names)]
    if not common:
        return tuple(scenes)
    found = []
    for scene, image, own in zip(scenes, images, names, strict=True):
        if image is None or own == common:
            found.append(scene)
        else:
            numbers = tuple(image.data_bands[own.index(name)] for name in common)
            found.append(replace(scene, bands=numbers))
    return tuple(found)


def _band_names(image: RasterSource) -> list[str | None]:
    names = common_names([band.name for band in image.bands])
    return [names[number - 1] for number in image.data_bands]


# --- keys -----------------------------------------------------------------------------------------------------------


def _scene_entries(each: SceneSettings) -> list[Entry]:
    layers, heights, labels = each.scene.layers, each.heights, each.labels
    found: list[Entry] = []
    for role, name in each.names.items():
        layer = layers[role]
        why = _reason(layer)
        if role == "elevation" and "elevation" in heights.why:
            why += f"; {heights.why['elevation']}"
        if role in each.scene.patterns:
            why += "; tiles without a common raster, joined by the parts of their names in braces"
        found.append(Entry(role, name, why))
        if role == "optical" and each.bands is not None:
            found.append(Entry("bands", list(each.bands), "those that all scenes have, by name"))
        if role == "optical" and each.rescale is not None:
            found.append(Entry("rescale", each.rescale, each.why_rescale))
        if role == "elevation":
            found += [Entry(k, heights.values[k], heights.why.get(k, "")) for k in _HEIGHT_KEYS if k in heights.values]
        if role == "labels":
            found += [Entry(k, labels.values[k], labels.why.get(k, "")) for k in _LABEL_KEYS if k in labels.values]
    if "elevation" not in layers:
        why = "? none found for this scene, so it trains the image alone"
        found.append(Entry("elevation", "dsm.tif", why, active=False))
    if "labels" not in layers:
        found.append(Entry("labels", "labels.tif", "none found for this scene, so it is unlabelled", active=False))
    if each.split is not None:
        found.append(Entry("split", each.split, "? too small to be cut into blocks"))
    return found


def _reason(layer: Layer) -> str:
    if layer.first is None:
        return layer.why
    called = f"called {layer.word}" if layer.word else ""
    added = layer.why.partition("; ")[2]
    other = layer.why if layer.role == "labels" and not layer.word else ""
    named = "as named" if layer.why == "as named" else ""
    return "; ".join(part for part in (describe_layer(layer), named or called or other, added) if part)


def _classes(checked: CheckedInputs) -> Block | None:
    """The classes with their names and colours; None where a table under ``label_rules`` names them."""
    labels = [scene.sources.labels for scene in checked.scenes if scene.sources.labels is not None]
    if any(each.rules is not None and each.rules.table for each in labels):
        return None
    named: dict[int, str] = {}
    coloured: dict[int, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in labels[:1]:
            categories = recoded_categories(each)
            named, coloured = dict(categories.names), dict(categories.colours)
    by_word = labels[0].names is not None
    where = f"{labels[0].path.name}" if len(labels) == 1 else f"the files of {len(labels)} scenes"
    names = "words of the column" if by_word else "names found in the file" if named else "? no names found: give them"
    colours = "colours found in the file" if coloured else "colours chosen"
    if len(labels) > 1 and not by_word and not named and len({each.path for each in labels}) > 1:
        names += "; check that a value means the same in each file, otherwise use label_values"
    items = [
        [Entry("value", c.value), Entry("name", c.name), Entry("colour", c.colour)] for c in checked.classes.classes
    ]
    return Block("classes", items=items, why=f"values of {where}; {names}; {colours}")
