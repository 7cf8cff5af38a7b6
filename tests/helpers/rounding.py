"""Tolerances: how far two float32 computations of the same value may differ, on any processor.

Processors add the terms of a sum in different orders, and round each product and sum by up to half of float32's
epsilon. The errors have random signs, so they grow like a random walk: a sum of n terms is off by about sqrt(n) epsilon
of its largest values (Higham and Mary, 2019, https://doi.org/10.1137/18M1226312). The layers of a network are sums one
after the other, so the terms of all layers count together. Twice that is allowed, because both sides of a comparison
are off.

With SSE, AVX2 and AVX-512 alike, networks with random weights reach less than a third of this. The errors that tests
look for are far larger: bfloat16 is off by 2^16 epsilon a step, and a pixel that sees wrong pixels is off by a
hundredth of the values. Tests in double precision do not need this: the default tolerances are a million times its
epsilon.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def rounding(magnitude: float, terms: int, kind: type[np.floating[Any]] = np.float32) -> float:
    """Largest difference between two sums of the same terms.

    Args:
        magnitude: Largest absolute value among the sums and their partial sums.
        terms: Number of terms of one sum, including those of the sums that are its terms.
        kind: Number format of the computation.

    Returns:
        The tolerance, in the unit of `magnitude`.
    """
    return 2 * float(np.finfo(kind).eps) * math.sqrt(terms) * magnitude


def output_rounding(network: nn.Module, output: Tensor) -> float:
    """Largest difference between two float32 computations of a network's output.

    Args:
        network: The network.
        output: Its output, any shape.

    Returns:
        The tolerance, in the unit of the output.
    """
    return rounding(float(output.detach().abs().max()), _terms(network))


@torch.no_grad()
def probability_rounding(network: nn.Module, images: Tensor) -> float:
    """Largest difference between two float32 computations of a network's class probabilities.

    A softmax changes by at most half of the largest change of a logit: p (1 - p) is at most 1/4, and two logits that
    change by d in opposite directions are 2 d apart.

    Args:
        network: Maps images to logits.
        images: Input, shape (B, C, H, W).

    Returns:
        The tolerance of a probability.
    """
    return output_rounding(network, network(images)) / 2


def _terms(network: nn.Module) -> int:
    """Terms of one output value, summed over all layers: products, and four steps of each normalisation."""
    layers = list(network.modules())
    products = sum(layer.weight[0].numel() for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear))
    return products + 4 * sum(isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm) for layer in layers)
