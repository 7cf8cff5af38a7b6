"""Progress with an estimate of the remaining time: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from geocrodino.phrases import duration

__all__ = ["Stages", "duration", "progress", "stages"]

_QUIET_S = 10.0


@contextmanager
def progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress inside a ``with`` block. Yields a function to call with the work done and the total work."""
    if not console.is_terminal:
        yield _Lines(console, what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if done >= total:
                bar.stop()  # later steps print lines, which must not mix with the bar

        yield advance


class Stages:
    """Shows which stage of a long command runs and how far it is: one moving line on a terminal.

    Elsewhere a stage that takes longer than ten seconds prints a line now and then.
    """

    def __init__(self, console: Console, bar: Progress | None) -> None:
        """Start without a stage; ``bar`` is the moving line, None where there is no terminal."""
        self.console, self.bar = console, bar
        self.lines: _Lines | None = None
        self._task: TaskID | None = None

    def stage(self, what: str) -> None:
        """Begin a stage; an empty text shows none."""
        self.lines = _Lines(self.console, what)
        if self.bar is not None:
            self._remove()
            self._task = self.bar.add_task(what, total=None, note="") if what else None

    def advance(self, done: int, total: int, note: str | None = None) -> None:
        """Show the work done and the total work of the stage. ``note`` stands behind them; by default the time left."""
        if self.bar is None or self._task is None:
            if self.lines is not None and note is None:
                self.lines(done, total)
            return
        if note is None:
            left = self.bar.tasks[0].time_remaining
            note = "" if left is None else f"{duration(left)} left"
        self.bar.update(self._task, completed=done, total=total, note=note)

    def _remove(self) -> None:
        if self.bar is not None and self._task is not None:
            self.bar.remove_task(self._task)
            self._task = None


@contextmanager
def stages(console: Console) -> Iterator[Stages]:
    """Show the stages of a command inside a ``with`` block; lines printed there appear above the progress line."""
    if not console.is_interactive:
        yield Stages(console, None)
        return
    columns = (
        SpinnerColumn("line"),  # plain characters
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Stages(console, bar)


class _Lines:
    """Print a line at most every ten seconds, so that a log stays short."""

    def __init__(self, console: Console, what: str) -> None:
        self.console, self.what = console, what
        self.start = self.last = time.monotonic()
        self.before: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.before is None:
            self.before = max(0, done - 1)  # work of an earlier run does not count in the estimate
        if done and now - self.last >= _QUIET_S:
            self.last = now
            left = (now - self.start) * (total - done) / (done - self.before)
            self.console.print(f"{self.what}: {done} of {total}, about {duration(left)} left")
