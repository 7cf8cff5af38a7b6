import math

import pytest
import torch
from helpers.rounding import rounding

from geocrodino.losses.contrastive import (
    class_contrast,
    feature_transform,
    image_contrast,
    majority_labels,
    pixel_contrast,
)
from geocrodino.settings.classes import IGNORE_INDEX

# Losses worked out by hand: cosines over a temperature of up to 2, means over up to 8 positions.
HAND = rounding(2, terms=32)


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _same(batch):
    return torch.eye(3, dtype=torch.float64).repeat(batch, 1, 1)


# exp(1 / t) against exp(0): loss of two orthogonal pairs that match.
MATCHED = math.log(1 + math.exp(-1 / 0.5))


def test_image_contrast_by_hand():
    scenes = torch.eye(2)[:, :, None, None].expand(2, 2, 3, 3)
    assert image_contrast(scenes, 7 * scenes, 0.5).item() == pytest.approx(MATCHED, abs=HAND)
    crossed = math.log(1 + math.exp(1 / 0.5))
    assert image_contrast(scenes, scenes.flip(0), 0.5).item() == pytest.approx(crossed, abs=HAND)


def test_image_contrast_pools_valid_features_only():
    scenes = torch.eye(2)[:, :, None, None].repeat(1, 1, 2, 2)
    spoilt = scenes.clone()
    spoilt[:, :, 0, 0] = 100.0
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    valid[:, 0, 0] = False
    found = image_contrast(spoilt, scenes, 0.5, first_valid=valid)
    assert found.item() == pytest.approx(MATCHED, abs=HAND)


def test_image_contrast_leaves_out_scenes_that_a_modality_does_not_see():
    first, second = _random(3, 4, 2, 2), _random(3, 4, 2, 2, seed=1)
    valid = torch.ones(3, 2, 2, dtype=torch.bool)
    valid[1] = False
    found = image_contrast(first, second, second_valid=valid)
    torch.testing.assert_close(found, image_contrast(first[[0, 2]], second[[0, 2]]))


def test_image_contrast_ignores_place_scale_and_order():
    first, second = _random(4, 5, 3, 3), _random(4, 5, 3, 3, seed=1)
    expected = image_contrast(first, second)
    torch.testing.assert_close(image_contrast(first.flip(-1).mT, 3 * second.flip(-2)), expected)
    torch.testing.assert_close(image_contrast(first.flip(0), second.flip(0)), expected)
    torch.testing.assert_close(image_contrast(second, first), expected)


def test_class_contrast_by_hand():
    # Columns are classes 0 and 1; the second modality is mirrored, with its own labels, and needs no alignment.
    features = torch.eye(2)[None, :, None].expand(1, 2, 2, 2)
    labels = torch.tensor([[[0, 1]]]).expand(1, 2, 2)
    found = class_contrast(features, features.flip(-1), labels, labels.flip(-1), 0.5, num_classes=5)
    assert found.item() == pytest.approx(MATCHED, abs=HAND)


