"""The file system: what a name leads to, and files that appear whole under their name or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geocrodino.errors import AccessError, OutputError

_ABSENT = {errno.ENOENT, errno.ENOTDIR}


def look_up(path: str | Path) -> os.stat_result | None:
    """Ask the file system about a name, following links.

    Every name that a user gives is looked at here, so that the answers and the errors are the same everywhere.

    Args:
        path: The name.

    Returns:
        What the file system knows, or None if there is nothing of that name.

    Raises:
        AccessError: If the file system does not say: a folder on the way may not be searched, the name is too long,
            links lead in a circle, the disk does not answer.
    """
    try:
        return os.stat(path)  # noqa: PTH116 - a name that is no valid path is an error here, not False
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise AccessError.because(path, error) from error
    except ValueError as error:  # a null character
        raise AccessError(f"{str(path)!r}: not a name that a file can have ({error}).") from error


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder of that name; errors as for `look_up`."""
    return look_up(path) is not None


def is_file(path: str | Path) -> bool:
    """Whether there is a file of that name; errors as for `look_up`."""
    found = look_up(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder of that name; errors as for `look_up`."""
    found = look_up(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside the target to write to; it takes the target's name when the block ends without an error.

    Raises:
        OSError: If the file cannot take its name.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    partial.unlink(missing_ok=True)  # a killed process may have left one
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def synchronise(path: Path) -> None:
    """Wait until a file is on the disk itself.

    Raises:
        OSError: If the disk does not take it.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def writing(path: str | Path, *kinds: type[Exception]) -> Iterator[None]:
    """Report what goes wrong while a file or folder is written as an error that names it.

    Args:
        path: The file or folder, or what else the output is called.
        kinds: What the library that writes it raises, besides `OSError`.

    Raises:
        OutputError: If the block raises one of these.
    """
    caught: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except caught as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}).") from error


@contextmanager
def durable_file(path: Path, *kinds: type[Exception]) -> Iterator[Path]:
    """As `whole_file`, for a file that must survive a power cut; an earlier one stays until the new one is on the disk.

    Args:
        path: The file.
        kinds: What the library that writes it raises, besides `OSError`.

    Raises:
        OutputError: If it cannot be written.
    """
    with writing(path, *kinds):
        with whole_file(path) as partial:
            yield partial
            synchronise(partial)
        _synchronise_folder(path.parent)


def _synchronise_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def same_file(first: Path, second: Path) -> bool:
    """Whether two names lead to one file that is there."""
    return first.exists() and second.exists() and first.samefile(second)
