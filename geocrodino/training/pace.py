"""How long a training takes, measured on a few steps before it starts, and how many epochs fit into a time."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng

from geocrodino.data.datamodule import CoregisteredDataModule
from geocrodino.phrases import duration
from geocrodino.settings.config import TrainingConfig
from geocrodino.training import number_format
from geocrodino.training.callbacks import earliest_stop
from geocrodino.training.learners.base import Learner
from geocrodino.training.loop import fit, trainer_of

_STEPS, _SECONDS = 12, 3.0
"""Steps to measure, of which the first ones only warm up, and the time after which no further step is started."""

_WARM_UP = 2
_VAL_BATCHES = 3


@dataclass(frozen=True)
class Pace:
    """Durations of the parts of a training.

    Attributes:
        step_s: Mean duration of a training step, s.
        preparation_s: Duration of the part of a validation that does not depend on the number of windows, s.
        batch_s: Mean duration of a validation batch, s.
        steps: Steps of an epoch.
        val_batches: Batches of a validation between epochs.
        final_batches: Batches of the validation at the end.
    """

    step_s: float
    preparation_s: float
    batch_s: float
    steps: int
    val_batches: int
    final_batches: int

    @property
    def validation_s(self) -> float:
        """Duration of a validation between epochs, s."""
        return self.preparation_s + self.val_batches * self.batch_s

    @property
    def final_s(self) -> float:
        """Duration of the validation at the end, s."""
        return self.final_batches * self.batch_s

    @property
    def epoch_s(self) -> float:
        """Duration of an epoch with its validation, s."""
        return self.steps * self.step_s + self.validation_s

    def training_s(self, epochs: int) -> float:
        """Duration of a training, s.

        Args:
            epochs: Its number of epochs.

        Returns:
            The time for steps and validations, including the one at the end.
        """
        return epochs * self.epoch_s + self.final_s


def epochs_within(seconds: float, *paces: Pace) -> int:
    """Number of epochs that fit into a time.

    Args:
        seconds: The time for all trainings together, s.
        *paces: Pace of each training that gets this number of epochs: a teacher and its students, for instance.

    Returns:
        Number of epochs, at least 1.

    Examples:
        >>> epochs_within(100, Pace(0.5, 1, 2, steps=10, val_batches=2, final_batches=5))
        9
    """
    left = seconds - sum(pace.final_s for pace in paces)
    return max(1, int(left / sum(pace.epoch_s for pace in paces)))


def describe_budget(minutes: float, epochs: int, *paces: Pace) -> str:
    """Describe for the user what a time is enough for.

    Args:
        minutes: The time for all trainings together, min.
        epochs: Number of epochs that are trained.
        *paces: As for `epochs_within`.

    Returns:
        One line.
    """
    needed = sum(pace.training_s(epochs) for pace in paces)
    if epochs == 1 and needed > 60 * minutes:
        return (
            f"Budget: {minutes:g} min are too few for an epoch and the validation at the end, which take about "
            f"{duration(needed)}. One epoch is trained."
        )
    return f"Budget: {minutes:g} min are enough for {_counted(epochs, 'epoch')}."


def measure(task: L.LightningModule, data: CoregisteredDataModule, settings: TrainingConfig) -> Pace:
    """Measure the pace of a training on a copy of it. The training itself and all random numbers stay as they are.

    It takes about three seconds, or three steps and three validation batches if these are slower.

    Args:
        task: The training, a `TrainingTask`.
        data: Its batches.
        settings: Device and number format.

    Returns:
        The pace.

    Raises:
        ConfigError: If the device or the number format cannot be used.
    """
    clock = _Clock()
    with isolate_rng(), _quiet():
        trainer = trainer_of(
            settings,
            max_epochs=1,
            limit_train_batches=min(_STEPS, settings.steps_per_epoch),
            limit_val_batches=_VAL_BATCHES,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            callbacks=[clock],
        )
        copied = copy.deepcopy(task)
        cast(Learner, copied.learner).assume_validated()
        fit(trainer, copied, data)
    return clock.pace(data)


def expectation(settings: TrainingConfig, pace: Pace, windows: tuple[int, int], finished: int = 0) -> str:
    """Describe how long a training will take.

    Args:
        settings: Epochs, steps and patience.
        pace: The pace as measured.
        windows: Windows that are validated between epochs, and all windows of ``val``.
        finished: Epochs that a resumed run has finished.

    Returns:
        One line, or two if ``val`` is validated in part between epochs.
    """
    left, earliest = settings.epochs - finished, earliest_stop(settings.epochs)
    again = f" (from epoch {finished + 1})" if finished and left else ""
    stop = f"; early stop after {_counted(settings.patience, 'epoch')} without gain, from epoch {earliest} on"
    possible = max(earliest, settings.patience + 1) < settings.epochs
    some, every = windows
    part = f"\nValidation: {some} of {every} windows of val between epochs, all at the end." if some < every else ""
    return (
        f"{_counted(left, 'epoch')} of {_counted(settings.steps_per_epoch, 'step')}{again}, about "
        f"{duration(pace.training_s(left))} on {number_format.device_name(settings.accelerator)}"
        f"{stop if possible else ''}.{part}"
    )


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Lightning's hints, which the training itself gives once more."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Clock(Callback):
    """Notes when steps and validation batches end. GPUs compute in the background, so they are waited for."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.validation: list[float] = []
        self.batches: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.steps.append(_now(pl_module))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps.append(_now(pl_module))
        if len(self.steps) > _WARM_UP + 1 and self.steps[-1] - self.steps[0] > _SECONDS:
            trainer.should_stop = True

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validation.append(_now(pl_module))

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not self.batches:
            self.batches.append(_now(pl_module))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.batches.append(_now(pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validation.append(_now(pl_module))

    def pace(self, data: CoregisteredDataModule) -> Pace:
        start, end = self.validation
        return Pace(
            step_s=_mean_gap(self.steps, _WARM_UP),
            preparation_s=self.batches[0] - start + end - self.batches[-1],
            batch_s=_mean_gap(self.batches, 1),
            steps=data.plan.steps_per_epoch,
            val_batches=len(data.val_dataloader()),
            final_batches=len(data.whole_val_dataloader()),
        )


def _mean_gap(times: list[float], warm_up: int) -> float:
    """Mean time between neighbours; the first gaps count only if there are no others."""
    gaps = [after - before for before, after in pairwise(times)]
    return fmean(gaps[warm_up:] or gaps[-1:])


def _now(module: L.LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.monotonic()
