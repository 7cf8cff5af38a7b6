"""The lattice of the tiles of a scene, counted from the first pixel of the working grid.

A tile reads its core and a margin around it. Its result covers the core and, if tiles are blended, a ramp around it.
The lattice does not depend on blocks or workers, so the map does not either.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from geocrodino.geo.rasters.grid import round_up
from geocrodino.geo.rasters.window import Window

TileIndex = tuple[int, int]
"""Row and column of a tile in the lattice."""


@dataclass(frozen=True)
class TileLattice:
    """Tiles over a grid of pixels.

    With ``ramp_px = 0`` every pixel belongs to the one tile whose core holds it. If the margin is then at least as
    wide as the network's receptive field, the result is that of one pass over the whole scene. Otherwise
    neighbouring tiles are mixed over ``2 * ramp_px`` pixels around the common edge of their cores.

    Attributes:
        shape: Rows and columns of the scene.
        core_px: Side of a core.
        margin_px: Width of the context that is read on each side of a core.
        ramp_px: How far the result of a tile reaches beyond its core.
        stride_px: Stride of the network; cores and margins are multiples of it, so that all tiles are in phase.
    """

    shape: tuple[int, int]
    core_px: int
    margin_px: int
    ramp_px: int
    stride_px: int

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.stride_px < 1:
            raise ValueError(f"shape {self.shape} and stride {self.stride_px} px must be at least 1")
        if self.core_px < 1 or self.core_px % self.stride_px or self.margin_px < 0 or self.margin_px % self.stride_px:
            raise ValueError(
                f"core {self.core_px} px and margin {self.margin_px} px must be multiples of the stride "
                f"{self.stride_px} px"
            )
        if not 0 <= self.ramp_px <= min(self.margin_px, self.core_px // 2):
            raise ValueError(
                f"ramp {self.ramp_px} px must lie in 0 to the margin {self.margin_px} px and half the core "
                f"{self.core_px} px"
            )

    @classmethod
    def exact(cls, shape: tuple[int, int], *, core_px: int, stride_px: int, receptive_field_px: int) -> TileLattice:
        """Tiles that give the result of one pass over the whole scene.

        Args:
            shape: Rows and columns of the scene.
            core_px: Side of a core.
            stride_px: Stride of the network.
            receptive_field_px: Receptive field of the network to each side.

        Returns:
            Tiles without ramps, with a margin at least as wide as the receptive field.
        """
        return cls(shape, core_px, round_up(receptive_field_px, stride_px), 0, stride_px)

    @classmethod
    def blended(cls, shape: tuple[int, int], *, core_px: int, stride_px: int, margin_px: int) -> TileLattice:
        """Tiles that are mixed with their neighbours.

        Args:
            shape: Rows and columns of the scene.
            core_px: Side of a core.
            stride_px: Stride of the network.
            margin_px: Width of the margin; its inner half is mixed, its outer half gives every pixel context.

        Returns:
            Tiles with ramps of half the margin, at most half the core.
        """
        return cls(shape, core_px, margin_px, min(margin_px // 2, core_px // 2), stride_px)

    @property
    def count(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.shape[0] // self.core_px), -(-self.shape[1] // self.core_px)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Rows and columns that each tile reads.

        Tiles at the edge of the scene have the same shape as all others, because a network is compiled for one shape.
        """
        rows, cols = (min(self.core_px, round_up(size, self.stride_px)) + 2 * self.margin_px for size in self.shape)
        return rows, cols

    @property
    def unused_px(self) -> int:
        """Width of the margin of a tile that its result does not cover."""
        return self.margin_px - self.ramp_px

    def tile_bytes(self, each: int) -> int:
        """Memory of the result of a tile.

        Args:
            each: Bytes of each pixel.

        Returns:
            Bytes.
        """
        return each * math.prod(side - 2 * self.unused_px for side in self.tile_shape)

    def read_window(self, index: TileIndex) -> Window:
        """The pixels that a tile reads.

        Args:
            index: The tile.

        Returns:
            A window of shape `tile_shape`, which may reach outside the scene.
        """
        r0, c0 = (i * self.core_px - self.margin_px for i in index)
        return Window.at(r0, c0, self.tile_shape)

    def support(self, index: TileIndex) -> Window:
        """The pixels of the scene that the result of a tile covers, ramps included.

        Args:
            index: The tile.

        Returns:
            A window of the scene.
        """
        (r0, r1), (c0, c1) = (
            (max(0, i * self.core_px - self.ramp_px), min(size, (i + 1) * self.core_px + self.ramp_px))
            for i, size in zip(index, self.shape, strict=True)
        )
        return Window(r0, r1, c0, c1)

    def tiles(self, window: Window) -> list[TileIndex]:
        """The tiles whose results cover a window of the scene.

        Args:
            window: Pixels of the scene.

        Returns:
            The tiles, row by row.

        Raises:
            ValueError: If the window is empty or reaches outside the scene.
        """
        window, (height, width) = Window(*window), self.shape
        if min(window.shape) < 1 or not Window.of(self.shape).contains(window):
            raise ValueError(f"window {tuple(window)} is empty or outside the scene of {height} x {width} px")
        rows, cols = (
            range(
                max(0, (along.start - self.ramp_px) // self.core_px),
                min(count, (along.stop - 1 + self.ramp_px) // self.core_px + 1),
            )
            for along, count in zip(window.slices, self.count, strict=True)
        )
        return list(itertools.product(rows, cols))


def probability_bytes(num_classes: int) -> int:
    """Memory of a pixel of a tile that holds probabilities; a tile of classes takes one byte.

    Args:
        num_classes: Number of classes.

    Returns:
        Bytes: float32 for each class and for validity.
    """
    return 4 * (num_classes + 1)


def blocks(shape: tuple[int, int], block_px: int, band_px: int | None = None) -> list[Window]:
    """Cut a grid into windows of at most ``block_px`` pixels a side.

    Args:
        shape: Rows and columns of the grid.
        block_px: Side of a block; those at the lower and right edge are smaller.
        band_px: Width of vertical bands, rounded up to whole blocks; blocks of one band come before those of the
            next, so that neighbours follow each other closely even in a very wide grid. One band by default.

    Returns:
        Windows that cover every pixel once, band by band, row by row.
    """
    height, width = shape
    band = round_up(max(1, width if band_px is None else band_px), block_px)
    return [
        block
        for left in range(0, width, band)
        for block in Window(0, height, left, min(left + band, width)).blocks(block_px)
    ]
