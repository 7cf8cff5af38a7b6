"""Measure accuracy and repeatability of reading on another grid: geocrodino and GDAL's warper (through rasterio).

    python benchmarks/warping.py

A generated, steep elevation model in degrees (pixels of about 90 m) is read on a UTM grid of 30 m, once as a whole and
once by a smaller window. Prints the largest difference from the exact bilinear value, and the largest difference
between the two readings, in metres.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject
from scipy.ndimage import gaussian_filter, map_coordinates

from geocrodino.geo.rasters.grid import window_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window

STEP = 1 / 1200
"""Side of a pixel in degrees."""


def _relief(path: Path) -> RasterSource:
    noise = np.random.default_rng(0).normal(size=(460, 460))
    heights = gaussian_filter(noise, 3)
    heights = (1500 + 400 * heights / heights.std()).astype(np.float32)
    transform = from_origin(-113.24, 37.51, STEP, STEP)
    with rasterio.open(path, "w", driver="GTiff", height=460, width=460, count=1, dtype="float32", crs="EPSG:4326",
                       transform=transform) as file:  # fmt: skip
        file.write(heights[None])
    return RasterSource.open(path)


def _gdal(source: RasterSource, grid: GeoBox, window: Window, tolerance: float) -> np.ndarray:
    target = window_grid(grid, window)
    out = np.full((1, *target.shape), np.nan, np.float32)
    values, _ = source.read(source.geobox)
    reproject(values, out, src_transform=source.geobox.affine, src_crs="EPSG:4326", src_nodata=np.nan,
              dst_transform=target.affine, dst_crs=str(grid.crs), dst_nodata=np.nan, resampling=Resampling.bilinear,
              tolerance=tolerance)  # fmt: skip
    return out[0]


def _exact(source: RasterSource, grid: GeoBox) -> np.ndarray:
    rows, cols = np.indices(grid.shape) + 0.5
    x, y = grid.affine.a * cols + grid.affine.c, grid.affine.e * rows + grid.affine.f
    lon, lat = pyproj.Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True).transform(x, y)
    back = ~source.geobox.affine
    values, _ = source.read(source.geobox)
    return map_coordinates(values[0].astype(float), [back.e * lat + back.f - 0.5, back.a * lon + back.c - 0.5], order=1)


def main() -> None:
    """Measure and print a Markdown table."""
    with tempfile.TemporaryDirectory() as folder:
        source = _relief(Path(folder) / "dem.tif")
        grid = GeoBox((1000, 800), Affine(30, 0, 310_000, 0, -30, 4_150_000), "EPSG:32612")
        part: Window = (100, 300, 50, 400)
        exact = _exact(source, grid)
        readings = {
            "geocrodino": lambda w: source.read(grid, w)[0][0],
            "rasterio reproject": lambda w: _gdal(source, grid, w, 0.125),
            "rasterio reproject, tolerance=0": lambda w: _gdal(source, grid, w, 0.0),
        }
        print("| reading | error, m | difference between windows, m |\n|---|---|---|")
        for name, read in readings.items():
            whole = read((0, *grid.shape[:1], 0, *grid.shape[1:]))
            again = read(part)
            error = np.nanmax(np.abs(whole - exact))
            change = np.nanmax(np.abs(whole[part[0] : part[1], part[2] : part[3]] - again))
            print(f"| {name} | {error:.3f} | {change:.3f} |")


if __name__ == "__main__":
    main()
