"""The other processes of a training: started with what they need, watched, and ended with it.

Each is a fresh Python that reads a file, so a script needs no ``if __name__ == "__main__"``, and a notebook can train
in several processes too. All but the first only compute: they write nothing and show nothing.
"""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import cloudpickle
import numpy as np
import psutil
import torch

from geocrodino import errors
from geocrodino.errors import GeocrodinoError
from geocrodino.settings.modality import MODALITIES
from geocrodino.training.parts import Processes
from geocrodino.training.processes import connected, is_lost_connection

_LOOK_S = 0.2
"""Seconds between two looks at the other processes."""

_END_S = 60.0
"""Seconds that they get to end after the training, which they finish at the same time."""

_LAST_LINES = 3

_BEGIN = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])  # modules are found where the first process finds them
from geocrodino.training.companion import main
sys.exit(main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


class _Pickler(cloudpickle.Pickler):
    """Writes no pixels that take no memory here.

    Of an array that is mapped from a file it writes the place of the file, so that all processes map the same; of one
    that repeats a single value, such as the pixels of a whole scene, the value.
    """

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray and obj.size and not any(obj.strides) and not obj.flags.writeable:
            return np.broadcast_to, (obj.flat[0], obj.shape)
        base: Any = getattr(obj, "base", None)  # a part of such an array has the array as its base
        if isinstance(obj, np.memmap) and isinstance(base, mmap.mmap) and obj.flags.c_contiguous:
            return np.memmap, (obj.filename, obj.dtype, "r", obj.offset, obj.shape)
        return super().reducer_override(obj)


@contextmanager
def companions(work: dict[str, Any], count: int, device: str) -> Iterator[Processes]:
    """Start the other processes of a training, and connect with them.

    Args:
        work: Arguments of `run_loop` in the other processes.
        count: Number of processes with this one. 1: nothing is started.
        device: ``cuda`` for GPUs, else ``cpu``.

    Yields:
        This process, the first.

    Raises:
        GeocrodinoError: The error of another process, or one that says how a process ended.
    """
    if count == 1:
        yield Processes()
        return
    folder = Path(tempfile.mkdtemp(prefix="geocrodino-"))
    others: list[subprocess.Popen[bytes]] = []
    watched = Event()
    try:
        with (folder / "work").open("wb") as file:
            context = {"device": device, "threads": threads_each(count), "modalities": tuple(MODALITIES)}
            _Pickler(file).dump({**work, **context})
        others += [_start(folder, number, count) for number in range(1, count)]
        _wait_until_ready(folder, others)
        if device == "cuda":
            Thread(target=_abort_after_an_end, args=(others, watched), daemon=True).start()
        with connected(Processes(0, count), folder / "meeting", device), fewer_threads(count):
            yield Processes(0, count)
        _wait_for_the_end(others)
    except GeocrodinoError:
        raise
    except Exception as error:  # when a process ends, the others meet an error of the connection
        if is_lost_connection(error):
            _wait_for_an_end(others)
        found = _failure(folder, others)
        if found is None:
            raise
        raise found from error
    finally:
        watched.set()
        for other in others:
            _end(other)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fewer_threads(count: int) -> Iterator[None]:
    """Compute with the threads that each of several processes has.

    Args:
        count: Number of processes; 1 changes nothing.

    Yields:
        Nothing; afterwards there are as many threads as before.
    """
    before = torch.get_num_threads()
    if count > 1:
        torch.set_num_threads(threads_each(count))
    try:
        yield
    finally:
        if count > 1:
            torch.set_num_threads(before)


def threads_each(count: int) -> int:
    """Divide the threads of this process among several.

    Args:
        count: Number of processes.

    Returns:
        Threads of each, at least 1.
    """
    return max(1, torch.get_num_threads() // count)


def _start(folder: Path, number: int, count: int) -> subprocess.Popen[bytes]:
    """Start a process. It ends when its standard input is closed, and so with this process in any case."""
    paths = json.dumps([path or str(Path.cwd()) for path in sys.path])
    command = [sys.executable, "-P", "-c", _BEGIN, paths, str(folder), str(number), str(count)]
    with (folder / f"{number}.log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)  # noqa: S603


def _wait_until_ready(folder: Path, others: list[subprocess.Popen[bytes]]) -> None:
    while not all((folder / f"{number}.ready").exists() for number in range(1, len(others) + 1)):
        _require_running(folder, others)
        time.sleep(_LOOK_S)


def _require_running(folder: Path, others: list[subprocess.Popen[bytes]]) -> None:
    if any(other.poll() is not None for other in others):
        found = _failure(folder, others)
        if found is not None:
            raise found


def _wait_for_the_end(others: list[subprocess.Popen[bytes]]) -> None:
    for other in others:
        with suppress(subprocess.TimeoutExpired):
            other.wait(_END_S)


def _wait_for_an_end(others: list[subprocess.Popen[bytes]]) -> None:
    """Wait until a process has ended: one that fails closes its connections before."""
    deadline = time.monotonic() + _END_S
    while all(other.poll() is None for other in others) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _failure(folder: Path, others: list[subprocess.Popen[bytes]]) -> GeocrodinoError | None:
    """The error of the process that failed first; None if all run, or ended well."""
    for number, other in enumerate(others, start=1):
        report = folder / f"{number}.error"
        if report.exists():
            told = json.loads(report.read_text(encoding="utf-8"))
            kind: type[GeocrodinoError] = getattr(errors, told["kind"])
            return kind(told["message"])
        if other.poll() not in (None, 0):
            return GeocrodinoError(_describe_end(folder, number, other.returncode, len(others) + 1))
    return None


def _describe_end(folder: Path, number: int, code: int, count: int) -> str:
    log = folder / f"{number}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    if code < 0 and not any("Error" in line for line in lines[-_LAST_LINES:]):
        why = f"signal {-code}; the system ends processes when memory is full"
    else:
        why = "\n".join(lines[-_LAST_LINES:]) or f"exit status {code}"
    return (
        f"training.devices: process {number + 1} of {count} ended: {why}\n"
        "Use fewer processes or a smaller `training.batch_size`, or `training.devices=1`."
    )


def _abort_after_an_end(others: list[subprocess.Popen[bytes]], over: Event) -> None:
    """Stop to wait for a process that has failed: on GPUs the others would wait for it until they run out of time."""
    while not over.wait(_LOOK_S):
        if any(other.poll() not in (None, 0) for other in others):
            with suppress(Exception):
                torch.distributed.distributed_c10d._abort_process_group()
            return


def _end(other: subprocess.Popen[bytes]) -> None:
    """End a process, if it has not ended by itself."""
    with suppress(OSError):
        if other.stdin is not None:
            other.stdin.close()
    if other.poll() is None:
        other.kill()
    with suppress(psutil.Error, subprocess.TimeoutExpired):
        other.wait(_END_S)
