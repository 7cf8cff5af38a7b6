"""Labels without the pixels at the boundaries of classes, as benchmarks compare maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from geocrodino.settings.classes import IGNORE_INDEX


def without_boundaries(labels: NDArray[np.uint8], radius_px: int) -> NDArray[np.uint8]:
    """Leave out the labels of pixels that lie near another class.

    The regions of each class are eroded by a disc. Pixels without a label, and the edge of the array, are no other
    class.

    Args:
        labels: Class indices, uint8, shape (H, W), 255 where there is no label.
        radius_px: Radius of the disc, px. Pixels whose centre is at most this far from the centre of a pixel of another
            class are left out; 0 leaves none out.

    Returns:
        The labels, 255 also where they are left out, uint8, shape (H, W).

    Examples:
        >>> without_boundaries(np.array([[0, 0, 0, 1, 1, 1]], np.uint8), 2)
        array([[  0, 255, 255, 255, 255,   1]], dtype=uint8)
    """
    found = labels.copy()
    if radius_px == 0:
        return found
    labelled = labels != IGNORE_INDEX
    for index in np.unique(labels[labelled]):
        own = labels == index
        other = labelled & ~own
        if other.any():
            found[own & (distance_transform_edt(~other) <= radius_px)] = IGNORE_INDEX
    return found
