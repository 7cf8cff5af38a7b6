"""A class map of a whole scene, from whichever modality is there, in a memory that does not grow with the scene."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import rasterio
import torch
from odc.geo.geobox import GeoBox

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError, ConfigError, RasterError
from geocrodino.geo.classes import IGNORE_INDEX, ClassScheme
from geocrodino.geo.grid import pixel_area_m2, pixel_size_m, window_grid, working_grid
from geocrodino.geo.modality import Modality
from geocrodino.geo.reader import RasterSource, require_overlap
from geocrodino.geo.writer import ClassMapWriter
from geocrodino.prediction.checks import coarse_pixels, keep_inputs, unusual_heights
from geocrodino.prediction.network import SceneInput, TilePredictor
from geocrodino.prediction.tiling import TileLattice, round_up
from geocrodino.prediction.work import STRIP_PX, Counts, Job, Plan, run

Stitch = Literal["auto", "exact", "blend"]
"""``exact``: the result of one pass. ``blend``: neighbouring tiles are mixed. ``auto``: exact where it is possible."""

EXACT_CORE_PX = 768
"""With a margin of 160 px a tile costs 0.5 GB; larger ones save little time, smaller ones waste heights' halo."""
BLEND_CORE_PX = 512
BLEND_MARGIN_PX = 64
WIDEST_EXACT_FIELD_PX = 256
"""Receptive fields beyond this make exact tiles cost more than they are worth: ``auto`` blends."""

_MAX_WORKERS = 8  # by default: each holds the activations of a tile
_GDAL_CACHE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class PredictionSummary:
    """What a prediction did.

    Attributes:
        path: The class map.
        modality: The branch that made it.
        bundle_sha256: Hash of the bundle.
        pixels: Number of pixels of each class, by name.
        area_m2: Area of each class, square metres.
        nodata_share: Share of pixels without a class, 0 to 1.
        stitch: How tiles were joined.
        working_resolution_m: Pixel size that the network worked at, metres.
        seconds: Time taken.
        warnings: What the user should know, also given as Python warnings.
    """

    path: Path
    modality: Modality
    bundle_sha256: str
    pixels: dict[str, int]
    area_m2: dict[str, float]
    nodata_share: float
    stitch: Literal["exact", "blend"]
    working_resolution_m: float
    seconds: float
    warnings: tuple[str, ...]


def predict_scene(
    scene: str | Path,
    out: str | Path,
    bundle: Bundle,
    modality: Modality,
    *,
    ground: str | Path | None = None,
    height_unit: str | None = None,
    workers: int | None = None,
    block_px: int | None = None,
    core_px: int | None = None,
    stitch: Stitch = "auto",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    device: str = "cpu",
) -> PredictionSummary:
    """Predict a class map on the grid of the scene.

    The network works at the pixel size of its training. Where the scene has another one, or is rotated, or counts in
    degrees, probabilities are computed on a grid of that pixel size and interpolated at the centres of the scene's
    pixels. On one kind of processor the map is the same, byte for byte, whatever ``workers`` and ``block_px``.

    Args:
        scene: The optical image or surface model.
        out: The map to write: a Cloud Optimized GeoTIFF of the classes' file values, 255 where the scene has no data.
        bundle: The trained networks.
        modality: Which of them to use.
        ground: Heights of the bare ground, where there is such a raster (elevation only).
        height_unit: Unit of heights, where the files do not say it.
        workers: Tiles computed at the same time, one per processor by default, 8 at most.
        block_px: Side of a unit of work, in pixels of the scene; about one tile by default and at most.
        core_px: Side of a tile without its margin, in pixels of the training size; a multiple of the stride.
        stitch: How tiles are joined.
        overwrite: Whether an existing map may be replaced.
        on_progress: Called with finished and all blocks, from any thread, one call at a time.
        device: Torch device.

    Returns:
        Counts, areas and warnings.

    Raises:
        BundleError: If the bundle has no such branch, the scene lacks its bands, or has pixels more than 16 times as
            large as those of the training.
        ConfigError: If ground is given for an optical scene.
        RasterError: If the scene is missing, damaged, without CRS or without any valid pixel.
        OverlapError: If the ground raster does not meet the scene.
        HeightError: If heights cannot be turned into the network's channels.
        OutputError: If the map exists, would replace an input, or cannot be written.
        ValueError: If a number is out of its range.

    Warns:
        HeightRangeWarning: If the heights are unlike those of the training.
        ResolutionWarning: If the scene's pixels are more than 4 times as large as those of the training.
    """
    started = time.monotonic()
    _positive(workers=workers, block_px=block_px, core_px=core_px)
    bundle.require(modality)
    out, spec = Path(out), bundle.manifest.modalities[modality]
    if ground is not None and modality != "elevation":
        raise ConfigError(f"{ground}: a ground raster is of use for elevation alone, found {modality}.\nLeave it out.")
    raster = RasterSource.open(scene)
    spec.recipe.check(raster, ground_given=ground is not None)
    keep_inputs(out, scene=raster.path, bundle=bundle.path, ground=ground)
    notes = coarse_pixels(raster, bundle.manifest.resolution_m)
    grid = working_grid(raster.geobox, bundle.manifest.resolution_m)
    source = SceneInput(raster, spec, grid, _ground(ground, grid), height_unit)
    network = bundle.branch(modality).to(device).to(memory_format=torch.channels_last)
    lattice, how = _lattice(grid, bundle, network.stride, stitch, core_px)
    with (
        rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_BYTES),
        ClassMapWriter(
            out, raster.geobox, bundle.manifest.classes, tags=_tags(bundle, modality, raster, how), overwrite=overwrite
        ) as writer,
    ):
        notes += unusual_heights(source)
        workers = workers or _default_workers()
        plan = Plan.make(raster.geobox, grid, lattice, len(bundle.manifest.classes), block_px, workers)
        tiles = TilePredictor(
            network, source, lattice, num_classes=len(bundle.manifest.classes), keep_tiles=plan.keep_tiles
        )
        job = Job(source, bundle.manifest.classes, lattice, tiles, writer, len(plan.blocks), on_progress)
        counts = run(job, plan.blocks, min(workers, len(plan.blocks)))
        if not any(counts[strip, i] for strip, i in counts if i != IGNORE_INDEX):
            raise RasterError(
                raster.path,
                f"no pixel is valid for {modality}: all are nodata, masked or NaN.\n"
                "Expected at least one valid pixel. Check the nodata tag: it may name the value of the data.",
            )
    pixels, area, nodata = _tally(counts, raster.geobox, bundle.manifest.classes)
    return PredictionSummary(
        path=out,
        modality=modality,
        bundle_sha256=bundle.sha256,
        pixels=pixels,
        area_m2=area,
        nodata_share=nodata / math.prod(raster.geobox.shape),
        stitch=how,
        working_resolution_m=math.sqrt(math.prod(pixel_size_m(grid))),
        seconds=time.monotonic() - started,
        warnings=notes,
    )


