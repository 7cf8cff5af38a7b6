"""Batches from what many threads ask for one at a time."""

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
    """Answers single tiles from several threads by computing several of them at once.

    No thread is kept for it. The first that waits gathers tiles of its shape until there are enough, or none has come
    for a while, and computes them for all; meanwhile the others read and gather the next ones.

    Args:
        compute: Answers 1 to ``size`` tiles of one shape, in their order; never called twice at the same time
            where ``size`` is above 1.
        size: Most tiles at once. With 1, each thread computes its own.
    """

    def __init__(self, compute: Callable[[Sequence[NDArray[np.float32]]], Sequence[Result]], size: int) -> None:
        self._compute, self._size = compute, size
        self._waiting: list[tuple[NDArray[np.float32], Future[Result]]] = []
        self._came, self._computing = Condition(), Lock()

    def __call__(self, tile: NDArray[np.float32]) -> Result:
        """The answer for one tile, once it is computed."""
        if self._size == 1:
            return self._compute([tile])[0]
        future: Future[Result] = Future()
        with self._came:
            self._waiting.append((tile, future))
            self._came.notify_all()
        with self._computing:
            while not future.done():  # else somebody took it along; at most a batch of earlier ones goes first
                self._answer(self._gather(tile.shape))
        return future.result()

    def _gather(self, shape: tuple[int, ...]) -> list[tuple[NDArray[np.float32], Future[Result]]]:
        """Waiting tiles of a shape, as many as there may be in a batch, as soon as they are there or none comes."""

        def fitting() -> list[tuple[NDArray[np.float32], Future[Result]]]:
            return [entry for entry in self._waiting if entry[0].shape == shape][: self._size]

        with self._came:
            while len(taken := fitting()) < self._size:
                if not self._came.wait(_PATIENCE_S):
                    break
            self._waiting = [entry for entry in self._waiting if not any(entry is one for one in taken)]
        return taken

    def _answer(self, batch: Sequence[tuple[NDArray[np.float32], Future[Result]]]) -> None:
        try:
            answers = self._compute([tile for tile, _ in batch])
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)
