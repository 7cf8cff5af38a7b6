"""Labels of scenes in memory: compressed where there are many scenes, whose labels may be 20 GB together."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PackedLabels:
    """Class indices of a scene, compressed.

    Attributes:
        shape: Rows and columns.
        content: The compressed indices.
    """

    shape: tuple[int, ...]
    content: bytes

    def unpack(self) -> NDArray[np.uint8]:
        """Decompress the indices.

        Returns:
            Class indices, uint8, shape (H, W), read-only.
        """
        return np.frombuffer(zlib.decompress(self.content), np.uint8).reshape(self.shape)


HeldLabels = NDArray[np.uint8] | PackedLabels
"""Class indices of a scene, uint8, shape (H, W), as they are or compressed."""


def packed(labels: NDArray[np.uint8]) -> HeldLabels:
    """Compress labels.

    Args:
        labels: Class indices, uint8, shape (H, W).

    Returns:
        The same compressed; of a single class without memory, as they are.
    """
    if labels.size and (labels == labels.flat[0]).all():
        return np.broadcast_to(labels.flat[0], labels.shape)
    return PackedLabels(labels.shape, zlib.compress(np.ascontiguousarray(labels).data, 1))


def unpacked(labels: HeldLabels) -> NDArray[np.uint8]:
    """Give labels as an array.

    Args:
        labels: Labels, compressed or not.

    Returns:
        Class indices, uint8, shape (H, W).
    """
    return labels.unpack() if isinstance(labels, PackedLabels) else labels
