"""What all data sets of plain pictures share."""

from __future__ import annotations

PLAIN_PIXEL_M = 0.01
"""Pixel size that is stated for pictures, m."""

PLAIN_NOTE = (
    "Pictures have no pixel size on the ground. 0.01 m is stated for all, so that slopes are a measure of steepness in "
    "the picture."
)
