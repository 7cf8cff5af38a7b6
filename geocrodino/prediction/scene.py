"""The rasters of a prediction, and what the networks read of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odc.geo.geobox import GeoBox

from geocrodino.bundle.io import Bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.errors import BundleError
from geocrodino.geo.rasters.alike import require_one_size
from geocrodino.geo.rasters.grid import on_lattice, working_grid
from geocrodino.geo.rasters.reader import RasterSource, require_overlap
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.surface_ground import check_surface_above
from geocrodino.geo.rasters.units import unit_as_trained
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.modalities.registry import definition_of
from geocrodino.prediction.given import place_given
from geocrodino.prediction.given_heights import GivenHeights
from geocrodino.prediction.tiles.predictor import SceneInput
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import Inputs

Paths = str | Path | Sequence[str | Path]
"""A raster: a file, or several as `geocrodino.predict` accepts them."""


@dataclass(frozen=True)
class SceneRasters:
    """The rasters of a prediction, opened.

    Attributes:
        raster: Raster whose grid is the grid of the map.
        elevation: Surface model beside an image, None if there is only one raster.
        ground: Terrain model, None if there is none.
    """

    raster: RasterSource
    elevation: RasterSource | None
    ground: RasterSource | None


def open_rasters(scene: Paths, elevation: Paths | None, inputs: Inputs) -> SceneRasters:
    """Open the rasters that a map is made from.

    Args:
        scene: Image or surface model.
        elevation: Surface model beside an image.
        inputs: How the rasters are read.

    Returns:
        The rasters, still without a terrain model.

    Raises:
        GeocrodinoError: One of its kinds, if a raster cannot be read.
    """
    place = place_given(inputs)
    raster = open_scene(scene, asset=inputs.asset, place=place)
    return SceneRasters(raster, None if elevation is None else open_scene(elevation, place=place), None)


def with_ground(rasters: SceneRasters, inputs: Inputs) -> SceneRasters:
    """Open the terrain model, which only some modalities have, and compare sizes.

    Args:
        rasters: The rasters that the map is made from.
        inputs: How the rasters are read; names the terrain model.

    Returns:
        All rasters.

    Raises:
        GeocrodinoError: One of its kinds, if it cannot be read, or rasters without a place differ in size.
    """
    ground = None if inputs.ground is None else open_scene(inputs.ground, place=place_given(inputs))
    named = {"scene": rasters.raster, "elevation": rasters.elevation, "ground": ground}
    require_one_size({role: each for role, each in named.items() if each is not None})
    return replace(rasters, ground=ground)


def networks_grid(rasters: SceneRasters, bundle: Bundle) -> GeoBox:
    """Lay the grid of the networks over the scene.

    Where the image must be resampled, and the heights are north up, in the CRS of the grid and with the pixel size of
    the training, it has their pixels: heights between pixels are interpolated, which smooths the edges of what stands
    on the ground. It begins a multiple of the network's stride from their first pixel, so that their branch decides as
    it does for the heights alone.

    Args:
        rasters: The opened rasters.
        bundle: The trained networks.

    Returns:
        The grid; it covers the scene.
    """
    resolution_m = bundle.manifest.resolution_m
    grid = working_grid(rasters.raster.geobox, resolution_m)
    if rasters.elevation is None or grid == rasters.raster.geobox:
        return grid
    lattice = working_grid(rasters.elevation.geobox, resolution_m)
    kept = lattice == rasters.elevation.geobox and lattice.crs == grid.crs
    return on_lattice(grid, lattice, bundle.manifest.network.stride_px) if kept else grid


def network_inputs(
    rasters: SceneRasters,
    grid: GeoBox,
    bundle: Bundle,
    modalities: Sequence[Modality],
    inputs: Inputs,
    heights: GivenHeights,
) -> dict[Modality, SceneInput]:
    """Check that the rasters suit the bundle, and describe the input of each network.

    Args:
        rasters: The opened rasters.
        grid: Grid of the networks.
        bundle: The trained networks.
        modalities: Modalities of the map.
        inputs: How the rasters are read.
        heights: What the user says of the heights.

    Returns:
        The input of each network.

    Raises:
        GeocrodinoError: One of its kinds, if a raster does not suit its network.
    """
    if rasters.ground is not None:
        require_overlap({"ground": rasters.ground}, grid)
    bands = None if inputs.bands is None else tuple(inputs.bands)
    trained = bundle.manifest
    return {
        m: _heights_input(trained, m, rasters, grid, inputs.height_unit, heights)
        if definition_of(m).holds_heights
        else _image_input(trained.modalities[m], rasters.raster, grid, bands, inputs.rescale)
        for m in modalities
    }


def _image_input(
    spec: ModalitySpec, raster: RasterSource, grid: GeoBox, bands: tuple[int, ...] | None, rescale: float | None
) -> SceneInput:
    known_by = spec.recipe.check(raster, bands=bands)
    require_overlap({spec.modality: raster}, grid)
    fitted = spec.recipe.fitted(raster, bands=bands)
    fitted = fitted if rescale is None else fitted.rescaled(rescale)
    return SceneInput(fitted, spec, grid, None, None, known_by)


def _heights_input(
    trained: Manifest,
    modality: Modality,
    scene: SceneRasters,
    grid: GeoBox,
    height_unit: str | None,
    given: GivenHeights,
) -> SceneInput:
    spec, stored = trained.modalities[modality], scene.elevation or scene.raster
    settings, alone = given.settings, given.alone
    height_unit = height_unit or unit_as_trained(stored, spec.recipe.height_unit, trained.crs)
    coded = spec.recipe.coded(stored, given=settings, unit=height_unit, alone=alone)
    raster, ground = coded.surface, coded.ground
    if scene.ground is not None:
        ground = spec.recipe.coded_ground(scene.ground, raster, given=settings, unit=height_unit, alone=alone)
    try:
        spec.recipe.check(raster, ground_given=ground is not None)
    except BundleError as error:
        if scene.elevation is None and len(raster.data_bands) >= 3:
            raise BundleError(f"{error} That is `modality='optical'`.") from error
        raise
    require_overlap({spec.modality: raster}, grid)
    lower = ground
    if ground is not None:
        spec.recipe.check_ground(ground)
        lower = spec.recipe.fitted_ground(ground, unit=height_unit)
    fitted = spec.recipe.fitted(raster, unit=height_unit)
    if lower is not None:  # a warning: what an existing bundle predicts stays
        check_surface_above(fitted, lower, height_unit, names=("`elevation`", "`ground`"), refuse=False)
    return SceneInput(fitted, spec, grid, lower, height_unit)
