"""Checks of the settings and files of a training, made before anything is written."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.alignment import nothing_valid, reference_grid
from geocrodino.data.alike_bands import require_known_bands
from geocrodino.data.grid_choice import GridChoice, choose_grids
from geocrodino.data.leakage import LeakReport, SplitScene, find_leaks
from geocrodino.data.parts import ScenePart, any_valid, list_members, scene_parts, with_surroundings
from geocrodino.data.patches import labelled_corners, patch_corners, require_labels, require_patches
from geocrodino.data.sources import Sources, fitted_sources, open_sources
from geocrodino.data.splits import SceneView, split_scenes
from geocrodino.data.statistics import no_valid_pixel
from geocrodino.data.tiles import read_headers
from geocrodino.errors import (
    AOIError,
    BundleError,
    ConfigError,
    GeocrodinoError,
    HeightRangeWarning,
    LeftOutWarning,
    SplitWarning,
)
from geocrodino.geo.areas.aoi import AOI, read_aoi
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.areas.place import on_grid
from geocrodino.geo.labels.shapes import shapes_kept
from geocrodino.geo.labels.source import LabelSource, label_classes
from geocrodino.geo.rasters.grid import share_ground
from geocrodino.geo.rasters.headers import headers_kept
from geocrodino.geo.rasters.reader import require_overlap
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.registry import Recipe, RecipeOptions, definition_of
from geocrodino.phrases import listed
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.encoder_weights import RANDOM, weights_of
from geocrodino.settings.heights import agreed_heights
from geocrodino.settings.modality import Modality
from geocrodino.settings.scenes import SceneConfig
from geocrodino.training.scenes import held_out, list_scenes
from geocrodino.training.start import find_start, with_network

NOTHING_TO_FREEZE = (
    "training.freeze: expected an encoder that starts from weights, found random weights alone, which would never "
    "learn.\nName a bundle with `start_from` or weights with `encoder_weights`, or leave `training.freeze` out."
)
"""Why a training whose encoders would never learn is refused."""

SCENES = "data.scenes"
"""The key of the scenes, for messages about all of them."""

_BLOCK_PX = 512


@dataclass(frozen=True)
class CheckedScene:
    """A scene of a training, checked.

    Attributes:
        name: Its name; empty in a training on one scene.
        sources: The rasters, as the recipes read them.
        grid: Its grid: the part of its working grid that the area covers, H x W px.
        choice: Its whole working grid and the reason for it.
        aoi: Areas with a split, in the grid's CRS.
        labels: Class indices that may be used, uint8, shape (H, W): 255 outside ``train`` and ``val``.
        inside: Pixels of those of the splits ``train``, ``val`` and ``unlabelled`` that it has; bool, shape (H, W).
        settings: What the configuration says of it.
    """

    name: str
    sources: Sources
    grid: GeoBox
    choice: GridChoice
    aoi: AOI
    labels: NDArray[np.uint8]
    inside: dict[str, NDArray[np.bool_]]
    settings: SceneConfig

    def without_pixels(self) -> CheckedScene:
        """Forget labels and masks, which are as large as the grid.

        Returns:
            The scene with empty arrays in their place.
        """
        return replace(self, labels=np.zeros((0, 0), np.uint8), inside={})


@dataclass(frozen=True)
class CheckedInputs:
    """Inputs of a training, checked.

    Attributes:
        scenes: The scenes, each with its own grid; at least one.
        recipes: How channels are made, for each modality.
        classes: The classes.
        drawn: What was drawn, because neither scenes nor their areas name splits: ``blocks``, ``scenes`` or nothing.
        leaks: What the splits share, and what they lack.
        notes: Sentences on what was decided about the splits without being asked for.
    """

    scenes: tuple[CheckedScene, ...]
    recipes: dict[Modality, Recipe]
    classes: ClassScheme
    drawn: tuple[str, ...]
    leaks: LeakReport
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """What names the splits, for messages: the area, or the key of the scenes."""
        return self.scenes[0].aoi.source if len(self.scenes) == 1 else SCENES

    @property
    def ground_given(self) -> bool:
        """Whether the ground of every scene is known: from a terrain model, or because heights count from it."""
        return all(scene.sources.ground_given for scene in self.scenes)

    def split_px(self) -> dict[str, int]:
        """Count the pixels of each split.

        Returns:
            Pixels in all scenes together, by split.
        """
        splits = dict.fromkeys(split for scene in self.scenes for split in scene.inside)
        return {s: sum(int(scene.inside[s].sum()) for scene in self.scenes if s in scene.inside) for s in splits}


def check_settings(config: TrainConfig) -> None:
    """Check settings that depend on each other.

    Args:
        config: The configuration.

    Raises:
        ConfigError: If they contradict each other.
    """
    if config.training.patch_px % config.network.stride_px:
        raise ConfigError(
            f"training.patch_px: expected a multiple of the network's stride of {config.network.stride_px} px, "
            f"found {config.training.patch_px}."
        )
    if config.method.agreement and not config.training.ema_decay:
        raise ConfigError(
            "method.agreement: the branches learn from the moving average of their weights; expected "
            "training.ema_decay above 0, found 0.\nUse 0.99, or agreement: 0."
        )
    names = {weights_of(config.encoder_weights, m) for m in config.data.modalities()}
    if config.training.freeze == "encoder" and config.start_from is None and names == {RANDOM}:
        raise ConfigError(NOTHING_TO_FREEZE)
    _check_trained_modalities(config)
    if config.augmentation.names_operations:
        # Kornia is slow to import, and the short form needs no check.
        from geocrodino.data.augmentation import check_operations
        from geocrodino.training.learners.build import learner_class

        check_operations(
            augmentation_of(config),
            config.training.patch_px,
            coupled=learner_class(config.method).coupled,
            modalities=config.data.modalities(),
        )


def augmentation_of(config: TrainConfig) -> AugmentationSettings:
    """Complete the augmentation of a training by the radiometry of modalities that it does not name.

    Args:
        config: The configuration.

    Returns:
        The settings for every modality of the training.
    """
    return config.augmentation.with_defaults({m: definition_of(m).radiometry for m in config.data.modalities()})


def _check_trained_modalities(config: TrainConfig) -> None:
    """Refuse settings of modalities that are not trained: they would be ignored."""
    trained = config.data.modalities()
    heights = any(definition_of(m).holds_heights for m in trained)
    both = {"optical", "elevation"} <= set(trained)
    ignored = {
        "data.bands": config.data.bands is not None and "optical" not in trained,
        "data.ground": config.data.ground is not None and not heights,
        "data.height": config.data.height is not None and not heights,
        "data.height_unit": config.data.height_unit is not None and not heights,
        "method.heights_from_image": config.method.heights_from_image > 0 and not both,
        "method.image_from_heights": config.method.image_from_heights > 0 and not both,
        **{f"encoder_weights.{m}": m not in trained for m in _named_modalities(config.encoder_weights)},
        **{f"first_layer.{m}": m not in trained for m in config.first_layer},
    }
    for key, does_nothing in ignored.items():
        if does_nothing:
            raise ConfigError(
                f"{key}: applies to a modality that is not trained. Expected a setting of {', '.join(trained)}.\n"
                "Leave it out."
            )


def _named_modalities(weights: str | dict[Modality, str]) -> Iterable[Modality]:
    return () if isinstance(weights, str) else weights


def check_inputs(config: TrainConfig, tell: Callable[[str], None] = lambda _: None) -> CheckedInputs:
    """Open and check all files of a training; labels are read whole, other rasters up to the first valid pixel.

    Args:
        config: The configuration.
        tell: Called with the patterns that join tiles by name, where they are guessed.

    Returns:
        Rasters, recipes, grid, classes, splits and labels of the training.

    Raises:
        GeocrodinoError: One of its kinds, if a file, the area or a setting cannot be used.
    """
    with headers_kept(), shapes_kept():
        listed_scenes = list_scenes(config.data, tell)
        read_headers(listed_scenes)
        several = len(listed_scenes) > 1
        all_sources = [open_sources(scene, one_of_several=several) for scene in listed_scenes]
    settings, opened, areas = _on_areas(listed_scenes, all_sources)
    recipes = _recipes(config, settings, opened)
    sources = [_fitted(scene, raw, settings, opened, recipes) for scene, raw in zip(settings, opened, strict=True)]
    choices = choose_grids(
        sources, resolution_m=config.data.resolution_m, grid_of=config.data.grid_of, recipes=recipes.values()
    )
    grids = [_grid_of(*parts, config) for parts in zip(sources, areas, choices, strict=True)]
    for there, grid in zip(sources, grids, strict=True):
        for recipe in recipes.values():
            recipe.halo_px(grid, ground_given=there.ground_given)
    _warn_of_some_ground(settings, sources)
    if config.augmentation.names_operations:
        from geocrodino.data.augmentation import check_channels

        channels = {m: len(recipe.channel_names) for m, recipe in recipes.items()}
        check_channels(augmentation_of(config), channels, config.training.patch_px)
    labelled = [there.labels for there in sources if there.labels is not None]
    if not labelled:
        for scene in settings:
            if scene.labels is not None:
                open_sources(scene)  # tells where the shapes lie, and where the first scene
        raise ConfigError(
            "data.scenes: no scene has labels. Name the class raster of at least one under the key labels."
        )
    classes = label_classes(labelled, config.class_scheme())
    training = config.training
    parts = [
        (scene.model_copy(update={"name": f"{scene.name or 'part'}{part.name}"}) if part.name else scene, part, choice)
        for scene, there, area, grid, choice in zip(settings, sources, areas, grids, choices, strict=True)
        for part in scene_parts(there, area, grid, training.patch_px)
    ]
    parts = _without_empty_labels(parts, classes)
    in_lists = config.data.splits is not None and bool(config.data.splits.lists)
    views = [_view(scene, part, classes) for scene, part, _ in parts]
    if in_lists:  # lists may name the files of a mosaic
        views = [
            replace(view, members=list_members(part.sources, view.grid), part_of=_part_of(scene, part))
            for view, (scene, part, _) in zip(views, parts, strict=True)
        ]
    decided = split_scenes(views, config.data.splits, len(classes), patch_px=training.patch_px, seed=training.seed)
    scenes = []
    for view, (scene, part, choice), aoi in zip(views, parts, decided.areas, strict=True):
        inside = _masks(view, aoi)
        labels = _usable(view.labels, inside)
        if part.name:
            inside = with_surroundings(inside, aoi.splits, training.patch_px)
        scenes.append(CheckedScene(view.name, part.sources, view.grid, choice, aoi, labels, inside, scene))
    refused = config.classes is not None and config.data.absent_classes == "refuse"
    leaks = _leaks(views, scenes, classes, refused=refused)
    found = CheckedInputs(tuple(scenes), recipes, classes, decided.drawn, leaks, decided.notes)
    _check_patches(found, config)
    for modality in recipes:
        _check_valid(found, modality)
    return found


def refusal(config: TrainConfig) -> str | None:
    """Find out why a training with these settings and files would be refused.

    Args:
        config: The configuration.

    Returns:
        The message of the training's error, or None if the training would start.
    """
    found = inputs_or_refusal(config)
    return found if isinstance(found, str) else None


def inputs_or_refusal(config: TrainConfig) -> CheckedInputs | str:
    """Check a training with these settings and files; of a cross-validation, the training of its first fold.

    Args:
        config: The configuration.

    Returns:
        The checked inputs, or the message of the training's error.
    """
    try:
        config = with_network(config, find_start(config))
        check_settings(config)
        splits = config.data.splits
        all_folds = splits is not None and splits.folds is not None and splits.fold is None
        return check_inputs(held_out(config, 0) if all_folds else config)
    except GeocrodinoError as error:
        return str(error)


def _leaks(
    views: Sequence[SceneView], scenes: Sequence[CheckedScene], classes: ClassScheme, *, refused: bool
) -> LeakReport:
    """Look for what splits share and lack; of several scenes, a class that no split has may be refused."""
    several = len(scenes) > 1
    rasters = Counter(scene.sources.reference.name for scene in scenes)
    found = find_leaks(
        [
            # Parts of one raster lie in different places, so they are no copies of each other.
            SplitScene(s.name, s.grid, s.aoi, view.labels, s.inside, raster if rasters[raster.name] == 1 else None)
            for view, s in zip(views, scenes, strict=True)
            for raster in (s.sources.reference,)
        ],
        classes,
    )
    if several and found.in_no_split:
        count = len(found.in_no_split)
        verb, them = ("has", "it") if count == 1 else ("have", "them")
        lacking = f"classes: {listed(found.in_no_split)} {verb} no labelled pixel in any split of {len(scenes)} scenes."
        if refused:
            raise ConfigError(
                f"{lacking}\nLeave {them} out of `classes`, or correct the values of the labels or the splits of the "
                "scenes. With the key data.absent_classes: warn, the training starts all the same."
            )
        share = f"{count} of {len(classes)} classes {verb} nothing to learn from, and no map will show {them}."
        warnings.warn(f"{lacking} {share}", SplitWarning, stacklevel=3)
    for leak in found.leaks:
        warnings.warn(leak, SplitWarning, stacklevel=3)
    return found


def _on_areas(
    settings: Sequence[SceneConfig], opened: Sequence[Sources]
) -> tuple[list[SceneConfig], list[Sources], list[AOI | None]]:
    """Read the areas, each once, and leave out scenes that do not meet an area that several share."""
    named = [(scene.aoi, scene.aoi_crs) for scene in settings]
    shared = {name for name, count in Counter(named).items() if count > 1}
    read = {(aoi, crs): None if aoi is None else read_aoi(aoi, crs) for aoi, crs in dict.fromkeys(named)}
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


def _share_pixels(area: AOI, grid: GeoBox) -> bool:
    """Whether an area covers a part of a grid; a common edge is none."""
    try:
        placed = on_grid(area, grid).frame.geometry
    except AOIError:  # no position in the CRS of the grid
        return False
    return bool(placed.intersection(grid.extent.geom).area.sum() > 0)


def _recipes(config: TrainConfig, settings: Sequence[SceneConfig], opened: Sequence[Sources]) -> dict[Modality, Recipe]:
    """The recipe of each modality, from the first scene that has it."""
    unit = settings[0].height_unit
    agreed = unit if all(scene.height_unit == unit for scene in settings) else None
    of_heights = [s for s in settings if any(definition_of(m).holds_heights for m in s.raster_paths)]
    height = agreed_heights([scene.height for scene in of_heights])
    recipes: dict[Modality, Recipe] = {}
    for scene, sources in zip(settings, opened, strict=True):
        elevation = config.elevation
        options = RecipeOptions(scene.bands_by_modality, elevation.channels, elevation.ground, agreed, height)
        for modality, raster in sources.rasters.items():
            if modality not in recipes:
                recipes[modality] = definition_of(modality).recipe(raster, options)
    return {m: recipes[m] for m in config.data.modalities()}


def _fitted(
    scene: SceneConfig,
    sources: Sources,
    settings: Sequence[SceneConfig],
    opened: Sequence[Sources],
    recipes: dict[Modality, Recipe],
) -> Sources:
    """The rasters of a scene as the recipes read them; an error that two scenes differ in names both."""
    first = {m: next(s for s in settings if m in s.raster_paths) for m in sources.rasters}
    given = scene.bands_by_modality
    bands = {m: recipes[m].bands or None if first[m] is scene else given.get(m) for m in sources.rasters}
    for m, raster in sources.rasters.items():
        if first[m] is not scene and bands[m] is None and not definition_of(m).holds_heights:
            origin = next(there.rasters[m] for there in opened if m in there.rasters)
            require_known_bands(recipes[m], raster, scene.name, origin, first[m].name)
    try:
        fitted = fitted_sources(sources, recipes, bands)
    except BundleError as error:
        if all(origin is scene for origin in first.values()):
            raise
        raise ConfigError(f"Scene {scene.name} is unlike scene {settings[0].name}. {error}") from error
    for modality, raster in fitted.rasters.items():
        if first[modality] is scene or definition_of(modality).holds_heights:
            continue
        expected, found = recipes[modality].dtype, definition_of(modality).recipe(raster, RecipeOptions()).dtype
        if expected != found:
            raise ConfigError(
                f"{raster.path}: expected values of the type {expected} as in scene {first[modality].name}, found "
                f"{found} in scene {scene.name}. Values of different types have different scales: bring all scenes to "
                "one type."
            )
    return fitted


def _grid_of(sources: Sources, area: AOI | None, choice: GridChoice, config: TrainConfig) -> GeoBox:
    """The part of a working grid that the area covers. A whole scene that is smaller than a patch is made larger."""
    if area is not None:
        return reference_grid(sources.reference, area, choice.grid)
    grid, patch_px = choice.grid, config.training.patch_px
    if min(grid.shape) >= patch_px:
        return grid
    return GeoBox((max(grid.shape[0], patch_px), max(grid.shape[1], patch_px)), grid.affine, grid.crs)


def _warn_of_some_ground(settings: Sequence[SceneConfig], sources: Sequence[Sources]) -> None:
    without = [scene.name for scene, there in zip(settings, sources, strict=True) if not there.ground_given]
    if 0 < len(without) < len(settings):
        warnings.warn(
            f"data.ground: only for some scenes is the ground known; that of the others ({listed(without)}) is "
            "estimated, so their heights above ground may differ.",
            HeightRangeWarning,
            stacklevel=3,
        )


def _without_empty_labels(
    parts: list[tuple[SceneConfig, ScenePart, GridChoice]], classes: ClassScheme
) -> list[tuple[SceneConfig, ScenePart, GridChoice]]:
    """Of several scenes, make those unlabelled on which no label lies, as where few polygons lie on many tiles."""
    if len(parts) == 1:
        return parts
    found: list[tuple[SceneConfig, ScenePart, GridChoice]] = []
    bare = []
    for scene, part, choice in parts:
        labels = part.sources.labels
        has_labels = labels is not None and _has_labels(labels, classes, part.grid)
        kept = part if has_labels or labels is None else replace(part, sources=replace(part.sources, labels=None))
        split = scene.split
        if not has_labels and scene.labels is not None and not part.name:
            bare.append(scene.name)
            split = "test" if scene.split == "test" else None
        found.append((scene.model_copy(update={"split": split}), kept, choice))
    if len(bare) == len(parts):
        return parts  # the first scene tells why
    if bare:
        warnings.warn(
            f"data.labels: no label lies on {len(bare)} of {len(parts)} scenes, which count as unlabelled: "
            f"{listed(bare)}.",
            LeftOutWarning,
            stacklevel=3,
        )
    return found


def _has_labels(labels: LabelSource, classes: ClassScheme, grid: GeoBox) -> bool:
    if not share_ground(labels.geobox, grid):
        return False
    return any(
        (labels.indices(classes, window, grid) != IGNORE_INDEX).any()
        for window in Window.of(grid.shape).blocks(_BLOCK_PX)
    )


def _view(scene: SceneConfig, part: ScenePart, classes: ClassScheme) -> SceneView:
    """Read the labels of a scene or a part of it, and collect what decides its splits."""
    sources, grid, area = part.sources, part.grid, part.area
    require_overlap(sources.roles, grid)
    split = scene.split
    if sources.labels is None:
        if split not in (None, "unlabelled") and not part.name:
            raise ConfigError(
                f"data.scenes: scene {scene.name}: expected labels for the split {split}, found none.\nName "
                "them under the key labels, or leave the key split out: a scene without labels is unlabelled."
            )
        labels = np.broadcast_to(np.uint8(IGNORE_INDEX), tuple(grid.shape))
        if split is None and (area is None or not area.splits):
            split = "unlabelled"
    else:
        labels = _class_indices(sources.labels, classes, grid)
    files = tuple(name for raster in sources.roles.values() for name in raster.file_names)
    return SceneView(scene.name, files, grid, None if area is None else on_grid(area, grid), split, labels)


def _part_of(scene: SceneConfig, part: ScenePart) -> str:
    """The name of the scene that a part is of; its own is longer by the number of the part."""
    return scene.name.removesuffix(part.name) if part.name else ""


def _masks(view: SceneView, aoi: AOI) -> dict[str, NDArray[np.bool_]]:
    """Pixels of each split that a training reads; a whole scene takes no memory."""
    splits = [s for s in aoi.splits if s != "test"]
    if view.area is None and view.split is not None:
        return {s: np.broadcast_to(np.True_, tuple(view.grid.shape)) for s in splits}
    return {s: inside_mask(aoi.polygons(s), view.grid) for s in splits}


def _usable(labels: NDArray[np.uint8], inside: dict[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Labels of ``train`` and ``val`` alone."""
    masks = [inside[s] for s in ("train", "val") if s in inside]
    if not masks:
        return np.broadcast_to(np.uint8(IGNORE_INDEX), labels.shape)
    if any(mask.all() for mask in masks):
        return labels
    return np.where(np.logical_or.reduce(masks), labels, IGNORE_INDEX).astype(np.uint8)


