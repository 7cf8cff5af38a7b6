"""Which of a bundle's branches map a scene."""

from __future__ import annotations

from typing import get_args

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError, ConfigError, HeightError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.few_values import few_values
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.prediction import Wanted
from geocrodino.spelling import did_you_mean


def choose_modalities(
    wanted: Wanted, scene: RasterSource, elevation: RasterSource | None, bundle: Bundle
) -> tuple[tuple[Modality, ...], str]:
    """Decide which branches are used.

    Args:
        wanted: What the user asked for.
        scene: The raster to map.
        elevation: A surface model of the same place, if one was given beside an image.
        bundle: The trained networks.

    Returns:
        The modalities, in their fixed order, and why, in words.

    Raises:
        BundleError: If the bundle lacks a branch, or the scene fits none of them.
        ConfigError: If what was asked for and what was given differ, or the scene fits both branches.
        HeightError: If heights cannot be turned into the network's channels.
        ValueError: If ``wanted`` is no such word.
    """
    if wanted not in get_args(Wanted):
        hint = did_you_mean(wanted, get_args(Wanted))
        raise ValueError(f"modality must be one of {', '.join(get_args(Wanted))}, found {wanted!r}.{hint}")
    if wanted == "both" and elevation is None:
        raise ConfigError(
            f"{scene.path}: `modality='both'` needs an image and a surface model, found one raster.\n"
            "Give the surface model with `elevation`."
        )
    if elevation is not None:
        if wanted not in {"both", "auto"}:
            raise ConfigError(
                f"{elevation.path}: a surface model beside the scene needs `modality='both'` or auto, found "
                f"{wanted}.\nLeave one of the two out."
            )
        for modality in MODALITIES:
            bundle.require(modality)
        return MODALITIES, "an image and a surface model were given"
    for modality in MODALITIES:
        if wanted == modality:
            bundle.require(modality)
            return (modality,), "as asked for"
    return _fitting(scene, bundle)


def _fitting(scene: RasterSource, bundle: Bundle) -> tuple[tuple[Modality, ...], str]:
    specs = {m: bundle.manifest.modalities[m] for m in MODALITIES if m in bundle.manifest.modalities}
    problems = {m: _problem(scene, spec) for m, spec in specs.items()}
    fits = [m for m, problem in problems.items() if problem is None]
    bands = f"{len(scene.data_bands)} band{'s' if len(scene.data_bands) > 1 else ''} of {scene.dtype}"
    if len(fits) == 1:
        (modality,) = fits
        if modality == "elevation":
            _require_heights(scene)
        return (modality,), f"{bands}: {_what(specs[modality])}"
    if fits:
        raise ConfigError(
            f"{scene.path}: {bands} can be an image or heights, and the bundle reads both.\n"
            "Say which: `modality='optical'` or `modality='elevation'`."
        )
    told = " ".join(f"As {m}: {str(problem).removeprefix(f'{scene.path}: ')}" for m, problem in problems.items())
    raise BundleError(f"{scene.path}: fits no branch of {bundle.path}. {told}")


def _require_heights(scene: RasterSource) -> None:
    """Refuse to take for heights, unasked, what looks like classes."""
    values = few_values(scene)
    if values:
        raise ConfigError(
            f"{scene.path}: expected heights or an image, found {values} different whole numbers in one band, as class "
            "rasters hold them.\nIf these are heights, give `modality='elevation'`."
        )


def _problem(scene: RasterSource, spec: ModalitySpec) -> Exception | None:
    try:
        spec.recipe.check(scene)
    except (BundleError, HeightError) as error:
        return error
    return None


def _what(spec: ModalitySpec) -> str:
    if spec.modality == "elevation":
        return "heights, for the elevation branch"
    return f"an image, for the optical branch ({', '.join(spec.recipe.band_names)})"
