"""The values of a recipe, which bundles store: what a modality reads of a raster."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from geocrodino.settings.ground import GroundFilter
from geocrodino.settings.height_channels import HeightChannelName
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import Modality


class RecipeValues(BaseModel):
    """How the channels of one modality are made from a raster, before statistics.

    `geocrodino.modalities.recipe.Recipe` has these values, and makes the channels.

    Attributes:
        modality: Which modality.
        bands: One-based numbers of the bands of an image, in order; empty for elevation.
        band_names: Their names, by which bands of other images are matched; ``band 1`` and so on without a name.
        dtype: Type of the stored numbers of the training's raster; None for heights without a coding, and in older
            bundles.
        channels: Height channels, in order; empty for images.
        ground: The filter that finds the ground where no ground raster is given.
        position_m: Width (standard deviation) of the surroundings of ``topographic_position``, m.
        height_unit: Unit of heights in the training's settings, for files that name none.
        height: Coding of the heights in the training's settings, for files of the same kind that state none; None: the
            file decides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Modality
    bands: tuple[int, ...] = ()
    band_names: tuple[str, ...] = ()
    dtype: str | None = None
    channels: tuple[HeightChannelName, ...] = ()
    ground: GroundFilter = GroundFilter()
    position_m: Annotated[float, Field(gt=0)] = 60.0
    height_unit: str | None = None
    height: HeightSettings | None = None

    @model_serializer(mode="wrap")
    def _without_empty_coding(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the coding out where there is none: older versions do not know it, and manifests keep their bytes."""
        written: dict[str, Any] = handler(self)
        if self.height is None:
            del written["height"]
        return written
