"""What encoders start from: names of weights, checked without PyTorch before anything is read.

``encoder_weights`` of a configuration is one name for all modalities, or a mapping of modality to name. In a mapping, a
modality that is left out starts from random weights; an empty mapping means random weights for all. Run folders of
version 0.1 hold such mappings and keep their meaning.

A name is one of these:

- ``imagenet``: weights that were trained on ImageNet, from an installed package or from the Hugging Face hub.
- ``random``: random weights.
- a file ``.safetensors`` or ``.pth``.
- ``timm/NAME`` or ``timm/NAME@REVISION``: weights on the Hugging Face hub.
- ``ResNet18_Weights.SENTINEL2_RGB_MOCO`` and the like: weights for remote sensing, under the names of torchgeo.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from geocrodino.errors import ModelError
from geocrodino.files.access import absence, is_file, is_folder

IMAGENET, RANDOM = "imagenet", "random"

WeightsKind = Literal["imagenet", "random", "file", "hub", "torchgeo"]

FirstLayer = Literal["repeat", "mean", "random"]
"""How the first layer is adapted to another number of bands, see `geocrodino.models.first_layer`."""

_SUFFIXES = (".safetensors", ".pth")
_HUB = re.compile(r"timm/[\w.-]+(@[\w.-]+)?")
_TORCHGEO = re.compile(r"\w+_Weights\.\w+")


def weights_kind(name: str) -> WeightsKind:
    """Find out what a name of encoder weights stands for.

    Args:
        name: A name, see the module.

    Returns:
        The kind of the name. Nothing is looked up.

    Raises:
        ValueError: If it is none of these.
    """
    if name == IMAGENET:
        return "imagenet"
    if name == RANDOM:
        return "random"
    if is_weights_file(name):
        return "file"
    if _HUB.fullmatch(name):
        return "hub"
    if _TORCHGEO.fullmatch(name):
        return "torchgeo"
    raise ValueError(
        "expected imagenet, random, a file .safetensors or .pth, timm/NAME or timm/NAME@REVISION of the Hugging Face "
        "hub, or a name of torchgeo such as ResNet18_Weights.SENTINEL2_RGB_MOCO"
    )


def is_weights_file(name: str) -> bool:
    """Check whether a name of encoder weights is that of a file.

    Args:
        name: The name.

    Returns:
        True for a name in ``.safetensors`` or ``.pth``, whether the file exists or not.
    """
    return name.lower().endswith(_SUFFIXES)


def weights_of(weights: str | Mapping[str, str], modality: str) -> str:
    """Find the weights that the encoder of a modality starts from.

    Args:
        weights: One name for all modalities, or names by modality.
        modality: The modality.

    Returns:
        The name; ``random`` if a mapping does not name the modality.
    """
    return weights if isinstance(weights, str) else weights.get(modality, RANDOM)


def check_weights_file(path: Path) -> None:
    """Check the suffix of a file of encoder weights, and that the file exists.

    Args:
        path: The file, ``.safetensors`` or ``.pth``.

    Raises:
        ModelError: If it has another suffix or does not exist.
        AccessError: If the operating system denies access to it.
    """
    if not is_weights_file(path.name):
        raise ModelError(f"{path}: expected encoder weights as .safetensors or .pth, found '{path.suffix}'.")
    if not is_file(path):
        why = "is a folder" if is_folder(path) else absence(path).replace("file", "file of encoder weights", 1)
        raise ModelError(f"{path}: {why}. Name another file, or `encoder_weights='imagenet'`.")
