"""Measure training samples per second: rasters read in place, and copies of them on the training's grid.

    python benchmarks/in_place.py

Generates data in a temporary folder: image (three bands, 8 bit), heights above ground (float32) and labels that share
one grid; as one file of 4096 px for each, compressed by deflate in tiles of 256 px, or by LZW in strips of a row; and
as 200 tiles of 256 px for each, a kilometre apart, each a scene. With 16 MB of decompressed blocks, GDAL keeps as small
a part of a file as it does of one that is much larger than memory. Each row is measured in a process of its own, in
turns. Prints a Markdown table with medians. `--size-px 2048 --tiles 16 --seconds 2 --rounds 1` is a quick trial.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measured import measure, reading_rates, report_peak

PIXEL_M, APART_M, TILE_PX, CLASSES, BATCH = 0.5, 1000, 256, 5, 8
WORKERS = (0, 2)
MODES = {"copy": "copied", "in_place": "in place", "in_place, 16": "in place, 16 MB of blocks"}
TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256}
FILES = {
    "one file, deflate, tiles of 256 px": {**TILED, "compress": "deflate"},
    "one file, LZW, strips of a row": {"compress": "lzw", "blockysize": 1},
}
"""Options of GDAL for the whole rasters."""

TILES = {"compress": "deflate"}


def _values(size: int, seed: int) -> dict[str, np.ndarray]:
    """Image, heights above ground and labels with squares of classes, and noise as images have it."""
    rng = np.random.default_rng(seed)
    classes = np.kron(rng.integers(0, CLASSES, (size // 32, size // 32)), np.ones((32, 32), int)).astype(np.uint8)
    image = (40 * classes + rng.integers(0, 60, (3, size, size))).astype(np.uint8)
    heights = np.maximum(3.0 * (classes == 1) + rng.normal(0, 0.05, classes.shape), 0).round(2)
    return {"image": image, "heights": heights[None].astype(np.float32), "labels": classes[None]}


def _write(folder: Path, name: str, size: int, *, seed: int, left: float = 300_000.0, **options: Any) -> None:
    import rasterio

    for role, values in _values(size, seed).items():
        (folder / role).mkdir(exist_ok=True)
        with rasterio.open(
            folder / role / name, "w", driver="GTiff", width=size, height=size, count=len(values), dtype=values.dtype,
            crs="EPSG:32631", transform=rasterio.Affine(PIXEL_M, 0, left, 0, -PIXEL_M, 5_000_000), **options,
        ) as file:  # fmt: skip
            file.write(values)


def _write_config(folder: Path, name: str, splits: str) -> Path:
    lines = [
        "data:",
        *(f'  {key}: "{folder}/{role}/{name}"' for key, role in
          {"optical": "image", "elevation": "heights", "labels": "labels"}.items()),
        "  height: {zero: ground}",
        f"  splits: {splits}",
        "encoder_weights: random",
        f"training: {{patch_px: {TILE_PX}, batch_size: {BATCH}}}",
    ]  # fmt: skip
    path = folder / "geocrodino.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_data(folder: Path, size: int, tiles: int) -> Iterator[tuple[str, Path]]:
    """Write all data sets.

    Args:
        folder: Where to write.
        size: Side of the whole rasters, px.
        tiles: Number of tiles.

    Yields:
        What the files are, and the configuration of a training on them.
    """
    for number, (title, options) in enumerate(FILES.items()):
        own = folder / str(number)
        own.mkdir()
        _write(own, "whole.tif", size, seed=number, **options)
        yield title, _write_config(own, "whole.tif", "{by: blocks, block_m: 256, shares: [0.8, 0.1, 0.1]}")
    own = folder / "tiles"
    own.mkdir()
    for number in range(tiles):
        _write(own, f"t_{number}.tif", TILE_PX, seed=number, left=300_000 + number * APART_M, **TILES)
    yield (
        f"{tiles} files of {TILE_PX} px, deflate",
        _write_config(own, "t_{tile}.tif", "{by: scenes, shares: [0.8, 0.1, 0.1]}"),
    )


def read(config: Path, mode: str, seconds: float) -> None:
    """Read training batches.

    Args:
        config: The configuration.
        mode: The setting ``data.cache``.
        seconds: How long to read with each number of workers.
    """
    import torch
    from torch.utils.data import DataLoader

    from geocrodino import load_config
    from geocrodino.data.datamodule import BatchPlan, CoregisteredDataModule
    from geocrodino.training.prepare import prepare

    torch.set_num_threads(1)
    run = config.parent / mode / "run"
    started = time.perf_counter()
    ready = prepare(load_config(config, {"data.cache": mode}), run)
    before = time.perf_counter() - started
    data = CoregisteredDataModule(ready.scenes, ready.specs, BatchPlan(TILE_PX, BATCH, 10**6))

    def loader(workers: int) -> DataLoader[Any]:
        data.plan = replace(data.plan, workers=workers)
        return data.train_dataloader()

    found = reading_rates(loader, seconds, WORKERS, BATCH)
    size = sum(path.stat().st_size for path in (config.parent / mode).rglob("*.img"))
    report_peak(before=before, mb=size / 1e6, **found)


def _rows(title: str, config: Path, rounds: int, seconds: float, modes: Mapping[str, str]) -> Iterator[str]:
    turns: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
    for _ in range(rounds):
        for mode, found in turns.items():
            word, _, cache_mb = mode.partition(", ")
            os.environ |= {"GDAL_CACHEMAX": cache_mb} if cache_mb else {}
            measured = measure([sys.executable, __file__, "--part", str(config), word, str(seconds)])
            os.environ.pop("GDAL_CACHEMAX", None)
            if isinstance(measured, str):
                raise RuntimeError(f"{title}, {mode}: {measured}")
            found.append(measured)
    for mode, word in modes.items():
        rates = [median(turn[f"rate {workers}"] for turn in turns[mode]) for workers in WORKERS]
        used = median(turn["processor ms"] for turn in turns[mode])
        first, peak = turns[mode][0], median(turn["peak_mb"] for turn in turns[mode])
        cells = [*(f"{rate:.0f}" for rate in rates), f"{used:.1f}", f"{first['before']:.1f}", f"{first['mb']:.0f}"]
        yield f"| {title} | {word} | {' | '.join(cells)} | {peak:.0f} |"


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-px", type=int, default=4096)
    parser.add_argument("--tiles", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="how often each row is measured")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each reads")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        config, mode, seconds = options.part
        warnings.simplefilter("ignore")
        read(Path(config), mode, float(seconds))
        return
    rates = [f"samples/s, {workers} workers" for workers in WORKERS]
    head = ["files", "rasters", *rates, "processor ms a sample", "first preparation, s", "layers, MB", "peak MB"]
    print(f"| {' | '.join(head)} |\n" + "|---" * len(head) + "|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for title, config in write_data(Path(name), options.size_px, options.tiles):
            modes = dict(list(MODES.items())[: 3 if title in FILES else 2])
            for row in _rows(title, config, options.rounds, options.seconds, modes):
                print(row, flush=True)


if __name__ == "__main__":
    main()
