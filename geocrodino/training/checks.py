"""Checks of the settings and files of a training, made before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.alignment import nothing_valid, reference_grid
from geocrodino.data.grid_choice import GridChoice, choose_grid
from geocrodino.data.patches import labelled_corners, patch_corners, require_labels, require_patches
from geocrodino.data.sources import Sources, fitted_sources, open_sources
from geocrodino.data.splits import SceneView, split_scenes
from geocrodino.data.statistics import no_valid_pixel
from geocrodino.errors import AOIError, ConfigError, GeocrodinoError
from geocrodino.geo.areas.aoi import AOI, read_aoi
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.areas.place import on_grid
from geocrodino.geo.labels.source import LabelSource, label_classes
from geocrodino.geo.rasters.reader import require_overlap
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.registry import Recipe, RecipeOptions, definition_of
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.encoder_weights import RANDOM, weights_of
from geocrodino.settings.modality import Modality
from geocrodino.training.scenes import list_scenes
from geocrodino.training.start import find_start, with_network

NOTHING_TO_FREEZE = (
    "training.freeze: expected an encoder that starts from weights, found random weights alone, which would never "
    "learn.\nName a bundle with `start_from` or weights with `encoder_weights`, or leave `training.freeze` out."
)
"""Why a training whose encoders would never learn is refused."""

_BLOCK_PX = 512


@dataclass(frozen=True)
class CheckedInputs:
    """Inputs of a training, checked.

    Attributes:
        sources: The rasters, as the recipes read them.
        recipes: How channels are made, for each modality.
        grid: The common grid: the part of the working grid that the area covers.
        choice: The whole working grid and the reason for it.
        classes: The classes.
        aoi: Areas with a split, in the grid's CRS.
        labels: Class indices that may be used, uint8, shape (H, W): 255 outside ``train`` and ``val``.
        inside: Pixels of ``train``, ``val`` and, where there is such a split, ``unlabelled``; bool, shape (H, W).
        drawn: Whether the splits were drawn as blocks, because the area names none.
    """

    sources: Sources
    recipes: dict[Modality, Recipe]
    grid: GeoBox
    choice: GridChoice
    classes: ClassScheme
    aoi: AOI
    labels: NDArray[np.uint8]
    inside: dict[str, NDArray[np.bool_]]
    drawn: bool


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


def check_inputs(config: TrainConfig) -> CheckedInputs:
    """Open and check all files of a training; labels are read whole, other rasters up to the first valid pixel.

    Args:
        config: The configuration.

    Returns:
        Rasters, recipes, grid, classes, splits and labels of the training.

    Raises:
        GeocrodinoError: One of its kinds, if a file, the area or a setting cannot be used.
    """
    (scene,) = list_scenes(config.data)
    sources = open_sources(scene)
    label_source = sources.labels
    if label_source is None or scene.aoi is None:
        raise ConfigError("data: a scene without labels or area is not read yet.")
    given = read_aoi(scene.aoi, scene.aoi_crs)
    options = RecipeOptions(
        bands=config.data.bands_by_modality,
        channels=config.elevation.channels,
        ground=config.elevation.ground,
        height_unit=config.data.height_unit,
    )
    recipes = {m: definition_of(m).recipe(raster, options) for m, raster in sources.rasters.items()}
    sources = fitted_sources(sources, recipes)
    ground_given = sources.ground is not None
    choice = choose_grid(
        sources.rasters,
        sources.labels,
        resolution_m=config.data.resolution_m,
        grid_of=config.data.grid_of,
        recipes=recipes.values(),
        ground_given=ground_given,
    )
    grid = reference_grid(sources.reference, given, choice.grid)
    for recipe in recipes.values():
        recipe.halo_px(grid, ground_given=ground_given)
    if config.augmentation.names_operations:
        from geocrodino.data.augmentation import check_channels

        channels = {m: len(recipe.channel_names) for m, recipe in recipes.items()}
        check_channels(augmentation_of(config), channels, config.training.patch_px)
    classes = label_classes([label_source], config.class_scheme())
    require_overlap(sources.roles, grid)
    labels = _class_indices(label_source, classes, grid)
    files = tuple(name for raster in sources.roles.values() for name in raster.file_names)
    view = SceneView(scene.name, files, grid, on_grid(given, grid), scene.split, labels)
    settings = config.training
    (aoi,) = split_scenes([view], config.data.splits, len(classes), patch_px=settings.patch_px, seed=settings.seed)
    inside = {s: inside_mask(aoi.polygons(s), grid) for s in aoi.splits if s != "test"}
    labels = np.where(inside["train"] | inside["val"], labels, IGNORE_INDEX).astype(np.uint8)
    found = CheckedInputs(sources, recipes, grid, choice, classes, aoi, labels, inside, drawn=not given.splits)
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
    try:
        config = with_network(config, find_start(config))
        check_settings(config)
        check_inputs(config)
    except GeocrodinoError as error:
        return str(error)
    return None


def _class_indices(labels: LabelSource, classes: ClassScheme, grid: GeoBox) -> NDArray[np.uint8]:
    """Class indices on the grid, uint8, shape (H, W), 255 where there is no label."""
    found = np.full(grid.shape, IGNORE_INDEX, np.uint8)
    for window in Window.of(grid.shape).blocks(_BLOCK_PX):
        found[window.slices] = labels.indices(classes, window, grid)
    if (found == IGNORE_INDEX).all():
        raise nothing_valid(labels, grid)
    return found


def _check_patches(found: CheckedInputs, config: TrainConfig) -> None:
    patch_px, source = config.training.patch_px, found.aoi.source
    train = found.inside["train"]
    require_patches(patch_corners(train, patch_px), "train", source, patch_px, found.grid)
    require_labels(labelled_corners(train, found.labels, patch_px), source)
    if "unlabelled" in found.inside and config.method.learns_without_labels and config.training.unlabelled_share:
        corners = patch_corners(found.inside["unlabelled"], patch_px)
        require_patches(corners, "unlabelled", source, patch_px, found.grid)


def _check_valid(found: CheckedInputs, modality: Modality) -> None:
    """Check that a modality has valid pixels on the grid, in ``train``, and among the labelled pixels of ``val``."""
    raster = found.sources.rasters[modality]
    if not _any_valid(found, modality, np.ones(found.grid.shape, bool)):
        raise nothing_valid(raster, found.grid)
    if not _any_valid(found, modality, found.inside["train"]):
        raise no_valid_pixel(raster.path, modality)
    if not _any_valid(found, modality, found.inside["val"] & (found.labels != IGNORE_INDEX)):
        raise AOIError(
            f"{found.aoi.source}: no labelled pixel of the split 'val' has a valid {modality} value, so the "
            f"{modality} branch cannot be validated. Draw polygons of val where all rasters hold data."
        )


def _any_valid(found: CheckedInputs, modality: Modality, chosen: NDArray[np.bool_]) -> bool:
    """Whether any of the chosen pixels, bool, shape (H, W), is valid; reading stops at the first that is."""
    sources, recipe = found.sources, found.recipes[modality]
    raster = sources.rasters[modality]
    for window in Window.of(found.grid.shape).blocks(_BLOCK_PX):
        here = chosen[window.slices]
        if here.any():
            _, valid = recipe.read(raster, found.grid, window, ground=sources.ground, unit=sources.height_unit)
            if (valid & here).any():
                return True
    return False
