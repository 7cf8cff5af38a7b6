"""From what a user gives to what is worked on: everything is checked here, before anything is computed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from odc.geo.geobox import GeoBox
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError, ConfigError, OverlapError
from geocrodino.geo.rasters.grid import round_up, working_grid
from geocrodino.geo.rasters.mosaic import fingerprint
from geocrodino.geo.rasters.reader import RasterSource, require_overlap
from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import Further, MapFile, beside, check_map_name, class_map, layer_file
from geocrodino.maps.inputs import keep_inputs
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.modalities.registry import definition_of
from geocrodino.prediction.backends.protocol import Backend
from geocrodino.prediction.checks import coarse_pixels, unusual_values
from geocrodino.prediction.choose import choose_modalities
from geocrodino.prediction.combine import decisions, layer_bands
from geocrodino.prediction.job import BlockLayout, Job, window_box
from geocrodino.prediction.layers import LAYERS, Layer
from geocrodino.prediction.tiles.lattice import TileLattice
from geocrodino.prediction.tiles.predictor import SceneInput
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import PROCESSES, BackendName, Precision, Stitch, Wanted
from geocrodino.spelling import did_you_mean

if TYPE_CHECKING:
    from geocrodino.geo.areas.aoi import AOI

EXACT_CORE_PX = 1024
"""With a margin of 160 px a tile costs some 0.3 GB; twice as large ones take twice that and save little time."""
BLEND_CORE_PX = 512
BLEND_MARGIN_PX = 64
GPU_BATCH = 4
"""Tiles at once on a graphics card: seven million pixels, which fill it, and some 2 GB."""
WIDEST_EXACT_FIELD_PX = 256
"""Receptive fields beyond this make exact tiles cost more than they are worth: ``auto`` blends."""


@dataclass(frozen=True)
class PredictionPlan:
    """A prediction that can start.

    Attributes:
        scene: The raster whose grid is the map's.
        grid: The grid that the networks work on.
        job: What decides the pixels.
        backends: The branches, ready to compute.
        blocks: The blocks to work on, in order.
        key: What the map depends on, by name.
        reason: Why these modalities.
        stitch: How tiles are joined.
        notes: What the user should know.
    """

    scene: RasterSource
    grid: GeoBox
    job: Job
    backends: dict[Modality, Backend]
    blocks: list[Window]
    key: dict[str, str]
    reason: str
    stitch: Literal["exact", "blend"]
    notes: tuple[str, ...]


def prepare(
    scene: str | Path | Sequence[str | Path],
    out: Path,
    bundle: Bundle,
    modality: Wanted,
    *,
    elevation: str | Path | Sequence[str | Path] | None,
    ground: str | Path | None,
    height_unit: str | None,
    bands: tuple[int, ...] | None,
    rescale: float | None,
    aoi: str | Path | AOI | None,
    asset: str | None,
    layers: tuple[Layer, ...],
    block_px: int | None,
    core_px: int | None,
    stitch: Stitch,
    backend: BackendName,
    precision: Precision,
    device: str,
    workers: int,
    batch: int | None,
    scheduler: str | None,
) -> PredictionPlan:
    """Check and plan; arguments and errors as for `geocrodino.prediction.engine.predict`."""
    check_map_name(out)
    raster = open_scene(scene, asset=asset)
    second = None if elevation is None else open_scene(elevation)
    if bands is not None and modality == "auto":
        modality = _with_bands(bundle) if second is None else "both"
    modalities, reason = choose_modalities(modality, raster, second, bundle)
    _check_options(modalities, layers, ground, height_unit, bands, rescale)
    area = None if aoi is None else _area_file(aoi)
    lower = None if ground is None else open_scene(ground)
    for written in (out, *(beside(out, what) for what in get_args(Further))):
        keep_inputs(written, scene=raster, surface_model=second, bundle=bundle.path, ground=lower, area=area)
    notes = coarse_pixels(raster, bundle.manifest.resolution_m)
    grid = working_grid(raster.geobox, bundle.manifest.resolution_m)
    if lower is not None:
        require_overlap({"ground": lower}, grid)
    inputs = {
        m: _scene_input(bundle.manifest.modalities[m], raster, second, grid, lower, (height_unit, bands, rescale))
        for m in modalities
    }
    for source in inputs.values():
        notes += unusual_values(source)
    lattice, how = _lattice(grid, bundle, stitch, core_px)
    batch = _batch(batch, device, scheduler, math.prod(lattice.count))
    if batch > 1:
        workers = max(workers, 2 * batch)  # as many as are computed read and write meanwhile
    plan = BlockLayout.make(raster.geobox, grid, lattice, len(bundle.manifest.classes), block_px, workers)
    job = Job(
        own=raster.geobox,
        inputs=inputs,
        lattice=lattice,
        part_px=plan.part_px,
        keep_tiles=plan.keep_tiles,
        classes=bundle.manifest.classes,
        weight={m: bundle.manifest.weight(m) for m in modalities},
        temperature={m: bundle.manifest.temperature(m) for m in modalities},
        layers=layers,
        files=(),
        area=None if aoi is None else _area_px(aoi, raster),
        bundle=(bundle.path.resolve(), bundle.sha256),
        backend=backend,
        precision=precision,
        device=device,
        workers=workers,
        batch=batch,
    )
    backends = job.backends(bundle)
    if len({b.name for b in backends.values()}) > 1:  # one branch alone cannot be converted
        backends = replace(job, backend="torch").backends(bundle)
    # Named, so that other processes and a resumed run take the same.
    name = next(iter(backends.values())).name
    numbers = _joined(backend.number for backend in backends.values())
    files = _files(out, bundle, modalities, raster, how, layers, (name, numbers))
    if ", " not in numbers:
        job = replace(job, precision="full" if numbers == "float32" else "half")
    job = replace(job, backend=name, files=files)
    blocks = [block for block in plan.blocks if job.meets(block)]
    return PredictionPlan(raster, grid, job, backends, blocks, _key(job, backends, block_px, lower), reason, how, notes)


def _check_options(
    modalities: tuple[Modality, ...],
    layers: tuple[Layer, ...],
    ground: str | Path | None,
    height_unit: str | None,
    bands: tuple[int, ...] | None,
    rescale: float | None,
) -> None:
    alone = f"found {' and '.join(modalities)} alone"
    of_heights = [definition_of(m).holds_heights for m in modalities]
    if all(of_heights) and (bands is not None or rescale is not None):
        option = "--bands" if bands is not None else "--rescale"
        raise ConfigError(f"{option} applies only to an image, {alone}.\nLeave it out.")
    if rescale is not None and not (math.isfinite(rescale) and rescale > 0):
        raise ConfigError(f"--rescale {rescale:g}: expected a number above 0, for instance 1/257.")
    if not any(of_heights) and ground is not None:
        raise ConfigError(f"{ground}: --ground applies only to elevation, {alone}.\nLeave it out.")
    if not any(of_heights) and height_unit is not None:
        raise ConfigError(f"--height-unit {height_unit} applies only to elevation, {alone}.\nLeave it out.")
    unknown = [layer for layer in layers if layer not in LAYERS]
    if unknown:
        hint = did_you_mean(unknown[0], list(LAYERS))
        raise ConfigError(f"layer {unknown[0]!r} is unknown. Expected some of {', '.join(LAYERS)}.{hint}")
    comparing = [layer for layer in layers if LAYERS[layer].compares]
    if comparing and len(modalities) == 1:
        raise ConfigError(
            f"the layer {comparing[0]} compares two modalities, {alone}.\n"
            "Give an image and a surface model, or leave the layer out."
        )


def _batch(asked: int | None, device: str, scheduler: str | None, tiles: int) -> int:
    """Tiles in one call of a network, of so many in all."""
    if asked is None:
        return min(GPU_BATCH, tiles) if device.startswith("cuda") and scheduler is None else 1
    if asked > 1 and device.partition(":")[0] == "cpu":
        raise ConfigError(f"--batch {asked}: batching needs a GPU, found cpu.\nLeave it out.")
    if asked > 1 and scheduler == PROCESSES:
        raise ConfigError(
            f"--batch {asked}: batches are gathered from threads. Expected threads of this process or of Dask workers, "
            "found processes with one each.\nLeave it or --scheduler out."
        )
    return asked


def even_tiles(largest: TileLattice) -> TileLattice:
    """Smaller tiles than those given where that leaves less of them, margins included, outside the scene.

    Sides are tried with which one side of the scene is cut evenly into as few tiles as with the largest.
    """
    stride = largest.stride_px
    least = max(2 * largest.ramp_px, stride)

    def even(side: int) -> int:
        return max(least, round_up(-(-side // -(-side // largest.core_px)), stride))

    def work(lattice: TileLattice) -> int:
        return math.prod(lattice.count) * math.prod(lattice.tile_shape)

    return min(largest, *(replace(largest, core_px=even(side)) for side in largest.shape), key=work)


def _with_bands(bundle: Bundle) -> Wanted:
    """The modality that bands are chosen of where nothing else says it: the only image that a bundle reads."""
    images = [m for m in bundle.manifest.modalities if not definition_of(m).holds_heights]
    return images[0] if len(images) == 1 else "auto" if images else "optical"


def _scene_input(
    spec: ModalitySpec,
    scene: RasterSource,
    surface_model: RasterSource | None,
    grid: GeoBox,
    ground: RasterSource | None,
    options: tuple[str | None, tuple[int, ...] | None, float | None],
) -> SceneInput:
    """What one branch reads, checked; ``options`` are the unit of height, and bands and factor of an image."""
    height_unit, bands, rescale = options
    recipe, heights = spec.recipe, spec.definition.holds_heights
    raster = surface_model if heights and surface_model is not None else scene
    known_by = recipe.check(raster, ground_given=ground is not None, bands=bands)
    require_overlap({spec.modality: raster}, grid)
    if not heights:
        fitted = recipe.fitted(raster, bands=bands)
        fitted = fitted if rescale is None else fitted.rescaled(rescale)
        return SceneInput(fitted, spec, grid, None, None, known_by)
    lower = ground
    if ground is not None:
        recipe.check_ground(ground)
        lower = recipe.fitted_ground(ground, unit=height_unit)
    return SceneInput(recipe.fitted(raster, unit=height_unit), spec, grid, lower, height_unit)


def _lattice(
    grid: GeoBox, bundle: Bundle, stitch: Stitch, core_px: int | None
) -> tuple[TileLattice, Literal["exact", "blend"]]:
    if stitch not in get_args(Stitch):
        hint = did_you_mean(stitch, get_args(Stitch))
        raise ValueError(f"stitch must be one of {', '.join(get_args(Stitch))}, found {stitch!r}.{hint}")
    shape = (int(grid.shape[0]), int(grid.shape[1]))
    field, stride = bundle.manifest.receptive_field_px, bundle.manifest.network.stride_px
    if stitch == "exact" and field is None:
        raise BundleError(
            f"{bundle.path}: tiles cannot be joined exactly. Expected a network with a bounded receptive field, found "
            "one whose every output depends on the whole tile.\nUse --stitch blend."
        )
    if stitch == "blend" or field is None or (stitch == "auto" and field > WIDEST_EXACT_FIELD_PX):
        core = round_up(core_px or BLEND_CORE_PX, stride)
        margin = round_up(BLEND_MARGIN_PX, stride)
        largest = TileLattice.blended(shape, core_px=core, stride_px=stride, margin_px=margin)
        return largest if core_px else even_tiles(largest), "blend"
    core = round_up(core_px or EXACT_CORE_PX, stride)
    largest = TileLattice.exact(shape, core_px=core, stride_px=stride, receptive_field_px=field)
    return largest if core_px else even_tiles(largest), "exact"


def _files(
    out: Path,
    bundle: Bundle,
    modalities: tuple[Modality, ...],
    scene: RasterSource,
    how: str,
    layers: tuple[Layer, ...],
    computed: tuple[str, str],
) -> tuple[MapFile, ...]:
    tags = {
        "TIFFTAG_SOFTWARE": f"geocrodino {version('geocrodino')}",
        "BUNDLE_NAME": bundle.manifest.name,
        "BUNDLE_SHA256": bundle.sha256,
        "MODALITY": "both" if len(modalities) > 1 else modalities[0],
        "SCENE": scene.path.name or scene.path.resolve().name,
        "STITCH": how,
        "BACKEND": computed[0],
        "PRECISION": computed[1],
    }
    classes = bundle.manifest.classes
    found = [class_map(out, classes, tags=tags)]
    if len(modalities) > 1:
        found.append(class_map(beside(out, "decided"), decisions(modalities), tags=tags, band="decided by"))
    if layers:
        found.append(layer_file(beside(out, "layers"), layer_bands(layers, classes), tags=tags))
    return tuple(found)


def _area_file(aoi: str | Path | AOI) -> Path | None:
    from geocrodino.geo.areas.aoi import area_file  # areas alone need geopandas

    return area_file(aoi)


def _area_px(source: str | Path | AOI, raster: RasterSource) -> BaseGeometry:
    """Polygons in pixels of the scene.

    Raises:
        OverlapError: If they do not meet it.
    """
    from geocrodino.geo.areas.aoi import read_aoi  # areas alone need geopandas
    from geocrodino.geo.areas.place import on_grid, way_out

    aoi = read_aoi(source, splits="none") if isinstance(source, str | Path) else source
    t = ~raster.geobox.affine
    moved = on_grid(aoi, raster.geobox).polygons()
    area: BaseGeometry = affine_transform(moved, (t.a, t.b, t.d, t.e, t.c, t.f))
    if area.intersects(window_box(Window.of(raster.geobox.shape))):
        return area
    raise OverlapError(
        f"{aoi.source}: the area does not meet {raster.path} ({raster.describe()}).\n{way_out(aoi, raster.geobox)}"
    )


def _joined(words: Iterable[str]) -> str:
    """Different words, once each."""
    return ", ".join(dict.fromkeys(words))


def _computed_by(job: Job, numbers: str) -> str:
    """What computes, as far as it changes the last digits."""
    device = job.device
    if device.startswith("cuda"):
        import torch

        device = torch.cuda.get_device_name(device)
    together = f", {job.batch} tiles at once" if job.batch > 1 else ""
    return f"{job.backend} {version(job.backend)} on {device} in {numbers}{together}"


_SOFTWARE = ("geocrodino", "torch", "numpy", "scipy", "pyproj", "rasterio")
"""Libraries whose version affects the bytes of a map."""


def _key(
    job: Job, backends: Mapping[Modality, Backend], block_px: int | None, ground: RasterSource | None
) -> dict[str, str]:
    """What the bytes of a map depend on; workers and memory are not among it."""
    lattice = job.lattice
    rasters: dict[str, str] = {m: fingerprint(source.raster) for m, source in job.inputs.items()}
    units = {source.unit for source in job.inputs.values() if source.unit}
    return {
        **rasters,
        "ground": fingerprint(ground) if ground else "none",
        "height unit": ", ".join(units) or "of the files",
        "bundle": job.bundle[1],
        "software": ", ".join(f"{name} {version(name)}" for name in _SOFTWARE),
        "backend": _computed_by(job, _joined(backend.number for backend in backends.values())),
        "tiles": f"{lattice.core_px} px, margin {lattice.margin_px} px, ramp {lattice.ramp_px} px",
        "margin that is not decoded": _joined(f"{backend.trim_px} px" for backend in backends.values()),
        "block": "about one tile" if block_px is None else f"{block_px} px",
        "layers": ", ".join(job.layers) or "none",
        "area": "all" if job.area is None else hashlib.sha256(job.area.wkb).hexdigest(),
    }
