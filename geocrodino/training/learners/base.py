"""What the training loop knows of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocrodino.losses.segmentation import cross_entropy, dice_loss
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.network import NetworkSettings

Weights = Mapping[Modality, Path]
"""Local encoder weights by modality; one left out starts at random."""


@dataclass(frozen=True)
class Step:
    """One step of the training.

    Attributes:
        batch: Augmented: for each modality ``m``, ``<m>_labels``, ``<m>_valid`` and ``<m>_transform``.
        source: The same patches before augmentation.
        progress: Share of the training that is done, 0 to 1.
    """

    batch: Mapping[str, Tensor]
    source: Mapping[str, Tensor]
    progress: float


@dataclass(frozen=True)
class Shape:
    """What all networks of a training have in common.

    Attributes:
        network: Settings of a branch.
        in_channels: Channels of each modality.
        num_classes: Classes.
    """

    network: NetworkSettings
    in_channels: Mapping[Modality, int]
    num_classes: int


class Learner(nn.Module, ABC):
    """Networks that are trained together, and the loss terms of a batch.

    Attributes:
        method: Terms and weights.
        coupled: Whether both modalities must be seen in one geometry.
        class_weights: Weight of each class in the cross entropy, shape (K,).
    """

    coupled = False

    def __init__(self, method: MethodSettings, class_weights: Tensor) -> None:
        super().__init__()
        self.method = method
        self.class_weights: Tensor
        self.register_buffer("class_weights", class_weights, persistent=False)

    @abstractmethod
    def network(self, name: str) -> nn.Module:
        """The network of a modality as it is used later, or of ``fusion``; maps `network_input` to logits."""

    @abstractmethod
    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Weighted loss terms by name, scalars; their sum is the loss.

        Args:
            step: The batch.
            average: This learner with averaged weights, in evaluation mode; itself where nothing is averaged.
        """

    def parts(self) -> list[list[nn.Parameter]]:
        """Parameters by network: the gradient of each has a limit of its own."""
        return [list(self.parameters())]

    def supervised(self, name: str, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of a network that labels alone decide."""
        method = self.method
        terms = {f"segmentation/{name}": cross_entropy(logits, labels, self.class_weights, method.label_smoothing)}
        if method.dice:
            terms[f"dice/{name}"] = method.dice * dice_loss(logits, labels)
        return terms


def network_input(name: str, batch: Mapping[str, Tensor]) -> Tensor:
    """What a network reads: the channels of its modality, or those of both, optical first, for ``fusion``."""
    return torch.cat([batch[m] for m in MODALITIES], dim=1) if name == "fusion" else batch[name]


def network_valid(name: str, batch: Mapping[str, Tensor]) -> Tensor:
    """Where a network has something to read: where its modality is valid, for ``fusion`` where either is."""
    if name == "fusion":
        return batch["optical_valid"] | batch["elevation_valid"]
    return batch[f"{name}_valid"]


def feature_valid(valid: Tensor, stride: int) -> Tensor:
    """Features of which at least half of the pixels are valid; bool (B, H, W) to (B, H / stride, W / stride)."""
    return F.avg_pool2d(valid[:, None].float(), stride)[:, 0] >= 0.5


def state_of(module: nn.Module) -> dict[str, Any]:
    """Weights as they go into a file."""
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
