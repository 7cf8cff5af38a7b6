"""Batch normalisation over processes: with a single one it is PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geocrodino.training.parts import Processes
from geocrodino.training.processes import connected
from geocrodino.training.shared_norm import SharedBatchNorm


@pytest.fixture
def alone(tmp_path):
    with connected(Processes(), tmp_path / "meeting", "cpu"):
        yield


def layer(**options):
    torch.manual_seed(0)
    made = nn.BatchNorm2d(3, **options).double()
    if made.affine:
        nn.init.normal_(made.weight)
        nn.init.normal_(made.bias)
    return made


def outcome(norm, *, shared):
    torch.manual_seed(1)
    image = (5 + 3 * torch.randn(4, 3, 5, 7, dtype=torch.float64)).requires_grad_()
    if shared:
        with SharedBatchNorm():
            found = norm(image)
    else:
        found = norm(image)
    (found * torch.randn_like(found)).sum().backward()
    return [found, image.grad, *(p.grad for p in norm.parameters()), *norm.buffers()]


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}])
def test_values_gradients_and_statistics_are_those_of_pytorch(alone, options):
    expected = outcome(layer(**options), shared=False)
    found = outcome(layer(**options), shared=True)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one)


def test_evaluation_is_left_alone():
    norm = layer().eval()  # without a connection: nothing is exchanged
    for one, other in zip(outcome(norm, shared=False), outcome(norm, shared=True), strict=True):
        torch.testing.assert_close(other, one)


def test_half_precision_stays_half(alone):
    with SharedBatchNorm():
        found = nn.BatchNorm2d(2)(torch.randn(2, 2, 4, 4, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
