"""Checks of the settings and files of a training, made before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray

from geocrodino.data.alignment import nothing_valid
from geocrodino.data.grid_choice import GridChoice, choose_grids
from geocrodino.data.held_labels import HeldLabels, PackedLabels, packed, unpacked
from geocrodino.data.lone_tiles import warn_of_lone_tiles
from geocrodino.data.parts import ScenePart, any_valid, list_members, scene_parts, with_surroundings
from geocrodino.data.patches import labelled_corners, patch_advice, patch_corners, require_labels, require_patches
from geocrodino.data.sources import open_sources
from geocrodino.data.splits import SceneView, split_scenes
from geocrodino.data.statistics import no_valid_pixel
from geocrodino.data.tiles import read_headers
from geocrodino.errors import (
    AOIError,
    ConfigError,
    GeocrodinoError,
)
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.areas.place import on_grid
from geocrodino.geo.labels.shapes import shapes_kept
from geocrodino.geo.labels.source import label_classes
from geocrodino.geo.rasters.grid import pixel_size_m
from geocrodino.geo.rasters.headers import headers_kept, read_many
from geocrodino.geo.rasters.reader import require_overlap
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import Recipe
from geocrodino.modalities.registry import definition_of
from geocrodino.phrases import listed
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.encoder_weights import RANDOM, weights_of
from geocrodino.settings.modality import Modality
from geocrodino.settings.scenes import SceneConfig
from geocrodino.training.checked import SCENES, CheckedInputs, CheckedScene
from geocrodino.training.scene_checks import (
    NAMELESS,
    fitted_scenes,
    grid_of,
    judge_leaks,
    labels_as_area_advice,
    leaks_of,
    no_labels_with,
    on_areas,
    part_settings,
    read_labels,
    recipes_of,
    warn_of_some_ground,
)
from geocrodino.training.scenes import held_out, list_scenes
from geocrodino.training.start import find_start, with_network

__all__ = [
    "NOTHING_TO_FREEZE",
    "SCENES",
    "CheckedInputs",
    "CheckedScene",
    "augmentation_of",
    "check_inputs",
    "check_settings",
    "inputs_or_refusal",
    "refusal",
]

NOTHING_TO_FREEZE = (
    "training.freeze: expected an encoder that starts from weights, found random weights alone, which would never "
    "learn.\nName a bundle with `start_from` or weights with `encoder_weights`, or leave `training.freeze` out."
)
"""Why a training whose encoders would never learn is refused."""

_BLOCK_PX = 512


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
    _check_class_weights(config)
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


def _check_class_weights(config: TrainConfig) -> None:
    """Refuse weights of classes where no loss has them: they would be ignored."""
    method, keys = config.method, ("class_weights", "class_weight_beta", "class_weight_power")
    losses = [name for name, weight in method.loss_weights.items() if weight]
    if {"cross_entropy", "focal"} & set(losses) or method.auxiliary or method.tokens:
        return
    for key in keys:
        if getattr(config.training, key) != type(config.training).model_fields[key].default:
            raise ConfigError(
                f"training.{key}: {' and '.join(losses)} have no weights of classes. Expected cross_entropy or focal "
                "among method.losses.\nLeave it out, or name one of these."
            )


def _named_modalities(weights: str | dict[Modality, str]) -> Iterable[Modality]:
    return () if isinstance(weights, str) else weights


def check_inputs(
    config: TrainConfig, tell: Callable[[str], None] = lambda _: None, *, trains: bool = True
) -> CheckedInputs:
    """Open and check all files of a training; labels are read whole, other rasters up to the first valid pixel.

    Args:
        config: The configuration.
        tell: Called with the patterns that join tiles by name, where they are guessed.
        trains: Whether a training shall start, which needs room for patches and valid pixels in ``train`` and ``val``.

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
    settings, opened, areas = on_areas(listed_scenes, all_sources)
    recipes = recipes_of(config, settings, opened)
    sources = fitted_scenes(settings, opened, recipes)
    choices = choose_grids(
        sources, resolution_m=config.data.resolution_m, grid_of=config.data.grid_of, recipes=recipes.values()
    )
    patch_px, alone = config.training.patch_px, len(settings) == 1
    grids = [grid_of(*each, patch_px, alone=alone) for each in zip(sources, areas, choices, strict=True)]
    for there, grid in zip(sources, grids, strict=True):
        for modality in there.rasters:
            recipes[modality].halo_px(grid, ground_given=there.ground_given)
    warn_of_some_ground(settings, sources)
    for scene, there, choice, area in zip(settings, sources, choices, areas, strict=True):
        warn_of_lone_tiles(scene.name, there, choice.grid, area)
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
    parts = [
        (part_settings(scene, part), part, choice)
        for scene, there, area, grid, choice in zip(settings, sources, areas, grids, choices, strict=True)
        for part in scene_parts(there, area, grid, patch_px, keep=config.data.partial == "keep")
    ]
    read = read_labels(parts, classes)
    views = [_view(*each) for each in read]
    if config.data.splits is not None and config.data.splits.lists:  # lists may name the files of a mosaic
        every = zip(settings, sources, grids, strict=True)
        members = {scene.name or NAMELESS: list_members(there, grid) for scene, there, grid in every}
        views = [
            replace(view, members=members[whole or view.name or NAMELESS], part_of=whole)
            for view, (scene, part, _, _) in zip(views, read, strict=True)
            for whole in (_part_of(scene, part),)
        ]
    decided = split_scenes(
        views,
        config.data.splits,
        len(classes),
        patch_px=patch_px,
        seed=config.training.seed,
        parts_of_one=alone,
    )
    scenes = []
    for view, (scene, part, choice, _), aoi in zip(views, read, decided.areas, strict=True):
        inside = _masks(view, aoi)
        labels = _usable(view.labels, inside)
        if part.name or (not alone and min(choice.grid.shape) < patch_px):
            inside = with_surroundings(inside, aoi.splits, patch_px)
        scenes.append(CheckedScene(view.name, part.sources, view.grid, choice, aoi, labels, inside, scene))
    refused = config.classes is not None and config.data.absent_classes == "refuse"
    leaks = leaks_of(views, scenes, classes)
    found = CheckedInputs(tuple(scenes), recipes, classes, decided.drawn, leaks, decided.notes)
    if not trains:
        return found
    _check_patches(found, config)
    judge_leaks(leaks, scenes, classes, refused=refused)
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


