"""Rows of a larger batch that another process augments the rest of: all draw for the whole batch, and use their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

AMONG, DRAWN = "among", "drawn"
"""Parameters by which an operation that draws when it is applied finds its own part of the draws, see `Found`."""

_OF_THE_BATCH = ("forward_input_shape", "order")
"""Parameters of Kornia whose first axis is not the image."""


class Found(NamedTuple):
    """Images of this process among those that an operation changes.

    Attributes:
        here: Their rows in the batch of this process, int64.
        among: Their places among all images that the operation changes, int64, same shape.
        drawn: How many images the operation changes.
    """

    here: Tensor
    among: Tensor
    drawn: int

    def of(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Choose the parameters of these images.

        Args:
            parameters: Kornia's parameters by name, drawn for all images that the operation changes; most of shape
                (drawn, ...).

        Returns:
            Those of these images, shape (B, ...); parameters of the whole batch as they are; the attributes `among` and
            `drawn`.
        """
        chosen = {
            name: value[self.among] if _is_by_image(name, value, self.drawn) else value
            for name, value in parameters.items()
        }
        shape = parameters.get("forward_input_shape")
        if shape is not None:
            chosen["forward_input_shape"] = torch.cat([shape.new_tensor([len(self.here)]), shape[1:]])
        if "batch_idx" in chosen:  # the numbers of the images themselves
            own = torch.arange(len(self.here)).to(chosen["batch_idx"])
            chosen["batch_idx"] = own.view(-1, *[1] * (chosen["batch_idx"].ndim - 1)).expand_as(chosen["batch_idx"])
        return {**chosen, AMONG: self.among, DRAWN: torch.tensor(self.drawn)}


class Rows(NamedTuple):
    """Which rows of a larger batch a batch is.

    Attributes:
        own: Their numbers in the larger batch, int64, shape (B,).
        total: Rows of the larger batch.
    """

    own: Tensor
    total: int

    def among(self, chosen: Tensor) -> Found:
        """Find the images of this process among those that an operation changes.

        Args:
            chosen: Rows of the larger batch that the operation changes, int64, ascending, shape (drawn,).

        Returns:
            The images.
        """
        equal = self.own[:, None] == chosen
        here, among = equal.nonzero(as_tuple=True)
        return Found(here, among, len(chosen))


def normal_like(images: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Draw a normal number for each value, on the device of the images.

    Args:
        images: Shape (B, C, H, W).
        parameters: Kornia's parameters; with those of `Found.of`, the draws are those of the whole batch.

    Returns:
        Same shape, dtype and device.
    """
    if AMONG not in parameters:
        return torch.randn_like(images)
    whole = images[:1].expand(int(parameters[DRAWN]), *images.shape[1:])
    return torch.randn_like(whole)[parameters[AMONG].to(images.device)]


def _is_by_image(name: str, value: object, count: int) -> bool:
    return isinstance(value, Tensor) and name not in _OF_THE_BATCH and value.ndim > 0 and len(value) == count
