"""The interface of an inference backend: class probabilities, or the most likely classes, of a tile."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geocrodino.settings.prediction import BackendName


class Backend(Protocol):
    """Computes a network on tiles; may be called from several threads at once.

    Attributes:
        name: ``torch`` or ``openvino``.
        number: Type of the numbers that it computes in: ``float32``, ``float16``,
            ``bfloat16`` or ``int8``.
        trim_px: Pixels on each side of a tile that its result leaves out.
    """

    name: BackendName
    number: str
    trim_px: int

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a tile.

        Args:
            values: Normalised channels, float32, shape (C, H, W), H and W multiples of the network's stride.

        Returns:
            softmax(logits / temperature), float32, shape (K, H - 2 * trim_px, W - 2 * trim_px), a new array.
        """
        ...

    def classes(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Index of the most likely class at each pixel, the first of equally likely ones.

        Args:
            values: Normalised channels, float32, shape (C, H, W), H and W multiples of the network's stride.

        Returns:
            uint8, shape (H - 2 * trim_px, W - 2 * trim_px), a new array.
        """
        ...


def most_likely(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Index of the largest probability at each pixel, the first of equal ones.

    ``argmax`` along the first axis gives the same, but copies the whole array first.

    Args:
        probabilities: float32, shape (K, H, W).

    Returns:
        uint8, shape (H, W); 0 where all probabilities are NaN.
    """
    largest = probabilities[0].copy()
    indices = np.zeros(largest.shape, np.uint8)
    for index, probability in enumerate(probabilities[1:], start=1):
        larger = probability > largest
        indices[larger] = index
        np.maximum(largest, probability, out=largest)
    return indices
