"""Finished tiles that wait for their neighbours in a file instead of in memory.

A tile of probabilities takes 4 bytes for each class and pixel, and a scene on another grid needs a row of them. They
are written once and read in parts, so that the memory of a prediction does not grow with the number of tiles it keeps.
"""

from __future__ import annotations

import tempfile
import warnings
import weakref
from collections import deque
from threading import Lock
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import MemoryUseWarning


class Tile(Protocol):
    """The result of a tile, in memory or in a file: an array of which parts are taken."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Bands, rows and columns."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        ...

    def __getitem__(self, part: tuple[slice, slice, slice], /) -> NDArray[Any]:
        """A part of the tile, as of an array."""
        ...


class StoredTile:
    """A tile in a file.

    Args:
        store: The file.
        slot: Place of the tile in it.
        shape: Bands, rows and columns.
        dtype: Type of the numbers.
    """

    def __init__(self, store: TileStore, slot: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._store, self._slot = store, slot
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, part: tuple[slice, slice, slice], /) -> NDArray[Any]:
        """Read a part of the tile.

        Args:
            part: Bands, rows and columns, in steps of one.

        Returns:
            The numbers there, a new array.
        """
        bands, rows, cols = (range(size)[along] for size, along in zip(self.shape, part, strict=True))
        found = np.empty((len(bands), len(rows), len(cols)), self.dtype)
        _, height, width = self.shape
        whole_rows = np.empty((len(rows), width), self.dtype)
        for band, target in zip(bands, found, strict=True):
            first = (band * height + rows.start) * width * self.dtype.itemsize
            self._store.read(self._slot, first, whole_rows)
            target[...] = whole_rows[:, cols.start : cols.stop]
        return found


class TileStore:
    """A temporary file with room for tiles; it grows to the largest number of tiles that are kept at once.

    The file lies in the folder for temporary files (``TMPDIR``). It vanishes with the store, or with the process,
    however that ends. May be used from several threads.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._slot_bytes = 0
        self._slots = 0
        self._free: deque[int] = deque()
        self._lock = Lock()
        self._warned = False

    @property
    def slots(self) -> int:
        """Number of tiles that the file has room for."""
        return self._slots

    def put(self, values: NDArray[Any], slot_bytes: int) -> Tile:
        """Write a tile.

        Args:
            values: The tile, shape (B, H, W).
            slot_bytes: Size of the largest tile, the same in all calls.

        Returns:
            The tile in the file, whose place is free again when the last reference to it is gone; the array itself if
            the file cannot be written, for instance because the disk is full.
        """
        with self._lock:
            slot = self._free.popleft() if self._free else self._slots
            self._slots = max(self._slots, slot + 1)
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(prefix="geocrodino-tiles-", buffering=0)  # noqa: SIM115
                    weakref.finalize(self, self._file.close)
                self._file.seek(slot * slot_bytes)
                self._slot_bytes = slot_bytes
                for band in values:
                    left = np.ascontiguousarray(band).data.cast("B")
                    while left:
                        left = left[self._file.write(left) :]
            except OSError as error:
                self._free.append(slot)
                self._warn(error)
                return values
        tile = StoredTile(self, slot, values.shape, values.dtype)
        weakref.finalize(tile, self._free.append, slot)
        return tile

    def _warn(self, error: OSError) -> None:
        """Warn once that tiles wait in memory."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{tempfile.gettempdir()}: tiles that wait for their neighbours cannot be written there "
                f"({error.strerror or error}), so they are kept in memory, which the limit `memory` does not count.\n"
                "Set the environment variable TMPDIR to a folder with space.",
                MemoryUseWarning,
                stacklevel=2,
            )

    def read(self, slot: int, start: int, out: NDArray[Any]) -> None:
        """Read numbers of a tile.

        Args:
            slot: Place of the tile.
            start: First byte of the numbers in the tile.
            out: Receives the numbers, contiguous, any shape, of the type of the tile.

        Raises:
            OSError: If the file cannot be read.
        """
        left = out.data.cast("B")
        with self._lock:
            if self._file is None:
                raise ValueError("no tile was written")
            self._file.seek(slot * self._slot_bytes + start)
            while left:
                count = self._file.readinto(left)  # type: ignore[attr-defined]
                if not count:
                    raise OSError("the file of tiles is cut short")
                left = left[count:]
