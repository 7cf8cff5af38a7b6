"""Generate a scene, train, predict with each modality, evaluate, and list the maps.

``make quickstart`` runs this script. Each step is a public command, as on the command line.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.colors import LightSource, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import geocrodino as gc
from geocrodino.evaluation.evaluate import read_classes


def run(*words: str | Path) -> None:
    """Print one command of the program and run it. If it fails, exit with its code.

    Args:
        *words: Command and options.
    """
    line = [str(w) for w in words]
    print("\n$ geocrodino " + " ".join(line), flush=True)
    code = subprocess.run([sys.executable, "-m", "geocrodino", *line], check=False).returncode
    if code:
        sys.exit(code)  # the command has printed the reason


def overview(scene: Path, maps: dict[str, Path], target: Path) -> None:
    """Write a figure with the image, the heights, and the map from each of them.

    Args:
        scene: Folder of the scene.
        maps: Class map by modality, optical first.
        target: The PNG file.
    """
    classes = read_classes(maps["optical"]).classes
    figure = Figure(figsize=(10, 10.4), layout="constrained")
    axes = figure.subplots(2, 2)
    image = gc.read_raster(scene / "optical.tif")
    heights = gc.read_raster(scene / "dsm.tif")
    axes[0, 0].imshow(image.transpose("y", "x", "band").astype("uint8"))
    axes[0, 1].imshow(LightSource(315, 45).hillshade(heights[0].values, vert_exag=2), cmap="gray")
    colours = ListedColormap([c.colour for c in classes])
    for axis, path in zip(axes[1], maps.values(), strict=True):
        values = gc.read_raster(path, kind="categorical")[0]
        indices = sum((values == c.value) * (i + 1) for i, c in enumerate(classes))
        axis.imshow(np.ma.masked_equal(indices, 0), cmap=colours, vmin=1, vmax=len(classes), interpolation="nearest")
    titles = ("image", "heights, shaded", "map from the image alone", "map from the heights alone")
    for axis, title in zip(axes.flat, titles, strict=True):
        axis.set_axis_off()
        axis.set_title(title)
    handles = [Patch(color=c.colour, label=c.name) for c in classes]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(target, dpi=80)


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", type=Path, default=Path("sample"), help="folder of the generated scene")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="run folder")
    parser.add_argument("--size-m", type=float, default=512.0, help="side of the scene, metres")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    # Twice the default: a few hundred steps end before the default rate has reached its best.
    parser.add_argument("--learning-rate", type=float, default=0.004)
    options = parser.parse_args()
    started = time.monotonic()
    scene, out = options.scene, options.out
    run("sample", scene, "--size-m", str(options.size_m), "--overwrite")
    run("train", "--config", scene / "geocrodino.yaml", "--out", out, "--overwrite",
        "--epochs", str(options.epochs), "--steps", str(options.steps),
        "--learning-rate", str(options.learning_rate), "--precision", "auto")  # fmt: skip
    maps = {"optical": out / "map-optical.tif", "elevation": out / "map-elevation.tif"}
    for modality, target in maps.items():
        source = scene / ("optical.tif" if modality == "optical" else "dsm.tif")
        run("predict", source, "--modality", modality, "--model", out / "bundle.safetensors", "--out", target,
            "--preview", target.with_suffix(".png"), "--overwrite")  # fmt: skip
    run("evaluate", *maps.values(), "--labels", scene / "labels.tif", "--aoi", scene / "aoi.geojson", "--split", "test")
    overview(scene, maps, out / "overview.png")
    print(f"\nDone in {time.monotonic() - started:.0f} s. The maps, for a GIS:")
    for target in maps.values():
        print(f"  {target}")
    print(f"All at a glance: {out / 'overview.png'}")


if __name__ == "__main__":
    main()
