"""Decoders: from feature maps to one logit per class and pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn


def conv_block(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Sequential:
    """Convolution that keeps the size, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def initialise(module: nn.Module) -> None:
    """Draw convolutions for ReLU (He et al., 2015) and set normalisation to identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


class UnetHead(nn.Module):
    """U-Net decoder up to the input's resolution.

    Args:
        feature_channels: Channels of the feature maps, the input's scale first.
        num_classes: Channels of the logits.
        channels: Width after each doubling, one per halving of the encoder.

    References:
        Ronneberger et al. (2015). U-Net. https://arxiv.org/abs/1505.04597
    """

    def __init__(self, feature_channels: Sequence[int], num_classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.decoder = UnetDecoder(tuple(feature_channels), tuple(channels), n_blocks=len(channels))
        self.classifier = nn.Conv2d(channels[-1], num_classes, kernel_size=3, padding=1)
        initialise(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (B, K, H, W) of feature maps, the input's scale first."""
        logits: Tensor = self.classifier(self.decoder(list(features)))
        return logits


class PyramidHead(nn.Module):
    """Light feature pyramid at a quarter of the resolution, with batch normalisation.

    Group normalisation, usual in this decoder, would let every pixel depend on the whole tile.

    Args:
        feature_channels: Channels of the feature maps, the input's scale first.
        num_classes: Channels of the logits.
        width: Channels of the pyramid.

    References:
        Kirillov et al. (2019). Panoptic feature pyramid networks. https://arxiv.org/abs/1901.02446
    """

    def __init__(self, feature_channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in feature_channels[2:])
        self.smooth = nn.ModuleList(conv_block(width, width) for _ in feature_channels[2:])
        self.classifier = nn.Sequential(conv_block(width, width), nn.Conv2d(width, num_classes, 1))
        initialise(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (B, K, H, W) of feature maps, the input's scale first."""
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features[2:], strict=True)]
        for fine in range(len(levels) - 2, -1, -1):
            levels[fine] = levels[fine] + F.interpolate(levels[fine + 1], scale_factor=2.0, mode="nearest")
        merged = self.smooth[0](levels[0])
        for index in range(1, len(levels)):
            merged = merged + enlarge(self.smooth[index](levels[index]), 2**index)
        return enlarge(self.classifier(merged), 4)


class AuxiliaryDecoder(nn.Module):
    """Reads classes off modality-invariant features alone, without skip connections.

    Args:
        in_channels: Channels of the invariant half.
        num_classes: Channels of the logits.
        stride: Pixels of the input per feature, an even number.
        width: Channels inside.
    """

    def __init__(self, in_channels: int, num_classes: int, stride: int, width: int = 64) -> None:
        super().__init__()
        self.stride = stride
        self.coarse = conv_block(in_channels, width)
        self.fine = conv_block(width, width)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)
        initialise(self)

    def forward(self, invariant: Tensor) -> Tensor:
        """Logits (B, K, h * stride, w * stride) of invariant features (B, C, h, w)."""
        logits: Tensor = self.classifier(self.fine(enlarge(self.coarse(invariant), 2)))
        return enlarge(logits, self.stride // 2)


def enlarge(features: Tensor, factor: int) -> Tensor:
    """Bilinear enlargement by a whole factor, half-pixel centres."""
    if factor == 1:
        return features
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)
