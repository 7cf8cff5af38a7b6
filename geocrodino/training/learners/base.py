"""The interface between the training loop and a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocrodino.losses.named import losses_of
from geocrodino.losses.segmentation import labelled_weight
from geocrodino.models.present_rows import PresentRows
from geocrodino.models.pretrained.state import Pretrained
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.network import NetworkSettings

_TERMS = {"cross_entropy": "segmentation"}
"""Names of loss terms in the logs, where they differ from those in the settings."""

WEIGHTED_TERMS = ("segmentation", "focal")
"""Terms that are divided by the weight of the labelled pixels."""

Weights = Mapping[Modality, Pretrained]
"""Pretrained encoder weights by modality. A modality without an entry starts from random weights."""


@dataclass(frozen=True)
class Step:
    """Input of one training step.

    Attributes:
        batch: Augmented patches. For each modality ``m``: ``<m>`` (B, C, H, W), ``<m>_labels`` (B, H, W), ``<m>_valid``
            (B, H, W) and ``<m>_transform`` (B, 3, 3), from source pixels to augmented pixels. Where scenes lack a
            modality, also ``<m>_there``, bool, (B,); in a training of several processes ``<m>_there_of_all`` as well,
            the same of the patches of all processes.
        source: The same patches before augmentation, with one geometry for all modalities.
        progress: Share of the training that is finished, 0 to 1.
    """

    batch: Mapping[str, Tensor]
    source: Mapping[str, Tensor]
    progress: float


@dataclass(frozen=True)
class Shape:
    """Sizes that all networks of a training share.

    Attributes:
        network: Settings of a branch.
        in_channels: Number of channels of each modality.
        num_classes: Number of classes.
    """

    network: NetworkSettings
    in_channels: Mapping[Modality, int]
    num_classes: int


class Learner(nn.Module, ABC):
    """Base of methods: networks that are trained together, and the loss terms of a batch.

    Args:
        method: Terms and weights of the method.
        class_weights: Weight of each class in the cross entropy, shape (K,).
        modalities: The modalities that are learned from; all registered ones by default.

    Attributes:
        method: Terms and weights of the method.
        modalities: The modalities, in the order of their registration.
        coupled: Whether the method needs the same augmented geometry for all modalities.
        needs_teacher: Whether another network is trained first, see `teacher_method` and `load_teacher`.
        has_branches: Whether it trains a `Branch` for each modality, which can start from a bundle.
        deploys: What is saved at the end: a ``bundle`` with the branch of each modality, or a single ``network``.
        class_weights: Weight of each class in the cross entropy, shape (K,).
    """

    coupled: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    has_branches: ClassVar[bool] = True
    deploys: ClassVar[Literal["bundle", "network"]] = "bundle"

    def __init__(
        self, method: MethodSettings, class_weights: Tensor, modalities: Iterable[Modality] = MODALITIES
    ) -> None:
        super().__init__()
        self.method = method
        self.modalities = MODALITIES.in_order(modalities)
        self.class_weights: Tensor
        self.register_buffer("class_weights", class_weights, persistent=False)

    @property
    def network_names(self) -> tuple[str, ...]:
        """Names of the networks that are validated and saved, each at its best epoch: one for each modality."""
        return self.modalities

    @property
    def leaves_parameters_out(self) -> bool:
        """Whether the loss of a step may not depend on all parameters; a search for them then slows down devices."""
        return False

    @abstractmethod
    def network(self, name: str) -> nn.Module:
        """Get a network as it is validated and deployed.

        Args:
            name: A modality, or ``fusion``.

        Returns:
            A network that maps the result of `network_input` to logits.
        """

    @abstractmethod
    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Compute the weighted loss terms of a batch.

        Args:
            step: The batch.
            average: This learner with averaged weights, in evaluation mode; the learner itself if no average is kept.

        Returns:
            Terms by name, each a scalar. Their sum is the loss.
        """

    def amounts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute what loss terms divide by, as far as it is known before the networks have seen the batch.

        A batch that is computed in parts has the loss of the whole batch if these amounts are known. Terms that are not
        named are averaged over the parts.

        Args:
            batch: Augmented patches, see `Step`.

        Returns:
            Amounts by the name of the term, each a scalar >= 0, shape ().
        """
        labelled = {m: labelled_weight(batch[f"{m}_labels"], self.class_weights) for m in self.modalities}
        return {f"{term}/{m}": amount for m, amount in labelled.items() for term in WEIGHTED_TERMS}

    def on_validation_start(self, labelled_px: Callable[[], int]) -> None:
        """Prepare for a validation.

        Args:
            labelled_px: Number of labelled pixels of the validation split.
        """

    def on_validation_batch(self, logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """See what the networks predict of a validation batch.

        Args:
            logits: Logits of each network, (B, K, H, W).
            batch: The batch, without augmentation.
        """

    def on_validation_end(self) -> None:
        """Learn from what the networks predicted."""

    def assume_validated(self) -> None:
        """Compute from now on all that a step after a validation may need, to measure its time and memory."""

    @classmethod
    def teacher_method(cls, method: MethodSettings) -> MethodSettings:
        """Get the method that the teacher of this learner is trained with.

        Args:
            method: Method of the students.

        Returns:
            The method of the teacher.

        Raises:
            NotImplementedError: If the learner needs no teacher.
        """
        raise NotImplementedError(f"the method {method.name} has no teacher")

    def load_teacher(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of a trained teacher.

        Args:
            weights: Weights and buffers by name, each of the shape and dtype that the teacher's network has.

        Raises:
            RuntimeError: If they are of another network.
            NotImplementedError: If the learner needs no teacher.
        """
        raise NotImplementedError(f"the method {self.method.name} has no teacher")

    def parts(self) -> list[list[nn.Parameter]]:
        """Group the parameters whose gradients are clipped together.

        Returns:
            Parameters by network: the gradient norm of each network is limited separately.
        """
        return [list(self.parameters())]

    def supervised(self, name: str, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the loss terms of a network that depend on labels only.

        Args:
            name: Name of the network, used in the names of the terms.
            logits: Shape (B, K, H, W).
            labels: Class indices, int64, shape (B, H, W), 0 to K - 1 or ``IGNORE_INDEX``.

        Returns:
            Weighted terms by name, scalars.
        """
        weights = self.method.loss_weights
        return {
            f"{_TERMS.get(loss, loss)}/{name}": weights[loss] * compute(logits, labels, self.class_weights)
            for loss, compute in losses_of(self.method).items()
        }


def network_input(name: str, batch: Mapping[str, Tensor]) -> Tensor:
    """Select the input of a network from a batch.

    Args:
        name: A modality, or ``fusion``.
        batch: Images by modality, each (B, C, H, W).

    Returns:
        The channels of the modality; for ``fusion`` those of all, in the order of registration. Shape (B, C, H, W).
    """
    return torch.cat([batch[m] for m in MODALITIES.in_order(batch)], dim=1) if name == "fusion" else batch[name]


def whole_input(name: str, batch: Mapping[str, Tensor]) -> Tensor | None:
    """Select the input of a network from the patches of a batch that have all of it.

    Args:
        name: A modality, or ``fusion``.
        batch: As for `network_input`, with ``<m>_there`` where scenes lack a modality.

    Returns:
        The channels, shape (N, C, H, W), a single patch twice; None if no patch has all of them.
    """
    images = network_input(name, batch)
    rows = rows_there(batch, *(MODALITIES.in_order(batch) if name == "fusion" else (name,)))
    if rows is None:
        return images
    return images[rows if len(rows) > 1 else rows.repeat(2)] if len(rows) else None


def rows_there(batch: Mapping[str, Tensor], *modalities: Modality) -> Tensor | None:
    """Find the patches of scenes that have all of some modalities.

    Args:
        batch: ``<m>_there`` of each modality, bool, (B,), in trainings in which scenes lack a modality.
        *modalities: The modalities.

    Returns:
        Numbers of the patches, int64, shape (N,), of this process alone; None if all have them, also those of other
        processes.
    """
    there, of_all = _there(batch, "there", modalities), _there(batch, "there_of_all", modalities)
    if there is None or bool((there if of_all is None else of_all).all()):
        return None
    return there.nonzero()[:, 0]


def number_there(batch: Mapping[str, Tensor], *modalities: Modality) -> int:
    """Count the patches of scenes that have all of some modalities, those of all processes together.

    Networks are passed by all processes or by none, because batch normalisation waits for all of them.

    Args:
        batch: As for `rows_there`: ``<m>_there``, bool, shape (B,).
        *modalities: The modalities, some of which some patches lack.

    Returns:
        The number of patches.
    """
    of_all = _there(batch, "there_of_all", modalities)
    there = _there(batch, "there", modalities) if of_all is None else of_all
    return 0 if there is None else int(there.sum())


def amount_there(batch: Mapping[str, Tensor], *modalities: Modality) -> Tensor | None:
    """Count the patches of scenes that have all of some modalities, those of this process alone.

    Args:
        batch: As for `rows_there`: ``<m>_there``, bool, shape (B,).
        *modalities: The modalities.

    Returns:
        The number of patches, int64, shape (); None in trainings in which no scene lacks one of them.
    """
    there = _there(batch, "there", modalities)
    return None if there is None else there.sum()


def processes_in(batch: Mapping[str, Tensor], modality: Modality) -> int:
    """Count the processes that share a batch of a training in which scenes lack a modality.

    Args:
        batch: As for `rows_there`: ``<m>_there``, bool, shape (B,).
        modality: A modality.

    Returns:
        Number of processes, at least 1; all have the same number of patches.
    """
    of_all = batch.get(f"{modality}_there_of_all")
    return 1 if of_all is None else len(of_all) // len(batch[f"{modality}_there"])


def _there(batch: Mapping[str, Tensor], what: str, modalities: Iterable[Modality]) -> Tensor | None:
    found = [batch[key] for m in modalities if (key := f"{m}_{what}") in batch]
    return torch.stack(found).all(dim=0) if found else None


def partial_rows(batch: Mapping[str, Tensor], modalities: Iterable[Modality]) -> dict[Modality, PresentRows]:
    """Find the patches of each modality that some patches of a batch lack.

    Args:
        batch: As for `rows_there`: ``<m>_there``, bool, shape (B,).
        modalities: The modalities.

    Returns:
        The patches that have it, by modality; without those that all have.
    """
    found = {m: rows_there(batch, m) for m in modalities}
    return {m: PresentRows(rows, number_there(batch, m)) for m, rows in found.items() if rows is not None}


def network_valid(name: str, batch: Mapping[str, Tensor]) -> Tensor:
    """Find where a network has valid input.

    Args:
        name: A modality, or ``fusion``.
        batch: ``<m>_valid`` of each modality, bool, (B, H, W).

    Returns:
        True where the modality is valid; for ``fusion`` where at least one is. Bool, shape (B, H, W).
    """
    if name == "fusion":
        return torch.stack([batch[key] for m in MODALITIES if (key := f"{m}_valid") in batch]).any(dim=0)
    return batch[f"{name}_valid"]


def feature_valid(valid: Tensor, stride: int) -> Tensor:
    """Find the features of which at least half of the pixels are valid.

    Args:
        valid: Valid pixels, bool, shape (B, H, W).
        stride: Pixels per feature.

    Returns:
        Bool, shape (B, H / stride, W / stride).
    """
    return F.avg_pool2d(valid[:, None].float(), stride)[:, 0] >= 0.5


def state_of(module: nn.Module) -> dict[str, Any]:
    """Get the weights of a network in the form that is written to a file.

    Args:
        module: The network.

    Returns:
        Contiguous tensors on the CPU by name.
    """
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
