"""How training patches are drawn around pixels of a class."""

from __future__ import annotations

from typing import Literal

GroupedBy = Literal["scene", "block", "polygon"]
"""What the pixels of a class are grouped by, so that each group is drawn as often as any other."""

BalanceBy = Literal["class"] | GroupedBy
"""``class``: from all pixels of the class, however many lie in one place."""

LEAST_PATCH_PX = 32
"""Shortest side of a patch, px."""
