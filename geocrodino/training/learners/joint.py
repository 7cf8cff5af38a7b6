"""Branches that are trained together without a teacher: CroDiNo-KD, its parts, and extensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations, permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geocrodino.errors import ConfigError
from geocrodino.models.branch import Branch
from geocrodino.models.crodino import CroDiNo
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import Modality
from geocrodino.spelling import did_you_mean
from geocrodino.training.calibrate import ValidationPixels
from geocrodino.training.learners.base import (
    Learner,
    Shape,
    Step,
    Weights,
    amount_there,
    feature_valid,
    number_there,
    partial_rows,
    processes_in,
    rows_there,
)
from geocrodino.training.learners.between import Outputs
from geocrodino.training.learners.terms import TERMS, Pass

_COMPARED_PX = 50_000
"""Validation pixels on which the branches are calibrated and compared after each epoch, to teach each other."""


class JointLearner(Learner):
    """The methods ``single``, ``crodino``, ``mutual`` and ``discom``, which differ in the weights of their terms.

    The terms of the paper, summed over the modalities m: ``L = CE_m + w_aux CE(aux_m) + w_orth mean(cos^2(inv_m,
    spec_m)) + w_con contrast``. Extensions: distillation from the other branch on unlabelled pixels, reconstruction of
    one modality from the other's features, and a modality adversary.

    Args:
        method: Terms and weights of the method.
        shape: Sizes of the networks.
        class_weights: Weight of each class in the cross entropy, shape (K,).
        weights: Pretrained encoder weights by modality.

    Attributes:
        model: All branches and the auxiliary decoder.
        pairs: Teacher and student, for each of the P ordered pairs of branches.
        temperature: Temperature of each branch, in the order of the modalities.
        lead: How much more often the teacher of a pair is right than its student, 0 to 1, by the class that each
            predicts, shape (P, K, K).
        terms: The loss terms of the method.
        heads: Names of the networks that only the terms need; they are submodules.

    Raises:
        ModelError: If a network cannot be built with these settings.
        ConfigError: If ``method.terms`` names a term that is not registered.

    References:
        Ferrod et al. (2025). https://arxiv.org/abs/2505.24361 (weights and details are not reported there; they are
        ours) Ienco & Dantas (2024). https://arxiv.org/abs/2408.07080 (``discom``) Zhang et al. (2018). Deep mutual
        learning. https://arxiv.org/abs/1706.00384 (related to ``mutual``)
    """

    def __init__(
        self, method: MethodSettings, shape: Shape, class_weights: Tensor, weights: Weights | None = None
    ) -> None:
        super().__init__(method, class_weights, shape.in_channels)
        self.model = CroDiNo(
            shape.network, shape.in_channels, shape.num_classes, auxiliary=method.auxiliary > 0, weights=weights
        )
        # Measured on validation pixels. Before the first measurement the lead is 0, so no branch teaches another.
        self.temperature: Tensor
        self.lead: Tensor
        self.pairs = list(permutations(self.modalities, 2))
        self.register_buffer("temperature", torch.ones(len(self.modalities)))
        self.register_buffer("lead", torch.zeros(len(self.pairs), shape.num_classes, shape.num_classes))
        self.terms = [term for term in TERMS if term.wanted(method)]
        _require_known_terms(method)
        self.heads: list[str] = []
        for term in self.terms:
            for name, head in term.heads(method, shape).items():
                self.add_module(name, head)
                self.heads.append(name)
        self._pixels: ValidationPixels | None = None

    @property
    def leaves_parameters_out(self) -> bool:
        """True with registered terms, of which nothing is known."""
        return bool(self.method.terms)

    def network(self, name: str) -> nn.Module:
        """Get the branch of a modality.

        Args:
            name: A modality.

        Returns:
            The branch itself, not a copy.
        """
        return self.branch(name)

    def branch(self, modality: Modality) -> Branch:
        """Get the branch of a modality.

        Args:
            modality: The modality.

        Returns:
            The branch itself, not a copy.
        """
        return self.model.branch(modality)

    def set_calibration(
        self, temperature: Mapping[Modality, float], lead: Mapping[tuple[Modality, Modality], NDArray[np.float64]]
    ) -> None:
        """Set the temperatures of the branches, and where each of them teaches which other one.

        A branch teaches another where, with the classes that the two predict, it is more often right on validation
        pixels.

        Args:
            temperature: Divides the logits of each branch, above 0.
            lead: For each ordered pair of branches how much more often the first is right, 0 to 1, by the class that
                the first (rows) and the second predicts, shape (K, K), see `ValidationPixels.lead`.
        """
        for index, m in enumerate(self.modalities):
            self.temperature[index] = temperature[m]
        for index, pair in enumerate(self.pairs):
            self.lead[index] = torch.from_numpy(lead[pair])

    def on_validation_start(self, labelled_px: Callable[[], int]) -> None:
        """Where branches teach each other, start to collect pixels on which they are calibrated and compared.

        Args:
            labelled_px: Number of labelled pixels of the validation split.
        """
        if self.method.agreement:
            self._pixels = ValidationPixels(labelled_px(), _COMPARED_PX)

    def on_validation_batch(self, logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Collect pixels.

        Args:
            logits: Logits of each branch, (B, K, H, W).
            batch: The batch, without augmentation.
        """
        if self._pixels is not None:
            self._pixels.add(logits, batch)

    def on_validation_end(self) -> None:
        """Calibrate the branches and measure where each is better."""
        if self._pixels is not None:
            found = self._pixels.fit().calibration
            self.set_calibration(found.temperature, {pair: self._pixels.lead(*pair) for pair in self.pairs})
            self._pixels = None

    def assume_validated(self) -> None:
        """Let every branch teach all others, wherever they predict another class."""
        self.lead.copy_(1 - torch.eye(self.lead.shape[-1]))

    def parts(self) -> list[list[nn.Parameter]]:
        """Group the parameters whose gradients are clipped together.

        Returns:
            The parameters of each branch, then those that belong to no branch.
        """
        own = [list(self.branch(m).parameters()) for m in self.modalities]
        known = {id(p) for part in own for p in part}
        shared = [p for p in self.parameters() if id(p) not in known]
        return [*own, shared] if shared else own

    def seen(self, step: Step, average: Learner, outputs: Outputs) -> Pass:
        """Collect what the loss terms of a batch are computed from.

        Args:
            step: The batch.
            average: This learner with averaged weights, in evaluation mode.
            outputs: Outputs of each branch for the batch.

        Returns:
            The pass.
        """
        return Pass(
            method=self.method,
            outputs=outputs,
            batch=step.batch,
            source=step.source,
            progress=step.progress,
            average=average,
            heads={name: self.get_submodule(name) for name in self.heads},
            temperature=dict(zip(self.modalities, self.temperature, strict=True)),
            lead=dict(zip(self.pairs, self.lead, strict=True)),
            class_weights=self.class_weights,
            stride=self.model.stride,
        )

    def amounts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute what the terms of single branches divide by: labelled pixels, and valid features.

        Terms between branches are about patches that have both modalities. Where scenes lack a modality, some parts of
        a batch have many of them and some none, so their number stands for what these terms divide by.

        Args:
            batch: Augmented patches, see `Step`.

        Returns:
            Amounts by the name of the term, each a scalar >= 0, shape (). Where no scene lacks a modality, terms
            between branches have none.
        """
        found, complete = super().amounts(batch), rows_there(batch, *self.modalities)
        for m in self.modalities:
            found[f"auxiliary/{m}"] = found[f"segmentation/{m}"]
            valid = feature_valid(batch[f"{m}_valid"], self.model.stride)
            found[f"orthogonality/{m}"] = valid.sum()
            found[f"adversary/{m}"] = (valid if complete is None else valid[complete]).sum()
        return found | self._amounts_between(batch)

    def _amounts_between(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The number of patches with both modalities, by term; empty where no scene lacks a modality."""
        pairs = combinations(self.modalities, 2)
        both = [count for pair in pairs if (count := amount_there(batch, *pair)) is not None]
        if not both:
            return {}
        if self.method.contrast != "class":  # a single patch has no other one to differ from: its contrast is 0
            both = [count * (count > 1) for count in both]
        found = {"contrast": torch.stack(both).sum()}
        for one, other in self.pairs:
            if (count := amount_there(batch, one, other)) is not None:
                found[f"across/{one}"] = count
                # The term divides by the mean of all processes, see `Agreement`.
                found[f"agreement/{one}"] = count.new_tensor(number_there(batch, one, other)) / processes_in(batch, one)
        return found

    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Compute the weighted terms of the method.

        Args:
            step: The batch.
            average: This learner with averaged weights, in evaluation mode; its branches teach.

        Returns:
            Terms by name, each a scalar. Their sum is the loss.
        """
        images, rows = {m: step.batch[m] for m in self.modalities}, partial_rows(step.batch, self.modalities)
        seen = self.seen(step, average, self.model(images, rows) if rows else self.model(images))
        terms: dict[str, Tensor] = {}
        for m in self.modalities:
            terms |= self.supervised(m, seen.outputs[m].logits, seen.batch[f"{m}_labels"])
        for m in self.modalities:
            for term in self.terms:
                terms |= term.of_branch(seen, m)
        for term in self.terms:
            terms |= term.between_branches(seen)
        return terms


def _require_known_terms(method: MethodSettings) -> None:
    """Check that each term of ``method.terms`` is in the table.

    Raises:
        ConfigError: If one is not.
    """
    known = [term.name for term in TERMS]
    for name in method.terms:
        if name not in known:
            raise ConfigError(
                f"method.terms: expected names of registered loss terms ({', '.join(known)}), found {name!r}."
                f"{did_you_mean(name, known)}"
            )
