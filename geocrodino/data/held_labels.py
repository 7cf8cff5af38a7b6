"""Labels of scenes in memory: compressed where there are many scenes, whose labels may be 20 GB together.

They are compressed in tiles, because patches are read at random places: each needs the tiles on which it lies.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocrodino.geo.rasters.window import Window

_TILE_PX = 256


@dataclass(frozen=True)
class PackedLabels:
    """Class indices of a scene, compressed.

    Attributes:
        shape: Rows and columns.
        tiles: The compressed indices of each tile of 256 px, row by row.
    """

    shape: tuple[int, ...]
    tiles: tuple[bytes, ...]

    @classmethod
    def of(cls, labels: NDArray[np.uint8]) -> PackedLabels:
        """Compress labels.

        Args:
            labels: Class indices, uint8, shape (H, W).

        Returns:
            The same, compressed.
        """
        blocks = Window.of(labels.shape).blocks(_TILE_PX)
        tiles = (zlib.compress(np.ascontiguousarray(labels[block.slices]).data, 1) for block in blocks)
        return cls(labels.shape, tuple(tiles))

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Decompress a part of the indices.

        Args:
            window: A window inside the scene, h x w px.

        Returns:
            Class indices, uint8, shape (h, w).
        """
        found = np.empty(window.shape, np.uint8)
        across = -(-self.shape[1] // _TILE_PX)
        for row in range(window.row_start // _TILE_PX, -(-window.row_stop // _TILE_PX)):
            for col in range(window.col_start // _TILE_PX, -(-window.col_stop // _TILE_PX)):
                tile = Window.at(row * _TILE_PX, col * _TILE_PX, (_TILE_PX, _TILE_PX)).intersect(Window.of(self.shape))
                values = np.frombuffer(zlib.decompress(self.tiles[row * across + col]), np.uint8).reshape(tile.shape)
                common = tile.intersect(window)
                found[common.within(window).slices] = values[common.within(tile).slices]
        return found


HeldLabels = NDArray[np.uint8] | PackedLabels
"""Class indices of a scene, uint8, shape (H, W), as they are or compressed."""


def packed(labels: NDArray[np.uint8]) -> HeldLabels:
    """Compress labels.

    Args:
        labels: Class indices, uint8, shape (H, W).

    Returns:
        The same compressed; of a single class without memory, as they are.
    """
    if labels.size and (labels == labels.flat[0]).all():
        return np.broadcast_to(labels.flat[0], labels.shape)
    return PackedLabels.of(labels)


def unpacked(labels: HeldLabels) -> NDArray[np.uint8]:
    """Give labels as an array.

    Args:
        labels: Labels, compressed or not.

    Returns:
        Class indices, uint8, shape (H, W).
    """
    return labels.read(Window.of(labels.shape)) if isinstance(labels, PackedLabels) else labels


def part_of(labels: HeldLabels, window: Window) -> NDArray[np.uint8]:
    """Give a part of labels as an array.

    Args:
        labels: Labels, compressed or not.
        window: A window inside the scene, h x w px.

    Returns:
        Class indices, uint8, shape (h, w).
    """
    return labels.read(window) if isinstance(labels, PackedLabels) else labels[window.slices]
