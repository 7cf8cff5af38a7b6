"""Losses between class logits and labels, where some pixels have no label."""

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

    ``sum(w_y * CE) / sum(w_y)`` over the labelled pixels, where ``CE = -sum_k(t_k log(softmax(logits)_k))``, y is the
    label and t its one-hot vector, smoothed if asked for.

    Args:
        logits: Shape (B, K, H, W).
        labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``.
        class_weights: Weight w of each class, shape (K,); None: 1.
        label_smoothing: Share of the target that is spread evenly over all classes, in [0, 1].

    Returns:
        Scalar >= 0, at least float32. 0 if no pixel is labelled.

    Raises:
        ValueError: If the shapes do not fit.

    Examples:
        Equal logits for two classes, one labelled pixel: log(2).

        >>> cross_entropy(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]))
        tensor(0.6931)
    """
    _check_shapes(logits, labels)
    wide = at_least_float32(logits)
    weights = None if class_weights is None else class_weights.to(wide)
    total = F.cross_entropy(
        wide, labels, weight=weights, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=label_smoothing
    )
    amount = labelled_weight(labels, weights).to(wide)
    return total / amount.where(amount > 0, torch.ones_like(amount))


def labelled_weight(labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Sum the weights of the labelled pixels, by which `cross_entropy` divides.

    Args:
        labels: Class indices, int64, any shape, 0 to K - 1 or ``IGNORE_INDEX``.
        class_weights: Weight of each class, shape (K,); None: 1.

    Returns:
        Scalar >= 0 of the dtype of the weights, float32 without them.

    Examples:
        >>> labelled_weight(torch.tensor([0, 1, 1, 255]), torch.tensor([1.0, 2.0]))
        tensor(5.)
    """
    labelled = labels != IGNORE_INDEX
    if class_weights is None:
        return labelled.float().sum()
    return (class_weights[labels.where(labelled, 0)] * labelled).sum()


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, averaged over the classes that occur in the labels.

    For each class: ``1 - 2 sum(p y) / (sum(p) + sum(y))`` over the labelled pixels of the batch, with the probability p
    and y = 1 where the label is the class, else 0.

    Args:
        logits: Shape (B, K, H, W).
        labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``.

    Returns:
        Scalar in [0, 1], at least float32. 0 if no pixel is labelled.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        Milletari et al. (2016). V-Net. https://arxiv.org/abs/1606.04797 (there with squares in the divisor)

    Examples:
        Equal probabilities, one pixel of each of two classes: 1 - 2 * 0.5 / (1 + 1) for both.

        >>> dice_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5000)
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
