import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.rounding import rounding

from geocrodino.losses.contrastive import majority_labels
from geocrodino.losses.distillation import (
    MaskTokens,
    agreement_loss,
    distillation_loss,
    mask_diversity_loss,
    masked_feature_loss,
    prototype_distillation_loss,
)
from geocrodino.settings.classes import IGNORE_INDEX

SHAPE = (2, 3, 2, 4)
LABELS = torch.tensor([[[0, 1, 1, 0], [1, 2, 0, 2]], [[2, 0, 0, 2], [IGNORE_INDEX, 2, 0, 0]]])
UNLABELLED = torch.full_like(LABELS, IGNORE_INDEX)
NOTHING = torch.zeros(2, 2, 4, dtype=torch.bool)


def _random(*shape, seed=0):
    return torch.randn(*(shape or SHAPE), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _weights(seed=2):
    return torch.rand(2, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _masks(tokens=3, seed=3):
    return _random(2, tokens, 2, 4, seed=seed).sigmoid()


def _pixels(*columns):
    """Vectors as the positions of one image of one row."""
    return torch.tensor(columns, dtype=torch.float64).T[None, :, None]


def _raises(text):
    return pytest.raises(ValueError, match=f"^{re.escape(text)}$")


# What is left of zero: logits of up to 5, 3 classes at 16 positions, in double precision.
ZERO = rounding(5, terms=3 * 16, kind=np.float64)

# From (3/4, 1/4) to (1/2, 1/2).
DIVERGENCE = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)


def test_distillation_by_hand():
    teacher = _pixels([math.log(3), 0], [5, 5])
    student = _pixels([7, 7], [1, 1])
    assert distillation_loss(student, teacher).item() == pytest.approx(DIVERGENCE / 2)
    valid = torch.tensor([[[True, False]]])
    assert distillation_loss(student, teacher, valid=valid).item() == pytest.approx(DIVERGENCE)
    # Twice the logits at twice the temperature are the same probabilities.
    assert distillation_loss(student, 2 * teacher, 2, valid).item() == pytest.approx(4 * DIVERGENCE)


def test_distillation_is_divergence_from_the_teacher_and_not_the_reverse():
    student, teacher = _random(), _random(seed=1)
    p, q = teacher.softmax(1), student.softmax(1)
    expected = (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher), expected)
    assert not torch.isclose(distillation_loss(teacher, student), expected)


def test_distillation_gradient_of_a_high_temperature_is_that_of_centred_squares():
    # The limit of Hinton et al., section 2.1: (student - teacher) / K for logits of mean 0.
    student, teacher = (x - x.mean(1, keepdim=True) for x in (_random(), _random(seed=1)))
    student.requires_grad_()
    distillation_loss(student, teacher, 1e4).backward()
    expected = (student.detach() - teacher) / 3 / (2 * 2 * 4)
    torch.testing.assert_close(student.grad, expected, rtol=1e-3, atol=1e-6)


def test_distillation_of_equal_or_shifted_logits_is_zero():
    logits = _random()
    assert distillation_loss(logits, logits, 3.0).item() == 0.0
    assert abs(distillation_loss(logits, logits + _random(2, 1, 2, 4)).item()) < ZERO


def test_distillation_ignores_the_order_of_classes_images_and_pixels():
    student, teacher, valid = _random(), _random(seed=1), _weights() > 0.3
    expected = distillation_loss(student, teacher, 2.0, valid)
    torch.testing.assert_close(distillation_loss(student.roll(1, 1), teacher.roll(1, 1), 2.0, valid), expected)
    for axis in (0, 2, 3):
        moved = distillation_loss(student.flip(axis), teacher.flip(axis), 2.0, valid.flip(axis - (axis > 1)))
        torch.testing.assert_close(moved, expected)


