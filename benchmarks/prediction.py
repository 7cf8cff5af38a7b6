"""Time and memory of whole-scene prediction beside a plain loop over rasterio windows.

Both use the same network with random weights, the same tiles and margins, and write a compressed GeoTIFF. Each
measurement runs in a process of its own; memory is the peak resident set of that process.

    python benchmarks/prediction.py            4096 and 8192 px a side
    python benchmarks/prediction.py --quick    1024 and 2048 px a side
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.windows import Window
from scipy import ndimage

from geocrodino.bundle.io import load_bundle, save_bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.data.normalisation import Channel, ModalitySpec, Recipe
from geocrodino.geo.classes import ClassScheme
from geocrodino.models.branch import NetworkSettings, build_branch, receptive_field_radius_px
from geocrodino.prediction.engine import BLEND_CORE_PX, BLEND_MARGIN_PX, EXACT_CORE_PX, predict_scene
from geocrodino.prediction.tiling import round_up

BANDS = ("red", "green", "blue")
CLASSES = 6
MEAN, STD = 128.0, 60.0
MODES = ("exact", "blend")


def write_scene(path: Path, side: int) -> None:
    """A smooth random image, written strip by strip."""
    profile = {
        "driver": "GTiff", "count": 3, "dtype": "uint8", "width": side, "height": side, "crs": "EPSG:32631",
        "transform": Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "tiled": True, "compress": "deflate",
    }  # fmt: skip
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, side, 512):
            strip = ndimage.gaussian_filter(rng.random((3, min(512, side - row), side), np.float32), (0, 3, 3))
            values = np.clip(128 + (strip - 0.5) * 2500, 0, 255).astype(np.uint8)
            file.write(values, window=Window(0, row, side, values.shape[1]))


def write_bundle(path: Path) -> None:
    """The default network with random weights."""
    torch.manual_seed(0)
    branch = build_branch(NetworkSettings(), len(BANDS), CLASSES)
    recipe = Recipe(modality="optical", bands=(1, 2, 3), band_names=BANDS)
    channels = tuple(Channel(name=n, unit="digital number", low=0, high=255, mean=MEAN, std=STD) for n in BANDS)
    manifest = Manifest(
        name="benchmark",
        classes=ClassScheme.from_values(range(CLASSES)),
        network=branch.settings,
        modalities={"optical": ModalitySpec(recipe=recipe, channels=channels)},
        resolution_m=0.5,
        crs="EPSG:32631",
        footprint={"type": "Point", "coordinates": [3, 45]},
        receptive_field_px=receptive_field_radius_px(branch, len(BANDS)),
    )
    save_bundle(path, manifest, {"optical": branch})


def tile_of(bundle_path: Path, mode: str) -> tuple[int, int]:
    """Core and margin that ``predict_scene`` uses, in px."""
    manifest = load_bundle(bundle_path).manifest
    stride = manifest.network.stride_px
    if mode == "exact":
        return EXACT_CORE_PX, round_up(manifest.receptive_field_px or 0, stride)
    return BLEND_CORE_PX, round_up(BLEND_MARGIN_PX, stride)


def run_ours(scene: Path, bundle: Path, out: Path, mode: str) -> None:
    """The engine, as a user calls it."""
    predict_scene(scene, out, load_bundle(bundle), "optical", stitch=mode)  # type: ignore[arg-type]


@torch.inference_mode()
def run_loop(scene: Path, bundle: Path, out: Path, mode: str) -> None:
    """What one writes in half an hour: clipped reads, padding, the network, the core of the answer."""
    core, margin = tile_of(bundle, mode)
    branch = load_bundle(bundle).branch("optical")
    with rasterio.open(scene) as source:
        profile = {**source.profile, "count": 1, "nodata": 255, "blockxsize": 512, "blockysize": 512}
        with rasterio.open(out, "w", **profile) as target:
            for row in range(0, source.height, core):
                for col in range(0, source.width, core):
                    r0, c0 = max(0, row - margin), max(0, col - margin)
                    r1, c1 = min(source.height, row + core + margin), min(source.width, col + core + margin)
                    values = source.read(window=Window(c0, r0, c1 - c0, r1 - r0)).astype(np.float32)
                    above, left = r0 - row + margin, c0 - col + margin
                    below, right = row + core + margin - r1, col + core + margin - c1
                    pad = ((0, 0), (above, below), (left, right))
                    images = torch.from_numpy(np.pad((values - MEAN) / STD, pad))[None]
                    classes = branch(images)[0].argmax(0).numpy().astype(np.uint8)
                    rows, cols = min(core, source.height - row), min(core, source.width - col)
                    inner = classes[margin : margin + rows, margin : margin + cols]
                    target.write(inner, 1, window=Window(col, row, cols, rows))


def measure(which: str, scene: Path, bundle: Path, out: Path, mode: str) -> dict[str, float]:
    """Run one measurement in a fresh process."""
    command = [sys.executable, __file__, "--child", which, str(scene), str(bundle), str(out), mode]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(which: str, scene: str, bundle: str, out: str, mode: str) -> None:
    """Run one side here and print its seconds and peak memory as JSON."""
    work = {"ours": run_ours, "loop": run_loop}[which]
    started = time.perf_counter()
    work(Path(scene), Path(bundle), Path(out), mode)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1 / 1024)
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1e6}))


def agreement(first: Path, second: Path) -> float:
    """Share of pixels of one class in two maps."""
    same = total = 0
    with rasterio.open(first) as a, rasterio.open(second) as b:
        for row in range(0, a.height, 512):
            window = Window(0, row, a.width, min(512, a.height - row))
            equal = a.read(1, window=window) == b.read(1, window=window)
            same, total = same + int(equal.sum()), total + equal.size
    return same / total


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small scenes")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    sides = (1024, 2048) if options.quick else (4096, 8192)
    head = ("scene, px", "tiles", "core + margin, px", "ours, s", "loop, s", "time ratio")
    print("|", " | ".join((*head, "ours, MB", "loop, MB", "memory ratio", "same class")), "|")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = folder / "bundle.safetensors"
        write_bundle(bundle)
        for side in sides:
            scene = folder / f"{side}.tif"
            write_scene(scene, side)
            for mode in MODES:
                core, margin = tile_of(bundle, mode)
                maps = {which: folder / f"{side}-{mode}-{which}.tif" for which in ("ours", "loop")}
                ours, loop = (measure(which, scene, bundle, out, mode) for which, out in maps.items())
                print(
                    f"| {side}^2 | {mode} | {core} + {margin} | {ours['seconds']:.1f} | {loop['seconds']:.1f} "
                    f"| {ours['seconds'] / loop['seconds']:.2f} | {ours['peak_mb']:.0f} | {loop['peak_mb']:.0f} "
                    f"| {ours['peak_mb'] / loop['peak_mb']:.2f} | {agreement(*maps.values()):.4%} |",
                    flush=True,
                )  # fmt: skip


if __name__ == "__main__":
    main()
