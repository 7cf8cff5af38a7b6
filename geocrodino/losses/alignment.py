"""Values of one view as another view of the same ground sees them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geocrodino.losses.precision import at_least_float32


def carry(values: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Look up the values of one view at the pixels of another.

    Args:
        values: Seen in the source view, shape (B, C, H, W).
        source: From the common frame to pixels (x, y) of the source view, at centres, shape (B, 3, 3).
        target: The same for the target view.

    Returns:
        Values in the target view, bilinear, at least float32, shape (B, C, H, W), and whether a pixel of the
        target view lies within the source view, bool, shape (B, H, W).

    Raises:
        ValueError: If the shapes do not fit.
    """
    batch, _, height, width = values.shape
    for transform in (source, target):
        if transform.shape != (batch, 3, 3):
            raise ValueError(f"expected transforms ({batch}, 3, 3), found {tuple(transform.shape)}")
    with torch.autocast(values.device.type, enabled=False):
        wide = at_least_float32(values)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        # In double, which not every device has: the inverse of a quarter turn must hit the centres exactly.
        device = torch.device("cpu") if values.device.type == "mps" else values.device
        pixels = torch.stack([columns, rows, torch.ones_like(rows)]).flatten(1).to(device, torch.float64)
        moved = source.to(device).double() @ torch.linalg.inv(target.to(device).double()) @ pixels
        x, y = (moved[:, axis].round(decimals=4).reshape(batch, height, width) for axis in (0, 1))
        seen = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).to(wide)
        carried = F.grid_sample(wide, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return carried, seen.to(wide.device)
