"""Measure training patches per second: aligned layers read by window, and torchgeo's own reading of the same files.

    python benchmarks/sampling.py

Generates a scene in a temporary folder: an image, heights in another CRS, labels. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import RandomGeoSampler

from geocrodino.data.alignment import Sources, align
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.sampling import BalancedPatchSampler
from geocrodino.data.scenes import AlignedScene
from geocrodino.data.statistics import measure
from geocrodino.geo.labels.source import LabelSource, label_classes
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.resample import source_positions
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import elevation_recipe, optical_recipe


def _write(path: Path, values: np.ndarray, crs: str, transform: rasterio.Affine, **options: Any) -> Path:
    with rasterio.open(path, "w", driver="GTiff", height=values.shape[1], width=values.shape[2], count=len(values),
                       dtype=values.dtype, crs=crs, transform=transform, tiled=True, **options) as file:  # fmt: skip
        file.write(values)
    return path


def _write_layers(folder: Path, size: int) -> tuple[Path, Path, Path]:
    rng = np.random.default_rng(0)
    grid = from_origin(400_000, 5_000_000, 0.5, 0.5)
    optical = _write(folder / "optical.tif", rng.integers(0, 255, (3, size, size), np.uint8), "EPSG:32631", grid)
    labels = _write(folder / "labels.tif", rng.integers(0, 5, (1, size, size), np.uint8), "EPSG:32631", grid)
    # Heights in longitude and latitude, over the same ground and a little more.
    image = RasterSource.open(optical)
    box = image.geobox.extent.to_crs("EPSG:4326").boundingbox
    step = (box.right - box.left) / size
    shape = (round((box.top - box.bottom) / step) + 40, size + 40)
    there = from_origin(box.left - 20 * step, box.top + 20 * step, step, step)
    values = rng.normal(100, 5, (1, *shape)).astype(np.float32)
    heights = _write(folder / "dsm.tif", values, "EPSG:4326", there, nodata=-9999)
    assert source_positions(image.geobox, Window(0, 1, 0, 1), RasterSource.open(heights).geobox)[0].min() > 0
    return optical, heights, labels


def _samples_per_second(batches: Iterable[Any], batch: int, seconds: float) -> float:
    iterator = iter(batches)
    next(iterator)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        try:
            next(iterator)
        except StopIteration:
            iterator = iter(batches)
            continue
        count += batch
    return count / (time.perf_counter() - start)


def _torchgeo_dataset(optical: Path, heights: Path, labels: Path) -> RasterDataset:
    class Optical(RasterDataset):
        filename_glob = "optical.tif"

    class Heights(RasterDataset):
        filename_glob = "dsm.tif"

    class Labels(RasterDataset):
        filename_glob = "labels.tif"
        is_image = False

    return Optical(optical) & Heights(heights) & Labels(labels)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-px", type=int, default=4096)
    parser.add_argument("--patch-px", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_layers(Path(folder), options.size_px)
        image, heights, labelled = (RasterSource.open(p) for p in paths)
        sources = Sources({"optical": image, "elevation": heights}, LabelSource.of(labelled))
        recipes = {"optical": optical_recipe(sources.rasters["optical"]), "elevation": elevation_recipe(("height",))}
        started = time.perf_counter()
        classes = label_classes([sources.labels], None)
        layers = align(sources, recipes, classes, sources.rasters["optical"].geobox, Path(folder) / "aligned")
        aligned_s = time.perf_counter() - started
        scene = AlignedScene("", layers, layers.class_indices(), {"train": np.ones(layers.grid.shape, bool)})
        ours = CoregisteredDataset([scene], {m: measure([scene], r) for m, r in recipes.items()})
        sampler = BalancedPatchSampler(ours, "train", patch_px=options.patch_px, length=10**6)
        stock = _torchgeo_dataset(*paths)
        theirs = RandomGeoSampler(stock, size=options.patch_px, length=10**6, units=_pixels())
        rows: list[tuple[str, Callable[[int], DataLoader]]] = [
            ("aligned layers, by window", lambda n: DataLoader(ours, options.batch, sampler=sampler, num_workers=n)),
            ("torchgeo `&`, stock reading", lambda n: DataLoader(
                stock, options.batch, sampler=theirs, num_workers=n, collate_fn=stack_samples)),
        ]  # fmt: skip
        print(f"{options.patch_px} px patches of three layers, {options.size_px} px a side; aligned once in "
              f"{aligned_s:.1f} s\n\n| reading | workers | samples/s | ratio |\n|---|---|---|---|")  # fmt: skip
        for workers in (0, 2):
            rates = [_samples_per_second(make(workers), options.batch, options.seconds) for _, make in rows]
            for (name, _), rate in zip(rows, rates, strict=True):
                print(f"| {name} | {workers} | {rate:.0f} | {rate / rates[-1]:.1f} |", flush=True)


def _pixels() -> Any:
    from torchgeo.samplers import Units

    return Units.PIXELS


if __name__ == "__main__":
    main()
