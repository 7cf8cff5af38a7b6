"""Compute single tiles with a network, and keep finished tiles for neighbouring windows."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
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
from geocrodino.prediction.tiles.store import Tile, TileStore
from geocrodino.settings.classes import IGNORE_INDEX


@dataclass(frozen=True)
class SceneInput:
    """Input of one branch: a raster that is read through a recipe, on the working grid.

    Attributes:
        raster: The raster as the recipe reads it, see `Recipe.fitted`.
        spec: Recipe and statistics.
        grid: The working grid.
        ground: Terrain model, or None.
        unit: Unit of height that the user gave, or None.
        bands_known_by: How the bands of an image were matched, as a phrase for people; None for heights.
    """

    raster: RasterSource
    spec: ModalitySpec
    grid: GeoBox
    ground: RasterSource | None
    unit: str | None
    bands_known_by: str | None = None

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window as input of the network, see `ModalitySpec.read`.

        Args:
            window: Pixels of the working grid, also outside the raster.

        Returns:
            Normalised channels, float32, shape (C, H, W), and validity, bool, shape (H, W).
        """
        return self.spec.read(self.raster, self.grid, window, ground=self.ground, unit=self.unit)

    @property
    def unit_known_by(self) -> str:
        """How the unit of the heights is known, in a sentence."""
        return height_unit(self.raster, self.unit, self.spec.recipe.height_unit)[1]


class CachedTiles(Generic[Number]):
    """Results of tiles, the last ones kept for neighbouring windows; may be called from several threads.

    Args:
        backend: Computes the network.
        scene: Input of the network.
        lattice: The tiles, on the scene's working grid.
        keep_tiles: How many tiles are kept after their first use.
        store: Where they are kept, None for memory.
    """

    def __init__(
        self,
        backend: Backend,
        scene: SceneInput,
        lattice: TileLattice,
        *,
        keep_tiles: int,
        store: TileStore | None = None,
    ) -> None:
        self.backend = backend
        self.store = store
        self.scene = scene
        self.lattice = lattice
        self.keep_tiles = keep_tiles
        self._tiles: OrderedDict[TileIndex, Future[Tile]] = OrderedDict()
        self._lock = Lock()

    def __call__(self, index: TileIndex) -> NDArray[Number]:
        """The result of a tile over its support; the network does not run if no pixel of it is valid.

        Args:
            index: The tile.

        Returns:
            Shape (B, H, W); the subclass defines type and bands.

        Raises:
            RasterError: If the scene cannot be read there.
        """
        tile = self._result(index, self._computed_once(index))
        return tile if isinstance(tile, np.ndarray) else tile[:, :, :]

    def window(self, window: Window) -> NDArray[Number]:
        """The result of a window, joined from its tiles.

        Tiles that no other thread computes come first, so that threads with neighbouring windows share the work
        instead of waiting for each other at each tile.

        Args:
            window: Pixels of the working grid.

        Returns:
            Shape (B, H, W); type and bands as for a tile.
        """
        futures = {index: self._computed_once(index) for index in self.lattice.tiles(window)}
        return stitch(self.lattice, window, lambda index: self._result(index, futures[index]))

    def _result(self, index: TileIndex, future: Future[Tile]) -> Tile:
        """The result of a tile, once it is computed; drops the tiles that were used longest ago."""
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

    def _computed_once(self, index: TileIndex) -> Future[Tile]:
        """The result of a tile, computed here unless another thread has started it or it is kept."""
        with self._lock:
            future = self._tiles.get(index)
            if future is not None:
                self._tiles.move_to_end(index)  # a new tile of the same window must not displace it
                return future
            future = self._tiles[index] = Future()
        try:
            future.set_result(self._kept(self._compute(index)))
        except BaseException as error:
            with self._lock:
                self._tiles.pop(index, None)  # the next request tries again
            future.set_exception(error)  # for the threads that wait
            raise
        return future

    def _kept(self, values: NDArray[Number]) -> Tile:
        """A tile where it waits for its neighbours."""
        return values if self.store is None else self.store.put(values, self.lattice.tile_bytes(_pixel_bytes(values)))

    def _compute(self, index: TileIndex) -> NDArray[Number]:
        window = self.lattice.read_window(index)
        values, valid = self.scene.read(window)
        support = self.lattice.support(index)
        inside = valid[support.within(window).slices]
        computed = window.grow(-self.backend.trim_px)
        return self._tile(values, inside, support.within(computed).slices)

    def _tile(
        self, values: NDArray[np.float32], inside: NDArray[np.bool_], place: tuple[slice, slice]
    ) -> NDArray[Number]:
        """Compute a tile from its normalised input.

        Args:
            values: Normalised channels, shape (C, H, W).
            inside: Validity over the support of the tile.
            place: The support within the output of the backend.
        """
        raise NotImplementedError


def _pixel_bytes(values: NDArray[Number]) -> int:
    return len(values) * values.itemsize


class TilePredictor(CachedTiles[np.float32]):
    """Probabilities of tiles, float32: a band for each of K classes, then 1 where the modality is valid, else 0.

    Args:
        backend: Computes the network.
        scene: Input of the network.
        lattice: The tiles, on the scene's working grid.
        num_classes: Number of classes K.
        keep_tiles: How many tiles are kept after their first use.
        store: Where they are kept, None for memory.
    """

    def __init__(
        self,
        backend: Backend,
        scene: SceneInput,
        lattice: TileLattice,
        *,
        num_classes: int,
        keep_tiles: int,
        store: TileStore | None = None,
    ) -> None:
        super().__init__(backend, scene, lattice, keep_tiles=keep_tiles, store=store)
        self.num_classes = num_classes

    def _tile(
        self, values: NDArray[np.float32], inside: NDArray[np.bool_], place: tuple[slice, slice]
    ) -> NDArray[np.float32]:
        out = np.full((self.num_classes + 1, *inside.shape), 1 / self.num_classes, np.float32)
        out[-1] = inside
        if inside.any():
            out[:-1] = self.backend(values)[:, *place]
        return out


class TileClassifier(CachedTiles[np.uint8]):
    """Most likely classes of tiles, uint8, one band, 255 where the modality is not valid."""

    def _tile(
        self, values: NDArray[np.float32], inside: NDArray[np.bool_], place: tuple[slice, slice]
    ) -> NDArray[np.uint8]:
        out = np.full((1, *inside.shape), IGNORE_INDEX, np.uint8)
        if inside.any():
            np.copyto(out[0], self.backend.classes(values)[place], where=inside)
        return out
