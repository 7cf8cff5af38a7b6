"""Calibration of class probabilities: temperature, pooling weight of two modalities, reliability curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from geocrodino.settings.classes import IGNORE_INDEX

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
"""Range in which a temperature is searched."""

_ROUNDING = 1e-3
"""How far a probability may lie outside 0 to 1 because of rounding in half precision and interpolation."""

_EM_STEPS, _EM_CHANGE = 500, 1e-7


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Fit the temperature that makes the labels most likely under softmax(logits / temperature).

    Above 1, the network was overconfident; below 1, underconfident. The most likely class does not change. The result
    is 1 if the temperature makes no difference, and an end of the range if the optimum lies beyond it (0.05 if every
    sample is classified correctly).

    Args:
        logits: Logits of samples that the network was not trained on, floating, shape (N, K).
        labels: Class indices, integer, shape (N,). Samples with 255 have no label and do not count.

    Returns:
        Temperature, 0.05 to 20.

    Raises:
        ValueError: If no sample has a label, shapes or indices do not fit, or a logit is not finite.

    References:
        Guo et al. (2017). On calibration of modern neural networks. https://arxiv.org/abs/1706.04599

    Examples:
        Three of four samples are class 0, and the logits differ by 1. The best probability is 3/4: 1 / T = log(3).

        >>> round(fit_temperature(np.array([[1.0, 0.0]] * 4), np.array([0, 0, 0, 1])), 3)
        0.91
    """
    (logits,), labels = _labelled(labels, logits=logits)
    _require_samples(labels)
    if logits.shape[1] == 1:
        return 1.0
    own = labels[:, None]
    others = np.arange(logits.shape[1]) != own
    margins = (logits - np.take_along_axis(logits, own, axis=1))[others].reshape(len(labels), -1)
    largest = margins.max(axis=1)
    below = margins - largest[:, None]

    def loss(log_temperature: float) -> float:
        # The loss is log(1 + sum of the other classes' terms). logaddexp keeps that sum exact even where it is tiny.
        temperature = np.exp(log_temperature)
        rest = np.log(np.exp(below / temperature).sum(axis=1))
        return float(np.logaddexp(0, largest / temperature + rest).mean())

    best = np.exp(_minimise(loss, np.log(LOWEST_TEMPERATURE), 0.0, np.log(HIGHEST_TEMPERATURE)))
    return float(np.clip(best, LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE))


