"""Which of a bundle's branches map a scene."""

from __future__ import annotations

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError, ConfigError, HeightError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.modalities.registry import definition_of
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.prediction import Wanted
from geocrodino.spelling import did_you_mean

_IMAGE_AND_HEIGHTS: tuple[Modality, ...] = ("optical", "elevation")


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
    if wanted not in {"both", "auto"} and not MODALITIES.knows(wanted):
        known = (*MODALITIES, "both", "auto")
        raise ValueError(f"modality must be one of {', '.join(known)}, found {wanted!r}.{did_you_mean(wanted, known)}")
    if wanted == "both" and elevation is None:
        raise ConfigError(
            f"{scene.path}: --modality both needs an image and a surface model, found one raster.\n"
            "Give the surface model with --elevation."
        )
    if elevation is not None:
        if wanted not in {"both", "auto"}:
            raise ConfigError(
                f"{elevation.path}: a surface model beside the scene needs --modality both or auto, found "
                f"{wanted}.\nLeave one of the two out."
            )
        for modality in _IMAGE_AND_HEIGHTS:
            bundle.require(modality)
        return _IMAGE_AND_HEIGHTS, "an image and a surface model were given"
    if wanted == "auto":
        return _fitting(scene, bundle)
    bundle.require(wanted)
    return (wanted,), "as asked for"


def _fitting(scene: RasterSource, bundle: Bundle) -> tuple[tuple[Modality, ...], str]:
    modalities = bundle.manifest.modalities
    specs = {m: modalities[m] for m in MODALITIES.in_order(modalities)}
    problems = {m: _problem(scene, spec) for m, spec in specs.items()}
    fits = [m for m, problem in problems.items() if problem is None]
    bands = f"{len(scene.data_bands)} band{'s' if len(scene.data_bands) > 1 else ''} of {scene.dtype}"
    if len(fits) == 1:
        (modality,) = fits
        spec = specs[modality]
        spec.definition.require_plausible(scene)
        return (modality,), f"{bands}: {spec.definition.describe(spec.recipe)}"
    if fits:
        kinds = " or ".join("heights" if definition_of(m).holds_heights else definition_of(m).raster for m in fits)
        raise ConfigError(
            f"{scene.path}: {bands} can be {kinds}, and the bundle reads {'both' if len(fits) == 2 else 'them all'}.\n"
            f"Say which: {' or '.join(f'--modality {m}' for m in fits)}."
        )
    told = " ".join(f"As {m}: {str(problem).removeprefix(f'{scene.path}: ')}" for m, problem in problems.items())
    raise BundleError(f"{scene.path}: fits no branch of {bundle.path}. {told}")


def _problem(scene: RasterSource, spec: ModalitySpec) -> Exception | None:
    try:
        spec.recipe.check(scene)
    except (BundleError, HeightError) as error:
        return error
    return None
