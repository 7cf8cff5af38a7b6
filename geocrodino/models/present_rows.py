"""Images of a batch that have a modality, where others lack it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PresentRows(NamedTuple):
    """The images that a network is passed.

    Attributes:
        numbers: Their numbers in the batch, int64, shape (N,).
        total: How many there are in the batches of all processes together. All pass them through the network if there
            is any, some of them perhaps none: batch normalisation waits for all processes.
    """

    numbers: Tensor
    total: int

    @classmethod
    def alone(cls, numbers: Tensor) -> PresentRows:
        """Take images of a batch that no other process shares.

        Args:
            numbers: Their numbers in the batch, int64, shape (N,).

        Returns:
            The images.
        """
        return cls(numbers, len(numbers))

    @property
    def passed(self) -> Tensor:
        """Numbers of the images that are passed, int64, shape (N,) or (2,).

        A single image is passed twice: if it is small, it has one value for each deep channel, of which batch
        normalisation takes no deviation.
        """
        return self.numbers.repeat(2) if self.total == 1 else self.numbers
