"""What a prediction would read, write and need, found out without writing anything.

All that a prediction checks is checked. Memory and time of a tile are measured with PyTorch, because the faster
backend stores converted networks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dask.utils import format_bytes

from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.geo.rasters.grid import describe
from geocrodino.geo.rasters.window import Window
from geocrodino.phrases import duration, listed
from geocrodino.prediction.draft import Draft, check_files, draft_prediction
from geocrodino.prediction.engine import memory_of_tile
from geocrodino.prediction.memory import in_use
from geocrodino.prediction.schedule import GDAL_CACHE_BYTES
from geocrodino.prediction.tiles.lattice import probability_bytes
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.prediction import Execution, Inputs, ModalityChoice, Outputs, Tiling

if TYPE_CHECKING:
    from geocrodino.geo.areas.aoi import AOI

_MOST_TRIED_PX = 1024  # side of the window on which the time is measured
_SHOWN_FILES = 3


@dataclass(frozen=True)
class Trial:
    """What tiles cost, as measured with PyTorch.

    Attributes:
        second_px: Pixels of tiles that are read and computed in a second, with all modalities.
        tile_bytes: Memory that a tile needs while it is computed.
        tile_px: Pixels of that tile.
        device: Where it was computed.
    """

    second_px: float
    tile_bytes: int
    tile_px: int
    device: str


@dataclass(frozen=True)
class MapPlan:
    """What the prediction of a map would do.

    Attributes:
        scene: The scene: its files, bands and grid.
        files: Files that would be read, the bundle among them.
        modalities: Modalities of the map, and the reason.
        grid: The working grid of the networks.
        tiles: Tiles that meet the area, about.
        tile_shape: Rows and columns that each tile reads, px.
        blocks: Blocks of the map.
        workers: Tiles at the same time.
        map_bytes: Bytes of all pixels of the map, before they are compressed.
        temporary_bytes: Bytes of tiles that wait in a temporary file; 0 where none do.
        memory_bytes: Memory of the process, bytes.
        seconds: Time, s.
        device: Where the trial was computed.
        writes: Files that would be written.
        notes: Warnings.
    """

    scene: str
    files: tuple[str, ...]
    modalities: str
    grid: str
    tiles: int
    tile_shape: tuple[int, int]
    blocks: int
    workers: int
    map_bytes: int
    temporary_bytes: int
    memory_bytes: int
    seconds: float
    device: str
    writes: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Describe the plan.

        Yields:
            Lines for people.
        """
        yield f"Scene: {self.scene}"
        yield f"Modality: {self.modalities}"
        yield f"Reads: {listed(self.files, _SHOWN_FILES)}"
        yield f"Works on {self.grid}"
        rows, cols = self.tile_shape
        yield f"Tiles: about {self.tiles:,} of {rows} x {cols} px, in {self.blocks:,} blocks; {self.workers} at a time"
        waiting = f", and {format_bytes(self.temporary_bytes)} in a temporary file" if self.temporary_bytes else ""
        yield f"Disk: at most {format_bytes(self.map_bytes)} before compression, twice that at the end{waiting}"
        yield f"Memory: about {format_bytes(self.memory_bytes)}, from one tile computed with PyTorch"
        yield (
            f"Time: about {duration(self.seconds)}, from one tile computed with PyTorch on {self.device}; OpenVINO is "
            "usually faster"
        )
        yield from (f"Note: {note}" for note in self.notes)
        yield f"Writes: {', '.join(self.writes)}"


