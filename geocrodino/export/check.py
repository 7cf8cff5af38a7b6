"""Comparison of an exported network with its bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from geocrodino.bundle.io import Bundle
from geocrodino.errors import ModelError
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.prediction.backends.comparison import difference
from geocrodino.settings.modality import Modality

BOUND = 1e-3
"""Largest allowed difference of a probability from that of the bundle."""

_HOLE_PX = 16


class Agreement(NamedTuple):
    """How an exported network compares with its bundle on one tile.

    Attributes:
        difference: Largest difference of a probability.
        other_class: Share of pixels with another class, 0 to 1.
    """

    difference: float
    other_class: float


def compare(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    bundle: Bundle,
    modality: Modality,
    *,
    tile_px: int,
    divisor: int,
    path: Path,
) -> Agreement:
    """Run an exported network and its bundle on the same random tile.

    The tile has a hole without data, and values beyond those of the training, which both must clip.

    Args:
        run: Runs the exported network: values of shape (1, C, H, W) to probabilities of shape (1, K, H, W).
        bundle: The bundle.
        modality: The branch.
        tile_px: Height and width of the tile, px.
        divisor: What the exported network expects values to be divided by.
        path: Name of the exported file, for the message.

    Returns:
        The differences.

    Raises:
        ModelError: If a probability differs by more than `BOUND`.
    """
    spec = bundle.manifest.modalities[modality]
    values = random_values(spec, tile_px)
    with torch.inference_mode():
        logits = bundle.branch(modality)(torch.from_numpy(spec.normalise(values))[None]).numpy()[0]
    expected = softmax(logits / np.float32(bundle.manifest.temperature(modality)), axis=0)
    found = run(np.ascontiguousarray(values[None] / np.float32(divisor)))[0]
    if found.shape != expected.shape:
        raise ModelError(
            f"{path}: the exported network gives another result than the bundle. Expected probabilities of shape "
            f"{expected.shape}, found {found.shape}.\nThe file was not written. Predict with the bundle instead."
        )
    agreement = Agreement(*difference(found, expected))
    if not agreement.difference <= BOUND:
        raise ModelError(
            f"{path}: the exported network gives another result than the bundle. Expected probabilities that differ by "
            f"at most {BOUND:g}, found {agreement.difference:.2g}.\nThe file was not written. Predict with the bundle "
            "instead, or export with other versions of torch and of the packages of the extra onnx."
        )
    return agreement


def random_values(spec: ModalitySpec, tile_px: int) -> NDArray[np.float32]:
    """Random values of channels, the same in every call.

    Args:
        spec: Statistics of the channels.
        tile_px: Height and width, px.

    Returns:
        Values in the units of the channels, normal with their mean and deviation, float32, shape (C, H, W); NaN in a
        corner.
    """
    random = np.random.default_rng(0).standard_normal((len(spec.channels), tile_px, tile_px), np.float32)
    for channel, drawn in zip(spec.channels, random, strict=True):
        values = drawn * np.float32(channel.std) + np.float32(channel.mean)
        drawn[:] = np.copysign(np.expm1(np.abs(values)), values) if channel.compress else values
    random[0, :_HOLE_PX, :_HOLE_PX] = np.nan
    return random
