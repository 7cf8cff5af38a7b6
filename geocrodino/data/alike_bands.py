"""Whether the images of a training have the bands that are asked for, and are known to be alike in them."""

from __future__ import annotations

from geocrodino.errors import ConfigError
from geocrodino.geo.rasters.bands import common_names
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.band_matching import require_bands
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


def require_numbers(
    raster: RasterSource, numbers: tuple[int, ...], scene: str, first: tuple[int, ...], first_scene: str
) -> None:
    """Refuse numbers of bands that do not fit an image, or those of the scene that the recipe is made from.

    Args:
        raster: The image of another scene.
        numbers: Numbers of its bands that the configuration names, counted from 1.
        scene: Name of its scene.
        first: Numbers of the bands of the scene that the recipe is made from.
        first_scene: Name of that scene.

    Raises:
        BundleError: If a number names no band of data.
        ConfigError: If there are more or fewer numbers than in the other scene.
    """
    require_bands(raster, numbers)
    if len(numbers) != len(first):
        raise ConfigError(
            f"{raster.path}: data.scenes: scene {scene}: bands: expected {len(first)} numbers as for scene "
            f"{first_scene} ({', '.join(map(str, first))}), found {len(numbers)} ({', '.join(map(str, numbers))}).\n"
            "Name the same bands, in the same order, for both scenes."
        )