def test_distillation_of_a_certain_teacher_is_cross_entropy():
    logits, labels = _random(), LABELS.where(LABELS != IGNORE_INDEX, 0)
    teacher = 1e4 * F.one_hot(labels, 3).movedim(-1, 1).double()
    torch.testing.assert_close(distillation_loss(logits, teacher), F.cross_entropy(logits, labels))


def test_prototypes_by_hand():
    # Cosines with the means of classes 0 and 1: the student's 1, 0 and 0, 1; the teacher's all 1.
    student, teacher = _pixels([1, 0], [0, 5]), _pixels([0, 0, 2], [0, 0, 7])
    labels = torch.tensor([[[0, 1]]])
    assert prototype_distillation_loss(student, teacher, labels, 5).item() == pytest.approx(2 / 4)
    # In a second image class 0 alone, of mean (1/2, 5/2): two more terms of class 0, none of class 1.
    both = torch.tensor([[[0, 1]], [[0, 0]]])
    terms = [0, 1, 1, 0, (1 - 1 / math.sqrt(26)) ** 2, (1 - 5 / math.sqrt(26)) ** 2]
    found = prototype_distillation_loss(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1), both, 5)
    assert found.item() == pytest.approx(sum(terms) / 6)


def test_prototypes_are_compared_where_positions_are_valid():
    student, teacher = _random(), _random(seed=1)
    valid = torch.ones(2, 2, 4, dtype=torch.bool)
    whole = prototype_distillation_loss(student, teacher, LABELS, 3)
    torch.testing.assert_close(prototype_distillation_loss(student, teacher, LABELS, 3, valid), whole)
    valid[1] = False
    first = prototype_distillation_loss(student[:1], teacher[:1], LABELS[:1], 3)
    torch.testing.assert_close(prototype_distillation_loss(student, teacher, LABELS, 3, valid), first)
    valid[0, 1] = False
    kept = prototype_distillation_loss(student, teacher, LABELS, 3, valid)
    assert not torch.isclose(kept, first)
    assert prototype_distillation_loss(student, teacher, LABELS, 3, NOTHING).item() == 0


def test_prototypes_see_unlabelled_positions_but_are_not_made_of_them():
    student, teacher = _pixels([1, 0], [0, 5], [3, 4]), _pixels([1, 0], [0, 1], [1, 0])
    labels = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    # The third position: cosines 3/5 and 4/5 against 1 and 0.
    expected = (0.4**2 + 0.8**2) / 6
    assert prototype_distillation_loss(student, teacher, labels, 2).item() == pytest.approx(expected)


def test_prototypes_by_loops():
    student, teacher = _random(), _random(2, 5, 2, 4, seed=1)
    terms = []
    for image in range(2):
        for index in range(3):
            inside = LABELS[image] == index
            if inside.any():
                maps = []
                for features in (student[image], teacher[image]):
                    mean = features[:, inside].mean(1)
                    maps.append(F.cosine_similarity(features, mean[:, None, None], dim=0))
                terms.append((maps[0] - maps[1]).square())
    assert len(terms) == 5
    found = prototype_distillation_loss(student, teacher, LABELS, 3)
    torch.testing.assert_close(found, torch.stack(terms).mean())


def test_prototypes_read_labels_of_full_resolution():
    student, teacher = _random(), _random(seed=1)
    fine = torch.randint(3, (2, 8, 16), generator=torch.Generator().manual_seed(4))
    expected = prototype_distillation_loss(student, teacher, majority_labels(fine, (2, 4), 3), 3)
    torch.testing.assert_close(prototype_distillation_loss(student, teacher, fine, 3), expected)
    repeated = LABELS.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(
        prototype_distillation_loss(student, teacher, repeated, 3),
        prototype_distillation_loss(student, teacher, LABELS, 3),
    )


