"""What a branch reads: bands or height channels, their units and statistics. The same code trains and predicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict

from geocrodino.errors import BundleError
from geocrodino.geo.rasters.heights import CodedHeights, ground_like, set_heights, trained_ground, trained_heights
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import ground_unit, with_height_limits
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.channel import Channel
from geocrodino.modalities.elevation import elevation_values
from geocrodino.modalities.measured import require_measured
from geocrodino.modalities.options import RecipeOptions
from geocrodino.modalities.recipe_values import RecipeValues
from geocrodino.modalities.registry import ModalityDefinition, definition_of
from geocrodino.settings.ground import GroundFilter
from geocrodino.settings.height_channels import HeightChannelName
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import Modality

__all__ = ["Channel", "ModalitySpec", "Recipe", "elevation_recipe", "optical_recipe"]


class Recipe(RecipeValues):
    """How the channels of one modality are made from a raster, before statistics; the values are `RecipeValues`."""

    @classmethod
    def of(cls, modality: Modality, raster: RasterSource, options: RecipeOptions) -> Recipe:
        """Create the recipe of a training on a raster.

        Args:
            modality: Name of the modality.
            raster: The raster.
            options: What the user chose.

        Returns:
            The recipe.

        Raises:
            GeocrodinoError: One of its kinds, if the modality is not registered, or the raster or the options cannot
                be used.
        """
        return cls(**dict(definition_of(modality).recipe(raster, options)))

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return definition_of(self.modality).channel_names(self)

    def halo_px(self, grid: GeoBox, *, ground_given: bool = False) -> int:
        """Compute how far around a window the raster is read for its channels.

        Args:
            grid: Grid on which channels are computed.
            ground_given: Whether there is a ground raster.

        Returns:
            Pixels of the grid on each side, at least 0.

        Raises:
            HeightError: If the grid is too coarse for height above ground.
        """
        return definition_of(self.modality).halo_px(self, grid, ground_given=ground_given)

    def check(
        self, raster: RasterSource, *, ground_given: bool = False, bands: tuple[int, ...] | None = None
    ) -> str | None:
        """Check that a raster has the bands, and heights fine enough for the channels.

        Args:
            raster: The raster.
            ground_given: Whether there is a ground raster.
            bands: Numbers of the bands of an image, where the user gave them.

        Returns:
            How the bands were found, as a phrase for people; None for heights.

        Raises:
            BundleError: If it lacks a band, or its values are no brightness and no heights.
            HeightError: If its pixels are too coarse for height above ground.
        """
        return definition_of(self.modality).check(self, raster, ground_given=ground_given, bands=bands)

    def coded(
        self,
        raster: RasterSource,
        *,
        given: HeightSettings | None = None,
        unit: str | None = None,
        alone: bool = False,
    ) -> CodedHeights:
        """Read a raster for a prediction as the training read its own, see `trained_heights`.

        Args:
            raster: The raster, as its file describes itself.
            given: What the user says of its heights.
            unit: Unit of height, where the user gave one.
            alone: Whether ``given`` decides alone, as in a training, and the coding of the training does not count.

        Returns:
            The raster, and the ground where a band of the same file holds it; an image stays as it is.

        Raises:
            HeightError: If a band cannot be told from others, or the coding does not fit the file.
        """
        if not definition_of(self.modality).holds_heights:
            return CodedHeights(raster)
        if alone:
            return set_heights(raster, given, unit)
        return trained_heights(raster, self.height, self.dtype, given, unit, self.height_unit)

    def coded_ground(
        self,
        ground: RasterSource,
        heights: RasterSource,
        *,
        given: HeightSettings | None = None,
        unit: str | None = None,
        alone: bool = False,
    ) -> RasterSource:
        """Read a ground raster of its own for a prediction as the heights that it belongs to, see `trained_ground`.

        Args:
            ground: The ground raster, as its file describes itself.
            heights: The heights, see `coded`.
            given: What the user says of the heights.
            unit: Unit of height, where the user gave one.
            alone: Whether ``given`` decides alone, see `coded`.

        Returns:
            The ground.

        Raises:
            HeightError: If the heights count from the ground or from the camera.
        """
        if alone:
            return ground_like(ground, given, heights.dtype, unit, trained_unit=self.height_unit)
        return trained_ground(ground, self.height, heights, given, unit, self.height_unit)

    def check_ground(self, ground: RasterSource) -> None:
        """Check that a ground raster holds one band of heights.

        Args:
            ground: The ground raster.

        Raises:
            BundleError: If it holds classes or several bands.
        """
        require_measured(ground, "heights")
        if len(ground.data_bands) != 1:
            raise BundleError(
                f"{ground.path}: expected one band of ground heights, found {len(ground.data_bands)} "
                f"({', '.join(ground.data_names)}).\nGive a terrain model with one band."
            )

    def fitted(
        self, raster: RasterSource, *, unit: str | None = None, bands: tuple[int, ...] | None = None
    ) -> RasterSource:
        """A raster as this recipe reads it.

        Args:
            raster: The raster.
            unit: Unit of height, where the user gave one.
            bands: Numbers of the bands of an image, where the user gave them.

        Returns:
            The raster with the bands of the recipe in its order; impossible heights are missing.

        Raises:
            BundleError: If it lacks a band.
            HeightError: If a unit of height is not known.
        """
        return definition_of(self.modality).fitted(self, raster, unit=unit, bands=bands)

    def fitted_ground(self, ground: RasterSource, *, unit: str | None = None) -> RasterSource:
        """Mark impossible heights of a ground raster as missing.

        Args:
            ground: The ground raster.
            unit: Unit of its heights, where the user gave one and the file names none.

        Returns:
            The ground raster without impossible heights.

        Raises:
            HeightError: If a unit of height is not known.
        """
        given = unit or self.height_unit
        return with_height_limits(ground, ground_unit(ground, given)[0], given)

    def read(
        self,
        raster: RasterSource,
        grid: GeoBox,
        window: Window,
        *,
        ground: RasterSource | None = None,
        unit: str | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Channels of a window of a grid.

        Args:
            raster: The raster, see `fitted`.
            grid: Grid to read on.
            window: Part of it; may reach outside, where nothing is valid.
            ground: Heights of the bare ground, in any CRS and resolution, if known; see `fitted_ground`.
            unit: Unit of height of the raster, and of the ground where its file names none.

        Returns:
            Channels, float32, shape (C, H, W), in physical units, NaN where invalid; validity, shape (H, W).
        """
        return definition_of(self.modality).read(self, raster, grid, window, ground=ground, unit=unit)


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


def optical_recipe(raster: RasterSource, bands: tuple[int, ...] | None = None) -> Recipe:
    """Create the recipe of an image: its data bands, or those asked for.

    Args:
        raster: The image.
        bands: One-based numbers of the bands to use, in order; None for all data bands.

    Returns:
        The recipe.

    Raises:
        BundleError: If a band that is asked for does not exist, or the values are no brightness.

    Warns:
        BandWarning: If a band is tagged as transparency, but is taken for data because of its values.
    """
    return Recipe.of("optical", raster, RecipeOptions(bands={"optical": bands}))


def elevation_recipe(
    channels: tuple[HeightChannelName, ...], ground: GroundFilter | None = None, height_unit: str | None = None
) -> Recipe:
    """Create the recipe of a height raster.

    Args:
        channels: Names of the height channels, in order.
        ground: The filter that finds the ground where no ground raster is given; None: the default one.
        height_unit: Unit of heights, for files that name none.

    Returns:
        The recipe.

    Raises:
        HeightError: If no channel is asked for.
    """
    return Recipe(**dict(elevation_values(channels, ground, height_unit)))
