"""Choose the branches of a bundle that map a scene."""

from __future__ import annotations

from typing import NamedTuple, get_args

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError, ConfigError, HeightError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.few_values import few_values
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.prediction import ModalityChoice
from geocrodino.spelling import did_you_mean


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
    choice: ModalityChoice, scene: RasterSource, elevation: RasterSource | None, bundle: Bundle
) -> ChosenModalities:
    """Decide which branches are used.

    Args:
        choice: The user's choice.
        scene: The raster to map.
        elevation: Surface model of the same place, None if only one raster was given.
        bundle: The trained networks.

    Returns:
        The modalities and the reason.

    Raises:
        BundleError: If the bundle lacks a branch, or the scene fits none of them.
        ConfigError: If the choice and the given rasters contradict each other, or the scene fits both branches.
        HeightError: If heights cannot be turned into the network's channels.
        ValueError: If ``choice`` is none of the known words.
    """
    if choice not in get_args(ModalityChoice):
        hint = did_you_mean(choice, get_args(ModalityChoice))
        raise ValueError(f"modality must be one of {', '.join(get_args(ModalityChoice))}, found {choice!r}.{hint}")
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
        for modality in MODALITIES:
            bundle.require(modality)
        return ChosenModalities(MODALITIES, "an image and a surface model were given")
    for modality in MODALITIES:
        if choice == modality:
            bundle.require(modality)
            return ChosenModalities((modality,), "as requested", requested=True)
    return _fitting(scene, bundle)


def _fitting(scene: RasterSource, bundle: Bundle) -> ChosenModalities:
    """The one branch whose bands or heights the scene has."""
    specs = {m: bundle.manifest.modalities[m] for m in MODALITIES if m in bundle.manifest.modalities}
    problems = {m: _problem(scene, spec) for m, spec in specs.items()}
    fits = [m for m, problem in problems.items() if problem is None]
    bands = f"{len(scene.data_bands)} band{'s' if len(scene.data_bands) > 1 else ''} of {scene.dtype}"
    if len(fits) == 1:
        (modality,) = fits
        if modality == "elevation":
            _require_heights(scene)
        return ChosenModalities((modality,), f"{bands}: {_what(specs[modality])}")
    if fits:
        raise ConfigError(
            f"{scene.path}: {bands} can be an image or heights, and the bundle reads both.\n"
            "Say which: `modality='optical'` or `modality='elevation'`."
        )
    reasons = " ".join(f"As {m}: {str(problem).removeprefix(f'{scene.path}: ')}" for m, problem in problems.items())
    raise BundleError(f"{scene.path}: fits no branch of {bundle.path}. {reasons}")


def _require_heights(scene: RasterSource) -> None:
    """Refuse a raster that looks like classes, unless the user named it as heights."""
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