def test_prototypes_ignore_scale_rotation_and_order():
    student, teacher = _random(), _random(2, 5, 2, 4, seed=1)
    expected = prototype_distillation_loss(student, teacher, LABELS, 3)
    torch.testing.assert_close(prototype_distillation_loss(4 * student, 0.1 * teacher, LABELS, 3), expected)
    rotation = torch.linalg.qr(_random(5, 5, seed=2))[0]
    turned = torch.einsum("dc,bchw->bdhw", rotation, teacher)
    torch.testing.assert_close(prototype_distillation_loss(student, turned, LABELS, 3), expected)
    renamed = LABELS.where(LABELS == IGNORE_INDEX, (LABELS + 1) % 3)
    torch.testing.assert_close(prototype_distillation_loss(student, teacher, renamed, 3), expected)
    moved = prototype_distillation_loss(student.flip(0, 3), teacher.flip(0, 3), LABELS.flip(0, 2), 3)
    torch.testing.assert_close(moved, expected)
    torch.testing.assert_close(prototype_distillation_loss(student, teacher, LABELS, 9), expected)


def test_prototypes_of_equal_features_agree():
    assert prototype_distillation_loss(_random(), _random(), LABELS, 3).item() == 0.0


def test_zero_features_have_no_large_gradient():
    features = _random()
    features[:, :, 0] = 0.0
    features.requires_grad_()
    prototype_distillation_loss(features, _random(seed=1), LABELS, 3).backward()
    assert features.grad.abs().max() < 10
    zero = torch.zeros(SHAPE, requires_grad=True)
    value = prototype_distillation_loss(zero, _random(seed=1).float(), LABELS, 3)
    value.backward()
    assert value.isfinite()
    assert zero.grad.eq(0).all()


def test_agreement_by_hand():
    logits, target = _pixels([4, 4], [2, 2], [8, 0]), _pixels([0.75, 0.25], [1, 0], [0, 1])
    weight = torch.tensor([[[0.5, 0.125, 0.0]]])
    expected = (0.5 * DIVERGENCE + 0.125 * math.log(2)) / 3  # the third pixel counts, with nothing to say
    assert agreement_loss(logits, target, weight).item() == pytest.approx(expected)
    assert agreement_loss(logits, target, weight / 2).item() == pytest.approx(expected / 2)


def test_agreement_is_soft_cross_entropy_less_entropy():
    logits, target, weight = _random(), _random(seed=1).softmax(1), _weights()
    pixels = F.cross_entropy(logits, target, reduction="none") + (target * target.log()).sum(1)
    torch.testing.assert_close(agreement_loss(logits, target, weight), (pixels * weight).mean())


def test_agreement_of_equal_probabilities_is_zero_where_targets_are_unsure_or_certain():
    logits = _random()
    assert abs(agreement_loss(logits, logits.softmax(1), _weights()).item()) < ZERO
    certain = 1e4 * F.one_hot(torch.arange(16).view(2, 2, 4) % 3, 3).movedim(-1, 1).double()
    assert agreement_loss(certain, certain.softmax(1), _weights()).item() == 0.0


def test_agreement_ignores_the_order_of_classes_images_and_pixels():
    logits, target, weight = _random(), _random(seed=1).softmax(1), _weights()
    expected = agreement_loss(logits, target, weight)
    torch.testing.assert_close(agreement_loss(logits.roll(1, 1), target.roll(1, 1), weight), expected)
    torch.testing.assert_close(agreement_loss(logits.flip(0, 2), target.flip(0, 2), weight.flip(0, 1)), expected)


def test_pixels_left_out_may_hold_anything():
    valid = _weights() > 0.5
    weight = _weights().where(valid, 0)
    target = _random(seed=1).softmax(1)
    for call in (
        lambda x, y: distillation_loss(x, y, 2.0, valid),
        lambda x, y: agreement_loss(x, y, weight),
    ):
        clean = _random().requires_grad_()
        spoilt = _random().masked_fill(~valid[:, None], torch.nan).requires_grad_()
        expected, found = call(clean, target), call(spoilt, target.masked_fill(~valid[:, None], torch.nan))
        expected.backward()
        found.backward()
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(spoilt.grad, clean.grad)
        assert spoilt.grad.movedim(1, -1)[~valid].eq(0).all()


