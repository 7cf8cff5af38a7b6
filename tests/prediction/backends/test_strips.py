"""Wide blocks in strips of rows."""

import pytest
import torch
from helpers.rounding import output_rounding

from geocrodino.models.branch import build_branch
from geocrodino.prediction.backends.strips import STRIPS, Strips, in_strips
from geocrodino.prediction.backends.trimming import Trimmed
from geocrodino.settings.network import NetworkSettings


# The last three have fewer rows in a strip than the halo.
@pytest.mark.parametrize(
    ("kernel", "stride", "halo", "rows"),
    [
        (3, 1, 1, 16),
        (3, 2, 1, 32),
        (5, 2, 1, 32),
        (5, 1, 2, 22),
        (3, 2, 1, 38),
        (3, 1, 1, 4),
        (5, 1, 2, 7),
        (3, 1, 1, 1),
        (5, 2, 1, 4),
    ],
)
def test_a_block_in_strips_has_the_values_of_the_whole(kernel, stride, halo, rows):
    torch.manual_seed(0)
    block = torch.nn.Conv2d(2, 3, kernel, stride, padding=kernel // 2).requires_grad_(False)
    features = torch.randn(1, 2, rows, 12)
    found = Strips(block, stride, halo)(features)
    torch.testing.assert_close(found, block(features), rtol=0, atol=1e-6)


def test_no_wide_map_is_whole_at_any_time():
    """The first block with a stride widens 16 channels to 96; with the halo a strip holds at most a third of the rows.

    The others are the block before it, the block after it at the same scale, and the next one with a stride.
    """
    torch.manual_seed(0)
    branch = build_branch(NetworkSettings(encoder="tf_efficientnet_lite0"), 3, 4).eval().requires_grad_(False)
    network, sizes = Trimmed(branch), []
    strips = [module for module in network.modules() if isinstance(module, Strips)]
    assert [one.block.conv_dw.out_channels for one in strips] == [32, 96, 144, 144]
    strips[1].block.conv_pw.register_forward_hook(lambda _, __, output: sizes.append(output.numel()))
    images = torch.randn(1, 3, 256, 128)
    found = network(images)
    assert len(sizes) == STRIPS
    assert max(sizes) <= 96 * 128 * 64 / 3
    whole = branch(images)
    torch.testing.assert_close(found, whole, rtol=0, atol=output_rounding(branch, whole))


def test_networks_without_wide_blocks_are_left_as_they_are():
    branch = build_branch(NetworkSettings(encoder="tu-resnet18"), 3, 4).eval()
    assert not in_strips(branch.encoder, 3, 64)
    assert Trimmed(branch).network is branch


@pytest.mark.parametrize(("encoder", "expected"), [("tf_efficientnet_lite4", 10), ("tu-mobilenetv3_large_100", 1)])
def test_small_tiles_have_the_values_of_the_whole(encoder, expected):
    """Even where a strip would have less than one row."""
    torch.manual_seed(0)
    branch = build_branch(NetworkSettings(encoder=encoder), 3, 4).eval().requires_grad_(False)
    network = Trimmed(branch)
    assert sum(isinstance(module, Strips) for module in network.modules()) == expected
    for side in (branch.stride, 2 * branch.stride, 4 * branch.stride):
        images = torch.randn(1, 3, side, side)
        whole = branch(images)
        torch.testing.assert_close(network(images), whole, rtol=0, atol=output_rounding(branch, whole))


def test_blocks_with_squeeze_and_excitation_are_left_as_they_are():
    """Their values depend on the whole map: all wide blocks of this encoder have one."""
    branch = build_branch(NetworkSettings(encoder="tu-efficientnet_b0"), 3, 4).eval()
    assert not in_strips(branch.encoder, 3, 64)
