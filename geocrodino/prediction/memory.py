"""How much memory a prediction takes, and how many tiles at once fit into a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread

import psutil
from dask.utils import format_bytes, parse_bytes

from geocrodino.errors import ConfigError

_LOOK_EVERY_S = 0.002
_SPARE = 1.1  # of what one tile takes: reading and writing have peaks of their own


def parse_memory(size: int | str) -> int:
    """A size as a number of bytes: ``2GB``, ``1500 MB``, ``2GiB``, or the number itself.

    Raises:
        ConfigError: If it is no size.
    """
    try:
        found = int(parse_bytes(size))
    except ValueError as error:
        raise ConfigError(f"memory {size!r} is no size.\nExpected something like 2GB, 1500MB or 2GiB.") from error
    return found


def peak_growth(run: Callable[[], object]) -> int:
    """Bytes by which the memory of this process grows at most while something runs."""
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


def in_use() -> int:
    """Bytes that this process holds now."""
    held: int = psutil.Process().memory_info().rss
    return held


def workers_within(limit: int, wanted: int, each: int, held: int) -> int:
    """How many tiles can be worked on at once.

    Args:
        limit: Most bytes that the process may take.
        wanted: Most tiles at once that are of use.
        each: Bytes that one takes while it is computed.
        held: Bytes that are taken without them: the process, and what the tiles share.

    Raises:
        ConfigError: If not even one fits.
    """
    fitting = int((limit - held) // (_SPARE * each))
    if fitting < 1:
        least = int(1.01 * (held + _SPARE * each))  # as it is told it is rounded, and must still be enough
        raise ConfigError(
            f"memory {format_bytes(limit)} is too little. Expected at least {format_bytes(least)}, of which "
            f"{format_bytes(held)} are the program itself, its networks and what neighbours share."
        )
    return min(wanted, fitting)
