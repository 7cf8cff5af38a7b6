"""Houses, rows, shops and halls: one table row per lot, and one look-up per pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocrodino.town.noise import FloatGrid
from geocrodino.town.plan import (
    LOT_GRID,
    LOTS_PER_BLOCK,
    PITCH_M,
    SIDEWALK_M,
    BlockKind,
    Material,
    TownPlan,
    half_width,
)
from geocrodino.town.terrain import Canvas, Terrain


@dataclass(frozen=True)
class Lots:
    """At most one building per lot. All arrays have the shape (lots,). A lot without a building has length 0.

    Attributes:
        east_m: Centre of the building, metres east on the canvas.
        south_m: Centre of the building, metres south on the canvas.
        direction_rad: Direction of the long axis, radians from east towards south.
        half_length_m: Half the length along the long axis.
        half_width_m: Half the width across it.
        wing: Offset of a second body along the axis as a share of the half length; 0: no second body.
        eaves_m: Absolute height of the eaves.
        slope: Rise of a pitched roof, metres per metre; 0: flat.
        hipped: True where the ends of the roof slope too.
        green: True for flat roofs with plants.
    """

    east_m: FloatGrid
    south_m: FloatGrid
    direction_rad: FloatGrid
    half_length_m: FloatGrid
    half_width_m: FloatGrid
    wing: FloatGrid
    eaves_m: FloatGrid
    slope: FloatGrid
    hipped: NDArray[np.bool_]
    green: NDArray[np.bool_]


@dataclass(frozen=True)
class _Sites:
    """Block kind, centre and half size of every lot on the plan, shape (lots,)."""

    kind: NDArray[np.int32]
    used: NDArray[np.bool_]
    u: FloatGrid
    v: FloatGrid
    half_u: FloatGrid
    half_v: FloatGrid


def _sites(kinds: NDArray[np.int32], first: tuple[int, int]) -> _Sites:
    i, j, part = np.meshgrid(*(np.arange(n) for n in (*kinds.shape, LOTS_PER_BLOCK)), indexing="ij")
    i, j, part = (x.ravel() for x in (i, j, part))
    kind = kinds[i, j]
    lots_u, lots_v = LOT_GRID[kind, 0], LOT_GRID[kind, 1]
    centre, half = [], []
    for block, start, pitch, lots, number in (
        (i, first[0], PITCH_M[0], lots_u, part // lots_v),
        (j, first[1], PITCH_M[1], lots_v, part % lots_v),
    ):
        line = (block + start).astype(np.int32)
        here, beyond = half_width(line) + SIDEWALK_M, half_width(line + 1) + SIDEWALK_M
        depth = (pitch - here - beyond) / lots
        centre.append((line * pitch + here + (number + 0.5) * depth).astype(np.float32))
        half.append((depth / 2).astype(np.float32))
    return _Sites(kind, part < lots_u * lots_v, *centre, *half)


def draw_lots(
    rng: np.random.Generator,
    canvas: Canvas,
    plan: TownPlan,
    terrain: Terrain,
    kinds: NDArray[np.int32],
    first: tuple[int, int],
) -> Lots:
    """Draw a building for most lots that are dry and not a park.

    Args:
        rng: Source of the random numbers.
        canvas: Working grid.
        plan: Street plan.
        terrain: Ground and distance to the river.
        kinds: Kind of every block, int32, shape (rows, columns) of blocks.
        first: Numbers of the first block along the two axes.

    Returns:
        The buildings, indexed by lot number.
    """
    site = _sites(kinds, first)
    count = site.kind.size
    draw = lambda low, high: rng.uniform(low, high, count).astype(np.float32)  # noqa: E731
    houses, rows, shops, halls = (site.kind == k for k in list(BlockKind)[:4])

    fill_u = np.select([houses, rows, shops], [draw(0.45, 0.72), draw(0.8, 0.92), draw(0.5, 0.8)], draw(0.6, 0.85))
    fill_v = np.select([houses, rows, shops], [draw(0.4, 0.62), draw(0.36, 0.46), draw(0.45, 0.75)], draw(0.55, 0.8))
    half_u, half_v = site.half_u * fill_u, site.half_v * fill_v
    play_u, play_v = (site.half_u - half_u) * 0.55, (site.half_v - half_v) * 0.55
    u, v = site.u + play_u * draw(-1, 1), site.v + play_v * draw(-1, 1)
    east, south = plan.place(canvas, u, v)
    direction = plan.direction(canvas, east, south)
    turned = half_v > half_u
    direction = np.where(turned, direction + np.float32(np.pi / 2), direction)
    length, width = np.maximum(half_u, half_v), np.minimum(half_u, half_v)

    built = site.used & (site.kind != BlockKind.PARK) & (draw(0, 1) < np.where(houses, 0.93, 0.98))
    built &= canvas.sample(terrain.bank_m, east, south) > length + 7
    flat = shops | halls | (houses & (draw(0, 1) < 0.2)) | (rows & (draw(0, 1) < 0.25))
    slope = np.where(flat, 0, draw(0.5, 0.95))
    slope = np.where(rows, np.minimum(slope, 0.7), slope)
    storey = np.select([houses, rows, shops], [draw(3.0, 6.2), draw(6.0, 9.5), draw(3.6, 8.5)], draw(5.0, 12.0))
    base = canvas.sample(terrain.ground_m, east, south)
    for reach in (-1, 1):
        end_east, end_south = east + reach * length * np.cos(direction), south + reach * length * np.sin(direction)
        base = np.maximum(base, canvas.sample(terrain.ground_m, end_east, end_south))
    return Lots(
        east_m=east,
        south_m=south,
        direction_rad=direction.astype(np.float32),
        half_length_m=np.where(built, length, 0).astype(np.float32),
        half_width_m=width.astype(np.float32),
        wing=np.where((shops | houses) & (draw(0, 1) < 0.45), draw(0.3, 0.6) * rng.choice([-1, 1], count), 0),
        eaves_m=(base + storey).astype(np.float32),
        slope=slope.astype(np.float32),
        hipped=draw(0, 1) < 0.4,
        green=(slope == 0) & (draw(0, 1) < 0.3),
    )


def raise_buildings(
    canvas: Canvas, lots: Lots, lot: NDArray[np.int32], material: NDArray[np.uint8], surface_m: FloatGrid
) -> None:
    """Put the buildings on the ground; changes ``material`` and ``surface_m`` in place.

    A building is a rectangle inside its lot, or a narrower rectangle with a wing across it. Streets and water stay
    free.

    Args:
        canvas: Working grid.
        lots: The buildings.
        lot: Lot number of every pixel, int32, shape (rows, columns).
        material: `Material` of every pixel, uint8, same shape.
        surface_m: Height of the surface in metres, float32, same shape.
    """
    east, south = canvas.coordinates()
    dx, dy = east - lots.east_m[lot], south - lots.south_m[lot]
    cos, sin = np.cos(lots.direction_rad)[lot], np.sin(lots.direction_rad)[lot]
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    length, width, wing = lots.half_length_m[lot], lots.half_width_m[lot], lots.wing[lot].astype(np.float32)
    slope, hipped = lots.slope[lot], lots.hipped[lot]

    winged = wing != 0
    body_width = np.where(winged, width * np.float32(0.62), width)
    shift = np.where(winged, (width - body_width) * np.sign(wing), 0)
    to_side, to_end = body_width - np.abs(across - shift), length - np.abs(along)
    rise = np.where(hipped, np.minimum(to_side, to_end), to_side)
    body = np.minimum(to_side, to_end) > 0

    wing_half = length * np.float32(0.3)
    wing_side, wing_end = wing_half - np.abs(along - wing * length), width - np.abs(across)
    in_wing = winged & (np.minimum(wing_side, wing_end) > 0)
    wing_rise = np.where(hipped, np.minimum(wing_side, wing_end), wing_side)
    height = np.maximum(np.where(body, rise, 0), np.where(in_wing, wing_rise, 0)) * slope

    streets = np.isin(material, (Material.PAVEMENT, Material.MARKING, Material.WATER))
    built = (body | in_wing) & (length > 0) & ~streets
    surface_m[built] = (lots.eaves_m[lot] + height)[built]
    flat = built & (slope == 0)
    parapet = flat & np.where(in_wing, np.minimum(wing_side, wing_end) < 0.5, np.minimum(to_side, to_end) < 0.5)
    surface_m[parapet] += np.float32(0.35)
    material[built] = Material.PITCHED_ROOF
    material[flat] = Material.FLAT_ROOF
    material[flat & lots.green[lot]] = Material.GREEN_ROOF
