"""Losses between class logits and labels by name, as ``method.losses`` sums them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import segmentation_models_pytorch as smp
import torch
from kornia.losses import focal_loss
from torch import Tensor

from geocrodino.losses.precision import at_least_float32
from geocrodino.losses.segmentation import cross_entropy, dice_loss, labelled_weight
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.method import LossName, MethodSettings

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits (B, K, H, W), labels (B, H, W) and class weights (K,) to a scalar >= 0; 0 if no pixel is labelled."""


def focal(logits: Tensor, labels: Tensor, class_weights: Tensor, *, gamma: float) -> Tensor:
    """Cross entropy with less weight on pixels that are predicted well.

    ``sum(w_y (1 - p_y)^gamma CE) / sum(w_y)`` over the labelled pixels, with the probability p_y of the label y, by
    Kornia. With ``gamma`` 0 it is `cross_entropy`.

    Args:
        logits: Shape (B, K, H, W).
        labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``.
        class_weights: Weight w of each class, shape (K,).
        gamma: Exponent, 0 or more.

    Returns:
        Scalar >= 0, at least float32. 0 if no pixel is labelled.

    References:
        Lin et al. (2017). Focal loss for dense object detection. https://arxiv.org/abs/1708.02002

    Examples:
        Equal logits for two classes: half of the cross entropy log(2) with gamma 1.

        >>> focal(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]), torch.ones(2), gamma=1.0)
        tensor(0.3466)
    """
    wide = at_least_float32(logits)
    weights = class_weights.to(wide)
    each = focal_loss(wide, labels, None, gamma, "none", weights, IGNORE_INDEX)
    amount = labelled_weight(labels, weights)
    return each.sum() / amount.where(amount > 0, torch.ones_like(amount))


def lovasz(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """A convex extension of one minus the IoU, averaged over the classes that occur in the labels of the batch.

    Computed by segmentation_models_pytorch.

    Args:
        logits: Shape (B, K, H, W).
        labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``.
        class_weights: Not used: every class that occurs has the same weight.

    Returns:
        Scalar in [0, 1], float32. 0 if no pixel is labelled.

    References:
        Berman et al. (2018). The Lovasz-softmax loss. https://arxiv.org/abs/1705.08790

    Examples:
        Equal probabilities, one pixel of each of two classes: each class loses 1/2 of its IoU in expectation.

        >>> lovasz(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]), torch.ones(2))
        tensor(0.5000)
    """
    wide = logits.float()  # the library computes in float32 alone
    if not (labels != IGNORE_INDEX).any():
        return (wide * 0).sum()
    loss: Tensor = smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE_INDEX)(wide, labels)
    return loss


def losses_of(method: MethodSettings) -> Mapping[LossName, Loss]:
    """List the losses of a method between logits and labels.

    Args:
        method: The method.

    Returns:
        Functions by name, of the losses whose weight is above 0, in the order in which they are computed.
    """
    every: dict[LossName, Loss] = {
        "cross_entropy": partial(_cross_entropy, label_smoothing=method.label_smoothing),
        "dice": lambda logits, labels, _: dice_loss(logits, labels),
        "focal": partial(focal, gamma=method.focal_gamma),
        "lovasz": lovasz,
    }
    return {name: loss for name, loss in every.items() if method.loss_weights.get(name)}


def _cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor, label_smoothing: float) -> Tensor:
    return cross_entropy(logits, labels, class_weights, label_smoothing)
