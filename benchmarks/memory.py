"""Measure whether memory depends on the size of a scene, its grid and the number of modalities.

Each row is one prediction as a whole process with two workers: its peak resident set, and the ratio to the direct way,
a scene of the bundle's own pixel size, of the smallest side. The images are smooth noise, so that every tile is read,
computed and written. The networks have random weights.

    python benchmarks/memory.py                                    4096 and 8192 px a side
    python benchmarks/memory.py --sides 4096 16384 --cases direct feet
    python benchmarks/memory.py --network resnet18 --rounds 3      the median of three rounds
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from measured import measure
from ours import command
from prediction import NETWORKS, write_bundle, write_scene
from rasterio.windows import Window
from scipy import ndimage

_OWN = Affine(0.5, 0, 5e5, 0, -0.5, 5e6)
_DEGREES = Affine(6.3e-6, 0, 3.0, 0, -4.5e-6, 45.15)  # 0.5 m at this latitude

CASES: dict[str, tuple[str, Affine, str]] = {
    "direct": ("own pixel size", _OWN, "EPSG:32631"),
    "feet": ("pixels of 1 ft", Affine(0.3048, 0, 5e5, 0, -0.3048, 5e6), "EPSG:32631"),
    "rotated": ("rotated by 30°", _OWN @ Affine.rotation(30), "EPSG:32631"),
    "degrees": ("in degrees", _DEGREES, "EPSG:4326"),
    "both": ("image and heights", _OWN, "EPSG:32631"),
}
"""What is measured: its name in the table, place of the pixels, and CRS."""


def write_heights(path: Path, side: int) -> None:
    """Write a smooth random surface model in strips, 20 to 40 m, on the grid of the direct scene.

    Args:
        path: The file.
        side: Height and width in px.
    """
    profile = {
        "driver": "GTiff", "count": 1, "dtype": "float32", "width": side, "height": side, "crs": "EPSG:32631",
        "transform": _OWN, "tiled": True, "compress": "deflate", "nodata": -9999,
    }  # fmt: skip
    rng = np.random.default_rng(1)
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, side, 512):
            strip = ndimage.gaussian_filter(rng.random((min(512, side - row), side), np.float32), 3)
            file.write(np.clip(30 + (strip - 0.5) * 200, 20, 40)[None], window=Window(0, row, side, len(strip)))


def measured(case: str, side: int, bundle: Path, folder: Path, rounds: int) -> tuple[float, float]:
    """Measure a prediction.

    Args:
        case: Name of one of `CASES`.
        side: Height and width of the scene in px.
        bundle: The bundle.
        folder: Where scene and map are written, and removed again.
        rounds: Number of runs.

    Returns:
        Medians: peak memory in MB, seconds.
    """
    _, transform, crs = CASES[case]
    scene, heights, options = folder / "scene.tif", folder / "heights.tif", {}
    write_scene(scene, side, transform, crs)
    if case == "both":
        write_heights(heights, side)
        options = {"elevation": str(heights)}
    found = []
    for run in range(rounds):
        one = measure(command("predict", bundle, scene, folder / f"map-{run}.tif", json.dumps(options)))
        if isinstance(one, str):
            sys.exit(one)
        found.append(one)
    for file in folder.glob("*.tif*"):  # with the names of a map's classes beside it
        file.unlink()
    return statistics.median(f["peak_mb"] for f in found), statistics.median(f["seconds"] for f in found)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[4096, 8192], help="sides of the scenes, px")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--network", choices=NETWORKS, default="default")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = folder / "bundle.safetensors"
        write_bundle(bundle, NETWORKS[options.network])
        for case in dict.fromkeys(["direct", *options.cases]):  # not measured: the first prediction converts
            measured(case, 512, bundle, folder, 1)
        print("| scene | side, px | peak MB | of the direct way | seconds |\n|---|---|---|---|---|")
        first = 0.0
        for case in dict.fromkeys(["direct", *options.cases]):
            for side in options.sides:
                peak, seconds = measured(case, side, bundle, folder, options.rounds)
                first = first or peak
                print(f"| {CASES[case][0]} | {side} | {peak:.0f} | {peak / first:.2f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
