"""Networks that read all modalities: the teacher of other methods, and modality dropout."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geocrodino.errors import ConfigError
from geocrodino.losses.segmentation import labelled_weight
from geocrodino.models.branch import Branch, build_branch
from geocrodino.models.fusion import MiddleFusion, modality_branch
from geocrodino.models.pretrained.state import Origin
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import MODALITIES
from geocrodino.training.learners.base import WEIGHTED_TERMS, Learner, Shape, Step, Weights, network_input, partial_rows


class FusionLearner(Learner):
    """The method ``fusion``: one network that needs all modalities.

    Args:
        method: Terms and weights of the method.
        shape: Sizes of the network.
        class_weights: Weight of each class in the cross entropy, shape (K,).
        weights: Pretrained encoder weights by modality.

    Raises:
        ModelError: If the network cannot be built with these settings.
        ConfigError: If ``weights`` differ between the modalities for early fusion.
    """

    coupled = True
    has_branches = False
    deploys = "network"

    def __init__(
        self, method: MethodSettings, shape: Shape, class_weights: Tensor, weights: Weights | None = None
    ) -> None:
        super().__init__(method, class_weights, shape.in_channels)
        self.fusion = build_fusion(method, shape, weights)

    @property
    def network_names(self) -> tuple[str, ...]:
        """The only network."""
        return ("fusion",)

    def network(self, name: str) -> nn.Module:
        """Get the fusion network.

        Args:
            name: ``fusion``.

        Returns:
            The network.
        """
        return self.fusion

    def amounts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute what the cross entropy and the focal loss divide by.

        Args:
            batch: Augmented patches, see `Step`.

        Returns:
            Labelled pixels where at least one modality is valid, weighted, a scalar >= 0.
        """
        amount = labelled_weight(either_labels(batch), self.class_weights)
        return {f"{term}/fusion": amount for term in WEIGHTED_TERMS}

    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Compute the supervised terms where at least one modality is valid.

        Args:
            step: The batch.
            average: Not used.

        Returns:
            Weighted terms by name, each a scalar. Their sum is the loss.
        """
        images, rows = network_input("fusion", step.batch), partial_rows(step.batch, self.modalities)
        # With one encoder for all bands a modality that is missing is a few of its bands, which are 0.
        some = bool(rows) and isinstance(self.fusion, MiddleFusion)
        logits = self.fusion(images, rows) if some else self.fusion(images)
        return self.supervised("fusion", logits, either_labels(step.batch))


class DropoutLearner(Learner):
    """The method ``dropout``: early fusion, where in a share of the patches one modality is blanked.

    Args:
        method: Terms and weights of the method.
        shape: Sizes of the network.
        class_weights: Weight of each class in the cross entropy, shape (K,).
        weights: Pretrained encoder weights, the same for all modalities: there is one encoder.

    Raises:
        ModelError: If the network cannot be built with these settings.
        ConfigError: If ``weights`` differ between the modalities.

    References:
        Neverova et al. (2016). ModDrop: adaptive multi-modal gesture recognition. https://arxiv.org/abs/1501.00102
    """

    coupled = True
    has_branches = False

    def __init__(
        self, method: MethodSettings, shape: Shape, class_weights: Tensor, weights: Weights | None = None
    ) -> None:
        super().__init__(method, class_weights, shape.in_channels)
        self.shape = shape
        self.fusion = _early(shape, weights)

    def network(self, name: str) -> nn.Module:
        """Cut the network down to one modality.

        Args:
            name: A modality.

        Returns:
            A network with its own copy of the weights. It computes the same as the whole one with the others blanked.

        Raises:
            ModelError: If the encoder cannot be cut down, see `modality_branch`.
        """
        return modality_branch(self.fusion, name, self.shape.in_channels)

    def amounts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give no amounts: which modalities are blanked is drawn later.

        Args:
            batch: Not used.

        Returns:
            An empty dict, in place of scalars of shape ().
        """
        return {}

    def losses(self, step: Step, average: Learner) -> dict[str, Tensor]:
        """Compute the supervised terms where a modality that was not blanked is valid.

        Args:
            step: The batch.
            average: Not used.

        Returns:
            Weighted terms by name, each a scalar. Their sum is the loss.
        """
        batch = dict(step.batch)
        first = batch[self.modalities[0]]
        draw = torch.rand(len(first)).to(first.device)
        share = self.method.blank / len(self.modalities)
        for index, m in enumerate(self.modalities):
            kept = ~_blanked(draw, index, len(self.modalities), share)
            batch[m] = batch[m] * kept[:, None, None, None]
            batch[f"{m}_labels"] = batch[f"{m}_labels"].masked_fill(~kept[:, None, None], IGNORE_INDEX)
        return self.supervised("fusion", self.fusion(network_input("fusion", batch)), either_labels(batch))


def build_fusion(method: MethodSettings, shape: Shape, weights: Weights | None = None) -> Branch | MiddleFusion:
    """Build the fusion network that a method uses.

    Args:
        method: Names ``early`` or ``middle`` fusion.
        shape: Sizes of the network.
        weights: Pretrained encoder weights by modality; for early fusion the same for all.

    Returns:
        The network, with initial weights.

    Raises:
        ModelError: If the network cannot be built with these settings.
        ConfigError: If ``weights`` differ between the modalities for early fusion.
    """
    if method.fusion == "early":
        return _early(shape, weights)
    return MiddleFusion(shape.network, shape.in_channels, shape.num_classes, weights=weights)


def either_labels(batch: Mapping[str, Tensor]) -> Tensor:
    """Merge the labels of all modalities in a common geometry: labelled where at least one modality is valid.

    Args:
        batch: For each modality ``m``: ``<m>_labels``, int64, (B, H, W), ``IGNORE_INDEX`` where it is not valid. They
            agree where several are labelled.

    Returns:
        Class indices or ``IGNORE_INDEX``, int64, shape (B, H, W).
    """
    return torch.stack([batch[key] for m in MODALITIES if (key := f"{m}_labels") in batch]).amin(dim=0)


def _early(shape: Shape, weights: Weights | None) -> Branch:
    found = weights or {}
    origins = {m: found[m].origin if m in found else Origin() for m in shape.in_channels}
    if len(set(origins.values())) > 1:
        raise ConfigError(
            "encoder_weights: early fusion has one encoder for the bands of all modalities; expected the same weights "
            f"for all, found {', '.join(f'{origin} for {m}' for m, origin in origins.items())}.\n"
            "Name one for all, such as imagenet or random, or use the method fusion with `fusion: middle`."
        )
    start = next(iter(found.values()), None)
    return build_branch(shape.network, sum(shape.in_channels.values()), shape.num_classes, weights=start)


def _blanked(draw: Tensor, index: int, count: int, share: float) -> Tensor:
    """Patches in which a modality is blanked: those whose draw lies in its own part of 0 to 1."""
    if index == 0:
        return draw < share
    start = 1 - (count - index) * share
    return (draw >= start) & (draw < 1 - (count - index - 1) * share)
