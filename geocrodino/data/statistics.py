"""Statistics of the training split: ranges and scales of channels, numbers and weights of classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from geocrodino.data.scenes import AlignedScene
from geocrodino.errors import RasterError
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import Modality

_SAMPLE_PX = 4_000_000
_BLOCK_PX = 1024  # decides which pixels are used of more than four million


def measure(
    scenes: Sequence[AlignedScene],
    recipe: Recipe,
    split: str = "train",
    *,
    ground_given: bool = False,
    blocks_per_task: int = 16,
) -> ModalitySpec:
    """Measure the statistics of one modality over the valid pixels of a split, in all scenes together.

    Every k-th pixel is used if the split has more than four million. Dask reads blocks of the grids in parallel. Which
    pixels are used, and their order, depends on the grids alone: the result has the same bytes however the layers are
    stored, and whatever blocks a task reads.

    Args:
        scenes: The scenes.
        recipe: Recipe that computed the channels of the modality.
        split: Name of the split.
        ground_given: Whether a terrain model was used.
        blocks_per_task: Blocks of 1024 x 1024 px, or smaller scenes, that a Dask task reads.

    Returns:
        Recipe and statistics of each channel.

    Raises:
        RasterError: If no pixel of the split is valid.
    """
    there = [scene for scene in scenes if recipe.modality in scene.layers.modalities]
    every = max(1, math.ceil(sum(int(np.count_nonzero(scene.pixels_of(split))) for scene in there) / _SAMPLE_PX))

    blocks = [(scene, window) for scene in there for window in Window.of(scene.grid.shape).blocks(_BLOCK_PX)]

    def some_from(start: int) -> list[NDArray[np.float32]]:
        some = blocks[start : start + blocks_per_task]
        return [found for scene, window in some for found in _sampled(scene, window, recipe.modality, split, every)]

    tasks = [delayed(some_from)(start) for start in range(0, len(blocks), blocks_per_task)]
    parts = [part for found in compute(*tasks, scheduler="threads") for part in found]
    values = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), np.float32)
    if values.size == 0:
        raise no_valid_pixel(Path(there[0].layers.files()[recipe.modality]), recipe.modality)
    measured = tuple(Channel.measure(n, v) for n, v in zip(recipe.channel_names, values, strict=True))
    return ModalitySpec(recipe=recipe, channels=measured, ground_given=ground_given)


def _sampled(
    scene: AlignedScene, window: Window, modality: Modality, split: str, every: int
) -> Iterator[NDArray[np.float32]]:
    """Every k-th valid pixel of a split in a block, float32, shape (C, N); nothing where the split has no pixel."""
    chosen = scene.pixels_of(split)[window.slices]
    if chosen.any():
        values = scene.layers.read(modality, window)
        values = values.reshape(len(values), -1) if chosen.all() else values[:, chosen]
        finite = np.isfinite(values).all(axis=0)
        values = values if finite.all() else values[:, finite]
        yield np.ascontiguousarray(values[:, ::every])


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
    total: NDArray[np.int64] = count_classes_by_scene(scenes, split, num_classes).sum(axis=0)
    return total


def count_classes_by_scene(scenes: Sequence[AlignedScene], split: str, num_classes: int) -> NDArray[np.int64]:
    """Count the labelled pixels of each class in a split, in each scene.

    Args:
        scenes: The scenes.
        split: Name of the split.
        num_classes: Number of classes K.

    Returns:
        Counts in the order of scenes and classes, int64, shape (S, K); 0 for a scene without this split.
    """
    counts = np.zeros((len(scenes), num_classes), np.int64)
    for row, scene in zip(counts, scenes, strict=True):
        if split in scene.inside:
            row[:] = class_counts(scene.labels, scene.pixels_of(split), num_classes)
    return counts
