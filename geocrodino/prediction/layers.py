"""The table of map layers: what can be written beside the classes. Another layer is one more entry.

Importing it needs no heavy library, so that the command line can name the layers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from geocrodino.settings.prediction import Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Combined(Protocol):
    """What formulas read: the combined prediction of a window, see `CombinedPrediction`."""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Probabilities of the K classes, shape (K, H, W)."""

    @property
    def disagreement(self) -> NDArray[np.float32]:
        """Distance of the modalities, 0 to 1, shape (H, W)."""


@dataclass(frozen=True)
class OutputLayer:
    """A quantity that is written beside the class of each pixel.

    Attributes:
        description: What it is.
        values: Its formula: 0 to 1, float32, shape (bands, H, W).
        of_each_class: Whether it has a band for each class rather than one.
        compares: Whether it needs several modalities, and means something only where two of them have data.
    """

    description: str
    values: Callable[[Combined], NDArray[np.float32]]
    of_each_class: bool = False
    compares: bool = False


def _confidence(combined: Combined) -> NDArray[np.float32]:
    highest: NDArray[np.float32] = combined.probabilities.max(axis=0, keepdims=True)
    return highest


def _entropy(combined: Combined) -> NDArray[np.float32]:
    import numpy as np

    probabilities = combined.probabilities
    terms = probabilities * np.log(np.maximum(probabilities, np.float32(1e-12)))
    highest = np.log(max(2, len(probabilities)))
    share: NDArray[np.float32] = (-terms.sum(axis=0, keepdims=True) / highest).astype(np.float32)
    return share


LAYERS: dict[Layer, OutputLayer] = {
    "probabilities": OutputLayer(
        "probability of each class", lambda combined: combined.probabilities, of_each_class=True
    ),
    "confidence": OutputLayer("probability of the most likely class", _confidence),
    "entropy": OutputLayer("entropy of the probabilities as a share of its highest value", _entropy),
    "disagreement": OutputLayer(
        "largest distance between two modalities: half the sum of absolute differences of their probabilities",
        lambda combined: combined.disagreement[None],
        compares=True,
    ),
}
"""All layers by name, in the order in which they are listed."""
