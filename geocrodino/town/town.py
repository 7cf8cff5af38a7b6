"""Streets, yards and buildings, looked up per pixel, so that the cost does not depend on their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocrodino.town.buildings import draw_lots, raise_buildings
from geocrodino.town.noise import FloatGrid
from geocrodino.town.plan import (
    LOT_GRID,
    LOTS_PER_BLOCK,
    PITCH_M,
    SIDEWALK_M,
    Axis,
    BlockKind,
    Material,
    TownPlan,
    draw_kinds,
    read_axis,
)
from geocrodino.town.terrain import WATER_LEVEL_M, Canvas, Terrain


@dataclass(frozen=True)
class Town:
    """The built surface.

    Attributes:
        material: `Material` of every pixel, uint8, shape (rows, columns).
        surface_m: Height of ground, water or roof in metres, float32, shape (rows, columns).
        lot: Number of the lot that a pixel lies in, int32, shape (rows, columns); selects colours.
        street: Number of the nearest street, int32, shape (rows, columns); selects the grey of the asphalt.
        park: True in park blocks, shape (rows, columns).
        lot_count: Number of lots.
        street_count: Number of streets.
    """

    material: NDArray[np.uint8]
    surface_m: FloatGrid
    lot: NDArray[np.int32]
    street: NDArray[np.int32]
    park: NDArray[np.bool_]
    lot_count: int
    street_count: int


_SEALED = (Material.ASPHALT, Material.PAVEMENT, Material.MARKING, Material.CAR)


def build_town(rng: np.random.Generator, canvas: Canvas, terrain: Terrain) -> Town:
    """Lay streets over the terrain, and fill the blocks between them.

    Args:
        rng: Source of the random numbers.
        canvas: Working grid.
        terrain: Ground, water and distance to the river.

    Returns:
        The town, without trees.
    """
    plan = TownPlan.draw(rng, canvas)
    a, b = read_axis(plan.u, PITCH_M[0]), read_axis(plan.v, PITCH_M[1])
    kinds = draw_kinds(rng, a.count, b.count)
    kind = kinds[a.block, b.block]
    lots_u, lots_v = LOT_GRID[kind, 0], LOT_GRID[kind, 1]
    part_u = np.clip((a.into_m / a.depth_m * lots_u).astype(np.int32), 0, lots_u - 1)
    part_v = np.clip((b.into_m / b.depth_m * lots_v).astype(np.int32), 0, lots_v - 1)
    lot = ((a.block * b.count + b.block) * LOTS_PER_BLOCK + part_u * lots_v + part_v).astype(np.int32)

    material = _ground_cover(rng, canvas, kind, a, b)
    _pave(rng, canvas, material, plan, a, b)
    street = np.where(a.street_m < b.street_m, a.street, a.count + 1 + b.street).astype(np.int32)

    surface = terrain.ground_m.copy()
    water = terrain.bank_m < 0
    crossing = (a.along_main & (a.street_m < 6.1)) | (b.along_main & (b.street_m < 6.1))
    bridge = water & crossing
    material[water & ~bridge] = Material.WATER
    surface[bridge] = WATER_LEVEL_M + 0.45
    shore = ~water & (terrain.bank_m < 9) & np.isin(material, _SEALED)
    material[shore & ~crossing] = Material.GRASS

    lots = draw_lots(rng, canvas, plan, terrain, kinds, (a.first, b.first))
    raise_buildings(canvas, lots, lot, material, surface)
    return Town(
        material=material,
        surface_m=surface,
        lot=lot,
        street=street,
        park=kind == BlockKind.PARK,
        lot_count=kinds.size * LOTS_PER_BLOCK,
        street_count=a.count + b.count + 2,
    )


def _ground_cover(
    rng: np.random.Generator, canvas: Canvas, kind: NDArray[np.int32], a: Axis, b: Axis
) -> NDArray[np.uint8]:
    """Grass and bare soil; in commercial blocks, asphalt yards with parked cars."""
    patchy = canvas.octaves(rng, 22, 7)
    material = np.where(patchy > 1.75, Material.SOIL, Material.GRASS).astype(np.uint8)
    edge = np.minimum(np.minimum(a.into_m, a.depth_m - a.into_m), np.minimum(b.into_m, b.depth_m - b.into_m))
    yard = np.isin(kind, (BlockKind.COMMERCE, BlockKind.HALLS)) & (edge > 3.2) & (patchy < 1.2)
    material[yard] = Material.ASPHALT
    stall_u, stall_v = np.floor(a.into_m / 2.7), np.floor(b.into_m / 5.6)
    table = rng.random((997,), np.float32)
    taken = table[((stall_u * 31 + stall_v * 17 + a.block * 101 + b.block * 57).astype(np.int64)) % 997] < 0.3
    in_stall = (np.abs(a.into_m - (stall_u + 0.5) * 2.7) < 0.95) & (np.abs(b.into_m - (stall_v + 0.5) * 5.6) < 2.2)
    material[yard & taken & in_stall & (stall_v % 3 == 1)] = Material.CAR
    return material


def _pave(
    rng: np.random.Generator, canvas: Canvas, material: NDArray[np.uint8], plan: TownPlan, a: Axis, b: Axis
) -> None:
    """Streets with pavements, markings on main streets and a few cars; changes the material in place."""
    for axis in (a, b):
        material[axis.street_m < axis.half_width_m + SIDEWALK_M] = Material.PAVEMENT
    table = rng.random((997,), np.float32)
    for axis in (a, b):
        material[axis.street_m < axis.half_width_m] = Material.ASPHALT
    for axis, along, other in ((a, plan.v, b), (b, plan.u, a)):
        free = other.street_m > other.half_width_m + 3
        dash = axis.along_main & (axis.street_m < max(0.12, canvas.pixel_m / 3)) & (along % 9 < 3) & free
        material[dash] = Material.MARKING
        place = np.floor(along / 6.5)
        taken = table[np.abs((place * 13 + axis.street * 71).astype(np.int64)) % 997] < 0.12
        kerb = np.abs(axis.street_m - axis.half_width_m + 1.1) < 0.85
        material[kerb & taken & (np.abs(along - (place + 0.5) * 6.5) < 2.1) & free] = Material.CAR