def _class_indices(labels: LabelSource, classes: ClassScheme, grid: GeoBox) -> NDArray[np.uint8]:
    """Class indices on the grid, uint8, shape (H, W), 255 where there is no label."""
    found = np.full(grid.shape, IGNORE_INDEX, np.uint8)
    for window in Window.of(grid.shape).blocks(_BLOCK_PX):
        found[window.slices] = labels.indices(classes, window, grid)
    if (found == IGNORE_INDEX).all():
        raise nothing_valid(labels, grid)
    return found


def _check_patches(found: CheckedInputs, config: TrainConfig) -> None:
    patch_px, source, grid = config.training.patch_px, found.source, found.scenes[0].grid

    def corners(split: str) -> Iterator[NDArray[np.bool_]]:
        return (patch_corners(scene.inside[split], patch_px) for scene in found.scenes if split in scene.inside)

    require_patches(corners("train"), "train", source, patch_px, grid)
    train = (scene for scene in found.scenes if "train" in scene.inside)
    require_labels((labelled_corners(scene.inside["train"], scene.labels, patch_px) for scene in train), source)
    used = config.method.learns_without_labels and config.training.unlabelled_share
    if used and any("unlabelled" in scene.inside for scene in found.scenes):
        require_patches(corners("unlabelled"), "unlabelled", source, patch_px, grid)


