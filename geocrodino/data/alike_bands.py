"""Whether the bands of several scenes are known to be alike."""

from __future__ import annotations

from geocrodino.errors import ConfigError
from geocrodino.geo.rasters.bands import common_names
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.recipe import Recipe


def require_known_bands(
    recipe: Recipe, raster: RasterSource, scene: str, first: RasterSource, first_scene: str
) -> None:
    """Refuse images of which one has more bands than the other, and no names that tell which of them are alike.

    Args:
        recipe: The recipe, made from the first image.
        raster: The image of another scene, for which no numbers of bands are given.
        scene: Name of its scene.
        first: The image that the recipe is made from.
        first_scene: Name of its scene.

    Raises:
        ConfigError: If bands would be taken by number.
    """
    here, there = len(raster.data_bands), len(first.data_bands)
    names = common_names([band.name for band in raster.bands])
    if here == there or (None not in common_names(recipe.band_names) and any(names)):
        return
    numbers = list(range(1, min(here, there) + 1))
    way = (
        f"Give the numbers of the same bands, under data or for each scene: bands: {numbers}"
        if recipe.modality == "optical"
        else "Bring the images of all scenes to the same bands."
    )
    raise ConfigError(
        f"Scene {scene} is unlike scene {first_scene}. {raster.path}: expected {there} {recipe.modality} bands "
        f"({', '.join(first.data_names)}) as in {first.path}, found {here} ({', '.join(raster.data_names)}), and no "
        f"names tell which of them are alike.\n{way}"
    )
