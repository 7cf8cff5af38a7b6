"""How far two computations of the same values in float32 may differ, whatever the processor.

Processors add the terms of a sum in the order that suits their registers, and round each product and sum by up to half
of float32's epsilon. The errors have random signs, so they grow like a random walk: a sum of n terms is off by about
sqrt(n) epsilon of its largest values (Higham and Mary, 2019, https://doi.org/10.1137/18M1226312). The layers of a
network are sums one after the other, so the terms of all of them count together. Twice that is allowed, as both sides
of a comparison are off.

On SSE, AVX2 and AVX-512 alike, networks with random weights reach less than a third of this. What tests guard against
is far beyond it: bfloat16 is off by 2^16 epsilon a step, and a pixel that sees other pixels by a hundredth of the
values. Tests in double precision need none of it: the default tolerances are a million times its epsilon.
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
        terms: Products or numbers that are added up in one sum, those of sums that go into it included.
        kind: What is computed in.

    Returns:
        The tolerance, in the unit of `magnitude`.
    """
    return 2 * float(np.finfo(kind).eps) * math.sqrt(terms) * magnitude


def output_rounding(network: nn.Module, output: Tensor) -> float:
    """Largest difference between two float32 computations of a network's output."""
    return rounding(float(output.detach().abs().max()), _terms(network))


@torch.no_grad()
def probability_rounding(network: nn.Module, images: Tensor) -> float:
    """Largest difference between two float32 computations of a network's class probabilities.

    A softmax changes by at most half of the largest change of a logit: p (1 - p) is at most 1/4, and two logits that
    change by d in opposite directions are 2 d apart.
    """
    return output_rounding(network, network(images)) / 2


def _terms(network: nn.Module) -> int:
    """Products that are added up for one output of each layer and four steps of each normalisation, over all layers."""
    layers = list(network.modules())
    products = sum(layer.weight[0].numel() for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear))
    return products + 4 * sum(isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm) for layer in layers)
