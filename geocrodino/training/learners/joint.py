"""Branches that are trained together without a teacher: CroDiNo-KD, its parts, and extensions."""

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
    """The methods ``single``, ``crodino``, ``mutual`` and ``discom``, which differ in the weights of their terms.

    The terms of the paper, summed over the modalities m: ``L = CE_m + w_aux CE(aux_m) + w_orth mean(cos^2(inv_m,
    spec_m)) + w_con contrast``. Extensions: distillation from the other branch on unlabelled pixels, reconstruction of
    one modality from the other's features, and a modality adversary.

    Args:
        method: Terms and weights of the method.
        shape: Sizes of the networks.
        class_weights: Weight of each class in the cross entropy, shape (K,).
        weights: Local encoder weights by modality.

    Attributes:
        model: Both branches and the auxiliary decoder.
        temperature: Temperature of each branch, in the order of ``MODALITIES``, shape (2,).
        lead: How far the IoU of each branch and class is above that of the other branch, 0 to 1, shape (2, K).
        across: Weight of the reconstruction of the other modality, by the modality that is read.

    Raises:
        ModelError: If a network cannot be built with these settings.

    References:
        Ferrod et al. (2025). https://arxiv.org/abs/2505.24361 (weights and details are not reported there; they are
        ours) Ienco & Dantas (2024). https://arxiv.org/abs/2408.07080 (``discom``) Zhang et al. (2018). Deep mutual
        learning. https://arxiv.org/abs/1706.00384 (related to ``mutual``)
    """

    def __init__(
        self, method: MethodSettings, shape: Shape, class_weights: Tensor, weights: Weights | None = None
    ) -> None:
        super().__init__(method, class_weights)
        self.model = CroDiNo(
            shape.network, shape.in_channels, shape.num_classes, auxiliary=method.auxiliary > 0, weights=weights
        )
        channels = shape.network.invariant_channels
        # Measured on validation pixels. Before the first measurement the lead is 0, so no branch teaches the other.
        self.temperature: Tensor
        self.lead: Tensor
        self.register_buffer("temperature", torch.ones(len(MODALITIES)))
        self.register_buffer("lead", torch.zeros(len(MODALITIES), shape.num_classes))
        self.adversary = nn.Conv2d(channels, len(MODALITIES), 1) if method.adversary else None
        self.readers = nn.ModuleDict()
        # Beside the classes, each branch may predict the channels of the other modality.
        self.across: dict[Modality, float] = {
            "optical": method.heights_from_image,
            "elevation": method.image_from_heights,
        }
        for m in MODALITIES:
            if self.across[m]:
                self.readers[m] = AuxiliaryDecoder(
                    2 * channels, shape.in_channels[_other_modality(m)], self.model.stride
                )

    def network(self, name: str) -> nn.Module:
        """Get the branch of a modality.

        Args:
            name: ``optical`` or ``elevation``.

        Returns:
            The branch itself, not a copy.
        """
        return self.branch("optical" if name == "optical" else "elevation")

    def branch(self, modality: Modality) -> Branch:
        """Get the branch of a modality.

        Args:
            modality: The modality.

        Returns:
            The branch itself, not a copy.
        """
        return self.model.branch(modality)

    def set_calibration(
        self, temperature: Mapping[Modality, float], iou: Mapping[Modality, NDArray[np.float64]]
    ) -> None:
        """Set how far each branch is better than the other, as measured on validation pixels.

        A branch teaches the other where it predicts a class in which its own IoU is higher.

        Args:
            temperature: Divides the logits of each branch, above 0.
            iou: IoU of each branch and class, 0 to 1, shape (K,). No branch teaches a class whose IoU is NaN.
        """
        for index, m in enumerate(MODALITIES):
            lead = np.nan_to_num(iou[m] - iou[_other_modality(m)]).clip(min=0)
            self.temperature[index], self.lead[index] = temperature[m], torch.from_numpy(lead)

    def parts(self) -> list[list[nn.Parameter]]:
        """Group the parameters whose gradients are clipped together.

        Returns:
            The parameters of each branch, then those that belong to no branch.
        """
        own = [list(self.branch(m).parameters()) for m in MODALITIES]
        known = {id(p) for part in own for p in part}
        shared = [p for p in self.parameters() if id(p) not in known]
        return [*own, shared] if shared else own

    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Compute the weighted terms of the method.

        Args:
            step: The batch.
            average: This learner with averaged weights, in evaluation mode; its branches teach.

        Returns:
            Terms by name, scalars. Their sum is the loss.
        """
        method, batch = self.method, step.batch
        outputs: Outputs = self.model({m: batch[m] for m in MODALITIES})
        terms: dict[str, Tensor] = {}
        for m in MODALITIES:
            terms |= self.supervised(m, outputs[m].logits, batch[f"{m}_labels"])
        terms |= self._half_terms(outputs, batch)
        ramp = ramped(step.progress, method.ramp)
        if method.contrast != "none" and method.contrast_weight:
            weight = ramp * method.contrast_weight
            terms["contrast"] = weight * contrast(outputs, batch, method, len(self.class_weights), self.model.stride)
        if method.agreement:
            for m in MODALITIES:
                target = self._advice(average, step.source, _other_modality(m))
                terms[f"agreement/{m}"] = ramp * method.agreement * agreement(outputs[m].logits, target, batch, m)
        for m in MODALITIES:
            if self.across[m]:
                terms[f"across/{m}"] = self.across[m] * self._reconstruction_term(outputs, batch, m)
        return terms

    @torch.no_grad()
    def _advice(self, average: Learner, source: Mapping[str, Tensor], m: Modality) -> Tensor:
        index = MODALITIES.index(m)
        logits = average.network(m)(source[m]).float() / self.temperature[index]
        return advice(logits, self.lead[index], source[f"{m}_valid"])

    def _half_terms(self, outputs: Outputs, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
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

    def _reconstruction_term(self, outputs: Outputs, batch: Mapping[str, Tensor], m: Modality) -> Tensor:
        """Smooth L1 distance between the other modality's channels and their reconstruction from this modality."""
        other = _other_modality(m)
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
    """Compute the contrast that a method names, without its weight.

    Args:
        outputs: Outputs of both branches.
        batch: Augmented patches, see `Step`.
        method: Names the contrast, its temperature, and whether it is shuffled.
        num_classes: Number of classes.
        stride: Pixels per feature.

    Returns:
        Scalar >= 0.
    """
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
    """Combine the predictions of a branch with their weight in teaching the other branch.

    Args:
        logits: Calibrated logits of the branch, shape (B, K, H, W).
        lead: How far its IoU of a class is above that of the other branch, 0 to 1, shape (K,).
        valid: Where its modality is valid, bool, shape (B, H, W).

    Returns:
        Class probabilities, followed by a channel with the weight: the lead in the most likely class, 0 where the
        modality is not valid. Shape (B, K + 1, H, W).
    """
    worth = lead[logits.argmax(dim=1)] * valid
    return torch.cat([logits.softmax(dim=1), worth[:, None]], dim=1)


