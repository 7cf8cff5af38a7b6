"""The street plan: a rotated, slightly bent chequerboard of blocks, each with its use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from geocrodino.settings.town import BUILDING, GROUND, ROAD, TREE, WATER
from geocrodino.town.noise import FloatGrid
from geocrodino.town.terrain import Canvas

PITCH_M = (74.0, 66.0)
"""Distance between the middles of two streets along the plan's two axes."""

LOTS_PER_BLOCK = 8
"""Lot numbers reserved for a block; at least its number of lots."""

SIDEWALK_M = 1.7
"""Width of the pavement along a street."""


class Material(IntEnum):
    """What a pixel shows. Several materials form one class."""

    GRASS = 0
    SOIL = 1
    ASPHALT = 2
    PAVEMENT = 3
    MARKING = 4
    CAR = 5
    FLAT_ROOF = 6
    GREEN_ROOF = 7
    PITCHED_ROOF = 8
    TREE = 9
    WATER = 10


MATERIAL_CLASS = np.array(
    [GROUND, GROUND, ROAD, ROAD, ROAD, ROAD, BUILDING, BUILDING, BUILDING, TREE, WATER], dtype=np.uint8
)
"""Class value of each material."""


class BlockKind(IntEnum):
    """Use of a block."""

    HOUSES = 0
    ROWS = 1
    COMMERCE = 2
    HALLS = 3
    PARK = 4


LOT_GRID = np.array([[3, 2], [1, 2], [2, 1], [1, 1], [1, 1]])
"""Number of lots of a block along its two axes, for each kind."""


@dataclass(frozen=True)
class Axis:
    """Position of every pixel relative to the streets that cross one axis of the plan.

    Attributes:
        block: Number of the block, from 0, int32.
        into_m: Distance from the near edge of the block, behind the pavement.
        depth_m: Width of the block between its pavements.
        street_m: Distance to the middle of the nearest street.
        along_main: True where the nearest street is a main street.
        half_width_m: Half the width of the nearest street's asphalt.
        street: Number of the nearest street, from 0, int32.
        count: Number of blocks.
        first: Number of the first block on the unlimited plan.
    """

    block: NDArray[np.int32]
    into_m: FloatGrid
    depth_m: FloatGrid
    street_m: FloatGrid
    along_main: NDArray[np.bool_]
    half_width_m: FloatGrid
    street: NDArray[np.int32]
    count: int
    first: int


def half_width(line: NDArray[np.int32]) -> FloatGrid:
    """Half the width of a street's asphalt. Every third street is a main street.

    Args:
        line: Number of the street on the unlimited plan, any shape.

    Returns:
        Metres, float32, same shape.
    """
    return np.where(line % 3 == 0, 4.4, 2.9).astype(np.float32)


def read_axis(position: FloatGrid, pitch: float) -> Axis:
    """Locate every pixel between the streets that cross one axis of the plan.

    Args:
        position: Metres along the axis, float32, any shape.
        pitch: Distance between the middles of two streets in metres.

    Returns:
        Block, distances and street of every pixel, arrays of the shape of ``position``.
    """
    block = np.floor(position / pitch).astype(np.int32)
    first = int(block.min())
    into = (position - block * np.float32(pitch)).astype(np.float32)
    here, beyond = half_width(block) + SIDEWALK_M, half_width(block + 1) + SIDEWALK_M
    near_end = into > pitch / 2
    line = block + near_end
    return Axis(
        block=block - first,
        into_m=into - here,
        depth_m=np.float32(pitch) - here - beyond,
        street_m=np.where(near_end, np.float32(pitch) - into, into),
        along_main=line % 3 == 0,
        half_width_m=half_width(line),
        street=(line - first).astype(np.int32),
        count=int(block.max()) - first + 1,
        first=first,
    )


@dataclass(frozen=True)
class TownPlan:
    """Street plan: a rotated, slightly bent chequerboard.

    Attributes:
        u: Position of every pixel along the plan's first axis in metres, float32, shape (rows, columns).
        v: The same along the second axis.
        turn_rad: Rotation against east and south.
        bend_u: Shift of every pixel along the first axis in metres, float32, shape (rows, columns).
        bend_v: The same along the second axis.
    """

    u: FloatGrid
    v: FloatGrid
    turn_rad: float
    bend_u: FloatGrid
    bend_v: FloatGrid

    @classmethod
    def draw(cls, rng: np.random.Generator, canvas: Canvas) -> TownPlan:
        """Draw a plan with a random rotation.

        Args:
            rng: Source of the random numbers.
            canvas: Working grid.

        Returns:
            The plan.
        """
        east, south = canvas.coordinates()
        turn = float(np.deg2rad(rng.uniform(8, 32) * rng.choice([-1, 1])))
        bend_u, bend_v = (canvas.noise(rng, 150) * 7 + np.float32(rng.uniform(0, 60)) for _ in range(2))
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        return cls(east * cos + south * sin + bend_u, -east * sin + south * cos + bend_v, turn, bend_u, bend_v)

    def place(self, canvas: Canvas, u: FloatGrid, v: FloatGrid) -> tuple[FloatGrid, FloatGrid]:
        """Convert positions on the plan to positions on the canvas, by fixed-point iteration.

        Args:
            canvas: Working grid.
            u: Metres along the first axis, any shape.
            v: Metres along the second axis, same shape.

        Returns:
            Metres east and south, float32, same shape.
        """
        cos, sin = np.cos(self.turn_rad), np.sin(self.turn_rad)
        du, dv = np.full_like(u, self.bend_u.mean()), np.full_like(v, self.bend_v.mean())
        for _ in range(12):
            east, south = (u - du) * cos - (v - dv) * sin, (u - du) * sin + (v - dv) * cos
            du, dv = canvas.sample(self.bend_u, east, south), canvas.sample(self.bend_v, east, south)
        return east.astype(np.float32), south.astype(np.float32)

    def direction(self, canvas: Canvas, east: FloatGrid, south: FloatGrid) -> FloatGrid:
        """Find the local direction of the plan's first axis.

        Args:
            canvas: Working grid.
            east: Metres east, any shape.
            south: Metres south, same shape.

        Returns:
            Radians from east towards south, float32, same shape.
        """
        step = canvas.pixel_m * 8
        across = canvas.sample(self.u, east + step, south) - canvas.sample(self.u, east - step, south)
        down = canvas.sample(self.u, east, south + step) - canvas.sample(self.u, east, south - step)
        return np.asarray(np.arctan2(down, across), np.float32)


def draw_kinds(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.int32]:
    """Draw the kind of every block, in a fixed mixture so that every kind of building occurs in each neighbourhood.

    Args:
        rng: Source of the random numbers.
        rows: Blocks along the first axis.
        columns: Blocks along the second axis.

    Returns:
        `BlockKind`, int32, shape (rows, columns).
    """
    i, j = np.mgrid[:rows, :columns]
    pattern = np.array([BlockKind.COMMERCE, BlockKind.HOUSES, BlockKind.ROWS, BlockKind.PARK, BlockKind.HOUSES])
    kinds = pattern[(i + 2 * j + rng.integers(5)) % 5]
    swap = rng.random(kinds.shape)
    kinds = np.where((kinds == BlockKind.COMMERCE) & (swap < 0.35), BlockKind.HALLS, kinds)
    kinds = np.where((kinds == BlockKind.PARK) & (swap < 0.4), BlockKind.HOUSES, kinds)
    return np.where((kinds == BlockKind.HOUSES) & (swap > 0.88), BlockKind.COMMERCE, kinds).astype(np.int32)
