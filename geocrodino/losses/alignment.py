"""Resampling between two augmented views of the same patch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geocrodino.losses.precision import at_least_float32


def carry(values: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Resample values from the pixels of one view to the pixels of another.

    Each pixel of the target view is moved to the common frame and from there to the source view, where the values are
    read bilinearly.

    Args:
        values: Values in the source view, floating, shape (B, C, H, W).
        source: Transform from the common frame to pixels (x, y) of the source view, shape (B, 3, 3). Whole numbers are
            pixel centres.
        target: The same for the target view.

    Returns:
        The values in the target view, at least float32, shape (B, C, H, W); and a mask that is True where the target
        pixel lies inside the source view, bool, shape (B, H, W). Elsewhere the values are those of the nearest border
        pixel.

    Raises:
        ValueError: If a transform is not of shape (B, 3, 3).

    Examples:
        A target view shifted by one pixel sees the second source pixel first, and then leaves the source view:

        >>> identity = torch.eye(3)[None]
        >>> shift = torch.tensor([[[1.0, 0, -1], [0, 1, 0], [0, 0, 1]]])
        >>> values, seen = carry(torch.tensor([[[[5.0, 7.0]]]]), identity, shift)
        >>> values, seen
        (tensor([[[[7., 7.]]]]), tensor([[[ True, False]]]))
    """
    batch, _, height, width = values.shape
    for transform in (source, target):
        if transform.shape != (batch, 3, 3):
            raise ValueError(f"expected transforms ({batch}, 3, 3), found {tuple(transform.shape)}")
    with torch.autocast(values.device.type, enabled=False):
        wide = at_least_float32(values)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        # float64, so that the inverse of a quarter turn hits pixel centres exactly. MPS has no float64.
        device = torch.device("cpu") if values.device.type == "mps" else values.device
        pixels = torch.stack([columns, rows, torch.ones_like(rows)]).flatten(1).to(device, torch.float64)
        moved = source.to(device).double() @ torch.linalg.inv(target.to(device).double()) @ pixels
        x, y = (moved[:, axis].round(decimals=4).reshape(batch, height, width) for axis in (0, 1))
        seen = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).to(wide)
        carried = F.grid_sample(wide, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return carried, seen.to(wide.device)
