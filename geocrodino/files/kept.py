"""What is read once and kept while a block of code runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


@contextmanager
def kept_inside(variable: ContextVar[dict[K, V] | None]) -> Iterator[None]:
    """Set a variable to an empty table inside the block, and to what it was after it.

    Args:
        variable: Holds the table; None: nothing is kept. A block inside another one shares its table.

    Yields:
        Nothing.
    """
    if variable.get() is not None:
        yield
        return
    token = variable.set({})
    try:
        yield
    finally:
        variable.reset(token)
