"""Decoders: from feature maps to one logit for each class and pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn


def conv_block(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Sequential:
    """Create a convolution that keeps the size, followed by batch normalisation and ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel in px, odd.

    Returns:
        The three layers.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def initialise(module: nn.Module) -> None:
    """Draw the weights of convolutions for ReLU, and set batch normalisation to the identity; in place.

    Args:
        module: The module and all its parts.

    References:
        He et al. (2015). Delving deep into rectifiers. https://arxiv.org/abs/1502.01852
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


class UnetHead(nn.Module):
    """U-Net decoder with output at the input's resolution.

    Args:
        feature_channels: Channels of the feature maps, from the input's resolution to the deepest.
        num_classes: Channels of the logits.
        channels: Width after each doubling of the resolution, one for each halving of the encoder.

    References:
        Ronneberger et al. (2015). U-Net. https://arxiv.org/abs/1505.04597
    """

    def __init__(self, feature_channels: Sequence[int], num_classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.decoder = UnetDecoder(tuple(feature_channels), tuple(channels), n_blocks=len(channels))
        self.classifier = nn.Conv2d(channels[-1], num_classes, kernel_size=3, padding=1)
        initialise(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Decode feature maps.

        Args:
            features: Maps from the input's resolution to the deepest, each (B, C, h, w).

        Returns:
            Logits, shape (B, K, H, W).
        """
        logits: Tensor = self.classifier(self.decoder(list(features)))
        return logits


class PyramidHead(nn.Module):
    """Light feature pyramid at a quarter of the resolution, with batch normalisation.

    Group normalisation is usual in this decoder, but would make each pixel depend on the whole tile.

    Args:
        feature_channels: Channels of the feature maps, from the input's resolution to the deepest.
        num_classes: Channels of the logits.
        width: Channels inside the pyramid.

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
        """Decode feature maps.

        Args:
            features: Maps from the input's resolution to the deepest, each (B, C, h, w). The first two are not read.

        Returns:
            Logits, shape (B, K, H, W).
        """
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features[2:], strict=True)]
        for fine in range(len(levels) - 2, -1, -1):
            levels[fine] = levels[fine] + F.interpolate(levels[fine + 1], scale_factor=2.0, mode="nearest")
        merged = self.smooth[0](levels[0])
        for index in range(1, len(levels)):
            merged = merged + enlarge(self.smooth[index](levels[index]), 2**index)
        return enlarge(self.classifier(merged), 4)


class AuxiliaryDecoder(nn.Module):
    """Decoder of the deepest features alone, without skip connections.

    Args:
        in_channels: Channels of the features.
        num_classes: Channels of the output.
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
        """Decode features of one scale.

        Args:
            invariant: Features, shape (B, C, h, w).

        Returns:
            Logits, shape (B, K, h * stride, w * stride).
        """
        logits: Tensor = self.classifier(self.fine(enlarge(self.coarse(invariant), 2)))
        return enlarge(logits, self.stride // 2)


def enlarge(features: Tensor, factor: int) -> Tensor:
    """Enlarge feature maps bilinearly, with half-pixel centres.

    Args:
        features: Shape (B, C, h, w).
        factor: Whole number, at least 1.

    Returns:
        Shape (B, C, h * factor, w * factor); the features themselves for a factor of 1.
    """
    if factor == 1:
        return features
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)
