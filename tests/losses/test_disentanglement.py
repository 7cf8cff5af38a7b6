import pytest
import torch
from helpers.rounding import rounding

from geocrodino.losses.disentanglement import orthogonality_loss

# Cosines worked out by hand: squares of up to 25 and their sums.
HAND = rounding(1, terms=24)


def _features(seed, shape=(2, 4, 3, 3)):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    # Cosines at the three positions: 0, -1 and 3 / 5.
    invariant = torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 0.0]]).T[None, :, None]
    specific = torch.tensor([[0.0, 5.0], [-2.0, -4.0], [3.0, 4.0]]).T[None, :, None]
    assert orthogonality_loss(invariant, specific).item() == pytest.approx((0 + 1 + 0.36) / 3, abs=HAND)
    valid = torch.tensor([[[True, False, True]]])
    assert orthogonality_loss(invariant, specific, valid).item() == pytest.approx(0.36 / 2, abs=HAND)


def test_scale_sign_and_common_rotation_do_not_matter():
    first, second = _features(1), _features(2)
    expected = orthogonality_loss(first, second)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    turned = [torch.einsum("dc,bchw->bdhw", rotation, x) for x in (first, second)]
    torch.testing.assert_close(orthogonality_loss(3 * first, -0.2 * second), expected)
    torch.testing.assert_close(orthogonality_loss(*turned), expected)
    torch.testing.assert_close(orthogonality_loss(second, first), expected)
    assert 0 < expected < 1


def test_zero_features_have_no_nan():
    zero = torch.zeros(1, 4, 2, 2, requires_grad=True)
    value = orthogonality_loss(zero, torch.ones(1, 4, 2, 2))
    value.backward()
    assert value.item() == 0.0
    assert zero.grad.eq(0).all()


def test_nothing_valid_is_zero_with_gradient():
    features = torch.randn(1, 4, 2, 2, requires_grad=True)
    value = orthogonality_loss(features, torch.ones(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool))
    value.backward()
    assert value.item() == 0.0
    assert features.grad.eq(0).all()


def test_gradients():
    inputs = (_features(1).requires_grad_(), _features(2).requires_grad_())
    assert torch.autograd.gradcheck(orthogonality_loss, inputs)


def test_half_precision():
    features = torch.full((1, 64, 2, 2), 100.0, dtype=torch.float16)
    value = orthogonality_loss(features, -features)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(1.0)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"one shape \(B, C, H, W\), found \(1, 4, 2, 2\) and \(1, 3, 2, 2\)"):
        orthogonality_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"expected valid \(B, H, W\)"):
        orthogonality_loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), torch.ones(1, 3, 2, dtype=torch.bool))
