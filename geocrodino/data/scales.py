"""Whether the images of several scenes hold values on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from geocrodino.data.scenes import AlignedScene
from geocrodino.errors import ConfigError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.channel import Channel
from geocrodino.modalities.recipe import Recipe
from geocrodino.modalities.value_ranges import ChannelValues, is_other_scale, likely_factor
from geocrodino.phrases import listed

_BLOCKS, _EVERY_PX = 8, 8
"""Blocks of a scene that are sampled, and the distance of the sampled pixels in them."""

_PLACES, _LOOK_PX = 3, 128
"""Windows across and down that are sampled of a file, and the side of each, px."""


@dataclass(frozen=True)
class TypedImage:
    """An image of a scene, with the type of its numbers.

    Attributes:
        scene: Name of the scene.
        raster: The image, with the bands that a recipe reads, in its order.
        dtype: Type of its numbers; of an image with a scale float32.
        rescale: What its values are multiplied by already, the key of its scene; None: nothing.
    """

    scene: str
    raster: RasterSource
    dtype: str
    rescale: float | None = None


class OtherScaleError(ConfigError):
    """The values of two images have different types and scales.

    Args:
        differ: The file, both scenes and both types.
        other: The image that could be brought to the scale of the other one.
        factor: What its values, as they are read, could be multiplied by; None where they do not tell.
        ranges: Values of both.

    Attributes:
        scene: Name of the scene of the image.
        factor: What the key ``rescale`` of the scene could be: it replaces the one that the scene has. None likewise.
        ranges: Values of both.
    """

    def __init__(self, differ: str, other: TypedImage, factor: float | None, ranges: str) -> None:
        self.scene, self.ranges = other.scene, ranges
        self.factor = None if factor is None else float(f"{factor * (other.rescale or 1):.6g}")
        instead = "" if other.rescale is None else f" instead of {other.rescale:g}"
        advice = (
            "No factor follows from their highest values. Compare how both images were made (units, offset, "
            f"correction). Give scene {other.scene} the factor that their makers state as its key "
            f"rescale{instead}, or leave the scene out."
            if self.factor is None
            else f"Give scene {other.scene} the factor between the two scales, for instance rescale: "
            f"{self.factor:g}{instead}."
        )
        super().__init__(f"{differ}, and on another scale: {ranges}.\n{advice}")


@dataclass(frozen=True)
class TypeNote:
    """What an image of another type has in common with the first one.

    Attributes:
        scene: Name of its scene.
        dtype: Type of its numbers.
        compared: Whether values of both were found, which are alike then.
        text: A warning.
    """

    scene: str
    dtype: str
    compared: bool
    text: str


class TypeCheck:
    """Compares images with the first one of a modality, which is looked at once.

    Args:
        first: The image of the first scene.
    """

    def __init__(self, first: TypedImage) -> None:
        self.first, self.notes = first, list[TypeNote]()
        self._expected: NDArray[np.float32] | None = None

    def compare(self, other: TypedImage) -> TypeNote:
        """Compare the values of an image whose numbers have another type, before anything is written.

        Args:
            other: The image of another scene, with the same bands.

        Returns:
            The values are alike, or could not be compared.

        Raises:
            OtherScaleError: If they are on different scales.
        """
        if self._expected is None:
            self._expected = _look(self.first.raster)
        return _compare_types(self.first, other, self._expected, _look(other.raster))

    def warning(self) -> str | None:
        """Join the notes that were collected.

        Returns:
            The note on a single image; of several images one sentence with their number and a few of their scenes; None
            without notes.
        """
        if len(self.notes) < 2:
            return self.notes[0].text if self.notes else None
        types = " or ".join(sorted({note.dtype for note in self.notes}))
        alike = sum(note.compared for note in self.notes)
        unknown = len(self.notes) - alike
        told = [f"the values of {alike} are alike"] if alike else []
        told += [f"of {unknown} no valid pixel was found at the places that were compared"] if unknown else []
        return (
            f"{len(self.notes)} scenes ({listed(note.scene for note in self.notes)}): values of the type {types} in "
            f"their images, {self.first.dtype} in scene {self.first.scene}. All are read as they are: "
            f"{', and '.join(told)}."
        )


def _compare_types(
    first: TypedImage, other: TypedImage, expected: NDArray[np.float32], found: NDArray[np.float32]
) -> TypeNote:
    differ = (
        f"{other.raster.path}: values of the type {other.dtype} in scene {other.scene}, {first.dtype} in scene "
        f"{first.scene}"
    )
    if not (expected.size and found.size):
        text = f"{differ}. Both are read as they are; no valid pixel was found at the places that were compared."
        return TypeNote(other.scene, other.dtype, compared=False, text=text)
    names = first.raster.data_names
    there, here = (_compared(_measured(names, v), w) for v, w in ((found, expected), (expected, found)))
    ranges = f"found {_ranges(here)}; in scene {first.scene} {_ranges(there)}"
    if is_other_scale(here, first.dtype, other.dtype) or is_other_scale(there, other.dtype, first.dtype):
        raise OtherScaleError(differ, other, _factor(here, there, first.dtype, other.dtype), ranges)
    text = f"{differ}. Both are read as they are, because their values are alike: {ranges}."
    return TypeNote(other.scene, other.dtype, compared=True, text=text)


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
                "cannot learn from both: give one of them the factor, key rescale of the scene."
            )
    return None


def _measured(names: Sequence[str], values: NDArray[np.float32]) -> list[Channel]:
    return [Channel.measure(name, v) for name, v in zip(names, values, strict=True)]


def _factor(here: Sequence[ChannelValues], there: Sequence[ChannelValues], first: str, other: str) -> float | None:
    """The factor that takes values to the scale of the first scene: of full ranges, or else the nearest power of ten.

    None where that is 1, which would change nothing, or where all values of one are 0.
    """
    known = likely_factor(here, first, other)
    if known is not None:
        return float(Fraction(known))
    highest, high = (max(abs(band.high) for band in bands) for bands in (there, here))
    power = round(math.log10(highest / high)) if highest and high else 0
    return float(10.0**power) if power else None


def _ranges(bands: Sequence[ChannelValues]) -> str:
    return ", ".join(f"{b.channel.name} {b.low:.4g} to {b.high:.4g}" for b in bands[:3])


def _look(raster: RasterSource) -> NDArray[np.float32]:
    """Valid values at places spread over a file, float32, shape (C, N)."""
    height, width = raster.geobox.shape
    parts = []
    for place in np.ndindex(_PLACES, _PLACES):
        row, col = ((2 * i + 1) * size // (2 * _PLACES) for i, size in zip(place, (height, width), strict=True))
        window = Window(row, row, col, col).grow(_LOOK_PX // 2).intersect(Window(0, height, 0, width))
        values, valid = raster.read_own(window, raster.data_bands)
        parts.append(values[:, valid])
    return np.concatenate(parts, axis=1)


def _is_other(bands: Sequence[ChannelValues], recipe: Recipe) -> bool:
    return is_other_scale(bands, recipe.dtype, recipe.dtype or "")


def _channels(recipe: Recipe, values: NDArray[np.float32]) -> list[Channel]:
    return _measured(recipe.channel_names, values)


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
