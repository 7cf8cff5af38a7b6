"""Combine the probabilities of the branches into classes and layers of the map, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocrodino.maps.files import encode_fractions
from geocrodino.prediction.backends.protocol import most_likely
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme, LandClass
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.prediction import Layer

DECISIONS = ClassScheme(
    classes=(
        LandClass(value=1, name="optical", colour="#4c9ed9"),
        LandClass(value=2, name="elevation", colour="#e8a33d"),
        LandClass(value=3, name="both", colour="#8a8f98"),
    )
)
"""Classes of the map of which modality decided."""

DECIDED_BY = {c.name: c.value for c in DECISIONS.classes}
"""Pixel value for each name in `DECISIONS`."""


@dataclass(frozen=True)
class Prediction:
    """Class probabilities of one branch on a window.

    Attributes:
        probabilities: Probability of each class, float32, shape (K, H, W).
        valid: Where the modality has data, bool, shape (H, W); probabilities elsewhere mean nothing.
    """

    probabilities: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class CombinedPrediction(Prediction):
    """Class probabilities of all branches together on a window.

    Attributes:
        decided: Which modalities decided, values of `DECIDED_BY`, uint8, shape (H, W), 255 where none did.
        disagreement: Half the sum of absolute differences of the probabilities of the two modalities, 0 to 1,
            float32, shape (H, W); it means nothing outside ``compared``.
        compared: Where both modalities have data, bool, shape (H, W).
    """

    decided: NDArray[np.uint8]
    disagreement: NDArray[np.float32]
    compared: NDArray[np.bool_]


def combine(predictions: Mapping[Modality, Prediction], weight: Mapping[Modality, float]) -> CombinedPrediction:
    """Average the probabilities of the branches where both have data; elsewhere the branch with data decides.

    Args:
        predictions: Prediction of one branch or of both, all of one window.
        weight: Weight of each branch in the average, at least 0, not all 0.

    Returns:
        The combined prediction of the window.
    """
    if len(predictions) == 1:
        ((modality, only),) = predictions.items()
        decided = decided_alone(modality, only.valid)
        nothing = np.zeros(only.valid.shape, bool)
        return CombinedPrediction(only.probabilities, only.valid, decided, nothing.astype(np.float32), nothing)
    first, second = (predictions[m] for m in MODALITIES)
    both = first.valid & second.valid
    share = np.float32(weight["optical"] / (weight["optical"] + weight["elevation"]))
    alone = np.where(first.valid, first.probabilities, second.probabilities)
    pooled = np.where(both, share * first.probabilities + (1 - share) * second.probabilities, alone)
    decided = first.valid * np.uint8(DECIDED_BY["optical"]) + second.valid * np.uint8(DECIDED_BY["elevation"])
    valid = first.valid | second.valid
    decided[~valid] = IGNORE_INDEX
    apart = 0.5 * np.abs(first.probabilities - second.probabilities).sum(axis=0)
    return CombinedPrediction(pooled, valid, decided, apart, both)


def decided_alone(modality: Modality, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Which modality decided in a map of one modality.

    Args:
        modality: The modality.
        valid: Where it has data, bool, shape (H, W).

    Returns:
        Its value of `DECIDED_BY` where it has data, 255 elsewhere, uint8, shape (H, W).
    """
    return np.where(valid, np.uint8(DECIDED_BY[modality]), np.uint8(IGNORE_INDEX))


def class_indices(combined: CombinedPrediction) -> NDArray[np.uint8]:
    """The most likely class of each pixel.

    Args:
        combined: Probabilities of K classes.

    Returns:
        Class indices, uint8, shape (H, W), 255 where no modality has data.
    """
    indices = most_likely(combined.probabilities)
    indices[~combined.valid] = IGNORE_INDEX
    return indices


def layer_bands(layers: tuple[Layer, ...], classes: ClassScheme) -> tuple[str, ...]:
    """Names of the bands of a layers file.

    Args:
        layers: The layers.
        classes: Classes of the map; the layer ``probabilities`` has a band for each.

    Returns:
        Descriptions of the bands, in the order of the layers.
    """
    return tuple(
        band
        for layer in layers
        for band in ([f"probability of {name}" for name in classes.names] if layer == "probabilities" else [layer])
    )


def layer_values(layers: tuple[Layer, ...], combined: CombinedPrediction) -> NDArray[np.uint8]:
    """Pixel values of a layers file.

    Args:
        layers: The layers.
        combined: Probabilities of a window.

    Returns:
        uint8, shape (bands, H, W), bands in the order of `layer_bands`, 0 to 254 for 0 to 1, 255 for no value.
    """
    return np.concatenate([_layer(layer, combined) for layer in layers])


def _layer(layer: Layer, combined: CombinedPrediction) -> NDArray[np.uint8]:
    probabilities = combined.probabilities
    if layer == "probabilities":
        return encode_fractions(probabilities, combined.valid)
    if layer == "disagreement":
        return encode_fractions(combined.disagreement[None], combined.compared)
    if layer == "confidence":
        return encode_fractions(probabilities.max(axis=0, keepdims=True), combined.valid)
    terms = probabilities * np.log(np.maximum(probabilities, np.float32(1e-12)))
    highest = np.log(max(2, len(probabilities)))
    return encode_fractions((-terms.sum(axis=0, keepdims=True) / highest).astype(np.float32), combined.valid)
