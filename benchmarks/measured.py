"""Time and memory of whole processes; nothing but Python's own library, so that any environment can import it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def report_peak() -> None:
    """Print the largest memory that this process had, as JSON; called at its end."""
    print(json.dumps({"peak_mb": _peak_bytes() / 1e6}))


def _peak_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # Where there is this, not the other: Linux counts what the parent held when it started this process.
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def measure(command: Sequence[str]) -> dict[str, float] | str:
    """Seconds from start to end of a process that ends with `report_peak`, and its memory, or why there are none."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["killed"]
    if done.returncode:
        return lines[-1]
    return {"seconds": seconds, **json.loads(lines[-1])}
