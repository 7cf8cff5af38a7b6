"""Students of a frozen teacher that reads all modalities: the methods ``kd``, ``protokd`` and ``maskedkd``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geocrodino.losses.distillation import (
    MaskTokens,
    distillation_loss,
    mask_diversity_loss,
    masked_feature_loss,
    prototype_distillation_loss,
)
from geocrodino.losses.segmentation import cross_entropy, labelled_weight
from geocrodino.models.branch import Branch, BranchOutput
from geocrodino.models.crodino import CroDiNo
from geocrodino.models.fusion import MiddleFusion
from geocrodino.models.present_rows import PresentRows
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import Modality
from geocrodino.training.learners.base import (
    Learner,
    Shape,
    Step,
    Weights,
    feature_valid,
    network_input,
    number_there,
    partial_rows,
    rows_there,
)
from geocrodino.training.learners.fusion import build_fusion, either_labels

_MASK_SHARE = 0.2
"""Share of the steps, at the start, in which mask tokens are learnt. Masked distillation starts after them."""


class TaughtLearner(Learner):
    """A student for each modality, and one teacher. All see a patch in the same augmented geometry.

    Args:
        method: Terms and weights of the method.
        shape: Sizes of the networks.
        class_weights: Weight of each class in the cross entropy, shape (K,).
        weights: Pretrained encoder weights of the students by modality.

    Attributes:
        students: A branch for each modality.
        teacher: The fusion network, in evaluation mode and without gradients. Its weights are loaded afterwards.
        masks: The mask tokens, or None.

    Raises:
        ModelError: If a network cannot be built with these settings.

    References:
        Hinton et al. (2015). Distilling the knowledge in a neural network. https://arxiv.org/abs/1503.02531
        Wang et al. (2023). Prototype knowledge distillation for medical segmentation with missing modality.
        https://arxiv.org/abs/2303.09830
        Huang et al. (2023). Masked distillation with receptive tokens. https://arxiv.org/abs/2205.14589
    """

    coupled = True
    needs_teacher = True

    def __init__(
        self, method: MethodSettings, shape: Shape, class_weights: Tensor, weights: Weights | None = None
    ) -> None:
        super().__init__(method, class_weights, shape.in_channels)
        self.students = CroDiNo(shape.network, shape.in_channels, shape.num_classes, auxiliary=False, weights=weights)
        self.teacher: Branch | MiddleFusion = build_fusion(method, shape)
        self.teacher.requires_grad_(False).eval()
        self.masks = MaskTokens(2 * shape.network.invariant_channels, method.tokens) if method.tokens else None

    @classmethod
    def teacher_method(cls, method: MethodSettings) -> MethodSettings:
        """The method ``fusion`` with the network and the supervised terms of the students.

        Args:
            method: Method of the students.

        Returns:
            The method of the teacher.
        """
        return MethodSettings(
            name="fusion",
            fusion=method.fusion,
            losses=method.losses,
            dice=method.dice,
            focal_gamma=method.focal_gamma,
            label_smoothing=method.label_smoothing,
        )

    def load_teacher(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of a trained fusion network.

        Args:
            weights: Weights and buffers by name, each of the shape that the teacher's network has.

        Raises:
            RuntimeError: If they are of another network.
        """
        self.teacher.load_state_dict(dict(weights))

    def train(self, mode: bool = True) -> TaughtLearner:
        """Set the mode of the students; the teacher stays in evaluation mode, so that its batch statistics are fixed.

        Args:
            mode: True for training mode.

        Returns:
            This learner.
        """
        super().train(mode)
        self.teacher.eval()
        return self

    @property
    def leaves_parameters_out(self) -> bool:
        """True with mask tokens: either they are learnt in a step or the features of the students."""
        return self.masks is not None

    def network(self, name: str) -> nn.Module:
        """Get the student of a modality.

        Args:
            name: A modality.

        Returns:
            The branch itself, not a copy.
        """
        return self.students.branch(name)

    def parts(self) -> list[list[nn.Parameter]]:
        """Group the parameters whose gradients are clipped together.

        Returns:
            The parameters of each student, then those of the mask tokens if there are any.
        """
        own = [list(self.students.branch(m).parameters()) for m in self.modalities]
        return own if self.masks is None else [*own, list(self.masks.parameters())]

    def amounts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute what the terms divide by: labelled pixels; for the teacher's terms, pixels of complete patches.

        Args:
            batch: Augmented patches, see `Step`.

        Returns:
            Amounts by the name of the term, each a scalar >= 0, shape ().
        """
        valid, labels = {m: batch[f"{m}_valid"] for m in self.modalities}, either_labels(batch)
        complete = rows_there(batch, *self.modalities)
        if complete is not None:
            valid, labels = {m: found[complete] for m, found in valid.items()}, labels[complete]
        found = {
            **super().amounts(batch),
            **{f"distillation/{m}": found.sum() for m, found in valid.items()},
            "masks/segmentation": labelled_weight(labels, self.class_weights),
        }
        if any(f"{m}_there" in batch for m in self.modalities):  # means over complete patches, of which parts differ
            of_students = [f"{term}/{m}" for term in ("prototype", "masked") for m in self.modalities]
            means = ("masks/diversity", *of_students)
            found |= dict.fromkeys(means, labels.new_tensor(len(labels)))
        return found

    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Compute the weighted terms of both students, and those of the mask tokens while they are learnt.

        The teacher reads the patches that have all modalities; from the others the students learn by labels alone.

        Args:
            step: The batch.
            average: Not used.

        Returns:
            Terms by name, each a scalar. Their sum is the loss.
        """
        batch, method = step.batch, self.method
        rows, complete = partial_rows(batch, self.modalities), rows_there(batch, *self.modalities)
        students = {m: self._student(m, batch[m], rows.get(m)) for m in self.modalities}
        supervised = {m: self.supervised(m, out.logits, batch[f"{m}_labels"]) for m, out in students.items()}
        learning_masks = self.masks is not None and step.progress < _MASK_SHARE
        if complete is not None:
            if not len(complete):
                # Where other processes have complete patches, all log the same terms in the same order.
                some = number_there(batch, *self.modalities) > 0
                return self._without_teacher(supervised, learning_masks=learning_masks if some else None)
            batch = {key: value[complete] for key, value in batch.items() if isinstance(value, Tensor)}
            students = {m: _rows_of(student, complete) for m, student in students.items()}
        with torch.no_grad():
            features = self.teacher.encode(network_input("fusion", batch))
            logits = self.teacher.decoder(features)
        terms: dict[str, Tensor] = {}
        for m, student in students.items():
            labels, valid = batch[f"{m}_labels"], batch[f"{m}_valid"]
            seen = feature_valid(valid, self.students.stride)
            terms |= supervised[m]
            if method.distillation:
                divergence = distillation_loss(student.logits, logits, method.distillation_temperature, valid)
                terms[f"distillation/{m}"] = method.distillation * divergence
            if method.prototype:
                distance = prototype_distillation_loss(
                    _deepest(student), features[-1], labels, len(self.class_weights), seen
                )
                terms[f"prototype/{m}"] = method.prototype * distance
            if self.masks is not None and not learning_masks:
                with torch.no_grad():
                    masks = self.masks(features[-1]) * seen[:, None]
                terms[f"masked/{m}"] = method.masked * masked_feature_loss(_deepest(student), features[-1], masks)
        if self.masks is not None and learning_masks:
            terms |= self._mask_terms(self.masks, features, either_labels(batch))
        return terms

    def _without_teacher(
        self, supervised: Mapping[Modality, Mapping[str, Tensor]], *, learning_masks: bool | None
    ) -> dict[str, Tensor]:
        """The terms of a process without a complete patch; those of the teacher are 0, or left out if None has one."""
        method = self.method
        terms: dict[str, Tensor] = {}
        nothing = self.class_weights.new_zeros(())
        with_masks = self.masks is not None and not learning_masks
        weights = {"distillation": method.distillation, "prototype": method.prototype, "masked": with_masks}
        for m, found in supervised.items():
            terms |= found
            if learning_masks is not None:
                terms |= {f"{name}/{m}": nothing for name, weight in weights.items() if weight}
        if learning_masks:
            terms |= {"masks/segmentation": nothing, "masks/diversity": nothing}
        return terms

    def _student(self, modality: Modality, images: Tensor, rows: PresentRows | None) -> BranchOutput:
        """Pass the images that are there through a student; the output of the others is 0."""
        if rows is None:
            return self.students.branch(modality).forward_features(images)
        return BranchOutput(*self.students({modality: images}, {modality: rows})[modality][:3])

    def _mask_terms(self, tokens: MaskTokens, features: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Terms of the mask tokens: masks differ, and the teacher still recognises classes in the masked features."""
        masks = tokens(features[-1])
        masked = features[-1] * masks.mean(dim=1, keepdim=True).to(features[-1])
        logits = self.teacher.decoder([*features[:-1], masked])
        return {
            "masks/segmentation": cross_entropy(logits, labels, self.class_weights),
            "masks/diversity": mask_diversity_loss(masks),
        }


def _rows_of(output: BranchOutput, rows: Tensor) -> BranchOutput:
    return BranchOutput(*(value[rows] for value in output))


def _deepest(output: BranchOutput) -> Tensor:
    return torch.cat([output.invariant, output.specific], dim=1)
