import math
import re

import pytest
import torch
import torch.nn.functional as F
from helpers.rounding import rounding
from torch import nn

from geocrodino.losses.adversarial import modality_loss, reverse_gradient

# Losses worked out by hand: logarithms of up to 5, a handful of exponentials and sums.
HAND = rounding(2, terms=24)


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _raises(text):
    return pytest.raises(ValueError, match=f"^{re.escape(text)}$")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_and_type_stay(dtype):
    features = _random(2, 3, 2, 2).to(dtype)
    found = reverse_gradient(features, 0.3)
    assert found.dtype == dtype
    assert torch.equal(found, features)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0, 3.0])
def test_gradient_is_reversed(strength):
    features = _random(2, 3).requires_grad_()
    factors = _random(2, 3, seed=1)
    (reverse_gradient(features, strength) * factors).sum().backward()
    torch.testing.assert_close(features.grad, -strength * factors)


def test_strength_is_one_unless_said():
    features = _random(4).requires_grad_()
    reverse_gradient(features).sum().backward()
    torch.testing.assert_close(features.grad, -torch.ones_like(features))


def test_reversed_twice_is_the_gradient_itself():
    features = _random(2, 3).requires_grad_()
    twice = reverse_gradient(reverse_gradient(features, 0.5), 2.0)
    twice.square().sum().backward()
    torch.testing.assert_close(features.grad, 2 * features.detach())


def test_second_derivative():
    features = _random(4).requires_grad_()
    (first,) = torch.autograd.grad(reverse_gradient(features, 0.5).pow(3).sum(), features, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), features)
    torch.testing.assert_close(first, -0.5 * 3 * features.square())
    torch.testing.assert_close(second, 0.5 * 0.5 * 6 * features)


def test_no_gradient_where_none_is_wanted():
    features = _random(4)
    assert not reverse_gradient(features).requires_grad
    features.requires_grad_()
    with torch.no_grad():
        assert not reverse_gradient(features).requires_grad


def test_result_can_be_changed_in_place():
    features = _random(2, 3).requires_grad_()
    before = features.detach().clone()
    nn.ReLU(inplace=True)(reverse_gradient(features, 2.0)).sum().backward()
    torch.testing.assert_close(features.grad, -2 * (before > 0).double())
    assert torch.equal(features.detach(), before)


def test_classifier_learns_while_features_forget():
    features = _random(2, 3, 2, 2).requires_grad_()
    classifier = nn.Conv2d(3, 2, 1).double()
    plain = modality_loss(classifier(features), 1)
    expected = torch.autograd.grad(plain, [features, *classifier.parameters()])
    turned = modality_loss(classifier(reverse_gradient(features, 0.5)), 1)
    found = torch.autograd.grad(turned, [features, *classifier.parameters()])
    torch.testing.assert_close(turned, plain)
    torch.testing.assert_close(found[0], -0.5 * expected[0])
    torch.testing.assert_close(found[1:], expected[1:])


def test_modality_loss_by_hand():
    # Probabilities of modality 1: 3/4 and 1/5.
    logits = torch.tensor([[[[0.0, math.log(4)]], [[math.log(3), 0.0]]]])
    assert modality_loss(logits, 1).item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 5)) / 2, abs=HAND)
    assert modality_loss(logits, 0).item() == pytest.approx(-(math.log(1 / 4) + math.log(4 / 5)) / 2, abs=HAND)
    valid = torch.tensor([[[True, False]]])
    assert modality_loss(logits, 1, valid).item() == pytest.approx(-math.log(3 / 4), abs=HAND)
    assert modality_loss(torch.zeros(2, 2, 3, 3), 0).item() == pytest.approx(math.log(2), abs=HAND)


@pytest.mark.parametrize("modality", [0, 1])
def test_modality_loss_is_cross_entropy(modality):
    logits = _random(3, 2, 4, 5)
    valid = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.4
    labels = torch.full((3, 4, 5), modality)
    torch.testing.assert_close(modality_loss(logits, modality), F.cross_entropy(logits, labels))
    expected = F.cross_entropy(logits, labels.masked_fill(~valid, -100))
    torch.testing.assert_close(modality_loss(logits, modality, valid), expected)


def test_modality_loss_ignores_the_order_of_classes_images_and_positions():
    logits = _random(3, 2, 4, 5)
    valid = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.4
    expected = modality_loss(logits, 1, valid)
    torch.testing.assert_close(modality_loss(logits.flip(1), 0, valid), expected)
    torch.testing.assert_close(modality_loss(logits.flip(0, 2), 1, valid.flip(0, 1)), expected)
    torch.testing.assert_close(modality_loss(logits + 5, 1, valid), expected)


def test_positions_left_out_may_hold_anything():
    valid = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.4
    clean = _random(3, 2, 4, 5).requires_grad_()
    spoilt = _random(3, 2, 4, 5).masked_fill(~valid[:, None], torch.nan).requires_grad_()
    expected, found = modality_loss(clean, 0, valid), modality_loss(spoilt, 0, valid)
    expected.backward()
    found.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(spoilt.grad, clean.grad)


def test_nothing_valid_is_zero_with_gradient():
    logits = _random(2, 2, 3, 3).requires_grad_()
    value = modality_loss(logits, 0, torch.zeros(2, 3, 3, dtype=torch.bool))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad.eq(0).all()


def test_gradients():
    logits = _random(2, 2, 2, 3).requires_grad_()
    valid = torch.tensor([[[True, False, True], [True, True, True]]]).expand(2, -1, -1)
    assert torch.autograd.gradcheck(lambda x: modality_loss(x, 1), (logits,))
    assert torch.autograd.gradcheck(lambda x: modality_loss(x, 0, valid), (logits,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    logits = (1000 * _random(2, 2, 3, 3)).to(dtype)
    expected = modality_loss(logits.float(), 1)
    for enabled in (False, True):
        leaf = logits.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found = modality_loss(reverse_gradient(leaf), 1)
        found.backward()
        assert found.dtype == torch.float32
        assert found.isfinite()
        assert leaf.grad.dtype == dtype
        torch.testing.assert_close(found, expected)


ERRORS = {
    "strength must be at least 0, found -0.5": lambda: reverse_gradient(torch.zeros(2), -0.5),
    "expected logits (B, M, h, w) of at least 2 modalities, found (2, 1, 4, 4)": (
        lambda: modality_loss(torch.zeros(2, 1, 4, 4), 0)
    ),
    "expected logits (B, M, h, w) of at least 2 modalities, found (2, 2)": lambda: modality_loss(torch.zeros(2, 2), 0),
    "modality must be 0 to 1, found 2": lambda: modality_loss(torch.zeros(2, 2, 4, 4), 2),
    "modality must be 0 to 1, found -1": lambda: modality_loss(torch.zeros(2, 2, 4, 4), -1),
    "expected valid (B, h, w) for logits (2, 2, 4, 4), found (2, 4, 3)": (
        lambda: modality_loss(torch.zeros(2, 2, 4, 4), 0, torch.ones(2, 4, 3, dtype=torch.bool))
    ),
}


@pytest.mark.parametrize("text", ERRORS)
def test_arguments_are_checked(text):
    with _raises(text):
        ERRORS[text]()