def test_mask_tokens_by_hand():
    module = MaskTokens(2, 3)
    assert module.tokens.shape == (3, 2)
    with torch.no_grad():
        module.tokens.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]]))
    features = _pixels([math.log(3), 7], [0, math.log(4)]).float()
    expected = torch.tensor([[0.75, 0.5], [1 / (1 + math.exp(7)), 0.2], [0.5, 0.5]])[None, :, None]
    torch.testing.assert_close(module(features), expected)


def test_mask_tokens_are_learnt_and_start_unsaturated():
    torch.manual_seed(0)
    module = MaskTokens(256)
    masks = module(torch.randn(2, 256, 4, 6))
    assert masks.shape == (2, 8, 4, 6)
    assert 0.15 < masks.std() < 0.3
    masks.sum().backward()
    assert module.tokens.grad.ne(0).any()
    assert [name for name, _ in module.named_parameters()] == ["tokens"]


def test_masked_features_by_hand():
    # Mean squares over channels at the three positions: 1, 2 and 0.
    student, teacher = _pixels([1, 2], [1, 1], [3, 3]), _pixels([0, 1], [3, 1], [3, 3])
    masks = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.25, 0.75, 0.0]], [[0.2, 0.2, 0.4]]]])
    terms = [1, 0.25 * 1 + 0.75 * 2, 0.25 * 1 + 0.25 * 2]
    assert masked_feature_loss(student, teacher, masks).item() == pytest.approx(sum(terms) / 3)


def test_masked_features_of_one_even_mask_are_the_mean_square():
    student, teacher = _random(), _random(seed=1)
    even = torch.full((2, 4, 2, 4), 0.3, dtype=torch.float64)
    torch.testing.assert_close(masked_feature_loss(student, teacher, even), F.mse_loss(student, teacher))


def test_masked_features_scale_and_order():
    student, teacher, masks = _random(), _random(seed=1), _masks()
    expected = masked_feature_loss(student, teacher, masks)
    torch.testing.assert_close(masked_feature_loss(student, teacher, masks / 7), expected)
    torch.testing.assert_close(masked_feature_loss(student, teacher, masks.flip(1)), expected)
    torch.testing.assert_close(masked_feature_loss(student.roll(1, 1), teacher.roll(1, 1), masks), expected)
    torch.testing.assert_close(masked_feature_loss(*(x.flip(0, 3) for x in (student, teacher, masks))), expected)
    torch.testing.assert_close(masked_feature_loss(3 * student, 3 * teacher, masks), 9 * expected)
    torch.testing.assert_close(masked_feature_loss(teacher, student, masks), expected)


def test_an_empty_mask_adds_nothing():
    student, teacher, masks = _random(), _random(seed=1), _masks(1)
    half = masked_feature_loss(student, teacher, torch.cat([masks, torch.zeros_like(masks)], 1))
    torch.testing.assert_close(half, masked_feature_loss(student, teacher, masks) / 2)


def test_diversity_by_hand():
    masks = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]]]])
    assert mask_diversity_loss(masks).item() == pytest.approx((0 + 2 / 3 + 2 / 3) / 3)
    second = torch.tensor([[[[0.5, 0.0]], [[1.0, 0.0]], [[0.0, 0.0]]]])
    found = mask_diversity_loss(torch.cat([masks, second]))
    assert found.item() == pytest.approx((4 / 3 + 2 * 0.5 / (0.25 + 1) + 0 + 0) / 6)


