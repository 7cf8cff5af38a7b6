"""Checks before a prediction: are pixel size and values of the scene like those of the training?"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import BundleError, HeightRangeWarning, ResolutionWarning, ValueRangeWarning
from geocrodino.geo.rasters.grid import pixel_size_m
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.few_values import few_values, few_values_note
from geocrodino.modalities.value_ranges import ChannelValues, is_other_scale, likely_factor
from geocrodino.prediction.tiles.predictor import SceneInput

_COARSE, _TOO_COARSE = 4, 16  # ratio of the pixel size to that of the training: above it warned of, refused
_UNUSUAL_SHARE = 0.05
_SAMPLES, _SAMPLE_PX = 3, 256


def coarse_pixels(raster: RasterSource, trained_m: float) -> tuple[str, ...]:
    """Compare the pixel size with that of the training; finer pixels can be averaged, coarser ones lack detail.

    Args:
        raster: The scene.
        trained_m: Pixel size of the training, metres.

    Returns:
        Texts of the warnings that were given.

    Raises:
        BundleError: If the pixels are so large that the map would be noise and take days.

    Warns:
        ResolutionWarning: If the pixels are more than 4 times as large as those of the training.
    """
    own_m = math.sqrt(math.prod(pixel_size_m(raster.geobox)))
    ratio = own_m / trained_m
    if ratio <= _COARSE:
        return ()
    found = f"found {own_m:.3g} m. The network would compute {ratio**2:.0f} of its pixels for each of the scene"
    if ratio > _TOO_COARSE:
        raise BundleError(
            f"{raster.path}: pixels too large for a bundle trained at {trained_m:.3g} m. Expected at most "
            f"{_TOO_COARSE * trained_m:.3g} m, {found}.\nUse a finer scene, or a bundle trained at about this size."
        )
    note = (
        f"{raster.path}: the pixels are much larger than those of the training. Expected about {trained_m:.3g} m, "
        f"{found}, and see blurred objects: trust the map less."
    )
    warnings.warn(note, ResolutionWarning, stacklevel=3)
    return (note,)


def unusual_values(source: SceneInput) -> tuple[str, ...]:
    """Compare the values of a scene at a few places with those of the training.

    Args:
        source: Raster of one modality.

    Returns:
        Texts of the warnings that were given.

    Raises:
        BundleError: If the values of an image are on another scale than those of the training.

    Warns:
        HeightRangeWarning: If many heights lie outside the training's range.
        ValueRangeWarning: If many values of an image do, or their mean is far from the training's.
    """
    samples = _samples(source)
    image = source.spec.modality == "optical"
    notes = _image_notes(source, samples) if image else _height_notes(source, samples)
    for note in notes:
        warnings.warn(note, ValueRangeWarning if image else HeightRangeWarning, stacklevel=3)
    return tuple(notes)


def _samples(source: SceneInput) -> NDArray[np.float32]:
    """Valid values of the channels at places spread over the scene, shape (C, N)."""
    spec, (height, width) = source.spec, source.grid.shape
    found = []
    for place in np.ndindex(_SAMPLES, _SAMPLES):
        row, col = ((2 * i + 1) * size // (2 * _SAMPLES) for i, size in zip(place, (height, width), strict=True))
        half = _SAMPLE_PX // 2
        window = Window(row, row, col, col).grow(half).intersect(Window(0, height, 0, width))
        values, valid = spec.recipe.read(source.raster, source.grid, window, ground=source.ground, unit=source.unit)
        found.append(values[:, valid])
    return np.concatenate(found, axis=1)


def _image_notes(source: SceneInput, samples: NDArray[np.float32]) -> list[str]:
    if not samples.shape[1]:
        return []
    spec, path = source.spec, source.raster.path
    first = source.raster.bands[source.raster.data_bands[0] - 1]
    dtype = "float32" if first.is_scaled else first.dtype
    bands = [ChannelValues.of(channel, values) for channel, values in zip(spec.channels, samples, strict=True)]
    types = "" if spec.recipe.dtype in {None, dtype} else f" (type {spec.recipe.dtype} in training, {dtype} here)"
    factor = likely_factor(bands, spec.recipe.dtype, dtype)
    expected = "; ".join(band.words() for band in bands)
    if is_other_scale(bands, spec.recipe.dtype, dtype):
        way_out = (
            f"Values of these types differ by a factor: `rescale={factor}` gives the image the scale of the training."
            if factor is not None
            else "If the values differ by a constant factor, give it, for instance `rescale=255/10000`; "
            "otherwise predict with an image that is processed like that of the training."
        )
        raise BundleError(
            f"{path}: the values are on another scale than in training{types}. Expected {expected}.\n{way_out}"
        )
    far = [band for band in bands if band.is_far]
    if not far:
        return []
    hint = "" if factor is None else f"Values of these types often differ by a factor: try `rescale={factor}`. "
    most = max(band.outside for band in far)
    return [
        f"{path}: the values are unlike those of the training{types}: up to {most:.0%} of a band's sampled pixels lie "
        f"outside its range. Expected {'; '.join(band.words() for band in far)}. {hint}Otherwise trust the map less."
    ]


def _height_notes(source: SceneInput, samples: NDArray[np.float32]) -> list[str]:
    spec, notes = source.spec, []
    if spec.ground_given and source.ground is None and "height_above_ground" in spec.recipe.channels:
        notes.append(
            f"{source.raster.path}: the model was trained on heights above a ground raster, and none was given: the "
            "ground is estimated. Give one with `ground`."
        )
    classes = few_values(source.raster)
    if classes:
        notes.append(few_values_note(source.raster, classes))
    joined = samples[:, None]
    for name, share in spec.share_outside(joined, np.ones(joined.shape[1:], bool)).items():
        if share > _UNUSUAL_SHARE:
            channel = next(c for c in spec.channels if c.name == name)
            low, high = np.quantile(joined[[c.name for c in spec.channels].index(name)], (0.01, 0.99))
            notes.append(
                f"{source.raster.path}: {share:.0%} of the sampled pixels lie outside the range of {name} seen in "
                f"training. Expected {channel.low:.4g} to {channel.high:.4g} {channel.unit}, found {low:.4g} to "
                f"{high:.4g}. Check the unit of height; otherwise trust the map less."
            )
    return notes
