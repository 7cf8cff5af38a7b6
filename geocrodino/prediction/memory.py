"""Measure the memory of a prediction, and compute how many tiles at once fit into a limit."""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable
from threading import Event, Thread

import psutil
from dask.utils import format_bytes, parse_bytes

from geocrodino.errors import ConfigError

_LOOK_EVERY_S = 0.002
_M_ARENA_MAX = -8  # of mallopt(3)
_HEAPS = 2
_SPARE = 1.1  # factor on the memory of one tile, because reading and writing have peaks of their own


def parse_memory(size: int | str) -> int:
    """Read a size of memory.

    Args:
        size: A number of bytes, or a text such as ``2GB``, ``1500 MB`` or ``2GiB``.

    Returns:
        The size in bytes.

    Raises:
        ConfigError: If it is no size.
    """
    try:
        found = int(parse_bytes(size))
    except ValueError as error:
        raise ConfigError(f"memory {size!r} is no size.\nExpected something like 2GB, 1500MB or 2GiB.") from error
    return found


def peak_growth(run: Callable[[], object]) -> int:
    """Measure by how much the memory of this process grows while something runs.

    Args:
        run: What to run.

    Returns:
        Largest growth in bytes.
    """
    process, over = psutil.Process(), Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not over.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(_LOOK_EVERY_S)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
    finally:
        over.set()
        watcher.join()
    return peak - before


def share_freed_memory() -> None:
    """Limit the process to two heaps for all threads, so that memory freed by one thread is reused by another.

    glibc gives threads up to eight heaps for each core, and a block that is freed stays with its heap. Large blocks are
    not affected. The number holds for the whole process. Does nothing where the C library is another one.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)


def in_use() -> int:
    """The memory of this process.

    Returns:
        Its resident memory in bytes.
    """
    held: int = psutil.Process().memory_info().rss
    return held


def workers_within(limit: int, wanted: int, each: int, held: int) -> int:
    """How many tiles can be worked on at once.

    Args:
        limit: Largest memory of the process, bytes.
        wanted: Largest useful number of tiles at once.
        each: Memory of one tile while it is computed, bytes.
        held: Memory without tiles, bytes: the process, and the data that tiles share.

    Returns:
        A number of tiles from 1 to ``wanted``.

    Raises:
        ConfigError: If not even one fits.
    """
    fitting = int((limit - held) // (_SPARE * each))
    if fitting < 1:
        least = int(1.01 * (held + _SPARE * each))  # the message rounds it, and the rounded size must suffice
        raise ConfigError(
            f"memory {format_bytes(limit)} is too little. Expected at least {format_bytes(least)}, of which "
            f"{format_bytes(held)} are the program itself, its networks and what neighbours share."
        )
    return min(wanted, fitting)
