"""What is learned, and how: the methods by name, their terms and weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

MethodName = Literal["single", "crodino", "mutual", "discom", "fusion", "dropout", "kd", "protokd", "maskedkd"]
"""single: side by side; crodino: the paper's; mutual, the default: branches teach each other; the rest: rivals."""

Weight = Annotated[float, Field(ge=0)]

Contrast = Literal["none", "image", "class", "pixel"]

_JOINT: dict[str, Any] = {
    "auxiliary": 0.0,
    "orthogonality": 0.0,
    "contrast": "none",
    "contrast_weight": 1.0,
    "temperature": 0.1,
    "shuffled": False,
    "agreement": 0.0,
    "heights_from_image": 0.0,
    "image_from_heights": 0.0,
    "adversary": 0.0,
    "ramp": 0.0,
    "terms": {},
}
_PAPER = {"auxiliary": 1.0, "orthogonality": 1.0, "contrast": "class"}
_TAUGHT: dict[str, Any] = {"fusion": "middle", "distillation": 1.0, "distillation_temperature": 1.0}
_PRESETS: dict[MethodName, dict[str, Any]] = {
    "single": {},
    "crodino": {**_JOINT, **_PAPER},
    "mutual": {**_JOINT, "agreement": 3.0, "ramp": 0.3},
    "discom": {**_JOINT, "auxiliary": 1.0, "orthogonality": 1.0, "adversary": 1.0},
    "fusion": {"fusion": "middle"},
    "dropout": {"blank": 0.5},
    "kd": {**_TAUGHT, "distillation_temperature": 4.0},
    "protokd": {**_TAUGHT, "distillation": 0.1, "distillation_temperature": 10.0, "prototype": 0.1},
    "maskedkd": {"fusion": "middle", "masked": 0.5, "tokens": 8},
}
_EVERY = {"name", "dice", "label_smoothing"}


class MethodSettings(BaseModel):
    """A method and its terms. A term that is left out has the weight that its method is known by.

    Naming a term that the method does not have is an error: it would do nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: MethodName = Field("mutual", description=", ".join(get_args(MethodName)))
    dice: float = Field(0.0, ge=0, description="weight of a Dice loss beside the cross entropy")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label given to all classes")
    auxiliary: float = Field(0.0, ge=0, description="weight of the auxiliary decoder's cross entropy")
    orthogonality: float = Field(0.0, ge=0, description="weight of invariant against specific features")
    contrast: Contrast = Field("none", description="what is drawn together across modalities")
    contrast_weight: float = Field(1.0, ge=0, description="weight of the contrast")
    temperature: float = Field(0.1, gt=0, description="temperature of the contrast")
    shuffled: bool = Field(False, description="control: the contrast pairs what does not belong together")
    agreement: float = Field(
        0.0, ge=0, description="weight of the other branch's word where it is better and no label is"
    )
    heights_from_image: float = Field(0.0, ge=0, description="weight of reading heights off the optical features")
    image_from_heights: float = Field(0.0, ge=0, description="weight of reading the image off the elevation features")
    adversary: float = Field(0.0, ge=0, description="weight of the guess, to be misled, which modality a feature is of")
    ramp: float = Field(0.0, ge=0, le=1, description="share of the steps over which contrast and agreement rise")
    terms: dict[str, Weight] = Field({}, description="weights of registered loss terms, by name")
    fusion: Literal["early", "middle"] = Field("middle", description="where the fusion network joins the modalities")
    blank: float = Field(0.0, ge=0, le=1, description="share of patches of which one modality is blanked")
    distillation: float = Field(0.0, ge=0, description="weight of the teacher's softened answers")
    distillation_temperature: float = Field(1.0, gt=0, description="how much they are softened")
    prototype: float = Field(0.0, ge=0, description="weight of the teacher's class prototypes")
    masked: float = Field(0.0, ge=0, description="weight of the teacher's features under learned masks")
    tokens: int = Field(0, ge=0, description="number of these masks")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("name", cls.model_fields["name"].default)
        if name not in get_args(MethodName):
            return given  # the unknown name is told of by its own field
        preset = _PRESETS[name]
        for key, value in given.items():
            field = cls.model_fields.get(key)
            if field is not None and key not in _EVERY and key not in preset and value != field.default:
                having = ", ".join(n for n, terms in _PRESETS.items() if key in terms)
                raise ValueError(f"{key} has no meaning for the method {name}: it belongs to {having}")
        merged = {**preset, **given}
        if "ramp" not in given and not merged.get("agreement") and merged.get("contrast", "none") == "none":
            merged.pop("ramp", None)  # the preset's, of a term that was switched off
        return merged

    @model_validator(mode="after")
    def _everything_does_something(self) -> MethodSettings:
        contrasted = self.contrast != "none" and self.contrast_weight > 0
        idle = {
            "shuffled": self.shuffled and not contrasted,
            "ramp": self.ramp > 0 and not (contrasted or self.agreement),
            "masked": self.masked > 0 and not self.tokens,
        }
        needs = {"shuffled": "a contrast", "ramp": "a contrast or agreement", "masked": "tokens"}
        for key, does_nothing in idle.items():
            if does_nothing:
                raise ValueError(f"{key} does nothing without {needs[key]}: name one, or leave it out")
        return self

    @property
    def learns_without_labels(self) -> bool:
        """Whether patches without labels teach anything."""
        across = self.contrast in {"image", "pixel"} and self.contrast_weight > 0
        return across or any(
            (
                self.agreement,
                self.heights_from_image,
                self.image_from_heights,
                self.adversary,
                self.distillation,
                self.masked and self.tokens,
            )
        )

    @property
    def has_teacher(self) -> bool:
        """Whether a fusion network is trained first."""
        return self.name in {"kd", "protokd", "maskedkd"}
