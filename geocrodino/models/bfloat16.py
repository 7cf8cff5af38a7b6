"""Which devices multiply bfloat16 in hardware.

On other devices PyTorch converts every value to float32 and back, which takes several times as long as float32 alone.
"""

from __future__ import annotations

import torch

_CUDA_CAPABILITY = (8, 0)
"""Ampere, the first generation of NVIDIA GPUs with bfloat16."""


def has_bfloat16(device: torch.device) -> bool:
    """Check whether a device multiplies bfloat16 in hardware.

    Args:
        device: A CPU or GPU of this machine.

    Returns:
        True for a CPU with AVX-512 BF16 or AMX, and for a CUDA GPU of compute capability 8.0 or newer.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _CUDA_CAPABILITY
    return device.type == "cpu" and _cpu_has_bfloat16()


def _cpu_has_bfloat16() -> bool:
    known = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile"))
    return _onednn_has_bfloat16() and any(test is not None and test() for test in known)


def _onednn_has_bfloat16() -> bool:
    """Whether oneDNN, which PyTorch multiplies with on CPUs, may use bfloat16: ``ONEDNN_MAX_CPU_ISA`` can forbid it."""
    if not torch.backends.mkldnn.is_available():
        return False
    test = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return test is None or bool(test())
