"""The network of one modality: what is trained, packed into a bundle and used alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geocrodino.models.decoders import PyramidHead, UnetHead, initialise
from geocrodino.models.encoders import create_encoder
from geocrodino.settings.network import NetworkSettings


class BranchOutput(NamedTuple):
    """Logits (B, K, H, W) and the two halves of the deepest features, each (B, C, H / stride, W / stride)."""

    logits: Tensor
    invariant: Tensor
    specific: Tensor


class FeatureNetwork(nn.Module):
    """Encoder features whose deepest map has two halves, and a decoder that reads all of them."""

    decoder: UnetHead | PyramidHead

    def encode(self, images: Tensor) -> list[Tensor]:
        """What the decoder reads, the input's scale first; the last map holds the two halves along its channels."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Class logits.

        Args:
            images: Normalised images, shape (B, C, H, W), H and W multiples of ``stride``.

        Returns:
            Logits, shape (B, K, H, W).

        Raises:
            ValueError: If the shape does not fit.
        """
        return self.forward_features(images).logits

    def forward_features(self, images: Tensor) -> BranchOutput:
        """Logits together with both halves of the deepest features; arguments and errors as in ``forward``."""
        features = self.encode(images)
        invariant, specific = features[-1].chunk(2, dim=1)
        return BranchOutput(self.decoder(features), invariant, specific)

    @property
    def num_parameters(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())


class Branch(FeatureNetwork):
    """Encoder, projection into a modality-invariant and a modality-specific half, decoder that sees both.

    With ``separate_encoders`` each half comes from an encoder of its own, and the decoder's finer feature maps are
    those of the specific one: nothing but the invariant half itself then leaves the invariant encoder.

    Args:
        settings: Shape of the network.
        in_channels: Bands of the input.
        num_classes: Channels of the logits.
        encoder_weights: Local file for the encoder, or for both of them, see ``build_branch``.

    Attributes:
        stride: Height and width of an input must be multiples of it, in px.

    Raises:
        ModelError: If the encoder is unknown or cannot be built as asked.
        ValueError: If ``in_channels`` or ``num_classes`` is below 1.

    References:
        Ferrod et al. (2025). Revisiting cross-modal knowledge distillation. https://arxiv.org/abs/2505.24361
        Ienco & Dantas (2024). DisCoM-KD: cross-modal knowledge distillation via disentanglement representation and
        adversarial learning. https://arxiv.org/abs/2408.07080
    """

    def __init__(
        self, settings: NetworkSettings, in_channels: int, num_classes: int, *, encoder_weights: Path | None = None
    ) -> None:
        super().__init__()
        check_counts(in_channels, num_classes)
        self.settings = settings
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.stride = settings.stride_px
        self.encoder = self._create_encoder(encoder_weights)
        self.specific_encoder = self._create_encoder(encoder_weights) if settings.separate_encoders else None
        channels = feature_channels(self.encoder)
        halves = 2 * settings.invariant_channels
        if settings.separate_encoders:
            self.projection = create_projection(channels[-1], settings.invariant_channels)
            self.specific_projection = create_projection(channels[-1], settings.invariant_channels)
        else:
            self.projection = create_projection(channels[-1], halves)
        self.decoder = create_decoder(settings, [*channels[:-1], halves], num_classes)

    def encode(self, images: Tensor) -> list[Tensor]:
        """What the decoder reads, the input's scale first; the last map holds the two halves along its channels."""
        check_images(images, self.in_channels, self.stride)
        features = list(self.encoder(images))
        deepest: Tensor = self.projection(features[-1])
        if self.specific_encoder is not None:
            features = list(self.specific_encoder(images))
            deepest = torch.cat([deepest, self.specific_projection(features[-1])], dim=1)
        return [*features[:-1], deepest]

    def _create_encoder(self, weights: Path | None) -> nn.Module:
        return create_encoder(
            self.settings.encoder, in_channels=self.in_channels, depth=self.settings.depth, weights=weights
        )


def check_counts(in_channels: int, num_classes: int) -> None:
    """Check that a network has something to read and something to tell.

    Raises:
        ValueError: If either is below 1.
    """
    if in_channels < 1 or num_classes < 1:
        raise ValueError(
            f"in_channels and num_classes must be at least 1, found in_channels {in_channels} and "
            f"num_classes {num_classes}"
        )


