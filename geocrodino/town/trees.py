"""Trees: at most one for each cell of a square grid, at a random place in the cell.

Each pixel looks for crowns in its own cell and the eight around it.
"""

from __future__ import annotations

import numpy as np

from geocrodino.town.noise import FloatGrid
from geocrodino.town.plan import Material
from geocrodino.town.terrain import Canvas, Terrain
from geocrodino.town.town import Town

CELL_M = 6.0
"""Side of a cell."""


def plant_trees(rng: np.random.Generator, canvas: Canvas, terrain: Terrain, town: Town) -> None:
    """Plant trees on grass and along pavements; changes the town's material and surface in place.

    Crowns are half ellipsoids with a rough surface. They cover streets and roofs that are lower than the crown.

    Args:
        rng: Source of the random numbers.
        canvas: Working grid.
        terrain: Ground and distance to the river.
        town: The town without trees.
    """
    rows, columns = (int(np.ceil(n * canvas.pixel_m / CELL_M)) + 2 for n in canvas.shape)
    east = ((np.arange(columns) - 1)[None, :] + rng.uniform(0.1, 0.9, (rows, columns))).astype(np.float32) * CELL_M
    south = ((np.arange(rows) - 1)[:, None] + rng.uniform(0.1, 0.9, (rows, columns))).astype(np.float32) * CELL_M

    under = canvas.sample(town.material, east, south)
    bank = canvas.sample(terrain.bank_m, east, south)
    grove = canvas.sample(canvas.octaves(rng, 40, 15), east, south)
    chance = 0.16 + 0.22 * np.clip(grove, -0.6, 2.5) + 0.3 * canvas.sample(town.park, east, south)
    chance = np.where((bank > 0.5) & (bank < 12), 0.22 + 0.25 * np.clip(grove, -0.8, 2), chance)
    chance = np.select([under == Material.GRASS, under == Material.PAVEMENT], [chance, np.full_like(chance, 0.13)], 0)
    grows = rng.random(chance.shape) < chance
    radius = np.where(grows, np.clip(rng.normal(2.9, 0.9, chance.shape), 1.3, 4.9), 0).astype(np.float32)
    tall = (radius * rng.uniform(1.7, 3.2, radius.shape)).astype(np.float32)
    base = canvas.sample(terrain.ground_m, east, south).astype(np.float32)

    crown = _crowns(rng, canvas, east, south, radius, tall, base)
    tree = crown > town.surface_m + 0.8
    town.surface_m[tree] = crown[tree]
    town.material[tree] = Material.TREE


def _crowns(
    rng: np.random.Generator,
    canvas: Canvas,
    east: FloatGrid,
    south: FloatGrid,
    radius: FloatGrid,
    tall: FloatGrid,
    base: FloatGrid,
) -> FloatGrid:
    """Height of the highest crown over every pixel, minus infinity where there is none."""
    x, y = canvas.coordinates()
    leaves = canvas.octaves(rng, 1.6, 0.8)
    outline = 1 + 0.13 * leaves
    column, row = (x / CELL_M).astype(np.int32) + 1, (y / CELL_M).astype(np.int32) + 1
    crown = np.full(canvas.shape, -np.inf, np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            cell = (np.clip(row + down, 0, radius.shape[0] - 1), np.clip(column + right, 0, radius.shape[1] - 1))
            reach = np.maximum(radius[cell], 1e-3)
            squared = ((x - east[cell]) ** 2 + (y - south[cell]) ** 2) / (reach * outline) ** 2
            dome = np.sqrt(np.maximum(1 - squared, 0))
            height = base[cell] + tall[cell] * (0.42 + 0.58 * dome) + 0.35 * leaves
            np.maximum(crown, np.where((squared < 1) & (radius[cell] > 0), height, -np.inf), out=crown)
    return crown
