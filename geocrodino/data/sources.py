"""The rasters of a scene: opened, and as the recipes of a training read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from geocrodino.errors import HeightError, OverlapError
from geocrodino.geo.labels.opening import open_labels
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.alike import require_one_size
from geocrodino.geo.rasters.heights import ground_like, set_heights
from geocrodino.geo.rasters.place import Place, stated_place
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.surface_ground import check_surface_above
from geocrodino.modalities.recipe import Recipe
from geocrodino.modalities.registry import definition_of
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.scenes import RasterName, SceneConfig


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

    @property
    def ground_given(self) -> bool:
        """Whether the ground is known: from a raster, or because heights count from it."""
        return ground_is_given(self.roles)


def ground_is_given(roles: Mapping[str, RasterSource]) -> bool:
    """Find out whether the ground under heights is known.

    Args:
        roles: Rasters by role: the name of a modality, ``ground`` or another one.

    Returns:
        Whether there is a ground raster, or heights count from the ground.
    """
    heights = [raster for m, raster in roles.items() if m in MODALITIES and definition_of(m).holds_heights]
    return "ground" in roles or (bool(heights) and all(raster.zero == "ground" for raster in heights))


def open_sources(scene: SceneConfig, *, one_of_several: bool = False) -> Sources:
    """Open the rasters of a scene.

    Args:
        scene: Names of the files, and how they are read. Rasters and ground may be mosaics of several files.
        one_of_several: Whether shapes that do not meet this scene may label others.

    Returns:
        The rasters as stored in their files; heights as their coding says. Without labels where shapes do not meet one
        scene of several.

    Raises:
        RasterError: If a raster is missing or cannot be read, see `open_scene` and `open_labels`; or files without a
            place differ in size.
        HeightError: If the coding does not fit the heights, or there is a ground that they cannot have.
        MissingCRSError: If a raster has no coordinate reference system.
        LabelError: If the rules for label values contradict each other.
        OverlapError: If shapes do not meet a single scene.
        AccessError: If the operating system does not let a file be looked up or read.
    """
    place = stated_place(scene.crs, scene.pixel_m)
    rasters = open_rasters(scene.raster_paths, place, scene.rescale)
    labels = None
    if scene.labels is not None:
        try:
            labels = open_labels(
                scene.labels,
                next(iter(rasters.values())),
                rules=scene.label_rules,
                ignore_values=scene.ignore_values,
                label_values=scene.label_values,
                place=place,
            )
        except OverlapError:
            if not one_of_several:
                raise
    has_heights = any(definition_of(m).holds_heights for m in rasters)
    # The ground beside `scenes` is that of all scenes, also of those without heights, which need none.
    ground = None if scene.ground is None or not has_heights else open_scene(scene.ground, place=place)
    opened = with_heights(Sources(rasters, labels, ground, scene.height_unit), scene.height)
    require_one_size(opened.roles)
    return opened


def open_rasters(
    names: Mapping[Modality, RasterName], place: Place | None = None, rescale: float | None = None
) -> dict[Modality, RasterSource]:
    """Open the rasters of the modalities of a scene.

    Args:
        names: The raster of each modality; each may be a mosaic of several files.
        place: Place of files that state none.
        rescale: What the values of the image are multiplied by; None: they stay as they are.

    Returns:
        The rasters, in the order of ``names``.

    Raises:
        RasterError: If a raster is missing or cannot be read, see `open_scene`.
        MissingCRSError: If a raster has no coordinate reference system.
        AccessError: If the operating system does not let a file be looked up or read.
    """
    rasters = {m: open_scene(path, place=place) for m, path in names.items()}
    if rescale is not None and "optical" in rasters:
        rasters["optical"] = rasters["optical"].rescaled(rescale)
    return rasters


def with_heights(sources: Sources, height: HeightSettings | None) -> Sources:
    """Read heights, and the ground under them, as their coding says.

    Args:
        sources: The rasters as stored in their files.
        height: The coding; None: the files decide.

    Returns:
        The rasters, with the ground where a band of the heights holds it.

    Raises:
        HeightError: If the coding does not fit the heights, or there is a ground that they cannot have.
    """
    if height is None:
        return sources
    rasters, ground, unit = dict(sources.rasters), sources.ground, sources.height_unit
    for m, raster in sources.rasters.items():
        if not definition_of(m).holds_heights:
            continue
        read = set_heights(raster, height, unit)
        rasters[m] = read.surface
        if sources.ground is not None and read.ground is not None:
            raise HeightError(
                f"{sources.ground.name}: expected one ground, found this file and band {height.ground_band} of "
                f"{raster.name}.\nLeave `data.ground` or height.ground_band out."
            )
        ground = read.ground if sources.ground is None else ground_like(sources.ground, height, raster.dtype, unit)
    return replace(sources, rasters=rasters, ground=ground)


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
        HeightError: If heights are too coarse, in a unit that is not known, or mostly below their ground.

    Warns:
        HeightRangeWarning: If many heights lie below their ground, see `check_surface_above`.
    """
    ground, unit = sources.ground, sources.height_unit
    fitted: dict[Modality, RasterSource] = {}
    for m, raster in sources.rasters.items():
        recipe = recipes[m]
        if definition_of(m).holds_heights:
            recipe.check(raster, ground_given=sources.ground_given)
            if sources.ground is not None:
                recipe.check_ground(sources.ground)
                ground = recipe.fitted_ground(sources.ground, unit=unit)
        fitted[m] = recipe.fitted(raster, unit=unit, bands=bands.get(m))
        if definition_of(m).holds_heights and ground is not None:
            check_surface_above(fitted[m], ground, unit, names=(f"data.{m}", "data.ground"))
    return replace(sources, rasters=fitted, ground=ground)
