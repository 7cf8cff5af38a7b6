"""Generate a scene, train, predict with each modality, evaluate, and say where the maps are.

Run by ``make quickstart``; the same steps as on the command line, with the public commands.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path


def run(*words: str | Path) -> None:
    """Run one command of the program and show it."""
    line = [str(w) for w in words]
    print("\n$ geocrodino " + " ".join(line), flush=True)
    subprocess.run([sys.executable, "-m", "geocrodino", *line], check=True)


def main() -> None:
    """All steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", type=Path, default=Path("sample"), help="folder of the generated scene")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="run folder")
    parser.add_argument("--size-m", type=float, default=512.0, help="side of the scene, metres")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    started = time.monotonic()
    scene, out = options.scene, options.out
    run("sample", scene, "--size-m", str(options.size_m), "--overwrite")
    run("train", "--config", scene / "geocrodino.yaml", "--out", out, "--overwrite",
        "--epochs", str(options.epochs), "--steps", str(options.steps))  # fmt: skip
    maps = {"optical": out / "map-optical.tif", "elevation": out / "map-elevation.tif"}
    for modality, target in maps.items():
        source = scene / ("optical.tif" if modality == "optical" else "dsm.tif")
        run("predict", source, "--modality", modality, "--model", out / "bundle.safetensors", "--out", target,
            "--preview", target.with_suffix(".png"), "--overwrite")  # fmt: skip
    run("evaluate", *maps.values(), "--labels", scene / "labels.tif", "--aoi", scene / "aoi.geojson", "--split", "test")
    print(f"\nDone in {time.monotonic() - started:.0f} s. Open these in QGIS, or the PNG files beside them:")
    for target in maps.values():
        print(f"  {target}")


if __name__ == "__main__":
    main()
