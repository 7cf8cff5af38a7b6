"""``training.batch_size: auto``: as many patches as the memory of the device holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from geocrodino.data.alignment import readable_size
from geocrodino.data.datamodule import CoregisteredDataModule
from geocrodino.settings.config import TrainConfig, TrainingConfig
from geocrodino.training import number_format
from geocrodino.training.devices import processes_of
from geocrodino.training.learners.base import Step
from geocrodino.training.task import TrainingTask

USUAL = 8
"""Patches in a batch for which steps, learning rate and their defaults are meant."""

_FEWEST_STEPS = 10
"""Steps that an epoch keeps if the user names none: with fewer, the weights hardly change between validations."""

_USABLE = {"cuda": 0.85, "cpu": 0.5}
"""Share of the memory that a training may fill: of what is free on a GPU, of all memory of the machine."""

TRIED_PATCHES = 8
"""Patches in the batch whose memory is measured."""

_BESIDE = {"cuda": 1.2, "cpu": 2.0}
"""Factor for what a measurement does not see: on a GPU blocks between others, on a CPU values that live briefly."""

_COPIES = 4
"""Weights, gradients and two moments of the optimiser."""


@dataclass(frozen=True)
class StepMemory:
    """Memory of a training step.

    Attributes:
        fixed: Bytes that do not depend on the number of patches: weights, gradients, moments, averages.
        patch: Bytes of each patch with labels: its values, what the backward pass needs of it, and its share of the
            patches without.
    """

    fixed: int
    patch: int


def step_memory(task: TrainingTask, data: CoregisteredDataModule, settings: TrainingConfig) -> StepMemory:
    """Measure the memory of a step on a copy of the networks. Random numbers stay as they are.

    On a CPU it is the size of all values that PyTorch keeps for the backward pass, in float32, so the same settings
    always give the same number. On a GPU it is the peak of two steps of different size.

    Args:
        task: The training.
        data: Its batches, of at least 4 patches with labels.
        settings: Device and number format.

    Returns:
        The memory.
    """
    device = number_format.device_of(settings.accelerator)
    copied = deepcopy(task).to(device).train()
    copied.learner.assume_validated()
    parameters = sum(p.numel() * p.element_size() for p in copied.learner.parameters())
    averages = 0 if copied.average is None else parameters
    fixed = _COPIES * parameters + averages
    with torch.random.fork_rng():
        batch = next(iter(data.whole_train_dataloader()))
        rows = [_first(batch, count, data, device) for count in (2, 4)]
        measure = _peak if device.type == "cuda" else _kept
        small, large = (measure(copied, part, settings) for part in rows)
    return StepMemory(fixed, max(1, round(_BESIDE[_kind(device)] * (large - small) / 2)))


def _kind(device: torch.device) -> str:
    return "cuda" if device.type == "cuda" else "cpu"


def _first(
    batch: dict[str, Tensor], count: int, data: CoregisteredDataModule, device: torch.device
) -> dict[str, Tensor]:
    """So many patches with labels, and their share of those without; all count as patches of complete scenes."""
    labelled = data.plan.batch_size
    beside = count * data.unlabelled // labelled
    rows = [*range(count), *range(labelled, labelled + beside)]
    # Other batches may hold complete patches alone, so none of these may pass by a branch.
    return {key: value[rows].to(device) for key, value in batch.items() if not key.endswith("_there")}


def _loss(task: TrainingTask, batch: dict[str, Tensor], settings: TrainingConfig) -> Tensor:
    torch.manual_seed(0)
    augmented = task.augmentation(batch)
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(settings.precision)
    kind = batch["labels"].device.type
    with torch.autocast(kind, dtype=half or torch.bfloat16, enabled=half is not None and kind == "cuda"):
        terms = task.learner.losses(Step(augmented, batch, 1.0), task.kept)
    return torch.stack(list(terms.values())).sum()


def _kept(task: TrainingTask, batch: dict[str, Tensor], settings: TrainingConfig) -> int:
    """Bytes that a forward pass keeps for the backward pass, and of the batch before and after augmentation."""
    found: dict[int, int] = {}

    def note(values: Tensor) -> Tensor:
        storage = values.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return values

    with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
        _loss(task, batch, settings)
    return sum(found.values()) + 2 * sum(value.numel() * value.element_size() for value in batch.values())


def _peak(task: TrainingTask, batch: dict[str, Tensor], settings: TrainingConfig) -> int:
    """Largest number of bytes on the GPU during a forward and a backward pass."""
    torch.cuda.reset_peak_memory_stats()
    _loss(task, batch, settings).backward()
    task.learner.zero_grad()
    return int(torch.cuda.max_memory_allocated())


def with_fitting_batch(config: TrainConfig, found: Sequence[StepMemory], tell: Callable[[str], None]) -> TrainConfig:
    """Choose the number of patches in a batch by the memory of the device.

    Args:
        config: The configuration, with ``batch_size: auto``.
        found: Memory of each training.
        tell: Called with a line for the user.

    Returns:
        The configuration with the number, see `with_batch_size`.
    """
    memory = usable_memory(config.training)
    config = with_batch_size(config, largest_power(config.training, found, memory))
    tell(describe_batch_size(config.training, found, memory))
    return config


def usable_memory(settings: TrainingConfig) -> int:
    """Find how much memory a training may fill.

    Args:
        settings: Names the device.

    Returns:
        Bytes: 85 % of what is free on a GPU; without one, half of the memory of the machine, divided among processes.
    """
    device = number_format.device_of(settings.accelerator)
    share = _USABLE[_kind(device)]
    if device.type == "cuda":
        return int(share * torch.cuda.mem_get_info(device)[0])
    return int(share * psutil.virtual_memory().total / processes_of(settings))


def largest_power(settings: TrainingConfig, found: Sequence[StepMemory], memory: int) -> int:
    """Choose the number of patches in a batch.

    Args:
        settings: Steps of an epoch for batches of 8 patches, or as the user named them; devices and passes.
        found: Memory of each training.
        memory: Bytes that each device may fill.

    Returns:
        For each device the largest power of two that fits; times the devices. At least 2. Steps that the settings do
        not name become fewer with a larger batch: then an epoch keeps ten.
    """
    count = processes_of(settings)
    fitting = min((memory - need.fixed) // need.patch for need in found)
    if "steps_per_epoch" not in settings.model_fields_set:
        fitting = min(fitting, settings.steps_per_epoch * USUAL // (_FEWEST_STEPS * settings.accumulate * count))
    each: int = 2 ** int(math.log2(max(1, fitting)))
    return max(2, each * count)


def with_batch_size(config: TrainConfig, size: int) -> TrainConfig:
    """Set the number of patches in a batch, and adapt what depends on it unless the settings name it.

    An epoch keeps its number of patches. The learning rate grows with the square root of the batch, as is usual for
    Adam.

    Args:
        config: The configuration, with ``batch_size: auto``.
        size: Patches in a batch.

    Returns:
        The configuration with the number.

    References:
        Malladi et al. (2022). On the SDEs and scaling rules for adaptive gradient algorithms.
        https://arxiv.org/abs/2205.10287
    """
    training = config.training
    growth = size * training.accumulate / USUAL
    update: dict[str, Any] = {"batch_size": size, "batch_size_measured": True}
    if "steps_per_epoch" not in training.model_fields_set:
        update["steps_per_epoch"] = math.ceil(training.steps_per_epoch / growth)
    if "learning_rate" not in training.optimiser.model_fields_set:
        rate = float(f"{training.optimiser.learning_rate * math.sqrt(growth):.4g}")
        update["optimiser"] = training.optimiser.model_copy(update={"learning_rate": rate})
    return config.model_copy(update={"training": training.model_copy(update=update)})


def describe_batch_size(settings: TrainingConfig, found: Sequence[StepMemory], memory: int) -> str:
    """Describe the choice for the user.

    Args:
        settings: Settings with the chosen number.
        found: Memory of each training.
        memory: Bytes that each device may fill.

    Returns:
        One line.
    """
    each = settings.patches // settings.accumulate // processes_of(settings)
    needed = max(need.fixed + each * need.patch for need in found)
    return (
        f"Batch size: {settings.batch_size}, about {readable_size(needed)} of {readable_size(memory)} on each device; "
        f"{settings.steps_per_epoch} steps an epoch, learning rate {settings.optimiser.learning_rate:g}."
    )
