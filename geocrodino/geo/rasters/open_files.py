"""Raster files that stay open between reads, for trainings that read thousands of small windows of them.

By default each read opens its file and closes it again. Within `kept_open`, the files of this process stay open after a
read, the last ones used, and each is compared with what it was when the work began. A file is used by one thread at a
time; a process that begins as a copy of this one opens its own. At the end of the work, `closed_after` closes them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from time import monotonic

from rasterio.io import DatasetReader

from geocrodino.errors import RasterError
from geocrodino.files.access import look_up
from geocrodino.geo.rasters.identity import files_behind
from geocrodino.geo.rasters.opening import open_pixels
from geocrodino.geo.rasters.protocol import Raster

MOST_OPEN = 64
"""Files that a process keeps open while none of its threads reads them."""

LOOK_S = 2.0
"""Seconds for which the files behind a virtual raster, and masks, are not looked up again; there may be thousands."""

FileState = tuple[str, int, int]
"""A local file, its size in bytes and the time of its last change in ns."""

FileStates = Mapping[str, tuple[FileState, ...]]
"""For each name that GDAL opens, the state of every file behind it; the named one first."""

_WATCHED: ContextVar[FileStates | None] = ContextVar("watched files", default=None)


def file_states(*rasters: Raster) -> dict[str, tuple[FileState, ...]]:
    """Note size and time of every file of some rasters.

    Args:
        rasters: Rasters whose files are all on this machine, outside archives.

    Returns:
        The state of each file, those of virtual rasters and masks included.

    Raises:
        RasterError: If a file is gone.
    """
    names = dict.fromkeys(name for raster in rasters for name in raster.file_names)
    return {name: tuple(_state(file) for file in files_behind(name)) for name in names}


@contextmanager
def kept_open(states: FileStates) -> Iterator[None]:
    """Keep the files that are read in a ``with`` block open after their reads, and require that they are unchanged.

    Args:
        states: The files that may be read in this way, and their states when the work began; see `file_states`. Others
            are opened for each read.

    Yields:
        Nothing. A read of a changed file raises a `RasterError`: of the file itself at once, of one behind it after at
        most `LOOK_S` seconds.
    """
    before = _WATCHED.set(states)
    try:
        yield
    finally:
        _WATCHED.reset(before)


@contextmanager
def dataset(name: str, *, alone: bool = False) -> Iterator[DatasetReader]:
    """Open a raster to read its pixels, or take it from those that are kept open.

    Args:
        name: Its name as GDAL opens it.
        alone: Whether no file beside a TIFF changes its pixels, see `open_pixels`.

    Yields:
        The open raster, for this thread alone. It is closed at the end of the block, unless it is kept open.

    Raises:
        RasterError: Within `kept_open`, if a file has changed.
        RasterioError: If GDAL cannot open it.
    """
    watched = _WATCHED.get()
    states = None if watched is None else watched.get(name)
    if states is None:
        with open_pixels(name, alone=alone) as opened:
            yield opened
        return
    files, key = _open_files, (name, states)
    _require_unchanged(states[:1])
    if files.is_look_due(key):
        _require_unchanged(states[1:])
        files.looked(key)
    found = files.take(key)
    if found is None:
        found = open_pixels(name, alone=alone)
    try:
        yield found
    except BaseException:
        found.close()  # after a failed read GDAL may hold damaged blocks
        raise
    files.give(key, found)


@contextmanager
def closed_after() -> Iterator[None]:
    """Close the files of this process that are kept open when a ``with`` block ends.

    Yields:
        Nothing.
    """
    try:
        yield
    finally:
        _open_files.close_all()


_Key = tuple[str, tuple[FileState, ...]]


class _OpenFiles:
    """Files of this process that no thread reads at the moment, the last used ones last."""

    def __init__(self) -> None:
        self._idle: list[tuple[_Key, DatasetReader]] = []
        self._looks: dict[str, tuple[_Key, float]] = {}  # when the files behind each name were looked up, s
        self._lock = threading.Lock()

    def is_look_due(self, key: _Key) -> bool:
        """Whether the files behind a name are to be looked up before the next read."""
        last = self._looks.get(key[0])
        return last is None or last[0] != key or not 0 <= monotonic() - last[1] < LOOK_S

    def looked(self, key: _Key) -> None:
        """Note that they were found as they should be."""
        self._looks[key[0]] = key, monotonic()

    def take(self, key: _Key) -> DatasetReader | None:
        """An open file, which is then used by one thread alone; None if there is none."""
        with self._lock:
            for place in range(len(self._idle) - 1, -1, -1):
                if self._idle[place][0] == key:
                    return self._idle.pop(place)[1]
        return None

    def give(self, key: _Key, opened: DatasetReader) -> None:
        """Keep a file open; the one that was not used for the longest time is closed where there are too many."""
        with self._lock:
            self._idle.append((key, opened))
            closed = self._idle[: max(0, len(self._idle) - MOST_OPEN)]
            del self._idle[: len(closed)]
        for _, old in closed:
            old.close()

    def close_all(self) -> None:
        """Close all files that no thread reads."""
        with self._lock:
            closed, self._idle = self._idle, []
            self._looks.clear()
        for _, old in closed:
            old.close()


_open_files = _OpenFiles()
_inherited: list[_OpenFiles] = []


def _start_anew() -> None:
    """Open files anew in a copy of a process: both would move one position in a file that they share."""
    global _open_files  # noqa: PLW0603 - one collection for each process
    _inherited.append(_open_files)  # never closed here: the lock of a thread that was not copied may be held
    _open_files = _OpenFiles()


if hasattr(os, "register_at_fork"):  # Windows has no copies of processes
    os.register_at_fork(after_in_child=_start_anew)


def _state(file: str) -> FileState:
    status = look_up(file)
    if status is None:
        raise RasterError(file, "part of the scene, but no longer there. Restore the file.")
    return file, status.st_size, status.st_mtime_ns


def _require_unchanged(states: tuple[FileState, ...]) -> None:
    for before in states:
        now = _state(before[0])
        if now != before:
            raise RasterError(
                before[0],
                f"changed while a training reads it in place: expected {_told(before)}, found {_told(now)}.\n"
                "Restore the file, or start the training anew. With `data.cache='copy'` a training reads a copy.",
            )


def _told(state: FileState) -> str:
    _, size, time_ns = state
    return f"{size:,} bytes of {datetime.fromtimestamp(time_ns / 1e9):%Y-%m-%d %H:%M:%S.%f}"
