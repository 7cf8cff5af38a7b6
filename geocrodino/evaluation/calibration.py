"""How far probabilities can be believed, and the two numbers that make them more believable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from geocrodino.settings.classes import IGNORE_INDEX

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0

_ROUNDING = 1e-3
"""How far a probability may lie outside 0 to 1: half precision and interpolation round."""


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Temperature that makes softmax(logits / temperature) most likely, given the labels.

    Above 1 the network was too sure of itself, below 1 not sure enough. The most likely class stays the same.
    It is an end of its range where going on would be better still (0.05 if every sample is right), and 1 where it
    makes no difference.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599

    Args:
        logits: Scores of samples that the network was not trained on, (N, K).
        labels: Their class indices, (N,); 255 is no label, and such samples do not count.

    Returns:
        Temperature, 0.05 to 20.

    Raises:
        ValueError: If no sample has a label, shapes or indices do not fit, or a logit is not finite.
    """
    (logits,), labels = _labelled(labels, logits=logits)
    _refuse_none(labels)
    own = labels[:, None]
    margins = logits - np.take_along_axis(logits, own, axis=1)
    # The label's own term of the sum is 1; apart from the others, it does not swallow them where they are tiny.
    np.put_along_axis(margins, own, -np.inf, axis=1)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, logsumexp(margins / np.exp(log_temperature), axis=1)).mean())

    best = np.exp(_lowest(loss, np.log(LOWEST_TEMPERATURE), 0.0, np.log(HIGHEST_TEMPERATURE)))
    return float(np.clip(best, LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE))


def fit_pooling(optical: NDArray[np.floating], elevation: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Weight w that makes w * optical + (1 - w) * elevation most likely, given the labels.

    Args:
        optical: Probabilities from the optical image for samples that the networks were not trained on, (N, K), 0 to 1.
        elevation: Probabilities from elevation for the same samples, (N, K), 0 to 1.
        labels: Their class indices, (N,); 255 is no label, and such samples do not count.

    Returns:
        Weight of the optical probabilities, 0 to 1.

    Raises:
        ValueError: If no sample has a label, shapes or indices do not fit, or a value is not a probability.
    """
    (optical, elevation), labels = _labelled(labels, optical=optical, elevation=elevation)
    _refuse_none(labels)
    for name, values in (("optical", optical), ("elevation", elevation)):
        _refuse_no_probability(name, values)
    own = labels[:, None]
    ours, theirs = (np.take_along_axis(p, own, axis=1) for p in (optical, elevation))

    def loss(weight: float) -> float:
        # Where both say 0, no weight helps, and infinity would hide what the other samples say.
        pooled = np.maximum(weight * ours + (1 - weight) * theirs, np.finfo(np.float64).tiny)
        return float(-np.log(pooled).mean())

    return _lowest(loss, 0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy of samples, by bins of confidence. Sums are kept, so that blocks can be added.

    The confidence of a sample is the probability of its most likely class.

    Attributes:
        edges: Ends of the M bins from 0 to 1, rising, float64 (M + 1,). A bin holds its lower end; the last, both.
        count: Samples in each bin, int64 (M,).
        hits: Samples in each bin whose most likely class is their label, int64 (M,).
        total: Sum of the confidences in each bin, float64 (M,).
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    hits: NDArray[np.int64]
    total: NDArray[np.float64]

    @classmethod
    def of(cls, probabilities: NDArray[np.floating], labels: NDArray[np.integer], bins: int = 15) -> Self:
        """Sort samples into equally wide bins.

        Args:
            probabilities: Probabilities of the classes, (N, K), 0 to 1.
            labels: Class indices, (N,); 255 is no label, and such samples do not count.
            bins: Number of bins, at least 1.

        Raises:
            ValueError: If shapes or indices do not fit, a value is not a probability, or there is no bin.
        """
        if bins < 1:
            raise ValueError(f"expected at least one bin, found {bins}")
        (probabilities,), labels = _labelled(labels, probabilities=probabilities)
        _refuse_no_probability("probabilities", probabilities)
        confidence = np.clip(probabilities.max(axis=1, initial=0), 0, 1)
        return cls.of_confidence(confidence, probabilities.argmax(axis=1) == labels, bins)

    @classmethod
    def of_confidence(cls, confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 15) -> Self:
        """Sort samples of which only the confidence is known.

        Args:
            confidence: Probability of the most likely class, (N,), 0 to 1.
            right: Whether that class is the label, (N,).
            bins: Number of bins, at least 1.
        """
        edges = np.linspace(0, 1, bins + 1)
        place = np.minimum(np.searchsorted(edges, confidence, side="right") - 1, bins - 1)
        return cls(
            edges=edges,
            count=np.bincount(place, minlength=bins).astype(np.int64),
            hits=np.bincount(place[right], minlength=bins).astype(np.int64),
            total=np.bincount(place, weights=confidence, minlength=bins).astype(np.float64),
        )

    def add(self, other: Self) -> Self:
        """Both together, as if their samples had come at once.

        Raises:
            ValueError: If the bins differ.
        """
        if not np.array_equal(self.edges, other.edges):
            raise ValueError(f"expected the same bins, found {len(self.count)} and {len(other.count)}")
        return type(self)(self.edges, self.count + other.count, self.hits + other.hits, self.total + other.total)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Mean confidence of each bin, 0 to 1, NaN where it is empty, float64 (M,)."""
        return _mean(self.total, self.count)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Share of the samples of each bin that are right, NaN where it is empty, float64 (M,)."""
        return _mean(self.hits, self.count)

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of a bin's accuracy from its confidence, by samples, 0 to 1; NaN without samples."""
        samples = int(self.count.sum())
        return float(np.abs(self.hits - self.total).sum() / samples) if samples else float("nan")


def _labelled(
    labels: NDArray[np.integer], **predictions: NDArray[np.floating]
) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """The samples that have a label, checked: predictions in the order given, and labels."""
    shape = next(iter(predictions.values())).shape
    if len(shape) != 2 or labels.shape != shape[:1] or any(values.shape != shape for values in predictions.values()):
        found = ", ".join(str(values.shape) for values in (*predictions.values(), labels))
        raise ValueError(f"expected {', '.join(predictions)} (N, K) and labels (N,), found {found}")
    counted = labels != IGNORE_INDEX
    truth = labels[counted].astype(np.int64)
    if ((truth < 0) | (truth >= shape[1])).any():
        raise ValueError(f"expected label indices 0 to {shape[1] - 1} or {IGNORE_INDEX}, found others")
    chosen = [values[counted].astype(np.float64) for values in predictions.values()]
    for name, values in zip(predictions, chosen, strict=True):
        if not np.isfinite(values).all():
            raise ValueError(f"expected finite {name}, found others")
    return chosen, truth


def _refuse_none(labels: NDArray[np.int64]) -> None:
    if not labels.size:
        raise ValueError("expected at least one sample with a label, found none")


def _refuse_no_probability(name: str, values: NDArray[np.float64]) -> None:
    if values.size and (values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING):
        raise ValueError(f"expected {name} within 0 to 1, found {values.min():.3g} to {values.max():.3g}")


def _lowest(loss: Callable[[float], float], low: float, neutral: float, high: float) -> float:
    """Where a function with one valley is lowest; the neutral place if it is nowhere lower than there."""
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    # The search alone comes near the ends but never arrives.
    return min((neutral, low, high, float(found.x)), key=loss)


def _mean(total: NDArray[np.float64] | NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Quotient, NaN where the count is zero."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
