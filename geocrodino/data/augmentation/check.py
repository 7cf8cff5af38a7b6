"""Try the augmentation of a configuration before a training starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from geocrodino.data.augmentation.build import first_line
from geocrodino.data.augmentation.pair import build_pipelines
from geocrodino.data.augmentation.pipeline import Step
from geocrodino.errors import ConfigError
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.modality import MODALITIES, Modality


def check_operations(
    settings: AugmentationSettings,
    patch_px: int,
    *,
    coupled: bool = False,
    modalities: Iterable[Modality] = MODALITIES,
) -> None:
    """Check the names and parameters of all operations, and draw matrices of the geometric ones for a patch.

    Args:
        settings: The operations of each modality.
        patch_px: Side of a patch, px.
        coupled: Whether the method needs the same geometry for all modalities, whatever ``settings.decoupled`` is.
        modalities: Those that are trained; by default all registered ones.

    Raises:
        ConfigError: If an operation or parameter is unknown or cannot be used on patches of this size.
    """
    together = settings.model_copy(update={"decoupled": settings.decoupled and not coupled})
    for pipeline in build_pipelines(together, modalities).values():
        for step in pipeline.steps:
            if step.geometric:
                _try_geometry(step, patch_px)


def check_channels(settings: AugmentationSettings, channels: Mapping[Modality, int], patch_px: int) -> None:
    """Check that the operations on values accept the number of channels and values with mean 0.

    Args:
        settings: The operations of each modality.
        channels: Number of channels of each modality.
        patch_px: Side of a patch, px.

    Raises:
        ConfigError: If an operation fails, yields values that are not finite, or limits values to 0 to 1.
    """
    pipelines = build_pipelines(settings, channels)
    for modality, count in channels.items():
        for step in pipelines[modality].steps:
            if not step.geometric:
                _try_values(step, count, patch_px)


def _try_geometry(step: Step, patch_px: int) -> None:
    size = getattr(step.kornia, "flags", {}).get("size")
    if size is not None and tuple(size) != (patch_px, patch_px):
        raise ConfigError(
            f"{step.place}.size: expected that of a patch, {patch_px}, {patch_px} px (training.patch_px), "
            f"found {', '.join(map(str, size))}."
        )
    with torch.random.fork_rng(devices=[]):
        try:
            step.draw_matrices(torch.Size((2, 1, patch_px, patch_px)))
        except Exception as error:  # Kornia raises exceptions of many classes
            raise _failed(step, f"patches of {patch_px} px", error) from error


def _try_values(step: Step, channels: int, patch_px: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.randn(2, channels, patch_px, patch_px)
        try:
            changed = step.change_values(image, torch.ones(2, patch_px, patch_px, dtype=torch.bool), always=True)
        except Exception as error:  # Kornia raises exceptions of many classes
            raise _failed(step, f"{channels} {'channels' if channels != 1 else 'channel'}", error) from error
    if changed.shape != image.shape:
        raise ConfigError(f"{step.place}: expected images of {tuple(image.shape)}, found {tuple(changed.shape)}.")
    if not changed.isfinite().all():
        raise ConfigError(
            f"{step.place}: expected finite values, found NaN or infinity. The values of a patch have mean 0 and "
            "standard deviation 1, so half of them are below 0. Leave the operation out."
        )
    if changed.min() >= 0 and 0 < changed.max() <= 1:  # not all 0, as after RandomChannelDropout of the only channel
        raise ConfigError(
            f"{step.place}: cuts all values to 0 to 1. The values of a patch have mean 0 and standard deviation 1. "
            "Leave the operation out."
        )


def _failed(step: Step, what: str, error: Exception) -> ConfigError:
    return ConfigError(f"{step.place}: cannot be applied to {what}: {first_line(error)}.")
