"""What a user can choose of the recipes of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from geocrodino.settings.ground import GroundFilter
from geocrodino.settings.height_channels import HeightChannelName
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import Modality


@dataclass(frozen=True)
class RecipeOptions:
    """What a user can choose of the recipes of a training.

    Attributes:
        bands: Numbers of the bands to use, by modality; all bands of data for a modality that is left out.
        channels: Height channels.
        ground: The filter that finds the ground.
        height_unit: Unit of heights, for files that name none.
        height: Coding of the heights, for files that state none.
    """

    bands: Mapping[Modality, tuple[int, ...] | None] = field(default_factory=dict)
    channels: tuple[HeightChannelName, ...] = ()
    ground: GroundFilter = field(default_factory=GroundFilter)
    height_unit: str | None = None
    height: HeightSettings | None = None
