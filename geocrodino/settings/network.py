"""Shape of a network. Needs no PyTorch, because a bundle can be read, and used with OpenVINO, without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geocrodino.settings.quality import DEFAULT_QUALITY, QUALITIES

Decoder = Literal["unet", "fpn"]

_DEFAULT = QUALITIES[DEFAULT_QUALITY].keys
_UNET_CHANNELS = (256, 128, 64, 32, 16)
_PYRAMID_CHANNELS = (96,)

FIRST_SCALE: dict[Decoder, int] = {"unet": 1, "fpn": 2}
"""Finest feature map that each decoder reads, in halvings of the input; finer ones are not used."""


class NetworkSettings(BaseModel):
    """Shape of one branch. All modalities use the same settings; only the number of input channels differs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: Annotated[str, Field(min_length=1)] = Field(
        _DEFAULT["encoder"], description="encoder of timm (with or without tu-) or of segmentation-models-pytorch"
    )
    decoder: Decoder = Field(
        _DEFAULT["decoder"], description="fpn: a light feature pyramid, three times faster; unet: finer edges"
    )
    depth: int = Field(
        _DEFAULT["depth"], ge=3, le=5, description="halvings in the encoder; the stride is 2 to this power, px"
    )
    invariant_channels: int = Field(
        64, ge=1, description="channels of the modality-invariant half; the specific half has as many"
    )
    decoder_channels: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        description="unet: channels after each doubling, one number per depth; fpn: one number; none: by the depth",
    )
    separate_encoders: bool = Field(
        False, description="a separate encoder for each half (DisCoM-KD) instead of one for both"
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
        """Channels of the decoder, with the default filled in."""
        if self.decoder_channels is not None:
            return self.decoder_channels
        return _UNET_CHANNELS[-self.depth :] if self.decoder == "unet" else _PYRAMID_CHANNELS

    @property
    def stride_px(self) -> int:
        """Input pixels per pixel of the deepest feature map."""
        return 1 << self.depth
