"""The network of one modality. It is trained, packed into a bundle, and used without the other modality."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geocrodino.models.decoders import PyramidHead, UnetHead, initialise
from geocrodino.models.encoders import create_encoder
from geocrodino.models.pretrained.state import Pretrained
from geocrodino.settings.network import NetworkSettings


class BranchOutput(NamedTuple):
    """Logits and both halves of the deepest features.

    Attributes:
        logits: Class logits, shape (B, K, H, W).
        invariant: Modality-invariant features, shape (B, C, H / stride, W / stride).
        specific: Modality-specific features, same shape.
    """

    logits: Tensor
    invariant: Tensor
    specific: Tensor


class FeatureNetwork(nn.Module):
    """Base of networks whose deepest features have an invariant and a specific half, and whose decoder reads all maps.

    Attributes:
        decoder: Maps the feature maps to logits.
    """

    decoder: UnetHead | PyramidHead

    def encode(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps that the decoder reads.

        Args:
            images: Normalised images, shape (B, C, H, W), H and W multiples of the stride.

        Returns:
            Feature maps, from the input's resolution to the deepest. The channels of the last one hold the invariant
            half, then the specific half.

        Raises:
            ValueError: If the shape does not fit.
            NotImplementedError: In this base class.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Compute class logits.

        Args:
            images: Normalised images, float, shape (B, C, H, W), H and W multiples of ``stride``.

        Returns:
            Logits, shape (B, K, H, W).

        Raises:
            ValueError: If the shape does not fit.
        """
        return self.forward_features(images).logits

    def forward_features(self, images: Tensor) -> BranchOutput:
        """Compute class logits together with both halves of the deepest features.

        Args:
            images: Normalised images, float, shape (B, C, H, W), H and W multiples of ``stride``.

        Returns:
            Logits and both halves.

        Raises:
            ValueError: If the shape does not fit.
        """
        features = self.encode(images)
        invariant, specific = features[-1].chunk(2, dim=1)
        return BranchOutput(self.decoder(features), invariant, specific)

    @property
    def num_parameters(self) -> int:
        """Number of all parameter values, frozen ones included."""
        return sum(p.numel() for p in self.parameters())


class Branch(FeatureNetwork):
    """Encoder, projection to a modality-invariant and a modality-specific half, and a decoder that reads both halves.

    With ``separate_encoders``, each half comes from an encoder of its own. The decoder then reads the finer feature
    maps of the specific encoder, so that only the invariant half itself leaves the invariant encoder.

    Args:
        settings: Shape of the network.
        in_channels: Bands of the input, at least 1.
        num_classes: Channels of the logits, at least 1.
        encoder_weights: Pretrained weights of the encoder, or of both encoders, see `build_branch`.

    Attributes:
        stride: Pixels of the input per deepest feature. Height and width of an input must be multiples of it.
        in_channels: Bands of the input.
        num_classes: Channels of the logits.

    Raises:
        ModelError: If the encoder is unknown or cannot be built with these settings.
        ValueError: If ``in_channels`` or ``num_classes`` is below 1.

    References:
        Ferrod et al. (2025). Revisiting cross-modal knowledge distillation. https://arxiv.org/abs/2505.24361
        Ienco & Dantas (2024). DisCoM-KD: cross-modal knowledge distillation via disentanglement representation and
        adversarial learning. https://arxiv.org/abs/2408.07080
    """

    def __init__(
        self,
        settings: NetworkSettings,
        in_channels: int,
        num_classes: int,
        *,
        encoder_weights: Pretrained | None = None,
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
        """Compute the feature maps that the decoder reads.

        Args:
            images: Normalised images, shape (B, C, H, W), H and W multiples of ``stride``.

        Returns:
            Feature maps, from the input's resolution to the deepest. The channels of the last one hold the invariant
            half, then the specific half.

        Raises:
            ValueError: If the shape does not fit.
        """
        check_images(images, self.in_channels, self.stride)
        features = list(self.encoder(images))
        deepest: Tensor = self.projection(features[-1])
        if self.specific_encoder is not None:
            features = list(self.specific_encoder(images))
            deepest = torch.cat([deepest, self.specific_projection(features[-1])], dim=1)
        return [*features[:-1], deepest]

    def _create_encoder(self, weights: Pretrained | None) -> nn.Module:
        return create_encoder(
            self.settings.encoder, in_channels=self.in_channels, depth=self.settings.depth, weights=weights
        )


def check_counts(in_channels: int, num_classes: int) -> None:
    """Check that a network has at least one band and one class.

    Args:
        in_channels: Bands of the input.
        num_classes: Channels of the logits.

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
        images: The input. Expected: (B, ``in_channels``, H, W) with H and W multiples of ``stride``.
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
    """List the numbers of channels of an encoder's feature maps.

    Args:
        encoder: An encoder of `create_encoder`.

    Returns:
        One number per map, from the input's resolution to the deepest.
    """
    return list(encoder.out_channels)  # type: ignore[arg-type]


def create_projection(in_channels: int, out_channels: int) -> nn.Sequential:
    """Create the projection of the deepest features to the halves: 1 x 1 convolution and batch normalisation.

    Args:
        in_channels: Channels of the deepest features.
        out_channels: Channels after the projection.

    Returns:
        The projection, with initial weights.
    """
    projection = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
    initialise(projection)
    return projection


def create_decoder(settings: NetworkSettings, channels: Sequence[int], num_classes: int) -> UnetHead | PyramidHead:
    """Create the decoder that the settings name.

    Args:
        settings: Shape of the network.
        channels: Channels of the feature maps, from the input's resolution to the deepest.
        num_classes: Channels of the logits.

    Returns:
        The decoder, with initial weights.
    """
    widths = settings.resolved_decoder_channels
    if settings.decoder == "unet":
        return UnetHead(channels, num_classes, widths)
    return PyramidHead(channels, num_classes, widths[0])


def build_branch(
    settings: NetworkSettings, in_channels: int, num_classes: int, *, weights: Pretrained | None = None
) -> Branch:
    """Build a branch offline: nothing is downloaded.

    Args:
        settings: Shape of the network.
        in_channels: Bands of the input, at least 1.
        num_classes: Channels of the logits, at least 1.
        weights: Pretrained weights of the encoder, see `create_encoder`. With separate encoders, both start from them.
            None: random weights.

    Returns:
        The branch, in training mode.

    Raises:
        ModelError: If the encoder is unknown, cannot be built with these settings, or the weights do not fit it.
        ValueError: If ``in_channels`` or ``num_classes`` is below 1.
    """
    return Branch(settings, in_channels, num_classes, encoder_weights=weights)


@torch.no_grad()
def receptive_field_radius_px(module: nn.Module, in_channels: int, limit_px: int = 512) -> int | None:
    """Measure how far from an output pixel the input can influence it, in any of the four directions.

    A NaN in the input spreads to exactly those outputs that depend on it, whatever the weights. A column of NaN is
    moved through all offsets of one stride on a strip, then a row.

    Args:
        module: Maps (B, C, H, W) to (B, K, H, W). Its attribute ``stride`` is used if it has one, else 32 px.
        in_channels: Bands of the input.
        limit_px: Larger radii count as unbounded.

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
    """How far a NaN spreads along a strip, in px; None if farther than ``reach``."""
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
