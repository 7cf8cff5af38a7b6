"""Validation of trained networks on the whole validation split: their scores, and the calibration of branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from geocrodino.bundle.manifest import Calibration
from geocrodino.data.alignment import Progress
from geocrodino.data.datamodule import CoregisteredDataModule
from geocrodino.errors import ModelError
from geocrodino.evaluation.calibration import Reliability, fit_temperature, fit_weights
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.training.learners.base import network_input, network_valid

_MOST_PX = 200_000
"""Labelled pixels to measure on, spread over the split."""


@dataclass(frozen=True)
class Calibrated:
    """Calibration for the bundle, and the reliability curves before and after it.

    Attributes:
        calibration: Temperature of each branch, and weights of all for combined maps.
        reliability: Curves on ``val`` by name: each modality as trained and calibrated, and all together, calibrated.
    """

    calibration: Calibration
    reliability: dict[str, Reliability]


class ValidationPixels:
    """Collects logits of a subset of the labelled validation pixels, and fits the calibration to them."""

    def __init__(self, labelled_px: int, most_px: int = _MOST_PX) -> None:
        """Start without pixels.

        Args:
            labelled_px: Number of labelled pixels in the split.
            most_px: About how many of them to collect.
        """
        self._every = max(1, labelled_px // most_px)
        self._logits: dict[Modality, list[NDArray[np.float32]]] = {}
        self._valid: dict[Modality, list[NDArray[np.bool_]]] = {}
        self._labels: list[NDArray[np.int64]] = []

    def add(self, logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Add a validation batch.

        Args:
            logits: Logits of each branch by modality, floating, each (B, K, H, W).
            batch: The batch: ``labels`` (B, H, W), and ``<modality>_valid`` of each modality, bool (B, H, W).

        Raises:
            ModelError: If a logit is not finite.
        """
        labels = batch["labels"].flatten()
        chosen = (labels != IGNORE_INDEX).nonzero().flatten()[:: self._every]
        self._labels.append(labels[chosen].cpu().numpy())
        for m in MODALITIES.in_order(logits):
            if not torch.isfinite(logits[m]).all():
                raise ModelError(
                    f"The training diverged: expected finite logits of the {m} branch, found infinity or NaN.\n"
                    "Reduce training.optimiser.learning_rate, or set training.precision to 32-true."
                )
            self._logits.setdefault(m, []).append(logits[m].movedim(1, -1).flatten(0, 2)[chosen].float().cpu().numpy())
            self._valid.setdefault(m, []).append(batch[f"{m}_valid"].flatten()[chosen].cpu().numpy())

    def fit(self) -> Calibrated:
        """Fit a temperature for each branch, then the weights for averaging the probabilities of all.

        Returns:
            Calibration and curves. A branch without valid labelled pixels keeps the temperature 1 and has no curve;
            without pixels valid in all modalities, the weights are equal.

        Raises:
            ValueError: If no batch was added.
        """
        labels = np.concatenate(self._labels)
        valid = {m: np.concatenate(self._valid[m]) for m in self._valid}
        temperatures: dict[Modality, float] = {}
        curves: dict[str, Reliability] = {}
        probabilities: dict[Modality, NDArray[np.float64]] = {}
        for m in self._logits:
            logits = np.concatenate(self._logits[m]).astype(np.float64)
            own = np.where(valid[m], labels, IGNORE_INDEX)
            # A modality that is valid in few places of a large split may have no pixel among those collected.
            seen = bool((own != IGNORE_INDEX).any())
            temperatures[m] = fit_temperature(logits, own) if seen else 1.0
            probabilities[m] = softmax(logits / temperatures[m], axis=1)
            if seen:
                curves[m] = Reliability.of(softmax(logits, axis=1), own)
                curves[f"{m}, calibrated"] = Reliability.of(probabilities[m], own)
        everywhere = np.where(np.logical_and.reduce(list(valid.values())), labels, IGNORE_INDEX)
        weights: dict[Modality, float] = dict.fromkeys(probabilities, 1 / len(probabilities))
        if len(probabilities) > 1 and (everywhere != IGNORE_INDEX).any():
            weights = fit_weights(probabilities, everywhere)
            pooled = np.sum([weights[m] * p for m, p in probabilities.items()], axis=0)
            curves[f"{'both' if len(weights) == 2 else 'all'}, calibrated"] = Reliability.of(pooled, everywhere)
        return Calibrated(Calibration(temperature=temperatures, weight=weights), curves)


@torch.inference_mode()
def validate(
    networks: Mapping[str, nn.Module],
    data: CoregisteredDataModule,
    *,
    counts: Mapping[str, ConfusionMatrix] | None = None,
    pixels: ValidationPixels | None = None,
    device: torch.device | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Compute all validation windows once, for scores, for a calibration, or for both.

    Args:
        networks: Networks in evaluation mode by name; they are on the CPU again afterwards.
        data: Data module whose windows are read, all of them.
        counts: Confusion matrix of each network to add to, or None.
        pixels: Pixels for a calibration to add to, or None.
        device: Where to compute; the CPU by default.
        on_progress: Called with the numbers of finished and of all batches, after each batch.

    Raises:
        ModelError: If a logit is not finite and ``pixels`` are collected.
    """
    device, loader = device or torch.device("cpu"), data.whole_val_dataloader()
    for network in networks.values():
        network.to(device)
    for done, read in enumerate(loader, start=1):
        batch = {key: value.to(device) for key, value in read.items()}
        logits = {name: network(network_input(name, batch)) for name, network in networks.items()}
        if pixels is not None:
            pixels.add(logits, batch)
        if counts is not None:
            count_pixels(counts, logits, batch)
        if on_progress is not None:
            on_progress(done, len(loader))
    for network in networks.values():
        network.cpu()


def count_pixels(
    counts: Mapping[str, ConfusionMatrix], logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]
) -> None:
    """Count the pixels of a validation batch, for each network where its input is valid.

    Args:
        counts: Confusion matrix of each network; they are added to.
        logits: Logits of each network by name, (B, K, H, W).
        batch: The batch: ``labels`` (B, H, W), and ``<modality>_valid`` of each modality, bool (B, H, W).
    """
    for name, scores in logits.items():
        labels = torch.where(network_valid(name, batch), batch["labels"], IGNORE_INDEX)
        counts[name].update(labels.cpu().numpy(), scores.argmax(dim=1).cpu().numpy())


def calibrate(
    branches: Mapping[Modality, nn.Module],
    data: CoregisteredDataModule,
    counts: Mapping[str, ConfusionMatrix] | None = None,
    device: torch.device | None = None,
    on_progress: Progress | None = None,
) -> Calibrated:
    """Measure and fit the calibration of trained branches.

    Args:
        branches: Networks in evaluation mode by modality.
        data: Data module whose validation windows are read, all of them.
        counts: Confusion matrix of each branch to add to, or None.
        device: Where to compute; the CPU by default.
        on_progress: Called with the numbers of finished and of all batches, after each batch.

    Returns:
        Calibration and curves.

    Raises:
        ModelError: If a logit is not finite.
    """
    pixels = ValidationPixels(data.whole_val_labelled_px)
    validate(branches, data, counts=counts, pixels=pixels, device=device, on_progress=on_progress)
    return pixels.fit()