def _lattice(
    grid: GeoBox, bundle: Bundle, stride: int, stitch: Stitch, core_px: int | None
) -> tuple[TileLattice, Literal["exact", "blend"]]:
    shape, field = (int(grid.shape[0]), int(grid.shape[1])), bundle.manifest.receptive_field_px
    if stitch == "exact" and field is None:
        raise BundleError(
            f"{bundle.path}: tiles cannot be joined exactly. Expected a network with a bounded receptive field, found "
            "one whose every output depends on the whole tile.\nUse --stitch blend."
        )
    if stitch == "blend" or field is None or (stitch == "auto" and field > WIDEST_EXACT_FIELD_PX):
        core = core_px or round_up(BLEND_CORE_PX, stride)
        margin = round_up(BLEND_MARGIN_PX, stride)
        return TileLattice.blended(shape, core_px=core, stride_px=stride, margin_px=margin), "blend"
    core = core_px or round_up(EXACT_CORE_PX, stride)
    return TileLattice.exact(shape, core_px=core, stride_px=stride, receptive_field_px=field), "exact"


def _tally(counts: Counts, grid: GeoBox, classes: ClassScheme) -> tuple[dict[str, int], dict[str, float], int]:
    """Pixels and square metres of each class; the size of a pixel is taken at the middle of each strip."""
    pixels, area = dict.fromkeys(classes.names, 0), dict.fromkeys(classes.names, 0.0)
    nodata = 0
    for (strip, index), number in sorted(counts.items()):
        if index == IGNORE_INDEX:
            nodata += number
            continue
        rows = (strip * STRIP_PX, min(grid.shape[0], (strip + 1) * STRIP_PX))
        name = classes.names[index]
        pixels[name] += number
        area[name] += number * pixel_area_m2(window_grid(grid, (*rows, 0, grid.shape[1])))
    return pixels, area, nodata


def _tags(bundle: Bundle, modality: Modality, raster: RasterSource, how: str) -> dict[str, str]:
    return {
        "TIFFTAG_SOFTWARE": f"geocrodino {version('geocrodino')}",
        "BUNDLE_NAME": bundle.manifest.name,
        "BUNDLE_SHA256": bundle.sha256,
        "MODALITY": modality,
        "SCENE": raster.path.name,
        "STITCH": how,
    }


def _ground(path: str | Path | None, grid: GeoBox) -> RasterSource | None:
    if path is None:
        return None
    ground = RasterSource.open(path)
    require_overlap({"ground": ground}, grid)
    return ground


def _default_workers() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(available or 1, _MAX_WORKERS)


def _positive(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, found {value}")
