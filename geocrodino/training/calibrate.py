"""What validation pixels say about trained branches: their calibration, and which is right where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from geocrodino.bundle.manifest import Calibration
from geocrodino.errors import ModelError
from geocrodino.evaluation.calibration import Reliability, fit_temperature, fit_weights
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import MODALITIES, Modality

_MOST_PX = 200_000
"""Labelled pixels to measure on, spread over the split."""

_DOUBT_PX = 100
"""Added to the number of pixels of each pair of predictions, as if both were wrong there: few pixels make no lead."""


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
    """Collects logits of a subset of the labelled validation pixels, to calibrate and to compare the branches."""

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
                    "Reduce `training.optimiser.learning_rate`, or give `training.precision='32-true'`."
                )
            self._logits.setdefault(m, []).append(logits[m].movedim(1, -1).flatten(0, 2)[chosen].float().cpu().numpy())
            self._valid.setdefault(m, []).append(batch[f"{m}_valid"].flatten()[chosen].cpu().numpy())

    def lead(self, one: Modality, other: Modality) -> NDArray[np.float64]:
        """Measure how much more often one branch is right than another, where the two predict different classes.

        Only pixels where both modalities are valid count.

        Args:
            one: Modality of the branch that may be right.
            other: Modality of the branch that it is compared with.

        Returns:
            For each class k of the one branch and j of the other: of the n pixels with these predictions, the number on
            which the one is right, less the number on which the other is, divided by n + 100; 0 where that is negative
            and where k is j. 0 to 1, float64, shape (K, K).

        Raises:
            ValueError: If no batch was added.
        """
        labels = np.concatenate(self._labels)
        valid = np.concatenate(self._valid[one]) & np.concatenate(self._valid[other])
        first, second = (np.concatenate(self._logits[m])[valid].argmax(axis=1) for m in (one, other))
        truth, classes = labels[valid], self._logits[one][0].shape[1]
        pair = first * classes + second
        number = np.bincount(pair, minlength=classes**2)
        ahead = np.bincount(pair, (first == truth).astype(float) - (second == truth), classes**2)
        lead: NDArray[np.float64] = (ahead / (number + _DOUBT_PX)).clip(min=0)
        return lead.reshape(classes, classes)

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
