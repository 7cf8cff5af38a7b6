"""Files that appear whole under their name, or not at all, and two names for one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def same_file(first: Path, second: Path) -> bool:
    """Whether two names lead to one file that is there."""
    return first.exists() and second.exists() and first.samefile(second)
