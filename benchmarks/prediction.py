"""Compare whole-scene prediction with the alternatives: speed, memory, and correctness of the pixels.

All contenders use one network with random weights and one image with a nodata hole, and write a compressed GeoTIFF. The
other tools use tiles of 512 px with an overlap of 64 px. Geocrodino ("ours") is measured with its defaults (``exact``:
tiles with a margin as wide as the network sees), with larger tiles, blended, and in half precision (bfloat16). With
``--bundle`` a trained network is measured instead, without the other tools, and in int8 if the bundle holds an int8
network. Each measurement is one process from start to end, imports included. Times are medians over rounds in which all
contenders take turns; "processor" is the processor time of the process as a share of ours, which other programs disturb
less; memory is the peak resident set. ``bare`` is the lower limit: the same tiles through the same backend, without
reading or writing.

    python benchmarks/prediction.py                      4096 and 8192 px a side, 3 rounds
    python benchmarks/prediction.py --sides 1024 --rounds 1
    python benchmarks/prediction.py --contenders "ours, blended" loop      only these, and "ours"
    python benchmarks/prediction.py --bundle runs/mine/bundle.safetensors    a trained network for images of three bands
    python benchmarks/prediction.py --python geoai=/path/to/env/bin/python --python terratorch=...

geoai and terratorch need an environment, given with ``--python``, unless they are installed here; otherwise they are
reported as not run. "As one pass" is the share of pixels outside the hole whose class equals that of one pass of the
network over the whole scene. It is left out if one pass does not fit in memory (--one-pass-up-to).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from measured import measure, report_peak
from ours import command, hole_of
from peers import BANDS, CLASSES, MEAN, PEERS, STD
from rasterio.windows import Window
from scipy import ndimage

from geocrodino.bundle.io import load_bundle, save_bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.geo.rasters.grid import round_up
from geocrodino.modalities.recipe import Channel, ModalitySpec, Recipe
from geocrodino.models.branch import Branch, build_branch, receptive_field_radius_px
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.network import NetworkSettings

NETWORKS = {
    "default": NetworkSettings(),
    "resnet18": NetworkSettings(encoder="tu-resnet18"),
    "toy": NetworkSettings(encoder="tu-resnet10t", decoder="fpn", depth=3, invariant_channels=8),
}
GIVEN = "given"
"""Name of the network of ``--bundle``."""

RING_PX = 32
"""Width of the outer ring in which pixels without a class are counted."""

WARM_PX = 512
"""Side of the scene of the first prediction, which converts the network and is not measured."""


def write_scene(path: Path, side: int, transform: Affine | None = None, crs: str = "EPSG:32631") -> None:
    """Write a smooth random image in strips, with nodata (0) in a rectangle of a sixteenth of its area.

    Args:
        path: The file.
        side: Height and width in px.
        transform: Place and size of its pixels, 0.5 m and north up by default.
        crs: Its coordinate reference system.
    """
    profile = {
        "driver": "GTiff", "count": 3, "dtype": "uint8", "width": side, "height": side, "crs": crs,
        "transform": transform or Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "tiled": True, "compress": "deflate", "nodata": 0,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile) as file:
        for row in range(0, side, 512):
            strip = ndimage.gaussian_filter(rng.random((3, min(512, side - row), side), np.float32), (0, 3, 3))
            values = np.clip(128 + (strip - 0.5) * 2500, 1, 255).astype(np.uint8)
            hole = hole_of(side)
            values[:, max(0, hole[0] - row) : max(0, hole[1] - row), hole[2] : hole[3]] = 0
            file.write(values, window=Window(0, row, side, values.shape[1]))


def write_bundle(path: Path, settings: NetworkSettings) -> None:
    """Write a bundle of a network with random weights.

    Args:
        path: The file.
        settings: Shape of the network.
    """
    torch.manual_seed(0)
    save_branch(path, build_branch(settings, len(BANDS), CLASSES), build_branch(settings, 1, CLASSES))


def save_branch(path: Path, branch: Branch, heights: Branch | None = None) -> None:
    """Write a bundle of an optical branch, and of one for heights.

    Args:
        path: The file.
        branch: The optical branch.
        heights: The branch for heights in metres, one channel; left out if None.
    """
    recipe = Recipe(modality="optical", bands=(1, 2, 3), band_names=BANDS)
    channels = tuple(Channel(name=n, unit="digital number", low=0, high=255, mean=MEAN, std=STD) for n in BANDS)
    specs: dict[str, ModalitySpec] = {"optical": ModalitySpec(recipe=recipe, channels=channels)}
    branches: dict[str, Branch] = {"optical": branch}
    if heights is not None:
        height = Channel(name="height", unit="m", low=-5, high=60, mean=25, std=10)
        specs["elevation"] = ModalitySpec(recipe=Recipe(modality="elevation", channels=("height",)), channels=(height,))
        branches["elevation"] = heights
    manifest = Manifest(
        name="benchmark",
        classes=ClassScheme.from_values(range(CLASSES)),
        network=branch.settings,
        modalities=specs,
        resolution_m=0.5,
        crs="EPSG:32631",
        footprint={"type": "Point", "coordinates": [3, 45]},
        receptive_field_px=receptive_field_radius_px(branch, len(BANDS)),
    )
    save_bundle(path, manifest, branches)


def write_network(bundle: Path, path: Path) -> None:
    """Write the branch of a bundle as TorchScript, for tools that cannot read bundles.

    Args:
        bundle: The bundle.
        path: The file to write.
    """
    branch = load_bundle(bundle).branch("optical")
    with torch.inference_mode():
        torch.jit.trace(branch, torch.zeros(2, len(BANDS), 256, 256)).save(str(path))


@torch.inference_mode()
def one_pass(bundle: Path, scene: Path, out: Path) -> None:
    """Predict the whole scene in one pass, with zeros around it and in the hole.

    Args:
        bundle: The bundle.
        scene: The image.
        out: The map to write.
    """
    loaded = load_bundle(bundle)
    margin = round_up(loaded.manifest.receptive_field_px or 0, loaded.manifest.network.stride_px)
    with rasterio.open(scene) as source:
        values, profile = source.read(), {**source.profile, "count": 1, "nodata": 255}
    spec = loaded.manifest.modalities["optical"]
    image = np.where((values == 0).all(axis=0), np.float32(0), spec.normalise(values.astype(np.float32)))
    padded = torch.from_numpy(np.pad(image, ((0, 0), (margin, margin), (margin, margin))))[None]
    logits = loaded.branch("optical")(padded.to(memory_format=torch.channels_last))[0]
    side = values.shape[1]
    with rasterio.open(out, "w", **profile) as target:
        classes = logits[:, margin : margin + side, margin : margin + side].argmax(0)
        target.write(classes.numpy().astype(np.uint8), 1)


OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, tiles of 2048 px": {"tiling": {"core_px": 2048}},
    "ours, half precision": {"execution": {"precision": "half"}},
    "ours, half, 2048 px": {"execution": {"precision": "half"}, "tiling": {"core_px": 2048}},
    "ours, torch": {"execution": {"backend": "torch"}},
    "ours, int8": {"execution": {"precision": "int8"}},
    "ours, blended": {"tiling": {"stitch": "blend"}},
}
BARE = {
    "bare": ("auto", "full"),
    "bare, half precision": ("auto", "half"),
    "bare, int8": ("auto", "int8"),
    "bare, torch": ("torch", "full"),
}
CONTENDERS = [*OURS, *BARE, *PEERS]


def run(name: str, paths: dict[str, Path], out: Path, pythons: dict[str, str]) -> dict[str, float] | str:
    """Measure one contender in its own process.

    Args:
        name: Name of the contender, or ``one pass``.
        paths: ``bundle``, ``network`` and ``scene``.
        out: The map to write.
        pythons: Interpreters by contender.

    Returns:
        ``seconds`` and ``peak_mb``, or why the contender failed.
    """
    if name in PEERS:
        script = str(Path(__file__).with_name("peers.py"))
        return measure(
            [pythons.get(name, sys.executable), script, name, *map(str, (paths["network"], paths["scene"], out))]
        )
    if name in OURS:
        return measure(command("predict", paths["bundle"], paths["scene"], out, json.dumps(OURS[name])))
    if name in BARE:
        return measure(command("bare", paths["bundle"], paths["scene"], *BARE[name]))
    return measure([sys.executable, __file__, "--one-pass", *map(str, (paths["bundle"], paths["scene"], out))])


def judge(out: Path, truth: Path | None) -> dict[str, float]:
    """Check the pixels of a map.

    Args:
        out: The map.
        truth: Map of one pass; None: not compared.

    Returns:
        In %: pixels as in one pass, pixels of the hole with a class, pixels of the outer ring without a class.
    """
    with rasterio.open(out) as file:
        classes, side = file.read(1), file.height
    r0, r1, c0, c1 = hole_of(side)
    hole = np.zeros(classes.shape, bool)
    hole[r0:r1, c0:c1] = True
    inner = np.zeros(classes.shape, bool)
    inner[RING_PX:-RING_PX, RING_PX:-RING_PX] = True
    found = {
        "nodata with a class": 100 * float((classes[hole] != 255).mean()),
        "edge lost": 100 * float((classes[~inner] == 255).mean()),
    }
    if truth is not None:
        with rasterio.open(truth) as file:
            expected = file.read(1)
        found["as one pass"] = 100 * float((classes == expected)[~hole].mean())
    return found


def table(network: str, side: int, paths: dict[str, Path], folder: Path, options: argparse.Namespace) -> None:
    """Measure all contenders on one scene and print a table.

    Args:
        network: Name of the network.
        side: Height and width of the scene in px.
        paths: ``bundle``, ``network`` and ``scene``.
        folder: Where maps are written.
        options: Options of the command line.
    """
    pythons = dict(pair.split("=", 1) for pair in options.python)
    truth = folder / "one_pass.tif" if side <= options.one_pass_up_to else None
    if truth is not None and isinstance(why := run("one pass", paths, truth, pythons), str):
        print(f"One pass was not possible: {why}\n")
        truth = None
    # "ours" is always measured: it is the reference of the ratios.
    names = [name for name in CONTENDERS if name == "ours" or name in options.contenders]
    if "optical" not in load_bundle(paths["bundle"]).manifest.int8:
        names = [name for name in names if "int8" not in name]
    if network == GIVEN:
        names = [name for name in names if name not in PEERS]  # they normalise images in another way
    times: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for _ in range(options.rounds):
        for name in names:
            if name in failed:
                continue
            out = folder / f"{name}.tif"
            out.unlink(missing_ok=True)
            found = run(name, paths, out, pythons)
            if isinstance(found, str):
                failed[name] = found
            else:
                times[name].append(found)
    print(f"## {network} network, {side} x {side} px, {options.rounds} rounds\n")
    print("| | Mpx/s | seconds | of ours | processor | peak MB | as one pass % | nodata with a class % | edge lost % |")
    print("|---|---|---|---|---|---|---|---|---|")
    base, base_processor = (statistics.median(t[kind] for t in times["ours"]) for kind in ("seconds", "processor_s"))
    for name in names:
        if name in failed:
            print(f"| {name} | not run: {failed[name]} | | | | | | | |")
            continue
        seconds = statistics.median(t["seconds"] for t in times[name])
        memory = statistics.median(t["peak_mb"] for t in times[name])
        processor = statistics.median(t["processor_s"] for t in times[name])
        marks = {} if name in BARE else judge(folder / f"{name}.tif", truth)
        cells = [f"{marks[k]:.3f}" if k in marks else "" for k in ("as one pass", "nodata with a class", "edge lost")]
        print(
            f"| {name} | {side**2 / 1e6 / seconds:.2f} | {seconds:.1f} | {seconds / base:.2f} | "
            f"{processor / base_processor:.2f} | {memory:.0f} | "
            + " | ".join(cells) + " |",
            flush=True,
        )  # fmt: skip
    print()


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[4096, 8192], help="sides of the scenes, px")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--bundle", type=Path, help="trained bundle to measure instead of the networks")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS, metavar="NAME")
    parser.add_argument("--one-pass-up-to", type=int, default=4096, metavar="PX")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="interpreter of a peer")
    parser.add_argument("--one-pass", nargs=3, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_pass:
        one_pass(*options.one_pass)
        report_peak()
        return
    pixel_m = load_bundle(options.bundle).manifest.resolution_m if options.bundle else 0.5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in {WARM_PX, *options.sides}:
            write_scene(folder / f"{side}.tif", side, Affine(pixel_m, 0, 5e5, 0, -pixel_m, 5e6))
        for network in [GIVEN] if options.bundle else options.networks:
            paths = {"bundle": folder / f"{network}.safetensors", "network": folder / f"{network}.pt"}
            if network == GIVEN:
                shutil.copy(options.bundle, paths["bundle"])
            else:
                write_bundle(paths["bundle"], NETWORKS[network])
            if network != GIVEN and set(PEERS) & set(options.contenders):
                write_network(paths["bundle"], paths["network"])
            for kind in ("ours", "ours, blended"):  # not measured: the first prediction of a bundle converts it
                if kind not in {"ours", *options.contenders}:
                    continue
                warm = run(kind, {**paths, "scene": folder / f"{WARM_PX}.tif"}, folder / "warm.tif", {})
                if isinstance(warm, str):
                    sys.exit(warm)
                (folder / "warm.tif").unlink(missing_ok=True)
            for side in options.sides:
                (folder / f"{network}-{side}").mkdir()
                table(network, side, {**paths, "scene": folder / f"{side}.tif"}, folder / f"{network}-{side}", options)


if __name__ == "__main__":
    main()
