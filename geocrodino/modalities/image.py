"""Modalities whose channels are bands of an image: matched by name, compared in range, never computed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.errors import BandWarning, BundleError
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.validity import tagged_alpha
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.band_matching import BandMatch, match_bands, require_bands
from geocrodino.modalities.measured import require_measured
from geocrodino.modalities.options import RecipeOptions
from geocrodino.modalities.recipe_values import RecipeValues
from geocrodino.modalities.registry import ModalityDefinition, Sample
from geocrodino.modalities.value_ranges import ChannelValues, is_other_scale, likely_factor
from geocrodino.settings.factors import factor_text


class ImageModality(ModalityDefinition):
    """Any bands of an image, with the values that its file stores."""

    measured = "brightness in each band"

    def recipe(self, raster: RasterSource, options: RecipeOptions) -> RecipeValues:
        """Create the recipe of a training from the data bands of an image, or from those asked for.

        Args:
            raster: The image.
            options: ``bands`` may name the bands of this modality; the rest is not used.

        Returns:
            The recipe, with numbers, names and stored type of the bands.

        Raises:
            BundleError: If a band that is asked for does not exist, or the values are no measurements.

        Warns:
            BandWarning: If a band is tagged as transparency, but is taken for data because of its values.
        """
        bands = options.bands.get(self.name)
        numbers = bands or raster.data_bands
        if bands is None and tagged_alpha(raster.bands) in numbers:
            warnings.warn(
                f"{raster.path}: band {tagged_alpha(raster.bands)} is tagged as transparency, but its values look like "
                "those of an image: it is read as data. Name the bands to use with `data.bands` to decide otherwise.",
                BandWarning,
                stacklevel=3,
            )
        raster = raster.with_bands(numbers) if all(0 < b <= raster.count for b in numbers) else raster
        recipe = RecipeValues(
            modality=self.name,
            bands=numbers,
            band_names=tuple(raster.band_names[b - 1] if 0 < b <= raster.count else f"band {b}" for b in numbers),
            dtype=_stored_type(raster),
        )
        require_measured(raster, self.measured)
        require_bands(raster, numbers)
        return recipe

    def channel_names(self, recipe: RecipeValues) -> tuple[str, ...]:
        """Get the names of the channels.

        Args:
            recipe: The recipe.

        Returns:
            Names of the bands, in order.
        """
        return recipe.band_names

    def check(
        self,
        recipe: RecipeValues,
        raster: RasterSource,
        *,
        ground_given: bool = False,
        bands: tuple[int, ...] | None = None,
    ) -> str | None:
        """Check that an image has the bands of a recipe.

        Args:
            recipe: The recipe.
            raster: The image.
            ground_given: Not used.
            bands: One-based numbers of its bands, where the user gave them.

        Returns:
            How the bands were found, as a phrase for people.

        Raises:
            BundleError: If a band is missing or has another name, or the values are no measurements.
        """
        return self._match(recipe, raster, bands).known_by

    def fitted(
        self,
        recipe: RecipeValues,
        raster: RasterSource,
        *,
        unit: str | None = None,
        bands: tuple[int, ...] | None = None,
    ) -> RasterSource:
        """Select the bands of a recipe, in its order.

        Args:
            recipe: The recipe.
            raster: The image.
            unit: Not used.
            bands: One-based numbers of its bands, where the user gave them.

        Returns:
            The image with these bands.

        Raises:
            BundleError: As for `check`.
        """
        return raster.with_bands(self._match(recipe, raster, bands).numbers)

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
        """Read the bands as they are stored in the file, resampled to a grid.

        Args:
            recipe: Not used; `fitted` has selected the bands.
            raster: The image, see `fitted`.
            grid: Grid to read on.
            window: Part of it; may reach outside, where nothing is valid.
            ground: Not used.
            unit: Not used.

        Returns:
            Values of the bands, float32, shape (C, H, W), NaN where invalid; validity, bool, shape (H, W).

        Raises:
            RasterError: If the image cannot be read there.
        """
        return raster.read(grid, window)

    def describe(self, recipe: RecipeValues) -> str:
        """Describe the image for people.

        Args:
            recipe: The recipe.

        Returns:
            What it is, which branch reads it, and its bands.
        """
        return f"{self.raster}, for the {self.name} branch ({', '.join(recipe.band_names)})"

    def unusual(self, sample: Sample) -> list[str]:
        """Compare the values of each band with those of the training.

        Args:
            sample: Sampled values of the scene, and the statistics of the training.

        Returns:
            One warning that names all bands with unusual values; empty if there is none.

        Raises:
            BundleError: If the values are on another scale.
        """
        if not sample.values.shape[1]:
            return []
        path, trained, dtype = sample.raster.path, sample.recipe.dtype, _stored_type(sample.raster)
        bands = [ChannelValues.of(channel, v) for channel, v in zip(sample.channels, sample.values, strict=True)]
        types = "" if trained in {None, dtype} else f" (type {trained} in training, {dtype} here)"
        known = _factor_of_training(sample, bands)
        factor = likely_factor(bands, trained, dtype)
        if is_other_scale(bands, trained, dtype):
            advice = known or (
                f"Values of these types differ by a factor: `rescale={factor}` gives the image the scale of the "
                "training."
                if factor is not None
                else "If the values differ by a constant factor, give it, for instance `rescale=255/10000`; "
                "otherwise predict with an image that is processed like that of the training."
            )
            expected = "; ".join(band.words() for band in bands)
            raise BundleError(
                f"{path}: the values are on another scale than in training{types}. Expected {expected}.\n{advice}"
            )
        far = [band for band in bands if band.is_far]
        if not far:
            return []
        hint = "" if factor is None else f"Values of these types often differ by a factor: try `rescale={factor}`. "
        hint = f"{known} " if known else hint
        most = max(band.outside for band in far)
        return [
            f"{path}: the values are unlike those of the training{types}: up to {most:.0%} of a band's sampled pixels "
            f"lie outside its range. Expected {'; '.join(band.words() for band in far)}. {hint}Otherwise trust the map "
            "less."
        ]

    def _match(self, recipe: RecipeValues, raster: RasterSource, bands: tuple[int, ...] | None) -> BandMatch:
        require_measured(raster, self.measured)
        return match_bands(raster, recipe.band_names, recipe.bands, bands, kind=self.name)


def _factor_of_training(sample: Sample, bands: Sequence[ChannelValues]) -> str:
    """Advice to multiply an image as those of the training were; empty where no mean would come nearer in some band."""
    factor = sample.rescale_in_training
    if factor is None:
        return ""
    times = [
        ChannelValues.of(channel, v * np.float32(factor))
        for channel, v in zip(sample.channels, sample.values, strict=True)
    ]
    if not all(_distance(after) < _distance(before) for after, before in zip(times, bands, strict=True)):
        return ""
    text = factor_text(factor)
    return f"The training multiplied the values of its images by {text}: `rescale={text}` does the same here."


def _distance(band: ChannelValues) -> float:
    return abs(band.mean - band.channel.mean)


def _stored_type(raster: RasterSource) -> str:
    first = raster.bands[raster.data_bands[0] - 1]
    return "float32" if first.is_scaled else first.dtype
