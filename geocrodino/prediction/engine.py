"""Predict a class map of a whole scene, from whichever modality is there, in bounded memory."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import rasterio
from odc.geo.geobox import GeoBox

from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.errors import ConfigError, HeightRangeWarning, OverlapError, RasterError
from geocrodino.geo.rasters.grid import pixel_area_m2, pixel_side_m, window_grid
from geocrodino.geo.rasters.impossible_heights import total as total_impossible
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import companion_path
from geocrodino.maps.writer import EncodedPart, MapWriter
from geocrodino.prediction.backends.protocol import Backend
from geocrodino.prediction.combine import decision_codes
from geocrodino.prediction.draft import draft_prediction
from geocrodino.prediction.job import STRIP_PX, BlockPredictor, Job
from geocrodino.prediction.memory import in_use, parse_memory, peak_growth, workers_within
from geocrodino.prediction.plan import PredictionPlan, plan_prediction
from geocrodino.prediction.schedule import GDAL_CACHE_BYTES, open_client, run_cluster, run_threads
from geocrodino.prediction.tiles.lattice import probability_bytes
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import COMPANIONS, Execution, Inputs, ModalityChoice, Outputs, Tiling

if TYPE_CHECKING:
    from geocrodino.geo.areas.aoi import AOI

_TRIAL_PX = 1536  # a multiple of every stride; a larger trial could itself exceed the memory limit


@dataclass(frozen=True)
class PredictionSummary:
    """What a prediction wrote and found.

    Attributes:
        path: The class map.
        decided_path: The map of which modality decided, None with one modality.
        layers_path: The file of the layers, None if none were requested.
        modalities: The branches that made the map.
        reason: Why these branches.
        modality_requested: Whether the user named the modality.
        bundle_sha256: SHA-256 of the bundle.
        pixels: Number of pixels of each class, by name.
        area_m2: Area of each class, square metres.
        decided: Share of the pixels with a class by what decided it, 0 to 1: ``optical``, ``elevation``, ``both``;
            empty with one modality.
        nodata_share: Share of pixels without a class, of those in the area to predict, 0 to 1.
        stitch: How tiles were joined.
        backend: The inference backend.
        heights: How the unit of the heights is known, None without heights.
        bands: How the bands of the image were matched, None without an image.
        working_resolution_m: Pixel size that the network worked at, metres.
        resumed: Number of blocks that an earlier run had finished.
        seconds: Time taken, s.
        warnings: Texts of the warnings, also given as Python warnings.
    """

    path: Path
    decided_path: Path | None
    layers_path: Path | None
    modalities: tuple[Modality, ...]
    reason: str
    modality_requested: bool
    bundle_sha256: str
    pixels: dict[str, int]
    area_m2: dict[str, float]
    decided: dict[str, float]
    nodata_share: float
    stitch: Literal["exact", "blend"]
    backend: str
    heights: str | None
    bands: str | None
    working_resolution_m: float
    resumed: int
    seconds: float
    warnings: tuple[str, ...]


_INPUTS, _TILING, _EXECUTION, _OUTPUTS = Inputs(), Tiling(), Execution(), Outputs()


def predict(
    scene: str | Path | Sequence[str | Path],
    out: str | Path,
    bundle: Bundle | str | Path,
    modality: ModalityChoice = "auto",
    *,
    elevation: str | Path | Sequence[str | Path] | None = None,
    aoi: str | Path | AOI | None = None,
    inputs: Inputs = _INPUTS,
    tiling: Tiling = _TILING,
    execution: Execution = _EXECUTION,
    outputs: Outputs = _OUTPUTS,
    height: HeightSettings | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PredictionSummary:
    """Predict a class map on the grid of the scene.

    The network works at the pixel size of its training. If the scene has another pixel size, is rotated or is in
    degrees, probabilities are computed on a grid of that pixel size and interpolated at the centres of the scene's
    pixels. On one kind of processor, with one backend and one precision, the map has the same bytes whatever the
    workers, blocks, memory and scheduler, and whether or not the run was interrupted and resumed.

    Args:
        scene: Image or surface model to map: a file, a folder, a pattern, a list file, a STAC item collection, or
            several files, see `geocrodino.geo.rasters.scene.open_scene`.
        out: The map to write: a Cloud Optimized GeoTIFF of the classes' file values, uint8, 255 for nodata. A name in
            ``.vrt`` leaves the map in parts, one GeoTIFF for each block, under a virtual raster. With both modalities
            ``NAME.decided.tif`` holds which of them decided.
        bundle: The trained networks, or their file.
        modality: Which modalities to use. With ``both``, probabilities are averaged with the weights of the bundle
            where both modalities have data; elsewhere the modality with data decides.
        elevation: Surface model of the same place if ``scene`` is an image and both are to be used; any CRS, pixel
            size and extent.
        aoi: Polygons to predict, or anything that `geocrodino.read_aoi` reads; pixels outside are nodata and are not
            computed.
        inputs: How the rasters are read, see `Inputs`.
        tiling: Tiles, their stitching and blocks, see `Tiling`.
        execution: Backend, device, workers and memory, see `Execution`.
        outputs: Layers, and what happens to existing files, see `Outputs`.
        height: The whole coding of the heights, as in the key ``data.height`` of a training; then neither the coding of
            the bundle's training nor ``inputs.height_scale`` and ``inputs.height_zero`` count.
        on_progress: Called with the numbers of finished blocks and of all blocks, from any thread, one call at a time.

    Returns:
        Counts, areas and warnings.

    Raises:
        BundleError: If the bundle lacks the branch, the scene lacks its bands, all values of the image lie outside
            those of the training, or its pixels are more than 16 times as large.
        ConfigError: If options contradict each other, the modality is ambiguous, or memory does not suffice.
        RasterError: If the scene is missing, damaged, without CRS or without any valid pixel.
        OverlapError: If the ground, the surface model or the area does not meet the scene.
        HeightError: If heights cannot be turned into the network's channels.
        OutputError: If the map exists, would replace an input or cannot be written, or there is no run to resume.
        ValueError: If ``modality`` is none of the known words.

    Warns:
        HeightRangeWarning: If the heights are unlike those of the training, or some of them are impossible.
        ValueRangeWarning: If the values of the image are unlike those of the training.
        ResolutionWarning: If the scene's pixels are more than 4 times as large as those of the training.
    """
    started = time.monotonic()
    out, bundle = Path(out), bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    draft = draft_prediction(
        scene,
        out,
        bundle,
        modality,
        elevation=elevation,
        aoi=aoi,
        inputs=inputs,
        tiling=tiling,
        execution=execution,
        outputs=outputs,
        height=height,
    )
    plan = plan_prediction(draft, bundle, out, block_px=tiling.block_px, outputs=outputs)
    files = plan.job.files.present
    companions = [companion_path(out, kind) for kind in COMPANIONS]
    with (
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES),
        MapWriter(
            files,
            plan.job.own,
            key=plan.key,
            stale=[path for path in companions if path not in {file.path for file in files}],
            overwrite=outputs.overwrite,
            resume=outputs.resume,
        ) as writer,
    ):
        resumed = len(writer.done)
        collect = _PartCollector(writer, len(plan.blocks), on_progress)
        todo = [block for block in plan.blocks if block not in writer.done]
        try:
            _run(plan, todo, execution, collect)
            plan.backends.clear()  # frees their memory before the files are put together
            if not writer.done.keys() >= set(plan.blocks):
                raise ValueError(f"expected {len(plan.blocks)} finished blocks, found {len(writer.done)}")
        except BaseException as error:
            if writer.done:
                error.add_note(
                    f"{len(writer.done)} of {len(plan.blocks)} blocks are finished and kept: go on with `resume=True`."
                )
            raise
        counts = _total(writer.done.values())
        if not counts:
            writer.abandon()
            raise OverlapError(
                f"{plan.scene.path}: the area holds the centre of none of its pixels ({plan.scene.describe()}).\n"
                "Give a larger area, or leave it out."
            )
        if all(index == IGNORE_INDEX for _, index, _ in counts):
            writer.abandon()
            raise RasterError(plan.scene.path, _no_valid_pixel(plan, writer.done.values()))
        impossible = _impossible_notes(plan, writer.done.values())
        for message in impossible:
            warnings.warn(message, HeightRangeWarning, stacklevel=2)
    return _summary(plan, counts, resumed, time.monotonic() - started, impossible)


class _PartCollector:
    """Keeps finished parts and reports how many there are."""

    def __init__(self, writer: MapWriter, total: int, on_progress: Callable[[int, int], None] | None) -> None:
        self.writer, self.total, self.on_progress = writer, total, on_progress
        self._finished = len(writer.done)
        self._lock = Lock()

    def __call__(self, part: EncodedPart) -> None:
        self.writer.put(part)
        with self._lock:
            self._finished += 1
            if self.on_progress is not None:
                self.on_progress(self._finished, self.total)


def _run(plan: PredictionPlan, todo: Sequence[Window], execution: Execution, collect: _PartCollector) -> None:
    if not todo:
        return
    workers = min(plan.job.workers, len(todo))
    if execution.scheduler is not None:
        with open_client(execution.scheduler, workers) as client:
            run_cluster(client, plan.job, todo, collect)
        return
    if execution.memory is not None:
        workers = _workers_within(parse_memory(execution.memory), plan, workers)
        if workers < min(plan.job.batch, len(todo)):
            raise ConfigError(
                f"memory {execution.memory}: expected room for the {plan.job.batch} tiles of a batch, found it for "
                f"{workers}.\nTake `batch=1`, or allow more memory."
            )
    run_threads(BlockPredictor(plan.job, plan.backends), todo, workers, collect)


def memory_of_tile(job: Job, backends: Mapping[Modality, Backend]) -> int:
    """Measure the memory that one tile needs while it is computed, in the middle of the scene.

    Args:
        job: The job of the map.
        backends: The backend of each modality.

    Returns:
        Bytes; a tile larger than the trial is taken to need more in proportion to its pixels.

    Raises:
        RasterError: If a raster cannot be read there.
    """
    largest, (height, width) = job.lattice.tile_shape, job.lattice.shape
    rows, cols = (min(side, _TRIAL_PX) for side in largest)
    r0, c0 = (height - rows) // 2, (width - cols) // 2

    def try_out(modality: Modality) -> None:
        backend, values = backends[modality], job.inputs[modality].read(Window.at(r0, c0, (rows, cols)))[0]
        (backend.classes if job.classes_alone else backend)(values)

    return max(peak_growth(partial(try_out, m)) for m in job.inputs) * math.prod(largest) // (rows * cols)


def _workers_within(limit: int, plan: PredictionPlan, most: int) -> int:
    """How many tiles fit into memory at once, from the memory that one tile in the middle of the scene needs."""
    job, backends = plan.job, plan.backends
    before = in_use()  # memory that the trial frees stays with the process, for the next tiles
    each = memory_of_tile(job, backends)
    tile_bytes = job.lattice.tile_bytes(1 if job.classes_alone else probability_bytes(len(job.classes)))
    kept = 0 if job.stores_tiles else job.keep_tiles
    shared = GDAL_CACHE_BYTES + len(backends) * kept * tile_bytes
    block = max(block.pixels for block in plan.blocks)
    finished = 2 * block * sum(len(file.bands) for file in job.files.present)  # twice while it is encoded
    return workers_within(limit, most, each + len(backends) * tile_bytes + finished, before + shared)


def _total(notes: Iterable[Any]) -> Counter[tuple[int, int, int]]:
    counts: Counter[tuple[int, int, int]] = Counter()
    for note in notes:
        for strip, index, decided, number in note["pixels"]:
            counts[strip, index, decided] += number
    return counts


def _impossible_notes(plan: PredictionPlan, notes: Iterable[Any]) -> tuple[str, ...]:
    """Warnings about impossible heights."""
    rasters = plan.job.height_rasters
    found = total_impossible(note["impossible"] for note in notes)
    return tuple(found[role].note(raster) for role, raster in rasters.items() if role in found)


def _summary(
    plan: PredictionPlan,
    counts: Counter[tuple[int, int, int]],
    resumed: int,
    seconds: float,
    impossible: tuple[str, ...],
) -> PredictionSummary:
    job = plan.job
    pixels, area, nodata = _tally(counts, job.own, job.classes)
    mapped = sum(pixels.values())
    sources = job.inputs.values()
    heights = next((source for source in sources if source.spec.definition.holds_heights), None)
    bands = next((source.bands_known_by for source in sources if source.bands_known_by is not None), None)
    decided: dict[str, float] = {}
    if len(job.inputs) > 1:
        codes = decision_codes(job.inputs)
        by_whom = Counter(dict.fromkeys(codes.values(), 0))
        for (_, _, by), number in counts.items():
            by_whom[by] += number
        decided = {name: by_whom[by] / mapped for name, by in codes.items()}
    return PredictionSummary(
        path=job.files.classes.path,
        decided_path=None if job.files.decided is None else job.files.decided.path,
        layers_path=None if job.files.layers is None else job.files.layers.path,
        modalities=plan.chosen.modalities,
        reason=plan.chosen.reason,
        modality_requested=plan.chosen.requested,
        bundle_sha256=job.bundle[1],
        pixels=pixels,
        area_m2=area,
        decided=decided,
        nodata_share=nodata / (nodata + mapped),
        stitch=plan.stitch,
        backend=job.backend,
        heights=None if heights is None else heights.unit_known_by,
        bands=bands,
        working_resolution_m=pixel_side_m(plan.grid),
        resumed=resumed,
        seconds=seconds,
        warnings=(*plan.notes, *impossible),
    )


def _tally(
    counts: Mapping[tuple[int, int, int], int], grid: GeoBox, classes: ClassScheme
) -> tuple[dict[str, int], dict[str, float], int]:
    """Pixels and square metres of each class; the size of a pixel is taken at the middle of each strip."""
    pixels, area = dict.fromkeys(classes.names, 0), dict.fromkeys(classes.names, 0.0)
    nodata = 0
    for (strip, index, _), number in sorted(counts.items()):
        if index == IGNORE_INDEX:
            nodata += number
            continue
        rows = (strip * STRIP_PX, min(grid.shape[0], (strip + 1) * STRIP_PX))
        name = classes.names[index]
        pixels[name] += number
        area[name] += number * pixel_area_m2(window_grid(grid, Window(*rows, 0, grid.shape[1])))
    return pixels, area, nodata


def _no_valid_pixel(plan: PredictionPlan, notes: Iterable[Any]) -> str:
    where = "" if plan.job.area is None else " in the area"
    impossible = _impossible_notes(plan, notes)
    if impossible:
        told = "\n".join(impossible)
        return (
            f"no pixel is valid for {' or '.join(plan.job.inputs)}{where}. State the unit of height with "
            f"`height_unit`, or the metres of a stored unit with `height_scale`.\n{told}"
        )
    return (
        f"no pixel is valid for {' or '.join(plan.job.inputs)}{where}: all are nodata, masked or NaN.\n"
        "Expected at least one valid pixel. Check the nodata tag: it may name the value of the data."
    )
