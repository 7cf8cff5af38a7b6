"""Losses between class logits and labels with unlabelled pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geocrodino.losses.precision import at_least_float32
from geocrodino.settings.classes import IGNORE_INDEX


def cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross entropy over the labelled pixels.

    Args:
        logits: Shape (B, K, H, W).
        labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``.
        class_weights: Weight per class, shape (K,); the mean is weighted by them.
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1].

    Returns:
        Scalar, at least float32. 0 where no pixel is labelled.

    Raises:
        ValueError: If the shapes do not fit.
    """
    _check_shapes(logits, labels)
    wide = at_least_float32(logits)
    weights = None if class_weights is None else class_weights.to(wide)
    total = F.cross_entropy(
        wide, labels, weight=weights, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=label_smoothing
    )
    labelled = labels != IGNORE_INDEX
    share = labelled.to(wide) if weights is None else weights[labels.where(labelled, 0)] * labelled
    amount = share.sum()
    return total / amount.where(amount > 0, torch.ones_like(amount))


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, averaged over the classes that the labels hold.

    Args:
        logits: Shape (B, K, H, W).
        labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``.

    Returns:
        Scalar in [0, 1], at least float32. 0 where no pixel is labelled.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        Milletari et al. (2016). V-Net. https://arxiv.org/abs/1606.04797
    """
    _check_shapes(logits, labels)
    labelled = (labels != IGNORE_INDEX)[:, None]
    probabilities = at_least_float32(logits).softmax(dim=1) * labelled
    classes = torch.arange(logits.shape[1], device=labels.device)[None, :, None, None]
    targets = (labels[:, None] == classes).to(probabilities)
    overlap = (probabilities * targets).sum(dim=(0, 2, 3))
    size = targets.sum(dim=(0, 2, 3))
    present = size > 0
    total = (probabilities.sum(dim=(0, 2, 3)) + size).where(present, torch.ones_like(size))
    losses = (1 - 2 * overlap / total) * present
    return losses.sum() / present.sum().clamp(min=1)


def _check_shapes(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 4 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"expected logits (B, K, H, W) and labels (B, H, W), found {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
