"""The time that a running training still takes, from the steps and validations that it has done."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import fmean

_FIRST = 2
"""Steps of a run that only warm up: they are slow and do not count."""

_LAST = 50
"""Steps whose mean duration counts, so that the estimate follows a machine that becomes busy."""


@dataclass
class TimeLeft:
    """Estimates the time until a training ends, all validations included.

    Attributes:
        epochs: Epochs of the training.
        steps: Steps of an epoch.
        step_s: Duration of a step as measured before the training, s; None if it was not.
        validation_s: Duration of a validation as measured before the training, s; None if it was not.
        final_s: Duration of the validation at the end, s.
    """

    epochs: int
    steps: int
    step_s: float | None = None
    validation_s: float | None = None
    final_s: float = 0.0
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=_LAST))
    _validations: list[float] = field(default_factory=list)
    _seen: int = 0

    def add_step(self, seconds: float) -> None:
        """Note a finished step.

        Args:
            seconds: Its duration, s.
        """
        self._seen += 1
        if self._seen > _FIRST:
            self._steps.append(seconds)

    def add_validation(self, seconds: float) -> None:
        """Note a finished validation.

        Args:
            seconds: Its duration, s.
        """
        self._validations.append(seconds)

    def left_s(self, epoch: int, step: int, validated: float = 0.0) -> float | None:
        """Estimate the time left.

        Args:
            epoch: The running epoch, counted from 0.
            step: Finished steps of this epoch.
            validated: Finished share of the validation of this epoch, 0 to 1.

        Returns:
            Time left, s; None before it can be known: in the first steps, and before the first validation if it was
            not measured.
        """
        if not self._steps and not (validated == 1 and self.epochs == epoch + 1):
            return None
        step_s = fmean(self._steps) if self._steps else 0.0
        validation_s = self._validation_s(step_s)
        if validation_s is None:
            return None
        later = self.epochs - epoch - 1
        steps = later * self.steps + self.steps - step
        return steps * step_s + (later + 1 - validated) * validation_s + self.final_s

    def _validation_s(self, step_s: float) -> float | None:
        """Mean duration of the validations; before the first, the measured one at the speed of the steps so far."""
        if self._validations:
            return fmean(self._validations)
        if self.validation_s is None or not self.step_s:
            return None
        return self.validation_s * step_s / self.step_s
