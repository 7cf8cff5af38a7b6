"""Compare ways of reading a raster on another grid: geocrodino and GDAL's warper (through rasterio).

    python benchmarks/warping.py

A generated, steep elevation model in degrees (pixels of about 90 m) is read on a UTM grid of 30 m. Prints a Markdown
table with these columns:

- error: largest difference from the exact bilinear value, in m, for a model without holes;
- difference: largest difference, in m, between the whole grid read at once and the same pixels read by smaller windows,
  for a model with holes, like all columns that follow;
- other bytes: share of the windows whose values are not the bytes of the whole grid;
- other validity: share of the windows whose validity is not that of the whole grid;
- pixels: share of the pixels whose validity differs from geocrodino's;
- time: duration of reading the grid by windows of 256 px, relative to geocrodino.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject
from rasterio.windows import Window as RasterioWindow
from scipy.ndimage import gaussian_filter, map_coordinates

from geocrodino.geo.rasters.grid import window_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window

STEP = 1 / 1200
"""Side of a pixel in degrees."""

PAD_PX = 4
"""Invalid pixels around the source, so that GDAL sees that nothing is there."""

Reading = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Values and validity, both of shape (H, W)."""


def _relief(path: Path, *, holes: bool) -> RasterSource:
    rng = np.random.default_rng(0)
    heights = gaussian_filter(rng.normal(size=(460, 460)), 3)
    heights = (1500 + 400 * heights / heights.std()).astype(np.float32)
    if holes:
        heights[rng.random(heights.shape) < 0.02] = -9999
        heights[200:230, 150:190] = -9999
    transform = from_origin(-113.24, 37.51, STEP, STEP)
    with rasterio.open(path, "w", driver="GTiff", height=460, width=460, count=1, dtype="float32", crs="EPSG:4326",
                       transform=transform, nodata=-9999 if holes else None) as file:  # fmt: skip
        file.write(heights[None])
    return RasterSource.open(path)


def _own(source: RasterSource, grid: GeoBox, window: Window) -> Reading:
    values, valid = source.read(grid, window)
    return values[0], valid


def _reproject(source: RasterSource, grid: GeoBox, window: Window, tolerance: float) -> Reading:
    target = window_grid(grid, window)
    out = np.full((1, *target.shape), np.nan, np.float32)
    values, _ = source.read(source.geobox)
    reproject(values, out, src_transform=source.geobox.affine, src_crs="EPSG:4326", src_nodata=np.nan,
              dst_transform=target.affine, dst_crs=str(grid.crs), dst_nodata=np.nan, resampling=Resampling.bilinear,
              tolerance=tolerance)  # fmt: skip
    return out[0], np.isfinite(out[0])


def _warped(dataset: rasterio.DatasetReader, grid: GeoBox) -> WarpedVRT:
    height, width = grid.shape
    return WarpedVRT(dataset, crs=str(grid.crs), transform=grid.affine, width=width, height=height,
                     resampling=Resampling.bilinear, tolerance=1e-6)  # fmt: skip


def _virtual(source: RasterSource, grid: GeoBox, window: Window) -> Reading:
    """Warp the file with GDAL, values and validity."""
    part = RasterioWindow.from_slices(*window.slices)
    with rasterio.open(source.path) as dataset, _warped(dataset, grid) as warped:
        values, valid = warped.read(1, window=part), warped.read_masks(1, window=part) > 0
    return np.where(valid, values, np.nan), valid


def _virtual_weighted(source: RasterSource, grid: GeoBox, window: Window) -> Reading:
    """Let GDAL warp valid values and validity as two bands, whose quotient is the mean of the valid neighbours."""
    height, width = source.geobox.shape
    needed = _needed(source, grid, window).intersect(Window.of(source.geobox.shape).grow(PAD_PX))
    values, valid = source.read_own(needed, (1,))
    # GDAL's positions must not depend on the window: the pixels in memory are part of a raster of the source's size.
    rows, cols = needed.shape
    a = source.geobox.affine @ Affine.translation(-PAD_PX, -PAD_PX)
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", height=rows, width=cols, count=2, dtype="float32", transform=a) as file:
            file.write(np.stack([np.where(valid, values[0], 0), valid]).astype(np.float32))
        bands = "".join(
            f'<VRTRasterBand dataType="Float32" band="{band}"><SimpleSource><SourceFilename>{memory.name}'
            f"</SourceFilename><SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{cols}" ySize="{rows}"/>'
            f'<DstRect xOff="{needed.col_start + PAD_PX}" yOff="{needed.row_start + PAD_PX}" xSize="{cols}" '
            f'ySize="{rows}"/></SimpleSource></VRTRasterBand>'
            for band in (1, 2)
        )
        described = (
            f'<VRTDataset rasterXSize="{width + 2 * PAD_PX}" rasterYSize="{height + 2 * PAD_PX}">'
            f"<SRS>EPSG:4326</SRS><GeoTransform>{a.c!r},{a.a!r},{a.b!r},{a.f!r},{a.d!r},{a.e!r}</GeoTransform>"
            f"{bands}</VRTDataset>"
        )
        with rasterio.open(described) as dataset, _warped(dataset, grid) as warped:
            total, weight = warped.read(window=RasterioWindow.from_slices(*window.slices))
    valid = weight >= 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(valid, total / weight, np.nan), valid


