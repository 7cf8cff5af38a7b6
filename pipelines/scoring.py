"""Score trained networks on the pixels of ``test``, by spatial blocks, directly from the aligned layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from geocrodino.bundle.io import load_bundle
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.patches import covering_windows
from geocrodino.data.scenes import AlignedScene
from geocrodino.errors import AOIError
from geocrodino.evaluation.calibration import Reliability
from geocrodino.evaluation.metrics import mean_iou
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import TrainConfig
from geocrodino.training.folder import BUNDLE_NAME, FUSION_NAME
from geocrodino.training.learners.base import Shape, network_input, network_valid
from geocrodino.training.learners.fusion import build_fusion
from geocrodino.training.prepare import Prepared

SCORING = 3
"""Version of the scores. After an increase, finished runs are scored again."""

_BLOCK_PX = 128
"""Side of a spatial block."""
_WINDOW_PX, _MARGIN_PX = 512, 224
"""Multiples of every stride; the margin is at least the receptive field of the default network, 214 px."""


@dataclass(frozen=True)
class Network:
    """A trained network.

    Attributes:
        module: The network, in evaluation mode.
        temperature: Its calibration; 1 without one.
    """

    module: nn.Module
    temperature: float


@dataclass(frozen=True)
class Scores:
    """Results of several networks.

    Attributes:
        blocks: Confusion counts by ``network|labels``, rows are the labels, int64, shape (blocks, K, K).
        calibration_error: Expected calibration error by network, ``as trained`` and ``calibrated``, 0 to 1.
    """

    blocks: dict[str, NDArray[np.int64]]
    calibration_error: dict[str, dict[str, float]]

    def miou(self, key: str) -> float:
        """Compute the mIoU over the classes that occur in the labels.

        Args:
            key: ``network|labels``.

        Returns:
            mIoU, 0 to 1.
        """
        return float(mean_iou(self.blocks[key].sum(axis=0)))


def load_networks(out: Path, config: TrainConfig, ready: Prepared) -> dict[str, Network]:
    """Load the networks of a finished run.

    Args:
        out: Run folder.
        config: Settings of the run.
        ready: The prepared scene.

    Returns:
        Networks by modality, or one named ``fusion``.
    """
    if config.method.name != "fusion":
        bundle = load_bundle(out / BUNDLE_NAME)
        return {m: Network(bundle.branch(m), bundle.manifest.temperature(m)) for m in bundle.manifest.modalities}
    shape = Shape(config.network, {m: len(s.channels) for m, s in ready.specs.items()}, len(ready.classes))
    network = build_fusion(config.method, shape)
    network.load_state_dict(load_file(out / FUSION_NAME))
    return {"fusion": Network(network.eval(), 1.0)}


@torch.inference_mode()
def score(
    networks: Mapping[str, Network], ready: Prepared, labels: Mapping[str, tuple[Path, Collection[int]]]
) -> Scores:
    """Score networks on ``test`` against one or more label rasters, read on the grid of the training.

    Args:
        networks: Networks by name.
        ready: The prepared scene.
        labels: By name: file, and values to ignore. Calibration is measured on the first.

    Returns:
        Confusion counts and calibration errors.

    Raises:
        AOIError: If the split ``test`` has no pixel.
    """
    grid = ready.grid
    inside = inside_mask(ready.checked[0].aoi.polygons("test"), grid)
    if not inside.any():
        source = ready.checked[0].aoi.source
        raise AOIError(f"{source}: the split test has no pixel. Draw polygons of the split test to score on.")
    truths = {name: _read_labels(path, ignore, ready, inside) for name, (path, ignore) in labels.items()}
    dataset = CoregisteredDataset([AlignedScene.of(ready.scenes[0].layers)], ready.specs)
    classes, (height, width) = len(ready.classes), inside.shape
    across = -(-width // _BLOCK_PX)
    blocks = -(-height // _BLOCK_PX) * across
    counts = {f"{n}|{t}": np.zeros((blocks, classes, classes), np.int64) for n in networks for t in truths}
    curves: dict[tuple[str, str], Reliability] = {}
    for r0, r1, c0, c1 in covering_windows(inside, _WINDOW_PX):
        window = (r0, min(r1, height), c0, min(c1, width))
        batch, (top, left) = with_margin(dataset, window, 32)
        part = (slice(top, top + window[1] - window[0]), slice(left, left + window[3] - window[2]))
        at = _block_of(window, across)
        here = (slice(*window[:2]), slice(*window[2:]))
        for name, network in networks.items():
            logits = network.module(network_input(name, batch))[0][(slice(None), *part)]
            valid = network_valid(name, batch)[0][part].numpy()
            predicted = logits.argmax(dim=0).numpy()
            for labelled, truth in truths.items():
                usable = valid & (truth[here] != IGNORE_INDEX)
                flat = (at[usable] * classes + truth[here][usable]) * classes + predicted[usable]
                table = np.bincount(flat, minlength=blocks * classes**2)
                counts[f"{name}|{labelled}"] += table.reshape(blocks, classes, classes)
            first = np.where(valid, next(iter(truths.values()))[here], IGNORE_INDEX).ravel().astype(np.int64)
            for form, temperature in (("as trained", 1.0), ("calibrated", network.temperature)):
                curve = Reliability.of((logits / temperature).softmax(dim=0).flatten(1).T.numpy(), first)
                before = curves.get((name, form))
                curves[name, form] = curve if before is None else before.add(curve)
    errors: dict[str, dict[str, float]] = {name: {} for name in networks}
    for (name, form), curve in curves.items():
        errors[name][form] = curve.expected_calibration_error
    return Scores(counts, errors)


def _read_labels(path: Path, ignore: Collection[int], ready: Prepared, inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Class indices within ``test``, uint8 (H, W), 255 elsewhere."""
    source, truth = RasterSource.open(path), np.full(inside.shape, IGNORE_INDEX, np.uint8)
    known = {c.value: i for i, c in enumerate(ready.classes.classes) if c.value not in ignore}
    for window in ready.scenes[0].layers.blocks():
        values, valid = source.read(ready.grid, window, bands=(1,), kind="categorical")
        here = (slice(*window[:2]), slice(*window[2:]))
        for value, index in known.items():
            truth[here][valid & (values[0] == value)] = index
    truth[~inside] = IGNORE_INDEX
    return truth


def with_margin(
    dataset: CoregisteredDataset, window: Window, multiple: int, margin_px: int = _MARGIN_PX
) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
    """Read a window as a batch of one, with a margin around it, padded to a multiple.

    Args:
        dataset: The aligned layers.
        window: First and last row, first and last column; ends are exclusive.
        multiple: Height and width of the batch are multiples of it, in px.
        margin_px: Width of the margin; the default holds all that a network sees around a pixel.

    Returns:
        The batch, and the row and column in it at which the window begins.
    """
    height, width = dataset.grid.shape
    r0, r1, c0, c1 = window
    top, left = max(0, r0 - margin_px), max(0, c0 - margin_px)
    sample = dataset.read((top, min(height, r1 + margin_px), left, min(width, c1 + margin_px)))
    rows, columns = sample["labels"].shape
    fill = (0, -columns % multiple, 0, -rows % multiple)
    return {k: nn.functional.pad(v, fill)[None] for k, v in sample.items()}, (r0 - top, c0 - left)


def _block_of(window: tuple[int, int, int, int], across: int) -> NDArray[np.int64]:
    """Number of the spatial block of each pixel of a window."""
    r0, r1, c0, c1 = window
    return (np.arange(r0, r1)[:, None] // _BLOCK_PX) * across + np.arange(c0, c1)[None] // _BLOCK_PX
