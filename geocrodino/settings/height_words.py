"""Words for the coding of heights; this module imports no heavy library, so that the help of the program is quick."""

from __future__ import annotations

from typing import Literal

HeightEncoding = Literal["float16"]
"""How stored numbers hold heights. float16: whole numbers of 16 bits are the bits of half-precision numbers."""

HeightZero = Literal["sea", "ground", "camera"]
"""Where heights are 0. sea: a surface model; ground: heights above ground; camera: distances from the camera."""