def _view(scene: SceneConfig, part: ScenePart, choice: GridChoice, held: HeldLabels | None) -> SceneView:
    """Collect what decides the splits of a scene or a part of it."""
    sources, grid, area = part.sources, part.grid, part.area
    require_overlap(sources.roles, grid)
    split = scene.split
    if sources.labels is None:
        if split not in (None, "unlabelled") and not part.name:
            raise ConfigError(
                f"data.scenes: scene {scene.name}: expected labels for the split {split}, found none.\nName "
                "them under the key labels, or leave the key split out: a scene without labels is unlabelled."
            )
        held = np.broadcast_to(np.uint8(IGNORE_INDEX), tuple(grid.shape))
        if split is None and (area is None or not area.splits):
            split = "unlabelled"
    elif held is None:
        raise nothing_valid(sources.labels, grid)
    files = tuple(name for raster in sources.roles.values() for name in raster.file_names)
    placed = None if area is None else on_grid(area, grid)
    extent = part.extent
    if area is None and not part.name and grid.shape != choice.grid.shape:
        extent = shapely.box(*choice.grid.boundingbox)
    return SceneView(scene.name, files, grid, placed, split, held, modalities=tuple(sources.rasters), extent=extent)


def _part_of(scene: SceneConfig, part: ScenePart) -> str:
    """The name of the scene that a part is of; its own is longer by the number of the part."""
    return scene.name.removesuffix(part.name) if part.name else ""


def _masks(view: SceneView, aoi: AOI) -> dict[str, NDArray[np.bool_]]:
    """Pixels of each split that a training reads; a whole scene takes no memory."""
    splits = [s for s in aoi.splits if s != "test"]
    if view.area is None and len(aoi.splits) == 1 and aoi.polygons().equals(view.whole()):
        return {s: np.broadcast_to(np.True_, tuple(view.grid.shape)) for s in splits}
    return {s: inside_mask(aoi.polygons(s), view.grid) for s in splits}


def _usable(held: HeldLabels, inside: dict[str, NDArray[np.bool_]]) -> HeldLabels:
    """Labels of ``train`` and ``val`` alone."""
    masks = [inside[s] for s in ("train", "val") if s in inside]
    if not masks:
        return np.broadcast_to(np.uint8(IGNORE_INDEX), held.shape)
    if any(mask.all() for mask in masks):
        return held
    usable = np.where(np.logical_or.reduce(masks), unpacked(held), IGNORE_INDEX).astype(np.uint8)
    return packed(usable) if isinstance(held, PackedLabels) else usable


