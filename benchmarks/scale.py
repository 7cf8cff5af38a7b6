"""Measure the costs of large predictions apart from the network: parts, ledger, virtual raster, COG copy, many inputs.

python benchmarks/scale.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.geo.rasters.scene import open_scene
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import class_map
from geocrodino.maps.ledger import Ledger
from geocrodino.maps.writer import MapWriter
from geocrodino.prediction.tiles.lattice import blocks
from geocrodino.settings.classes import ClassScheme

CLASSES = ClassScheme.from_values(range(6))
TILE_PX, LARGE_PX = 1152, 9216
SIDE_PX, COUNTRY_PX = 16384, 1_000_000
INPUTS = 2_000
"""Number of input files."""


def grid(side: int) -> GeoBox:
    """Create a square grid with pixels of 20 cm.

    Args:
        side: Height and width in px.

    Returns:
        The grid.
    """
    return GeoBox((side, side), Affine(0.2, 0, 5e5, 0, -0.2, 5e6), "EPSG:32631")


@contextmanager
def timed() -> Iterator[list[float]]:
    """Measure the wall time of a block.

    Yields:
        A list that holds the seconds after the block.
    """
    found: list[float] = []
    started = time.perf_counter()
    yield found
    found.append(time.perf_counter() - started)


def parts_and_copy(folder: Path) -> None:
    """Measure writing a map block by block, and copying the blocks to one file.

    Args:
        folder: Where to write.
    """
    values = np.kron(np.random.default_rng(0).integers(0, 6, (96, 96)), np.ones((12, 12))).astype(np.uint8)[None]
    windows = blocks((SIDE_PX, SIDE_PX), TILE_PX)
    path = folder / "map.tif"
    with rasterio.Env(GDAL_CACHEMAX=64 * 2**20):
        writer = MapWriter((class_map(path, CLASSES),), grid(SIDE_PX))
        writer.__enter__()
        with timed() as writing:
            for r0, r1, c0, c1 in windows:
                writer.write((r0, r1, c0, c1), [values[:, : r1 - r0, : c1 - c0]], note=[[r0, 1, 1, 5]] * 6)
        with timed() as copying:
            writer.__exit__(None, None, None)
    print(f"| a block of {TILE_PX} px, encoded and on the disk | {1000 * writing[0] / len(windows):.0f} ms |")
    print(f"| copy of the blocks to one COG | {SIDE_PX**2 / 1e6 / copying[0]:.0f} Mpx/s |")
    print(f"| bytes a pixel of it | {path.stat().st_size / SIDE_PX**2:.3f} |")


def virtual_raster(folder: Path, block_px: int) -> None:
    """Measure a virtual raster over the blocks of a map of a country.

    Args:
        folder: Where to write.
        block_px: Side of the blocks in px.
    """
    windows: list[Window] = blocks((COUNTRY_PX, COUNTRY_PX), block_px)
    path = folder / "country.vrt"
    named = ((window, f"country.parts/{'-'.join(map(str, window))}.tif") for window in windows)
    path.write_text(class_map(path, CLASSES).mosaic(grid(COUNTRY_PX), named), encoding="utf-8")
    with timed() as opening:
        rasterio.open(path).close()
    size = path.stat().st_size / 1e6
    print(f"| virtual raster over {len(windows):,} blocks | {size:.1f} MB, opens in {opening[0]:.1f} s |")


def ledger(folder: Path) -> None:
    """Measure reading the ledger of a map of a country.

    Args:
        folder: Where to write.
    """
    windows = blocks((COUNTRY_PX, COUNTRY_PX), LARGE_PX)
    path, note = folder / "ledger.tif", [[strip, index, 1, 12345] for strip in range(18) for index in range(6)]
    try:
        with Ledger(path, {}) as begun:
            for window in windows:
                begun.add("-".join(map(str, window)), {"files": [True], "note": note})
            raise KeyboardInterrupt  # leaves the ledger on the disk
    except KeyboardInterrupt:
        pass
    with timed() as reading, Ledger(path, {}, resume=True) as again:
        pass
    print(f"| ledger of {len(again.done):,} blocks, read again | {reading[0]:.1f} s |")


def inputs(folder: Path) -> None:
    """Measure opening many files as one scene.

    Args:
        folder: Where to write.
    """
    tiles = folder / "tiles"
    tiles.mkdir()
    side = int(np.ceil(np.sqrt(INPUTS)))
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 3, "dtype": "uint8", "crs": "EPSG:32631"}
    for number in range(INPUTS):
        row, col = divmod(number, side)
        transform = grid(1).affine @ Affine.translation(64 * col, 64 * row)
        with rasterio.open(tiles / f"{number:05d}.tif", "w", **profile, transform=transform) as file:
            file.write(np.ones((3, 64, 64), np.uint8))
    with timed() as opening:
        open_scene(tiles)
    print(f"| header of one of {INPUTS:,} input files | {1000 * opening[0] / INPUTS:.1f} ms |")


def main() -> None:
    """Measure and print a Markdown table."""
    print("| what | cost |\n|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts_and_copy(folder)
        virtual_raster(folder, LARGE_PX)
        virtual_raster(folder, TILE_PX)
        ledger(folder)
        inputs(folder)


if __name__ == "__main__":
    main()
