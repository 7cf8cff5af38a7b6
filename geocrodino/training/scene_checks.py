"""Checks that concern several scenes of a training together: areas, recipes, labels and splits that they share."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.alignment import nothing_valid, reference_grid
from geocrodino.data.alike_bands import require_known_bands, require_numbers
from geocrodino.data.grid_choice import GridChoice
from geocrodino.data.held_labels import HeldLabels, packed
from geocrodino.data.leakage import LeakReport, SplitScene, find_leaks
from geocrodino.data.parts import ScenePart
from geocrodino.data.scales import TypeCheck, TypedImage
from geocrodino.data.sources import Sources, fitted_sources
from geocrodino.data.splits import SceneView
from geocrodino.errors import (
    AOIError,
    BundleError,
    ConfigError,
    HeightRangeWarning,
    LeftOutWarning,
    OverlapError,
    SplitWarning,
    ValueRangeWarning,
)
from geocrodino.geo.areas.aoi import AOI, read_aoi
from geocrodino.geo.areas.place import on_grid
from geocrodino.geo.labels.rules import without_nodata
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.grid import share_ground
from geocrodino.geo.rasters.headers import read_many
from geocrodino.geo.rasters.reader import require_overlap
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.options import RecipeOptions
from geocrodino.modalities.recipe import Recipe
from geocrodino.modalities.registry import definition_of
from geocrodino.phrases import listed
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.heights import agreed_heights
from geocrodino.settings.modality import Modality
from geocrodino.settings.scenes import SceneConfig
from geocrodino.training.checked import CheckedScene

NAMELESS = "part"
"""What parts of a scene without a name are called, before their number."""

_BLOCK_PX = 512
_FEW = 256  # scenes up to which labels lie in memory as they are


def leaks_of(views: Sequence[SceneView], scenes: Sequence[CheckedScene], classes: ClassScheme) -> LeakReport:
    """Look for what splits share and lack.

    Args:
        views: What is known of each scene, with its labels.
        scenes: The scenes with their splits, in the same order.
        classes: The classes.

    Returns:
        What was found.
    """
    rasters = Counter(scene.sources.reference.name for scene in scenes)
    return find_leaks(
        [
            # Parts of one raster lie in different places, so they are no copies of each other.
            SplitScene(s.name, s.grid, s.aoi, view.labels, s.inside, raster if rasters[raster.name] == 1 else None)
            for view, s in zip(views, scenes, strict=True)
            for raster in (s.sources.reference,)
        ],
        classes,
    )


def judge_leaks(found: LeakReport, scenes: Sequence[CheckedScene], classes: ClassScheme, *, refused: bool) -> None:
    """Tell what splits share, and classes that no split has.

    Args:
        found: What splits share and lack.
        scenes: The scenes.
        classes: The classes.
        refused: Whether a class that no split has is an error.

    Raises:
        ConfigError: If such a class is an error.

    Warns:
        SplitWarning: If splits share ground or images, or lack a class.
    """
    if found.in_no_split:
        count = len(found.in_no_split)
        verb, them = ("has", "it") if count == 1 else ("have", "them")
        several, labels = len(scenes) > 1, scenes[0].sources.labels
        where, of = (f"{len(scenes)} scenes", " of the scenes") if several else (labels.name if labels else "", "")
        lacking = f"classes: {listed(found.in_no_split)} {verb} no labelled pixel in any split of {where}."
        lacking += _hidden_by_nodata(scenes, classes, found.in_no_split)
        if refused:
            raise ConfigError(
                f"{lacking}\nLeave {them} out of `classes`, or correct the values of the labels or the splits{of}. "
                "With the key data.absent_classes: warn, the training starts all the same."
            )
        share = f"{count} of {len(classes)} classes {verb} nothing to learn from, and no map will show {them}."
        warnings.warn(f"{lacking} {share}", SplitWarning, stacklevel=3)
    for leak in found.leaks:
        warnings.warn(leak, SplitWarning, stacklevel=3)


def _hidden_by_nodata(scenes: Sequence[CheckedScene], classes: ClassScheme, lacking: Sequence[str]) -> str:
    """A sentence on a label file whose nodata value is the value of a class that no split has; else empty."""
    values = {land.value for land in classes.classes if f"{land.name} ({land.value})" in lacking}
    for scene in scenes:
        labels = scene.sources.labels
        if labels is not None and labels.names is None and labels.nodata in values:
            mark = f"{labels.nodata:g} is the nodata value of {labels.name}, which marks pixels without a label."
            return f"\n{mark} {without_nodata(labels)}"
    return ""


def on_areas(
    settings: Sequence[SceneConfig], opened: Sequence[Sources]
) -> tuple[list[SceneConfig], list[Sources], list[AOI | None]]:
    """Read the areas, each once, and leave out scenes that do not meet an area that several share.

    Args:
        settings: What the configuration says of each scene.
        opened: The rasters of each scene.

    Returns:
        Settings, rasters and area of each scene that is kept; None: the whole scene.

    Raises:
        AOIError: If an area cannot be read.

    Warns:
        LeftOutWarning: If scenes are left out.
    """
    named = [(scene.aoi, scene.aoi_crs) for scene in settings]
    of_area: dict[tuple[str | None, str | None], list[SceneConfig]] = {}
    for name, scene in zip(named, settings, strict=True):
        of_area.setdefault(name, []).append(scene)
    shared = {name for name, scenes in of_area.items() if len(scenes) > 1}
    read = {name: _read_area(scenes) for name, scenes in of_area.items()}
    areas = [read[name] for name in named]
    there = [
        area is None or name not in shared or _share_pixels(area, raw.reference.geobox)
        for name, raw, area in zip(named, opened, areas, strict=True)
    ]
    if not any(there):  # the first scene tells why
        there[0] = True
    left = [scene.name for scene, inside in zip(settings, there, strict=True) if not inside]
    if left:
        warnings.warn(
            f"data.aoi: {len(left)} of {len(settings)} scenes lie outside the area and are left out: {listed(left)}.",
            LeftOutWarning,
            stacklevel=3,
        )
    kept = [each for each, inside in zip(zip(settings, opened, areas, strict=True), there, strict=True) if inside]
    return [scene for scene, _, _ in kept], [raw for _, raw, _ in kept], [area for _, _, area in kept]


def _read_area(scenes: Sequence[SceneConfig]) -> AOI | None:
    """Read the area that scenes share; None: they are used whole."""
    area, crs = scenes[0].aoi, scenes[0].aoi_crs
    try:
        return None if area is None else read_aoi(area, crs)
    except AOIError as error:
        if not (advice := labels_as_area_advice(scenes)):
            raise
        raise AOIError(f"{error}\n{advice}") from error


def labels_as_area_advice(settings: Sequence[SceneConfig]) -> str:
    """Advise users who name the polygons of their labels as the area, with a column of splits.

    Args:
        settings: What the configuration says of the scenes that an error is about.

    Returns:
        Why that does not work, and the ways out; empty if no scene has one file for both.
    """
    if not any(scene.aoi is not None and str(scene.aoi) == str(scene.labels) for scene in settings):
        return ""
    return (
        "The area and the labels are one file, but patches lie wholly inside the polygons of the area: leave `aoi` "
        "out, so that the splits are drawn as blocks, or name a file of larger polygons around those of the labels."
    )


def _share_pixels(area: AOI, grid: GeoBox) -> bool:
    """Whether an area covers a part of a grid; a common edge is none."""
    try:
        placed = on_grid(area, grid).frame.geometry
    except AOIError:  # no position in the CRS of the grid
        return False
    return bool(placed.intersection(grid.extent.geom).area.sum() > 0)


def recipes_of(
    config: TrainConfig, settings: Sequence[SceneConfig], opened: Sequence[Sources]
) -> dict[Modality, Recipe]:
    """Create the recipe of each modality, from the first scene that has it.

    Args:
        config: The configuration.
        settings: What it says of each scene.
        opened: The rasters of each scene.

    Returns:
        The recipes, in the order of the modalities.

    Raises:
        GeocrodinoError: One of its kinds, if a raster cannot be used.
    """
    of_heights = [s for s in settings if any(definition_of(m).holds_heights for m in s.raster_paths)]
    units = {scene.height_unit for scene in of_heights or settings}
    agreed = units.pop() if len(units) == 1 else None
    height = agreed_heights([scene.height for scene in of_heights])
    recipes: dict[Modality, Recipe] = {}
    for scene, sources in zip(settings, opened, strict=True):
        elevation = config.elevation
        options = RecipeOptions(scene.bands_by_modality, elevation.channels, elevation.ground, agreed, height)
        for modality, raster in sources.rasters.items():
            if modality not in recipes:
                recipes[modality] = Recipe.of(modality, raster, options)
    for modality in config.data.modalities():
        if modality not in recipes:
            raise no_labels_with(modality, len(settings))
    return {m: recipes[m] for m in config.data.modalities()}


def no_labels_with(modality: Modality, scenes: int, split: str | None = None) -> ConfigError:
    """Create the error for a modality that no scene has together with labels.

    Args:
        modality: The modality.
        scenes: Number of the scenes.
        split: The split that lacks it; None: no scene has its raster.

    Returns:
        The error, to be raised by the caller.
    """
    if split is None:
        return ConfigError(f"data.{modality}: expected a raster in some of {scenes} scenes, found none. Name it.")
    return ConfigError(
        f"data.{modality}: no labelled pixel of the split {split!r} in {scenes} scenes has a valid {modality} value, "
        f"so the {modality} branch cannot be {'trained' if split == 'train' else 'validated'}.\nGive a scene with "
        f"{modality} and labels the split {split}."
    )


def fitted_scenes(
    settings: Sequence[SceneConfig], opened: Sequence[Sources], recipes: dict[Modality, Recipe]
) -> list[Sources]:
    """Prepare the rasters of all scenes for the recipes; an error that two scenes differ in names both.

    Args:
        settings: What the configuration says of each scene.
        opened: The rasters of each scene.
        recipes: The recipe of each modality.

    Returns:
        The rasters of each scene as the recipes read them.

    Raises:
        ConfigError: If a scene is unlike the first that has a modality.
        BundleError: If a raster does not fit its own recipe, or lacks a band that is asked for.
        HeightError: If heights are too coarse, or in a unit that is not known.

    Warns:
        ValueRangeWarning: If images have another type than the first one; one warning for all of a modality.
    """
    checks: dict[Modality, TypeCheck] = {}
    fitted = [_fitted(*each, settings, opened, recipes, checks) for each in zip(settings, opened, strict=True)]
    for check in checks.values():
        if (note := check.warning()) is not None:
            warnings.warn(note, ValueRangeWarning, stacklevel=3)
    return fitted


def _fitted(
    scene: SceneConfig,
    sources: Sources,
    settings: Sequence[SceneConfig],
    opened: Sequence[Sources],
    recipes: dict[Modality, Recipe],
    checks: dict[Modality, TypeCheck],
) -> Sources:
    """Prepare the rasters of a scene, and note in ``checks`` images of another type than the first one."""
    first = {m: next(s for s in settings if m in s.raster_paths) for m in sources.rasters}
    given = scene.bands_by_modality
    bands = {m: recipes[m].bands or None if first[m] is scene else given.get(m) for m in sources.rasters}
    for m, raster in sources.rasters.items():
        if first[m] is scene or definition_of(m).holds_heights:
            continue
        if (numbers := bands[m]) is not None:
            require_numbers(raster, numbers, scene.name, recipes[m].bands, first[m].name)
        else:
            origin = next(there.rasters[m] for there in opened if m in there.rasters)
            require_known_bands(recipes[m], raster, scene.name, origin, first[m].name)
    try:
        fitted = fitted_sources(sources, recipes, bands)
    except BundleError as error:
        if all(origin is scene for origin in first.values()):
            raise
        other = next(origin.name for origin in first.values() if origin is not scene)
        raise ConfigError(f"Scene {scene.name} is unlike scene {other}. {error}") from error
    for modality, raster in fitted.rasters.items():
        if first[modality] is scene or definition_of(modality).holds_heights:
            continue
        named = RecipeOptions({modality: raster.data_bands})  # so that no band is doubted once more
        found = definition_of(modality).recipe(raster, named).dtype
        if (expected := recipes[modality].dtype) != found and expected is not None and found is not None:
            if modality not in checks:
                origin = next(there.rasters[modality] for there in opened if modality in there.rasters)
                image = origin.with_bands(recipes[modality].bands)
                checks[modality] = TypeCheck(TypedImage(first[modality].name, image, expected))
            note = checks[modality].compare(TypedImage(scene.name, raster, found, scene.rescale))
            if scene.rescale is None and first[modality].rescale is None:
                checks[modality].notes.append(note)
    return fitted


def part_settings(scene: SceneConfig, part: ScenePart) -> SceneConfig:
    """Say of a part of a scene what the configuration says of the scene.

    Args:
        scene: What the configuration says of the scene.
        part: The scene, or a part of it.

    Returns:
        The settings with the name of the part, and without the rasters that the part lacks.
    """
    if not part.name:
        return scene
    lacking = [m for m in scene.raster_paths if m not in part.sources.rasters]
    others = {m: name for m, name in scene.rasters.items() if m not in lacking}
    own = {m: None for m in lacking if m not in scene.rasters}
    return scene.model_copy(update={**own, "rasters": others, "name": f"{scene.name or NAMELESS}{part.name}"})


def grid_of(sources: Sources, area: AOI | None, choice: GridChoice, patch_px: int, *, alone: bool) -> GeoBox:
    """Cut a working grid to the area. The grid of a scene that is smaller than a patch is made larger.

    Args:
        sources: The rasters of the scene.
        area: Its area; None: the whole scene.
        choice: Its working grid.
        patch_px: Side of a training patch, px.
        alone: Whether it is the only scene; the area of one decides its grid, even if no patch fits.

    Returns:
        The grid of the scene.

    Raises:
        AOIError: If the area lies outside the scene.
    """
    grid = choice.grid if area is None else reference_grid(sources.reference, area, choice.grid)
    if min(choice.grid.shape) >= patch_px or (alone and area is not None):
        return grid
    return GeoBox((max(grid.shape[0], patch_px), max(grid.shape[1], patch_px)), grid.affine, grid.crs)


def warn_of_some_ground(settings: Sequence[SceneConfig], sources: Sequence[Sources]) -> None:
    """Warn where the ground of some scenes is known, and that of others is estimated.

    Args:
        settings: What the configuration says of each scene.
        sources: The rasters of each scene.

    Warns:
        HeightRangeWarning: If it is so.
    """
    with_heights = [(scene, there) for scene, there in zip(settings, sources, strict=True) if there.heights]
    without = [scene.name for scene, there in with_heights if not there.ground_given]
    if 0 < len(without) < len(with_heights):
        warnings.warn(
            f"data.ground: only for some scenes is the ground known; that of the others ({listed(without)}) is "
            "estimated, so their heights above ground may differ.",
            HeightRangeWarning,
            stacklevel=3,
        )


def read_labels(
    parts: Sequence[tuple[SceneConfig, ScenePart, GridChoice]], classes: ClassScheme
) -> list[tuple[SceneConfig, ScenePart, GridChoice, HeldLabels | None]]:
    """Read the labels of each scene once. Of several, those on which no label lies become unlabelled.

    Args:
        parts: Settings, rasters and grid of each scene or part of one.
        classes: The classes.

    Returns:
        The same with the class indices of each, None without labels. Scenes on which no label lies, as where few
        polygons lie on many tiles, are without labels and splits.

    Raises:
        RasterError: If no label lies on a single scene, or on any of several.
        OverlapError: If the labels do not meet a single scene, or any of several.
        LabelError: If a label value belongs to no class.
        ConfigError: If the only scenes of ``train`` or ``val`` are without labels.

    Warns:
        LeftOutWarning: If scenes are without a label.
    """
    found: list[tuple[SceneConfig, ScenePart, GridChoice, HeldLabels | None]] = []
    bare = []

    def read(part: ScenePart) -> HeldLabels | None:
        labels = part.sources.labels
        indices = None if labels is None else _class_indices(labels, classes, part.grid)
        return packed(indices) if indices is not None and len(parts) > _FEW else indices

    all_held = read_many(read, (part for _, part, _ in parts))
    for (scene, part, choice), held in zip(parts, all_held, strict=True):
        labels = part.sources.labels
        if held is not None:
            found.append((scene, part, choice, held))
            continue
        split = scene.split
        if scene.labels is not None and not part.name:
            bare.append(scene.name)
            split = "test" if scene.split == "test" else None
        kept = part if labels is None else replace(part, sources=replace(part.sources, labels=None))
        found.append((scene.model_copy(update={"split": split}), kept, choice, None))
    if bare and len(bare) == len(parts):
        _, first, _ = parts[0]
        require_overlap(first.sources.roles, first.grid)
        if first.sources.labels is not None:
            raise nothing_valid(first.sources.labels, first.grid)
    _require_split_labels([part for part in parts if part[0].name in bare and not part[1].name], found)
    if bare:
        warnings.warn(
            f"data.labels: no label lies on {len(bare)} of {len(parts)} scenes, which count as unlabelled: "
            f"{listed(bare)}.",
            LeftOutWarning,
            stacklevel=3,
        )
    return found


def _require_split_labels(
    bare: Sequence[tuple[SceneConfig, ScenePart, GridChoice]],
    kept: Sequence[tuple[SceneConfig, ScenePart, GridChoice, HeldLabels | None]],
) -> None:
    """Refuse scenes without a label if they are the only ones of ``train`` or ``val``, and say where the labels lie."""
    labelled = [scene.split for scene, _, _, held in kept if held is not None]
    for scene, part, _ in bare:
        if scene.split not in ("train", "val") or scene.split in labelled or None in labelled:
            continue
        where = (
            f"data.scenes: no label lies on scene {scene.name}, and no other scene of the split {scene.split} has any."
        )
        labels, why = part.sources.labels, f"{scene.labels} does not meet it."
        try:
            require_overlap(part.sources.roles, part.grid)
            if labels is not None:
                why = str(nothing_valid(labels, part.grid))
        except OverlapError as error:
            why = str(error)
        raise ConfigError(f"{where}\n{why}\nOr give a scene with labels the split {scene.split}.")


def _class_indices(labels: LabelSource, classes: ClassScheme, grid: GeoBox) -> NDArray[np.uint8] | None:
    """Class indices on the grid, uint8, shape (H, W), 255 where there is no label; None if there is none at all."""
    if not share_ground(labels.geobox, grid):
        return None
    found = np.full(grid.shape, IGNORE_INDEX, np.uint8)
    for window in Window.of(grid.shape).blocks(_BLOCK_PX):
        found[window.slices] = labels.indices(classes, window, grid)
    return None if (found == IGNORE_INDEX).all() else found