def _check_valid(found: CheckedInputs, modality: Modality) -> None:
    """Check that a modality has valid pixels in each scene, in ``train``, and among the labelled pixels of ``val``."""
    there = [scene for scene in found.scenes if modality in scene.sources.rasters]
    recipe = found.recipes[modality]
    for scene in there:
        raster = scene.sources.rasters[modality]
        # Of many scenes the values alone: channels of heights are computed when the layers are written.
        if not (
            any_valid(raster, scene.grid)
            if len(there) > 1
            else _any_valid(scene, recipe, np.broadcast_to(np.True_, tuple(scene.grid.shape)))
        ):
            raise nothing_valid(raster, scene.grid)
    if not any(_any_valid(scene, recipe, scene.inside["train"]) for scene in there if "train" in scene.inside):
        raise no_valid_pixel(there[0].sources.rasters[modality].path, modality)
    val = (scene for scene in there if "val" in scene.inside)
    if not any(_any_valid(scene, recipe, scene.inside["val"] & (scene.labels != IGNORE_INDEX)) for scene in val):
        raise AOIError(
            f"{found.source}: no labelled pixel of the split 'val' has a valid {modality} value, so the "
            f"{modality} branch cannot be validated. Draw polygons of val where all rasters hold data."
        )


def _any_valid(scene: CheckedScene, recipe: Recipe, chosen: NDArray[np.bool_]) -> bool:
    """Whether any of the chosen pixels, bool, shape (H, W), is valid; reading stops at the first that is."""
    sources = scene.sources
    raster = sources.rasters[recipe.modality]
    for window in Window.of(scene.grid.shape).blocks(_BLOCK_PX):
        here = chosen[window.slices]
        if here.any():
            _, valid = recipe.read(raster, scene.grid, window, ground=sources.ground, unit=sources.height_unit)
            if (valid & here).any():
                return True
    return False
