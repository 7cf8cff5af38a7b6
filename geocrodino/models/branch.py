"""The network of one modality: what is trained, packed into a bundle and used alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from geocrodino.models.decoders import PyramidHead, UnetHead, initialise
from geocrodino.models.encoders import create_encoder

Decoder = Literal["unet", "fpn"]

_UNET_CHANNELS = (256, 128, 64, 32, 16)
_PYRAMID_CHANNELS = (96,)


class NetworkSettings(BaseModel):
    """Shape of one branch. Both modalities use the same settings; only the number of bands differs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: Annotated[str, Field(min_length=1)] = Field(
        "tu-resnet18", description="encoder of timm (with or without tu-) or of segmentation-models-pytorch"
    )
    decoder: Decoder = Field("fpn", description="fpn: a light feature pyramid, three times faster; unet: finer edges")
    depth: int = Field(4, ge=3, le=5, description="halvings inside the encoder; the stride is 2 to this power, in px")
    invariant_channels: int = Field(
        64, ge=1, description="channels of the modality-invariant half; the specific half has as many"
    )
    decoder_channels: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="unet: width after each doubling, one per depth; fpn: one width; none: chosen for the depth"
    )

    @model_validator(mode="after")
    def _decoder_channels_fit(self) -> NetworkSettings:
        expected = self.depth if self.decoder == "unet" else 1
        found = expected if self.decoder_channels is None else len(self.decoder_channels)
        if found != expected:
            raise ValueError(
                f"decoder_channels of {self.decoder} at depth {self.depth} needs {expected} numbers, found {found}"
            )
        return self

    @property
    def resolved_decoder_channels(self) -> tuple[int, ...]:
        """Decoder widths, those of the default filled in."""
        if self.decoder_channels is not None:
            return self.decoder_channels
        return _UNET_CHANNELS[-self.depth :] if self.decoder == "unet" else _PYRAMID_CHANNELS

    @property
    def stride_px(self) -> int:
        """Pixels of the input per deepest feature."""
        return 1 << self.depth


class BranchOutput(NamedTuple):
    """Logits (B, K, H, W) and the two halves of the deepest features, each (B, C, H / stride, W / stride)."""

    logits: Tensor
    invariant: Tensor
    specific: Tensor


class Branch(nn.Module):
    """Encoder, projection into a modality-invariant and a modality-specific half, decoder that sees both.

    Args:
        settings: Shape of the network.
        in_channels: Bands of the input.
        num_classes: Channels of the logits.
        encoder_weights: Local file for the encoder, see ``build_branch``.

    Attributes:
        stride: Height and width of an input must be multiples of it, in px.

    Raises:
        ModelError: If the encoder is unknown or cannot be built as asked.
        ValueError: If ``in_channels`` or ``num_classes`` is below 1.

    References:
        Ferrod et al. (2025). Revisiting cross-modal knowledge distillation. https://arxiv.org/abs/2505.24361
    """

    def __init__(
        self, settings: NetworkSettings, in_channels: int, num_classes: int, *, encoder_weights: Path | None = None
    ) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(
                f"in_channels and num_classes must be at least 1, found in_channels {in_channels} and "
                f"num_classes {num_classes}"
            )
        self.settings = settings
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.stride = settings.stride_px
        self.encoder = create_encoder(
            settings.encoder, in_channels=in_channels, depth=settings.depth, weights=encoder_weights
        )
        channels: list[int] = list(self.encoder.out_channels)  # type: ignore[arg-type]
        halves = 2 * settings.invariant_channels
        self.projection = nn.Sequential(nn.Conv2d(channels[-1], halves, 1, bias=False), nn.BatchNorm2d(halves))
        initialise(self.projection)
        widths = settings.resolved_decoder_channels
        features = [*channels[:-1], halves]
        self.decoder: UnetHead | PyramidHead = (
            UnetHead(features, num_classes, widths)
            if settings.decoder == "unet"
            else PyramidHead(features, num_classes, widths[0])
        )

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
        self._check(images)
        features = list(self.encoder(images))
        deepest = self.projection(features[-1])
        invariant, specific = deepest.chunk(2, dim=1)
        return BranchOutput(self.decoder([*features[:-1], deepest]), invariant, specific)

    @property
    def num_parameters(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.parameters())

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(f"expected images (B, {self.in_channels}, H, W), found {tuple(images.shape)}")
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride or 0 in (height, width):
            raise ValueError(
                f"height and width must be multiples of {self.stride} px, found {height} x {width} px: pad the image"
            )


def build_branch(
    settings: NetworkSettings, in_channels: int, num_classes: int, *, weights: Path | None = None
) -> Branch:
    """Build a branch without touching the network.

    Args:
        settings: Shape of the network.
        in_channels: Bands of the input.
        num_classes: Channels of the logits.
        weights: Local state dict of the encoder with three input channels, ``.safetensors`` or ``.pth``. Its
            classifier is left out and its first convolution adapted to ``in_channels``. None: random weights.

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
