"""The scenes of a training, from the section ``data`` of its configuration."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import ConfigError
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.scenes import DataConfig, SceneConfig


def list_scenes(data: DataConfig) -> tuple[SceneConfig, ...]:
    """List the scenes of a training.

    Args:
        data: The section ``data``.

    Returns:
        The scenes, each with its defaults filled in; one without a name where files are named directly under ``data``.

    Raises:
        ConfigError: If a key is given that is not read yet.
    """
    _refuse_unread(data)
    scenes = data.resolved()
    for scene in scenes:
        _refuse_unread_of(scene, data)
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


def _refuse_unread(data: DataConfig) -> None:
    """Refuse keys of which the settings know, and the training does not."""
    unread = {
        "data.scenes": isinstance(data.scenes, Path),
        "data.partial": data.partial != "refuse",
        "data.cache": data.cache != "auto",
    }
    for key, given in unread.items():
        if given:
            raise ConfigError(f"{key}: is not read yet. Leave it out.")


def _refuse_unread_of(scene: SceneConfig, data: DataConfig) -> None:
    """Refuse keys of a scene, as `_refuse_unread`."""
    unread = {
        "label_rules": scene.label_rules is not None,
        "height": scene.height is not None,
        "crs": scene.crs is not None,
        "pixel_m": scene.pixel_m is not None,
        "labels": isinstance(scene.labels, tuple),
    }
    where = f" of scene {scene.name}" if scene.name else ""
    for key, given in unread.items():
        if given:
            raise ConfigError(f"data.{key}{where}: is not read yet. Leave it out.")
    missing = [m for m in data.modalities() if m not in scene.raster_paths]
    if missing:
        raise ConfigError(
            f"data.{missing[0]}{where}: expected a raster of each modality in every scene, found none. Scenes without "
            "one are not read yet."
        )
