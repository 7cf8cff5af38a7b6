"""The words that a prediction is asked for with, apart from it: the help of the program needs no heavy library."""

from __future__ import annotations

from typing import Literal

Wanted = Literal["optical", "elevation", "both", "auto"]
"""Which modalities. ``both``: an image and a surface model. ``auto``: what the rasters are."""

Stitch = Literal["auto", "exact", "blend"]
"""``exact``: the result of one pass. ``blend``: neighbouring tiles are mixed. ``auto``: exact where it is possible."""

BackendName = Literal["auto", "torch", "openvino"]
"""``auto``: OpenVINO on the CPU where it is installed, PyTorch otherwise."""

Precision = Literal["auto", "full", "half"]
"""``full``: 32-bit floats. ``half``: 16-bit ones where the processor has them, which change some pixels and save time.
``auto``: half on a GPU, full elsewhere."""
