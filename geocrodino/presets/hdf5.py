"""HDF5 files, which MATLAB 7.3 writes too, read by h5py where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from geocrodino.errors import RasterError

EXTRA = 'pip install "geocrodino[hdf5]"'
"""Command that installs what HDF5 files are read with."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CACHE_BYTES = 1 << 26
"""Of each array, so much stays unpacked: blocks of the file may hold parts of several pictures."""

_USER_BLOCK = 512
"""MATLAB writes a header of so many bytes before the HDF5 part of a file."""


def can_read() -> bool:
    """Find out whether h5py is installed.

    Returns:
        Whether it is.
    """
    return importlib.util.find_spec("h5py") is not None


@contextmanager
def opened_hdf5(path: str) -> Iterator[Any]:
    """Open an HDF5 file for reading.

    Args:
        path: The file.

    Yields:
        The file, an `h5py.File`: arrays are read when they are sliced, which belongs into `hdf5_errors`.

    Raises:
        RasterError: If it is no HDF5 file, cannot be opened for its damage, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise RasterError(path, f"expected h5py to read it, which is not installed. Install it: {EXTRA}") from None
    with hdf5_errors(path):
        # Locks fail on read-only and on some network disks, and nothing is written.
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
    with file:
        yield file


@contextmanager
def hdf5_errors(path: str) -> Iterator[None]:
    """Turn errors while arrays of an HDF5 file are read into a `RasterError` that names it.

    The block should do nothing else: any error of the operating system in it is taken for damage of the file.

    Args:
        path: The file.

    Yields:
        Nothing.

    Raises:
        RasterError: If the block raises an `OSError`, as h5py does where a file is damaged.
    """
    try:
        yield
    except OSError as error:
        raise RasterError(path, f"{_damage(path)} ({error}). Download it again.") from error


def _damage(path: str) -> str:
    """What is wrong with a file that h5py cannot read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the path is text
            start = file.read(_USER_BLOCK + len(_SIGNATURE))
    except OSError:
        return "expected an HDF5 file that can be read, found one that cannot"
    if _SIGNATURE in (start[: len(_SIGNATURE)], start[_USER_BLOCK:]):
        return "expected a whole HDF5 file, found a damaged one"
    return "expected an HDF5 file, found another kind of file"
