"""A class map of a whole scene, from whichever modality is there, in a memory that does not grow with the scene."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args

import rasterio
from odc.geo.geobox import GeoBox

from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.errors import ConfigError, HeightRangeWarning, OverlapError, RasterError
from geocrodino.geo.rasters.grid import pixel_area_m2, pixel_size_m, window_grid
from geocrodino.geo.rasters.impossible_heights import total as total_impossible
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import Further, beside
from geocrodino.maps.writer import EncodedPart, MapWriter
from geocrodino.prediction.combine import decision_codes
from geocrodino.prediction.job import STRIP_PX, BlockPredictor
from geocrodino.prediction.layers import Layer
from geocrodino.prediction.memory import as_bytes, in_use, peak_growth, workers_within
from geocrodino.prediction.plan import PredictionPlan, prepare
from geocrodino.prediction.schedule import GDAL_CACHE_BYTES, open_client, run_cluster, run_threads
from geocrodino.prediction.tiles.lattice import probability_bytes
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import BackendName, Precision, Stitch, Wanted

if TYPE_CHECKING:
    from geocrodino.geo.areas.aoi import AOI

_MAX_WORKERS = 8  # by default: each holds the activations of a tile
_TRIAL_PX = 1536  # a multiple of every stride; a larger trial could itself take more than it may


@dataclass(frozen=True)
class PredictionSummary:
    """What a prediction did.

    Attributes:
        path: The class map.
        decided_path: The map of which modality decided, None with one modality.
        layers_path: The file of the layers, None if none was asked for.
        modalities: The branches that made it.
        reason: Why these.
        bundle_sha256: Hash of the bundle.
        pixels: Number of pixels of each class, by name.
        area_m2: Area of each class, square metres.
        decided: Share of the pixels with a class by what decided it, 0 to 1: ``optical``, ``elevation``, ``both``.
        nodata_share: Share of pixels without a class, of those in the area to predict, 0 to 1.
        stitch: How tiles were joined.
        backend: Who computed.
        heights: How the unit of the heights is known, None without heights.
        bands: How the bands of the image were found, None without an image.
        working_resolution_m: Pixel size that the network worked at, metres.
        resumed: Blocks that an earlier run had finished.
        seconds: Time taken.
        warnings: What the user should know, also given as Python warnings.
    """

    path: Path
    decided_path: Path | None
    layers_path: Path | None
    modalities: tuple[Modality, ...]
    reason: str
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


def predict(
    scene: str | Path | Sequence[str | Path],
    out: str | Path,
    bundle: Bundle | str | Path,
    modality: Wanted = "auto",
    *,
    elevation: str | Path | Sequence[str | Path] | None = None,
    ground: str | Path | None = None,
    height_unit: str | None = None,
    bands: Sequence[int] | None = None,
    rescale: float | None = None,
    aoi: str | Path | AOI | None = None,
    asset: str | None = None,
    layers: Sequence[Layer] = (),
    workers: int | None = None,
    memory: int | str | None = None,
    block_px: int | None = None,
    core_px: int | None = None,
    stitch: Stitch = "auto",
    backend: BackendName = "auto",
    precision: Precision = "auto",
    device: str = "cpu",
    batch: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> PredictionSummary:
    """Predict a class map on the grid of the scene.

    The network works at the pixel size of its training. Where the scene has another one, or is rotated, or counts in
    degrees, probabilities are computed on a grid of that pixel size and interpolated at the centres of the scene's
    pixels. On one kind of processor and with one backend and precision the map is the same, byte for byte, whatever
    ``workers``, ``block_px``, ``memory`` and ``scheduler``, and whether or not it was stopped and resumed.

    Args:
        scene: The optical image or surface model: a file, a folder, a pattern, a list file, a STAC item collection, or
            several files. Many files are one scene, see `geocrodino.geo.rasters.scene.open_scene`.
        out: The map to write: a Cloud Optimized GeoTIFF of the classes' file values, 255 where there is no data. A name
            in ``.vrt`` leaves it in parts, a GeoTIFF for each block, under a virtual raster. With both modalities
            ``NAME.decided.tif`` says which of them decided.
        bundle: The trained networks, or their file.
        modality: Which of them to use. With ``both``, probabilities are averaged with the weights of the bundle where
            both modalities have data; elsewhere the one that has it decides.
        elevation: A surface model of the same place, where ``scene`` is an image and both are to be used; any CRS,
            pixel size and extent.
        ground: Heights of the bare ground, where there is such a raster (elevation only).
        height_unit: Unit of heights, where the files do not say it; the one that the training was told by default.
        bands: Numbers of the image's bands in the order of the training's, counted from 1; by default they are matched
            by name where both sides have names, by number otherwise.
        rescale: Multiply the values of the image by this number, for instance 1 / 257 where the training's values have
            8 bits and the image's 16.
        aoi: Polygons to predict, or what `geocrodino.read_aoi` takes; the rest is nodata, and is not computed.
        asset: Which asset of STAC items is the scene, where that is not plain.
        layers: What else to write, to ``NAME.layers.tif``: bytes that stand for 0 to 1, see `Layer`.
        workers: Tiles worked on at the same time, one per processor by default, 8 at most; more with ``batch``.
        memory: Most memory to take, for instance ``2GB``; fewer tiles are then computed at the same time.
        block_px: Side of a unit of work, in pixels of the scene; about one tile by default.
        core_px: Side of a tile without its margin, in pixels of the training size, rounded up to a multiple of the
            network's stride; by default 1024, 512 where tiles are blended, or less where tiles at the edge would be
            nearly empty. Larger tiles take more memory, and less time in large scenes.
        stitch: How tiles are joined.
        backend: Inference backend; ``auto`` takes the fastest that is installed.
        precision: In which numbers, see `Precision`.
        device: Torch device.
        batch: Tiles in one call of the network, on a GPU: 4 on CUDA GPUs by default, else 1. There are then at least
            twice as many ``workers``, so that some read and write while others wait. With a scheduler it is 1 unless
            asked for; give each Dask worker twice as many threads then. The map depends on it in its last digits.
        scheduler: ``processes`` for a cluster of processes on this machine, or the address of a Dask scheduler whose
            workers see the same files; threads of this process by default.
        resume: Go on where an earlier run with the same inputs and settings was stopped.
        overwrite: Whether an existing map may be replaced.
        on_progress: Called with finished and all blocks, from any thread, one call at a time.

    Returns:
        Counts, areas and warnings.

    Raises:
        BundleError: If the bundle lacks the branch, the scene lacks its bands, all values of the image lie outside
            those of the training, or its pixels are more than 16 times as large.
        ConfigError: If options contradict each other, the modality cannot be told, or memory does not suffice.
        RasterError: If the scene is missing, damaged, without CRS or without any valid pixel.
        OverlapError: If the ground, the surface model or the area does not meet the scene.
        HeightError: If heights cannot be turned into the network's channels.
        OutputError: If the map exists, would replace an input, or cannot be written, or there is no stopped work.
        ValueError: If a number is out of its range.

    Warns:
        HeightRangeWarning: If the heights are unlike those of the training, or some of them are impossible.
        ValueRangeWarning: If the values of the image are unlike those of the training.
        ResolutionWarning: If the scene's pixels are more than 4 times as large as those of the training.
    """
    started = time.monotonic()
    _positive(workers=workers, block_px=block_px, core_px=core_px, batch=batch)
    if scheduler is not None and memory is not None:
        raise ConfigError("memory bounds the threads of this process: leave it out with a scheduler.")
    ready = prepare(
        scene,
        Path(out),
        bundle if isinstance(bundle, Bundle) else load_bundle(bundle),
        modality,
        elevation=elevation,
        ground=ground,
        height_unit=height_unit,
        bands=None if bands is None else tuple(bands),
        rescale=rescale,
        aoi=aoi,
        asset=asset,
        layers=tuple(layers),
        block_px=block_px,
        core_px=core_px,
        stitch=stitch,
        backend=backend,
        precision=precision,
        device=device,
        workers=workers or _default_workers(),
        batch=batch,
        scheduler=scheduler,
    )
    further = [beside(Path(out), what) for what in get_args(Further)]
    with (
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES),
        MapWriter(
            ready.job.files,
            ready.job.own,
            key=ready.key,
            stale=[path for path in further if path not in {file.path for file in ready.job.files}],
            overwrite=overwrite,
            resume=resume,
        ) as writer,
    ):
        resumed = len(writer.done)
        take = _Taker(writer, len(ready.blocks), on_progress)
        todo = [block for block in ready.blocks if block not in writer.done]
        try:
            _run(ready, todo, memory, scheduler, take)
            ready.backends.clear()  # what they compute in is large, and the files are yet to be put together
            if not writer.done.keys() >= set(ready.blocks):
                raise ValueError(f"expected {len(ready.blocks)} finished blocks, found {len(writer.done)}")
        except BaseException as error:
            if writer.done:
                error.add_note(
                    f"{len(writer.done)} of {len(ready.blocks)} blocks are finished and kept: go on with --resume."
                )
            raise
        counts = _total(writer.done.values())
        if not counts:
            writer.abandon()
            raise OverlapError(
                f"{ready.scene.path}: the area holds the centre of none of its pixels ({ready.scene.describe()}).\n"
                "Give a larger area, or leave it out."
            )
        if all(index == IGNORE_INDEX for _, index, _ in counts):
            writer.abandon()
            raise RasterError(ready.scene.path, _no_valid_pixel(ready, writer.done.values()))
        impossible = _impossible_notes(ready, writer.done.values())
        for message in impossible:
            warnings.warn(message, HeightRangeWarning, stacklevel=2)
    return _summary(ready, counts, resumed, time.monotonic() - started, impossible)


class _Taker:
    """Keeps finished parts and tells how many there are."""

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


def _run(
    ready: PredictionPlan,
    todo: Sequence[Window],
    memory: int | str | None,
    scheduler: str | None,
    take: _Taker,
) -> None:
    if not todo:
        return
    workers = min(ready.job.workers, len(todo))
    if scheduler is not None:
        with open_client(scheduler, workers) as client:
            run_cluster(client, ready.job, todo, take)
        return
    if memory is not None:
        workers = _workers_within(as_bytes(memory), ready, workers)
        if workers < min(ready.job.batch, len(todo)):
            raise ConfigError(
                f"memory {memory}: expected room for the {ready.job.batch} tiles of a batch, found it for {workers}.\n"
                "Take --batch 1, or more memory."
            )
    run_threads(BlockPredictor(ready.job, ready.backends), todo, workers, take)


def _workers_within(limit: int, ready: PredictionPlan, wanted: int) -> int:
    """Measure what one tile takes, read and computed in the middle of the scene, and divide."""
    job, backends = ready.job, ready.backends
    before = in_use()  # memory that the trial gives back stays with the process, for the tiles to come
    largest, (height, width) = job.lattice.tile_shape, job.lattice.shape
    rows, cols = (min(side, _TRIAL_PX) for side in largest)
    r0, c0 = (height - rows) // 2, (width - cols) // 2

    def try_out(modality: Modality) -> None:
        backend, values = backends[modality], job.inputs[modality].read(Window.at(r0, c0, (rows, cols)))[0]
        (backend.classes if job.classes_alone else backend)(values)

    each = max(peak_growth(partial(try_out, m)) for m in job.inputs) * math.prod(largest) // (rows * cols)
    tile_bytes = job.lattice.tile_bytes(1 if job.classes_alone else probability_bytes(len(job.classes)))
    shared = GDAL_CACHE_BYTES + len(backends) * job.keep_tiles * tile_bytes
    block = max(block.pixels for block in ready.blocks)
    answer = 2 * block * sum(len(file.bands) for file in job.files)  # once more while it is encoded
    return workers_within(limit, wanted, each + len(backends) * tile_bytes + answer, before + shared)


def _total(notes: Iterable[Any]) -> Counter[tuple[int, int, int]]:
    counts: Counter[tuple[int, int, int]] = Counter()
    for note in notes:
        for strip, index, decided, number in note["pixels"]:
            counts[strip, index, decided] += number
    return counts


def _impossible_notes(ready: PredictionPlan, notes: Iterable[Any]) -> tuple[str, ...]:
    """What the user should know of impossible heights."""
    rasters = ready.job.height_rasters
    found = total_impossible(note["impossible"] for note in notes)
    return tuple(found[role].note(raster) for role, raster in rasters.items() if role in found)


def _summary(
    ready: PredictionPlan,
    counts: Counter[tuple[int, int, int]],
    resumed: int,
    seconds: float,
    impossible: tuple[str, ...],
) -> PredictionSummary:
    job = ready.job
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
        path=job.files[0].path,
        decided_path=job.files[1].path if len(job.inputs) > 1 else None,
        layers_path=job.files[-1].path if job.layers else None,
        modalities=tuple(job.inputs),
        reason=ready.reason,
        bundle_sha256=job.bundle[1],
        pixels=pixels,
        area_m2=area,
        decided=decided,
        nodata_share=nodata / (nodata + mapped),
        stitch=ready.stitch,
        backend=job.backend,
        heights=None if heights is None else heights.unit_known_by,
        bands=bands,
        working_resolution_m=math.sqrt(math.prod(pixel_size_m(ready.grid))),
        resumed=resumed,
        seconds=seconds,
        warnings=(*ready.notes, *impossible),
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


def _no_valid_pixel(ready: PredictionPlan, notes: Iterable[Any]) -> str:
    where = "" if ready.job.area is None else " in the area"
    impossible = _impossible_notes(ready, notes)
    if impossible:
        return f"no pixel is valid for {' or '.join(ready.job.inputs)}{where}. Check the unit of height.\n" + "\n".join(
            impossible
        )
    return (
        f"no pixel is valid for {' or '.join(ready.job.inputs)}{where}: all are nodata, masked or NaN.\n"
        "Expected at least one valid pixel. Check the nodata tag: it may name the value of the data."
    )


def _default_workers() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(available or 1, _MAX_WORKERS)


def _positive(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, found {value}")
