"""Check all that a user gives and plan the prediction, before anything is computed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from odc.geo.geobox import GeoBox
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geocrodino import __version__
from geocrodino.bundle.io import Bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.errors import BundleError, OverlapError
from geocrodino.geo.rasters.alike import require_one_size
from geocrodino.geo.rasters.grid import on_lattice, round_up, working_grid
from geocrodino.geo.rasters.identity import fingerprint
from geocrodino.geo.rasters.place import PIXEL_TAG, is_placeless
from geocrodino.geo.rasters.reader import RasterSource, require_overlap
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.surface_ground import check_surface_above
from geocrodino.geo.rasters.units import unit_as_trained
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import MapFiles, check_map_name, class_map, companion_path, layer_file
from geocrodino.maps.inputs import require_distinct_output
from geocrodino.maps.writer import check_output
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.modalities.registry import definition_of
from geocrodino.prediction.backends.protocol import Backend
from geocrodino.prediction.checks import coarse_pixels, unusual_values
from geocrodino.prediction.choose import ChosenModalities, choose_modalities
from geocrodino.prediction.combine import decisions, layer_bands
from geocrodino.prediction.given import batch_of, check_options, default_workers, place_given
from geocrodino.prediction.given_heights import GivenHeights, heights_given
from geocrodino.prediction.job import BlockLayout, Job, classes_suffice, window_box
from geocrodino.prediction.tiles.lattice import TileLattice
from geocrodino.prediction.tiles.predictor import SceneInput
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import (
    COMPANIONS,
    Execution,
    Inputs,
    Layer,
    ModalityChoice,
    Outputs,
    Precision,
    Tiling,
)

if TYPE_CHECKING:
    from geocrodino.geo.areas.aoi import AOI

EXACT_CORE_PX = 1024
"""With a ResNet-18, whose margin is 160 px, a tile needs some 0.3 GB; tiles of twice this side need twice as much, and
save little time."""
KEPT_CORE_PX = 832
"""Where a tile keeps the probabilities of all classes. It then needs about as much memory as one of 1024 px that keeps
only the most likely classes."""
BLEND_CORE_PX = 512
BLEND_MARGIN_PX = 64
WIDEST_EXACT_FIELD_PX = 256
"""With wider receptive fields, exact tiles cost more than they are worth, and ``auto`` blends."""


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


@dataclass(frozen=True)
class PredictionPlan:
    """A prediction that can start.

    Attributes:
        scene: Raster whose grid is the grid of the map.
        grid: Working grid of the networks.
        job: Everything that determines the pixels.
        backends: The backend of each modality, ready to compute.
        blocks: Blocks to predict, in order.
        key: Everything that the map depends on, by name.
        chosen: Modalities of the map, and the reason.
        stitch: How tiles are joined.
        notes: Warnings for the user.
    """

    scene: RasterSource
    grid: GeoBox
    job: Job
    backends: dict[Modality, Backend]
    blocks: list[Window]
    key: dict[str, str]
    chosen: ChosenModalities
    stitch: Literal["exact", "blend"]
    notes: tuple[str, ...]


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


def plan_prediction(
    draft: Draft, bundle: Bundle, out: Path, *, block_px: int | None, outputs: Outputs
) -> PredictionPlan:
    """Open the networks of a checked prediction.

    Args:
        draft: The prediction, see `draft_prediction`.
        bundle: The trained networks.
        out: The map to write.
        block_px: Side of the blocks, as in `Tiling`.
        outputs: What is written.

    Returns:
        A plan; its backends are open.

    Raises:
        GeocrodinoError: One of its kinds, if the map cannot be written, or no backend can compute the networks.
    """
    job, raster, chosen = draft.job, draft.rasters.raster, draft.chosen
    for number, file in enumerate(job.files.present):  # before networks are converted, which may take minutes
        check_output(file.path, overwrite=outputs.overwrite or (outputs.resume and number > 0))
    backends = job.backends(bundle)
    if len({b.name for b in backends.values()}) > 1:  # only one of the two branches can be converted
        backends = replace(job, backend="torch").backends(bundle)
    name = next(iter(backends.values())).name
    numbers = _unique(backend.number for backend in backends.values())
    tags = {
        **_tags(bundle, chosen.modalities, raster),
        "STITCH": draft.stitch,
        "BACKEND": name,
        "PRECISION": ", ".join(numbers),
    }
    # Other processes and a resumed run then use the same backend and precision, even if `auto` chose them.
    job = replace(
        job,
        backend=name,
        precision=_settled(job.precision, numbers),
        files=_files(out, job.classes, chosen.modalities, job.layers, tags),
    )
    key = _key(job, backends, block_px, draft.rasters.ground)
    return PredictionPlan(raster, draft.grid, job, backends, draft.blocks, key, chosen, draft.stitch, draft.notes)


def draft_prediction(
    scene: str | Path | Sequence[str | Path],
    out: Path,
    bundle: Bundle,
    modality: ModalityChoice,
    *,
    elevation: str | Path | Sequence[str | Path] | None,
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
    place = place_given(inputs)
    raster = open_scene(scene, asset=inputs.asset, place=place)
    second = None if elevation is None else open_scene(elevation, place=place)
    bands = None if inputs.bands is None else tuple(inputs.bands)
    if bands is not None and modality == "auto":
        modality = _image_of(bundle) if second is None else "both"  # only an image has bands to choose from
    heights = heights_given(inputs, height)
    chosen = choose_modalities(modality, raster, second, bundle, heights)
    layers = tuple(outputs.layers)
    check_options(chosen.modalities, layers, inputs, height)
    rasters = SceneRasters(raster, second, None if inputs.ground is None else open_scene(inputs.ground, place=place))
    named = {"scene": raster, "elevation": second, "ground": rasters.ground}
    require_one_size({role: each for role, each in named.items() if each is not None})
    _require_distinct_outputs(out, rasters, bundle, aoi)
    notes = coarse_pixels(raster, bundle.manifest.resolution_m)
    grid = _grid_of(rasters, bundle)
    if rasters.ground is not None:
        require_overlap({"ground": rasters.ground}, grid)
    sources = {
        m: _heights_input(bundle.manifest, m, rasters, grid, inputs.height_unit, heights)
        if definition_of(m).holds_heights
        else _image_input(bundle.manifest.modalities[m], raster, grid, bands, inputs.rescale)
        for m in chosen.modalities
    }
    for source in sources.values():
        notes += unusual_values(source, bundle.manifest.rescale if inputs.rescale is None else None)
    alone = classes_suffice(raster.geobox, grid, chosen.modalities, layers)
    one_tile = max(grid.shape) <= EXACT_CORE_PX  # takes less memory than two smaller ones at the same time
    lattice, stitch = _lattice(grid, bundle, tiling, EXACT_CORE_PX if alone or one_tile else KEPT_CORE_PX)
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
        files=_files(out, classes, chosen.modalities, layers, {}),
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


def _grid_of(rasters: SceneRasters, bundle: Bundle) -> GeoBox:
    """The grid of the networks, which covers the scene.

    Where the image must be resampled, and the heights are north up, in the CRS of the grid and with the pixel size of
    the training, it has their pixels: heights between pixels are interpolated, which smooths the edges of what stands
    on the ground. It begins a multiple of the network's stride from their first pixel, so that their branch decides as
    it does for the heights alone.
    """
    resolution_m = bundle.manifest.resolution_m
    grid = working_grid(rasters.raster.geobox, resolution_m)
    if rasters.elevation is None or grid == rasters.raster.geobox:
        return grid
    lattice = working_grid(rasters.elevation.geobox, resolution_m)
    kept = lattice == rasters.elevation.geobox and lattice.crs == grid.crs
    return on_lattice(grid, lattice, bundle.manifest.network.stride_px) if kept else grid


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


def _settled(precision: Precision, numbers: tuple[str, ...]) -> Precision:
    """The precision that the open backends compute in; as it was given if they differ."""
    if len(numbers) > 1:
        return precision
    if numbers == ("int8",):
        return "int8"
    return "full" if numbers == ("float32",) else "half"


def even_tiles(largest: TileLattice) -> TileLattice:
    """Make tiles smaller if less of them, margins included, then lies outside the scene.

    The sides tried cut one side of the scene evenly into as few tiles as the largest side does.

    Args:
        largest: Tiles of the largest side.

    Returns:
        The lattice that reads the fewest pixels; the given one if none reads fewer.
    """
    stride = largest.stride_px
    least = max(2 * largest.ramp_px, stride)

    def even(side: int) -> int:
        return max(least, round_up(-(-side // -(-side // largest.core_px)), stride))

    def work(lattice: TileLattice) -> int:
        return math.prod(lattice.count) * math.prod(lattice.tile_shape)

    return min(largest, *(replace(largest, core_px=even(side)) for side in largest.shape), key=work)


def _image_of(bundle: Bundle) -> ModalityChoice:
    """The only image that a bundle reads; ``auto`` if it reads several."""
    images = [m for m in bundle.manifest.modalities if not definition_of(m).holds_heights]
    return images[0] if len(images) == 1 else "auto" if images else "optical"


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


def _lattice(
    grid: GeoBox, bundle: Bundle, tiling: Tiling, exact_core_px: int
) -> tuple[TileLattice, Literal["exact", "blend"]]:
    stitch, core_px = tiling.stitch, tiling.core_px
    shape = (int(grid.shape[0]), int(grid.shape[1]))
    field, stride = bundle.manifest.receptive_field_px, bundle.manifest.network.stride_px
    if stitch == "exact" and field is None:
        raise BundleError(
            f"{bundle.path}: tiles cannot be joined exactly. Expected a network with a bounded receptive field, found "
            "one whose every output depends on the whole tile.\nUse `stitch='blend'`."
        )
    if stitch == "blend" or field is None or (stitch == "auto" and field > WIDEST_EXACT_FIELD_PX):
        core = round_up(core_px or BLEND_CORE_PX, stride)
        margin = round_up(BLEND_MARGIN_PX, stride)
        largest = TileLattice.blended(shape, core_px=core, stride_px=stride, margin_px=margin)
        return largest if core_px else even_tiles(largest), "blend"
    core = round_up(core_px or exact_core_px, stride)
    largest = TileLattice.exact(shape, core_px=core, stride_px=stride, receptive_field_px=field)
    return largest if core_px else even_tiles(largest), "exact"


def default_lattice(grid: GeoBox, bundle: Bundle) -> TileLattice:
    """The tiles of a map of the classes alone, on the working grid and with the default options.

    Args:
        grid: Working grid of the networks.
        bundle: The trained networks.

    Returns:
        Tiles over the grid.
    """
    return _lattice(grid, bundle, Tiling(), EXACT_CORE_PX)[0]


def _tags(bundle: Bundle, modalities: tuple[Modality, ...], scene: RasterSource) -> dict[str, str]:
    return {
        "TIFFTAG_SOFTWARE": f"geocrodino {__version__}",
        "BUNDLE_NAME": bundle.manifest.name,
        "BUNDLE_SHA256": bundle.sha256,
        "MODALITY": "both" if len(modalities) > 1 else modalities[0],
        "SCENE": scene.path.name or scene.path.resolve().name,
        **({PIXEL_TAG: repr(scene.geobox.affine.a)} if is_placeless(scene.geobox) else {}),
    }


def _files(
    out: Path,
    classes: ClassScheme,
    modalities: tuple[Modality, ...],
    layers: tuple[Layer, ...],
    tags: Mapping[str, str],
) -> MapFiles:
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


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    """Each different word once, in order."""
    return tuple(dict.fromkeys(words))


def _computed_by(job: Job, numbers: Iterable[str]) -> str:
    """Everything about the computation that changes the last digits."""
    device = job.device
    if device.startswith("cuda"):
        import torch

        device = torch.cuda.get_device_name(device)
    together = f", {job.batch} tiles at once" if job.batch > 1 else ""
    return f"{job.backend} {version(job.backend)} on {device} in {', '.join(numbers)}{together}"


_SOFTWARE = ("geocrodino", "torch", "numpy", "scipy", "pyproj", "rasterio")
"""Libraries whose version affects the bytes of a map."""


def _key(
    job: Job, backends: Mapping[Modality, Backend], block_px: int | None, ground: RasterSource | None
) -> dict[str, str]:
    """Everything that the bytes of a map depend on, by name; workers and memory do not belong to it."""
    lattice = job.lattice
    rasters: dict[str, str] = {m: fingerprint(source.raster) for m, source in job.inputs.items()}
    units = {source.unit for source in job.inputs.values() if source.unit}
    # Of one raster the grid follows from the raster and the bundle; heights beside an image may change it.
    grid = {"grid": f"{tuple(job.grid.shape)} {tuple(job.grid.affine)[:6]}"} if len(job.inputs) > 1 else {}
    return {
        **rasters,
        **grid,
        "ground": fingerprint(ground) if ground else "none",
        "height unit": ", ".join(units) or "of the files",
        "bundle": job.bundle[1],
        "software": ", ".join(f"{name} {__version__ if name == 'geocrodino' else version(name)}" for name in _SOFTWARE),
        "backend": _computed_by(job, _unique(backend.number for backend in backends.values())),
        "tiles": f"{lattice.core_px} px, margin {lattice.margin_px} px, ramp {lattice.ramp_px} px",
        "margin that is not decoded": ", ".join(_unique(f"{backend.trim_px} px" for backend in backends.values())),
        "block": "about one tile" if block_px is None else f"{block_px} px",
        "layers": ", ".join(job.layers) or "none",
        "area": "all" if job.area is None else hashlib.sha256(job.area.wkb).hexdigest(),
    }
