"""The two kinds of raster that a model can read."""

from __future__ import annotations

from typing import Literal, get_args

Modality = Literal["optical", "elevation"]
"""``optical``: any bands of an image. ``elevation``: a surface model."""

MODALITIES: tuple[Modality, ...] = get_args(Modality)
