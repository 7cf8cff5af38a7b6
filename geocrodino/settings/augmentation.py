"""Random changes of training patches: a list of operations for each modality, or a short form of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)

from geocrodino.settings.modality import Modality

Strength = Annotated[float, Field(ge=0, lt=1)]
"""Largest relative change, 0 to below 1; 0 switches the change off."""

Probability = Annotated[float, Field(ge=0, le=1)]
"""Share of images, 0 to 1."""

SHORT_FORM, LIST_FORM = "<short form>", "<list of operations>"
"""Tags of the two ways to configure a modality; they appear in the locations of pydantic's errors, not in YAML."""

_EXAMPLE = "{RandomHorizontalFlip: {p: 0.5}}"

_GEOMETRY_KEYS = ("flip", "quarter_turn", "rotation_deg", "scale", "resample_probability")


class Operation(BaseModel):
    """One operation of a pipeline, in YAML ``{RandomGaussianBlur: {kernel_size: [3, 3], sigma: [0.1, 1.0]}}``.

    The name is that of a class of ``kornia.augmentation`` or ``geocrodino.data.augmentation.operations``. Names and
    parameters are checked where the pipeline is built, because settings do not import Kornia.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="class of kornia.augmentation, or one of geocrodino's own")
    parameters: dict[str, Any] = Field({}, description="arguments of the class by name")

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        if isinstance(value, str):  # a name without parameters
            return {"name": value}
        if isinstance(value, Operation) or (isinstance(value, Mapping) and "name" in value):
            return value
        if not isinstance(value, Mapping) or len(value) != 1:
            found = f", found {len(value)} keys ({', '.join(map(str, value))})" if isinstance(value, Mapping) else ""
            raise ValueError(f"expected one operation with its parameters, such as {_EXAMPLE}{found}")
        ((name, parameters),) = value.items()
        if parameters is not None and not isinstance(parameters, Mapping):
            raise ValueError(f"expected parameters by name, such as {{{name}: {{p: 0.5}}}}, found {parameters!r}")
        return {"name": name, "parameters": dict(parameters or {})}

    @field_validator("parameters")
    @classmethod
    def _lists_as_tuples(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        """Kornia takes tuples where YAML has lists."""
        return {name: _as_tuples(value) for name, value in parameters.items()}

    @model_serializer
    def _as_written(self) -> dict[str, dict[str, Any]]:
        return {self.name: self.parameters}


class RadiometrySettings(BaseModel):
    """Random changes of normalised values, in standard deviations of the training set. 0 switches a change off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: Strength = Field(0.2, description="contrast: all bands times 1 - gain to 1 + gain")
    offset_std: float = Field(0.2, ge=0, description="brightness: offset of all bands, up to this in either direction")
    band_gain: Strength = Field(0.1, description="as gain, drawn for each band")
    band_offset_std: float = Field(0.1, ge=0, description="as offset_std, drawn for each band")
    curve: Strength = Field(0.15, description="like gamma: bends values up or down, values at the mean do not change")
    noise_std: float = Field(0.05, ge=0, description="largest standard deviation of noise on each pixel")
    blur_sigma_px: float = Field(1.0, ge=0, description="largest width of a Gaussian blur, px")
    blur_probability: Probability = Field(0.2, description="share of images blurred")

    def operations(self) -> tuple[Operation, ...]:
        """Write out the operations that these settings stand for.

        Returns:
            Blur, curve, gain and offset, noise, in this order; those that are switched off are left out.
        """
        found = []
        if self.blur_sigma_px and self.blur_probability:
            size = 2 * math.ceil(3 * self.blur_sigma_px) + 1
            blur = {"kernel_size": (size, size), "sigma": (0.1 * self.blur_sigma_px, self.blur_sigma_px)}
            found.append(_operation("RandomGaussianBlur", **blur, border_type="constant", p=self.blur_probability))
        if self.curve:
            found.append(_operation("RandomCurve", curve=self.curve))
        linear = {
            "gain": self.gain,
            "offset_std": self.offset_std,
            "band_gain": self.band_gain,
            "band_offset_std": self.band_offset_std,
        }
        if any(linear.values()):
            found.append(_operation("RandomGainOffset", **linear))
        if self.noise_std:
            found.append(_operation("RandomNoiseLevel", noise_std=self.noise_std))
        return tuple(found)


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


def _form(value: object) -> str:
    return LIST_FORM if isinstance(value, list | tuple) else SHORT_FORM


