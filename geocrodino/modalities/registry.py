"""The registry of modalities: how each kind of raster becomes channels, is checked, augmented and shown.

A modality is one `ModalityDefinition`. ``optical`` and ``elevation`` are registered when the package is imported;
`register` adds others, which are then trained, packed into bundles and predicted like these two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.errors import ConfigError, ValueRangeWarning
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.channel import Channel
from geocrodino.modalities.display import stretched
from geocrodino.modalities.options import RecipeOptions
from geocrodino.modalities.recipe_values import RecipeValues
from geocrodino.settings.augmentation import RadiometrySettings
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.spelling import did_you_mean

_HIGHEST_CODE = 64  # the codes of all modalities add up to at most 127: 255 is no data


@dataclass(frozen=True)
class Sample:
    """Sampled values of a scene, to be compared with the statistics of the training.

    Attributes:
        raster: The raster of the scene.
        recipe: How its channels are made.
        channels: Statistics of the training, in order.
        values: Valid values at places spread over the scene, float32, shape (C, N).
        ground_given: Whether there is a ground raster.
        ground_in_training: Whether there was one in the training.
        unit: Unit of height that the user gave, or None.
        rescale_in_training: What the values of its images were multiplied by and those of the scene are not; None:
            nothing.
    """

    raster: RasterSource
    recipe: RecipeValues
    channels: tuple[Channel, ...]
    values: NDArray[np.float32]
    ground_given: bool = False
    ground_in_training: bool = False
    unit: str | None = None
    rescale_in_training: float | None = None


class ModalityDefinition(ABC):
    """One kind of raster: how it is read, checked, augmented and shown.

    Attributes:
        holds_heights: Whether rasters hold heights: ground rasters and units apply, impossible heights are missing.
        warning: Kind of warning where values are unlike those of the training.
        name: Name in settings, bundles and file names.
        code: Its number in ``decided by`` maps, a power of two up to 64 that no other modality has.
        colour: Its colour in these maps.
        raster: What one of its rasters is called, with an article.
        radiometry: Random changes of its values in a training, where the settings name none.
    """

    holds_heights: ClassVar[bool] = False
    warning: ClassVar[type[Warning]] = ValueRangeWarning

    def __init__(
        self, name: str, *, code: int, colour: str, raster: str, radiometry: RadiometrySettings | None = None
    ) -> None:
        self.name, self.code, self.colour, self.raster = name, code, colour, raster
        self.radiometry = radiometry or RadiometrySettings()

    @abstractmethod
    def recipe(self, raster: RasterSource, options: RecipeOptions) -> RecipeValues:
        """Create the recipe of a training on a raster.

        Args:
            raster: The raster.
            options: What the user chose.

        Returns:
            The recipe.

        Raises:
            GeocrodinoError: One of its kinds, if the raster or the options cannot be used.
        """

    @abstractmethod
    def channel_names(self, recipe: RecipeValues) -> tuple[str, ...]:
        """Get the names of the channels.

        Args:
            recipe: A recipe of this modality.

        Returns:
            Names, in the order of the channels.
        """

    def halo_px(self, recipe: RecipeValues, grid: GeoBox, *, ground_given: bool = False) -> int:
        """Compute how far around a window the raster is read for its channels.

        Args:
            recipe: A recipe of this modality.
            grid: Grid on which channels are computed.
            ground_given: Whether there is a ground raster.

        Returns:
            Pixels of the grid on each side; 0 unless a modality overrides this.
        """
        return 0

    @abstractmethod
    def check(
        self,
        recipe: RecipeValues,
        raster: RasterSource,
        *,
        ground_given: bool = False,
        bands: tuple[int, ...] | None = None,
    ) -> str | None:
        """Check that a raster fits a recipe.

        Args:
            recipe: A recipe of this modality.
            raster: The raster.
            ground_given: Whether there is a ground raster.
            bands: One-based numbers of the bands of an image, where the user gave them.

        Returns:
            How the bands were found, as a phrase for people; None where no band has to be found.

        Raises:
            GeocrodinoError: One of its kinds, if the raster does not fit.
        """

    @abstractmethod
    def fitted(
        self,
        recipe: RecipeValues,
        raster: RasterSource,
        *,
        unit: str | None = None,
        bands: tuple[int, ...] | None = None,
    ) -> RasterSource:
        """Prepare a raster for `read`: select bands, mark impossible values as missing.

        Args:
            recipe: A recipe of this modality.
            raster: The raster.
            unit: Unit of height, where the user gave one.
            bands: One-based numbers of the bands of an image, where the user gave them.

        Returns:
            The raster as the recipe reads it.

        Raises:
            GeocrodinoError: One of its kinds, if the raster does not fit.
        """

    @abstractmethod
    def read(
        self,
        recipe: RecipeValues,
        raster: RasterSource,
        grid: GeoBox,
        window: Window,
        *,
        ground: RasterSource | None = None,
        unit: str | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Compute the channels of a window of a grid.

        Args:
            recipe: A recipe of this modality.
            raster: The raster, see `fitted`.
            grid: Grid to read on.
            window: Part of it; may reach outside, where nothing is valid.
            ground: Heights of the bare ground, in any CRS and resolution, if known.
            unit: Unit of height of the raster, and of the ground where its file does not name one.

        Returns:
            Channels in physical units, float32, shape (C, H, W), NaN where invalid; validity, bool, shape (H, W).
        """

    @abstractmethod
    def describe(self, recipe: RecipeValues) -> str:
        """Describe the raster of a recipe for people.

        Args:
            recipe: A recipe of this modality.

        Returns:
            What it is and which branch reads it.
        """

    def require_plausible(self, raster: RasterSource) -> None:  # noqa: B027 - most modalities take any raster
        """Refuse a raster whose values look like something else, where nobody named its modality.

        Args:
            raster: The raster.

        Raises:
            ConfigError: If the values look like something else.
        """

    @abstractmethod
    def unusual(self, sample: Sample) -> list[str]:
        """Find values that are unlike those of the training.

        Args:
            sample: Sampled values of the scene, and the statistics of the training.

        Returns:
            Warnings for the user; empty if there is none.

        Raises:
            BundleError: If a map from these values would be worthless.
        """

    def picture(self, raster: RasterSource, grid: GeoBox) -> NDArray[np.float32]:
        """Draw a raster for a preview.

        Args:
            raster: The raster.
            grid: Grid of the picture.

        Returns:
            Red, green and blue in 0 to 1, white without data, float32, shape (H, W, 3).

        Raises:
            RasterError: If the raster cannot be read.
        """
        return stretched(raster, grid)


