"""Other programs on the processors, which make threads of PyTorch wait for each other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

_WAIT_POLICY = "OMP_WAIT_POLICY"
"""Variable of OpenMP: threads that wait sleep (``passive``), or keep their processor busy for a while."""

_SPARE = 0.3  # processors that may be missing: short work of the system is no reason for advice


def others_at_work() -> Callable[[], float]:
    """Begin to measure how many processors other programs use.

    Returns:
        Function that gives their mean number since then, 0 or more.
    """
    began, everything, own = time.monotonic(), _everything_s(), _own_s()

    def processors() -> float:
        others = (_everything_s() - everything) - (_own_s() - own)
        return max(0.0, others / max(time.monotonic() - began, 1e-3))

    return processors


def advice_on_others(others: float, threads: int) -> str | None:
    """What to do if other programs leave too few processors for the threads of a training.

    Args:
        others: Processors that other programs use.
        threads: Threads that compute a step.

    Returns:
        One line; None if there are processors enough, or nothing to do.
    """
    processors = psutil.cpu_count() or 1
    enough = others <= max(0, processors - threads) + _SPARE
    if threads < 2 or enough or os.environ.get(_WAIT_POLICY, "").strip().lower() == "passive":
        return None
    return (
        f"Other programs keep about {others:.1f} of {processors} processors busy, and {threads} threads wait for each "
        f"other. With {_WAIT_POLICY}=passive in the environment a step may take far less time; the results are the "
        "same."
    )


def _everything_s() -> float:
    """Processor time of all programs since the system started, s."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def _own_s() -> float:
    """Processor time of this process and of those that it started, s."""
    process = psutil.Process()
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # it has ended: its time is in that of the children
            total += sum(child.cpu_times()[:2])
    return float(total)
