"""From what the branches say to what the map says, pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from geocrodino.maps.files import as_bytes
from geocrodino.modalities.registry import definition_of
from geocrodino.prediction.backends.protocol import most_likely
from geocrodino.prediction.layers import LAYERS, Layer
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme, LandClass
from geocrodino.settings.modality import MODALITIES, Modality

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
class Answer:
    """What is said of a window.

    Attributes:
        probabilities: Of each class, float32, shape (K, H, W).
        valid: Where they mean anything, bool, shape (H, W).
    """

    probabilities: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Verdict(Answer):
    """What the branches say together.

    Attributes:
        decided: Which modalities decided, see `decision_codes`, uint8, shape (H, W), 255 where none did.
        disagreement: How far the two that differ most are apart, 0 to 1, float32, shape (H, W).
        compared: Where there are at least two, bool, shape (H, W).
    """

    decided: NDArray[np.uint8]
    disagreement: NDArray[np.float32]
    compared: NDArray[np.bool_]


def combine(answers: Mapping[Modality, Answer], weight: Mapping[Modality, float]) -> Verdict:
    """Average the branches' probabilities over the modalities that have data at a pixel.

    Args:
        answers: Answers of one branch or more for one window.
        weight: Weight of each branch in the average, at least 0. Of two branches, one must have a weight above 0.

    Returns:
        The averaged probabilities, and which modalities they come from.
    """
    order = MODALITIES.in_order(answers)
    first, *others = (answers[m] for m in order)
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
    return Verdict(probabilities, valid, decided, apart, compared)


def _averaged(
    probabilities: NDArray[np.float32],
    valid: NDArray[np.bool_],
    total: NDArray[np.float64] | None,
    other: Answer,
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
    """Which modality decided where there is one: itself where it is valid, 255 elsewhere."""
    return np.where(valid, np.uint8(definition_of(modality).code), np.uint8(IGNORE_INDEX))


def class_indices(verdict: Verdict) -> NDArray[np.uint8]:
    """The most likely class of each pixel, 255 where nothing is valid."""
    indices = most_likely(verdict.probabilities)
    indices[~verdict.valid] = IGNORE_INDEX
    return indices


def layer_bands(layers: tuple[Layer, ...], classes: ClassScheme) -> tuple[str, ...]:
    """Descriptions of the bands of layers, in their order."""
    return tuple(
        band
        for layer in layers
        for band in ([f"probability of {name}" for name in classes.names] if LAYERS[layer].of_each_class else [layer])
    )


def layer_values(layers: tuple[Layer, ...], verdict: Verdict) -> NDArray[np.uint8]:
    """Bytes of layers, shape (bands, H, W), in the order of `layer_bands`."""
    return np.concatenate(
        [
            as_bytes(found.values(verdict), verdict.compared if found.compares else verdict.valid)
            for found in map(LAYERS.__getitem__, layers)
        ]
    )
