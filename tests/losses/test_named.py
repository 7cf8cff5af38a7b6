"""Losses by name: values by hand, unlabelled pixels, absent classes."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from helpers.rounding import rounding

from geocrodino.losses.named import focal, losses_of, lovasz
from geocrodino.losses.segmentation import cross_entropy
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.method import LossName, MethodSettings

HAND = rounding(9, terms=24)
ALL = dict.fromkeys(get_args(LossName), 1.0)


def _of(*probabilities):
    """Logits of pixels in one row, from the probabilities of their classes."""
    return torch.tensor(probabilities).T[None, :, None].clamp(min=1e-30).log()


def test_focal_by_hand():
    # p of the labels 3/4 and 1/2, weights 1 and 3, gamma 2; the third pixel has no label.
    logits = _of([0.75, 0.25], [0.5, 0.5], [0.1, 0.9])
    labels = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    expected = -(0.25**2 * math.log(0.75) + 3 * 0.5**2 * math.log(0.5)) / 4
    assert focal(logits, labels, torch.tensor([1.0, 3.0]), gamma=2.0).item() == pytest.approx(expected, abs=HAND)


def test_focal_without_focus_is_the_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(3, (2, 4, 5), generator=generator)
    labels[0, :2] = IGNORE_INDEX
    weights = torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64)
    # Kornia before 0.9 puts 1e-6, not 0, beside the one of a one-hot label.
    torch.testing.assert_close(
        focal(logits, labels, weights, gamma=0.0), cross_entropy(logits, labels, weights), rtol=1e-5, atol=0
    )


def test_lovasz_by_hand():
    # Class 0, labels (1, 0): errors 0.25 and 0.5, sorted 0.5 (not the class), 0.25 (the class). The Jaccard loss of the
    # first is 1 - 1/2, of both 1 - 0/2; so 0.5 * 1/2 + 0.25 * 1/2. Class 1, labels (0, 1): errors 0.25 and 0.5, sorted
    # 0.5 (the class), 0.25: Jaccard losses 1 and 1, so 0.5. Class 2 is absent.
    logits = _of([0.75, 0.25, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0])
    labels = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    found = lovasz(logits, labels, torch.ones(3))
    assert found.item() == pytest.approx((0.375 + 0.5) / 2, abs=HAND)


@pytest.mark.parametrize("name", ALL)
def test_unlabelled_pixels_change_nothing(name):
    loss = losses_of(MethodSettings(losses=ALL))[name]
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 3, 2, 6, generator=generator)
    labels = torch.randint(2, (1, 2, 6), generator=generator)  # class 2 is absent
    weights = torch.tensor([1.0, 2.0, 0.5])
    wider = torch.cat([logits, 50 * torch.randn(1, 3, 2, 3, generator=generator)], dim=3)
    more = torch.cat([labels, torch.full((1, 2, 3), IGNORE_INDEX)], dim=2)
    wider.requires_grad_()
    found = loss(wider, more, weights)
    found.backward()
    torch.testing.assert_close(found, loss(logits, labels, weights))
    assert wider.grad is not None
    assert wider.grad[..., 6:].eq(0).all()
    assert wider.grad[..., :6].ne(0).any()


@pytest.mark.parametrize("name", ALL)
def test_nothing_labelled_is_zero_with_zero_gradient(name):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = losses_of(MethodSettings(losses=ALL))[name](logits, torch.full((2, 4, 4), IGNORE_INDEX), torch.ones(3))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("name", ALL)
def test_half_precision_is_summed_in_float32(name):
    logits = torch.randn(1, 3, 8, 8, dtype=torch.bfloat16)
    found = losses_of(MethodSettings(losses=ALL))[name](logits, torch.randint(3, (1, 8, 8)), torch.ones(3))
    assert found.dtype == torch.float32


def test_losses_without_weight_are_left_out():
    assert list(losses_of(MethodSettings())) == ["cross_entropy"]
    assert list(losses_of(MethodSettings(losses={"lovasz": 1, "cross_entropy": 0}, dice=0.5))) == ["dice", "lovasz"]
