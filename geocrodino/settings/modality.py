"""The two kinds of raster that a model can read, and the channels that are made from heights."""

from __future__ import annotations

from typing import Literal, get_args

Modality = Literal["optical", "elevation"]
"""``optical``: any bands of an image. ``elevation``: a surface model."""

MODALITIES: tuple[Modality, ...] = get_args(Modality)

HeightChannel = Literal["height_above_ground", "topographic_position", "height", "slope"]
"""``height_above_ground`` (m, compressed by the logarithm), ``topographic_position`` (m, the ground against the ground
around it, compressed), ``height`` (m, absolute), ``slope`` (degrees)."""
