"""The modality ``optical``: any bands of an image."""

from __future__ import annotations

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.image import ImageModality
from geocrodino.modalities.options import RecipeOptions
from geocrodino.modalities.registry import Recipe, register

OPTICAL = register(ImageModality("optical", code=1, colour="#4c9ed9", raster="an image"))


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
    return OPTICAL.recipe(raster, RecipeOptions(bands={"optical": bands}))