def test_diversity_range_and_order():
    masks = _masks(4)
    expected = mask_diversity_loss(masks)
    assert 0 < expected < 1
    torch.testing.assert_close(mask_diversity_loss(masks.flip(0, 1, 2)), expected)
    torch.testing.assert_close(mask_diversity_loss(masks / 5), expected)
    torch.testing.assert_close(mask_diversity_loss(masks[:, :1].expand(-1, 4, -1, -1)).item(), 1.0)
    assert mask_diversity_loss(torch.eye(4).view(1, 4, 2, 2)).item() == 0.0
    assert mask_diversity_loss(torch.zeros(2, 4, 2, 2)).item() == 0.0


def test_diversity_of_one_mask_is_zero_with_gradient():
    mask = _masks(1).requires_grad_()
    value = mask_diversity_loss(mask)
    value.backward()
    assert value.item() == 0.0
    assert mask.grad.eq(0).all()


TARGET = _random(seed=5).softmax(1)
CALLS = {
    "distillation": lambda a, b: distillation_loss(a, b, 2.0, _weights() > 0.3),
    "prototypes": lambda a, b: prototype_distillation_loss(a, b, LABELS, 3),
    "agreement": lambda a, b: agreement_loss(a, b.softmax(1), _weights().to(a.dtype)),
    "masked": lambda a, b: masked_feature_loss(a, b, b.sigmoid()),
    "diversity": lambda a, b: mask_diversity_loss((a + b).sigmoid()),
}
EMPTY = {
    "distillation": lambda a, b: distillation_loss(a, b, 2.0, NOTHING),
    "prototypes": lambda a, b: prototype_distillation_loss(a, b, UNLABELLED, 3),
    "agreement": lambda a, b: agreement_loss(a, b.softmax(1), NOTHING.double()),
    "masked": lambda a, b: masked_feature_loss(a, b, torch.zeros(2, 3, 2, 4)),
}


@pytest.mark.parametrize("name", CALLS)
def test_gradients(name):
    other = _random(seed=1)
    assert torch.autograd.gradcheck(lambda a: CALLS[name](a, other), (_random().requires_grad_(),))


def test_gradients_of_tokens():
    module = MaskTokens(3, 2).double()
    features = _random().requires_grad_()
    assert torch.autograd.gradcheck(lambda f, _: module(f), (features, module.tokens))


@pytest.mark.parametrize("name", [x for x in CALLS if x != "diversity"])
def test_only_the_student_gets_a_gradient(name):
    student, other = _random().requires_grad_(), _random(seed=1).requires_grad_()
    CALLS[name](student, other).backward()
    assert student.grad.ne(0).any()
    assert other.grad is None or other.grad.eq(0).all()


def test_weights_get_no_gradient():
    weight = _weights().requires_grad_()
    agreement_loss(_random().requires_grad_(), TARGET, weight).backward()
    assert weight.grad is None


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_compare_is_zero_with_gradient(name):
    student = _random().requires_grad_()
    value = EMPTY[name](student, _random(seed=1))
    value.backward()
    assert value.item() == 0.0
    assert student.grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [x for x in CALLS if x not in ("agreement", "masked", "diversity")])
def test_half_precision_and_autocast(name, dtype):
    _check_half(CALLS[name], [1000 * _random(seed=s) for s in (0, 1)], dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("call", "inputs"),
    [
        (agreement_loss, [1000 * _random(), TARGET, _weights()]),
        (masked_feature_loss, [1000 * _random(), 1000 * _random(seed=1), _masks()]),
        (mask_diversity_loss, [_masks()]),
    ],
    ids=["agreement", "masked", "diversity"],
)
def test_half_precision_of_weights_and_masks(call, inputs, dtype):
    _check_half(call, inputs, dtype)


