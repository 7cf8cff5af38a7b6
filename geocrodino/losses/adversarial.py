"""Features from which a classifier cannot tell the modality."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geocrodino.losses.precision import at_least_float32


def reverse_gradient(features: Tensor, strength: float = 1.0) -> Tensor:
    """Turn a gradient round on its way back, so that what comes before works against what comes after.

    Args:
        features: Any shape and floating type.
        strength: Multiplies the reversed gradient, at least 0.

    Returns:
        The same values.

    Raises:
        ValueError: If the strength is below 0.

    References:
        Ganin & Lempitsky (2015). Unsupervised domain adaptation by backpropagation. https://arxiv.org/abs/1409.7495
    """
    if strength < 0:
        raise ValueError(f"strength must be at least 0, found {strength}")
    reversed_: Tensor = _Reversed.apply(features, strength)
    return reversed_


def modality_loss(logits: Tensor, modality: int, valid: Tensor | None = None) -> Tensor:
    """Cross entropy of a classifier that tells from a feature which modality it comes from.

    Args:
        logits: Shape (B, 2, h, w).
        modality: What all of them come from: 0 optical, 1 elevation.
        valid: False at positions to leave out, bool, shape (B, h, w).

    Returns:
        Mean over the valid positions, scalar >= 0, at least float32. 0 where none is valid.

    Raises:
        ValueError: If the shapes do not fit or there is no such modality.
    """
    if logits.ndim != 4 or logits.shape[1] != 2:
        raise ValueError(f"expected logits (B, 2, h, w), found {tuple(logits.shape)}")
    if modality not in (0, 1):
        raise ValueError(f"modality must be 0 (optical) or 1 (elevation), found {modality}")
    if valid is not None and valid.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"expected valid (B, h, w) for logits {tuple(logits.shape)}, found {tuple(valid.shape)}")
    wide = at_least_float32(logits)
    if valid is None:
        return -wide.log_softmax(dim=1)[:, modality].mean()
    losses = -wide.where(valid[:, None], 0).log_softmax(dim=1)[:, modality]
    return (losses * valid).sum() / valid.sum().clamp(min=1)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        # A view could not be changed in place by what follows.
        return features.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * -ctx.strength, None