_definitions: dict[str, ModalityDefinition] = {}


def register(definition: ModalityDefinition) -> ModalityDefinition:
    """Add a modality to the registry.

    Args:
        definition: The modality.

    Returns:
        The definition.

    Raises:
        ValueError: If its name or code belongs to another modality, or cannot be used.
    """
    name, code = definition.name, definition.code
    if code not in {1 << bit for bit in range(_HIGHEST_CODE.bit_length())}:
        raise ValueError(f"modality {name}: expected a code of 1, 2, 4 ... {_HIGHEST_CODE}, found {code}")
    for other in _definitions.values():
        if name == other.name or code == other.code:
            raise ValueError(f"modality {name}: there is already {other.name} with the code {other.code}")
    MODALITIES.add(name)
    _definitions[name] = definition
    return definition


@contextmanager
def registered(definition: ModalityDefinition) -> Iterator[ModalityDefinition]:
    """Register a modality for the length of a ``with`` block.

    Args:
        definition: The modality.

    Yields:
        The definition; it is removed from the registry when the block ends.

    Raises:
        ValueError: As for `register`.
    """
    register(definition)
    try:
        yield definition
    finally:
        del _definitions[definition.name]
        MODALITIES.remove(definition.name)


def definition_of(name: Modality) -> ModalityDefinition:
    """Get the definition of a modality.

    Args:
        name: Name of the modality.

    Returns:
        Its registered definition.

    Raises:
        ConfigError: If no modality of this name is registered.
    """
    if not MODALITIES.knows(name):
        raise ConfigError(
            f"{name}: expected a registered modality ({', '.join(MODALITIES)}).{did_you_mean(name, list(MODALITIES))}\n"
            "Import the package that registers it first."
        )
    return _definitions[name]
