"""What a user says of the coding of heights in a prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from geocrodino.errors import ConfigError
from geocrodino.phrases import arguments
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.prediction import Inputs


@dataclass(frozen=True)
class GivenHeights:
    """The coding of heights that a user gives.

    Attributes:
        settings: The coding; None: nothing is given.
        alone: Whether it decides alone, as in a training. Otherwise the coding of the bundle's training fills in what
            it does not name.
    """

    settings: HeightSettings | None = None
    alone: bool = False


def heights_given(inputs: Inputs, height: HeightSettings | None) -> GivenHeights:
    """Collect what a user says of the coding of heights.

    Args:
        inputs: How the rasters are read.
        height: The whole coding, as in the key ``data.height`` of a training; None: not given.

    Returns:
        The coding.

    Raises:
        ConfigError: If a scale is no length, or two options contradict each other.
    """
    options = {"scale": inputs.height_scale, "zero": inputs.height_zero}
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    scale = inputs.height_scale
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ConfigError(f"`height_scale={scale:g}`: expected metres in a stored unit, above 0, such as 0.1.")
    if scale is not None and inputs.height_unit is not None:
        raise ConfigError(
            f"{arguments(height_unit=inputs.height_unit, height_scale=scale)}: both say how long a stored unit is.\n"
            "Give only one of them."
        )
    if height is None:
        return GivenHeights(HeightSettings(**given) if given else None)
    if given:
        named = {f"height_{key}": value for key, value in given.items()}
        raise ConfigError(f"{arguments(**named)}: `height` says this too.\nGive only one of them.")
    if height.scale is not None and inputs.height_unit is not None:
        raise ConfigError(
            f"{arguments(height_unit=inputs.height_unit)} and height.scale {height.scale:g}: both say how long a "
            "stored unit is.\nGive only one of them."
        )
    return GivenHeights(height, alone=True)
