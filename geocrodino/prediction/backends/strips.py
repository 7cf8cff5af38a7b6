"""Less memory in wide blocks: parts of an encoder whose inner feature maps are much larger than what goes in and out.

An inverted residual block (MobileNet, EfficientNet) expands its channels sixfold, filters each one, and projects them
back. In the first such blocks the expanded maps are the largest ones of the whole network. Computed in strips of rows,
one after the other, only a strip of them exists at a time.
"""

from __future__ import annotations

import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

STRIPS = 4
"""Strips of a wide block: its inner map is then smaller than the maps before and after it."""

_WIDE = 5  # numbers of an inner map for each pixel of the image, from which a block is computed in strips


class Strips(nn.Module):
    """A block that is computed in strips of rows, with the same values.

    Args:
        block: Maps (B, C, H, W) to (B, D, H / stride, W / stride).
        stride: Its stride.
        halo: Output rows beyond a strip that are computed and cut off, at least what the block's kernels reach. Maps
            with fewer rows than it in a strip are computed as a whole.
    """

    def __init__(self, block: nn.Module, stride: int, halo: int) -> None:
        super().__init__()
        self.block, self.stride, self.halo = block, stride, halo

    def forward(self, features: Tensor) -> Tensor:
        """Compute the block.

        Args:
            features: Shape (B, C, H, W), H a multiple of the stride.

        Returns:
            Shape (B, D, H / stride, W / stride).
        """
        rows = features.shape[-2] // self.stride
        if rows < STRIPS * self.halo:
            whole: Tensor = self.block(features)
            return whole
        made = []
        for strip in range(STRIPS):
            start, stop = rows * strip // STRIPS, rows * (strip + 1) // STRIPS
            before = self.halo if strip else 0
            after = self.halo if strip + 1 < STRIPS else 0
            part = self.block(features[..., (start - before) * self.stride : (stop + after) * self.stride, :])
            made.append(part[..., before : before + stop - start, :])
        return torch.cat(made, dim=-2)


def in_strips(encoder: nn.Module, in_channels: int, side: int) -> bool:
    """Replace the wide blocks of an encoder by the same ones in strips.

    Blocks with squeeze-and-excitation stay as they are: their values depend on the whole map.

    Args:
        encoder: Any encoder; changed in place.
        in_channels: Channels of the image.
        side: Height and width of an image that the encoder can compute, px.

    Returns:
        Whether there are any.
    """
    wide: list[nn.Module] = []

    def note(block: nn.Module, given: tuple[Tensor, ...]) -> None:
        _, _, height, width = given[0].shape
        if block.conv_dw.out_channels * height * width >= _WIDE * side**2:  # type: ignore[union-attr,operator]
            wide.append(block)

    kinds = {InvertedResidual, DepthwiseSeparableConv}
    blocks = [m for m in encoder.modules() if type(m) in kinds and isinstance(m.se, nn.Identity)]
    if not blocks:
        return False
    hooks = [block.register_forward_pre_hook(note) for block in blocks]
    with torch.no_grad():
        encoder(torch.zeros(1, in_channels, side, side))
    for hook in hooks:
        hook.remove()
    places = {child: (parent, name) for parent in encoder.modules() for name, child in parent.named_children()}
    for block in wide:
        kernel, step = block.conv_dw.kernel_size[0], block.conv_dw.stride[0]  # type: ignore[union-attr,index]
        reach = int(kernel) // 2  # input rows
        setattr(*places[block], Strips(block, int(step), -(-reach // int(step))))
    return bool(wide)
