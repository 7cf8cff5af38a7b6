"""Only one process at a time writes into a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into a folder. On file systems without locks, do nothing.

    Args:
        folder: The folder, which must exist.

    Yields:
        Nothing; until the block ends, others wait.
    """
    guard = FileLock(folder / ".lock")
    with suppress(OSError, NotImplementedError):
        guard.acquire()
    try:
        yield
    finally:
        guard.release()
