"""Compare estimated ground with the lidar ground of the Autzen scene: errors, and heights of roofs and trees.

    GEOCRODINO_REAL_DATA=... python pipelines/ground_filters.py

Compares the ground filter of geocrodino with CNES's Bulldozer (``pip install bulldozer-dtm``), which is reported as
missing if it is not installed. Errors are in metres over pixels with a surface height. Heights are medians over the
labelled pixels.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio

from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import height_unit
from geocrodino.geo.terrain import ground_surface
from geocrodino.settings.ground import GroundFilter


def _bulldozer(path: Path, max_object_size: float) -> np.ndarray:
    """Ground computed by Bulldozer, in the unit of the file."""
    from bulldozer.pipeline.bulldozer_pipeline import dsm_to_dtm

    with tempfile.TemporaryDirectory() as folder:
        dsm_to_dtm(dsm_path=str(path), output_dir=folder, max_object_size=max_object_size, nb_max_workers=2)
        with rasterio.open(next(Path(folder).rglob("*[dD][tT][mM]*.tif"))) as dataset:
            return dataset.read(1, masked=True).filled(np.nan).astype(np.float32)


def main() -> None:
    """Measure and print a Markdown table."""
    folder = Path(os.environ["GEOCRODINO_REAL_DATA"]) / "autzen"
    source = RasterSource.open(folder / "dsm.tif")
    metres = height_unit(source)[0]
    surface = source.read(source.geobox)[0][0] * metres
    lidar = RasterSource.open(folder / "dtm.tif").read(source.geobox)[0][0] * metres
    labels = RasterSource.open(folder / "labels.tif").read(source.geobox, kind="categorical")[0][0]
    pixel_m = abs(source.geobox.affine.a) * metres

    rows: dict[str, Callable[[], np.ndarray]] = {
        "lidar ground": lambda: lidar,
        "progressive morphological filter": lambda: ground_surface(surface, GroundFilter(), pixel_m),
    }
    for size in (16, 60, 400):
        rows[f"Bulldozer, max_object_size {size}"] = lambda size=size: (
            _bulldozer(folder / "dsm.tif", size)[: surface.shape[0], : surface.shape[1]] * metres
        )
    print(
        "| ground | mean absolute error m | roofs m | trees m | below ground by 1 m, % | seconds |\n" + "|---" * 6 + "|"
    )
    for name, make in rows.items():
        started = time.perf_counter()
        try:
            ground = make()
        except ImportError:
            print(f"| {name} | not installed | | | | |")
            continue
        seconds = time.perf_counter() - started
        known = np.isfinite(surface) & np.isfinite(ground)
        height = surface - ground
        error = np.abs(ground - lidar)[known].mean()
        roofs, trees = (np.nanmedian(height[labels == c]) for c in (2, 1))
        below = 100 * (height[known] < -1).mean()
        print(f"| {name} | {error:.2f} | {roofs:.1f} | {trees:.1f} | {below:.2f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
