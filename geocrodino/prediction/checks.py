"""Checks before a prediction: are pixel size and values of the scene like those of the training?"""

from __future__ import annotations

import shlex
import warnings

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import BundleError, ResolutionWarning
from geocrodino.geo.rasters.grid import pixel_side_m
from geocrodino.geo.rasters.place import is_placeless
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.registry import Sample
from geocrodino.prediction.tiles.predictor import SceneInput

_COARSE, _TOO_COARSE = 4, 16  # ratio of the pixel size to that of the training: above it warned of, refused
_TOO_FINE = 1 / 256  # below it refused: every pixel of the networks would be the mean of 65,536 of the scene
_SAMPLES, _SAMPLE_PX = 3, 256


def unusual_pixels(raster: RasterSource, trained_m: float) -> tuple[str, ...]:
    """Compare the pixel size with that of the training; finer pixels can be averaged, coarser ones lack detail.

    Args:
        raster: The scene.
        trained_m: Pixel size of the training, metres.

    Returns:
        Texts of the warnings that were given.

    Raises:
        BundleError: If the pixels are so large that the map would be noise and take days, or so small that their means
            alone would take hours.

    Warns:
        ResolutionWarning: If the pixels are more than 4 times as large as those of the training.
    """
    own_m = pixel_side_m(raster.geobox)
    ratio = own_m / trained_m
    if ratio < _TOO_FINE:
        rows, cols = (max(1, round(2 * ratio * px)) for px in raster.geobox.shape)
        average = (
            f"Average them first, for instance: rio warp {shlex.quote(str(raster.path))} coarser.tif --dimensions "
            f"{cols} {rows} --resampling average"
        )
        raise BundleError(
            f"{raster.path}: pixels too small for a bundle trained at {trained_m:.3g} m. Expected at least "
            f"{_TOO_FINE * trained_m:.3g} m, found {own_m:.3g} m.\n"
            + ("State the right pixel size: `pixel_m`." if is_placeless(raster.geobox) else average)
        )
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


def unusual_values(source: SceneInput, rescale: float | None = None) -> tuple[str, ...]:
    """Compare the values of a scene at a few places with those of the training.

    Args:
        source: Raster of one modality.
        rescale: What the values of images were multiplied by in the training and are not here; None: nothing.

    Returns:
        Texts of the warnings that were given.

    Raises:
        BundleError: If the values of an image are on another scale than those of the training.

    Warns:
        HeightRangeWarning: If many heights lie outside the training's range.
        ValueRangeWarning: If many values of an image do, or their mean is far from the training's.
    """
    spec = source.spec
    sample = Sample(
        source.raster,
        spec.recipe,
        spec.channels,
        _samples(source),
        ground_given=source.ground is not None or source.raster.zero == "ground",
        ground_in_training=spec.ground_given,
        unit=source.unit,
        rescale_in_training=rescale if spec.modality == "optical" else None,
    )
    notes = spec.definition.unusual(sample)
    for note in notes:
        warnings.warn(note, spec.definition.warning, stacklevel=3)
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
