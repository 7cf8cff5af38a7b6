"""Access to the file system, and files that are written completely or not at all."""

from __future__ import annotations

import codecs
import errno
import io
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
        AccessError: If the operating system refuses the lookup: a folder on the path may not be searched, the name is
            too long, links lead in a circle, or the disk does not answer.
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
    """Find out whether there is a file or folder of a name.

    Args:
        path: The name.

    Returns:
        Whether there is one, links followed.

    Raises:
        AccessError: If the operating system refuses the lookup, as for `look_up`.
    """
    return look_up(path) is not None


def is_file(path: str | Path) -> bool:
    """Find out whether there is a regular file of a name.

    Args:
        path: The name.

    Returns:
        Whether there is one, links followed.

    Raises:
        AccessError: If the operating system refuses the lookup, as for `look_up`.
    """
    found = look_up(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: str | Path) -> bool:
    """Find out whether there is a folder of a name.

    Args:
        path: The name.

    Returns:
        Whether there is one, links followed.

    Raises:
        AccessError: If the operating system refuses the lookup, as for `look_up`.
    """
    found = look_up(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def absence(path: str | Path) -> str:
    """Explain why nothing was found under a name.

    Args:
        path: A name under which there is nothing.

    Returns:
        That there is no such file, or that the name is a link that leads nowhere.
    """
    try:
        target = os.readlink(path)  # noqa: PTH115 - the text of the link, not a path
    except (OSError, ValueError):
        return "no such file"
    return f"no such file: it is a link to {target}, which does not exist"


def check_text(path: str | Path) -> None:
    """Check that a name is text, before GDAL gets it.

    Args:
        path: The name.

    Raises:
        AccessError: If it holds bytes that are not UTF-8, which Python keeps and GDAL refuses.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise AccessError(
            f"{path}: the name holds bytes that are not UTF-8, which GDAL cannot use. Rename it."
        ) from error


@contextmanager
def access_errors(path: str | Path) -> Iterator[None]:
    """Turn an error of the operating system inside the block into an `AccessError` that names the path.

    Args:
        path: The path to name.

    Yields:
        Nothing.

    Raises:
        AccessError: If the operating system refuses what the block asks for.
    """
    try:
        yield
    except OSError as error:
        raise AccessError.because(path, error) from error


def read_text(path: Path) -> str:
    """Read a text that a user wrote: UTF-8, or UTF-16 if it begins with the mark of that, as PowerShell writes it.

    Args:
        path: The file.

    Returns:
        Its content without the mark; lines end in one character.

    Raises:
        AccessError: If the operating system does not let it be read.
        UnicodeDecodeError: If it has another encoding.
    """
    with access_errors(path):
        content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return io.TextIOWrapper(io.BytesIO(content), "utf-16" if wide else "utf-8-sig").read()


def entries(folder: Path) -> list[Path]:
    """List the files and folders inside a folder.

    Args:
        folder: The folder.

    Returns:
        Their paths, sorted by name.

    Raises:
        AccessError: If the folder may not be read.
    """
    with access_errors(folder):
        return sorted(folder.iterdir())


def full_path(path: str | Path) -> Path:
    """Make a name absolute, with links followed.

    Args:
        path: The name; nothing need be there.

    Returns:
        The absolute path.

    Raises:
        AccessError: If the operating system refuses the lookup, as for `look_up`.
    """
    look_up(path)
    with access_errors(path):
        return Path(os.path.realpath(path))


def check_readable(path: str | Path) -> None:
    """Check that a file may be opened for reading.

    Args:
        path: The file.

    Raises:
        AccessError: If it may not.
    """
    with access_errors(path), Path(path).open("rb"):
        pass


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file completely or not at all.

    The block writes to another name in the same folder. That file takes the target's name when the block ends without
    an error, and is removed otherwise.

    Args:
        path: The file.

    Yields:
        The name to write to.

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
    """Wait until the contents of a file are on the disk.

    Args:
        path: The file.

    Raises:
        OSError: If the disk reports an error.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def writing(path: str | Path, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors while a file or folder is written into an `OutputError` that names it.

    Args:
        path: The file or folder, or another name for the output.
        *kinds: Exceptions of the library that writes it, besides `OSError`.

    Yields:
        Nothing.

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
    """Write a file completely or not at all, so that it survives a power cut.

    As `whole_file`; in addition an earlier file stays until the new one is on the disk.

    Args:
        path: The file.
        *kinds: Exceptions of the library that writes it, besides `OSError`.

    Yields:
        The name to write to.

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
    """Find out whether two names lead to the same file.

    Args:
        first: A name.
        second: Another name.

    Returns:
        Whether both lead to one file that exists.

    Raises:
        AccessError: If the operating system refuses the lookup, as for `look_up`.
    """
    one, other = look_up(first), look_up(second)
    return one is not None and other is not None and os.path.samestat(one, other)
