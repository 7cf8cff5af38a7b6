"""Two branches trained together without a teacher: CroDiNo-KD, its parts, and what goes beyond it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from geocrodino.losses.adversarial import modality_loss, reverse_gradient
from geocrodino.losses.alignment import carry
from geocrodino.losses.contrastive import class_contrast, image_contrast, pixel_contrast
from geocrodino.losses.disentanglement import orthogonality_loss
from geocrodino.losses.distillation import agreement_loss
from geocrodino.losses.segmentation import cross_entropy
from geocrodino.models.branch import Branch
from geocrodino.models.crodino import CroDiNo, CrodinoOutput
from geocrodino.models.decoders import AuxiliaryDecoder
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.training.learners.base import Learner, Shape, Step, Weights, feature_valid

Outputs = Mapping[Modality, CrodinoOutput]


class JointLearner(Learner):
    """The methods ``single``, ``crodino``, ``mutual`` and ``discom``: terms that are switched on or off.

    ``L = sum_m CE_m + w_aux sum_m CE(aux_m) + w_orth sum_m mean cos^2(inv_m, spec_m) + w_con contrast``, and beyond the
    paper the advice of the other branch, the reading of one modality from the other's features, the adversary.

    References:
        Ferrod et al. (2025). https://arxiv.org/abs/2505.24361 (weights and details rebuilt, not reported there)
    """

    def __init__(
        self, method: MethodSettings, shape: Shape, class_weights: Tensor, weights: Weights | None = None
    ) -> None:
        super().__init__(method, class_weights)
        self.model = CroDiNo(
            shape.network, shape.in_channels, shape.num_classes, auxiliary=method.auxiliary > 0, weights=weights
        )
        channels = shape.network.invariant_channels
        # Measured on validation pixels; nobody teaches before the first measurement.
        self.temperature: Tensor
        self.lead: Tensor
        self.register_buffer("temperature", torch.ones(len(MODALITIES)))
        self.register_buffer("lead", torch.zeros(len(MODALITIES), shape.num_classes))
        self.adversary = nn.Conv2d(channels, len(MODALITIES), 1) if method.adversary else None
        self.readers = nn.ModuleDict()
        # What each branch reads beside the classes: the other modality's channels.
        self.across: dict[Modality, float] = {
            "optical": method.heights_from_image,
            "elevation": method.image_from_heights,
        }
        for m in MODALITIES:
            if self.across[m]:
                self.readers[m] = AuxiliaryDecoder(2 * channels, shape.in_channels[_other(m)], self.model.stride)

    def network(self, name: str) -> nn.Module:
        """The branch of a modality."""
        return self.branch("optical" if name == "optical" else "elevation")

    def branch(self, modality: Modality) -> Branch:
        """The branch of a modality."""
        return self.model.branch(modality)

    def set_calibration(
        self, temperature: Mapping[Modality, float], iou: Mapping[Modality, NDArray[np.float64]]
    ) -> None:
        """Who teaches whom: where a branch answers with a class that it knows better, as measured on validation pixels.

        Args:
            temperature: Divides the logits of each branch.
            iou: Of each branch and class, 0 to 1, (K,); NaN is a class that nobody teaches.
        """
        for index, m in enumerate(MODALITIES):
            lead = np.nan_to_num(iou[m] - iou[_other(m)]).clip(min=0)
            self.temperature[index], self.lead[index] = temperature[m], torch.from_numpy(lead)

    def parts(self) -> list[list[nn.Parameter]]:
        """Each branch, and what both share."""
        own = [list(self.branch(m).parameters()) for m in MODALITIES]
        known = {id(p) for part in own for p in part}
        shared = [p for p in self.parameters() if id(p) not in known]
        return [*own, shared] if shared else own

    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Terms of the method."""
        method, batch = self.method, step.batch
        outputs: Outputs = self.model({m: batch[m] for m in MODALITIES})
        terms: dict[str, Tensor] = {}
        for m in MODALITIES:
            terms |= self.supervised(m, outputs[m].logits, batch[f"{m}_labels"])
        terms |= self._halves(outputs, batch)
        ramp = ramped(step.progress, method.ramp)
        if method.contrast != "none" and method.contrast_weight:
            weight = ramp * method.contrast_weight
            terms["contrast"] = weight * contrast(outputs, batch, method, len(self.class_weights), self.model.stride)
        if method.agreement:
            for m in MODALITIES:
                target = self._advice(average, step.source, _other(m))
                terms[f"agreement/{m}"] = ramp * method.agreement * agreement(outputs[m].logits, target, batch, m)
        for m in MODALITIES:
            if self.across[m]:
                terms[f"across/{m}"] = self.across[m] * self._read_across(outputs, batch, m)
        return terms

    @torch.no_grad()
    def _advice(self, average: Learner, source: Mapping[str, Tensor], m: Modality) -> Tensor:
        index = MODALITIES.index(m)
        logits = average.network(m)(source[m]).float() / self.temperature[index]
        return advice(logits, self.lead[index], source[f"{m}_valid"])

    def _halves(self, outputs: Outputs, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Terms of the invariant and the specific half of each modality."""
        method, terms = self.method, {}
        for index, m in enumerate(MODALITIES):
            out, valid = outputs[m], feature_valid(batch[f"{m}_valid"], self.model.stride)
            if method.auxiliary and out.auxiliary_logits is not None:
                labels = batch[f"{m}_labels"]
                terms[f"auxiliary/{m}"] = method.auxiliary * cross_entropy(
                    out.auxiliary_logits, labels, self.class_weights
                )
            if method.orthogonality:
                terms[f"orthogonality/{m}"] = method.orthogonality * orthogonality_loss(
                    out.invariant, out.specific, valid
                )
            if self.adversary is not None:
                guess = self.adversary(reverse_gradient(out.invariant))
                terms[f"adversary/{m}"] = method.adversary * modality_loss(guess, index, valid)
        return terms

    def _read_across(self, outputs: Outputs, batch: Mapping[str, Tensor], m: Modality) -> Tensor:
        """Smooth distance between the other modality's channels and those read from a modality's features."""
        other = _other(m)
        read = self.readers[m](torch.cat([outputs[m].invariant, outputs[m].specific], dim=1))
        with torch.no_grad():
            layers = torch.cat([batch[other], batch[f"{other}_valid"][:, None].to(batch[other])], dim=1)
            carried, seen = carry(layers, batch[f"{other}_transform"], batch[f"{m}_transform"])
            usable = (seen & batch[f"{m}_valid"] & (carried[:, -1] > 0.999))[:, None]
        distance = F.smooth_l1_loss(read.float(), carried[:, :-1].to(read.device), reduction="none")
        return (distance * usable).sum() / (usable.sum() * distance.shape[1]).clamp(min=1)


def contrast(
    outputs: Outputs, batch: Mapping[str, Tensor], method: MethodSettings, num_classes: int, stride: int
) -> Tensor:
    """The contrast that a method names, unweighted."""
    optical, elevation = outputs["optical"].invariant, outputs["elevation"].invariant
    if method.contrast == "class":
        return class_contrast(
            optical,
            elevation,
            batch["optical_labels"],
            batch["elevation_labels"],
            method.temperature,
            num_classes=num_classes,
            shuffled=method.shuffled,
        )
    valid = {f"{m}_valid": feature_valid(batch[f"{m}_valid"], stride) for m in MODALITIES}
    if method.contrast == "image":
        return image_contrast(optical, elevation, method.temperature, shuffled=method.shuffled, **valid)
    return pixel_contrast(
        optical,
        elevation,
        batch["optical_transform"],
        batch["elevation_transform"],
        stride,
        method.temperature,
        shuffled=method.shuffled,
        optical_valid=valid["optical_valid"],
        elevation_valid=valid["elevation_valid"],
    )


def advice(logits: Tensor, lead: Tensor, valid: Tensor) -> Tensor:
    """What a branch tells the other one, and how much that is worth.

    Args:
        logits: Its calibrated logits, shape (B, K, H, W).
        lead: How far its IoU of a class lies above the other's, 0 to 1, shape (K,).
        valid: Where it has something to read, bool, shape (B, H, W).

    Returns:
        Class probabilities with, as a last channel, the lead in the most likely class, 0 where it reads nothing. Shape
        (B, K + 1, H, W).
    """
    worth = lead[logits.argmax(dim=1)] * valid
    return torch.cat([logits.softmax(dim=1), worth[:, None]], dim=1)


def agreement(logits: Tensor, target: Tensor, batch: Mapping[str, Tensor], modality: Modality) -> Tensor:
    """Distance of a branch from the other's advice, carried into its own view, weighted by its worth; 0 at labels."""
    transform = batch[f"{modality}_transform"]
    with torch.no_grad():
        carried, seen = carry(target, torch.eye(3, device=target.device).expand_as(transform), transform)
        # Where there is a label, it knows better than anybody.
        asking = batch[f"{modality}_valid"] & (batch[f"{modality}_labels"] == IGNORE_INDEX)
        weight = carried[:, -1] * (seen & asking)
        # Between pixels of which one is invalid, probabilities add up to less than 1.
        wanted = carried[:, :-1] / carried[:, :-1].sum(dim=1, keepdim=True).clamp(min=1e-6)
    return agreement_loss(logits, wanted, weight)


def ramped(progress: float, ramp: float) -> float:
    """Rises along a half cosine bell from 0 to 1 over the first ``ramp`` of the training."""
    if progress >= ramp:
        return 1.0
    return 0.5 - 0.5 * float(torch.cos(torch.tensor(torch.pi * progress / ramp)))


def _other(modality: Modality) -> Modality:
    return "elevation" if modality == "optical" else "optical"
