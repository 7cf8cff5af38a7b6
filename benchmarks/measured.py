"""Measure time and memory of processes. Uses only the standard library, so that any environment can import it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def report_peak(**facts: float) -> None:
    """Print peak memory in MB and processor time in seconds of this process, as JSON. To be called at its end.

    Args:
        **facts: What else the process has measured, by name.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"peak_mb": _peak_bytes() / 1e6, "processor_s": used.ru_utime + used.ru_stime, **facts}))


def _peak_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # VmHWM is preferred: on Linux, ru_maxrss includes the memory of the parent when it started this process.
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def measure(command: Sequence[str]) -> dict[str, float] | str:
    """Run a process that ends with `report_peak`, and measure it.

    Args:
        command: The words of the command.

    Returns:
        ``seconds`` from start to end, ``peak_mb``, ``processor_s`` and further facts of the process; or the last line
        of its error output if it failed.
    """
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["killed"]
    if done.returncode:
        return lines[-1]
    return {"seconds": seconds, **json.loads(lines[-1])}


def reading_rates(
    loader: Callable[[int], Iterable[Any]], seconds: float, workers: Sequence[int], batch: int
) -> dict[str, float]:
    """Measure how fast endless batches are read after the first one.

    Args:
        loader: Makes the batches with a number of reading processes.
        seconds: How long to read with each number.
        workers: Numbers of reading processes.
        batch: Samples of a batch.

    Returns:
        ``rate N``: samples per second with N reading processes; ``processor ms``: processor time of a sample without
        any, milliseconds.
    """
    found = {}
    for number in workers:
        iterator = iter(loader(number))
        next(iterator)
        start, used, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < seconds:
            next(iterator)
            count += batch
        found[f"rate {number}"] = count / (time.perf_counter() - start)
        if not number:
            found["processor ms"] = 1000 * (time.process_time() - used) / count
        del iterator
    return found
