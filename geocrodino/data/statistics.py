"""Statistics of the training split: channel ranges and scales, class counts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geocrodino.data.alignment import AlignedLayers
from geocrodino.errors import RasterError
from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import Modality

_SAMPLE_PX = 4_000_000


def measure(
    layers: AlignedLayers, recipe: Recipe, inside: NDArray[np.bool_], *, ground_given: bool = False
) -> ModalitySpec:
    """Statistics of one modality over the valid pixels of a split.

    Every k-th pixel is taken where there are more than four million.

    Args:
        layers: The aligned layers.
        recipe: How their channels were made.
        inside: Pixels of the split, shape (H, W).
        ground_given: Whether a ground raster was used.

    Raises:
        RasterError: If no pixel of the split is valid.
    """
    every = max(1, math.ceil(int(inside.sum()) / _SAMPLE_PX))
    parts = []
    channels = layers.channels(recipe.modality)
    for r0, r1, c0, c1 in layers.blocks():
        chosen = inside[r0:r1, c0:c1]
        if chosen.any():
            values = channels[:, r0:r1, c0:c1][:, chosen]
            parts.append(values[:, np.isfinite(values).all(axis=0)][:, ::every])
    values = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), np.float32)
    if values.size == 0:
        raise no_valid_pixel(layers.rasters[recipe.modality], recipe.modality)
    measured = tuple(Channel.measure(n, v) for n, v in zip(recipe.channel_names, values, strict=True))
    return ModalitySpec(recipe=recipe, channels=measured, ground_given=ground_given)


def no_valid_pixel(path: Path, modality: Modality) -> RasterError:
    """The error for a raster without data in the split that is learned from."""
    return RasterError(path, f"no valid {modality} pixel within the training polygons.")


def class_counts(labels: NDArray[np.uint8], inside: NDArray[np.bool_], num_classes: int) -> NDArray[np.int64]:
    """Labelled pixels of each class in a split, int64, shape (num_classes,)."""
    chosen = labels[inside]
    return np.bincount(chosen[chosen != IGNORE_INDEX], minlength=num_classes).astype(np.int64)


def class_weights(counts: NDArray[np.int64], power: float = 0.5) -> NDArray[np.float32]:
    """Weights that fall with the frequency of a class, mean 1 over the labelled pixels.

    Args:
        counts: Pixels of each class.
        power: 0 for equal weights, 1 for the inverse frequency.

    Returns:
        Weights, float32, shape (K,); 0 for a class without pixels.
    """
    share = counts / max(1, counts.sum())
    weights = np.where(counts > 0, np.power(np.maximum(share, 1e-12), -power), 0.0)
    return (weights / max(1e-12, float((weights * share).sum()))).astype(np.float32)
