"""The threads that PyTorch computes with: one for each network on a CPU, one for all networks on a CUDA GPU."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")

_counting = Lock()
_before: list[int] = []
"""Torch's number of threads before the first prediction that is running, once for each running prediction."""

_gpus: defaultdict[str, ThreadPoolExecutor] = defaultdict(lambda: ThreadPoolExecutor(1, thread_name_prefix="gpu"))
"""The thread of each GPU, which starts at its first call and then stays."""


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


def on_gpu_thread(compute: Callable[Given, Result], device: str) -> Callable[Given, Result]:
    """Let a function be called on the one thread of this process for a GPU, whichever thread calls it.

    The first time that a thread computes a convolution of some shape, PyTorch lets cuDNN plan it, and keeps the plan
    for this thread alone. With the default network that takes a second or more for each thread, as long as the card
    needs for 200 million pixels.

    Args:
        compute: Computes on the GPU. It must not call a function made by this one for the same GPU.
        device: Name of the GPU, such as ``cuda:0``.

    Returns:
        The same function; each call waits until the calls before it are done.
    """
    thread = _gpus[device]

    @wraps(compute)
    def there(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        return thread.submit(compute, *args, **kwargs).result()

    return there
