"""The generated scene: terrain, town, trees, image, heights, labels and areas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage
from shapely import Polygon

from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.town import ELEVATION_NODATA, SceneSettings
from geocrodino.town.noise import FloatGrid, white_noise
from geocrodino.town.plan import MATERIAL_CLASS, Material
from geocrodino.town.rendering import render
from geocrodino.town.terrain import Canvas, Terrain, build_terrain
from geocrodino.town.town import Town, build_town
from geocrodino.town.trees import plant_trees

CRS = "EPSG:32631"
ORIGIN_M = (448_300.0, 5_411_900.0)
MARGIN_M = 44.0
ELEVATION_BEYOND_M = {"west": 21.75, "north": 14.25, "east": -3.0, "south": 8.0}
"""How far the heights extend beyond the image on each side; negative: they end inside it."""

AOI_INSET_M, AOI_GAP_M, AOI_SLANT_M = 8.0, 12.0, 4.0
SPLIT_SHARES = (("train", 0.42), ("val", 0.29), ("test", 0.29))


@dataclass(frozen=True)
class Scene:
    """A generated scene. Arrays are north up.

    Attributes:
        settings: The settings it was generated from.
        optical: Red, green, blue, uint8, shape (3, H, W).
        labels: Class values, 255 for unlabelled pixels, uint8, shape (H, W).
        material: `Material` of every pixel, uint8, shape (H, W).
        shadow: True in cast shadow, shape (H, W).
        optical_transform: Transform from pixels to the CRS for the four arrays above.
        dsm: Surface heights in metres, -9999 in holes, float32, shape (h, w).
        dtm: Ground heights in metres, float32, shape (h, w).
        elevation_transform: Transform from pixels to the CRS for the two arrays above.
        areas: Split name and polygon of each area, in the CRS.
        crs: Coordinate reference system.
    """

    settings: SceneSettings
    optical: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    material: NDArray[np.uint8]
    shadow: NDArray[np.bool_]
    optical_transform: Affine
    dsm: FloatGrid
    dtm: FloatGrid
    elevation_transform: Affine
    areas: tuple[tuple[str, Polygon], ...]
    crs: str = CRS


def generate_scene(settings: SceneSettings | None = None) -> Scene:
    """Generate a small town on hills, with a river.

    Neither modality is sufficient alone: flat roofs have the greys of asphalt, green roofs have the colours of grass,
    and water is level with the meadows and streets beside it.

    Args:
        settings: Settings; None: the defaults.

    Returns:
        The scene. If it is at least 256 m wide, every split contains every class. Generating takes about 210 bytes of
        memory per pixel.
    """
    settings = settings or SceneSettings()
    pixel_m = settings.resolution_m
    canvas = Canvas.around(round(settings.size_m / pixel_m), pixel_m, MARGIN_M)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(settings.seed).spawn(5)]
    terrain = build_terrain(streams[0], canvas, settings.relief_m)
    town = build_town(streams[1], canvas, terrain)
    plant_trees(streams[2], canvas, terrain, town)
    image, shadow = render(streams[3], canvas, town, settings)
    dsm, dtm, elevation_transform = _measure_heights(streams[4], canvas, terrain, town, settings)
    labels = MATERIAL_CLASS[town.material]
    if settings.ignore_edges:
        labels = _without_edges(labels)
    rows, columns = canvas.inside
    return Scene(
        settings=settings,
        optical=image[:, rows, columns].copy(),
        labels=labels[rows, columns].copy(),
        material=town.material[rows, columns].copy(),
        shadow=shadow[rows, columns].copy(),
        optical_transform=Affine(pixel_m, 0, ORIGIN_M[0], 0, -pixel_m, ORIGIN_M[1]),
        dsm=dsm,
        dtm=dtm,
        elevation_transform=elevation_transform,
        areas=split_areas(canvas.pixel_m * (canvas.columns - 2 * canvas.margin_px)),
    )


def _without_edges(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels with 255 on pixels whose eastern or southern neighbour has another class."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return np.where(edge, np.uint8(IGNORE_INDEX), labels)


def _measure_heights(
    rng: np.random.Generator, canvas: Canvas, terrain: Terrain, town: Town, settings: SceneSettings
) -> tuple[FloatGrid, FloatGrid, Affine]:
    """The surface with noise and holes, and the true ground, on the grid of the heights."""
    step = settings.elevation_resolution_m
    side = canvas.pixel_m * (canvas.columns - 2 * canvas.margin_px)
    beyond = ELEVATION_BEYOND_M
    columns, rows = (int((side + beyond[a] + beyond[b]) / step) for a, b in (("west", "east"), ("north", "south")))
    margin = canvas.margin_px * canvas.pixel_m
    east = margin - beyond["west"] + (np.arange(columns) + 0.5) * step
    south = margin - beyond["north"] + (np.arange(rows) + 0.5) * step

    blur = 0.3 * max(step / canvas.pixel_m, 1.0)
    surface = _bilinear(ndimage.gaussian_filter(town.surface_m, blur), canvas, east, south)
    ground = _bilinear(ndimage.gaussian_filter(terrain.ground_m, blur), canvas, east, south)
    grid = np.meshgrid(east, south)
    water = canvas.sample(town.material, *grid) == Material.WATER
    noise = white_noise(rng, surface.shape) * np.where(water, 1.6, 1.0) * settings.elevation_noise_m
    patches = ndimage.gaussian_filter(white_noise(rng, surface.shape), 6.0)
    specks = ndimage.gaussian_filter(white_noise(rng, surface.shape), 0.8)
    holes = specks > np.quantile(specks, 1 - settings.hole_share)
    holes |= water & (patches > 0.35 * patches.std())
    dsm = np.where(holes, np.float32(ELEVATION_NODATA), (surface + noise).astype(np.float32))
    transform = Affine(step, 0, ORIGIN_M[0] - beyond["west"], 0, -step, ORIGIN_M[1] + beyond["north"])
    return dsm, ground, transform


def _bilinear(field: FloatGrid, canvas: Canvas, east: NDArray[Any], south: NDArray[Any]) -> FloatGrid:
    """Values at all pairs of the given positions in metres, shape (south, east)."""
    row, column = south / canvas.pixel_m - 0.5, east / canvas.pixel_m - 0.5
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    down, right = (row - top)[:, None], (column - left)[None, :]
    upper = field[np.ix_(top, left)] * (1 - right) + field[np.ix_(top, left + 1)] * right
    lower = field[np.ix_(top + 1, left)] * (1 - right) + field[np.ix_(top + 1, left + 1)] * right
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def split_areas(side_m: float) -> tuple[tuple[str, Polygon], ...]:
    """Divide the image into slightly slanted north-south strips: train, val and test in turn, with gaps between them.

    Args:
        side_m: Side of the image in metres.

    Returns:
        Split name and polygon of each strip, in the scene's CRS. The three splits repeat about every 770 m.
    """
    repeats = max(1, round(side_m / 768))
    width = side_m - 2 * AOI_INSET_M - AOI_SLANT_M - AOI_GAP_M * (3 * repeats - 1)
    west, north = ORIGIN_M[0] + AOI_INSET_M, ORIGIN_M[1] - AOI_INSET_M
    south = ORIGIN_M[1] - side_m + AOI_INSET_M
    areas = []
    for name, share in SPLIT_SHARES * repeats:
        east = west + width * share / repeats
        lean = AOI_SLANT_M
        areas.append((name, Polygon([(west, north), (east, north), (east + lean, south), (west + lean, south)])))
        west = east + AOI_GAP_M
    return tuple(areas)
