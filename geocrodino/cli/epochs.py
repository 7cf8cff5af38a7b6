"""What ``geocrodino train`` shows of its epochs: a line after each, a bar or a line now and then within one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch.callbacks import Callback

from geocrodino.cli.progress import Stages, duration
from geocrodino.training.time_left import TimeLeft

_HEARTBEAT_S = 60.0
"""Without a terminal, the longest time without a line."""

_REDRAW_S = 0.5
"""Shortest time between two readings of the loss, for which a GPU must wait."""


class EpochLines(Callback):
    """Shows the loss, the scores of the networks, and the time left."""

    def __init__(self, show: Callable[[str], None], stages: Stages) -> None:
        """Print lines with ``show``; steps within an epoch move the bar of ``stages``."""
        self.show, self.stages = show, stages
        self.step, self.loss = 0, float("nan")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start to measure."""
        pace = pl_module.pace
        known = () if pace is None else (pace.step_s, pace.validation_s, pace.final_s)
        self.time = TimeLeft(trainer.max_epochs, int(trainer.num_training_batches), *known)
        self.line = self.drawn = self.mark = time.monotonic()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the bar of an epoch."""
        self.step, self.mark = 0, time.monotonic()
        self.stages.stage(self._name(trainer))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar by a step."""
        now = time.monotonic()
        self.time.add_step(now - self.mark)
        self.step, self.mark = batch_idx + 1, now
        if now - self.drawn >= _REDRAW_S or now - self.line >= _HEARTBEAT_S:
            self.drawn, self.loss = now, float(outputs["loss"])
            self._advance(trainer, self.step, self.time.steps, "step")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the bar of a validation."""
        self.mark = time.monotonic()
        self.stages.stage(f"{self._name(trainer)}, validation")

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Move the bar by a batch of windows."""
        total = int(trainer.num_val_batches[0])
        self._advance(trainer, batch_idx + 1, total, "validation batch", (batch_idx + 1) / total)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note how long the validation took."""
        self.time.add_validation(time.monotonic() - self.mark)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Show the line of an epoch."""
        numbers = trainer.callback_metrics
        scores = [f"{n} {100 * float(numbers[f'val_miou/{n}']):.1f}" for n in pl_module.validated]
        # After an early stop, the validation at the end is left.
        left = self.time.final_s if trainer.should_stop else self.time.left_s(trainer.current_epoch, self.time.steps, 1)
        self.show(
            f"{self._name(trainer)}  loss {float(numbers['loss/total']):.3f}  val mIoU {', '.join(scores)} %"
            f"{_left(left)}"
        )
        self.line = time.monotonic()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Remove the bar."""
        self.stages.stage("")

    def _name(self, trainer: Any) -> str:
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"

    def _advance(self, trainer: Any, done: int, total: int, what: str, validated: float = 0.0) -> None:
        left = _left(self.time.left_s(trainer.current_epoch, self.step, validated))
        loss = "" if math.isnan(self.loss) else f"  loss {self.loss:.3f}"  # it was not read in the first moment
        self.stages.advance(done, total, f"{loss}{left}".lstrip())
        now = time.monotonic()
        if self.stages.bar is None and now - self.line >= _HEARTBEAT_S:
            self.line = now
            self.show(f"{self._name(trainer)}  {what} {done}/{total}{loss}{left}")


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"  {duration(seconds)} left"