def _check_half(call, inputs, dtype):
    halves = [x.to(dtype) for x in inputs]
    expected = call(*(x.float() for x in halves))
    for enabled in (False, True):
        leaf = halves[0].clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found = call(leaf, *halves[1:])
        found.backward()
        assert found.dtype == torch.float32
        assert found.isfinite()
        assert leaf.grad.dtype == dtype
        assert leaf.grad.isfinite().all()
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mask_tokens_in_half_precision(dtype):
    module = MaskTokens(3, 2)
    features = _random().to(dtype)
    expected = module(features.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert module.to(dtype)(features).dtype == torch.float32


@pytest.mark.parametrize("name", CALLS)
def test_large_inputs_stay_finite(name):
    student = (1e4 * _random().float()).requires_grad_()
    value = CALLS[name](student, -1e4 * student.detach())
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


ZEROS = torch.zeros(SHAPE)
ERRORS = {
    "expected two sets of logits of one shape (B, K, H, W), found (2, 3, 2, 4) and (2, 2, 2, 4)": (
        lambda: distillation_loss(ZEROS, ZEROS[:, :2])
    ),
    "expected two sets of logits of one shape (B, K, H, W), found (3, 2, 4) and (3, 2, 4)": (
        lambda: distillation_loss(ZEROS[0], ZEROS[0])
    ),
    "expected valid (B, H, W) for logits (2, 3, 2, 4), found (2, 1, 2, 4)": (
        lambda: distillation_loss(ZEROS, ZEROS, valid=NOTHING[:, None])
    ),
    "temperature must be above 0, found 0": lambda: distillation_loss(ZEROS, ZEROS, 0),
    "temperature must be above 0, found -1.0": lambda: distillation_loss(ZEROS, ZEROS, -1.0),
    "expected feature maps (B, C, h, w) with one B, h and w, found (2, 3, 2, 4) and (1, 3, 2, 4)": (
        lambda: prototype_distillation_loss(ZEROS, ZEROS[:1], LABELS, 3)
    ),
    "expected feature maps (B, C, h, w) with one B, h and w, found (2, 3, 2, 4) and (2, 3, 2, 3)": (
        lambda: prototype_distillation_loss(ZEROS, ZEROS[..., :3], LABELS, 3)
    ),
    "expected labels (B, H, W) for features (2, 3, 2, 4), found (1, 2, 4)": (
        lambda: prototype_distillation_loss(ZEROS, ZEROS, LABELS[:1], 3)
    ),
    "expected logits and target of one shape (B, K, H, W), found (2, 3, 2, 4) and (2, 2, 4)": (
        lambda: agreement_loss(ZEROS, LABELS, LABELS)
    ),
    "expected weight (B, H, W) for logits (2, 3, 2, 4), found (2, 3, 2, 4)": (
        lambda: agreement_loss(ZEROS, ZEROS, ZEROS)
    ),
    "expected at least 1 channel and 1 token, found 4 and 0": lambda: MaskTokens(4, 0),
    "expected at least 1 channel and 1 token, found 0 and 8": lambda: MaskTokens(0),
    "expected features (B, 5, h, w), found (2, 3, 2, 4)": lambda: MaskTokens(5)(ZEROS),
    "expected features (B, 3, h, w), found (3, 2, 4)": lambda: MaskTokens(3)(ZEROS[0]),
    "expected two feature maps of one shape (B, C, h, w), found (2, 3, 2, 4) and (2, 2, 2, 4)": (
        lambda: masked_feature_loss(ZEROS, ZEROS[:, :2], ZEROS)
    ),
    "expected masks (B, T, h, w) for features (2, 3, 2, 4), found (2, 3, 2, 3)": (
        lambda: masked_feature_loss(ZEROS, ZEROS, ZEROS[..., :3])
    ),
    "expected masks (B, T, h, w) for features (2, 3, 2, 4), found (2, 2, 4)": (
        lambda: masked_feature_loss(ZEROS, ZEROS, ZEROS[:, 0])
    ),
    "expected masks (B, T, h, w), found (2, 2, 4)": lambda: mask_diversity_loss(ZEROS[:, 0]),
}


@pytest.mark.parametrize("text", ERRORS)
def test_arguments_are_checked(text):
    with _raises(text):
        ERRORS[text]()
