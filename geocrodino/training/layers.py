"""``training.layers``: whether training patches are read from files, or cut from layers in the memory of the device."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import torch

from geocrodino.data.alignment import readable_size
from geocrodino.data.on_device import LayersOnDevice, bytes_on_device
from geocrodino.errors import ConfigError
from geocrodino.settings.config import TrainConfig, TrainingConfig
from geocrodino.training import number_format
from geocrodino.training.checked import CheckedInputs
from geocrodino.training.devices import processes_of

_SHARE_OF_AUTO = 0.25
"""Share of the free memory that layers may take with `auto`: networks and batches need the rest."""

_LARGEST_SHARE = 0.75
"""The same with `device`."""


def layers_on_device(
    config: TrainConfig, found: CheckedInputs, tell: Callable[[str], None] = lambda _: None
) -> LayersOnDevice | None:
    """Decide where training patches come from.

    Args:
        config: The configuration.
        found: Inputs of the training.
        tell: Called with a line for the user, unless patches are read from files as the settings or a CPU have it.

    Returns:
        The layers that are to be loaded on the device; None: patches are read from files.

    Raises:
        ConfigError: With ``device``, if the layers take more than three quarters of the free memory.
    """
    settings = config.training
    kind = number_format.device_of(settings.accelerator).type
    if settings.layers == "disk" or (settings.layers == "auto" and kind == "cpu"):
        return None
    splits = {"train", "unlabelled"} if config.learns_from_unlabelled else {"train"}
    used = [scene for scene in found.scenes if scene.inside]
    chosen = {
        number: bytes_on_device(scene.grid.shape, [len(found.recipes[m].channel_names) for m in scene.sources.rasters])
        for number, scene in enumerate(used)
        if any(scene.inside[split].any() for split in splits & scene.inside.keys())
    }
    size, free = sum(chosen.values()), free_memory(settings)
    if settings.layers == "auto":
        if settings.workers not in (0, "auto") or size > _SHARE_OF_AUTO * free:
            tell(describe_layers(settings, size, free, on_device=False))
            return None
    elif size > _LARGEST_SHARE * free:
        raise ConfigError(
            f"training.layers: expected layers of at most {readable_size(int(_LARGEST_SHARE * free))}, three quarters "
            f"of the {readable_size(free)} that are free {_where(settings)}; found layers of {readable_size(size)}.\n"
            "Use `training.layers='disk'`, which reads patches from files."
        )
    tell(describe_layers(settings, size, free, on_device=True))
    return LayersOnDevice(chosen)


def free_memory(settings: TrainingConfig) -> int:
    """Find how much memory of a device is free.

    Args:
        settings: Names the device, and how many processes there are.

    Returns:
        Bytes on the first GPU; without one, what is free on this machine, divided among the processes.
    """
    device = number_format.device_of(settings.accelerator)
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, of earlier work
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    return int(psutil.virtual_memory().available / processes_of(settings))


def describe_layers(settings: TrainingConfig, size: int, free: int, *, on_device: bool) -> str:
    """Describe for the user where training patches come from.

    Args:
        settings: Settings of the training.
        size: Bytes that the layers take on a device.
        free: Bytes that are free there.
        on_device: Whether they are loaded.

    Returns:
        One line.
    """
    amount = f"{readable_size(size)} of the {readable_size(free)} that are free {_where(settings)}"
    if on_device:
        return f"Patches: cut from layers in memory, {amount}."
    if settings.workers not in (0, "auto"):
        return f"Patches: read from files, as training.workers asks; layers in memory would take {amount}."
    return f"Patches: read from files; layers in memory would take {amount}, more than a quarter."


def _where(settings: TrainingConfig) -> str:
    """The place of the memory, and for how many processes it is."""
    count = processes_of(settings)
    is_gpu = number_format.device_of(settings.accelerator).type == "cuda"
    place = f"on {number_format.device_name(settings.accelerator)}" if is_gpu else "on this machine"
    return place if count == 1 else f"{place} for each of {count} processes"
