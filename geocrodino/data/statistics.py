"""Statistics of the training split: ranges and scales of channels, numbers and weights of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocrodino.data.scenes import AlignedScene
from geocrodino.errors import RasterError
from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import Modality

_SAMPLE_PX = 4_000_000


def measure(
    scenes: Sequence[AlignedScene], recipe: Recipe, split: str = "train", *, ground_given: bool = False
) -> ModalitySpec:
    """Measure the statistics of one modality over the valid pixels of a split, in all scenes together.

    Every k-th pixel is used if the split has more than four million.

    Args:
        scenes: The scenes.
        recipe: Recipe that computed the channels of the modality.
        split: Name of the split.
        ground_given: Whether a terrain model was used.

    Returns:
        Recipe and statistics of each channel.

    Raises:
        RasterError: If no pixel of the split is valid.
    """
    there = [scene for scene in scenes if recipe.modality in scene.layers.modalities]
    every = max(1, math.ceil(sum(int(scene.pixels_of(split).sum()) for scene in there) / _SAMPLE_PX))
    parts = []
    for scene in there:
        inside = scene.pixels_of(split)
        for window in scene.layers.blocks():
            chosen = inside[window.slices]
            if chosen.any():
                values = scene.layers.read(recipe.modality, window)[:, chosen]
                parts.append(values[:, np.isfinite(values).all(axis=0)][:, ::every])
    values = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), np.float32)
    if values.size == 0:
        raise no_valid_pixel(Path(there[0].layers.files()[recipe.modality]), recipe.modality)
    measured = tuple(Channel.measure(n, v) for n, v in zip(recipe.channel_names, values, strict=True))
    return ModalitySpec(recipe=recipe, channels=measured, ground_given=ground_given)


def no_valid_pixel(path: Path, modality: Modality) -> RasterError:
    """Create the error for a raster that has no valid pixel in the split ``train``.

    Args:
        path: The raster.
        modality: Its modality.

    Returns:
        The error, to be raised by the caller.
    """
    return RasterError(path, f"no valid {modality} pixel within the training polygons.")


def class_counts(labels: NDArray[np.uint8], inside: NDArray[np.bool_], num_classes: int) -> NDArray[np.int64]:
    """Count the labelled pixels of each class in a split.

    Args:
        labels: Class indices, uint8, shape (H, W), 255 without a label.
        inside: Whether a pixel lies in the split, bool, shape (H, W).
        num_classes: Number of classes K.

    Returns:
        Counts in index order, int64, shape (K,).
    """
    chosen = labels[inside]
    return np.bincount(chosen[chosen != IGNORE_INDEX], minlength=num_classes).astype(np.int64)


def count_classes(scenes: Sequence[AlignedScene], split: str, num_classes: int) -> NDArray[np.int64]:
    """Count the labelled pixels of each class in a split, in all scenes together.

    Args:
        scenes: The scenes.
        split: Name of the split.
        num_classes: Number of classes K.

    Returns:
        Counts in index order, int64, shape (K,).
    """
    total = np.zeros(num_classes, np.int64)
    for scene in scenes:
        if split in scene.inside:
            total += class_counts(scene.labels, scene.pixels_of(split), num_classes)
    return total
