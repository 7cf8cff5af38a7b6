import math

import pytest
import torch
import torch.nn.functional as F
from helpers.rounding import rounding

from geocrodino.losses.segmentation import cross_entropy, dice_loss
from geocrodino.settings.classes import IGNORE_INDEX

# Losses worked out by hand: logits of up to 9, a handful of exponentials and sums.
HAND = rounding(9, terms=24)

LOSSES = [cross_entropy, dice_loss]


def _case(seed=0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 4, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(classes, (2, 4, 5), generator=generator)
    labels[0, :2] = IGNORE_INDEX
    return logits, labels


def test_cross_entropy_by_hand():
    # p(class 1) is 0.75 and 0.5; the third pixel has no label.
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0], [9.0, -9.0]]).T[None, :, None]
    labels = torch.tensor([[[1, 1, IGNORE_INDEX]]])
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert cross_entropy(logits, labels).item() == pytest.approx(expected, abs=HAND)


def test_class_weights_weight_the_mean():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]).T[None, :, None]
    labels = torch.tensor([[[1, 0]]])
    expected = -(3 * math.log(0.75) + math.log(0.5)) / 4
    found = cross_entropy(logits, labels, torch.tensor([1.0, 3.0]))
    assert found.item() == pytest.approx(expected, abs=HAND)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_mean_of_torch(weights, smoothing):
    logits, labels = _case()
    expected = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE_INDEX, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(logits, labels, weights, smoothing), expected)


def test_dice_by_hand():
    # One class-0 pixel with p = 0.75, one class-1 pixel with p = 0.5; class 2 is absent and does not count.
    probabilities = torch.tensor([[[[0.75, 0.5]], [[0.25, 0.5]], [[0.0, 0.0]]]])
    logits = probabilities.clamp(min=1e-30).log()
    dice_0 = 2 * 0.75 / (1.25 + 1)
    dice_1 = 2 * 0.5 / (0.75 + 1)
    found = dice_loss(logits, torch.tensor([[[0, 1]]]))
    assert found.item() == pytest.approx(1 - (dice_0 + dice_1) / 2, abs=HAND)


def test_dice_of_certain_right_and_wrong():
    labels = torch.tensor([[[0, 1], [1, 0]]])
    right = 50 * F.one_hot(labels, 2).movedim(-1, 1).float()
    assert dice_loss(right, labels).item() == pytest.approx(0.0, abs=HAND)
    assert dice_loss(-right, labels).item() == pytest.approx(1.0, abs=HAND)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_labelled_is_zero_with_zero_gradient(loss):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), IGNORE_INDEX))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_change_nothing(loss):
    logits, labels = _case()
    other = logits.clone()
    other[:, :, :2] = other[:, :, :2].where((labels[:, None, :2] != IGNORE_INDEX), 99.0)
    torch.testing.assert_close(loss(logits, labels), loss(other, labels))


@pytest.mark.parametrize("loss", LOSSES)
def test_pixel_order_does_not_matter(loss):
    logits, labels = _case()
    torch.testing.assert_close(loss(logits, labels), loss(logits.flip(-1).mT, labels.flip(-1).mT))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss):
    logits, labels = _case()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(loss, dtype):
    logits = torch.full((1, 2, 300, 300), 40.0, dtype=dtype)
    logits[:, 1] = -40.0
    value = loss(logits, torch.ones(1, 300, 300, dtype=torch.int64))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(80.0 if loss is cross_entropy else 1.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_are_checked(loss):
    with pytest.raises(ValueError, match=r"found \(1, 2, 4, 4\) and \(1, 4, 5\)"):
        loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 5, dtype=torch.int64))
