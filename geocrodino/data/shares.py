"""How a batch is divided into equal parts: among processes, and among passes whose gradients are added."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler


@dataclass(frozen=True)
class BatchShare:
    """Parts of a batch, whose first rows are patches with labels and whose others have none.

    Attributes:
        labelled: Patches with labels in the batch, a multiple of ``count``.
        unlabelled: Patches without, a multiple of ``count``.
        count: Number of parts.
    """

    labelled: int
    unlabelled: int
    count: int

    @property
    def total(self) -> int:
        """Patches in the batch."""
        return self.labelled + self.unlabelled

    def rows(self, part: int) -> Tensor:
        """Rows of a part: its patches with labels, then those without.

        Args:
            part: Number of the part, from 0.

        Returns:
            Row numbers in the batch, int64, shape (total / count,).

        Examples:
            >>> BatchShare(labelled=4, unlabelled=2, count=2).rows(1)
            tensor([2, 3, 5])
        """
        own, others = self.labelled // self.count, self.unlabelled // self.count
        first, second = part * own, self.labelled + part * others
        return torch.cat([torch.arange(first, first + own), torch.arange(second, second + others)])


class _EpochSampler(Protocol):
    """A sampler whose order depends on the epoch."""

    def set_epoch(self, epoch: int) -> None: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class ShareSampler(Sampler[Any], Sized):
    """The rows of one part of every batch that another sampler yields.

    Every process draws all patches and reads its own, so the batches do not depend on the number of processes.
    """

    def __init__(self, sampler: _EpochSampler, share: BatchShare, part: int) -> None:
        """Choose the rows.

        Args:
            sampler: Yields the patches of whole batches, one batch after the other.
            share: The parts of a batch.
            part: Number of the part, from 0.
        """
        self.sampler, self.share = sampler, share
        self.rows: list[int] = share.rows(part).tolist()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides the patches; Lightning calls this.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler) // self.share.count

    def __iter__(self) -> Iterator[Any]:
        patches = iter(self.sampler)
        while len(batch := list(islice(patches, self.share.total))) == self.share.total:
            yield from (batch[row] for row in self.rows)