def _check_patches(found: CheckedInputs, config: TrainConfig) -> None:
    patch_px, source, grid = config.training.patch_px, found.source, found.scenes[0].grid

    def require(split: str) -> None:
        masks = [scene.inside[split] for scene in found.scenes if split in scene.inside]

        def advise() -> str:
            rasters = (raster for scene in found.scenes for raster in scene.sources.rasters.values())
            finest_m = min(min(pixel_size_m(raster.geobox)) for raster in rasters)
            resolution_m = found.scenes[0].choice.resolution_m
            numbers = patch_advice(masks, patch_px, config.network.stride_px, resolution_m, finest_m)
            return "\n".join(filter(None, (numbers, labels_as_area_advice([s.settings for s in found.scenes]))))

        require_patches((patch_corners(mask, patch_px) for mask in masks), split, source, patch_px, grid, advise)

    require("train")
    train = (scene for scene in found.scenes if "train" in scene.inside)
    corners = (labelled_corners(scene.inside["train"], scene.labels, patch_px) for scene in train)
    require_labels(corners, source, _label_files(found.scenes))
    if config.learns_from_unlabelled and any("unlabelled" in scene.inside for scene in found.scenes):
        require("unlabelled")


def _check_valid(found: CheckedInputs, modality: Modality) -> None:
    """Check that a modality has valid pixels in each scene, in ``train``, and among the labelled pixels of ``val``."""
    there = [scene for scene in found.scenes if modality in scene.sources.rasters]
    recipe = found.recipes[modality]

    def holds_data(scene: CheckedScene) -> bool:
        # Of many scenes the values alone: channels of heights are computed when the layers are written.
        if len(there) > 1:
            return any_valid(scene.sources.rasters[modality], scene.grid)
        return _any_valid(scene, recipe, np.broadcast_to(np.True_, tuple(scene.grid.shape)))

    for scene, holds in zip(there, read_many(holds_data, there), strict=True):
        if not holds:
            raise nothing_valid(scene.sources.rasters[modality], scene.grid)
    if len(there) < len(found.scenes):
        for split in ("train", "val"):
            some = (scene for scene in there if split in scene.inside)
            if not any(_any_valid(s, recipe, s.inside[split] & (s.labels != IGNORE_INDEX)) for s in some):
                raise no_labels_with(modality, len(found.scenes), split)
        return
    if not any(_any_valid(scene, recipe, scene.inside["train"]) for scene in there if "train" in scene.inside):
        raise no_valid_pixel(there[0].sources.rasters[modality].path, modality)
    val = [scene for scene in there if "val" in scene.inside]
    if not any(_any_valid(scene, recipe, _labelled_val(scene)) for scene in val):
        raise _cannot_validate(found, modality, val)


def _labelled_val(scene: CheckedScene) -> NDArray[np.bool_]:
    """The labelled pixels of ``val``, bool, shape (H, W)."""
    labelled: NDArray[np.bool_] = scene.inside["val"] & (scene.labels != IGNORE_INDEX)
    return labelled


def _label_files(scenes: Iterable[CheckedScene]) -> str:
    """The files of labels, for messages."""
    return listed(dict.fromkeys(str(scene.sources.labels.path) for scene in scenes if scene.sources.labels))


def _cannot_validate(found: CheckedInputs, modality: Modality, val: Sequence[CheckedScene]) -> AOIError:
    """The error for a split ``val`` without a labelled pixel where a modality is valid, with what is missing there."""
    where = f"{found.source}: the split 'val'"
    rasters = listed(dict.fromkeys(str(scene.sources.rasters[modality].path) for scene in val))
    if not any(scene.inside["val"].any() for scene in val):
        return AOIError(
            f"{where} holds no whole pixel of the working grid ({found.scenes[0].choice.resolution_m:g} m), so nothing "
            f"can be validated. Expected polygons on {rasters} that are larger than a pixel.\nDraw them anew."
        )
    if not any(_labelled_val(scene).any() for scene in val):
        return AOIError(
            f"{where} holds no labelled pixel of {_label_files(val)}, so nothing can be validated.\nDraw polygons "
            "of val where there are labels, or label some pixels there."
        )
    return AOIError(
        f"{where}: no labelled pixel has a valid {modality} value in {rasters}, so the {modality} branch cannot be "
        "validated.\nDraw polygons of val where all rasters hold data."
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
