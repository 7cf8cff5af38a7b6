"""Choose the branches of a bundle that map a scene."""

from __future__ import annotations

from typing import NamedTuple

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError, ConfigError, HeightError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.modalities.registry import definition_of
from geocrodino.phrases import arguments
from geocrodino.prediction.given_heights import GivenHeights
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.prediction import ModalityChoice
from geocrodino.spelling import did_you_mean

_NOTHING_GIVEN = GivenHeights()
IMAGE_AND_HEIGHTS: tuple[Modality, ...] = ("optical", "elevation")


class ChosenModalities(NamedTuple):
    """The branches that map a scene.

    Attributes:
        modalities: Their modalities, ``optical`` first.
        reason: Why these, as a phrase for people.
        requested: Whether the user named the modality.
    """

    modalities: tuple[Modality, ...]
    reason: str
    requested: bool = False


def choose_modalities(
    choice: ModalityChoice,
    scene: RasterSource,
    elevation: RasterSource | None,
    bundle: Bundle,
    heights: GivenHeights = _NOTHING_GIVEN,
) -> ChosenModalities:
    """Decide which branches are used.

    Args:
        choice: The user's choice.
        scene: The raster to map.
        elevation: Surface model of the same place, None if only one raster was given.
        bundle: The trained networks.
        heights: What the user says of the coding of heights; by default nothing.

    Returns:
        The modalities and the reason.

    Raises:
        BundleError: If the bundle lacks a branch, or the scene fits none of them.
        ConfigError: If the choice and the given rasters contradict each other, or the scene fits several branches.
        HeightError: If heights cannot be turned into the network's channels.
        ValueError: If ``choice`` is none of the known words.
    """
    if choice not in {"both", "auto"} and not MODALITIES.knows(choice):
        known = (*MODALITIES, "both", "auto")
        raise ValueError(f"modality must be one of {', '.join(known)}, found {choice!r}.{did_you_mean(choice, known)}")
    if choice == "both" and elevation is None:
        raise ConfigError(
            f"{scene.path}: `modality='both'` needs an image and a surface model, found one raster.\n"
            "Give the surface model with `elevation`."
        )
    if elevation is not None:
        if choice not in {"both", "auto"}:
            raise ConfigError(
                f"{elevation.path}: a surface model beside the scene needs `modality='both'` or auto, found "
                f"{choice}.\nLeave one of the two out."
            )
        for modality in IMAGE_AND_HEIGHTS:
            bundle.require(modality)
        return ChosenModalities(IMAGE_AND_HEIGHTS, "an image and a surface model were given")
    if choice == "auto":
        return _fitting(scene, bundle, heights)
    bundle.require(choice)
    return ChosenModalities((choice,), "as requested", requested=True)


def _fitting(scene: RasterSource, bundle: Bundle, heights: GivenHeights) -> ChosenModalities:
    """The one branch whose bands or heights the scene has."""
    modalities = bundle.manifest.modalities
    specs = {m: modalities[m] for m in MODALITIES.in_order(modalities)}
    problems = {m: _problem(scene, spec, heights) for m, spec in specs.items()}
    fits = [m for m, problem in problems.items() if problem is None]
    bands = f"{len(scene.data_bands)} band{'s' if len(scene.data_bands) > 1 else ''} of {scene.dtype}"
    if len(fits) == 1:
        spec = specs[fits[0]]
        spec.definition.require_plausible(spec.recipe.coded(scene, given=heights.settings, alone=heights.alone).surface)
        return ChosenModalities((spec.modality,), f"{bands}: {spec.definition.describe(spec.recipe)}")
    if fits:
        kinds = " or ".join("heights" if definition_of(m).holds_heights else definition_of(m).raster for m in fits)
        raise ConfigError(
            f"{scene.path}: {bands} can be {kinds}, and the bundle reads {'both' if len(fits) == 2 else 'them all'}.\n"
            f"Say which: {' or '.join(arguments(modality=m) for m in fits)}."
        )
    reasons = " ".join(f"As {m}: {str(problem).removeprefix(f'{scene.path}: ')}" for m, problem in problems.items())
    raise BundleError(f"{scene.path}: fits no branch of {bundle.path}. {reasons}")


def _problem(scene: RasterSource, spec: ModalitySpec, heights: GivenHeights) -> Exception | None:
    try:
        spec.recipe.check(spec.recipe.coded(scene, given=heights.settings, alone=heights.alone).surface)
    except (BundleError, HeightError) as error:
        return error
    return None
