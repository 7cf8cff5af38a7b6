"""Measure whether memory grows with the scene: peak resident set of predictions of scenes of different sizes.

The scenes are sparse files, with squares of data along the diagonal and nodata elsewhere, so that the largest one takes
minutes only. A second prediction of each scene also writes the probabilities of all classes.

    python benchmarks/memory.py                      4096 and 32768 px a side
    python benchmarks/memory.py --sides 2048 8192
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from measured import measure
from ours import command
from prediction import NETWORKS, write_bundle
from rasterio.windows import Window

FILLED_PX = 2048
"""Side of the squares with data."""


def write_sparse(path: Path, side: int) -> None:
    """Write an image with data in squares along its diagonal and nodata elsewhere.

    Args:
        path: The file.
        side: Height and width in px.
    """
    profile = {
        "driver": "GTiff", "count": 3, "dtype": "uint8", "width": side, "height": side, "crs": "EPSG:32631",
        "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "tiled": True, "compress": "deflate", "nodata": 0,
        "sparse_ok": True,
    }  # fmt: skip
    square = np.random.default_rng(0).integers(1, 256, (3, FILLED_PX, FILLED_PX), np.uint8)
    with rasterio.open(path, "w", **profile) as file:
        for start in range(0, side, 2 * FILLED_PX):
            size = min(FILLED_PX, side - start)
            file.write(square[:, :size, :size], window=Window(start, start, size, size))


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[4096, 32768], help="sides of the scenes, px")
    options = parser.parse_args()
    print("| scene, px | written | peak MB | of the first | seconds |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = folder / "bundle.safetensors"
        write_bundle(bundle, NETWORKS["default"])
        for side in options.sides:
            write_sparse(folder / f"{side}.tif", side)
        warm = measure(command("predict", bundle, folder / f"{min(options.sides)}.tif", folder / "warm.tif", "{}"))
        if isinstance(warm, str):
            sys.exit(warm)
        for written, asked in (("classes", {}), ("probabilities", {"outputs": {"layers": ["probabilities"]}})):
            first = 0.0
            for side in options.sides:
                out = folder / f"{side}-{written}.tif"
                found = measure(command("predict", bundle, folder / f"{side}.tif", out, json.dumps(asked)))
                if isinstance(found, str):
                    sys.exit(found)
                first = first or found["peak_mb"]
                ratio = found["peak_mb"] / first
                print(
                    f"| {side}^2 | {written} | {found['peak_mb']:.0f} | {ratio:.2f} | {found['seconds']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
