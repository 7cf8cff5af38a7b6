"""What an inference backend does: class probabilities, or the most likely classes, of a tile."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geocrodino.settings.prediction import BackendName


class Backend(Protocol):
    """Computes what a network says of tiles; may be called from several threads at once.

    Attributes:
        name: ``torch`` or ``openvino``.
        number: What it computes in: ``float32``, ``float16`` or ``bfloat16``.
        trim_px: Pixels on each side of a tile that it gives no answer for.
    """

    name: BackendName
    number: str
    trim_px: int

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a tile.

        Args:
            values: Normalised channels, float32, shape (C, H, W), H and W multiples of the network's stride.

        Returns:
            softmax(logits / temperature), float32, shape (K, H - 2 * trim_px, W - 2 * trim_px), an array of the
            caller's own.
        """
        ...

    def classes(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Index of the most likely class at each pixel, the first of equals, without the way over probabilities.

        Args:
            values: As for the call.

        Returns:
            uint8, shape (H - 2 * trim_px, W - 2 * trim_px), an array of the caller's own.
        """
        ...


def most_likely(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Index of the largest of K probabilities, shape (K, H, W), at each pixel; the first one of equals.

    As ``argmax`` along the first axis, which copies the whole array to begin with; 0 where all are NaN.
    """
    largest = probabilities[0].copy()
    indices = np.zeros(largest.shape, np.uint8)
    for index, probability in enumerate(probabilities[1:], start=1):
        larger = probability > largest
        indices[larger] = index
        np.maximum(largest, probability, out=largest)
    return indices
