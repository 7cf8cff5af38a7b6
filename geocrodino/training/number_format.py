"""The device of a training, and its number format (Lightning's ``precision``)."""

from __future__ import annotations

import torch

from geocrodino.models.bfloat16 import has_bfloat16


def resolve(precision: str, accelerator: str) -> str:
    """Choose the number format that the device computes fastest.

    For ``auto``, bfloat16 is preferred to float16: it has the range of float32, so nothing overflows and the loss needs
    no scaling.

    Args:
        precision: Lightning's name of a number format, or ``auto``.
        accelerator: Lightning's name of a kind of device, or ``auto``.

    Returns:
        ``precision``; for ``auto``, ``bf16-mixed`` if the device multiplies bfloat16 in hardware, else ``32-true``.
    """
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_bfloat16(device_of(accelerator)) else "32-true"


def describe(precision: str, accelerator: str) -> str:
    """Describe the number format of a training, with a warning if the device computes it slowly.

    Args:
        precision: Lightning's name of a number format.
        accelerator: Lightning's name of a kind of device, or ``auto``.

    Returns:
        A line for the user.
    """
    slow = precision.startswith("bf16") and not has_bfloat16(device_of(accelerator))
    return f"Number format: {precision}" + (
        "; this device has no bfloat16 in hardware, so 32-true would be several times faster" if slow else ""
    )


def device_name(accelerator: str) -> str:
    """Name the device that Lightning chooses, for a user.

    Args:
        accelerator: Lightning's name of a kind of device, or ``auto``.

    Returns:
        The name of the GPU, or the CPU with its number of threads.
    """
    device = device_of(accelerator)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"the CPU ({threads} thread{'s' if threads > 1 else ''})" if device.type == "cpu" else "the GPU"


def device_of(accelerator: str) -> torch.device:
    """Find the device that Lightning chooses for a name.

    Args:
        accelerator: Lightning's name of a kind of device, or ``auto``.

    Returns:
        The device; the CPU for a name that Lightning will refuse.
    """
    if accelerator in {"auto", "gpu", "mps"} and torch.backends.mps.is_available():
        return torch.device("mps")
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("cpu")
