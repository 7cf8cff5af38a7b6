"""Adversarial terms that remove the modality from a feature: a classifier should not be able to recognise it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geocrodino.losses.precision import at_least_float32


def reverse_gradient(features: Tensor, strength: float = 1.0) -> Tensor:
    """Return the features unchanged; in the backward pass, multiply their gradient by ``-strength``.

    A classifier behind this layer learns its task, and the network before it learns to make that task impossible.

    Args:
        features: Any shape and floating type.
        strength: Factor of the reversed gradient, at least 0.

    Returns:
        A copy of ``features``: same values, shape and dtype.

    Raises:
        ValueError: If ``strength`` is below 0.

    References:
        Ganin & Lempitsky (2015). Unsupervised domain adaptation by backpropagation. https://arxiv.org/abs/1409.7495

    Examples:
        >>> features = torch.ones(2, requires_grad=True)
        >>> reverse_gradient(features, strength=3.0).sum().backward()
        >>> features.grad
        tensor([-3., -3.])
    """
    if strength < 0:
        raise ValueError(f"strength must be at least 0, found {strength}")
    reversed_: Tensor = _Reversed.apply(features, strength)
    return reversed_


def modality_loss(logits: Tensor, modality: int, valid: Tensor | None = None) -> Tensor:
    """Cross entropy of a classifier that recognises the modality of each feature.

    ``-log(softmax(logits)[modality])``, averaged over the valid positions.

    Args:
        logits: Logits of the classifier, shape (B, M, h, w), with a channel for each of M modalities.
        modality: The true modality of all features, 0 to M - 1.
        valid: False at positions to leave out, bool, shape (B, h, w); None: all count.

    Returns:
        Scalar >= 0, at least float32. 0 if no position is valid.

    Raises:
        ValueError: If a shape does not fit, or ``modality`` is none of the channels.

    References:
        Ganin & Lempitsky (2015). Unsupervised domain adaptation by backpropagation. https://arxiv.org/abs/1409.7495

    Examples:
        A classifier that cannot decide has the loss log(2):

        >>> modality_loss(torch.zeros(1, 2, 1, 1), modality=0)
        tensor(0.6931)
    """
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise ValueError(f"expected logits (B, M, h, w) of at least 2 modalities, found {tuple(logits.shape)}")
    if not 0 <= modality < logits.shape[1]:
        raise ValueError(f"modality must be 0 to {logits.shape[1] - 1}, found {modality}")
    if valid is not None and valid.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"expected valid (B, h, w) for logits {tuple(logits.shape)}, found {tuple(valid.shape)}")
    wide = at_least_float32(logits)
    if valid is None:
        return -wide.log_softmax(dim=1)[:, modality].mean()
    losses = -wide.where(valid[:, None], 0).log_softmax(dim=1)[:, modality]
    return (losses * valid).sum() / valid.sum().clamp(min=1)


class _Reversed(torch.autograd.Function):
    """Identity in the forward pass, negative scaling in the backward pass."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        # A copy, because autograd forbids in-place changes of a view returned by a custom function.
        return features.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * -ctx.strength, None
