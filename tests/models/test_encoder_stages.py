"""Which stage of an encoder a parameter belongs to."""

from __future__ import annotations

import pytest
import torch

from geocrodino.models.encoder_stages import stages_above
from geocrodino.models.encoders import create_encoder


def stages_by_name(encoder, length):
    above = stages_above(encoder)
    found = {}
    for name, parameter in encoder.named_parameters():
        found.setdefault(".".join(name.split(".")[:length]), set()).add(above[parameter])
    return found


def test_stages_of_a_residual_network():
    assert stages_by_name(create_encoder("tu-resnet18", in_channels=2, depth=4), 2) == {
        "model.conv1": {3},
        "model.bn1": {3},
        "model.layer1": {2},
        "model.layer2": {1},
        "model.layer3": {0},
    }


def test_a_patch_stem_is_the_first_stage():
    encoder = create_encoder("tu-convnext_atto", in_channels=3, depth=4)
    found = stages_by_name(encoder, 2)
    assert {name: max(stages) for name, stages in found.items() if "stages" in name} == {
        "model.stages_0": 2,
        "model.stages_1": 1,
        "model.stages_2": 0,
    }
    assert found["model.stem_0"] == {2}


@pytest.mark.parametrize("training", [True, False])
def test_modes_gradients_and_statistics_stay(training):
    encoder = create_encoder("tu-resnet10t", in_channels=1, depth=3).train(training)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    stages_above(encoder)
    assert {module.training for module in encoder.modules()} == {training}
    assert all(p.grad is None for p in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_parameters_without_gradients_have_no_stage():
    assert stages_above(create_encoder("tu-resnet10t", in_channels=1, depth=3).requires_grad_(False)) == {}
