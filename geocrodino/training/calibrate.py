"""How far a trained model's probabilities can be believed, measured on the validation split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from geocrodino.bundle.manifest import Calibration
from geocrodino.data.datamodule import CoregisteredDataModule
from geocrodino.errors import ModelError
from geocrodino.evaluation.calibration import Reliability, fit_pooling, fit_temperature
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import MODALITIES, Modality

_MOST_PX = 200_000
"""Labelled pixels that are looked at, spread over the split."""


@dataclass(frozen=True)
class Calibrated:
    """Numbers for the bundle, and the curves that show what they do.

    Attributes:
        calibration: Temperatures and weights.
        reliability: Curves on ``val`` by name: each modality as trained and with its temperature, and both together.
    """

    calibration: Calibration
    reliability: dict[str, Reliability]


class ValidationPixels:
    """Logits of labelled validation pixels, every so many, from which the calibration is measured."""

    def __init__(self, labelled_px: int, most_px: int = _MOST_PX) -> None:
        """Start empty.

        Args:
            labelled_px: Labelled pixels that there are.
            most_px: How many of them to look at, about.
        """
        self._every = max(1, labelled_px // most_px)
        self._logits: dict[Modality, list[NDArray[np.float32]]] = {m: [] for m in MODALITIES}
        self._valid: dict[Modality, list[NDArray[np.bool_]]] = {m: [] for m in MODALITIES}
        self._labels: list[NDArray[np.int64]] = []

    def add(self, logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Add a validation batch and what both branches say of it, logits (B, K, H, W).

        Raises:
            ModelError: If a logit is not finite.
        """
        labels = batch["labels"].flatten()
        chosen = (labels != IGNORE_INDEX).nonzero().flatten()[:: self._every]
        self._labels.append(labels[chosen].cpu().numpy())
        for m in MODALITIES:
            if not torch.isfinite(logits[m]).all():
                raise ModelError(
                    f"The training diverged: the {m} branch answers with values that are not finite.\n"
                    "Take a smaller training.optimiser.learning_rate, or training.precision 32-true."
                )
            self._logits[m].append(logits[m].movedim(1, -1).flatten(0, 2)[chosen].float().cpu().numpy())
            self._valid[m].append(batch[f"{m}_valid"].flatten()[chosen].cpu().numpy())

    def fit(self) -> Calibrated:
        """Fit a temperature for each branch, then the weights with which their probabilities are averaged."""
        labels = np.concatenate(self._labels)
        valid = {m: np.concatenate(self._valid[m]) for m in MODALITIES}
        temperatures: dict[Modality, float] = {}
        curves: dict[str, Reliability] = {}
        probabilities: dict[Modality, NDArray[np.float64]] = {}
        for m in MODALITIES:
            logits = np.concatenate(self._logits[m]).astype(np.float64)
            own = np.where(valid[m], labels, IGNORE_INDEX)
            # Where a modality is valid in few places of a large split, none of them may be looked at.
            seen = bool((own != IGNORE_INDEX).any())
            temperatures[m] = fit_temperature(logits, own) if seen else 1.0
            probabilities[m] = softmax(logits / temperatures[m], axis=1)
            if seen:
                curves[m] = Reliability.of(softmax(logits, axis=1), own)
                curves[f"{m}, calibrated"] = Reliability.of(probabilities[m], own)
        both = np.where(valid["optical"] & valid["elevation"], labels, IGNORE_INDEX)
        weight = 0.5
        if (both != IGNORE_INDEX).any():
            weight = fit_pooling(probabilities["optical"], probabilities["elevation"], both)
            pooled = weight * probabilities["optical"] + (1 - weight) * probabilities["elevation"]
            curves["both, calibrated"] = Reliability.of(pooled, both)
        weights: dict[Modality, float] = {"optical": weight, "elevation": 1 - weight}
        return Calibrated(Calibration(temperature=temperatures, weight=weights), curves)


@torch.inference_mode()
def calibrate(branches: Mapping[Modality, nn.Module], data: CoregisteredDataModule) -> Calibrated:
    """Measure how far the probabilities of trained branches can be believed.

    Args:
        branches: Networks in evaluation mode, on the CPU.
        data: Its validation windows are read.
    """
    pixels = ValidationPixels(data.val_labelled_px)
    for batch in data.val_dataloader():
        pixels.add({m: branches[m](batch[m]) for m in MODALITIES}, batch)
    return pixels.fit()
