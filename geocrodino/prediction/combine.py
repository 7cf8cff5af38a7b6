"""From what the branches say to what the map says, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geocrodino.maps.files import encode_fractions
from geocrodino.prediction.backends.protocol import most_likely
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme, LandClass
from geocrodino.settings.modality import MODALITIES, Modality

Layer = Literal["probabilities", "confidence", "entropy", "disagreement"]
"""``probabilities`` of each class; ``confidence``, that of the most likely one; ``entropy``, as a share of its highest
value; ``disagreement`` of the modalities, half the sum of absolute differences of their probabilities. All 0 to 1."""

LAYERS: tuple[Layer, ...] = get_args(Layer)

DECISIONS = ClassScheme(
    classes=(
        LandClass(value=1, name="optical", colour="#4c9ed9"),
        LandClass(value=2, name="elevation", colour="#e8a33d"),
        LandClass(value=3, name="both", colour="#8a8f98"),
    )
)
"""Which modality decided, as a map that explains itself."""

DECIDED_BY = {c.name: c.value for c in DECISIONS.classes}


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
        decided: Which modalities decided, `DECIDED_BY`, uint8, shape (H, W), 255 where none did.
        disagreement: How far they differ where there are two, 0 to 1, float32, shape (H, W).
        compared: Where there are two, bool, shape (H, W).
    """

    decided: NDArray[np.uint8]
    disagreement: NDArray[np.float32]
    compared: NDArray[np.bool_]


def combine(answers: Mapping[Modality, Answer], weight: Mapping[Modality, float]) -> Verdict:
    """Average the branches' probabilities where both have something to read; elsewhere the one that has decides.

    Args:
        answers: Of one branch or two, of one window.
        weight: Of each branch in the average, at least 0, not all 0.
    """
    if len(answers) == 1:
        ((modality, only),) = answers.items()
        decided = decided_alone(modality, only.valid)
        nothing = np.zeros(only.valid.shape, bool)
        return Verdict(only.probabilities, only.valid, decided, nothing.astype(np.float32), nothing)
    first, second = (answers[m] for m in MODALITIES)
    both = first.valid & second.valid
    share = np.float32(weight["optical"] / (weight["optical"] + weight["elevation"]))
    alone = np.where(first.valid, first.probabilities, second.probabilities)
    pooled = np.where(both, share * first.probabilities + (1 - share) * second.probabilities, alone)
    decided = first.valid * np.uint8(DECIDED_BY["optical"]) + second.valid * np.uint8(DECIDED_BY["elevation"])
    valid = first.valid | second.valid
    decided[~valid] = IGNORE_INDEX
    apart = 0.5 * np.abs(first.probabilities - second.probabilities).sum(axis=0)
    return Verdict(pooled, valid, decided, apart, both)


def decided_alone(modality: Modality, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Which modality decided where there is one: itself where it is valid, 255 elsewhere."""
    return np.where(valid, np.uint8(DECIDED_BY[modality]), np.uint8(IGNORE_INDEX))


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
        for band in ([f"probability of {name}" for name in classes.names] if layer == "probabilities" else [layer])
    )


def layer_values(layers: tuple[Layer, ...], verdict: Verdict) -> NDArray[np.uint8]:
    """Bytes of layers, shape (bands, H, W), in the order of `layer_bands`."""
    return np.concatenate([_layer(layer, verdict) for layer in layers])


def _layer(layer: Layer, verdict: Verdict) -> NDArray[np.uint8]:
    probabilities = verdict.probabilities
    if layer == "probabilities":
        return encode_fractions(probabilities, verdict.valid)
    if layer == "disagreement":
        return encode_fractions(verdict.disagreement[None], verdict.compared)
    if layer == "confidence":
        return encode_fractions(probabilities.max(axis=0, keepdims=True), verdict.valid)
    terms = probabilities * np.log(np.maximum(probabilities, np.float32(1e-12)))
    highest = np.log(max(2, len(probabilities)))
    return encode_fractions((-terms.sum(axis=0, keepdims=True) / highest).astype(np.float32), verdict.valid)
