"""The interface between the training loop and a method."""

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
"""Local encoder weights by modality. A modality without an entry starts from random weights."""


@dataclass(frozen=True)
class Step:
    """Input of one training step.

    Attributes:
        batch: Augmented patches. For each modality ``m``: ``<m>`` (B, C, H, W), ``<m>_labels`` (B, H, W), ``<m>_valid``
            (B, H, W) and ``<m>_transform`` (B, 3, 3), from source pixels to augmented pixels.
        source: The same patches before augmentation, with one geometry for both modalities.
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

    Attributes:
        method: Terms and weights of the method.
        coupled: Whether the method needs the same augmented geometry for both modalities.
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
            Scalars by name. Their sum is the loss.
        """

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
        method = self.method
        terms = {f"segmentation/{name}": cross_entropy(logits, labels, self.class_weights, method.label_smoothing)}
        if method.dice:
            terms[f"dice/{name}"] = method.dice * dice_loss(logits, labels)
        return terms


def network_input(name: str, batch: Mapping[str, Tensor]) -> Tensor:
    """Select the input of a network from a batch.

    Args:
        name: A modality, or ``fusion``.
        batch: Images by modality, each (B, C, H, W).

    Returns:
        The channels of the modality; for ``fusion`` those of both, optical first. Shape (B, C, H, W).
    """
    return torch.cat([batch[m] for m in MODALITIES], dim=1) if name == "fusion" else batch[name]


def network_valid(name: str, batch: Mapping[str, Tensor]) -> Tensor:
    """Find where a network has valid input.

    Args:
        name: A modality, or ``fusion``.
        batch: ``<m>_valid`` of each modality, bool, (B, H, W).

    Returns:
        True where the modality is valid; for ``fusion`` where at least one is. Bool, shape (B, H, W).
    """
    if name == "fusion":
        return batch["optical_valid"] | batch["elevation_valid"]
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
