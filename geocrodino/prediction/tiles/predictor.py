"""The network at work on single tiles, each computed once while it is wanted."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Generic

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import height_unit
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.prediction.backends.protocol import Backend
from geocrodino.prediction.tiles.lattice import TileIndex, TileLattice
from geocrodino.prediction.tiles.stitching import Number, stitch
from geocrodino.settings.classes import IGNORE_INDEX

_counting = Lock()
_before: list[int] = []
"""Torch's threads before each work that is under way, which are those before the first of them."""


@contextmanager
def one_thread_per_network() -> Iterator[None]:
    """Let each worker compute with one thread, so that results do not depend on the number of workers.

    Where PyTorch is not loaded, nothing computes with it.
    """
    if "torch" not in sys.modules:
        yield
        return
    import torch  # which waits where another thread is at it

    with _counting:
        before = _before[0] if _before else torch.get_num_threads()
        _before.append(before)
    one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        with _counting:
            _before.pop()


def one_thread() -> None:
    """Let PyTorch, where it is loaded, use one thread when this one calls it."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


@dataclass(frozen=True)
class SceneInput:
    """What the network reads of a scene: a raster through a recipe, on the working grid.

    Attributes:
        raster: The raster as the recipe reads it, see `Recipe.fitted`.
        spec: Recipe and statistics.
        grid: The working grid.
        ground: Heights of the bare ground, or None.
        unit: Unit of height that the user gave, or None.
        bands_known_by: How the bands of an image were found, as a phrase for people; None for heights.
    """

    raster: RasterSource
    spec: ModalitySpec
    grid: GeoBox
    ground: RasterSource | None
    unit: str | None
    bands_known_by: str | None = None

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Network input and validity of a window of the working grid, see `ModalitySpec.read`."""
        return self.spec.read(self.raster, self.grid, window, ground=self.ground, unit=self.unit)

    @property
    def unit_known_by(self) -> str:
        """How the unit of the heights is known, in a sentence."""
        return height_unit(self.raster, self.unit, self.spec.recipe.height_unit)[1]


class TileAnswers(Generic[Number]):
    """What is said of tiles, kept for neighbours up to a limit of memory; may be called from several threads.

    Args:
        backend: The network at work.
        scene: What it reads.
        lattice: The tiles, on the scene's working grid.
        keep_tiles: How many tiles are kept after their first use.
    """

    def __init__(self, backend: Backend, scene: SceneInput, lattice: TileLattice, *, keep_tiles: int) -> None:
        self.backend = backend
        self.scene = scene
        self.lattice = lattice
        self.keep_tiles = keep_tiles
        self._tiles: OrderedDict[TileIndex, Future[NDArray[Number]]] = OrderedDict()
        self._lock = Lock()

    def __call__(self, index: TileIndex) -> NDArray[Number]:
        """What is said of a tile over its support; the network is not run where no pixel of that is valid.

        Returns:
            Shape (B, H, W); what the bands are depends on the kind of answer.

        Raises:
            RasterError: If the scene cannot be read there.
        """
        return self._result(index, self._begun(index))

    def window(self, window: Window) -> NDArray[Number]:
        """What tiles say of a window of the working grid, shape (B, H, W).

        Those that no other thread is at are computed first, so that threads with neighbouring windows share the work
        rather than wait for each other at each tile.
        """
        begun = {index: self._begun(index) for index in self.lattice.tiles(window)}
        return stitch(self.lattice, window, lambda index: self._result(index, begun[index]))

    def _result(self, index: TileIndex, future: Future[NDArray[Number]]) -> NDArray[Number]:
        """A tile's answer as soon as it is there; those that were used longest ago are forgotten."""
        result = future.result()
        with self._lock:
            if index in self._tiles:
                self._tiles.move_to_end(index)
            for old in list(self._tiles):
                if len(self._tiles) <= self.keep_tiles:
                    break
                if self._tiles[old].done():
                    del self._tiles[old]
        return result

    def _begun(self, index: TileIndex) -> Future[NDArray[Number]]:
        """A tile's answer, computed here if nobody has begun with it."""
        with self._lock:
            future = self._tiles.get(index)
            if future is not None:
                self._tiles.move_to_end(index)  # as of now, that no new one of the same window takes its place
                return future
            future = self._tiles[index] = Future()
        try:
            future.set_result(self._compute(index))
        except BaseException as error:
            with self._lock:
                self._tiles.pop(index, None)  # asked for again, it is tried again
            future.set_exception(error)  # for those that wait
            raise
        return future

    def _compute(self, index: TileIndex) -> NDArray[Number]:
        window = self.lattice.read_window(index)
        values, valid = self.scene.read(window)
        support = self.lattice.support(index)
        inside = valid[support.within(window).slices]
        computed = window.grow(-self.backend.trim_px)
        return self._answer(values, inside, support.within(computed).slices)

    def _answer(
        self, values: NDArray[np.float32], inside: NDArray[np.bool_], place: tuple[slice, slice]
    ) -> NDArray[Number]:
        """Say it from the network's input, where its support is valid, and where that lies in what the backend says."""
        raise NotImplementedError


class TilePredictor(TileAnswers[np.float32]):
    """Probabilities of tiles: of K classes, then 1 where the modality is valid and 0 elsewhere.

    Args:
        backend: The network at work.
        scene: What it reads.
        lattice: The tiles, on the scene's working grid.
        num_classes: Number of classes K.
        keep_tiles: How many tiles are kept after their first use.
    """

    def __init__(
        self, backend: Backend, scene: SceneInput, lattice: TileLattice, *, num_classes: int, keep_tiles: int
    ) -> None:
        super().__init__(backend, scene, lattice, keep_tiles=keep_tiles)
        self.num_classes = num_classes

    def _answer(
        self, values: NDArray[np.float32], inside: NDArray[np.bool_], place: tuple[slice, slice]
    ) -> NDArray[np.float32]:
        out = np.full((self.num_classes + 1, *inside.shape), 1 / self.num_classes, np.float32)
        out[-1] = inside
        if inside.any():
            out[:-1] = self.backend(values)[:, *place]
        return out


class TileClassifier(TileAnswers[np.uint8]):
    """Most likely classes of tiles, one band, 255 where the modality is not valid."""

    def _answer(
        self, values: NDArray[np.float32], inside: NDArray[np.bool_], place: tuple[slice, slice]
    ) -> NDArray[np.uint8]:
        out = np.full((1, *inside.shape), IGNORE_INDEX, np.uint8)
        if inside.any():
            np.copyto(out[0], self.backend.classes(values)[place], where=inside)
        return out
