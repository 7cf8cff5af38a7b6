"""Networks that answer for the inside of a tile."""

import copy

import pytest
import torch
from helpers.rounding import output_rounding
from torch import nn

from geocrodino.geo.rasters.grid import round_up
from geocrodino.models.branch import build_branch, receptive_field_radius_px
from geocrodino.prediction.backends import trimming
from geocrodino.prediction.backends.trimming import Trimmed, decoder_reach_px
from geocrodino.settings.network import NetworkSettings

SMALL = {"encoder": "tu-resnet10t", "depth": 3, "invariant_channels": 8}
NETWORKS = [
    NetworkSettings(**SMALL),
    NetworkSettings(**SMALL, decoder="unet"),
    NetworkSettings(**SMALL, separate_encoders=True),
    NetworkSettings(),
    NetworkSettings(encoder="tf_efficientnet_lite0"),
]


def random_branch(settings):
    torch.manual_seed(0)
    return build_branch(settings, 2, 3).eval().requires_grad_(False)


@pytest.mark.parametrize("settings", NETWORKS, ids=["fpn", "unet", "two encoders", "default", "lite0"])
def test_the_inside_is_that_of_the_whole_tile(settings):
    branch = random_branch(settings)
    seen = receptive_field_radius_px(branch, 2)
    unused = round_up(seen, branch.stride)
    network = Trimmed(branch, unused)
    images = torch.randn(2, 2, 2 * unused + 2 * branch.stride, 2 * unused + 4 * branch.stride)
    whole, found = branch(images), network(images)
    assert 0 < network.trim_px <= unused
    assert network.trim_px % branch.stride == 0
    assert found.shape[-2:] == tuple(side - 2 * network.trim_px for side in images.shape[-2:])
    left = unused - network.trim_px
    wanted = whole[..., unused:-unused, unused:-unused]
    inside = found[..., left:-left, left:-left]
    torch.testing.assert_close(inside, wanted, rtol=0, atol=output_rounding(branch, whole))


@pytest.mark.parametrize("settings", NETWORKS[:2], ids=["fpn", "unet"])
def test_one_step_more_would_change_the_inside(settings):
    """The reach is no guess on the safe side: where the decoder sees one stride less, wanted pixels differ."""
    branch = random_branch(settings)
    reach = decoder_reach_px(branch, 256)
    unused = round_up(reach, branch.stride)
    images = torch.randn(1, 2, 2 * unused + 256, 2 * unused + 256)
    whole = branch(images)[..., unused:-unused, unused:-unused]
    network = Trimmed(branch, unused)
    network.trim_px += branch.stride
    left = unused - network.trim_px
    found = network(images)[..., left:-left, left:-left] if left else network(images)
    assert (found - whole).abs().max() > 20 * output_rounding(branch, whole)


def test_reach_by_hand():
    branch = random_branch(NETWORKS[0])
    # The 3 x 3 at 8 px spoils the first cell, up to 8 px. Enlarged by 2, the cell of 4 px that begins there lies
    # between the first two cells of 8 px: 12 px. The 3 x 3 of the class layer at 4 px: 16 px. Enlarged by 4, pixels
    # before the centre of the first good cell, at 18 px, lie between it and a spoilt one.
    assert decoder_reach_px(branch, 64) == 18
    assert decoder_reach_px(branch, 18) == 18
    assert decoder_reach_px(branch, 17) is None


def test_reach_of_the_default():
    assert decoder_reach_px(random_branch(NetworkSettings()), 160) == 30  # as docs/architecture.md says


def test_stages_are_cut_by_hand():
    """What can go of 160 px behind each stage, where that is two strides of 16 px more than before.

    Behind the first block at 16 px there is one more, two 3 x 3, before a decoder that sees 30 px: 62 px, so 98 px are
    left, 96 in whole strides. Behind the stage at 8 px the first block's two 3 x 3 come on top, one at 8 px and one at
    16 px: 86 px, so 64 can go. Behind the first block at 4 px there are one at 4 px and three at 8 px more, and two at
    4 px: 122 px, so 32 can go.
    """
    network = Trimmed(random_branch(NetworkSettings()), 160)
    assert network.trim_px == 128
    assert network.trims_px == (32, 64, 96)


def test_cuts_that_would_change_the_inside_are_not_made(monkeypatch):
    """As where a stage is used in a way that was not seen."""
    branch, images = random_branch(NETWORKS[0]), torch.randn(1, 2, 192, 192)
    expected = Trimmed(branch, 64)(images)
    monkeypatch.setattr(trimming, "_reach_px", lambda *_: 0)
    network = Trimmed(branch, 64)
    assert network.trims_px == ()
    assert network.network is branch
    torch.testing.assert_close(network(images), expected, rtol=0, atol=output_rounding(branch, expected))


def test_cuts_that_do_not_fit_each_other_are_not_made():
    """A map that is joined with what was made of it cannot be cut before that alone."""

    class Joined(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, features):
            first = self.inner[0](features)
            return self.inner[0](features) + self.inner[1:](first)

    settings = NetworkSettings(encoder="tu-resnet18", depth=3, invariant_channels=8)
    branch = random_branch(settings)
    branch.encoder.model.layer1 = nn.Sequential(Joined(branch.encoder.model.layer1), nn.Identity())
    images = torch.randn(1, 2, 256, 256)
    network, expected = Trimmed(branch, 96), branch(images)
    left = 96 - network.trim_px
    assert network.trim_px > 0
    inside, allowed = network(images)[..., left:-left, left:-left], output_rounding(branch, expected)
    torch.testing.assert_close(inside, expected[..., 96:-96, 96:-96], rtol=0, atol=allowed)


@pytest.mark.parametrize("unused", [0, 8, 25])
def test_a_margin_that_the_decoder_needs_is_left_alone(unused):
    branch = random_branch(NETWORKS[0])
    network, images = Trimmed(branch, unused), torch.randn(1, 2, 64, 80)
    assert network.trim_px == 0
    torch.testing.assert_close(network(images), branch(images), rtol=0, atol=0)


def test_a_decoder_that_sees_everything_is_left_alone():
    branch = random_branch(NETWORKS[0])
    branch.decoder.classifier = nn.Sequential(nn.GroupNorm(1, 96), branch.decoder.classifier)
    assert Trimmed(branch, 256).trim_px == 0


def test_maps_that_do_not_halve_are_left_alone():
    """Those of 128 px are 61, 31, 16 ... px wide."""
    branch = random_branch(NetworkSettings(encoder="tu-legacy_xception", depth=5, decoder="unet"))
    assert Trimmed(branch, 256).trim_px == 0


@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_it_is(training):
    branch = random_branch(NETWORKS[0]).train(training)
    before = copy.deepcopy(branch.state_dict())
    Trimmed(branch, 64)
    assert all(torch.equal(value, before[name]) for name, value in branch.state_dict().items())
