"""The method's loss: which terms, with which weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from geocrodino.geo.modality import MODALITIES, Modality
from geocrodino.losses.contrastive import class_contrast, image_contrast, pixel_contrast
from geocrodino.losses.disentanglement import orthogonality_loss
from geocrodino.losses.segmentation import cross_entropy, dice_loss
from geocrodino.models.crodino import CrodinoOutput

Contrast = Literal["none", "image", "class", "pixel"]


class MethodSettings(BaseModel):
    """Loss terms of CroDiNo-KD and their weights; a weight of 0 leaves a term out.

    All terms at 0 but the cross entropy train the two branches side by side; only the limit on the gradient's norm and
    the early stop are common to both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    auxiliary: float = Field(1.0, ge=0, description="weight of the auxiliary decoder's cross entropy")
    orthogonality: float = Field(1.0, ge=0, description="weight of invariant against specific features")
    contrast: Contrast = Field("class", description="what is drawn together across modalities")
    contrast_weight: float = Field(1.0, ge=0, description="weight of the contrast")
    temperature: float = Field(0.1, gt=0, description="temperature of the contrast")
    dice: float = Field(0.0, ge=0, description="weight of a Dice loss beside the cross entropy")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label given to all classes")


def joint_loss(
    outputs: Mapping[Modality, CrodinoOutput],
    batch: Mapping[str, Any],
    settings: MethodSettings,
    class_weights: Tensor,
    stride: int,
) -> dict[str, Tensor]:
    """Weighted loss terms of a batch.

    ``L = sum_m CE_m + w_aux sum_m CE(aux_m) + w_orth sum_m mean cos^2(inv_m, spec_m) + w_con contrast``

    Args:
        outputs: What the branches say.
        batch: The augmented batch, with ``<modality>_labels``, ``<modality>_valid`` and ``<modality>_transform``.
        settings: Weights.
        class_weights: Shape (K,).
        stride: Pixels per feature.

    Returns:
        Scalars by name, already weighted; their sum is the loss.

    References:
        Ferrod et al. (2025). https://arxiv.org/abs/2505.24361 (weights and details rebuilt, not reported there)
    """
    terms: dict[str, Tensor] = {}
    for m in MODALITIES:
        labels = batch[f"{m}_labels"]
        terms[f"segmentation/{m}"] = cross_entropy(outputs[m].logits, labels, class_weights, settings.label_smoothing)
        if settings.dice:
            terms[f"dice/{m}"] = settings.dice * dice_loss(outputs[m].logits, labels)
        auxiliary = outputs[m].auxiliary_logits
        if settings.auxiliary and auxiliary is not None:
            terms[f"auxiliary/{m}"] = settings.auxiliary * cross_entropy(auxiliary, labels, class_weights)
        if settings.orthogonality:
            terms[f"orthogonality/{m}"] = settings.orthogonality * orthogonality_loss(
                outputs[m].invariant, outputs[m].specific, feature_valid(batch[f"{m}_valid"], stride)
            )
    if settings.contrast != "none" and settings.contrast_weight:
        terms["contrast"] = settings.contrast_weight * _contrast(outputs, batch, settings, len(class_weights), stride)
    return terms


def _contrast(
    outputs: Mapping[Modality, CrodinoOutput],
    batch: Mapping[str, Any],
    settings: MethodSettings,
    num_classes: int,
    stride: int,
) -> Tensor:
    optical, elevation = outputs["optical"].invariant, outputs["elevation"].invariant
    if settings.contrast == "class":
        return class_contrast(
            optical,
            elevation,
            batch["optical_labels"],
            batch["elevation_labels"],
            settings.temperature,
            num_classes=num_classes,
        )
    valid = {f"{m}_valid": feature_valid(batch[f"{m}_valid"], stride) for m in MODALITIES}
    if settings.contrast == "image":
        return image_contrast(optical, elevation, settings.temperature, **valid)
    return pixel_contrast(
        optical,
        elevation,
        batch["optical_transform"],
        batch["elevation_transform"],
        stride,
        settings.temperature,
        optical_valid=valid["optical_valid"],
        elevation_valid=valid["elevation_valid"],
    )


def feature_valid(valid: Tensor, stride: int) -> Tensor:
    """Features of which at least half of the pixels are valid; bool (B, H, W) to (B, H / stride, W / stride)."""
    return F.avg_pool2d(valid[:, None].float(), stride)[:, 0] >= 0.5
