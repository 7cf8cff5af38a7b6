"""Build Kornia operations from their names and parameters in the configuration."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, cast

import kornia
import kornia.augmentation as K
from torch import nn

from geocrodino.data.augmentation.operations import OPERATIONS
from geocrodino.errors import ConfigError
from geocrodino.settings.augmentation import Operation
from geocrodino.settings.modality import Modality
from geocrodino.spelling import did_you_mean

_CHANGES_SIZE = ("CenterCrop", "RandomCrop", "PadTo", "Resize", "LongestMaxSize", "SmallestMaxSize")
_WITHOUT_MATRIX = ("RandomElasticTransform", "RandomFisheye", "RandomThinPlateSpline")
_FIXED = ("resample", "padding_mode", "fill_value", "align_corners", "cropping_mode", "keepdim")
"""Parameters of Kornia's geometric classes that have no effect here: only the matrix of an operation is used."""


def place_of(modality: Modality, index: int, name: str) -> str:
    """Name the configuration key of an operation, for messages.

    Args:
        modality: The modality whose list holds the operation.
        index: Position in that list, counted from 0 as in all lists of the configuration.
        name: Class name of the operation.

    Returns:
        A dotted key, for instance ``augmentation.optical.0.RandomHorizontalFlip``.
    """
    return f"augmentation.{modality}.{index}.{name}"


def build_operation(operation: Operation, place: str) -> nn.Module:
    """Build an operation.

    Args:
        operation: Name and parameters.
        place: Its configuration key, for messages, see `place_of`.

    Returns:
        A geometric or intensity operation of Kornia, on the CPU.

    Raises:
        ConfigError: If there is no such operation, it cannot be used on patches with labels, or a parameter is
            unknown, missing or has a value that Kornia refuses.
    """
    kind = _class_of(operation.name, place)
    _check_parameters(kind, operation.parameters, place)
    try:
        built: nn.Module = kind(**operation.parameters)
    except Exception as error:  # Kornia raises exceptions of many classes
        given = ", ".join(f"{name} {value}" for name, value in operation.parameters.items()) or "no parameters"
        raise ConfigError(f"{place}: cannot be built with {given}: {first_line(error)}.") from error
    return built


def first_line(error: Exception) -> str:
    """Shorten the text of an error to one line.

    Args:
        error: Any exception.

    Returns:
        The first line without the full stop; the name of the exception's class if it has no text.
    """
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].removesuffix(".")


def _class_of(name: str, place: str) -> type[nn.Module]:
    if name in OPERATIONS:
        return OPERATIONS[name]
    found = getattr(K, name, None) if name in K.__all__ else None
    if not inspect.isclass(found):
        hint = did_you_mean(name, _usable())
        raise ConfigError(
            f"{place}: expected an operation of kornia.augmentation {kornia.__version__} or geocrodino, found {name!r}."
            + (hint or f" geocrodino's own: {', '.join(OPERATIONS)}.")
        )
    reason = _unusable(name, found)
    if reason:
        raise ConfigError(
            f"{place}: expected an operation that changes the values of an image or moves its pixels by a matrix, "
            f"found {name}, which {reason}.{did_you_mean(name, set(_usable()) - {name})}"
        )
    return cast(type[nn.Module], found)


def _usable() -> list[str]:
    classes = {name: getattr(K, name) for name in K.__all__}
    known = [n for n, found in classes.items() if inspect.isclass(found) and not _unusable(n, found)]
    return sorted([*known, *OPERATIONS])


def _unusable(name: str, kind: type) -> str | None:  # noqa: PLR0911
    """State why a class of Kornia cannot augment patches with labels; None if it can."""
    if name in _CHANGES_SIZE:
        return "changes the size of a patch"
    if name in _WITHOUT_MATRIX:
        return "moves pixels without a matrix, so that labels and the other modality cannot follow"
    if name == "RandomPerspective":
        return "is not affine, so that the losses cannot undo it to compare the modalities"
    if issubclass(kind, K.MixAugmentationBaseV2):
        return "mixes the images of a batch"
    if name.endswith("3D"):
        return "is for volumes"
    if "Base" in name or not issubclass(kind, K.GeometricAugmentationBase2D | K.IntensityAugmentationBase2D):
        return "is not a single augmentation of images"
    return None


def _check_parameters(kind: type[nn.Module], parameters: dict[str, Any], place: str) -> None:
    known = inspect.signature(kind).parameters
    geometric = issubclass(kind, K.GeometricAugmentationBase2D)
    usable = [name for name in known if not (geometric and name in _FIXED)]
    for name in parameters:
        if name in known and name not in usable:
            raise ConfigError(
                f"{place}.{name}: has no effect. Images are interpolated bilinearly, labels by the nearest pixel, and "
                "pixels from outside have no data. Leave it out."
            )
        if name not in known:
            hint = did_you_mean(name, usable)
            raise ConfigError(f"{place}.{name}: is not a parameter.{hint or _expected(usable)}")
    for name in ("p", "p_batch"):
        share = parameters.get(name, 1.0)
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ConfigError(f"{place}.{name}: expected a share of the patches, 0 to 1, found {share!r}.")
    missing = [n for n in usable if known[n].default is inspect.Parameter.empty and n not in parameters]
    if missing:
        raise ConfigError(f"{place}: expected {', '.join(missing)}, found {', '.join(parameters) or 'no parameters'}.")


def _expected(names: Iterable[str]) -> str:
    return f" Expected one of {', '.join(names)}."
