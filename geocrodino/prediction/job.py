"""The job of one map: everything that determines its pixels, its blocks, and the prediction of one block."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely import Polygon, box, intersects
from shapely.geometry.base import BaseGeometry

from geocrodino.bundle.io import Bundle
from geocrodino.geo.areas.masks import AreaMask
from geocrodino.geo.rasters.grid import pixel_side_m, round_up
from geocrodino.geo.rasters.impossible_heights import impossible_heights
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.resample import Positions, bilinear, bounding_window, source_positions
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import TILE_PX, MapFiles
from geocrodino.maps.writer import EncodedPart, encode_part
from geocrodino.prediction.backends.open import open_backend
from geocrodino.prediction.backends.protocol import Backend
from geocrodino.prediction.combine import (
    Prediction,
    class_indices,
    combine,
    decided_alone,
    layer_values,
)
from geocrodino.prediction.tiles.lattice import TileLattice, blocks, probability_bytes
from geocrodino.prediction.tiles.predictor import SceneInput, TileClassifier, TilePredictor
from geocrodino.prediction.tiles.store import TileStore
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import BackendName, Layer, Precision

STRIP_PX = TILE_PX
"""Pixels are counted in strips of this many rows, in which all pixels have about the same area."""

Counts = Counter[tuple[int, int, int]]
"""Number of pixels by strip, class index and modality that decided (``IGNORE_INDEX`` for none)."""

_KEPT_BYTES = 512 * 2**20
_STEP_PX = 256  # sides of blocks are multiples of it, as are the tiles of most files
_COMBINED_ROWS = 128
_PART_PX = 512  # largest side of a window whose probabilities are interpolated or mixed at once


@dataclass(frozen=True)
class BlockLayout:
    """How a scene is divided into blocks.

    Attributes:
        blocks: The blocks in the order of work, in px of the scene.
        part_px: Side of the parts in which a block is predicted, px of the scene.
        keep_tiles: How many finished tiles are kept for neighbouring blocks, see `Job.stores_tiles`.
    """

    blocks: list[Window]
    part_px: int
    keep_tiles: int

    @classmethod
    def make(
        cls, own: GeoBox, grid: GeoBox, lattice: TileLattice, num_classes: int, block_px: int | None, workers: int = 1
    ) -> BlockLayout:
        """Divide a scene into blocks.

        Args:
            own: Grid of the scene.
            grid: Working grid of the networks.
            lattice: Tiles over ``grid``.
            num_classes: Number of classes.
            block_px: Side of a block, px of the scene; None for about one tile. Larger sides are rounded to whole
                tiles.
            workers: Blocks worked on at the same time; for each one after the first some more tiles are kept.

        Returns:
            Blocks that cover the scene once, and the sizes that suit them.
        """
        scale = pixel_side_m(grid) / pixel_side_m(own)
        shape, core = (int(own.shape[0]), int(own.shape[1])), lattice.core_px
        direct = grid == own and lattice.ramp_px == 0  # each block then has tiles of its own
        one_tile = core if direct else max(2 * _STEP_PX, round_up(round(core * scale), _STEP_PX))
        block = one_tile if block_px is None else block_px
        if block > one_tile:
            block = round(block / one_tile) * one_tile
        if direct and block % core == 0:
            return cls(blocks(shape, block), core, 0)  # each tile is used once
        part = min(block, one_tile if one_tile <= _PART_PX else _PART_PX)

        # Side of the upright box around a block of a rotated scene, in sides of the block.
        turned = (abs(own.affine.a) + abs(own.affine.b)) / math.hypot(own.affine.a, own.affine.b)

        def touched(count: int) -> int:
            """Most tiles along one axis that a number of adjacent blocks read, interpolation included."""
            return math.ceil(((count - 1 + turned) * block / scale + 2 * lattice.ramp_px + 3) / core) + 1

        # The tiles of one row of blocks of a band are kept, so that the next row computes none of them again.
        tile_bytes = lattice.tile_bytes(probability_bytes(num_classes))
        rows, across = touched(1), 1
        while across * block < shape[1] and rows * touched(across + 1) * tile_bytes <= _KEPT_BYTES:
            across += 1
        ahead = min(rows * (workers - 1), _KEPT_BYTES // tile_bytes)
        return cls(blocks(shape, block, across * block), part, rows * touched(across) + ahead)


def classes_suffice(own: GeoBox, grid: GeoBox, modalities: Collection[Modality], layers: Collection[Layer]) -> bool:
    """Find out whether a map needs the most likely classes alone where tiles are not mixed, and no probabilities.

    Args:
        own: Grid of the map.
        grid: Working grid of the networks.
        modalities: Modalities of the map.
        layers: Layers of the layers file.

    Returns:
        Whether it does: one modality on its own pixels, without layers.
    """
    return not layers and len(modalities) == 1 and grid == own


@dataclass(frozen=True)
class Job:
    """Everything that determines the pixels of a map; all of it can be sent to another process.

    Attributes:
        own: Grid of the map.
        inputs: Rasters of each modality, on one working grid.
        lattice: Tiles over the working grid.
        part_px: Side of the parts in which a block is predicted, px of the map.
        keep_tiles: How many finished tiles are kept for neighbouring blocks.
        classes: Classes of the map.
        weight: Weight of each branch where both have data.
        temperature: Divisor of the logits of each branch.
        layers: Layers of the layers file.
        files: The files of the map.
        area: Polygons to predict, in px of the map; None for all of it.
        bundle: File of the bundle and its SHA-256, which other processes check.
        backend: Inference backend.
        precision: Numbers that the networks compute in.
        device: Torch device.
        workers: Blocks worked on at the same time in one process.
        batch: Tiles in one call of a network.
    """

    own: GeoBox
    inputs: Mapping[Modality, SceneInput]
    lattice: TileLattice
    part_px: int
    keep_tiles: int
    classes: ClassScheme
    weight: Mapping[Modality, float]
    temperature: Mapping[Modality, float]
    layers: tuple[Layer, ...]
    files: MapFiles
    area: BaseGeometry | None
    bundle: tuple[Path, str]
    backend: BackendName
    precision: Precision
    device: str
    workers: int
    batch: int

    @property
    def classes_alone(self) -> bool:
        """Whether the map needs only the most likely class of each pixel of a tile, no probabilities."""
        return self.lattice.ramp_px == 0 and classes_suffice(self.own, self.grid, self.inputs, self.layers)

    @property
    def stores_tiles(self) -> bool:
        """Whether tiles wait for their neighbours in a file.

        In memory wait those beside a GPU, which makes many a second, and those of classes alone, which are small.
        """
        return self.keep_tiles > 0 and not self.classes_alone and self.device.partition(":")[0] == "cpu"

    @property
    def grid(self) -> GeoBox:
        """Working grid of the networks."""
        return next(iter(self.inputs.values())).grid

    @property
    def height_rasters(self) -> dict[str, RasterSource]:
        """Rasters of heights by role: the name of their modality, or ``ground``."""
        found: dict[str, RasterSource] = {}
        for modality, source in self.inputs.items():
            if source.spec.definition.holds_heights:
                found[modality] = source.raster
                if source.ground is not None:
                    found["ground"] = source.ground
        return found

    def backends(self, bundle: Bundle, workers: int | None = None) -> dict[Modality, Backend]:
        """Open the branches of the job.

        Args:
            bundle: The trained networks.
            workers: Tiles computed at the same time; None for those of the job.

        Returns:
            The backend of each modality.
        """
        return {
            m: open_backend(
                bundle,
                m,
                name=self.backend,
                device=self.device,
                workers=workers or self.workers,
                temperature=self.temperature[m],
                precision=self.precision,
                unused_px=self.lattice.unused_px,
                batch=self.batch,
                takes_turns=len(self.inputs) > 1,
            )
            for m in self.inputs
        }

    def meets(self, window: Window) -> bool:
        """Whether a window meets the area to predict.

        Args:
            window: Pixels of the map.

        Returns:
            True if any of it is to be predicted.
        """
        return self.area is None or bool(intersects(self.area, window_box(window)))


class _Place(NamedTuple):
    """Where the pixels of a window lie in the working grid, and the pixels there that interpolation touches."""

    positions: Positions
    needed: Window | None


class BlockPredictor:
    """Predicts the blocks of one map; may be called from several threads.

    Args:
        job: The job of the map.
        backends: The backend of each modality, see `Job.backends`.
    """

    def __init__(self, job: Job, backends: Mapping[Modality, Backend]) -> None:
        self.job = job
        self._area_mask = None if job.area is None else AreaMask(job.area)
        lattice, keep = job.lattice, job.keep_tiles
        self.classifier: TileClassifier | None = None
        if job.classes_alone:
            ((modality, source),) = job.inputs.items()
            self.classifier = TileClassifier(backends[modality], source, lattice, keep_tiles=keep)
        store = TileStore() if job.stores_tiles else None
        self.tiles = {
            m: TilePredictor(backends[m], source, lattice, num_classes=len(job.classes), keep_tiles=keep, store=store)
            for m, source in job.inputs.items()
            if self.classifier is None
        }

    def __call__(self, block: Window) -> EncodedPart:
        """Predict one block.

        Args:
            block: Pixels of the map.

        Returns:
            The block's files. Its note has two entries: ``pixels`` lists strip, class index, modality that decided and
            number of pixels; ``impossible`` lists number, lowest and highest of the impossible heights of each raster.
        """
        block, files = Window(*block), self.job.files
        out = {f.path: np.full((len(f.bands), *block.shape), IGNORE_INDEX, np.uint8) for f in files.present}
        counts: Counts = Counter()
        for window, there in self._parts(block):
            inside = None if self._area_mask is None else self._area_mask.read(window)
            indices, decided, layers = self._predict_window(window, there, inside)
            place = (slice(None), *window.within(block).slices)
            out[files.classes.path][place] = self.job.classes.to_values(indices)[None]
            if files.decided is not None:
                out[files.decided.path][place] = decided[None]
            if files.layers is not None and layers is not None:
                out[files.layers.path][place] = layers
            _count(counts, window, indices, decided, inside)
        note = {
            "pixels": [[*what, number] for what, number in sorted(counts.items())],
            "impossible": self._impossible(block),
        }
        return encode_part(files.present, self.job.own, block, list(out.values()), note)

    def _impossible(self, block: Window) -> dict[str, list[float]]:
        found = {
            role: impossible_heights(raster, self.job.own, block, self.job.area)
            for role, raster in self.job.height_rasters.items()
        }
        return {role: each.as_list() for role, each in found.items() if each.pixels}

    def _parts(self, block: Window) -> Iterator[tuple[Window, _Place | None]]:
        for part in block.blocks(self.job.part_px):
            yield from self._small_enough(part)

    def _small_enough(self, window: Window) -> Iterator[tuple[Window, _Place | None]]:
        """The window, or quarters of it if it reads too many pixels of the working grid; nothing outside the area.

        Each with its place in the working grid, None if that is the grid of the map.
        """
        if not self.job.meets(window):
            return
        grid = self.job.grid
        if grid == self.job.own:
            yield window, None
            return
        positions = source_positions(self.job.own, window, grid)
        needed = bounding_window(positions, self.job.lattice.shape)
        if needed is not None and _too_large(needed, window):
            for smaller in _quarters(window):
                yield from self._small_enough(smaller)
            return
        yield window, _Place(positions, needed)

    def _predict_window(
        self, window: Window, place: _Place | None, inside: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Class indices, modality that decided, and layers if any were requested."""
        if self.classifier is not None:
            indices = self.classifier.window(window)[0]
            if inside is not None:
                indices = np.where(inside, indices, np.uint8(IGNORE_INDEX))
            return indices, decided_alone(self.classifier.scene.spec.modality, indices != IGNORE_INDEX), None
        if place is None:
            predictions = {m: self._direct(m, window) for m in self.tiles}
        else:
            predictions = {m: self._interpolated(m, window, place) for m in self.tiles}
        if inside is not None:
            predictions = {m: Prediction(p.probabilities, p.valid & inside) for m, p in predictions.items()}
        indices, decided = np.empty(window.shape, np.uint8), np.empty(window.shape, np.uint8)
        layers: list[NDArray[np.uint8]] = []
        # A few rows at a time: an average needs several arrays as large as the probabilities.
        for start in range(0, window.shape[0], _COMBINED_ROWS):
            rows = slice(start, start + _COMBINED_ROWS)
            parts = {m: Prediction(p.probabilities[:, rows], p.valid[rows]) for m, p in predictions.items()}
            combined = combine(parts, self.job.weight)
            indices[rows], decided[rows] = class_indices(combined), combined.decided
            if self.job.layers:
                layers.append(layer_values(self.job.layers, combined))
        return indices, decided, np.concatenate(layers, axis=1) if layers else None

    def _direct(self, modality: Modality, window: Window) -> Prediction:
        field = self.tiles[modality].window(window)
        return Prediction(field[:-1], field[-1] >= 0.5)

    def _interpolated(self, modality: Modality, window: Window, place: _Place) -> Prediction:
        positions, needed = place
        valid = self._valid(modality, window)
        if needed is None or not valid.any():
            return Prediction(
                np.full((len(self.job.classes), *valid.shape), 1 / len(self.job.classes), np.float32), valid & False
            )
        field = self.tiles[modality].window(needed)
        probabilities, weight = bilinear(field[:-1], field[-1] >= 0.5, needed, positions)
        return Prediction(np.nan_to_num(probabilities), valid & (weight > 0))

    def _valid(self, modality: Modality, window: Window) -> NDArray[np.bool_]:
        """Where the raster itself has data, on the grid of the map."""
        return self.job.inputs[modality].raster.read(self.job.own, window)[1]


def _count(
    counts: Counts,
    window: Window,
    indices: NDArray[np.uint8],
    decided: NDArray[np.uint8],
    counted: NDArray[np.bool_] | None,
) -> None:
    first, stop = window.row_start, window.row_stop
    for strip in range(first // STRIP_PX, (stop - 1) // STRIP_PX + 1):
        rows = slice(max(0, strip * STRIP_PX - first), (strip + 1) * STRIP_PX - first)
        both = indices[rows].astype(np.uint16) * 256 + decided[rows]
        found, number = np.unique(both if counted is None else both[counted[rows]], return_counts=True)
        counts.update({(strip, *divmod(int(i), 256)): int(n) for i, n in zip(found, number, strict=True)})


def window_box(window: Window) -> Polygon:
    """A window as a polygon.

    Args:
        window: Pixels of a grid.

    Returns:
        A rectangle: x counts columns, y counts rows.
    """
    return box(window.col_start, window.row_start, window.col_stop, window.row_stop)


def _too_large(needed: Window, window: Window) -> bool:
    return needed.pixels > (2 * _PART_PX) ** 2 and max(window.shape) > 1


def _quarters(window: Window) -> list[Window]:
    return list(window.blocks(max(1, -(-max(window.shape) // 2))))
