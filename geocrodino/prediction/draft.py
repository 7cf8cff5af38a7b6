"""Check all that a user gives, and lay out a prediction; no network is opened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from odc.geo.geobox import GeoBox
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geocrodino.bundle.io import Bundle
from geocrodino.errors import OverlapError
from geocrodino.files.access import exists
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import MapFiles, check_map_name, class_map, companion_path, layer_file
from geocrodino.maps.inputs import require_distinct_output
from geocrodino.maps.writer import check_output
from geocrodino.modalities.registry import definition_of
from geocrodino.prediction.checks import unusual_pixels, unusual_values
from geocrodino.prediction.choose import ChosenModalities, choose_modalities
from geocrodino.prediction.combine import decisions, layer_bands
from geocrodino.prediction.given import batch_of, check_options, default_workers
from geocrodino.prediction.given_heights import heights_given
from geocrodino.prediction.job import BlockLayout, Job, classes_suffice, window_box
from geocrodino.prediction.scene import Paths, SceneRasters, network_inputs, networks_grid, open_rasters, with_ground
from geocrodino.prediction.tiles.choose import choose_lattice
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import COMPANIONS, Execution, Inputs, Layer, ModalityChoice, Outputs, Tiling

if TYPE_CHECKING:
    from geocrodino.geo.areas.aoi import AOI


@dataclass(frozen=True)
class Draft:
    """A prediction that is checked, but whose networks are not open yet.

    Attributes:
        rasters: The opened rasters.
        grid: Working grid of the networks.
        job: Everything that determines the pixels, except the backend where it is still ``auto``.
        blocks: Blocks to predict, in order.
        chosen: Modalities of the map, and the reason.
        stitch: How tiles are joined.
        notes: Warnings for the user.
    """

    rasters: SceneRasters
    grid: GeoBox
    job: Job
    blocks: list[Window]
    chosen: ChosenModalities
    stitch: Literal["exact", "blend"]
    notes: tuple[str, ...]


def draft_prediction(
    scene: Paths,
    out: Path,
    bundle: Bundle,
    modality: ModalityChoice,
    *,
    elevation: Paths | None,
    aoi: str | Path | AOI | None,
    inputs: Inputs,
    tiling: Tiling,
    execution: Execution,
    outputs: Outputs,
    height: HeightSettings | None = None,
) -> Draft:
    """Check a prediction, and lay out its tiles and blocks; no network is opened.

    Args:
        scene: Image or surface model, see `geocrodino.predict`.
        out: The map to write.
        bundle: The trained networks.
        modality: Which modalities to use.
        elevation: Surface model beside an image.
        aoi: Polygons to predict.
        inputs: How the rasters are read.
        tiling: Tiles and blocks.
        execution: What computes.
        outputs: What is written.
        height: The whole coding of the heights, which decides alone.

    Returns:
        The draft.

    Raises:
        GeocrodinoError: One of its kinds, as for `geocrodino.predict`.
        ValueError: If a word is unknown.
    """
    check_map_name(out)
    rasters = open_rasters(scene, elevation, inputs)
    raster, layers, heights = rasters.raster, tuple(outputs.layers), heights_given(inputs, height)
    if inputs.bands is not None and modality == "auto":  # only an image has bands to choose from
        modality = _image_of(bundle) if rasters.elevation is None else "both"
    chosen = choose_modalities(modality, raster, rasters.elevation, bundle, heights)
    check_options(chosen.modalities, layers, inputs, height)
    rasters = with_ground(rasters, inputs)
    _require_distinct_outputs(out, rasters, bundle, aoi)
    notes = unusual_pixels(raster, bundle.manifest.resolution_m)
    grid = networks_grid(rasters, bundle)
    sources = network_inputs(rasters, grid, bundle, chosen.modalities, inputs, heights)
    for source in sources.values():
        notes += unusual_values(source, bundle.manifest.rescale if inputs.rescale is None else None)
    keeps = not classes_suffice(raster.geobox, grid, chosen.modalities, layers)
    lattice, stitch = choose_lattice(grid, bundle, tiling, keeps_probabilities=keeps)
    batch = batch_of(execution, math.prod(lattice.count))
    workers = execution.workers or default_workers()
    if batch > 1:
        workers = max(workers, 2 * batch)  # one batch is computed while as many tiles are read and written
    classes = bundle.manifest.classes
    layout = BlockLayout.make(raster.geobox, grid, lattice, len(classes), tiling.block_px, workers)
    job = Job(
        own=raster.geobox,
        inputs=sources,
        lattice=lattice,
        part_px=layout.part_px,
        keep_tiles=layout.keep_tiles,
        classes=classes,
        weight={m: bundle.manifest.weight(m) for m in chosen.modalities},
        temperature={m: bundle.manifest.temperature(m) for m in chosen.modalities},
        layers=layers,
        files=map_files(out, classes, chosen.modalities, layers, {}),
        area=None if aoi is None else _area_px(aoi, raster),
        bundle=(bundle.path.resolve(), bundle.sha256),
        backend=execution.backend,
        precision=execution.precision,
        device=execution.device,
        workers=workers,
        batch=batch,
    )
    blocks = [block for block in layout.blocks if job.meets(block)]
    return Draft(rasters, grid, job, blocks, chosen, stitch, notes)


def _image_of(bundle: Bundle) -> ModalityChoice:
    """The only image that a bundle reads; ``auto`` if it reads several."""
    images = [m for m in bundle.manifest.modalities if not definition_of(m).holds_heights]
    return images[0] if len(images) == 1 else "auto" if images else "optical"


def _require_distinct_outputs(out: Path, scene: SceneRasters, bundle: Bundle, aoi: str | Path | AOI | None) -> None:
    area = None if aoi is None else _area_file(aoi)
    for written in (out, *(companion_path(out, kind) for kind in COMPANIONS)):
        require_distinct_output(
            written,
            scene=scene.raster,
            surface_model=scene.elevation,
            bundle=bundle.path,
            ground=scene.ground,
            area=area,
        )


def check_files(job: Job, outputs: Outputs, *, creates_folder: bool = False) -> None:
    """Check that the files of a map can be written.

    Args:
        job: The job of the map.
        outputs: What is written. To resume, companion files may exist: a stopped run may have left them before the map.
        creates_folder: Whether a missing folder will be created.

    Raises:
        OutputError: If one cannot be written.
    """
    for number, file in enumerate(job.files.present):
        if exists(file.path.parent) or not creates_folder:
            check_output(file.path, overwrite=outputs.overwrite or (outputs.resume and number > 0))


def map_files(
    out: Path,
    classes: ClassScheme,
    modalities: tuple[Modality, ...],
    layers: tuple[Layer, ...],
    tags: Mapping[str, str],
) -> MapFiles:
    """Name the files of a map.

    Args:
        out: The map.
        classes: Its classes.
        modalities: Its modalities.
        layers: Layers that are written beside it.
        tags: Tags of all files.

    Returns:
        The files.
    """
    decided, layered = None, None
    if len(modalities) > 1:
        decided = class_map(companion_path(out, "decided"), decisions(modalities), tags=tags, band="decided by")
    if layers:
        layered = layer_file(companion_path(out, "layers"), layer_bands(layers, classes), tags=tags)
    return MapFiles(class_map(out, classes, tags=tags), decided, layered)


def _area_file(aoi: str | Path | AOI) -> Path | None:
    from geocrodino.geo.areas.aoi import area_file  # only areas need geopandas

    return area_file(aoi)


def _area_px(source: str | Path | AOI, raster: RasterSource) -> BaseGeometry:
    """Polygons in pixels of the scene.

    Raises:
        OverlapError: If they do not meet it.
    """
    from geocrodino.geo.areas.aoi import read_aoi  # only areas need geopandas
    from geocrodino.geo.areas.place import on_grid, placement_advice

    aoi = read_aoi(source, splits="none") if isinstance(source, str | Path) else source
    t = ~raster.geobox.affine
    moved = on_grid(aoi, raster.geobox).polygons()
    area: BaseGeometry = affine_transform(moved, (t.a, t.b, t.d, t.e, t.c, t.f))
    if area.intersects(window_box(Window.of(raster.geobox.shape))):
        return area
    raise OverlapError(
        f"{aoi.source}: the area does not meet {raster.path} ({raster.describe()}).\n"
        f"{placement_advice(aoi, raster.geobox)}"
    )
