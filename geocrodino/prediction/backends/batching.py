"""Batches of tiles that several threads request one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition, Lock
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Result = TypeVar("Result")

_PATIENCE_S = 0.05  # how long a batch waits for more before it is computed with fewer


class Batches(Generic[Result]):
    """Computes tiles of several threads in batches.

    The first thread that waits collects tiles of the shape of its own tile until there are enough, or no more arrives
    for a while, and has them computed for all; the other threads read the next tiles in this time.

    Args:
        compute: Computes 1 to ``size`` tiles of one shape, results in their order; never called twice at the same
            time if ``size`` is above 1.
        size: Most tiles at once. With 1, each thread has its own tile computed.
    """

    def __init__(self, compute: Callable[[Sequence[NDArray[np.float32]]], Sequence[Result]], size: int) -> None:
        self._compute, self._size = compute, size
        self._waiting: list[tuple[NDArray[np.float32], Future[Result]]] = []
        self._came, self._computing = Condition(), Lock()

    def __call__(self, tile: NDArray[np.float32]) -> Result:
        """Compute one tile, together with those of other threads.

        Args:
            tile: Normalised channels, float32, shape (C, H, W).

        Returns:
            The result for this tile.
        """
        if self._size == 1:
            return self._compute([tile])[0]
        future: Future[Result] = Future()
        with self._came:
            self._waiting.append((tile, future))
            self._came.notify_all()
        with self._computing:
            while not future.done():  # it may be done in the batch of another thread; one earlier batch may come first
                self._compute_batch(self._gather(tile.shape))
        return future.result()

    def _gather(self, shape: tuple[int, ...]) -> list[tuple[NDArray[np.float32], Future[Result]]]:
        """Waiting tiles of one shape: a full batch, or fewer if no more arrive for a while."""

        def fitting() -> list[tuple[NDArray[np.float32], Future[Result]]]:
            return [entry for entry in self._waiting if entry[0].shape == shape][: self._size]

        with self._came:
            while len(taken := fitting()) < self._size:
                if not self._came.wait(_PATIENCE_S):
                    break
            self._waiting = [entry for entry in self._waiting if not any(entry is one for one in taken)]
        return taken

    def _compute_batch(self, batch: Sequence[tuple[NDArray[np.float32], Future[Result]]]) -> None:
        try:
            results = self._compute([tile for tile, _ in batch])
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
