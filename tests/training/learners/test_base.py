"""What all methods share: which input, which validity, which labels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geocrodino.training.learners.base import feature_valid, network_input, network_valid, state_of


def test_a_feature_is_valid_where_half_of_its_pixels_are():
    valid = torch.tensor([
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
    ]).bool()[None]  # fmt: skip
    assert feature_valid(valid, 2).tolist() == [[[True, False], [True, False]]]
    assert feature_valid(valid, 4).tolist() == [[[False]]]  # 7 of 16


def test_inputs_by_name():
    batch = {
        "optical": torch.ones(1, 2, 1, 2),
        "elevation": torch.zeros(1, 1, 1, 2),
        "optical_valid": torch.tensor([[[True, False]]]),
        "elevation_valid": torch.tensor([[[False, False]]]),
    }
    assert network_input("elevation", batch) is batch["elevation"]
    assert network_input("fusion", batch)[0, :, 0, 0].tolist() == [1, 1, 0]  # optical first
    assert network_valid("optical", batch) is batch["optical_valid"]
    assert network_valid("fusion", batch).tolist() == [[[True, False]]]
    batch["elevation_valid"] = torch.tensor([[[False, True]]])
    assert network_valid("fusion", batch).all()


def test_weights_as_they_go_into_a_file():
    module = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    found = state_of(module)
    assert set(found) == {"weight", "bias"}
    assert not module.weight.is_contiguous()
    assert all(v.is_contiguous() and not v.requires_grad for v in found.values())
    assert found["weight"].equal(module.weight)


@pytest.fixture
def logits():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels():
    drawn = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(2))
    drawn[0, 0] = 255
    return drawn


def test_class_weights_and_smoothing_enter_the_cross_entropy(build, logits, labels):
    learner = build("single", label_smoothing=0.2)
    learner.class_weights = torch.tensor([0.0, 0.5, 1.0])
    (found,) = learner.supervised("optical", logits, labels).values()
    smooth = F.cross_entropy(
        logits, labels, learner.class_weights, ignore_index=255, label_smoothing=0.2, reduction="sum"
    )
    torch.testing.assert_close(found, smooth / learner.class_weights[labels[labels != 255]].sum())


def test_dice_is_there_when_asked_for(build, logits, labels):
    plain, half, whole = (build("single", dice=d).supervised("x", logits, labels) for d in (0, 0.5, 1))
    assert set(plain) == {"segmentation/x"}
    assert set(half) == {"segmentation/x", "dice/x"}
    torch.testing.assert_close(2 * half["dice/x"], whole["dice/x"])
    assert half["segmentation/x"] == plain["segmentation/x"]


def test_losses_are_summed_by_name(build, logits, labels):
    learner = build("single", losses={"focal": 0.5, "lovasz": 2}, focal_gamma=0)
    terms = learner.supervised("x", logits, labels)
    assert set(terms) == {"focal/x", "lovasz/x"}
    (plain,) = build("single").supervised("x", logits, labels).values()
    torch.testing.assert_close(terms["focal/x"], plain / 2)  # without focus it is the cross entropy


def test_class_weights_are_no_part_of_the_saved_state(build):
    assert not [n for n in build("single").state_dict() if "class_weights" in n]
