"""Two single-modality networks that are trained together, with a shared auxiliary decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from geocrodino.models.branch import Branch, build_branch
from geocrodino.models.decoders import AuxiliaryDecoder
from geocrodino.models.present_rows import PresentRows
from geocrodino.models.pretrained.state import Pretrained
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.network import NetworkSettings


class CrodinoOutput(NamedTuple):
    """Output of one branch, and of the auxiliary decoder on its invariant half.

    Attributes:
        logits: Class logits, shape (B, K, H, W).
        invariant: Modality-invariant features, shape (B, C, H / stride, W / stride).
        specific: Modality-specific features, same shape.
        auxiliary_logits: Class logits of the auxiliary decoder, shape (B, K, H, W); None without one.
    """

    logits: Tensor
    invariant: Tensor
    specific: Tensor
    auxiliary_logits: Tensor | None


class CroDiNo(nn.Module):
    """A branch for each modality, and the auxiliary decoder, which only training uses.

    Reimplemented from the paper's abstract and the related methods of its authors.

    Args:
        settings: Shape of the branches.
        in_channels: Bands of each modality.
        num_classes: Channels of the logits.
        auxiliary: Whether to create the auxiliary decoder.
        weights: Pretrained encoder weights by modality, see `build_branch`. A modality without an entry starts from
            random weights.

    Attributes:
        branches: The branches by modality.
        auxiliary: The auxiliary decoder, or None.
        stride: Pixels of the input per deepest feature.

    Raises:
        ModelError: If a branch cannot be built with these settings.
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
        weights: Mapping[Modality, Pretrained] | None = None,
    ) -> None:
        super().__init__()
        files = weights or {}
        _check_modalities(in_channels)
        self.settings = settings
        self.stride = settings.stride_px
        self.branches = nn.ModuleDict(
            {
                modality: build_branch(settings, in_channels[modality], num_classes, weights=files.get(modality))
                for modality in MODALITIES.in_order(in_channels)
            }
        )
        self.auxiliary = AuxiliaryDecoder(settings.invariant_channels, num_classes, self.stride) if auxiliary else None

    def branch(self, modality: Modality) -> Branch:
        """Get the network of one modality, as it is deployed.

        Args:
            modality: One of those the network was created with.

        Returns:
            The branch itself, not a copy.
        """
        return cast(Branch, self.branches[modality])

    def forward(
        self, images: Mapping[Modality, Tensor], rows: Mapping[Modality, PresentRows] | None = None
    ) -> dict[Modality, CrodinoOutput]:
        """Pass the images of each given modality through its branch.

        Args:
            images: Normalised images of any of the modalities, each (B, C, H, W) with H and W multiples of ``stride``.
            rows: The images that are there, by modality. The others do not pass through the branch, so neither its
                batch normalisation nor its gradients know them. A modality without an entry has all.

        Returns:
            The output of each given modality; 0 for images that are not there.

        Raises:
            ValueError: If a modality is unknown or has no branch, or an image's shape does not fit.
        """
        _check_modalities(images)
        unknown = [m for m in images if m not in self.branches]
        if unknown:
            raise ValueError(f"no branch for {', '.join(unknown)}: this network has {', '.join(self.branches)}")
        outputs: dict[Modality, CrodinoOutput] = {}
        for modality, image in images.items():
            there = None if rows is None else rows.get(modality)
            outputs[modality] = (
                self._pass(modality, image) if there is None else self._pass_some(modality, image, there)
            )
        return outputs

    def _pass(self, modality: Modality, image: Tensor) -> CrodinoOutput:
        logits, invariant, specific = self.branch(modality).forward_features(image)
        auxiliary = None if self.auxiliary is None else self.auxiliary(invariant)
        return CrodinoOutput(logits, invariant, specific, auxiliary)

    def _pass_some(self, modality: Modality, image: Tensor, rows: PresentRows) -> CrodinoOutput:
        """Pass the images that are there, and put their outputs in their places among zeros."""
        if not rows.total:
            return self._nothing(modality, image)
        found, numbers = self._pass(modality, image[rows.passed]), rows.numbers
        logits, invariant, specific = (_placed(value, numbers, len(image)) for value in found[:3])
        auxiliary = None if found.auxiliary_logits is None else _placed(found.auxiliary_logits, numbers, len(image))
        return CrodinoOutput(logits, invariant, specific, auxiliary)

    def _nothing(self, modality: Modality, image: Tensor) -> CrodinoOutput:
        """The output of a branch that has no image: zeros without a gradient."""
        (batch, _, height, width), branch = image.shape, self.branch(modality)
        logits = image.new_zeros(batch, branch.num_classes, height, width)
        shape = (batch, self.settings.invariant_channels, height // self.stride, width // self.stride)
        features = image.new_zeros(shape)
        return CrodinoOutput(logits, features, features, None if self.auxiliary is None else logits)


def _placed(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Put the first values into their rows of a batch, among zeros."""
    return torch.index_copy(values.new_zeros(count, *values.shape[1:]), 0, rows, values[: len(rows)])


def _check_modalities(given: Mapping[Modality, object]) -> None:
    unknown = [m for m in given if m not in MODALITIES]
    if unknown or not given:
        found = ", ".join(str(m) for m in given) or "none"
        raise ValueError(f"expected one or both of {', '.join(MODALITIES)}, found {found}")
