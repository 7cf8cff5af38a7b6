"""Stochastic depth: the same weights and predictions, other features in training."""

from __future__ import annotations

import pytest
import torch
from timm.layers.drop import DropPath
from torch import nn

from geocrodino.errors import ModelError
from geocrodino.models.branch import build_branch
from geocrodino.models.encoder_facts import encoders_in, facts_of
from geocrodino.models.stochastic_depth import use_stochastic_depth, without_stochastic_depth
from geocrodino.settings.network import NetworkSettings

NETWORK = NetworkSettings(encoder="resnet10t", depth=4, invariant_channels=4, decoder_channels=(8,))


@pytest.fixture
def branch():
    torch.manual_seed(0)
    return build_branch(NETWORK, 2, 3)


def rates(module):
    return [part.drop_prob for part in module.modules() if isinstance(part, DropPath)]


def test_weights_names_and_predictions_are_the_same(branch):
    before = {name: value.clone() for name, value in branch.state_dict().items()}
    images = torch.randn(1, 2, 32, 32)
    expected = branch.eval()(images)
    state = torch.get_rng_state()
    facts_of(branch.encoder).pretrained = True
    use_stochastic_depth(branch, 0.4)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(branch.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in branch.state_dict().items())
    assert torch.equal(branch.eval()(images), expected)
    assert facts_of(branch.encoder).pretrained
    assert list(encoders_in(branch)) == ["encoder"]


def test_the_rate_rises_from_0_to_that_of_the_last_block(branch):
    use_stochastic_depth(branch, 0.3)
    # The whole encoder has four blocks, with rates of 0, 0.1, 0.2 and 0.3; three of them are used at this depth.
    assert rates(branch) == pytest.approx([0.1, 0.2])


def test_blocks_are_left_out_in_training_alone(branch):
    use_stochastic_depth(branch, 0.9)
    for part in branch.encoder.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)  # timm starts the last one of a block at 0, where a block changes nothing
    branch.eval()
    images = torch.randn(8, 2, 32, 32)
    still = branch(images)
    for part in branch.modules():
        if isinstance(part, DropPath):
            part.train()
    assert not torch.equal(branch(images), still)
    without_stochastic_depth(branch)
    assert torch.equal(branch(images), still)
    assert rates(branch) == [0, 0]


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [("tu-vgg11", "timm builds it without"), ("mobilenet_v2", "an encoder of segmentation-models-pytorch")],
)
def test_an_encoder_without_such_blocks_is_refused(encoder, reason):
    network = build_branch(NETWORK.model_copy(update={"encoder": encoder}), 2, 3)
    with pytest.raises(ModelError) as refused:
        use_stochastic_depth(network, 0.1)
    assert str(refused.value) == (
        f"training.drop_path: expected an encoder with stochastic depth, found '{encoder}' ({reason}) and drop_path "
        "0.1.\nLeave training.drop_path out, or choose another `network.encoder`, such as tu-resnet18."
    )
