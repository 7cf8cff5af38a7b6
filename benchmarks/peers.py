"""Whole-scene prediction with other tools, one function for each.

Nothing of geocrodino is imported, so that each tool can run in its own environment. Called by prediction.py:

    python benchmarks/peers.py NAME network.pt scene.tif out.tif

The network is a TorchScript file that maps normalised images (B, 3, H, W) to logits (B, K, H, W).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from measured import report_peak
from rasterio.windows import Window

TILE_PX, OVERLAP_PX = 512, 64
CLASSES = 6
BANDS = ("red", "green", "blue")
MEAN, STD = 128.0, 60.0

Network = torch.jit.ScriptModule


def normalise(values: np.ndarray) -> np.ndarray:
    """Normalise digital numbers for the network.

    Args:
        values: Any shape and dtype.

    Returns:
        float32, same shape.
    """
    return (values.astype(np.float32) - MEAN) / STD


def loop(network: Network, scene: Path, out: Path) -> None:
    """Predict with a simple loop over rasterio windows: clipped reads, padding, the network, the centre of its output.

    Args:
        network: The network.
        scene: The image.
        out: The map to write.
    """
    margin, core = OVERLAP_PX // 2, TILE_PX - OVERLAP_PX
    with rasterio.open(scene) as source, rasterio.open(out, "w", **_profile(source)) as target:
        for row in range(0, source.height, core):
            for col in range(0, source.width, core):
                r0, c0 = max(0, row - margin), max(0, col - margin)
                r1, c1 = min(source.height, row + core + margin), min(source.width, col + core + margin)
                values = normalise(source.read(window=Window(c0, r0, c1 - c0, r1 - r0)))
                above, left = r0 - row + margin, c0 - col + margin
                below, right = row + core + margin - r1, col + core + margin - c1
                image = torch.from_numpy(np.pad(values, ((0, 0), (above, below), (left, right))))[None]
                classes = network(image)[0].argmax(0).numpy().astype(np.uint8)
                rows, cols = min(core, source.height - row), min(core, source.width - col)
                inner = classes[margin : margin + rows, margin : margin + cols]
                target.write(inner, 1, window=Window(col, row, cols, rows))


def torchgeo(network: Network, scene: Path, out: Path) -> None:
    """Predict with torchgeo as its users do: a grid sampler, cropped tiles, one array for the scene.

    Args:
        network: The network.
        scene: The image.
        out: The map to write.
    """
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    class Scene(RasterDataset):
        filename_glob = scene.name

    data = Scene(str(scene.parent))
    sampler = GridGeoSampler(data, size=TILE_PX, stride=TILE_PX - OVERLAP_PX)
    with rasterio.open(scene) as source:
        profile, transform, shape = _profile(source), source.transform, source.shape
    full, crop = np.full(shape, 255, np.uint8), OVERLAP_PX // 2
    for batch in DataLoader(data, sampler=sampler, batch_size=4, collate_fn=stack_samples):
        logits = network(torch.from_numpy(normalise(batch["image"].numpy())))
        for classes, place in zip(logits.argmax(1).numpy().astype(np.uint8), _corners(batch, transform), strict=True):
            inner = classes[crop:-crop, crop:-crop]
            row, col = place[0] + crop, place[1] + crop
            part = full[max(0, row) : row + inner.shape[0], max(0, col) : col + inner.shape[1]]
            part[...] = inner[: part.shape[0], : part.shape[1]]
    with rasterio.open(out, "w", **profile) as target:
        target.write(full, 1)


def geoai(network: Network, scene: Path, out: Path) -> None:
    """Predict with geoai's predict_geotiff.

    Args:
        network: The network.
        scene: The image.
        out: The map to write.
    """
    from geoai.inference import predict_geotiff

    predict_geotiff(
        network, str(scene), str(out), tile_size=TILE_PX, overlap=OVERLAP_PX, batch_size=4, num_classes=CLASSES,
        blend_mode="spline", preprocess_fn=normalise, postprocess_fn=lambda a: a.argmax(0).astype("uint8"),
        output_dtype="uint8", output_nodata=255, device="cpu",
    )  # fmt: skip


def terratorch(network: Network, scene: Path, out: Path) -> None:
    """Predict with terratorch's tiled_inference, which needs the whole scene in memory.

    Args:
        network: The network.
        scene: The image.
        out: The map to write.
    """
    from terratorch.tasks.tiled_inference import tiled_inference

    with rasterio.open(scene) as source:
        values, profile = source.read(), _profile(source)
    image = torch.from_numpy(normalise(values))[None]
    logits = tiled_inference(network, image, crop=TILE_PX, stride=TILE_PX - OVERLAP_PX, delta=8, batch_size=4)
    with rasterio.open(out, "w", **profile) as target:
        target.write(logits[0].argmax(0).numpy().astype(np.uint8), 1)


PEERS: dict[str, Callable[[Network, Path, Path], None]] = {
    "loop": loop, "torchgeo": torchgeo, "geoai": geoai, "terratorch": terratorch,
}  # fmt: skip


def _profile(source: rasterio.DatasetReader) -> dict[str, object]:
    return {**source.profile, "count": 1, "nodata": 255, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}


def _corners(batch: dict[str, object], transform: object) -> list[tuple[int, int]]:
    """Row and column of the first pixel of each sample."""
    places = []
    for bounds in batch["bounds"]:  # type: ignore[attr-defined]
        left, top = (bounds[0].start, bounds[1].stop) if isinstance(bounds, tuple) else (bounds[0], bounds[4])
        col, row = ~transform @ (float(left), float(top))  # type: ignore[operator]
        places.append((round(row), round(col)))
    return places


if __name__ == "__main__":
    name, network_path, scene_path, out_path = sys.argv[1:]
    loaded = torch.jit.load(network_path).eval()
    with torch.inference_mode():
        PEERS[name](loaded, Path(scene_path), Path(out_path))
    report_peak()