ModalityAugmentation = Annotated[
    Annotated[RadiometrySettings, Tag(SHORT_FORM)] | Annotated[tuple[Operation, ...], Tag(LIST_FORM)],
    Discriminator(_form),
]
"""Either all operations of a modality in order, or its radiometry, applied after the common geometry keys."""


class AugmentationSettings(BaseModel):
    """Random changes of training patches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoupled: bool = Field(True, description="whether each modality has its own random geometry")
    flip: bool = Field(True, description="mirror half of the images")
    quarter_turn: bool = Field(
        True, description="turn by 0, 90, 180 or 270 degrees, exactly; patches that are not square by 0 or 180"
    )
    rotation_deg: float = Field(20.0, ge=0, le=180, description="largest free rotation in either direction, degrees")
    scale: tuple[float, float] = Field((0.8, 1.25), description="smallest and largest enlargement")
    resample_probability: Probability = Field(
        0.5, description="share of images with free rotation and scale, which are interpolated"
    )
    optical: ModalityAugmentation = Field(
        default_factory=RadiometrySettings, description="a list of all operations, or the radiometry of bands"
    )
    elevation: ModalityAugmentation = Field(
        ELEVATION_RADIOMETRY, description="a list of all operations, or the radiometry of heights"
    )
    rasters: dict[Modality, ModalityAugmentation] = Field(
        {},
        description="the same for other registered modalities, by name; each modality has its own default",
    )

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> AugmentationSettings:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two numbers above 0, the smaller first, found {self.scale}")
        return self

    @model_validator(mode="after")
    def _one_form(self) -> AugmentationSettings:
        """Refuse geometry keys if no modality uses them: they would be ignored."""
        given = [key for key in _GEOMETRY_KEYS if key in self.model_fields_set]
        if given and not self._uses_short_form:
            raise ValueError(
                f"{', '.join(given)} changes nothing, because optical and elevation list all their operations; "
                "leave it out, or name the operation in both lists"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        unused = set() if self._uses_short_form else set(_GEOMETRY_KEYS)
        if not self.rasters:
            unused.add("rasters")
        return {key: value for key, value in written.items() if key not in unused}

    @property
    def _uses_short_form(self) -> bool:
        return any(isinstance(own, RadiometrySettings) for own in self._forms)

    @property
    def names_operations(self) -> bool:
        """Whether a list names operations, which must then be checked before use."""
        return any(not isinstance(own, RadiometrySettings) for own in self._forms)

    def operations(self, modality: Modality) -> tuple[Operation, ...]:
        """List all operations of a modality, in order; the short form is written out.

        Args:
            modality: The modality.

        Returns:
            The modality's own list if it has one; otherwise the operations of the geometry keys, then those of its
            radiometry.
        """
        own = self._of(modality)
        return self._geometry() + own.operations() if isinstance(own, RadiometrySettings) else own

    def with_defaults(self, defaults: Mapping[Modality, RadiometrySettings]) -> AugmentationSettings:
        """Add the default radiometry of modalities that the settings do not name.

        Args:
            defaults: Default radiometry by modality.

        Returns:
            Settings that name every modality.
        """
        others = {m: found for m, found in defaults.items() if m not in type(self).model_fields}
        return self.model_copy(update={"rasters": {**others, **self.rasters}})

    @property
    def _forms(self) -> tuple[ModalityAugmentation, ...]:
        return (self.optical, self.elevation, *self.rasters.values())

    def _of(self, modality: Modality) -> ModalityAugmentation:
        """Look up a modality; one that is not named gets the settings of ``optical``, see `with_defaults`."""
        return {**self.rasters, "optical": self.optical, "elevation": self.elevation}.get(modality, self.optical)

    def _geometry(self) -> tuple[Operation, ...]:
        found = []
        if self.flip:
            found.append(_operation("RandomHorizontalFlip", p=0.5))
        if self.quarter_turn:
            found.append(_operation("RandomQuarterTurn", p=1.0))
        if self.resample_probability and (self.rotation_deg or self.scale != (1.0, 1.0)):
            free = {"degrees": self.rotation_deg, "scale": self.scale, "p": self.resample_probability}
            found.append(_operation("RandomRotationScale", **free))
        return tuple(found)


def _operation(name: str, **parameters: Any) -> Operation:
    return Operation(name=name, parameters=parameters)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value
