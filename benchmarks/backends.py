"""Measure the speed of the inference backends: PyTorch and OpenVINO as predictions use them, and the bare network.

    python benchmarks/backends.py            tiles of 832, 1088 and 1344 px, two at once
    python benchmarks/backends.py --quick    tiles of 256 px
    python benchmarks/backends.py --threads 1 --rounds 21
    python benchmarks/backends.py --bundle runs/mine/bundle.safetensors      the optical branch in each precision

The candidates take turns, in a different order in each round, with one thread for each tile. The network is the default
one with random weights and statistics. A ratio is the time of the bare network divided by that of the backend, median
over the rounds: by wall time, and by processor time, which other programs disturb less. ``other class`` is the share of
pixels whose class differs from that of the bare network.

With ``--bundle``, OpenVINO computes the optical branch of a trained bundle for images of three bands in float32,
bfloat16 and, if the bundle holds an int8 network, int8, on tiles of the default size; all is relative to float32.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peers import BANDS, CLASSES
from prediction import save_branch

from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.models.branch import build_branch
from geocrodino.prediction.backends.open import open_backend
from geocrodino.prediction.backends.openvino import has_half
from geocrodino.prediction.tiles.choose import EXACT_CORE_PX
from geocrodino.prediction.tiles.predictor import one_thread_per_network
from geocrodino.settings.network import NetworkSettings
from geocrodino.settings.prediction import Precision

SIDES, QUICK_SIDES = (832, 1088, 1344), (256,)  # cores of 512, 768 and 1024 px with a margin of 160 px

Tile = NDArray[np.float32]
Compute = Callable[[Tile], Tile]


def make_bundle(path: Path) -> Bundle:
    """Write a bundle of the default network: random weights, batch statistics as after training, realistic logits.

    Args:
        path: The file to write.

    Returns:
        The bundle.
    """
    torch.manual_seed(0)
    branch = build_branch(NetworkSettings(), len(BANDS), CLASSES).eval().requires_grad_(False)
    for module in branch.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    spread = branch(torch.randn(1, len(BANDS), 128, 128)).std()
    branch.decoder.classifier[-1].weight.mul_(2 / spread)
    save_branch(path, branch)
    return load_bundle(path)


def bare(bundle: Bundle) -> Compute:
    """Prepare the network as it is loaded, without a backend.

    Args:
        bundle: The bundle.

    Returns:
        Function from normalised tiles (C, H, W) to class probabilities (K, H, W).
    """
    branch = bundle.branch("optical")

    @torch.inference_mode()
    def compute(values: Tile) -> Tile:
        return branch(torch.from_numpy(values)[None])[0].softmax(0).numpy()

    return compute


def measure(rivals: dict[str, Compute], tiles: list[Tile], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Measure all candidates in turn.

    Args:
        rivals: Functions from a tile to probabilities, by name.
        tiles: Tiles to compute at once, one thread for each.
        rounds: Number of measurements of each candidate, after one to warm up.

    Returns:
        By name: seconds of wall time and of processor time, one for each round.
    """
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in rivals}
    with ThreadPoolExecutor(len(tiles)) as pool:
        for number in range(rounds + 1):
            for name in random.Random(number).sample(sorted(rivals), len(rivals)):
                wall, cpu = time.perf_counter(), time.process_time()
                list(pool.map(rivals[name], tiles))
                if number:  # the first one warms up
                    times[name][0].append(time.perf_counter() - wall)
                    times[name][1].append(time.process_time() - cpu)
    return times


def ratio(seconds: list[float], reference: list[float]) -> float:
    """Median over the rounds of the speed relative to a reference.

    Args:
        seconds: Times of the candidate by round.
        reference: Times of the reference by round.

    Returns:
        Above 1 if the candidate is faster.
    """
    return statistics.median(r / s for s, r in zip(seconds, reference, strict=True))


def by_backend(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Compute], tuple[int, ...]]:
    """Prepare the bare network and the backends.

    Args:
        options: Options of the command line.
        folder: Where the bundle and the converted network are written.

    Returns:
        Functions from a tile to probabilities, by name, and the sides of the tiles in px.
    """
    bundle = make_bundle(folder / "bundle.safetensors")
    rivals: dict[str, Compute] = {"bare": bare(bundle)}
    for name in ("torch", "openvino") if find_spec("openvino") else ("torch",):
        rivals[name] = open_backend(bundle, "optical", name=name, workers=options.threads, cache=folder)
    return rivals, QUICK_SIDES if options.quick else SIDES


def in_each_precision(options: argparse.Namespace) -> tuple[dict[str, Compute], tuple[int, ...]]:
    """Prepare the optical branch of a bundle in each precision that can be computed here.

    Args:
        options: Options of the command line.

    Returns:
        Functions from a tile to probabilities, by name, and the sides of the tiles in px.
    """
    bundle = load_bundle(options.bundle)
    made = bundle.manifest.int8.get("optical")
    unused_px = 0 if made is None else made.unused_px
    words: list[Precision] = ["full", *(["half"] if has_half() else []), *(["int8"] if made else [])]
    rivals: dict[str, Compute] = {
        f"openvino, {word}": open_backend(
            bundle, "optical", name="openvino", precision=word, workers=options.threads, unused_px=unused_px
        )
        for word in words
    }
    return rivals, ((QUICK_SIDES[0] if options.quick else EXACT_CORE_PX) + 2 * unused_px,)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small tiles")
    parser.add_argument("--bundle", type=Path, help="trained bundle to measure in each precision")
    parser.add_argument("--threads", type=int, default=2, help="tiles computed at once")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each backend")
    options = parser.parse_args()
    print("| tile, px | backend | s per tile | ratio, clock | ratio, processors | other class |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, one_thread_per_network():
        rivals, sides = in_each_precision(options) if options.bundle else by_backend(options, Path(folder))
        reference = next(iter(rivals))
        for side in sides:
            rng = np.random.default_rng(0)
            tiles = [rng.standard_normal((len(BANDS), side, side), np.float32) for _ in range(options.threads)]
            classes = {name: compute(tiles[0]).argmax(0) for name, compute in rivals.items()}
            times = measure(rivals, tiles, options.rounds)
            for name, (wall, cpu) in times.items():
                other = (classes[name] != classes[reference]).mean()
                print(
                    f"| {side}^2 | {name} | {statistics.median(wall) / len(tiles):.3f} | "
                    f"{ratio(wall, times[reference][0]):.2f} | {ratio(cpu, times[reference][1]):.2f} | {other:.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
