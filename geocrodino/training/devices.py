"""How many processes share a batch, each with a device of its own."""

from __future__ import annotations

import os

import torch

from geocrodino.errors import ConfigError
from geocrodino.settings.config import TrainConfig, TrainingConfig
from geocrodino.training import number_format
from geocrodino.training.companions import threads_each


def with_devices(config: TrainConfig) -> TrainConfig:
    """Replace ``training.devices: auto`` by the number that it stands for here, and check the number.

    Args:
        config: The configuration.

    Returns:
        The configuration with a number of processes.

    Raises:
        ConfigError: If there are not so many devices, or a batch cannot be divided among them.
    """
    settings = config.training
    device = number_format.device_of(settings.accelerator).type
    if device == "cpu" and settings.accelerator in {"gpu", "cuda", "mps"}:
        raise ConfigError(
            f"training.accelerator: expected a device of this machine, found {settings.accelerator}, and PyTorch sees "
            "no GPU that it can use.\nUse `training.accelerator='auto'`."
        )
    there = _devices_of(device)
    if settings.devices == "auto":
        found = there if device == "cuda" else 1
        size = settings.batch_size
        if isinstance(size, int):  # the most devices among which a batch can be divided
            found = max(count for count in range(1, found + 1) if size % count == 0)
        settings = settings.model_copy(update={"devices": found})
        return config.model_copy(update={"training": settings})
    _check(settings, settings.devices, device, there)
    return config


def _devices_of(device: str) -> int:
    if device == "cuda":
        return torch.cuda.device_count()
    return 1 if device == "mps" else os.cpu_count() or 1


def _check(settings: TrainingConfig, count: int, device: str, there: int) -> None:
    what = {"cuda": "GPUs", "mps": "GPUs"}.get(device, "processor cores")
    if count > there:
        raise ConfigError(
            f"training.devices: expected at most {there}, the number of {what} here, found {count}. "
            "Use `training.devices='auto'`."
        )
    size = settings.batch_size
    if isinstance(size, int) and size % count:
        near = [number for number in (size - size % count, size + count - size % count) if number >= count]
        raise ConfigError(
            f"training.batch_size: {size} patches cannot be divided among {count} devices evenly. Use "
            f"{' or '.join(map(str, near))}, or another `training.devices`."
        )


def processes_of(settings: TrainingConfig) -> int:
    """Get the number of processes that share a batch.

    Args:
        settings: Settings of a training, see `with_devices`.

    Returns:
        The number, at least 1.
    """
    return settings.devices if isinstance(settings.devices, int) else 1


def describe_devices(settings: TrainingConfig) -> str:
    """Describe how a batch is computed, where it is not computed at once by one process.

    Args:
        settings: Settings of a training.

    Returns:
        A line for the user; empty for a single process that computes a batch at once.
    """
    count, passes = processes_of(settings), settings.accumulate
    if count * passes == 1:
        return ""
    words = []
    if count > 1:
        device = number_format.device_of(settings.accelerator).type
        threads = threads_each(count)
        each = (
            f"{count} GPUs"
            if device == "cuda"
            else f"{count} processes of {threads} thread{'s' if threads > 1 else ''}"
        )
        words.append(f"divided among {each}")
    if passes > 1:
        each = "" if settings.needs_batch_size else f" of {settings.patches // passes}"
        words.append(f"computed in {passes} passes{each}")
    held = "" if settings.needs_batch_size else f"{settings.patches} patches with labels, "
    return f"Each step: {held}{', and '.join(words)}."