def agreement(logits: Tensor, target: Tensor, batch: Mapping[str, Tensor], modality: Modality) -> Tensor:
    """Distillation from the other branch on unlabelled pixels.

    The other branch's advice is resampled into the view of this branch. The divergence from it counts where this
    modality is valid and the pixel has no label, with the weight of the advice.

    Args:
        logits: Logits of this branch, shape (B, K, H, W).
        target: The other branch's `advice` before augmentation, shape (B, K + 1, H, W).
        batch: Augmented patches, see `Step`.
        modality: Modality of this branch.

    Returns:
        Scalar >= 0, see `agreement_loss`.
    """
    transform = batch[f"{modality}_transform"]
    with torch.no_grad():
        carried, seen = carry(target, torch.eye(3, device=target.device).expand_as(transform), transform)
        # Labels are more reliable than the other branch: where there is one, it alone counts.
        unlabelled = batch[f"{modality}_valid"] & (batch[f"{modality}_labels"] == IGNORE_INDEX)
        weight = carried[:, -1] * (seen & unlabelled)
        # Interpolated probabilities are normalised again, so that they sum to 1 despite rounding.
        expected = carried[:, :-1] / carried[:, :-1].sum(dim=1, keepdim=True).clamp(min=1e-6)
    return agreement_loss(logits, expected, weight)


def ramped(progress: float, ramp: float) -> float:
    """Factor of a term that is introduced gradually: half a cosine wave from 0 to 1.

    Args:
        progress: Share of the training that is finished, 0 to 1.
        ramp: Share of the training over which the factor rises, 0 to 1.

    Returns:
        Factor, 0 to 1.
    """
    if progress >= ramp:
        return 1.0
    return 0.5 - 0.5 * float(torch.cos(torch.tensor(torch.pi * progress / ramp)))


def _other_modality(modality: Modality) -> Modality:
    return "elevation" if modality == "optical" else "optical"
