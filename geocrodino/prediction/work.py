"""The work on one scene: its blocks, what a block does, and how Dask runs them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.geo.classes import IGNORE_INDEX, ClassScheme
from geocrodino.geo.grid import Window, pixel_size_m
from geocrodino.geo.resample import Positions, bilinear, bounding_window, source_positions
from geocrodino.geo.writer import TILE_PX, WORK_TILE_PX, ClassMapWriter
from geocrodino.prediction.blending import stitch
from geocrodino.prediction.network import SceneInput, TilePredictor, one_thread_per_network
from geocrodino.prediction.tiling import TileLattice, blocks, round_up

STRIP_PX = TILE_PX
"""Pixels are counted by strips of this many rows, whose pixels have about one area."""

Counts = Counter[tuple[int, int]]
"""Number of pixels by strip and class index, ``IGNORE_INDEX`` for those without a class."""

_KEPT_BYTES = 512 * 2**20
_PART_PX = 1024  # probabilities are held for this many pixels a side at a time


@dataclass(frozen=True)
class Plan:
    """The blocks of a scene in the order of work, and how many tiles neighbours share."""

    blocks: list[Window]
    keep_tiles: int

    @classmethod
    def make(
        cls, own: GeoBox, grid: GeoBox, lattice: TileLattice, num_classes: int, block_px: int | None, workers: int = 1
    ) -> Plan:
        """Plan the work on a scene.

        Args:
            own: Grid of the scene.
            grid: Grid that the network works on.
            lattice: Tiles over ``grid``.
            num_classes: Number of classes.
            block_px: Side of a block in pixels of the scene; about one tile by default and at most.
            workers: Blocks worked on at the same time; each one beyond the first needs some more tiles at hand.
        """
        scale = math.sqrt(math.prod(pixel_size_m(grid)) / math.prod(pixel_size_m(own)))
        shape, core = (int(own.shape[0]), int(own.shape[1])), lattice.core_px
        one_tile = max(2 * WORK_TILE_PX, round_up(round(core * scale), WORK_TILE_PX))
        block = one_tile if block_px is None else min(block_px, one_tile)
        if grid == own and lattice.ramp_px == 0 and block % core == 0 and block <= _PART_PX:
            return cls(blocks(shape, block), 0)  # no tile is wanted twice

        # Side of the upright box around a block of a rotated scene, in sides of the block.
        turned = (abs(own.affine.a) + abs(own.affine.b)) / math.hypot(own.affine.a, own.affine.b)

        def touched(count: int) -> int:
            """Most tiles along one axis that so many blocks side by side ask for, interpolation included."""
            return math.ceil(((count - 1 + turned) * block / scale + 2 * lattice.ramp_px + 3) / core) + 1

        # What one row of blocks of a band asks for stays at hand, so that going down the band computes none again.
        tile_bytes = 4 * (num_classes + 1) * (core + 2 * lattice.ramp_px) ** 2
        rows, across = touched(1), 1
        while across * block < shape[1] and rows * touched(across + 1) * tile_bytes <= _KEPT_BYTES:
            across += 1
        ahead = min(rows * (workers - 1), _KEPT_BYTES // tile_bytes)
        return cls(blocks(shape, block, across * block), rows * touched(across) + ahead)


@dataclass
class Job:
    """One scene: reads, predicts, stitches and writes a block at a time. Shared by all workers."""

    source: SceneInput
    classes: ClassScheme
    lattice: TileLattice
    tiles: TilePredictor
    writer: ClassMapWriter
    total: int
    on_progress: Callable[[int, int], None] | None

    def __post_init__(self) -> None:
        self._done = 0
        self._lock = Lock()

    def run(self, block: Window) -> Counts:
        """Predict and write one block; pixels counted by strip of the scene and class index."""
        counts: Counts = Counter()
        r0, r1, c0, c1 = block
        for part in blocks((r1 - r0, c1 - c0), _PART_PX):
            self._part((part[0] + r0, part[1] + r0, part[2] + c0, part[3] + c0), counts)
        with self._lock:
            self._done += 1
            if self.on_progress is not None:
                self.on_progress(self._done, self.total)
        return counts

    def _part(self, window: Window, counts: Counts) -> None:
        own = self.source.raster.geobox
        if self.source.grid == own:
            field = stitch(self.lattice, window, self.tiles)
            indices = _indices(field[:-1], field[-1] >= 0.5)
        else:
            positions = source_positions(own, window, self.source.grid)
            needed = bounding_window(positions, self.lattice.shape)
            if needed is not None and _too_large(needed, window):
                for smaller in _quarters(window):
                    self._part(smaller, counts)
                return
            indices = self._interpolated(window, positions, needed)
        self.writer.write(window, self.classes.to_values(indices))
        for strip in range(window[0] // STRIP_PX, (window[1] - 1) // STRIP_PX + 1):
            rows = slice(max(0, strip * STRIP_PX - window[0]), (strip + 1) * STRIP_PX - window[0])
            found, number = np.unique(indices[rows], return_counts=True)
            counts.update({(strip, int(i)): int(n) for i, n in zip(found, number, strict=True)})

    def _interpolated(self, window: Window, positions: Positions, needed: Window | None) -> NDArray[np.uint8]:
        raster = self.source.raster
        bands = self.source.spec.recipe.bands or raster.data_bands[:1]
        valid = raster.read_own(window, bands)[1]
        if needed is None or not valid.any():
            return np.full(valid.shape, IGNORE_INDEX, np.uint8)
        field = stitch(self.lattice, needed, self.tiles)
        probabilities, weight = bilinear(field[:-1], field[-1] >= 0.5, needed, positions)
        return _indices(probabilities, valid & (weight > 0))


def run(job: Job, windows: list[Window], workers: int) -> Counts:
    """All blocks through Dask's thread scheduler; each writes its own result and returns only counts."""
    total: Counts = Counter()
    task = delayed(job.run, pure=False, traverse=False)
    with one_thread_per_network(), ThreadPoolExecutor(workers) as pool:
        # Dask starts tasks in the order of their names where nothing else tells them apart.
        tasks = [task(window, dask_key_name=f"block-{i:09d}") for i, window in enumerate(windows)]
        run_all: Callable[..., tuple[Counts, ...]] = compute
        done = run_all(*tasks, scheduler="threads", pool=pool, num_workers=workers, optimize_graph=False)
    for counts in done:
        total.update(counts)
    return total


def _indices(probabilities: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    indices: NDArray[np.uint8] = probabilities.argmax(axis=0).astype(np.uint8)
    indices[~valid] = IGNORE_INDEX
    return indices


def _too_large(needed: Window, window: Window) -> bool:
    held = (needed[1] - needed[0]) * (needed[3] - needed[2])
    return held > (2 * _PART_PX) ** 2 and max(window[1] - window[0], window[3] - window[2]) > 1


def _quarters(window: Window) -> list[Window]:
    r0, r1, c0, c1 = window
    side = max(1, -(-max(r1 - r0, c1 - c0) // 2))
    return [(r0 + a, r0 + b, c0 + c, c0 + d) for a, b, c, d in blocks((r1 - r0, c1 - c0), side)]
