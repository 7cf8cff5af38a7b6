"""Statistics of the training split: ranges and scales of channels, numbers and weights of classes."""

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
    """Measure the statistics of one modality over the valid pixels of a split.

    Every k-th pixel is used if the split has more than four million.

    Args:
        layers: The aligned layers, on a grid of H x W px.
        recipe: Recipe that computed the channels of the modality.
        inside: Whether a pixel lies in the split, bool, shape (H, W).
        ground_given: Whether a terrain model was used.

    Returns:
        Recipe and statistics of each channel.

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


def class_weights(counts: NDArray[np.int64], power: float = 0.5) -> NDArray[np.float32]:
    """Compute class weights that decrease with the frequency of a class, with mean 1 over the labelled pixels.

    Args:
        counts: Labelled pixels of each class, int64, shape (K,).
        power: 0 to 1: 0 for equal weights, 1 for the inverse frequency.

    Returns:
        Weights, float32, shape (K,); 0 for a class without pixels.
    """
    share = counts / max(1, counts.sum())
    weights = np.where(counts > 0, np.power(np.maximum(share, 1e-12), -power), 0.0)
    return (weights / max(1e-12, float((weights * share).sum()))).astype(np.float32)
