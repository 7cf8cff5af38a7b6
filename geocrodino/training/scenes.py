"""The scenes of a training, from the section ``data`` of its configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from geocrodino.data.tiles import tile_scenes
from geocrodino.errors import ConfigError
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.modality import Modality
from geocrodino.settings.scenes import DataConfig, SceneConfig


def list_scenes(data: DataConfig, tell: Callable[[str], None] = lambda _: None) -> tuple[SceneConfig, ...]:
    """List the scenes of a training.

    Args:
        data: The section ``data``.
        tell: Called with the patterns that join tiles by name, where they are guessed.

    Returns:
        The scenes, each with its defaults filled in; one without a name where files that form one raster each are
        named directly under ``data``, one for each tile where files are tiles of their own.

    Raises:
        ConfigError: If a key is given that is not read yet, tiles do not fit together, or two scenes have one name.
        RasterError: If files of a scene are missing, or neither join to one raster nor have names that join them.
        AccessError: If the operating system does not let a name be looked up or read.
    """
    _require_rows(data)
    scenes = tuple(tile for scene in data.resolved() for tile in tile_scenes(scene, data.partial, tell))
    twice = [name for name, count in Counter(scene.name for scene in scenes).items() if count > 1]
    if twice:
        raise ConfigError(
            f"data.scenes: expected a name of its own for each scene, found {twice[0]} more than once.\n"
            "Name the scenes whose tiles have the same names: `name: north`."
        )
    for scene in scenes:
        _require_rasters(scene, alone=len(scenes) == 1, modalities=data.modalities())
    return scenes


def held_out(config: TrainConfig, fold: int) -> TrainConfig:
    """Hold out one fold.

    Args:
        config: Settings with ``data.splits.folds``.
        fold: Number of the fold, from 0.

    Returns:
        The settings of its training.

    Raises:
        ConfigError: If the settings name no number of folds.
    """
    splits = config.data.splits
    if splits is None or splits.folds is None:
        raise ConfigError("data.splits.folds: expected a number of folds, found none. Give one, such as 5.")
    data = config.data.model_copy(update={"splits": splits.model_copy(update={"fold": fold})})
    return config.model_copy(update={"data": data})


def of_earlier_run(config: TrainConfig) -> TrainConfig:
    """Take the settings of a training that has begun: what it accepted is not refused now.

    Version 0.1 trained on one scene with classes that no split has.

    Args:
        config: The settings of the training.

    Returns:
        The settings with which its files are checked again.
    """
    return config.model_copy(update={"data": config.data.model_copy(update={"absent_classes": "warn"})})


def _require_rows(data: DataConfig) -> None:
    """Refuse a table of scenes whose rows were not read."""
    if isinstance(data.scenes, Path):
        raise ConfigError(
            f"data.scenes: {data.scenes}: a table is read with the configuration file. Give the scenes of its rows."
        )


def _require_rasters(scene: SceneConfig, *, alone: bool, modalities: tuple[Modality, ...]) -> None:
    """Refuse a scene without any raster, and a single scene without that of each modality."""
    missing = [m for m in modalities if m not in scene.raster_paths]
    if missing and (alone or len(missing) == len(modalities)):
        where = f" of scene {scene.name}" if scene.name else ""
        wanted = "the raster of each modality" if alone else f"the raster of a modality ({', '.join(modalities)})"
        raise ConfigError(f"data.{missing[0]}{where}: expected {wanted}, found none. Name it, or leave the scene out.")