def plan_map(
    scene: str | Path | Sequence[str | Path],
    out: str | Path,
    bundle: Bundle | str | Path,
    modality: ModalityChoice = "auto",
    *,
    elevation: str | Path | Sequence[str | Path] | None = None,
    aoi: str | Path | AOI | None = None,
    inputs: Inputs | None = None,
    tiling: Tiling | None = None,
    execution: Execution | None = None,
    outputs: Outputs | None = None,
    height: HeightSettings | None = None,
    trial: Trial | None = None,
    creates_folder: bool = False,
) -> tuple[MapPlan, Trial]:
    """Check a prediction and find out what it needs, without writing a file.

    Args:
        scene: As for `geocrodino.predict`, like the others.
        out: The map that would be written.
        bundle: The trained networks, or their file.
        modality: Which modalities to use.
        elevation: Surface model beside an image.
        aoi: Polygons to predict.
        inputs: How the rasters are read.
        tiling: Tiles and blocks.
        execution: What computes.
        outputs: What is written.
        height: The whole coding of the heights, which decides alone.
        trial: What tiles of another scene cost with the same modalities; None: it is measured.
        creates_folder: Whether the folder of the map would be created where it does not exist.

    Returns:
        The plan, and what tiles cost.

    Raises:
        GeocrodinoError: One of its kinds, if the prediction would be refused.
    """
    found = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    wanted = outputs or Outputs()
    draft = draft_prediction(
        scene,
        Path(out),
        found,
        modality,
        elevation=elevation,
        aoi=aoi,
        inputs=inputs or Inputs(),
        tiling=tiling or Tiling(),
        execution=execution or Execution(),
        outputs=wanted,
        height=height,
    )
    check_files(draft.job, wanted, creates_folder=creates_folder)
    measured = trial or measure_tile(draft, found)
    return _plan(draft, measured, found), measured


def measure_tile(draft: Draft, bundle: Bundle) -> Trial:
    """Measure what a tile costs, with PyTorch.

    Args:
        draft: The checked prediction.
        bundle: The trained networks.

    Returns:
        Speed and memory.

    Raises:
        GeocrodinoError: One of its kinds, if a raster cannot be read, or the device cannot be used.
    """
    job = replace(draft.job, backend="torch", precision="full", batch=1)
    backends = job.backends(bundle)
    memory = memory_of_tile(job, backends)  # it also warms up
    shape = tuple(min(side, _MOST_TRIED_PX) for side in job.lattice.tile_shape)
    corner = [(whole - side) // 2 for whole, side in zip(job.lattice.shape, shape, strict=True)]
    window = Window.at(corner[0], corner[1], (shape[0], shape[1]))
    started = time.monotonic()
    for m, source in job.inputs.items():
        backends[m](source.read(window)[0])
    seconds = time.monotonic() - started
    return Trial(window.pixels / seconds, memory, math.prod(job.lattice.tile_shape), job.device)


def _plan(draft: Draft, trial: Trial, bundle: Bundle) -> MapPlan:
    job, raster = draft.job, draft.rasters.raster
    lattice, count = job.lattice, math.prod(job.lattice.count)
    mapped = sum(block.pixels for block in draft.blocks)
    share = mapped / math.prod(raster.geobox.shape)
    tiles = max(1, math.ceil(count * share))
    tile_px = math.prod(lattice.tile_shape)
    each = trial.tile_bytes * tile_px // trial.tile_px
    workers = min(job.workers, len(draft.blocks))
    waiting = job.keep_tiles * lattice.tile_bytes(probability_bytes(len(job.classes))) * len(job.inputs)
    rasters = [raster, draft.rasters.elevation, draft.rasters.ground]
    files = [name for each_raster in rasters if each_raster is not None for name in each_raster.file_names]
    return MapPlan(
        scene=f"{raster.path}: {raster.describe()}",
        files=(*files, str(bundle.path)),
        modalities=f"{' and '.join(draft.chosen.modalities)} ({draft.chosen.reason})",
        grid=describe(draft.grid),
        tiles=tiles,
        tile_shape=lattice.tile_shape,
        blocks=len(draft.blocks),
        workers=workers,
        map_bytes=mapped * sum(len(file.bands) for file in job.files.present),
        temporary_bytes=waiting if job.stores_tiles else 0,
        memory_bytes=in_use() + GDAL_CACHE_BYTES + workers * each + (0 if job.stores_tiles else waiting),
        seconds=tiles * tile_px / trial.second_px,
        device=trial.device,
        writes=tuple(str(file.path) for file in job.files.present),
        notes=draft.notes,
    )
