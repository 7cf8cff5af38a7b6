"""What is checked before a scene is predicted: no input is replaced, pixels and heights are like the training's."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from geocrodino.errors import BundleError, HeightRangeWarning, OutputError, ResolutionWarning
from geocrodino.geo.files import exists, same_file
from geocrodino.geo.grid import pixel_size_m
from geocrodino.geo.mosaic import source_files
from geocrodino.geo.reader import RasterSource
from geocrodino.prediction.network import SceneInput

_COARSE, _TOO_COARSE = 4, 16  # pixel size over that of the training: told, refused
_UNUSUAL_SHARE = 0.05
_SAMPLES, _SAMPLE_PX = 3, 256


def keep_inputs(out: Path, **inputs: str | Path | RasterSource | None) -> None:
    """Check that a map would not take the place of a file that it is made from.

    Raises:
        OutputError: If it would.
    """
    if not exists(out):
        return
    for role, given in inputs.items():
        for path in _paths(given):
            if same_file(out, path):
                what = role.replace("_", " ")
                raise OutputError(f"{out}: the map would replace the {what} itself.\nChoose another name.")


def coarse_pixels(raster: RasterSource, trained_m: float) -> tuple[str, ...]:
    """Compare the pixel size with that of the training: finer pixels are averaged, larger ones can only be blurred.

    Args:
        raster: The scene.
        trained_m: Pixel size of the training, metres.

    Returns:
        What the user should know, also given as a warning.

    Raises:
        BundleError: If the pixels are so large that the map would be noise and take days.
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


def unusual_heights(source: SceneInput) -> tuple[str, ...]:
    """Compare heights at a few places with those of the training.

    Returns:
        What the user should know, also given as warnings.
    """
    spec, (height, width) = source.spec, source.grid.shape
    if spec.modality != "elevation":
        return ()
    notes = []
    if spec.ground_given and source.ground is None and "height_above_ground" in spec.recipe.channels:
        notes.append(
            f"{source.raster.path}: the model was trained on heights above a ground raster, and none was given: the "
            "ground is estimated. Give one with --ground."
        )
    samples = []
    for place in np.ndindex(_SAMPLES, _SAMPLES):
        row, col = ((2 * i + 1) * size // (2 * _SAMPLES) for i, size in zip(place, (height, width), strict=True))
        half = _SAMPLE_PX // 2
        window = (max(0, row - half), min(height, row + half), max(0, col - half), min(width, col + half))
        values, valid = spec.recipe.read(source.raster, source.grid, window, ground=source.ground, unit=source.unit)
        samples.append(values[:, valid])
    joined = np.concatenate(samples, axis=1)[:, None]
    for name, share in spec.share_outside(joined, np.ones(joined.shape[1:], bool)).items():
        if share > _UNUSUAL_SHARE:
            channel = next(c for c in spec.channels if c.name == name)
            low, high = np.quantile(joined[[c.name for c in spec.channels].index(name)], (0.01, 0.99))
            notes.append(
                f"{source.raster.path}: {share:.0%} of the sampled pixels lie outside the range of {name} seen in "
                f"training. Expected {channel.low:.4g} to {channel.high:.4g} {channel.unit}, found {low:.4g} to "
                f"{high:.4g}. Check the unit of height; otherwise trust the map less."
            )
    for note in notes:
        warnings.warn(note, HeightRangeWarning, stacklevel=3)
    return tuple(notes)


def _paths(given: str | Path | RasterSource | None) -> list[Path]:
    if isinstance(given, RasterSource):
        return [Path(name) for name in source_files(given)]
    return [] if given is None else [Path(given)]
