"""Move pixels by matrices: right angles and mirrors exactly, everything else interpolated over valid pixels."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geocrodino.settings.classes import IGNORE_INDEX

_VALID_WEIGHT = 0.5
"""A pixel is valid if valid pixels have more than this share of its interpolation weight."""

_SAME_PX = 1e-3
"""A matrix counts as a turn if it moves every corner to within this distance of the turned corner, px."""


class Layers(NamedTuple):
    """Layers of a batch on one pixel grid.

    Attributes:
        image: Normalised values, float, shape (B, C, H, W), 0 where invalid.
        valid: Whether a pixel holds data, bool, shape (B, H, W).
        labels: Class indices or ``IGNORE_INDEX``, int64, shape (B, H, W).
    """

    image: Tensor
    valid: Tensor
    labels: Tensor


def move(layers: Layers, transform: Tensor) -> tuple[Layers, Tensor]:
    """Move the pixels of each image by its matrix.

    Quarter turns and mirrors move values and never mix them. Everything else is interpolated: images bilinearly over
    valid pixels only, labels by the nearest pixel. A pixel is valid if valid pixels have more than half of its
    interpolation weight.

    Args:
        layers: Layers before the move.
        transform: Source to target pixels (x, y), affine, float64 on the CPU, shape (B, 3, 3).

    Returns:
        Layers of the same shapes and dtypes, where pixels from outside are 0, not valid and ``IGNORE_INDEX``; and the
        matrices, float64, shape (B, 3, 3), with rounding errors removed from turns and mirrors.
    """
    image, valid, labels = layers
    size = image.shape[-2], image.shape[-1]
    turns = _exact_turns(transform, *size)
    transform = torch.where((turns >= 0)[:, None, None], _turn_matrices(*size)[turns.clamp(min=0)], transform)
    if not turns.any():
        return layers, transform
    dtype = torch.promote_types(image.dtype, torch.float32)  # wide enough for exact class indices
    stacked = torch.cat([image.to(dtype), valid[:, None].to(dtype), labels[:, None].to(dtype)], dim=1)
    order = turns.argsort(stable=True)
    ends = torch.bincount(turns + 1, minlength=9).cumsum(0).tolist()
    rows = order.to(image.device)
    for turn, start, end in zip(range(-1, 8), [0, *ends], ends, strict=False):
        if start == end or turn == 0:
            continue
        part = stacked.index_select(0, rows[start:end])
        part = _warp(part, transform[order[start:end]]) if turn < 0 else turned(part, turn)
        stacked.index_copy_(0, rows[start:end], part)
    # Contiguous, because operations of Kornia may take views of it.
    image, valid = stacked[:, :-2].to(image.dtype).contiguous(), stacked[:, -2] > _VALID_WEIGHT
    return Layers(image, valid, stacked[:, -1].to(labels.dtype)), transform


def turned(values: Tensor, turn: int) -> Tensor:
    """Mirror and turn images by right angles, without interpolation.

    Args:
        values: Values, any dtype, shape (..., H, W).
        turn: 0 to 7: from 4 on the columns are mirrored first; then ``turn % 4`` right angles anticlockwise.

    Returns:
        Values of the same dtype, shape (..., H, W), or (..., W, H) after an odd number of right angles.
    """
    return torch.rot90(values.flip(-1) if turn >= 4 else values, turn % 4, (-2, -1))


@lru_cache(maxsize=16)
def _turn_matrices(height: int, width: int) -> Tensor:
    """Matrices (8, 3, 3), float64, that move pixel centres (x, y) as `turned` does."""
    mirror = torch.tensor([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    # A quarter turn moves column x to row width - 1 - x; only square images get quarter turns.
    quarter = torch.tensor([[0.0, 1, 0], [-1, 0, width - 1], [0, 0, 1]], dtype=torch.float64)
    half = torch.tensor([[-1.0, 0, width - 1], [0, -1, height - 1], [0, 0, 1]], dtype=torch.float64)
    identity = torch.eye(3, dtype=torch.float64)
    turns = torch.stack([identity, quarter, half, half @ quarter])
    return torch.cat([turns, turns @ mirror])


def quarter_turn_matrices(turns: Tensor, height: int, width: int) -> Tensor:
    """Look up the matrices of turns by right angles.

    Args:
        turns: Number of anticlockwise right angles, int64 on the CPU, shape (B,), 0 to 3.
        height: Rows of the images, px.
        width: Columns of the images, px.

    Returns:
        Source to target pixels (x, y), float64 on the CPU, shape (B, 3, 3).
    """
    return _turn_matrices(height, width)[turns]


def _exact_turns(transform: Tensor, height: int, width: int) -> Tensor:
    """Number of the turn, 0 to 7, that each matrix equals, int64, shape (B,); -1 if it equals none."""
    right, bottom = width - 1.0, height - 1.0
    corners = transform.new_tensor([[0, right, 0], [0, 0, bottom], [1, 1, 1]])
    distance = (transform[:, None] @ corners - _turn_matrices(height, width) @ corners).abs().amax(dim=(-2, -1))
    if height != width:  # a quarter turn does not fit
        distance[:, 1::2] = torch.inf
    nearest, turn = distance.min(dim=1)
    return turn.masked_fill(nearest > _SAME_PX, -1)


def _warp(stacked: Tensor, transform: Tensor) -> Tensor:
    """Interpolate image, validity and labels, stacked as (B, C + 2, H, W)."""
    height, width = stacked.shape[-2:]
    # affine_grid maps target to source in coordinates from -1 to 1. Inverted in float64 on the CPU, not on the device.
    unit = torch.tensor(
        [[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]], dtype=torch.float64
    )
    backwards = unit @ torch.linalg.inv(transform) @ torch.linalg.inv(unit)
    theta = backwards[:, :2].to(stacked.dtype).to(stacked.device)
    grid = F.affine_grid(theta, [len(stacked), 1, height, width], align_corners=False)
    weight = stacked[:, -2:-1]
    weighted = torch.cat([stacked[:, :-2] * weight, weight], dim=1)
    warped = F.grid_sample(weighted, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    share = warped[:, -1:]
    now_valid = share > _VALID_WEIGHT
    values = torch.where(now_valid, warped[:, :-1] / share.clamp(min=_VALID_WEIGHT), 0.0)
    # Shifted by one, so that the zeros of the padding are not class 0.
    shifted = F.grid_sample(stacked[:, -1:] + 1, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    labels = (shifted.round() - 1).where(shifted > 0.5, float(IGNORE_INDEX))
    return torch.cat([values, now_valid.to(values.dtype), labels], dim=1)
