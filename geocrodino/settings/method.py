"""The methods of training by name, with their loss terms and weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

MethodName = Literal["single", "crodino", "mutual", "discom", "fusion", "dropout", "kd", "protokd", "maskedkd"]
"""single: independent branches; crodino (default): the paper's, and agreement on unlabelled pixels; mutual: agreement
alone; others: for comparison."""

Weight = Annotated[float, Field(ge=0)]
"""Weight of a loss term, 0 or more."""

LossName = Literal["cross_entropy", "dice", "focal", "lovasz"]
"""Losses between logits and labels."""

Contrast = Literal["none", "image", "class", "pixel"]
"""Unit whose features the contrast pairs across modalities."""

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
_DISTILLED: dict[str, Any] = {"fusion": "middle", "distillation": 1.0, "distillation_temperature": 1.0}
_PRESETS: dict[MethodName, dict[str, Any]] = {
    "single": {},
    "crodino": {**_JOINT, **_PAPER, "agreement": 3.0},
    "mutual": {**_JOINT, "agreement": 3.0, "ramp": 0.3},
    "discom": {**_JOINT, "auxiliary": 1.0, "orthogonality": 1.0, "adversary": 1.0},
    "fusion": {"fusion": "middle"},
    "dropout": {"blank": 0.5},
    "kd": {**_DISTILLED, "distillation_temperature": 4.0},
    "protokd": {**_DISTILLED, "distillation": 0.1, "distillation_temperature": 10.0, "prototype": 0.1},
    "maskedkd": {"fusion": "middle", "masked": 0.5, "tokens": 8},
}
_COMMON = {"name", "losses", "dice", "focal_gamma", "label_smoothing"}
_LATER = {"losses", "focal_gamma", "terms"}
"""Keys that are not written where they hold their default, so that run folders keep their bytes."""


class MethodSettings(BaseModel):
    """A method and the weights of its loss terms. Terms that are not given have the default weights of the method.

    Naming a term that the method does not have is an error, because the term would do nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: MethodName = Field("crodino", description=", ".join(get_args(MethodName)))
    losses: dict[LossName, Weight] = Field(
        {"cross_entropy": 1.0},
        description="weights of the losses between logits and labels: cross_entropy, dice, focal, lovasz",
    )
    dice: float = Field(0.0, ge=0, description="weight of a Dice loss beside the others; the same as losses.dice")
    focal_gamma: float = Field(2.0, ge=0, description="exponent of the focal loss; 0: the cross entropy")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread evenly over all classes")
    auxiliary: float = Field(0.0, ge=0, description="weight of the auxiliary decoder's cross entropy")
    orthogonality: float = Field(0.0, ge=0, description="weight of the orthogonality of the feature halves")
    contrast: Contrast = Field("none", description="unit whose features are paired across modalities")
    contrast_weight: float = Field(1.0, ge=0, description="weight of the contrast")
    temperature: float = Field(0.1, gt=0, description="temperature of the contrast")
    shuffled: bool = Field(False, description="control: the contrast pairs features that do not belong together")
    agreement: float = Field(
        0.0,
        ge=0,
        description="weight of distillation from the other branch, on unlabelled pixels where it is more often right",
    )
    heights_from_image: float = Field(0.0, ge=0, description="weight of predicting heights from optical features")
    image_from_heights: float = Field(0.0, ge=0, description="weight of predicting the image from elevation features")
    adversary: float = Field(0.0, ge=0, description="weight of the modality-adversarial loss")
    ramp: float = Field(0.0, ge=0, le=1, description="share of the steps over which contrast and agreement rise")
    terms: dict[str, Weight] = Field({}, description="weights of registered loss terms, by name")
    fusion: Literal["early", "middle"] = Field("middle", description="where the fusion network joins the modalities")
    blank: float = Field(0.0, ge=0, le=1, description="share of patches in which one modality is set to 0")
    distillation: float = Field(0.0, ge=0, description="weight of distillation from the teacher's softened predictions")
    distillation_temperature: float = Field(1.0, gt=0, description="temperature of the distillation; higher is softer")
    prototype: float = Field(0.0, ge=0, description="weight of distillation from the teacher's class prototypes")
    masked: float = Field(0.0, ge=0, description="weight of distillation from the teacher's masked features")
    tokens: int = Field(0, ge=0, description="number of learned masks")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("name", cls.model_fields["name"].default)
        if name not in get_args(MethodName):
            return given  # the field `name` reports the unknown name
        preset = _PRESETS[name]
        for key, value in given.items():
            field = cls.model_fields.get(key)
            if field is not None and key not in _COMMON and key not in preset and value != field.default:
                having = ", ".join(n for n, terms in _PRESETS.items() if key in terms)
                raise ValueError(f"{key} has no meaning for the method {name}: it belongs to {having}")
        merged = {**preset, **given}
        if "ramp" not in given and not merged.get("agreement") and merged.get("contrast", "none") == "none":
            merged.pop("ramp", None)  # the preset's ramp has no effect on terms that are switched off
        return merged

    @model_validator(mode="after")
    def _no_term_without_effect(self) -> MethodSettings:
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

    @model_validator(mode="after")
    def _losses_that_learn(self) -> MethodSettings:
        if self.dice and "dice" in self.losses:
            raise ValueError(f"dice: expected its weight once, found {self.dice:g} beside losses.dice")
        if not any(self.loss_weights.values()):
            raise ValueError("losses: expected at least one weight above 0, such as {cross_entropy: 1}")
        needs = {"label_smoothing": ("cross_entropy", self.label_smoothing > 0)}
        needs["focal_gamma"] = ("focal", self.focal_gamma != MethodSettings.model_fields["focal_gamma"].default)
        for key, (loss, is_given) in needs.items():
            if is_given and not self.loss_weights.get(loss):  # type: ignore[call-overload]
                raise ValueError(f"{key} does nothing without losses.{loss}: name it, or leave {key} out")
        return self

    @model_serializer(mode="wrap")
    def _without_later_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        fields = MethodSettings.model_fields
        idle = {key for key in _LATER if getattr(self, key) == fields[key].default}
        return {key: value for key, value in written.items() if key not in idle}

    @property
    def loss_weights(self) -> dict[LossName, float]:
        """Weights of the losses between logits and labels, that of ``dice`` among them."""
        return {**self.losses, "dice": self.dice} if self.dice else dict(self.losses)

    @property
    def learns_without_labels(self) -> bool:
        """Whether a term learns from patches without labels."""
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
