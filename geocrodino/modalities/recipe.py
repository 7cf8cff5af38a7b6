"""What a branch reads: bands or height channels, their units and statistics. The same code trains and predicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.channel import Channel
from geocrodino.modalities.elevation import elevation_recipe
from geocrodino.modalities.optical import optical_recipe
from geocrodino.modalities.registry import ModalityDefinition, Recipe, definition_of
from geocrodino.settings.modality import Modality

__all__ = ["Channel", "ModalitySpec", "Recipe", "elevation_recipe", "optical_recipe"]


class ModalitySpec(BaseModel):
    """Everything that a branch must know of its input; travels in the bundle.

    Attributes:
        recipe: How channels are made.
        channels: Their statistics, in order.
        ground_given: Whether the training used a ground raster rather than an estimate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    channels: tuple[Channel, ...]
    ground_given: bool = False

    @property
    def modality(self) -> Modality:
        """Which modality."""
        return self.recipe.modality

    @property
    def definition(self) -> ModalityDefinition:
        """The registered definition of the modality."""
        return definition_of(self.recipe.modality)

    def normalise(self, values: NDArray[np.float32], *, in_place: bool = False) -> NDArray[np.float32]:
        """Scale channels to the network's input.

        Args:
            values: Channels in physical units, float32, shape (C, H, W), NaN where invalid.
            in_place: Whether to overwrite ``values`` instead of allocating a new array.

        Returns:
            Network input without units, float32, shape (C, H, W); 0 where any channel is invalid.
        """
        out = values if in_place else np.empty(values.shape, np.float32)
        self.normalise_into(values, out, np.empty(values.shape[1:], bool))
        return out

    def normalise_into(self, values: NDArray[np.float32], out: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Scale channels to the network's input, without allocating it.

        Args:
            values: Channels in physical units, float32, shape (C, H, W), NaN where invalid.
            out: Receives the input without units, float32, shape (C, H, W), 0 where any channel is invalid; may be
                ``values`` itself.
            valid: Receives where all channels are valid, bool, shape (H, W).
        """
        np.isfinite(values[0], out=valid)
        for value in values[1:]:
            valid &= np.isfinite(value)
        for channel, value, target in zip(self.channels, values, out, strict=True):
            channel.apply(value, target)
        if not valid.all():  # it is slow even where nothing is chosen
            out[:, ~valid] = 0

    def read(
        self,
        raster: RasterSource,
        grid: GeoBox,
        window: Window,
        *,
        ground: RasterSource | None = None,
        unit: str | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Network input of a window of a grid.

        Args:
            raster: The raster.
            grid: Grid to read on.
            window: Part of it; may reach outside, where nothing is valid.
            ground: Heights of the bare ground, if known.
            unit: Unit of height, for files that name none.

        Returns:
            Input, float32, shape (C, H, W), 0 where invalid; validity, bool, shape (H, W).
        """
        values, valid = self.recipe.read(raster, grid, window, ground=ground, unit=unit)
        return self.normalise(values, in_place=True), valid
