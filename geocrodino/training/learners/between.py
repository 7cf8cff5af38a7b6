"""Formulas of the terms between branches, on augmented patches."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from geocrodino.losses.alignment import carry
from geocrodino.losses.contrastive import class_contrast, image_contrast, pixel_contrast
from geocrodino.losses.distillation import agreement_loss
from geocrodino.models.crodino import CrodinoOutput
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.training.learners.base import feature_valid, rows_there

Outputs = Mapping[Modality, CrodinoOutput]
"""Output of each branch."""


def contrast(
    outputs: Outputs, batch: Mapping[str, Tensor], method: MethodSettings, num_classes: int, stride: int
) -> Tensor:
    """Compute the contrast that a method names, without its weight.

    Args:
        outputs: Outputs of at least two branches.
        batch: Augmented patches, see `Step`.
        method: Names the contrast, its temperature, and whether it is shuffled.
        num_classes: Number of classes.
        stride: Pixels per feature.

    Returns:
        Mean over all pairs of branches, scalar >= 0.
    """
    pairs = combinations(MODALITIES.in_order(outputs), 2)
    return mean_of([_contrast_of(outputs, batch, pair, method, num_classes, stride) for pair in pairs])


def _contrast_of(
    outputs: Outputs,
    batch: Mapping[str, Tensor],
    pair: tuple[Modality, Modality],
    method: MethodSettings,
    num_classes: int,
    stride: int,
) -> Tensor:
    one, two = pair
    features, rows = (outputs[one].invariant, outputs[two].invariant), rows_there(batch, one, two)
    if rows is not None:  # patches that lack one of the two are no part of the term
        if not len(rows):
            return features[0].new_zeros(())
        features = (features[0][rows], features[1][rows])
        batch = {f"{m}_{part}": batch[f"{m}_{part}"][rows] for m in pair for part in ("labels", "valid", "transform")}
    if method.contrast == "class":
        labels = (batch[f"{one}_labels"], batch[f"{two}_labels"])
        return class_contrast(*features, *labels, method.temperature, num_classes=num_classes, shuffled=method.shuffled)
    first_valid, second_valid = (feature_valid(batch[f"{m}_valid"], stride) for m in pair)
    if method.contrast == "image":
        return image_contrast(
            *features,
            method.temperature,
            shuffled=method.shuffled,
            first_valid=first_valid,
            second_valid=second_valid,
        )
    return pixel_contrast(
        *features,
        batch[f"{one}_transform"],
        batch[f"{two}_transform"],
        stride,
        method.temperature,
        shuffled=method.shuffled,
        first_valid=first_valid,
        second_valid=second_valid,
    )


def advice(logits: Tensor, other: Tensor, lead: Tensor, valid: Tensor) -> Tensor:
    """Combine the predictions of a branch with their weight in teaching another branch.

    Args:
        logits: Calibrated logits of the branch, shape (B, K, H, W).
        other: Logits of the branch that it teaches, for the same pixels, shape (B, K, H, W).
        lead: How much more often the branch is right than the other, by the most likely class of each, 0 to 1, shape
            (K, K), see `ValidationPixels.lead`.
        valid: Where its modality is valid, bool, shape (B, H, W).

    Returns:
        Class probabilities, followed by a channel with the weight: the lead in the two most likely classes, 0 where
        the modality is not valid. Shape (B, K + 1, H, W).
    """
    worth = lead[logits.argmax(dim=1), other.argmax(dim=1)] * valid
    return torch.cat([logits.softmax(dim=1), worth[:, None]], dim=1)


def agreement(logits: Tensor, target: Tensor, batch: Mapping[str, Tensor], modality: Modality) -> Tensor:
    """Distillation from the other branch on unlabelled pixels.

    The other branch's advice is resampled into the view of this branch. The divergence from it counts where this
    modality is valid and the pixel has no label, with the weight of the advice.

    Args:
        logits: Logits of this branch, shape (B, K, H, W).
        target: The other branch's `advice` before augmentation, shape (B, K + 1, H, W).
        batch: Augmented patches, see `Step`.
        modality: Modality of this branch.

    Returns:
        Scalar >= 0, see `agreement_loss`.
    """
    transform = batch[f"{modality}_transform"]
    with torch.no_grad():
        carried, seen = carry(target, torch.eye(3, device=target.device).expand_as(transform), transform)
        # Labels are more reliable than the other branch: where there is one, it alone counts.
        weight = carried[:, -1] * (seen & unlabelled(batch, modality))
        # Interpolated probabilities are normalised again, so that they sum to 1 despite rounding.
        expected = carried[:, :-1] / carried[:, :-1].sum(dim=1, keepdim=True).clamp(min=1e-6)
    return agreement_loss(logits, expected, weight)


def unlabelled(batch: Mapping[str, Tensor], modality: Modality) -> Tensor:
    """Find the pixels that a branch sees and that have no label.

    Args:
        batch: Augmented patches, see `Step`.
        modality: Modality of the branch.

    Returns:
        Bool, shape (B, H, W).
    """
    return batch[f"{modality}_valid"] & (batch[f"{modality}_labels"] == IGNORE_INDEX)


def ramped(progress: float, ramp: float) -> float:
    """Factor of a term that is introduced gradually: half a cosine wave from 0 to 1.

    Args:
        progress: Share of the training that is finished, 0 to 1.
        ramp: Share of the training over which the factor rises, 0 to 1.

    Returns:
        Factor, 0 to 1.
    """
    if progress >= ramp:
        return 1.0
    return 0.5 - 0.5 * float(torch.cos(torch.tensor(torch.pi * progress / ramp)))


def mean_of(values: list[Tensor]) -> Tensor:
    """Average the values of several pairs of branches.

    Args:
        values: At least one scalar.

    Returns:
        Their mean, scalar; a single value is returned unchanged.
    """
    return values[0] if len(values) == 1 else torch.stack(values).mean()
