"""Depthwise convolutions of a bfloat16 training on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geocrodino.training.depthwise import DepthwiseInFloat32


def _gradients(convolution: nn.Conv2d, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output of a layer, and the gradients of its sum of squares."""
    convolution.zero_grad()
    given = image.clone().requires_grad_()
    output = convolution(given)
    output.float().square().sum().backward()
    assert given.grad is not None
    assert convolution.weight.grad is not None
    return output.detach(), given.grad, convolution.weight.grad.clone()


@pytest.fixture(name="image")
def _image() -> torch.Tensor:
    # Halves of small integers: bfloat16 holds them, their products and the sums below exactly.
    return torch.randint(-4, 5, (2, 4, 6, 6), generator=torch.Generator().manual_seed(0)) / 2


def _depthwise() -> nn.Conv2d:
    convolution = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(torch.arange(36).reshape(4, 1, 3, 3) % 3 - 1)
    return convolution


def test_a_depthwise_convolution_computes_in_float32_and_returns_bfloat16(image: torch.Tensor) -> None:
    convolution = _depthwise()
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        output = convolution(image)
    kinds = [saved.dtype for saved in _saved_tensors(output)]
    assert output.dtype == torch.bfloat16
    assert set(kinds) == {torch.float32}


def test_the_values_are_those_of_float32(image: torch.Tensor) -> None:
    exact = _gradients(_depthwise(), image)
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        found = _gradients(_depthwise(), image)
    for one, other in zip(exact, found, strict=True):
        torch.testing.assert_close(other.float(), one, rtol=0, atol=0)


def test_other_convolutions_stay_in_bfloat16(image: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        output = nn.Conv2d(4, 8, 3, bias=False)(image)
    assert {saved.dtype for saved in _saved_tensors(output)} == {torch.bfloat16}


def test_nothing_changes_without_autocast(image: torch.Tensor) -> None:
    with DepthwiseInFloat32():
        output = _depthwise()(image)
    assert output.dtype == torch.float32


def _saved_tensors(output: torch.Tensor) -> list[torch.Tensor]:
    """Tensors that the convolution behind an output keeps for its gradients."""
    node = output.grad_fn
    while node is not None and "Convolution" not in node.name():
        node = node.next_functions[0][0]
    assert node is not None
    return [node._saved_input, node._saved_weight]  # type: ignore[attr-defined]
