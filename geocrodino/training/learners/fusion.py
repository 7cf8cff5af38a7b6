"""One network that reads both modalities: the teacher of the rivals, and a rival itself when it must do without one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geocrodino.errors import ConfigError
from geocrodino.models.branch import Branch, build_branch
from geocrodino.models.fusion import MiddleFusion, modality_branch
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import MODALITIES
from geocrodino.training.learners.base import Learner, Shape, Step, Weights, network_input


class FusionLearner(Learner):
    """The method ``fusion``: both modalities in, both needed."""

    coupled = True

    def __init__(
        self, method: MethodSettings, shape: Shape, class_weights: Tensor, weights: Weights | None = None
    ) -> None:
        super().__init__(method, class_weights)
        self.fusion = build_fusion(method, shape, weights)

    def network(self, name: str) -> nn.Module:
        """The fusion network."""
        return self.fusion

    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Cross entropy where either modality is valid."""
        return self.supervised("fusion", self.fusion(network_input("fusion", step.batch)), either_labels(step.batch))


class DropoutLearner(Learner):
    """The method ``dropout``: early fusion, and in a share of the patches one modality is blanked.

    References:
        Neverova et al. (2016). ModDrop: adaptive multi-modal gesture recognition. https://arxiv.org/abs/1501.00102
    """

    coupled = True

    def __init__(
        self, method: MethodSettings, shape: Shape, class_weights: Tensor, weights: Weights | None = None
    ) -> None:
        super().__init__(method, class_weights)
        self.shape = shape
        self.fusion = _early(shape, weights)

    def network(self, name: str) -> nn.Module:
        """What the network is without the other modality: one with the weights of its own channels."""
        return modality_branch(self.fusion, "optical" if name == "optical" else "elevation", self.shape.in_channels)

    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Cross entropy where a modality that was left in is valid."""
        batch = dict(step.batch)
        draw = torch.rand(len(batch["optical"])).to(batch["optical"].device)
        for m, kept in (("optical", draw >= self.method.blank / 2), ("elevation", draw < 1 - self.method.blank / 2)):
            batch[m] = batch[m] * kept[:, None, None, None]
            batch[f"{m}_labels"] = batch[f"{m}_labels"].masked_fill(~kept[:, None, None], IGNORE_INDEX)
        return self.supervised("fusion", self.fusion(network_input("fusion", batch)), either_labels(batch))


def build_fusion(method: MethodSettings, shape: Shape, weights: Weights | None = None) -> Branch | MiddleFusion:
    """The fusion network that a method names."""
    if method.fusion == "early":
        return _early(shape, weights)
    return MiddleFusion(shape.network, shape.in_channels, shape.num_classes, weights=weights)


def either_labels(batch: Mapping[str, Tensor]) -> Tensor:
    """Labels where either modality is valid; both are seen in one geometry, so they agree where both are."""
    return torch.minimum(batch["optical_labels"], batch["elevation_labels"])


def _early(shape: Shape, weights: Weights | None) -> Branch:
    if weights:
        raise ConfigError(
            "encoder_weights: early fusion has one encoder for the bands of both modalities; "
            f"expected no weights, found some for {', '.join(weights)}.\n"
            "Leave encoder_weights out, or take the method fusion with `fusion: middle`."
        )
    channels = sum(shape.in_channels[m] for m in MODALITIES)
    return build_branch(shape.network, channels, shape.num_classes)
