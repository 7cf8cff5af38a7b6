"""The table of loss terms of branches that are trained together. Another term is one more class in `TERMS`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocrodino.losses.adversarial import modality_loss, reverse_gradient
from geocrodino.losses.alignment import carry
from geocrodino.losses.disentanglement import orthogonality_loss
from geocrodino.losses.segmentation import cross_entropy
from geocrodino.models.decoders import AuxiliaryDecoder
from geocrodino.models.present_rows import PresentRows
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import Modality
from geocrodino.training.learners.base import Learner, Shape, feature_valid, number_there, processes_in, rows_there
from geocrodino.training.learners.between import Outputs, advice, agreement, contrast, mean_of, ramped, unlabelled


@dataclass(frozen=True)
class Pass:
    """One pass of a batch through all branches: what loss terms are computed from.

    Attributes:
        method: Terms and weights of the method.
        outputs: Outputs of each branch, in the order of the modalities.
        batch: Augmented patches, see `Step`.
        source: The same patches before augmentation.
        progress: Share of the training that is finished, 0 to 1.
        average: The learner with averaged weights, in evaluation mode.
        heads: Networks of the terms, by name, see `LossTerm.heads`.
        temperature: Temperature of each branch.
        lead: How much more often a branch (first) is right than another (second), 0 to 1, by the class that each
            predicts, shape (K, K).
        class_weights: Weight of each class in the cross entropy, shape (K,).
        stride: Pixels per feature.
    """

    method: MethodSettings
    outputs: Outputs
    batch: Mapping[str, Tensor]
    source: Mapping[str, Tensor]
    progress: float
    average: Learner
    heads: Mapping[str, nn.Module]
    temperature: Mapping[Modality, Tensor]
    lead: Mapping[tuple[Modality, Modality], Tensor]
    class_weights: Tensor
    stride: int

    @property
    def ramp(self) -> float:
        """Factor of the terms that are introduced gradually, 0 to 1."""
        return ramped(self.progress, self.method.ramp)

    def feature_valid(self, modality: Modality) -> Tensor:
        """Find the valid features of a modality, see `feature_valid`.

        Args:
            modality: The modality.

        Returns:
            Bool, shape (B, H / stride, W / stride).
        """
        return feature_valid(self.batch[f"{modality}_valid"], self.stride)


class LossTerm(ABC):
    """One loss term. Its weight is ``method.terms[name]``, unless it has settings of its own.

    Attributes:
        name: Name in the settings (``method.terms``) and in the logs.
    """

    name: ClassVar[str]

    def wanted(self, method: MethodSettings) -> bool:
        """Find out whether a method uses this term.

        Args:
            method: Terms and weights of the method.

        Returns:
            True if the weight is above 0.
        """
        return self.weight(method) > 0

    def weight(self, method: MethodSettings) -> float:
        """Get the weight of the term in a method.

        Args:
            method: Terms and weights of the method.

        Returns:
            ``method.terms[name]``, or 0 if the method does not name the term.
        """
        return method.terms.get(self.name, 0.0)

    def heads(self, method: MethodSettings, shape: Shape) -> dict[str, nn.Module]:
        """Create the networks that the term alone needs; they are trained with the branches.

        Args:
            method: Terms and weights of the method.
            shape: Sizes of the branches.

        Returns:
            Networks by name. The names become part of checkpoints.
        """
        return {}

    def of_branch(self, seen: Pass, modality: Modality) -> dict[str, Tensor]:
        """Compute the weighted terms of one branch.

        Args:
            seen: The pass.
            modality: Modality of the branch.

        Returns:
            Terms by name, each a scalar; empty if there is none.
        """
        return {}

    def between_branches(self, seen: Pass) -> dict[str, Tensor]:
        """Compute the weighted terms that involve several branches; called after `of_branch` of all branches.

        Args:
            seen: The pass.

        Returns:
            Terms by name, each a scalar; empty if there is none.
        """
        return {}


class _Weighted(LossTerm, ABC):
    """A term whose weight is a setting of its own."""

    @abstractmethod
    def weight(self, method: MethodSettings) -> float:
        """Weight of the term."""


class Auxiliary(_Weighted):
    """Cross entropy of the auxiliary decoder, which all branches share."""

    name = "auxiliary"

    def weight(self, method: MethodSettings) -> float:
        """Get the weight of the term in a method.

        Args:
            method: Terms and weights of the method.

        Returns:
            ``method.auxiliary``, at least 0.
        """
        return method.auxiliary

    def of_branch(self, seen: Pass, modality: Modality) -> dict[str, Tensor]:
        """Compute the cross entropy of the auxiliary decoder for one branch.

        Args:
            seen: The pass.
            modality: Modality of the branch.

        Returns:
            ``auxiliary/<modality>``, weighted, scalar >= 0; empty if the networks have no auxiliary decoder.
        """
        logits = seen.outputs[modality].auxiliary_logits
        if logits is None:
            return {}
        loss = cross_entropy(logits, seen.batch[f"{modality}_labels"], seen.class_weights)
        return {f"auxiliary/{modality}": self.weight(seen.method) * loss}


class Orthogonality(_Weighted):
    """Squared cosine between invariant and specific features."""

    name = "orthogonality"

    def weight(self, method: MethodSettings) -> float:
        """Get the weight of the term in a method.

        Args:
            method: Terms and weights of the method.

        Returns:
            ``method.orthogonality``, at least 0.
        """
        return method.orthogonality

    def of_branch(self, seen: Pass, modality: Modality) -> dict[str, Tensor]:
        """Compute the mean squared cosine between both halves of one branch's features, where the modality is valid.

        Args:
            seen: The pass.
            modality: Modality of the branch.

        Returns:
            ``orthogonality/<modality>``, weighted: a scalar from 0 to the weight.
        """
        out = seen.outputs[modality]
        loss = orthogonality_loss(out.invariant, out.specific, seen.feature_valid(modality))
        return {f"orthogonality/{modality}": self.weight(seen.method) * loss}


class Adversary(_Weighted):
    """Loss of a classifier that guesses the modality of an invariant feature, with a reversed gradient."""

    name = "adversary"

    def weight(self, method: MethodSettings) -> float:
        """Get the weight of the term in a method.

        Args:
            method: Terms and weights of the method.

        Returns:
            ``method.adversary``, at least 0.
        """
        return method.adversary

    def heads(self, method: MethodSettings, shape: Shape) -> dict[str, nn.Module]:
        """Create the classifier of modalities, a 1 x 1 convolution that all branches share.

        Args:
            method: Not used.
            shape: Sizes of the branches.

        Returns:
            The classifier, named ``adversary``.
        """
        return {"adversary": nn.Conv2d(shape.network.invariant_channels, len(shape.in_channels), 1)}

    def of_branch(self, seen: Pass, modality: Modality) -> dict[str, Tensor]:
        """Compute the cross entropy of the classifier on the invariant features of one branch.

        Args:
            seen: The pass.
            modality: Modality of the branch.

        Returns:
            ``adversary/<modality>``, weighted, scalar >= 0. Its gradient is reversed before it reaches the branch.
        """
        features, valid = seen.outputs[modality].invariant, seen.feature_valid(modality)
        rows = rows_there(seen.batch, *seen.outputs)
        if rows is not None:  # patches that lack a modality would tell it by what they show
            features, valid = features[rows], valid[rows]
        guess = seen.heads["adversary"](reverse_gradient(features))
        loss = modality_loss(guess, list(seen.outputs).index(modality), valid)
        return {f"adversary/{modality}": self.weight(seen.method) * loss}


class Contrast(_Weighted):
    """Contrast between the invariant features of the modalities."""

    name = "contrast"

    def weight(self, method: MethodSettings) -> float:
        """Get the weight of the term in a method.

        Args:
            method: Terms and weights of the method.

        Returns:
            ``method.contrast_weight``, at least 0; 0 for the contrast ``none``.
        """
        return method.contrast_weight if method.contrast != "none" else 0.0

    def between_branches(self, seen: Pass) -> dict[str, Tensor]:
        """Compute the contrast, averaged over all pairs of branches.

        Args:
            seen: The pass.

        Returns:
            ``contrast``, weighted and ramped, scalar >= 0.
        """
        loss = contrast(seen.outputs, seen.batch, seen.method, len(seen.class_weights), seen.stride)
        return {"contrast": seen.ramp * self.weight(seen.method) * loss}


class Agreement(_Weighted):
    """Distillation from the other branches on unlabelled pixels."""

    name = "agreement"

    def weight(self, method: MethodSettings) -> float:
        """Get the weight of the term in a method.

        Args:
            method: Terms and weights of the method.

        Returns:
            ``method.agreement``, at least 0.
        """
        return method.agreement

    def between_branches(self, seen: Pass) -> dict[str, Tensor]:
        """Compute the term of each branch: its mean distance from the advice of the others.

        Args:
            seen: The pass.

        Returns:
            ``agreement/<modality>`` of each branch, weighted and ramped, each a scalar >= 0; empty with one branch.
        """
        pairs = [(teacher, m) for m in seen.outputs for teacher in seen.outputs if teacher != m]
        taught = {pair: self._patches(seen, *pair) for pair in pairs}
        predicted = self._predictions(seen, taught)
        weight, terms = seen.ramp * self.weight(seen.method), {}
        for m in seen.outputs:
            found = [self._from_one(seen, *pair, taught[pair], predicted) for pair in pairs if pair[1] == m]
            if found:
                terms[f"agreement/{m}"] = weight * mean_of(found)
        return terms

    @staticmethod
    def _patches(seen: Pass, teacher: Modality, student: Modality) -> Tensor:
        """Numbers of the patches with pixels that a branch may learn from another one, int64, shape (N,)."""
        if not seen.lead[teacher, student].any():
            return torch.zeros(0, dtype=torch.int64, device=seen.outputs[student].logits.device)
        patches = unlabelled(seen.batch, student).flatten(1).any(dim=1).nonzero()[:, 0]
        both = rows_there(seen.batch, teacher, student)
        # Patches that lack one of the modalities are no part of the term.
        return patches if both is None else patches[torch.isin(patches, both)]

    @staticmethod
    @torch.no_grad()
    def _predictions(
        seen: Pass, taught: Mapping[tuple[Modality, Modality], Tensor]
    ) -> dict[Modality, tuple[Tensor, Tensor]]:
        """What the averaged branches predict before augmentation, of the patches with pixels to learn from.

        Where everything is labelled, it would take a third of the time of a step and add 0.

        Returns:
            Numbers of the patches, ascending, and their calibrated logits, float32, shape (N, K, H, W), by modality.
        """
        found: dict[Modality, tuple[Tensor, Tensor]] = {}
        for m in seen.outputs:
            wanted = [patches for pair, patches in taught.items() if m in pair and len(patches)]
            if wanted:
                patches = torch.cat(wanted).unique()
                found[m] = (patches, seen.average.network(m)(seen.source[m][patches]).float() / seen.temperature[m])
        return found

    @staticmethod
    def _from_one(
        seen: Pass,
        teacher: Modality,
        student: Modality,
        patches: Tensor,
        predicted: Mapping[Modality, tuple[Tensor, Tensor]],
    ) -> Tensor:
        """The term of a branch and one that teaches it."""
        logits = seen.outputs[student].logits
        if not len(patches):
            return torch.zeros((), device=logits.device)
        count = float(len(logits))
        if rows_there(seen.batch, teacher, student) is not None:
            count = number_there(seen.batch, teacher, student) / processes_in(seen.batch, student)
        keys = (f"{student}_{part}" for part in ("transform", "valid", "labels"))
        batch = {key: seen.batch[key][patches] for key in keys}

        def said_by(modality: Modality) -> Tensor:
            numbers, said = predicted[modality]
            return said[torch.searchsorted(numbers, patches)]

        valid = seen.source[f"{teacher}_valid"][patches]
        told = advice(said_by(teacher), said_by(student), seen.lead[teacher, student], valid)
        return agreement(logits[patches], told, batch, student) * (len(patches) / count)


class Reconstruction(LossTerm):
    """Smooth L1 distance between the channels of a modality and their reconstruction from the features of another."""

    name = "across"
    pairs: ClassVar[dict[str, tuple[Modality, Modality]]] = {
        "heights_from_image": ("optical", "elevation"),
        "image_from_heights": ("elevation", "optical"),
    }
    """The modality that is read and the one that is reconstructed, by the setting that holds the weight."""

    def wanted(self, method: MethodSettings) -> bool:
        """Find out whether a method reconstructs any modality.

        Args:
            method: Terms and weights of the method.

        Returns:
            True if the weight of any pair is above 0.
        """
        return any(getattr(method, key) for key in self.pairs)

    def heads(self, method: MethodSettings, shape: Shape) -> dict[str, nn.Module]:
        """Create a decoder for each pair that the method reconstructs and whose modalities are both trained.

        Args:
            method: Terms and weights of the method.
            shape: Sizes of the branches.

        Returns:
            The decoders by the modality that is read, in one module named ``readers``.
        """
        readers = nn.ModuleDict()
        for key, (read, target) in self.pairs.items():
            if getattr(method, key) and {read, target} <= shape.in_channels.keys():
                readers[read] = AuxiliaryDecoder(
                    2 * shape.network.invariant_channels, shape.in_channels[target], shape.network.stride_px
                )
        return {"readers": readers}

    def between_branches(self, seen: Pass) -> dict[str, Tensor]:
        """Compute the term of each pair, where both modalities are valid.

        Args:
            seen: The pass.

        Returns:
            ``across/<modality that is read>`` of each pair, weighted, each a scalar >= 0.
        """
        readers = seen.heads["readers"]
        return {
            f"across/{read}": getattr(seen.method, key)
            * self._distance(seen, readers.get_submodule(read), read, target)
            for key, (read, target) in self.pairs.items()
            if getattr(seen.method, key) and {read, target} <= seen.outputs.keys()
        }

    def _distance(self, seen: Pass, reader: nn.Module, m: Modality, target: Modality) -> Tensor:
        batch, out = seen.batch, seen.outputs[m]
        features, rows = torch.cat([out.invariant, out.specific], dim=1), rows_there(seen.batch, m, target)
        if rows is not None:
            present = PresentRows(rows, number_there(seen.batch, m, target))
            if not present.total:
                return features.new_zeros(())
            rows = present.passed  # a single one twice: the mean stays the same
            if not len(rows):  # other processes have patches, so the reader is passed here too; the sum is 0
                nothing: Tensor = reader(features[rows]).sum()
                return nothing
            names = (target, f"{target}_valid", f"{target}_transform", f"{m}_valid", f"{m}_transform")
            features, batch = features[rows], {name: batch[name][rows] for name in names}
        read = reader(features)
        with torch.no_grad():
            layers = torch.cat([batch[target], batch[f"{target}_valid"][:, None].to(batch[target])], dim=1)
            carried, inside = carry(layers, batch[f"{target}_transform"], batch[f"{m}_transform"])
            usable = (inside & batch[f"{m}_valid"] & (carried[:, -1] > 0.999))[:, None]
        distance = F.smooth_l1_loss(read.float(), carried[:, :-1].to(read.device), reduction="none")
        return (distance * usable).sum() / (usable.sum() * distance.shape[1]).clamp(min=1)


TERMS: list[LossTerm] = [Auxiliary(), Orthogonality(), Adversary(), Contrast(), Agreement(), Reconstruction()]
"""All terms, in the order in which they are computed."""
