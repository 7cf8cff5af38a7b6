"""Losses that keep modality-invariant and modality-specific features apart."""

from __future__ import annotations

import torch
from torch import Tensor

from geocrodino.losses.precision import at_least_float32

_SMALLEST_SQUARE = 1e-16
"""Lower limit of a squared length in a division."""


def orthogonality_loss(invariant: Tensor, specific: Tensor, valid: Tensor | None = None) -> Tensor:
    """Penalise modality-invariant and modality-specific features that carry the same information.

    ``cos(invariant, specific)^2`` at each position, averaged over the valid positions. The cosine is squared because
    features can be negative: opposite features carry the same information as equal ones.

    Args:
        invariant: Modality-invariant features, shape (B, C, H, W).
        specific: Modality-specific features of the same modality, shape (B, C, H, W).
        valid: False at positions to leave out, bool, shape (B, H, W); None: all count.

    Returns:
        Scalar in [0, 1], at least float32. 0 if no position is valid.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        Bousmalis et al. (2016). Domain separation networks. https://arxiv.org/abs/1608.06019

    Examples:
        The cosine of (1, 0) and (1, 1) is 1 / sqrt(2):

        >>> invariant, specific = (torch.tensor(v).view(1, 2, 1, 1) for v in ([1.0, 0.0], [1.0, 1.0]))
        >>> orthogonality_loss(invariant, specific)
        tensor(0.5000)
    """
    if invariant.shape != specific.shape or invariant.ndim != 4:
        raise ValueError(
            f"expected two feature maps of one shape (B, C, H, W), found {tuple(invariant.shape)} and "
            f"{tuple(specific.shape)}"
        )
    if valid is not None and valid.shape != (invariant.shape[0], *invariant.shape[2:]):
        raise ValueError(f"expected valid (B, H, W) for features {tuple(invariant.shape)}, found {tuple(valid.shape)}")
    invariant, specific = at_least_float32(invariant), at_least_float32(specific)
    # Squares instead of norms: the square root in a norm has no finite gradient at zero features.
    lengths = invariant.square().sum(dim=1) * specific.square().sum(dim=1)
    squared_cosine = (invariant * specific).sum(dim=1).square() / lengths.clamp(min=_SMALLEST_SQUARE)
    if valid is None:
        return squared_cosine.mean()
    return squared_cosine.where(valid, torch.zeros_like(squared_cosine)).sum() / valid.sum().clamp(min=1)
