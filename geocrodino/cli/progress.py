"""Progress with an estimate of the remaining time: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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


def duration(seconds: float) -> str:
    """Format seconds: ``48 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
