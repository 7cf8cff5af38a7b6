"""The number of threads that PyTorch computes with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_counting = Lock()
_before: list[int] = []
"""Torch's number of threads before the first prediction that is running, once for each running prediction."""


@contextmanager
def one_thread_per_network() -> Iterator[None]:
    """Let each network compute with one thread.

    Results of workers then do not depend on their number. Small networks are faster: with two threads on two processors
    that another program keeps busy, the threads wait for each other, and opening a network took ten times as long.
    Does nothing if PyTorch is not loaded.

    Yields:
        Nothing; the number of threads is restored at the end.
    """
    if "torch" not in sys.modules:
        yield
        return
    import torch  # waits if another thread is importing it

    with _counting:
        before = _before[0] if _before else torch.get_num_threads()
        _before.append(before)
    one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        with _counting:
            _before.pop()


def one_thread() -> None:
    """Let PyTorch use one thread for calls from the current thread; does nothing if PyTorch is not loaded."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
