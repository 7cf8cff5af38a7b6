"""Random changes of training patches: geometry and radiometry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geocrodino.settings.modality import Modality

Strength = Annotated[float, Field(ge=0, lt=1)]


Probability = Annotated[float, Field(ge=0, le=1)]


class RadiometrySettings(BaseModel):
    """Random changes of normalised values, in standard deviations of the training set. 0 switches one off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: Strength = Field(0.2, description="contrast: all bands times 1 - gain to 1 + gain")
    offset_std: float = Field(0.2, ge=0, description="brightness: all bands plus up to this, either way")
    band_gain: Strength = Field(0.1, description="as gain, drawn for each band")
    band_offset_std: float = Field(0.1, ge=0, description="as offset_std, drawn for each band")
    curve: Strength = Field(0.15, description="like gamma: bends values up or down, the mean stays")
    noise_std: float = Field(0.05, ge=0, description="largest standard deviation of noise on each pixel")
    blur_sigma_px: float = Field(1.0, ge=0, description="largest width of a Gaussian blur, px")
    blur_probability: Probability = Field(0.2, description="share of images blurred")


ELEVATION_RADIOMETRY = RadiometrySettings(
    gain=0.05,
    offset_std=0.05,
    band_gain=0.0,
    band_offset_std=0.0,
    curve=0.0,
    noise_std=0.02,
    blur_sigma_px=0.0,
    blur_probability=0.0,
)


class AugmentationSettings(BaseModel):
    """Random changes of training patches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoupled: bool = Field(True, description="whether each modality has a geometry of its own")
    flip: bool = Field(True, description="mirror half of the images")
    quarter_turn: bool = Field(
        True, description="turn by 0, 90, 180 or 270 degrees, exactly; patches that are not square by 0 or 180"
    )
    rotation_deg: float = Field(20.0, ge=0, le=180, description="largest free rotation either way, degrees")
    scale: tuple[float, float] = Field((0.8, 1.25), description="smallest and largest enlargement")
    resample_probability: Probability = Field(
        0.5, description="share of images that get the free rotation and scale, and so are interpolated"
    )
    optical: RadiometrySettings = Field(default_factory=RadiometrySettings, description="radiometry of bands")
    elevation: RadiometrySettings = Field(ELEVATION_RADIOMETRY, description="radiometry of heights")

    rasters: dict[Modality, RadiometrySettings] = Field(
        {}, description="radiometry of other registered modalities, by name; that of the modality by default"
    )

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> AugmentationSettings:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two numbers above 0, the smaller first, found {self.scale}")
        return self

    def radiometry(self, modality: Modality) -> RadiometrySettings:
        """The radiometry of a modality; that of an image where another modality has none, see `with_defaults`."""
        named = {**self.rasters, "optical": self.optical, "elevation": self.elevation}
        return named.get(modality, self.optical)

    def with_defaults(self, defaults: Mapping[Modality, RadiometrySettings]) -> AugmentationSettings:
        """These settings with the radiometry of modalities that they do not name.

        Args:
            defaults: The radiometry that each modality brings.
        """
        others = {m: found for m, found in defaults.items() if m not in type(self).model_fields}
        return self.model_copy(update={"rasters": {**others, **self.rasters}})