def fit_pooling(optical: NDArray[np.floating], elevation: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Fit the weight w that makes the labels most likely under w * optical + (1 - w) * elevation.

    Args:
        optical: Probabilities from the image for samples that the networks were not trained on, shape (N, K), 0 to 1.
        elevation: Probabilities from elevation for the same samples, shape (N, K), 0 to 1.
        labels: Class indices, integer, shape (N,). Samples with 255 have no label and do not count.

    Returns:
        Weight of the optical probabilities, 0 to 1; 0.5 if it makes no difference.

    Raises:
        ValueError: If no sample has a label, shapes or indices do not fit, or a value is not a probability.

    References:
        Stone (1961). The opinion pool (linear pooling). https://doi.org/10.1214/aoms/1177704873

    Examples:
        Only the optical probabilities favour the right class:

        >>> fit_pooling(np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]]), np.array([0]))
        1.0
    """
    (optical, elevation), labels = _labelled(labels, optical=optical, elevation=elevation)
    _require_samples(labels)
    for name, values in (("optical", optical), ("elevation", elevation)):
        _require_probabilities(name, values)
    own = labels[:, None]
    from_image, from_heights = (np.take_along_axis(p, own, axis=1) for p in (optical, elevation))

    def loss(weight: float) -> float:
        # Without the limit, one sample with probability 0 in both would make the loss infinite for every weight.
        pooled = np.maximum(weight * from_image + (1 - weight) * from_heights, np.finfo(np.float64).tiny)
        return float(-np.log(pooled).mean())

    return _minimise(loss, 0.0, 0.5, 1.0)


def fit_weights(probabilities: Mapping[str, NDArray[np.floating]], labels: NDArray[np.integer]) -> dict[str, float]:
    """Fit the weights, one for each source of probabilities, that make the labels most likely under their average.

    Two sources are fitted by `fit_pooling`, more by expectation maximisation, which starts with equal weights and never
    makes the labels less likely.

    Args:
        probabilities: At least one source by name: probabilities for the same samples, shape (N, K), 0 to 1.
        labels: Class indices, integer, shape (N,). Samples with 255 have no label and do not count.

    Returns:
        Weights by name, 0 to 1, which add up to 1.

    Raises:
        ValueError: If no sample has a label, shapes or indices do not fit, or a value is not a probability.

    References:
        Dempster et al. (1977). Maximum likelihood from incomplete data via the EM algorithm.
        https://doi.org/10.1111/j.2517-6161.1977.tb01600.x

    Examples:
        >>> right, wrong = np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])
        >>> weights = fit_weights({"optical": right, "elevation": wrong, "radar": wrong}, np.array([0]))
        >>> {name: round(weight, 3) for name, weight in weights.items()}
        {'optical': 1.0, 'elevation': 0.0, 'radar': 0.0}
    """
    names = list(probabilities)
    if len(names) == 2:
        weight = fit_pooling(probabilities[names[0]], probabilities[names[1]], labels)
        return {names[0]: weight, names[1]: 1 - weight}
    chosen, counted = _labelled(labels, **probabilities)
    _require_samples(counted)
    for name, values in zip(names, chosen, strict=True):
        _require_probabilities(name, values)
    of_label = np.stack([np.take_along_axis(p, counted[:, None], axis=1)[:, 0] for p in chosen])
    weights = np.full(len(names), 1 / len(names))
    for _ in range(_EM_STEPS):
        parts = weights[:, None] * of_label
        before, weights = weights, (parts / np.maximum(parts.sum(axis=0), np.finfo(np.float64).tiny)).mean(axis=1)
        total = weights.sum()
        weights = weights / total if total > 0 else before  # every source gives every label the probability 0
        if np.abs(weights - before).max() < _EM_CHANGE:
            break
    return dict(zip(names, weights.tolist(), strict=True))


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy of samples, in bins of confidence.

    The confidence of a sample is the probability of its most likely class. Sums are stored instead of means, so that
    results of several blocks can be added.

    Attributes:
        edges: Edges of the M bins, rising from 0 to 1, float64, shape (M + 1,). A bin includes its lower edge; the last
            bin includes both.
        count: Samples in each bin, int64, shape (M,).
        hits: Samples in each bin whose most likely class is their label, int64, shape (M,).
        total: Sum of the confidences in each bin, float64, shape (M,).

    References:
        Guo et al. (2017). On calibration of modern neural networks. https://arxiv.org/abs/1706.04599
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    hits: NDArray[np.int64]
    total: NDArray[np.float64]

    @classmethod
    def of(cls, probabilities: NDArray[np.floating], labels: NDArray[np.integer], bins: int = 15) -> Self:
        """Sort samples into bins of equal width.

        Args:
            probabilities: Class probabilities, floating, shape (N, K), 0 to 1.
            labels: Class indices, integer, shape (N,). Samples with 255 have no label and do not count.
            bins: Number of bins, at least 1.

        Returns:
            Counts and sums of the samples.

        Raises:
            ValueError: If shapes or indices do not fit, a value is not a probability, or ``bins`` is below 1.

        Examples:
            Two samples with confidence 0.8, one of them right: the error is 0.8 - 0.5.

            >>> curve = Reliability.of(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]))
            >>> round(curve.expected_calibration_error, 3)
            0.3
        """
        if bins < 1:
            raise ValueError(f"expected at least one bin, found {bins}")
        (probabilities,), labels = _labelled(labels, probabilities=probabilities)
        _require_probabilities("probabilities", probabilities)
        confidence = np.clip(probabilities.max(axis=1, initial=0), 0, 1)
        return cls.of_confidence(confidence, probabilities.argmax(axis=1) == labels, bins)

    @classmethod
    def of_confidence(cls, confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 15) -> Self:
        """Sort samples into bins of equal width when only their confidence is known.

        Args:
            confidence: Probability of the most likely class, floating, shape (N,), 0 to 1.
            right: Whether that class is the label, bool, shape (N,).
            bins: Number of bins, at least 1.

        Returns:
            Counts and sums of the samples.
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
        """Add the samples of another result with the same bins.

        Args:
            other: The other result.

        Returns:
            The result for the samples of both.

        Raises:
            ValueError: If the bins differ.
        """
        if not np.array_equal(self.edges, other.edges):
            raise ValueError(f"expected the same bins, found {len(self.count)} and {len(other.count)}")
        return type(self)(self.edges, self.count + other.count, self.hits + other.hits, self.total + other.total)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Mean confidence of each bin, 0 to 1, NaN for empty bins, float64, shape (M,)."""
        return _mean(self.total, self.count)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Share of correct samples of each bin, 0 to 1, NaN for empty bins, float64, shape (M,)."""
        return _mean(self.hits, self.count)

    @property
    def expected_calibration_error(self) -> float:
        """Mean of |accuracy - confidence| over the bins, weighted by their samples, 0 to 1; NaN without samples."""
        samples = int(self.count.sum())
        return float(np.abs(self.hits - self.total).sum() / samples) if samples else float("nan")


def _labelled(
    labels: NDArray[np.integer], **predictions: NDArray[np.floating]
) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Check the arrays and select the samples that have a label: predictions in the given order, and labels."""
    shape = next(iter(predictions.values())).shape
    if len(shape) != 2 or labels.shape != shape[:1] or any(values.shape != shape for values in predictions.values()):
        found = ", ".join(str(values.shape) for values in (*predictions.values(), labels))
        raise ValueError(f"expected {', '.join(predictions)} (N, K) and labels (N,), found {found}")
    counted = labels != IGNORE_INDEX
    truth = labels[counted].astype(np.int64)
    unknown = truth[(truth < 0) | (truth >= shape[1])]
    if unknown.size:
        raise ValueError(f"expected label indices 0 to {shape[1] - 1} or {IGNORE_INDEX}, found {unknown[0]}")
    chosen = [values[counted].astype(np.float64) for values in predictions.values()]
    for name, values in zip(predictions, chosen, strict=True):
        if not np.isfinite(values).all():
            raise ValueError(f"expected finite {name}, found infinity or NaN")
    return chosen, truth


def _require_samples(labels: NDArray[np.int64]) -> None:
    if not labels.size:
        raise ValueError("expected at least one sample with a label, found none")


def _require_probabilities(name: str, values: NDArray[np.float64]) -> None:
    if values.size and (values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING):
        raise ValueError(f"expected {name} within 0 to 1, found {values.min():.3g} to {values.max():.3g}")


def _minimise(loss: Callable[[float], float], low: float, neutral: float, high: float) -> float:
    """Position of the minimum of a unimodal function; the neutral position if the minimum is not lower than there."""
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    # The bounded search approaches the ends without reaching them, so compare them too.
    return min((neutral, low, high, float(found.x)), key=loss)


def _mean(total: NDArray[np.float64] | NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Quotient, NaN where the count is zero."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
