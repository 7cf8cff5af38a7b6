"""Combine the probabilities of the branches into classes and layers of the map, pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from geocrodino.maps.files import encode_fractions
from geocrodino.modalities.registry import definition_of
from geocrodino.prediction.backends.protocol import most_likely
from geocrodino.prediction.layers import LAYERS
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme, LandClass
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.prediction import Layer

_SEVERAL = "#8a8f98"
"""Colour of pixels that all modalities decided together."""


def decision_codes(modalities: Iterable[Modality]) -> dict[str, int]:
    """Values of a ``decided by`` map: each modality has one, and pixels that several decided the sum of theirs.

    Args:
        modalities: The modalities of the map.

    Returns:
        Codes by name: the modalities, then their combinations; all together are ``both`` or ``all``.
    """
    order = MODALITIES.in_order(modalities)
    codes: dict[str, int] = {}
    for count in range(1, len(order) + 1):
        for chosen in combinations(order, count):
            whole = len(chosen) == len(order) > 1
            name = ("both" if len(order) == 2 else "all") if whole else " and ".join(chosen)
            codes[name] = sum(definition_of(m).code for m in chosen)
    return codes


def decisions(modalities: Iterable[Modality]) -> ClassScheme:
    """Which modality decided, as the classes of a map that explains itself.

    Args:
        modalities: The modalities of the map.

    Returns:
        A class for each of `decision_codes`.
    """
    order = MODALITIES.in_order(modalities)
    own = {definition_of(m).code: definition_of(m).colour for m in order}
    codes = decision_codes(order)
    everything = sum(own)

    def colour(code: int) -> str:
        if code == everything and len(own) > 1:
            return _SEVERAL
        parts = [hexadecimal for bit, hexadecimal in own.items() if code & bit]
        mixed = (sum(int(part[i : i + 2], 16) for part in parts) // len(parts) for i in (1, 3, 5))
        return "#" + "".join(f"{value:02x}" for value in mixed)

    return ClassScheme(classes=tuple(LandClass(value=c, name=n, colour=colour(c)) for n, c in codes.items()))


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
        decided: Which modalities decided, values of `decision_codes`, uint8, shape (H, W), 255 where none did.
        disagreement: Half the sum of absolute differences of the probabilities of the two modalities that differ most,
            0 to 1, float32, shape (H, W); it means nothing outside ``compared``.
        compared: Where at least two modalities have data, bool, shape (H, W).
    """

    decided: NDArray[np.uint8]
    disagreement: NDArray[np.float32]
    compared: NDArray[np.bool_]


def combine(predictions: Mapping[Modality, Prediction], weight: Mapping[Modality, float]) -> CombinedPrediction:
    """Average the branches' probabilities over the modalities that have data at a pixel.

    Args:
        predictions: Prediction of one branch or more, all of one window.
        weight: Weight of each branch in the average, at least 0. Of two branches, one must have a weight above 0.

    Returns:
        The combined prediction of the window.
    """
    order = MODALITIES.in_order(predictions)
    first, *others = (predictions[m] for m in order)
    decided = first.valid * np.uint8(definition_of(order[0]).code)
    compared = np.zeros(first.valid.shape, bool)
    apart = compared.astype(np.float32)
    probabilities, valid = first.probabilities, first.valid
    total = np.full(first.valid.shape, float(weight[order[0]])) if others else None
    for modality, other in zip(order[1:], others, strict=True):
        probabilities, total = _averaged(probabilities, valid, total, other, weight[modality])
        valid = valid | other.valid
        decided = decided + other.valid * np.uint8(definition_of(modality).code)
    for one, two in combinations((first, *others), 2):
        both = one.valid & two.valid
        distance = 0.5 * np.abs(one.probabilities - two.probabilities).sum(axis=0)
        apart = np.where(both, np.maximum(apart, distance), apart)
        compared |= both
    decided[~valid] = IGNORE_INDEX
    return CombinedPrediction(probabilities, valid, decided, apart, compared)


def _averaged(
    probabilities: NDArray[np.float32],
    valid: NDArray[np.bool_],
    total: NDArray[np.float64] | None,
    other: Prediction,
    weight: float,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Take one more branch into an average; returns it and the weight of each pixel so far."""
    before = np.zeros(valid.shape) if total is None else total
    both = valid & other.valid
    share = np.divide(before, before + weight, out=np.full(valid.shape, 0.5), where=before + weight > 0)
    share = share.astype(np.float32)
    alone = np.where(valid, probabilities, other.probabilities)
    pooled = np.where(both, share * probabilities + (1 - share) * other.probabilities, alone)
    return pooled, np.where(both, before + weight, np.where(valid, before, weight))


def decided_alone(modality: Modality, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Which modality decided in a map of one modality.

    Args:
        modality: The modality.
        valid: Where it has data, bool, shape (H, W).

    Returns:
        Its code where it has data, 255 elsewhere, uint8, shape (H, W).
    """
    return np.where(valid, np.uint8(definition_of(modality).code), np.uint8(IGNORE_INDEX))


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
        for band in ([f"probability of {name}" for name in classes.names] if LAYERS[layer].of_each_class else [layer])
    )


def layer_values(layers: tuple[Layer, ...], combined: CombinedPrediction) -> NDArray[np.uint8]:
    """Pixel values of a layers file.

    Args:
        layers: The layers.
        combined: Probabilities of a window.

    Returns:
        uint8, shape (bands, H, W), bands in the order of `layer_bands`, 0 to 254 for 0 to 1, 255 for no value.
    """
    return np.concatenate(
        [
            encode_fractions(layer.values(combined), combined.compared if layer.compares else combined.valid)
            for layer in map(LAYERS.__getitem__, layers)
        ]
    )