def _needed(source: RasterSource, grid: GeoBox, window: Window) -> Window:
    """Source pixels under a window, found from its outline."""
    r0, r1, c0, c1 = window
    r, c = np.arange(r0, r1 + 1.0), np.arange(c0, c1 + 1.0)
    rows = np.concatenate([r, r, np.full(c.size, r0), np.full(c.size, r1)])
    cols = np.concatenate([np.full(r.size, c0), np.full(r.size, c1), c, c])
    col, row = ~source.geobox.affine @ _degrees(grid, rows, cols)
    return Window(math.floor(row.min()) - 2, math.ceil(row.max()) + 2, math.floor(col.min()) - 2,
                  math.ceil(col.max()) + 2)  # fmt: skip


def _degrees(grid: GeoBox, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    x, y = grid.affine @ (cols, rows)
    lon, lat = pyproj.Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return lon, lat


def _exact(source: RasterSource, grid: GeoBox) -> NDArray[np.float64]:
    rows, cols = np.indices(grid.shape) + 0.5
    col, row = ~source.geobox.affine @ _degrees(grid, rows, cols)
    values, _ = source.read(source.geobox)
    return map_coordinates(values[0].astype(float), [row - 0.5, col - 0.5], order=1)


def _windows(grid: GeoBox) -> list[Window]:
    rng = np.random.default_rng(1)
    corners = [(int(rng.integers(0, grid.shape[0] - 200)), int(rng.integers(0, grid.shape[1] - 200)))
               for _ in range(40)]  # fmt: skip
    return [Window.at(row, col, (int(rng.integers(1, 200)), int(rng.integers(1, 200)))) for row, col in corners]


def _seconds(read: Callable[[Window], Reading], grid: GeoBox) -> float:
    def once() -> float:
        start = time.perf_counter()
        for window in Window.of(grid.shape).blocks(256):
            read(window)
        return time.perf_counter() - start

    return min(once() for _ in range(3))


def main() -> None:
    """Measure and print a Markdown table."""
    with tempfile.TemporaryDirectory() as folder:
        whole_model = _relief(Path(folder) / "dem.tif", holes=False)
        holes = _relief(Path(folder) / "holes.tif", holes=True)
        grid = GeoBox((1000, 800), Affine(30, 0, 310_000, 0, -30, 4_150_000), "EPSG:32612")
        exact, everything, windows = _exact(whole_model, grid), Window.of(grid.shape), _windows(grid)
        readings: dict[str, Callable[[RasterSource, Window], Reading]] = {
            "geocrodino": lambda source, w: _own(source, grid, w),
            "`reproject`": lambda source, w: _reproject(source, grid, w, 0.125),
            "`reproject(tolerance=0)`": lambda source, w: _reproject(source, grid, w, 0.0),
            "`WarpedVRT(tolerance=1e-6)`": lambda source, w: _virtual(source, grid, w),
            "the same, validity as a band": lambda source, w: _virtual_weighted(source, grid, w),
        }
        valid_here = _own(holes, grid, everything)[1]
        own_time = _seconds(lambda w: _own(holes, grid, w), grid)
        print("| reading | error, m | difference, m | other bytes | other validity | pixels | time |")
        print("|---|---|---|---|---|---|---|")
        for name, read in readings.items():
            error = np.nanmax(np.abs(read(whole_model, everything)[0] - exact))
            values, valid = read(holes, everything)
            change, other_bytes, other_validity = 0.0, 0, 0
            for window in windows:
                again, ok = read(holes, window)
                both = ok & valid[window.slices]
                change = max(change, np.abs(values[window.slices] - again)[both].max(initial=0))
                other_bytes += values[window.slices].tobytes() != again.tobytes()
                other_validity += not (ok == valid[window.slices]).all()
            pixels = (valid != valid_here).mean()
            spent = _seconds(lambda w, read=read: read(holes, w), grid) / own_time
            print(
                f"| {name} | {error:.4f} | {change:.3f} | {100 * other_bytes / len(windows):.0f} % "
                f"| {100 * other_validity / len(windows):.0f} % | {100 * pixels:.2f} % | {spent:.1f} |"
            )


if __name__ == "__main__":
    main()
