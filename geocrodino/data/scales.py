"""Whether the images of several scenes hold values on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from geocrodino.data.scenes import AlignedScene
from geocrodino.modalities.channel import Channel
from geocrodino.modalities.recipe import Recipe
from geocrodino.modalities.value_ranges import ChannelValues, is_other_scale

_BLOCKS, _EVERY_PX = 8, 8
"""Blocks of a scene that are sampled, and the distance of the sampled pixels in them."""


def other_scale_note(
    scenes: Sequence[AlignedScene], recipe: Recipe, files: Mapping[str, str] | None = None
) -> str | None:
    """Compare the values of each scene with those of the first that has the modality.

    Args:
        scenes: The scenes.
        recipe: Recipe of a modality that holds brightness.
        files: The raster that the user gave, by the name of its scene; None: the aligned layer is named.

    Returns:
        A warning that names the first scene on another scale and the ranges of both; None if there is none. Two scenes
        are on other scales if in every band at least 99 % of the values of one lie outside the range of the other.
    """
    samples = [(s, _sample(s, recipe)) for s in scenes if recipe.modality in s.layers.modalities]
    samples = [(scene, values) for scene, values in samples if values.size]
    if len(samples) < 2:
        return None
    first, expected = samples[0]
    trained = _channels(recipe, expected)
    for scene, found in samples[1:]:
        here = _compared(trained, found)
        if _is_other(here, recipe) or _is_other(_compared(_channels(recipe, found), expected), recipe):
            ranges = "; ".join(f"{c.channel.name} {c.low:.4g} to {c.high:.4g}" for c in here)
            known = "; ".join(f"{c.name} {c.low:.4g} to {c.high:.4g}" for c in trained)
            file = (files or {}).get(scene.name, scene.layers.files()[recipe.modality])
            return (
                f"{file}: the {recipe.modality} values of scene {scene.name} are on "
                f"another scale than those of scene {first.name}. Expected about {known}; found {ranges}. One network "
                "cannot learn from both: bring all scenes to one scale first."
            )
    return None


def _is_other(bands: Sequence[ChannelValues], recipe: Recipe) -> bool:
    return is_other_scale(bands, recipe.dtype, recipe.dtype or "")


def _channels(recipe: Recipe, values: NDArray[np.float32]) -> list[Channel]:
    return [Channel.measure(name, v) for name, v in zip(recipe.channel_names, values, strict=True)]


def _compared(channels: Sequence[Channel], values: NDArray[np.float32]) -> list[ChannelValues]:
    return [ChannelValues.of(channel, v) for channel, v in zip(channels, values, strict=True)]


def _sample(scene: AlignedScene, recipe: Recipe) -> NDArray[np.float32]:
    """Valid values at places spread over a scene, float32, shape (C, N)."""
    blocks = list(scene.layers.blocks())
    chosen = np.unique(np.linspace(0, len(blocks) - 1, min(len(blocks), _BLOCKS)).round().astype(int))
    parts = [scene.layers.read(recipe.modality, blocks[i])[:, ::_EVERY_PX, ::_EVERY_PX] for i in chosen.tolist()]
    values = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    valid: NDArray[np.float32] = values[:, np.isfinite(values).all(axis=0)]
    return valid
