"""``training.workers: auto``: reading processes where reading would keep the device waiting."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import torch

from geocrodino.data.datamodule import CoregisteredDataModule
from geocrodino.settings.config import TrainingConfig
from geocrodino.training import number_format
from geocrodino.training.devices import processes_of

_BATCHES = 8
"""Batches that are read for a measurement."""

_SECONDS = 1.0
"""Seconds after which no further batch is read."""

_WORTH = 0.05
"""Share of a step that reading may take before it is worth a process of its own."""


def reading_time(data: CoregisteredDataModule) -> float:
    """Measure how long it takes to read a batch in this process. Draws of the training stay as they are.

    Args:
        data: Its batches, without reading processes.

    Returns:
        Mean duration of a batch, s.
    """
    batches = iter(data.train_dataloader())
    next(batches)  # opens files
    started, count = time.monotonic(), 0
    for _ in islice(batches, _BATCHES):
        count += 1
        if time.monotonic() - started > _SECONDS:
            break
    return (time.monotonic() - started) / max(count, 1)


def readers_for(reading_s: float, step_s: float, spare: int) -> int:
    """Choose the number of reading processes.

    Args:
        reading_s: Duration of reading a batch, s.
        step_s: Duration of a step with reading, s.
        spare: Processor cores that do not compute.

    Returns:
        0 if reading takes at most a twentieth of a step. Else so many that they read a batch while another is computed,
        at most ``spare``.

    Examples:
        Reading 30 ms, computing 10 ms: three processes keep up.

        >>> readers_for(0.030, 0.040, spare=8)
        3
    """
    if reading_s <= _WORTH * step_s:
        return 0
    computing = max(step_s - reading_s, 1e-4)
    return min(math.ceil(round(reading_s / computing, 6)), spare)


def spare_cores(settings: TrainingConfig) -> int:
    """Count the processor cores that each process of a training has for reading.

    Args:
        settings: Device and number of processes.

    Returns:
        Beside a GPU: its share of the cores but one. On a CPU: the cores that no thread computes on.
    """
    cores = os.cpu_count() or 1
    if number_format.device_of(settings.accelerator).type == "cpu":
        return max(0, cores - torch.get_num_threads())
    return max(0, cores // processes_of(settings) - 1)


def choose_readers(
    settings: TrainingConfig, step_s: float, data: CoregisteredDataModule, tell: Callable[[str], None]
) -> None:
    """Read batches in as many processes as the device needs to be fed.

    Args:
        settings: Device and number of processes.
        step_s: Duration of a step with reading, s.
        data: Its batches; its plan is changed.
        tell: Called with a line for the user.
    """
    reading = reading_time(data)
    count = readers_for(reading, step_s, spare_cores(settings))
    data.plan = replace(data.plan, workers=count)
    tell(describe_readers(reading, step_s, count))


def describe_readers(reading_s: float, step_s: float, count: int) -> str:
    """Describe the choice for the user.

    Args:
        reading_s: Duration of reading a batch, s.
        step_s: Duration of a step with reading, s.
        count: The chosen number of processes.

    Returns:
        One line.
    """
    how = "in the training process" if count == 0 else f"{count} reading process{'es' if count > 1 else ''}"
    return f"Reading: {1000 * reading_s:.1f} ms of a step of {1000 * step_s:.0f} ms; {how}."
