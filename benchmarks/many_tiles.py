"""Measure trainings on thousands of small files: inspection, preparation, reading beside torchgeo, waiting for data.

    python benchmarks/many_tiles.py
    python benchmarks/many_tiles.py --apart

Generates tiles of 256 px in a temporary folder: image, surface, labels. Side by side they are one scene; with `--apart`
each is a scene of its own, joined by name and a kilometre from the next. Each row is measured in a process of its own.
Prints two Markdown tables. `--tiles 40` is a quick trial.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measured import measure, reading_rates, report_peak

TILE_PX, PIXEL_M, APART_M, CLASSES, BATCH = 256, 0.5, 1000, 5, 8
FOLDERS = {"image": "optical", "surface": "elevation", "mask": "labels"}
"""Role of the files of each folder."""

WORKERS = (0, 2)
"""Numbers of reading processes."""

STAGES = {
    "checks": "Opening and checking rasters",
    "layers": "Aligning rasters",
    "statistics and splits": "Measuring the channels",
}
"""Stages of a preparation as a training tells them."""


def write_tiles(folder: Path, count: int, *, apart: bool) -> Path:
    """Write tiles and the configuration of a training on them.

    Args:
        folder: Where to write: ``image/``, ``surface/``, ``mask/`` and ``geocrodino.yaml``.
        count: Number of tiles.
        apart: Whether tiles are a kilometre apart and joined by name; otherwise they lie side by side.

    Returns:
        The configuration.
    """
    side = int(np.ceil(np.sqrt(count)))
    step = APART_M if apart else TILE_PX * PIXEL_M
    for name in FOLDERS:
        (folder / name).mkdir()

    def write(number: int) -> None:
        row, col = divmod(number, side)
        _write_tile(folder, number, left=300_000 + col * step, top=5_000_000 - row * step)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(count)))
    files = {role: f"{folder}/{name}" + "/tile_{tile}.tif" * apart for name, role in FOLDERS.items()}
    lines = [
        "data:",
        *(f'  {role}: "{file}"' for role, file in files.items()),
        f"  splits: {{by: {'scenes' if apart else 'blocks'}, shares: [0.8, 0.1, 0.1]}}",
        "encoder_weights: random",
        f"training: {{patch_px: {TILE_PX}, batch_size: {BATCH}, epochs: 1, steps_per_epoch: 100}}",
    ]
    path = folder / "geocrodino.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _write_tile(folder: Path, number: int, *, left: float, top: float) -> None:
    import rasterio

    rng = np.random.default_rng(number)
    classes = np.kron(rng.integers(0, CLASSES, (8, 8)), np.ones((32, 32), int)).astype(np.uint8)
    image = (40 * classes + rng.integers(0, 60, (3, TILE_PX, TILE_PX))).astype(np.uint8)
    rows, cols = np.indices(classes.shape, np.float32)
    heights = 100 + 0.01 * (rows + cols) + 3.0 * (classes == 1) + rng.normal(0, 0.05, classes.shape)
    for name, values in {"image": image, "surface": heights[None].astype(np.float32), "mask": classes[None]}.items():
        with rasterio.open(
            folder / name / f"tile_{number:06d}.tif", "w", driver="GTiff", width=TILE_PX, height=TILE_PX,
            count=len(values), dtype=values.dtype, crs="EPSG:32631",
            transform=rasterio.Affine(PIXEL_M, 0, left, 0, -PIXEL_M, top),
        ) as file:  # fmt: skip
            file.write(values)


def inspect(config: Path) -> None:
    """Run ``geocrodino inspect`` on the configuration.

    Args:
        config: The configuration.
    """
    from geocrodino.cli.app import app

    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            app(["inspect", "--config", str(config)])
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(shown.getvalue()) from stop
    report_peak()


class _EnoughError(Exception):
    """Enough steps are measured."""


def start_training(config: Path, steps: int) -> None:
    """Train, and stop after some steps.

    Args:
        config: The configuration.
        steps: Steps to measure after the first; 0: stop before the first.
    """
    import lightning as L

    from geocrodino import load_config, train
    from geocrodino.data.datamodule import CoregisteredDataModule

    stages: list[tuple[str, float]] = []
    ends: list[float] = []
    waited: list[float] = []

    class Clock(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            if not ends:
                stages.append(("steps", time.perf_counter()))
                if not steps:
                    raise _EnoughError

        def on_train_batch_end(self, *_: Any) -> None:
            ends.append(time.perf_counter())
            if len(ends) > steps:
                raise _EnoughError

    def arrived(self: CoregisteredDataModule, batch: Any, dataloader_idx: int) -> Any:
        # The batch is read, and not augmented yet.
        if ends:
            waited.append(time.perf_counter() - ends[-1])
        return batch

    CoregisteredDataModule.on_before_batch_transfer = arrived  # type: ignore[method-assign]

    def note(stage: str) -> None:
        stages.append((stage, time.perf_counter()))

    with contextlib.suppress(_EnoughError):
        train(load_config(config), config.parent / "runs" / "run", overwrite=True, on_stage=note, callbacks=[Clock()])
    found = {stage: end - start for (stage, start), (_, end) in pairwise(stages)}
    facts = {short: found[stage] for short, stage in STAGES.items()}
    if steps:
        facts |= {"step": (ends[-1] - ends[0]) / steps, "waiting": sum(waited) / (ends[-1] - ends[0])}
    report_peak(**facts)


def read_ours(config: Path, seconds: float, in_memory: bool = False) -> None:
    """Read training batches as a training does, from layers that an earlier one has written.

    Args:
        config: The configuration.
        seconds: How long to read.
        in_memory: Whether the layers are read once and kept in memory, as with ``training.layers: device``.
    """
    import torch

    from geocrodino import load_config
    from geocrodino.data.datamodule import BatchPlan, CoregisteredDataModule
    from geocrodino.data.on_device import LayersOnDevice
    from geocrodino.training.prepare import prepare

    torch.set_num_threads(1)
    started = time.perf_counter()
    ready = prepare(load_config(config), config.parent / "runs" / "run")
    data = CoregisteredDataModule(ready.scenes, ready.specs, BatchPlan(TILE_PX, BATCH, 10**6))
    if in_memory:
        data.on_device = LayersOnDevice(n for n, scene in enumerate(ready.scenes) if scene.pixels_of("train").any())
        data.on_device.load(data.dataset, torch.device("cpu"))
    before = time.perf_counter() - started

    def loader(workers: int) -> Iterable[Any]:
        data.plan = replace(data.plan, workers=workers)
        return data.whole_train_dataloader()

    report_peak(before=before, **reading_rates(loader, seconds, (0,) if in_memory else WORKERS, BATCH))


def read_memory(config: Path, seconds: float) -> None:
    """Cut training batches out of layers in memory.

    Args:
        config: The configuration.
        seconds: How long to read.
    """
    read_ours(config, seconds, in_memory=True)


def read_torchgeo(config: Path, seconds: float) -> None:
    """Read batches with torchgeo's datasets and sampler from the same files.

    Args:
        config: The configuration; its files lie beside it.
        seconds: How long to read.
    """
    import torch
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import RandomGeoSampler, Units

    class Masks(RasterDataset):
        is_image = False

    torch.set_num_threads(1)
    folder, started = config.parent, time.perf_counter()
    dataset = RasterDataset(folder / "image") & RasterDataset(folder / "surface") & Masks(folder / "mask")
    sampler = RandomGeoSampler(dataset, size=TILE_PX, length=10**6, units=Units.PIXELS)
    before = time.perf_counter() - started

    def loader(workers: int) -> DataLoader[Any]:
        return DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers, collate_fn=stack_samples)

    report_peak(before=before, **reading_rates(loader, seconds, WORKERS, BATCH))


PARTS = {
    "inspect": inspect,
    "start": start_training,
    "ours": read_ours,
    "memory": read_memory,
    "torchgeo": read_torchgeo,
}
READERS = {
    "ours": "geocrodino",
    "memory": "geocrodino, `training.layers: device` on the CPU",
    "torchgeo": "torchgeo `&`, stock reading",
}


def _part(name: str, config: Path, *numbers: float) -> dict[str, float]:
    """Measure a part in a process of its own."""
    found = measure([sys.executable, __file__, "--part", name, str(config), *map(str, numbers)])
    if isinstance(found, str):
        raise RuntimeError(f"{name}: {found}")
    return found


def costs(config: Path, steps: int) -> Iterator[str]:
    """Measure inspection, preparation and steps.

    Args:
        config: The configuration; no training has begun yet.
        steps: Training steps to measure.

    Yields:
        Lines of a Markdown table, each when it is measured.
    """
    yield f"| work | s | {', s | '.join(STAGES)}, s | processor s | peak MB |"
    yield "|---" * (4 + len(STAGES)) + "|"
    for title, (part, *numbers) in {
        "`inspect`": ("inspect",),
        "start of a training": ("start", 0),
        f"start again, and {steps + 1} steps": ("start", steps),
    }.items():
        found = _part(part, config, *numbers)
        stages = " | ".join(f"{found[stage]:.1f}" if stage in found else "" for stage in STAGES)
        times = f"{found['seconds']:.1f} | {stages} | {found['processor_s']:.1f}"
        yield f"| {title} | {times} | {found['peak_mb']:.0f} |"
    share = 100 * found["waiting"]
    yield f"\nA step on {BATCH} patches: {found['step']:.2f} s, of which {share:.1f} % wait for data.\n"


def rates(config: Path, rounds: int, seconds: float) -> list[str]:
    """Measure samples per second of each reader, in turns.

    Args:
        config: The configuration, whose layers are written.
        rounds: How often each reader is measured.
        seconds: How long each reads.

    Returns:
        Lines of a Markdown table, with medians.
    """
    rates = [f"samples/s, {workers} workers | ratio" for workers in WORKERS]
    head = ["reader", *rates, "processor ms a sample", "s before the first", "peak MB"]
    lines = [f"| {' | '.join(head)} |", "|---" * (len(head) + len(WORKERS)) + "|"]
    turns = [{reader: _part(reader, config, seconds) for reader in READERS} for _ in range(rounds)]
    for own, name in READERS.items():
        cells = []
        for key in (f"rate {workers}" for workers in WORKERS):
            if key not in turns[0][own]:  # layers in memory need no reading processes
                cells += ["", ""]
                continue
            ratio = median(turn[own][key] / turn["torchgeo"][key] for turn in turns)
            cells += [f"{median(turn[own][key] for turn in turns):.0f}", f"{ratio:.1f}"]
        cost, before, peak = (median(t[own][key] for t in turns) for key in ("processor ms", "before", "peak_mb"))
        lines.append(f"| {name} | {' | '.join(cells)} | {cost:.2f} | {before:.1f} | {peak:.0f} |")
    return lines


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=4000)
    parser.add_argument("--apart", action="store_true", help="a kilometre apart, each a scene, joined by name")
    parser.add_argument("--steps", type=int, default=10, help="training steps to measure")
    parser.add_argument("--rounds", type=int, default=1, help="how often each reader is measured")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each reads")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, config, *numbers = options.part
        warnings.simplefilter("ignore")
        PARTS[name](Path(config), *(int(number) if number.isdigit() else float(number) for number in numbers))
        return
    with tempfile.TemporaryDirectory() as name:
        config = write_tiles(Path(name), options.tiles, apart=options.apart)
        where = "a kilometre apart, each a scene" if options.apart else "side by side, one scene"
        print(f"{options.tiles} tiles of {TILE_PX} px, {where}\n", flush=True)
        for line in costs(config, options.steps):
            print(line, flush=True)
        print("\n".join(rates(config, options.rounds, options.seconds)))


if __name__ == "__main__":
    main()