def check_images(images: Tensor, in_channels: int, stride: int) -> None:
    """Check the shape of a network's input.

    Args:
        images: What should be (B, C, H, W), H and W multiples of ``stride``.
        in_channels: Bands that the network reads.
        stride: Pixels of the input per deepest feature.

    Raises:
        ValueError: If the shape does not fit.
    """
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ValueError(f"expected images (B, {in_channels}, H, W), found {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if height % stride or width % stride or 0 in (height, width):
        raise ValueError(
            f"height and width must be multiples of {stride} px, found {height} x {width} px: pad the image"
        )


def feature_channels(encoder: nn.Module) -> list[int]:
    """Channels of an encoder's feature maps, the input's scale first."""
    return list(encoder.out_channels)  # type: ignore[arg-type]


def create_projection(in_channels: int, out_channels: int) -> nn.Sequential:
    """What brings the deepest features to the width of the halves: 1 x 1 convolution and batch normalisation."""
    projection = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
    initialise(projection)
    return projection


def create_decoder(settings: NetworkSettings, channels: Sequence[int], num_classes: int) -> UnetHead | PyramidHead:
    """The decoder that the settings ask for.

    Args:
        settings: Shape of the network.
        channels: Channels of the feature maps, the input's scale first.
        num_classes: Channels of the logits.
    """
    widths = settings.resolved_decoder_channels
    if settings.decoder == "unet":
        return UnetHead(channels, num_classes, widths)
    return PyramidHead(channels, num_classes, widths[0])


def build_branch(
    settings: NetworkSettings, in_channels: int, num_classes: int, *, weights: Path | None = None
) -> Branch:
    """Build a branch without touching the network.

    Args:
        settings: Shape of the network.
        in_channels: Bands of the input.
        num_classes: Channels of the logits.
        weights: Local state dict of the encoder with three input channels, ``.safetensors`` or ``.pth``. Its
            classifier is left out and its first convolution adapted to ``in_channels``. Separate encoders both start
            from it. None: random weights.

    Raises:
        ModelError: If the encoder is unknown, cannot be built as asked, or the weights do not fit it.
    """
    return Branch(settings, in_channels, num_classes, encoder_weights=weights)


@torch.no_grad()
def receptive_field_radius_px(module: nn.Module, in_channels: int, limit_px: int = 512) -> int | None:
    """How far an output pixel sees, at most, in any of the four directions.

    NaN put into the input spreads exactly to the outputs that depend on it, whatever the weights. A column of NaN
    is moved through every offset of one stride over a strip, then the same with a row.

    Args:
        module: Maps (B, C, H, W) to (B, K, H, W); ``stride`` is read from it where it has one, else 32 px.
        in_channels: Bands of the input.
        limit_px: Fields wider than this count as unbounded.

    Returns:
        Radius in px, or None if it exceeds ``limit_px`` (global pooling, group normalisation, attention).
    """
    probe = copy.deepcopy(module).eval()
    found = getattr(module, "stride", None)
    stride = found if isinstance(found, int) else 32
    reach = min(128, limit_px)
    radius = _spread_px(probe, in_channels, stride, reach)
    while radius is None and reach < limit_px:
        reach = min(2 * reach, limit_px)
        radius = _spread_px(probe, in_channels, stride, reach)
    return radius


def _spread_px(probe: nn.Module, in_channels: int, stride: int, reach: int) -> int | None:
    """How far NaN spreads along a strip that shows spreads of up to ``reach``, or None beyond."""
    like = next(iter(probe.parameters()), torch.zeros(1))
    half = (reach // stride + 1) * stride
    radius = 0
    for transposed in (False, True):
        for position in range(half, half + stride):
            strip = like.new_zeros(1, in_channels, 2 * stride, 2 * half + stride)
            strip[..., position] = torch.nan
            output = probe(strip.mT if transposed else strip)
            spread = (output.mT if transposed else output).isnan().flatten(0, 2).any(dim=0).nonzero().flatten()
            if spread.numel():
                radius = max(radius, position - int(spread[0]), int(spread[-1]) - position)
            if radius > reach:
                return None
    return radius
