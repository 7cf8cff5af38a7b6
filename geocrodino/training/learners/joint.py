"""Two branches trained together without a teacher: CroDiNo-KD, its parts, and what goes beyond it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocrodino.geo.modality import MODALITIES, Modality
from geocrodino.losses.adversarial import modality_loss, reverse_gradient
from geocrodino.losses.alignment import carry
from geocrodino.losses.contrastive import class_contrast, image_contrast, pixel_contrast
from geocrodino.losses.disentanglement import orthogonality_loss
from geocrodino.losses.distillation import agreement_loss
from geocrodino.losses.segmentation import cross_entropy
from geocrodino.models.branch import Branch
from geocrodino.models.crodino import CroDiNo, CrodinoOutput
from geocrodino.models.decoders import AuxiliaryDecoder
from geocrodino.training.learners.base import Learner, Shape, Step, Weights, feature_valid
from geocrodino.training.method import MethodSettings

Outputs = Mapping[Modality, CrodinoOutput]


class JointLearner(Learner):
    """The methods ``single``, ``crodino``, ``mutual`` and ``discom``: terms that are switched on or off.

    ``L = sum_m CE_m + w_aux sum_m CE(aux_m) + w_orth sum_m mean cos^2(inv_m, spec_m) + w_con contrast``, and beyond the
    paper the agreement with a common target, the reading of one modality from the other's features, the adversary.

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
        # Measured on validation pixels; no common target before the first measurement.
        self.temperature: Tensor
        self.trust: Tensor
        self.register_buffer("temperature", torch.ones(len(MODALITIES)))
        self.register_buffer("trust", torch.zeros(len(MODALITIES)))
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

    def set_calibration(self, temperature: Mapping[Modality, float], weight: Mapping[Modality, float]) -> None:
        """How far each branch's probabilities are trusted in the common target, as measured on validation pixels."""
        for index, m in enumerate(MODALITIES):
            self.temperature[index], self.trust[index] = temperature[m], weight[m]

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
            target = self._common_target(average, step.source)
            for m in MODALITIES:
                terms[f"agreement/{m}"] = ramp * method.agreement * agreement(outputs[m].logits, target, batch, m)
        for m in MODALITIES:
            if self.across[m]:
                terms[f"across/{m}"] = self.across[m] * self._read_across(outputs, batch, m)
        return terms

    @torch.no_grad()
    def _common_target(self, average: Learner, source: Mapping[str, Tensor]) -> Tensor:
        logits = {m: average.network(m)(source[m]).float() / self.temperature[i] for i, m in enumerate(MODALITIES)}
        trust = {m: self.trust[i] * source[f"{m}_valid"] for i, m in enumerate(MODALITIES)}
        return common_target(logits, trust, self.method.target_temperature)

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


def common_target(
    logits: Mapping[Modality, Tensor], trust: Mapping[Modality, Tensor], temperature: float = 1.0
) -> Tensor:
    """What the branches say together, and how sure they are.

    Args:
        logits: Calibrated logits of each branch in one view, shape (B, K, H, W).
        trust: With which each branch's probabilities enter the average, at least 0, shape (B, H, W); 0 where its
            modality is invalid.
        temperature: Below 1 sharpens the result.

    Returns:
        Class probabilities with, as a last channel, the confidence, 0 to 1: one minus the entropy over its highest
        value, 0 where no branch is trusted. Shape (B, K + 1, H, W).
    """
    total = torch.stack([trust[m] for m in MODALITIES]).sum(dim=0)[:, None]
    pooled = torch.stack([logits[m].softmax(dim=1) * trust[m][:, None] for m in MODALITIES]).sum(dim=0)
    pooled = pooled / total.clamp(min=1e-6)
    if temperature != 1:
        pooled = pooled.clamp(min=1e-6) ** (1 / temperature)
        pooled = pooled / pooled.sum(dim=1, keepdim=True)
    return torch.cat([pooled, _confidence(pooled) * (total > 0)], dim=1)


def agreement(logits: Tensor, target: Tensor, batch: Mapping[str, Tensor], modality: Modality) -> Tensor:
    """Distance of a branch from the common target, carried into the branch's own view, weighted by confidence."""
    transform = batch[f"{modality}_transform"]
    with torch.no_grad():
        carried, seen = carry(target, torch.eye(3, device=target.device).expand_as(transform), transform)
        weight = carried[:, -1] * (seen & batch[f"{modality}_valid"])
        # Between pixels of which one is invalid, probabilities add up to less than 1.
        wanted = carried[:, :-1] / carried[:, :-1].sum(dim=1, keepdim=True).clamp(min=1e-6)
    return agreement_loss(logits, wanted, weight)


def ramped(progress: float, ramp: float) -> float:
    """Rises along a half cosine bell from 0 to 1 over the first ``ramp`` of the training."""
    if progress >= ramp:
        return 1.0
    return 0.5 - 0.5 * float(torch.cos(torch.tensor(torch.pi * progress / ramp)))


def _confidence(probabilities: Tensor) -> Tensor:
    classes = probabilities.shape[1]
    entropy = -(probabilities * probabilities.clamp(min=1e-8).log()).sum(dim=1, keepdim=True)
    return (1 - entropy / torch.tensor(float(max(2, classes))).log()).clamp(0, 1)


def _other(modality: Modality) -> Modality:
    return "elevation" if modality == "optical" else "optical"
