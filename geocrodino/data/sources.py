"""The rasters of a scene: opened, and as the recipes of a training read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from geocrodino.geo.labels.opening import open_labels
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.place import Place
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.modalities.registry import Recipe, definition_of
from geocrodino.settings.modality import Modality
from geocrodino.settings.scenes import SceneConfig


@dataclass(frozen=True)
class Sources:
    """The rasters of one place.

    Attributes:
        rasters: The raster of each modality, in the order of the modalities.
        labels: Raster of class values or shapes with a class; None: the scene has no labels.
        ground: Terrain model (heights of the bare ground); None: the ground is estimated if a channel needs it.
        height_unit: Unit of heights such as ``m`` or ``ft``, for files that name none; None: not given.
    """

    rasters: Mapping[Modality, RasterSource]
    labels: LabelSource | None
    ground: RasterSource | None = None
    height_unit: str | None = None

    @property
    def reference(self) -> RasterSource:
        """The raster in whose CRS and extent all layers are written: that of the first modality."""
        return next(iter(self.rasters.values()))

    @property
    def roles(self) -> dict[str, RasterSource]:
        """All rasters that are there, by role, for messages: the name of a modality, ``label`` or ``ground``."""
        others = {"label": self.labels, "ground": self.ground}
        return {**self.rasters, **{role: raster for role, raster in others.items() if raster is not None}}

    @property
    def heights(self) -> dict[str, RasterSource]:
        """Rasters of heights by role: the name of their modality, or ``ground``."""
        found = {m: raster for m, raster in self.rasters.items() if definition_of(m).holds_heights}
        return found if self.ground is None else {**found, "ground": self.ground}


def open_sources(scene: SceneConfig) -> Sources:
    """Open the rasters of a scene.

    Args:
        scene: Names of the files, and how they are read. Rasters and ground may be mosaics of several files.

    Returns:
        The rasters as stored in their files.

    Raises:
        RasterError: If a raster is missing or cannot be read; see `open_scene` and `open_labels`.
        MissingCRSError: If a raster has no coordinate reference system.
        LabelError: If the rules for label values contradict each other.
        AccessError: If the operating system does not let a file be looked up or read.
    """
    rasters = {m: open_scene(path) for m, path in scene.raster_paths.items()}
    labels = None
    if scene.labels is not None:
        labels = open_labels(
            scene.labels,
            next(iter(rasters.values())),
            rules=scene.label_rules,
            ignore_values=scene.ignore_values,
            label_values=scene.label_values,
            place=Place(scene.crs, scene.pixel_m),
        )
    ground = None if scene.ground is None else open_scene(scene.ground)
    return Sources(rasters, labels, ground, scene.height_unit)


def fitted_sources(
    sources: Sources, recipes: dict[Modality, Recipe], bands: Mapping[Modality, tuple[int, ...] | None]
) -> Sources:
    """Prepare the rasters for their recipes.

    Args:
        sources: The rasters as opened.
        recipes: Recipe of each modality.
        bands: Numbers of the bands of images, by modality; bands without numbers are matched by name.

    Returns:
        The rasters with the bands that the recipes read; impossible heights are missing.

    Raises:
        BundleError: If a raster of heights holds an image, classes or several bands.
        HeightError: If heights are too coarse, or in a unit that is not known.
    """
    ground, unit = sources.ground, sources.height_unit
    fitted: dict[Modality, RasterSource] = {}
    for m, raster in sources.rasters.items():
        recipe = recipes[m]
        if definition_of(m).holds_heights:
            recipe.check(raster, ground_given=ground is not None)
            if sources.ground is not None:
                recipe.check_ground(sources.ground)
                ground = recipe.fitted_ground(sources.ground, unit=unit)
        fitted[m] = recipe.fitted(raster, unit=unit, bands=bands.get(m))
    return replace(sources, rasters=fitted, ground=ground)
