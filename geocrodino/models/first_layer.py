"""The first layer of a pretrained encoder for another number of bands."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geocrodino.settings.encoder_weights import FirstLayer


def first_layer(kernel: Tensor, in_channels: int, rule: FirstLayer, initial: Callable[[], Tensor]) -> Tensor:
    """Adapt the kernel of a first convolution to the bands of a network's input.

    With ``repeat`` and ``mean``, an image whose bands are all alike gives the same output as before, so the following
    layers see values of the size that they were trained for.

    - ``repeat`` is timm's rule. The bands of the kernel are repeated in order until there are enough, and multiplied by
      (its bands / bands of the input). For one band they are added up. For the same number of bands nothing changes.
    - ``mean`` gives each band the mean of the kernel's bands, multiplied by the same factor. It changes the kernel for
      the same number of bands too, and suits rasters whose bands are not red, green and blue.
    - ``random`` keeps the kernel that a network without pretrained weights starts from.

    Args:
        kernel: The pretrained kernel, shape (out, bands, height, width).
        in_channels: Bands of the input, at least 1.
        rule: ``repeat``, ``mean`` or ``random``.
        initial: Draws a random kernel; called for ``random`` only.

    Returns:
        The kernel, shape (out, ``in_channels``, height, width), dtype of ``kernel``.
    """
    if rule == "random":
        return initial()
    bands = kernel.shape[1]
    if in_channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    if rule == "mean":
        return kernel.mean(dim=1, keepdim=True).repeat(1, in_channels, 1, 1) * (bands / in_channels)
    if in_channels == bands:
        return kernel
    return kernel[:, torch.arange(in_channels) % bands] * (bands / in_channels)
