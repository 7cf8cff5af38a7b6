"""What a user can choose for an export."""

from __future__ import annotations

from typing import Literal, get_args

ExportFormat = Literal["onnx", "torch"]
"""Format of an exported network: ONNX, or a program of ``torch.export``."""

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

TILE_PX = 1024
"""Height and width of a tile, px, if the user names none; as in a prediction."""
