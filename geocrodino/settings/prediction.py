"""The words that a prediction is asked for with, apart from it: the help of the program needs no heavy library."""

from __future__ import annotations

from typing import Literal

Wanted = str
"""Which modalities: the name of one, ``both`` (an image and a surface model), or ``auto`` (what the rasters are)."""

Stitch = Literal["auto", "exact", "blend"]
"""``exact``: the result of one pass. ``blend``: neighbouring tiles are mixed. ``auto``: exact where the network sees at
most 256 px to each side."""

BackendName = Literal["auto", "torch", "openvino"]
"""``auto``: OpenVINO on the CPU where it is installed, PyTorch otherwise."""

PROCESSES = "processes"
"""Name of the scheduler that is a cluster of processes on this machine."""

Precision = Literal["auto", "full", "half"]
"""``full``: float32. ``half``: bfloat16 on CPUs that have it, float16 on CUDA GPUs of capability 7.0 or newer; it saves
time and changes some pixels. ``auto``: float16 on such a GPU where probabilities of a small tile differ by at most
0.02, else float32."""
