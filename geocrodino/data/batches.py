"""Batches that are read into their own memory: samples that are stacked afterwards would be copied once more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from geocrodino.data.datasets import CoregisteredDataset


class BatchReader(Dataset[dict[str, Any]]):
    """Reads the samples of a batch side by side. Use it in a `DataLoader` with `as_read`."""

    def __init__(self, dataset: CoregisteredDataset) -> None:
        """Take a dataset.

        Args:
            dataset: Where samples are read.
        """
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, query: Any) -> dict[str, Any]:
        return self.dataset[query]

    def __getitems__(self, queries: Sequence[Any]) -> dict[str, Tensor]:
        """Read a batch.

        Args:
            queries: Queries of the dataset, of windows of one size.

        Returns:
            The same tensors as PyTorch's own collation of the samples, in the same order.

        Raises:
            IndexError: If a window reaches outside its scene.
        """
        windows = [self.dataset.located(query) for query in queries]
        batch = {
            name: _empty((len(windows), *shape), dtype)
            for name, (shape, dtype) in self.dataset.layout(windows[0].window.shape).items()
        }
        for number, (scene, window) in enumerate(windows):
            self.dataset.fill({name: values[number] for name, values in batch.items()}, window, scene)
        return batch


def as_read(batch: Any) -> Any:
    """Leave a batch as it was read, in place of PyTorch's own collation.

    Args:
        batch: The batch.

    Returns:
        The same.
    """
    return batch


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor without values; of a reading process in the memory that it shares with the training, as in PyTorch."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    new_shared = getattr(torch.UntypedStorage, "_new_shared", None)
    if new_shared is None:  # it is PyTorch's own; the public way moves the empty tensor, and takes twice the time
        shared: Tensor = torch.empty(shape, dtype=dtype).share_memory_()
        return shared
    values = torch.empty(0, dtype=dtype)
    storage: torch.UntypedStorage = new_shared(math.prod(shape) * values.element_size())
    return values.set_(storage).view(tuple(shape))
