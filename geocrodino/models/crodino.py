"""Two single-modality networks learned together, with one auxiliary decoder between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from torch import Tensor, nn

from geocrodino.models.branch import Branch, build_branch
from geocrodino.models.decoders import AuxiliaryDecoder
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.network import NetworkSettings


class CrodinoOutput(NamedTuple):
    """What one branch says, and the auxiliary decoder's reading of its invariant half.

    Attributes:
        logits: Shape (B, K, H, W).
        invariant: Modality-invariant features, shape (B, C, H / stride, W / stride).
        specific: Modality-specific features, same shape.
        auxiliary_logits: Shape (B, K, H, W), or None where the auxiliary decoder is left out.
    """

    logits: Tensor
    invariant: Tensor
    specific: Tensor
    auxiliary_logits: Tensor | None


class CroDiNo(nn.Module):
    """Branches of both modalities and the auxiliary decoder that only training needs.

    Rebuilt from the paper's abstract and the authors' sibling methods.

    Args:
        settings: Shape of both branches.
        in_channels: Bands of each modality.
        num_classes: Channels of the logits.
        auxiliary: Whether to have the auxiliary decoder.
        weights: Local encoder weights by modality, see ``build_branch``; a modality left out starts at random.

    Raises:
        ModelError: If a branch cannot be built as asked.
        ValueError: If a modality is unknown or none is given.

    References:
        Ferrod et al. (2025). Revisiting cross-modal knowledge distillation: a disentanglement approach for RGBD
        semantic segmentation. https://arxiv.org/abs/2505.24361
    """

    def __init__(
        self,
        settings: NetworkSettings,
        in_channels: Mapping[Modality, int],
        num_classes: int,
        *,
        auxiliary: bool = True,
        weights: Mapping[Modality, Path] | None = None,
    ) -> None:
        super().__init__()
        files = weights or {}
        _check_modalities(in_channels)
        self.settings = settings
        self.stride = settings.stride_px
        self.branches = nn.ModuleDict(
            {
                modality: build_branch(settings, in_channels[modality], num_classes, weights=files.get(modality))
                for modality in MODALITIES
                if modality in in_channels
            }
        )
        self.auxiliary = AuxiliaryDecoder(settings.invariant_channels, num_classes, self.stride) if auxiliary else None

    def branch(self, modality: Modality) -> Branch:
        """The network of one modality, as it is deployed."""
        return cast(Branch, self.branches[modality])

    def forward(self, images: Mapping[Modality, Tensor]) -> dict[Modality, CrodinoOutput]:
        """Run every modality that is there through its own branch.

        Args:
            images: Normalised images by modality, each (B, C, H, W). One modality alone will do.

        Raises:
            ValueError: If a modality has no branch, or an image's shape does not fit.
        """
        _check_modalities(images)
        unknown = [m for m in images if m not in self.branches]
        if unknown:
            raise ValueError(f"no branch for {', '.join(unknown)}: this network has {', '.join(self.branches)}")
        outputs: dict[Modality, CrodinoOutput] = {}
        for modality, image in images.items():
            logits, invariant, specific = self.branch(modality).forward_features(image)
            auxiliary = None if self.auxiliary is None else self.auxiliary(invariant)
            outputs[modality] = CrodinoOutput(logits, invariant, specific, auxiliary)
        return outputs


def _check_modalities(given: Mapping[Modality, object]) -> None:
    unknown = [m for m in given if m not in MODALITIES]
    if unknown or not given:
        found = ", ".join(str(m) for m in given) or "none"
        raise ValueError(f"expected one or both of {', '.join(MODALITIES)}, found {found}")
