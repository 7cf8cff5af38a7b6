"""How classes are weighted in the loss."""

from __future__ import annotations

from typing import Literal

ClassWeightRule = Literal["power", "effective", "median"]
"""``power``: a power of the inverse frequency; ``effective``: the effective number of pixels; ``median``: the median
frequency over that of the class, in the scenes that have it."""
