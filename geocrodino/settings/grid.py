"""Names in the settings of a working grid."""

from __future__ import annotations

from typing import Literal

GridOf = Literal["image", "labels"]
"""Raster whose pixel edges a working grid keeps: that of the first modality, or the labels."""