def test_class_contrast_reads_labels_of_full_resolution():
    features = torch.eye(2)[None, :, None].expand(1, 2, 2, 2)
    labels = torch.tensor([[[0, 1]]]).expand(1, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
    found = class_contrast(features, features, labels, labels, 0.5, num_classes=2)
    assert found.item() == pytest.approx(MATCHED, abs=HAND)


def test_class_contrast_counts_classes_of_both_modalities_only():
    first, second = _random(2, 4, 3, 3), _random(2, 4, 3, 3, seed=1)
    labels = torch.randint(3, (2, 3, 3), generator=torch.Generator().manual_seed(2))
    with_third = labels.where(labels != 2, 3)
    without = labels.where(labels != 2, IGNORE_INDEX)
    torch.testing.assert_close(
        class_contrast(first, second, labels, with_third, num_classes=4),
        class_contrast(first, second, without, without, num_classes=4),
    )


def test_class_contrast_of_one_common_class_is_zero():
    features = _random(1, 4, 2, 2).requires_grad_()
    zeros, ones = torch.zeros(1, 2, 2, dtype=torch.int64), torch.tensor([[[0, 1], [1, 1]]])
    value = class_contrast(features, features, zeros, ones, num_classes=2)
    value.backward()
    assert value.item() == 0.0
    assert features.grad.eq(0).all()


def test_majority_labels():
    labels = torch.tensor([[[2, 2, 1, IGNORE_INDEX], [0, 2, IGNORE_INDEX, IGNORE_INDEX]]])
    assert majority_labels(labels, (1, 2), 3).tolist() == [[[2, 1]]]
    assert majority_labels(labels[:, 1:, 2:], (1, 1), 3).tolist() == [[[IGNORE_INDEX]]]


def test_feature_transform_of_a_mirror():
    # Mirroring 32 pixels, x -> 31 - x, is mirroring 4 features of stride 8, x -> 3 - x.
    mirror = torch.tensor([[-1.0, 0, 31], [0, 1, 0], [0, 0, 1]])
    expected = torch.tensor([[-1.0, 0, 3], [0, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(feature_transform(mirror, 8), expected)


def test_pixel_contrast_by_hand():
    # Two images of one feature value each: every row has one positive and P negatives of cosine 0.
    images = torch.eye(2, dtype=torch.float64)[:, :, None, None].expand(2, 2, 3, 3)
    found = pixel_contrast(images, images, _same(2), _same(2), 8, 0.5, samples_per_image=4)
    assert found.item() == pytest.approx(math.log(1 + 4 * math.exp(-1 / 0.5)), abs=HAND)


def test_pixel_contrast_undoes_each_geometry():
    size, stride = 6, 4
    source, other = _random(3, 8, size, size), _random(3, 8, size, size, seed=1)
    mirror = torch.tensor([[-1.0, 0, size * stride - 1], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    turn = torch.tensor([[0.0, 1, 0], [-1, 0, size * stride - 1], [0, 0, 1]], dtype=torch.float64)
    options = {"stride": stride, "samples_per_image": size * size}
    expected = pixel_contrast(source, other, _same(3), _same(3), **options)
    found = pixel_contrast(
        source.flip(-1), other.rot90(1, (2, 3)), mirror.repeat(3, 1, 1), turn.repeat(3, 1, 1), **options
    )
    torch.testing.assert_close(found, expected)
    misaligned = pixel_contrast(source.flip(-1), other.rot90(1, (2, 3)), _same(3), _same(3), **options)
    assert not torch.isclose(misaligned, expected)


def test_pixel_contrast_leaves_out_lost_and_invalid_positions():
    images = _random(2, 4, 4, 4)
    shift = _same(2)
    shift[:, 0, 2] = 16.0  # two features of stride 8 to the right: the last two columns leave the view
    moved = torch.full_like(images, 55.0)
    moved[..., 2:] = images[..., :2]
    options = {"stride": 8, "samples_per_image": 16}
    left = torch.zeros(2, 4, 4, dtype=torch.bool)
    left[..., :2] = True
    expected = pixel_contrast(images, images, _same(2), _same(2), first_valid=left, **options)
    torch.testing.assert_close(pixel_contrast(images, moved, _same(2), shift, **options), expected)


def test_pixel_contrast_follows_its_generator():
    first, second = _random(2, 4, 8, 8), _random(2, 4, 8, 8, seed=1)

    def value(seed):
        generator = torch.Generator().manual_seed(seed)
        return pixel_contrast(first, second, _same(2), _same(2), 4, samples_per_image=5, generator=generator).item()

    assert value(1) == value(1)
    assert value(1) != value(2)


def test_pixel_contrast_without_negatives_is_zero():
    features = _random(1, 4, 4, 4).requires_grad_()
    value = pixel_contrast(features, features, _same(1), _same(1), 8)
    value.backward()
    assert value.item() == 0.0
    assert features.grad.abs().max() < 1e-12


# --- control: pairs that do not belong together -----------------------------------------------------------------------


def _order(rows, seed=5):
    """The order that a call draws after this seed."""
    torch.manual_seed(seed)
    order = torch.randperm(rows)
    torch.manual_seed(seed)
    assert not order.equal(torch.arange(rows))
    return order


def test_shuffled_scenes():
    first, second = _random(4, 5, 3, 3), _random(4, 5, 3, 3, seed=1)
    order = _order(4)
    found = image_contrast(first, second, shuffled=True)
    torch.testing.assert_close(found, image_contrast(first, second[order]))


def test_shuffled_scenes_are_taken_from_those_that_both_see():
    first, second = _random(4, 5, 2, 2), _random(4, 5, 2, 2, seed=1)
    valid = torch.ones(4, 2, 2, dtype=torch.bool)
    valid[1] = False
    order = torch.tensor([0, 2, 3])[_order(3)]
    _order(3)
    found = image_contrast(first, second, shuffled=True, first_valid=valid)
    torch.testing.assert_close(found, image_contrast(first[[0, 2, 3]], second[order]))


def test_shuffled_classes():
    first, second = _random(1, 5, 1, 3), _random(1, 5, 1, 3, seed=1)
    labels = torch.tensor([[[3, 0, 1]]])
    order = _order(3)
    found = class_contrast(first, second, labels, labels, num_classes=4, shuffled=True)
    present = torch.tensor([0, 1, 3])
    # The class that stands where another stood before has that one's label.
    moved = torch.zeros(4, dtype=torch.int64)
    moved[present[order]] = present
    torch.testing.assert_close(found, class_contrast(first, second, labels, moved[labels], num_classes=4))


def test_shuffled_positions():
    first, second = _random(3, 4, 4, 4), _random(3, 4, 4, 4, seed=1)
    mirror = torch.tensor([[-1.0, 0, 31], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    views = torch.stack([_same(1)[0], mirror, _same(1)[0]])
    valid = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.7
    options = {"stride": 8, "samples_per_image": 16}  # all positions, so that none is drawn
    order = _order(3)
    found = pixel_contrast(first, second, _same(3), views, shuffled=True, second_valid=valid, **options)
    expected = pixel_contrast(first, second[order], _same(3), views[order], second_valid=valid[order], **options)
    torch.testing.assert_close(found, expected)
    straight = pixel_contrast(first, second, _same(3), views, second_valid=valid, **options)
    assert not torch.isclose(found, straight)


@pytest.mark.parametrize(
    "contrast",
    [image_contrast, lambda a, b, **o: pixel_contrast(a, b, _same(5), _same(5), 8, **o)],
    ids=["image", "pixel"],
)
def test_shuffled_pairs_are_drawn_anew(contrast):
    """Wrong pairs that stay the same could be learnt like right ones."""
    first, second = _random(5, 4, 2, 2), _random(5, 4, 2, 2, seed=1)
    torch.manual_seed(0)
    assert len({round(contrast(first, second, shuffled=True).item(), 6) for _ in range(10)}) > 5
    assert len({round(contrast(first, second).item(), 6) for _ in range(10)}) == 1


LABELS = torch.tensor([[[0, 1], [1, 2]], [[2, 0], [IGNORE_INDEX, 1]]])
CALLS = {
    "image": image_contrast,
    "class": lambda a, b: class_contrast(a, b, LABELS, LABELS.flip(-1), num_classes=3),
    "pixel": lambda a, b: pixel_contrast(a, b, _same(2), _same(2), 8),
}
NOTHING = torch.zeros(2, 2, 2, dtype=torch.bool)
EMPTY = {
    "image": lambda a, b: image_contrast(a, b, first_valid=NOTHING),
    "class": lambda a, b: class_contrast(a, b, torch.full_like(LABELS, IGNORE_INDEX), LABELS, num_classes=3),
    "pixel": lambda a, b: pixel_contrast(a, b, _same(2), _same(2), 8, second_valid=NOTHING),
}


@pytest.mark.parametrize("name", CALLS)
def test_gradients(name):
    inputs = (_random(2, 3, 2, 2).requires_grad_(), _random(2, 3, 2, 2, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: _seeded(CALLS[name], a, b), inputs)


def _seeded(call, a, b):
    torch.manual_seed(0)
    return call(a, b)


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_compare_is_zero_with_gradient(name):
    features = _random(2, 3, 2, 2).requires_grad_()
    value = EMPTY[name](features, _random(2, 3, 2, 2, seed=1))
    value.backward()
    assert value.item() == 0.0
    assert features.grad.eq(0).all()


@pytest.mark.parametrize("name", CALLS)
def test_half_precision_and_autocast(name):
    inputs = [1000 * _random(2, 3, 2, 2, seed=s) for s in (0, 1)]
    expected = _seeded(CALLS[name], *(x.half().float() for x in inputs))
    half = _seeded(CALLS[name], *(x.half() for x in inputs))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(_seeded(CALLS[name], *(x.half() for x in inputs)), expected)


@pytest.mark.parametrize("name", CALLS)
def test_zero_features_have_no_nan(name):
    features = torch.zeros(2, 3, 2, 2, requires_grad=True)
    value = CALLS[name](features, torch.ones(2, 3, 2, 2))
    value.backward()
    assert value.isfinite()
    assert features.grad.isfinite().all()


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="temperature must be above 0, found 0"):
        image_contrast(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2), 0)
    with pytest.raises(ValueError, match=r"found \(2, 3, 2, 2\) and \(1, 3, 2, 2\)"):
        image_contrast(torch.zeros(2, 3, 2, 2), torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match=r"expected transforms \(2, 3, 3\), found \(1, 3, 3\)"):
        pixel_contrast(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2), _same(1), _same(2), 8)
