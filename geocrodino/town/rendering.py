"""The image: light, shadow and colours as seen by a camera above the town."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geocrodino.settings.town import SceneSettings
from geocrodino.town.noise import FloatGrid, white_noise
from geocrodino.town.plan import Material
from geocrodino.town.terrain import Canvas
from geocrodino.town.town import Town

Pixels = NDArray[np.bool_]

GREY_MEAN, GREY_SPREAD = 108.0, 11.0
"""Grey of asphalt and of flat roofs alike: mean and standard deviation between streets and between roofs."""

_TILES = np.array(
    [[150, 82, 64], [172, 104, 78], [116, 84, 70], [84, 88, 97], [118, 114, 110], [134, 92, 78], [98, 92, 90]],
    np.float32,
)
_CARS = np.array([[205, 205, 205], [60, 60, 64], [150, 152, 156], [120, 40, 40], [50, 66, 104]], np.float32)
_SKY_LIGHT = np.array([0.33, 0.36, 0.42], np.float32)
_HAZE = np.array([5.0, 7.0, 12.0], np.float32)


def cast_shadows(surface_m: FloatGrid, pixel_m: float, azimuth_deg: float, elevation_deg: float) -> NDArray[np.bool_]:
    """Find the pixels from which the sun is hidden.

    For all pixels together, heights are compared step by step towards the sun, one row or column per step, with linear
    interpolation.

    Args:
        surface_m: Heights in metres, north up, float32, shape (H, W).
        pixel_m: Side of a pixel in metres.
        azimuth_deg: Direction to the sun, clockwise from north.
        elevation_deg: Height of the sun above the horizon.

    Returns:
        True in cast shadow, shape (H, W). Nothing outside the grid casts a shadow.
    """
    down, right = -np.cos(np.deg2rad(azimuth_deg)), np.sin(np.deg2rad(azimuth_deg))
    if abs(right) > abs(down):
        return cast_shadows(
            np.ascontiguousarray(surface_m.T), pixel_m, (270 - azimuth_deg) % 360, elevation_deg
        ).T.copy()
    if down > 0:
        return cast_shadows(surface_m[::-1], pixel_m, (180 - azimuth_deg) % 360, elevation_deg)[::-1].copy()
    rows, columns = surface_m.shape
    drift = right / -down
    climb = np.tan(np.deg2rad(elevation_deg)) * pixel_m * np.hypot(1, drift)
    reach = min(rows - 1, int(np.ptp(surface_m) / climb) + 1)
    pad = int(np.ceil(abs(drift) * reach)) + 1
    padded = np.pad(surface_m, ((0, 0), (pad, pad)), constant_values=-np.inf)
    shadow = np.zeros(surface_m.shape, bool)
    for step in range(1, reach + 1):
        shift = drift * step
        whole = int(np.floor(shift))
        part = np.float32(shift - whole)
        start = pad + whole
        hidden_by = padded[: rows - step, start : start + columns]
        if part > 0:
            hidden_by = (1 - part) * hidden_by + part * padded[: rows - step, start + 1 : start + 1 + columns]
        shadow[step:] |= hidden_by > surface_m[step:] + np.float32(climb * step)
    return shadow


def sunlight(surface_m: FloatGrid, pixel_m: float, azimuth_deg: float, elevation_deg: float) -> FloatGrid:
    """Compute the direct light on the surface from its slope, without cast shadows.

    Args:
        surface_m: Heights in metres, north up, float32, shape (H, W).
        pixel_m: Side of a pixel in metres.
        azimuth_deg: Direction to the sun, clockwise from north.
        elevation_deg: Height of the sun above the horizon.

    Returns:
        Light relative to level ground, 0.15 to 1.5, float32, shape (H, W).
    """
    south, east = (np.clip(g, -1.4, 1.4) for g in np.gradient(surface_m, pixel_m))
    azimuth, elevation = np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg)
    towards_east, towards_south = np.sin(azimuth), -np.cos(azimuth)
    facing = np.sin(elevation) - np.cos(elevation) * (east * towards_east + south * towards_south)
    light = np.maximum(facing, 0) / np.sqrt(1 + east**2 + south**2) / np.sin(elevation)
    return np.asarray(np.clip(light, 0.15, 1.5), np.float32)


def _textures(rng: np.random.Generator, canvas: Canvas) -> dict[Material, FloatGrid]:
    """Brightness of each material, about 1, shape (rows, columns)."""
    coarse, fine = canvas.octaves(rng, 18, 6), canvas.octaves(rng, 1.5, 0.8)
    leaves = canvas.octaves(rng, 7, 1.2, 0.7)
    grain = white_noise(rng, canvas.shape)
    sealed = 1 + 0.09 * canvas.octaves(rng, 70, 28) + 0.04 * coarse + 0.02 * fine + 0.025 * grain
    return {
        Material.GRASS: 1 + 0.09 * coarse + 0.05 * fine,
        Material.SOIL: 1 + 0.06 * coarse + 0.05 * fine,
        Material.GREEN_ROOF: 1 + 0.08 * coarse + 0.05 * fine,
        Material.TREE: 1 + 0.10 * leaves + 0.07 * fine,
        Material.WATER: 1 + 0.05 * coarse + 0.02 * grain,
        Material.PITCHED_ROOF: 1 + 0.02 * coarse + 0.05 * grain,
        Material.ASPHALT: sealed,
        Material.FLAT_ROOF: sealed,
        Material.PAVEMENT: sealed,
        Material.MARKING: sealed,
        Material.CAR: 1 + 0.02 * grain,
    }


def _greys(rng: np.random.Generator, count: int) -> FloatGrid:
    """Colours of asphalt or flat roofs, both from the same distribution, shape (count, 3)."""
    grey = np.clip(rng.normal(GREY_MEAN, GREY_SPREAD, (count, 1)), 62, 180)
    return (grey * (1 + rng.normal(0, 0.012, (count, 3)))).astype(np.float32)


def _blend(share: FloatGrid, one: tuple[int, int, int], other: tuple[int, int, int]) -> FloatGrid:
    """Colours between two, shape (N, 3)."""
    part = np.clip(share, 0, 1)[:, None]
    return np.asarray(np.array(one) * (1 - part) + np.array(other) * part, np.float32)


def _paints(rng: np.random.Generator, canvas: Canvas, town: Town) -> dict[Material, Callable[[Pixels], FloatGrid]]:
    """For each material, a function from a mask of N pixels to their colours, shape (N, 3)."""
    dry, damp, hue = canvas.noise(rng, 45), canvas.noise(rng, 60), canvas.noise(rng, 5)
    asphalt, roofs = _greys(rng, town.street_count), _greys(rng, town.lot_count)
    tiles = _TILES[rng.integers(len(_TILES), size=town.lot_count)] * rng.uniform(0.85, 1.12, (town.lot_count, 1))
    tiles = (tiles + rng.normal(0, 6, tiles.shape)).astype(np.float32)
    plants = rng.uniform(-0.3, 1.0, town.lot_count).astype(np.float32)
    east, south = ((metres / 6).astype(int) for metres in canvas.coordinates())
    cars = rng.integers(len(_CARS), size=(south.max() + 1, east.max() + 1))[south, east]
    return {
        Material.GRASS: lambda m: _blend(0.4 + 0.35 * dry[m], (84, 106, 62), (134, 124, 84)),
        Material.GREEN_ROOF: lambda m: _blend(plants[town.lot[m]] + 0.2 * dry[m], (84, 104, 62), (132, 120, 84)),
        Material.TREE: lambda m: _blend(0.45 + 0.3 * hue[m], (52, 80, 44), (86, 98, 54)),
        Material.WATER: lambda m: _blend(0.5 + 0.3 * damp[m], (48, 66, 68), (70, 84, 66)),
        Material.SOIL: lambda _: np.array([142, 122, 98], np.float32),
        Material.ASPHALT: lambda m: asphalt[town.street[m]],
        Material.FLAT_ROOF: lambda m: roofs[town.lot[m]],
        Material.PAVEMENT: lambda m: np.float32(0.5) * asphalt[town.street[m]] + np.array([74, 73, 70], np.float32),
        Material.MARKING: lambda _: np.array([196, 195, 190], np.float32),
        Material.CAR: lambda m: _CARS[cars[m]],
        Material.PITCHED_ROOF: lambda m: tiles[town.lot[m]],
    }


def _albedo(rng: np.random.Generator, canvas: Canvas, town: Town) -> FloatGrid:
    """Colours of the surface in uniform light, shape (rows, columns, 3)."""
    textures = _textures(rng, canvas)
    colour = np.zeros((*canvas.shape, 3), np.float32)
    for material, paint in _paints(rng, canvas, town).items():
        here = town.material == material
        colour[here] = paint(here) * textures[material][here][:, None]
    return colour


def render(
    rng: np.random.Generator, canvas: Canvas, town: Town, settings: SceneSettings
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Render the image of the town.

    Args:
        rng: Source of the random numbers.
        canvas: Working grid.
        town: Materials and the surface, with trees.
        settings: Sun and noise.

    Returns:
        The image, uint8, shape (3, rows, columns), and the cast shadow, bool, shape (rows, columns).
    """
    sun = settings.sun_azimuth_deg, settings.sun_elevation_deg
    shadow = cast_shadows(town.surface_m, canvas.pixel_m, *sun)
    direct = sunlight(town.surface_m, canvas.pixel_m, *sun)
    direct *= 1 - ndimage.gaussian_filter(shadow.astype(np.float32), 0.35 / canvas.pixel_m)
    colour = _albedo(rng, canvas, town)
    uneven = 1 + 0.05 * canvas.noise(rng, 260)
    image = np.empty((3, *canvas.shape), np.uint8)
    for band in range(3):
        tint = uneven + 0.02 * canvas.noise(rng, 310)
        light = (_SKY_LIGHT[band] + (1.08 - _SKY_LIGHT[band]) * direct) * tint
        seen = ndimage.gaussian_filter(colour[..., band] * light, 0.25 / canvas.pixel_m) * 1.12 + _HAZE[band]
        grain = white_noise(rng, canvas.shape) * settings.image_noise * np.sqrt(0.4 + seen / 180)
        image[band] = np.clip(np.rint(seen + grain), 0, 255)
    return image, shadow
