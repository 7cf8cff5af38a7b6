"""Scores of a class map, computed from one confusion matrix over all pixels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocrodino.settings.classes import IGNORE_INDEX


@dataclass(frozen=True)
class Scores:
    """Scores of one map. Tuples have one entry per class, in index order. Shares are 0 to 1.

    A class that occurs neither in the labels nor in the map has NaN scores. Means are taken over the classes that occur
    in the labels. A class that occurs only in the map has IoU 0 and is not part of the mean, but its pixels are missing
    from the classes they are labelled as.

    Attributes:
        iou: Intersection over union of each class.
        f1: Harmonic mean of precision and recall of each class.
        precision: Share of the map's pixels of a class that have this label.
        recall: Share of the labelled pixels of a class that have this class in the map.
        support: Labelled pixels of each class.
        mean_iou: Mean IoU over the classes in the labels, without those that are excluded; NaN without labels.
        mean_f1: Mean F1 over the same classes; NaN without labels.
        accuracy: Share of labelled pixels whose class in the map is right.
        kappa: Cohen's kappa, -1 to 1. If pixels without a class count as wrong, "no class" is a class of its own here.
        pixels: Labelled pixels, including those without a class in the map.
        missed: Labelled pixels without a class in the map.
    """

    iou: tuple[float, ...]
    f1: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    support: tuple[int, ...]
    mean_iou: float
    mean_f1: float
    accuracy: float
    kappa: float
    pixels: int
    missed: int


class ConfusionMatrix:
    """Counts of labelled pixels by their class in the labels and in the map.

    Args:
        classes: Number of classes K, at least 1.

    Attributes:
        counts: Rows are the labels, columns the map, int64, shape (K, K).
        missed: Labelled pixels of each class without a class in the map, int64, shape (K,).

    Raises:
        ValueError: If ``classes`` is below 1.
    """

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise ValueError(f"expected at least one class, found {classes}")
        self.counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)
        self.missed: NDArray[np.int64] = np.zeros(classes, np.int64)

    def update(self, labels: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Add pixels.

        Args:
            labels: Class indices, integer, any shape. Pixels with 255 have no label and do not count.
            predicted: Class indices of the map, integer, same shape. 255: no class.

        Raises:
            ValueError: If the shapes differ, or an index is neither a class nor 255.
        """
        if labels.shape != predicted.shape:
            raise ValueError(f"expected labels and map of one shape, found {labels.shape} and {predicted.shape}")
        classes = len(self.missed)
        labelled = labels != IGNORE_INDEX
        truth, mapped = labels[labelled].astype(np.int64), predicted[labelled].astype(np.int64)
        for name, values in (("label", truth), ("map", mapped)):
            unknown = values[(values < 0) | ((values >= classes) & (values != IGNORE_INDEX))]
            if unknown.size:
                raise ValueError(f"expected {name} indices 0 to {classes - 1} or {IGNORE_INDEX}, found {unknown[0]}")
        mapped[mapped == IGNORE_INDEX] = classes
        table = np.bincount(truth * (classes + 1) + mapped, minlength=classes * (classes + 1))
        table = table.reshape(classes, classes + 1)
        self.counts += table[:, :classes]
        self.missed += table[:, classes]

    def scores(self, *, count_missed: bool = False, excluded: Collection[int] = ()) -> Scores:
        """Compute the scores of all pixels added so far.

        Args:
            count_missed: Whether labelled pixels without a class in the map count as wrong. By default they are left
                out, because a map makes no prediction where its input is invalid.
            excluded: Indices of classes that are in no mean. Their pixels stay: they count for the accuracy, and as
                errors of the classes that are mapped there.

        Returns:
            The scores.

        Examples:
            Two pixels of class 0, one of them mapped as class 1: the IoU of class 0 is 1/2.

            >>> matrix = ConfusionMatrix(2)
            >>> matrix.update(np.array([0, 0]), np.array([0, 1]))
            >>> matrix.scores().iou
            (0.5, 0.0)
        """
        hits = np.diag(self.counts)
        support = self.counts.sum(axis=1) + (self.missed if count_missed else 0)
        claimed = self.counts.sum(axis=0)
        total, missed = int(support.sum()), int(self.missed.sum())
        present = (support > 0) & ~np.isin(np.arange(len(support)), list(excluded))
        iou, f1 = _share(hits, support + claimed - hits), _share(2 * hits, support + claimed)
        accuracy = float(_share(hits.sum(), total))
        chance = float(_share((support.astype(float) * claimed).sum(), float(total) ** 2))
        return Scores(
            iou=tuple(iou.tolist()),
            f1=tuple(f1.tolist()),
            precision=tuple(_share(hits, claimed).tolist()),
            recall=tuple(_share(hits, support).tolist()),
            support=tuple(support.tolist()),
            mean_iou=_mean(iou, present),
            mean_f1=_mean(f1, present),
            accuracy=accuracy,
            kappa=float(_share(accuracy - chance, 1 - chance)),
            pixels=int(self.counts.sum()) + missed,
            missed=missed,
        )


def mean_iou(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Compute the mIoU of confusion matrices over the classes that occur in the labels of each.

    Args:
        counts: Rows are the labels, columns the map, integer, shape (..., K, K).

    Returns:
        mIoU, 0 to 1, NaN without labels, float64, shape (...).

    Examples:
        >>> float(mean_iou(np.array([[1, 1], [0, 0]])))
        0.5
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    support, claimed = counts.sum(axis=-1), counts.sum(axis=-2)
    iou, present = _share(hits, support + claimed - hits), support > 0
    means = np.empty(support.shape[:-1])
    for index in np.ndindex(means.shape):
        means[index] = _mean(iou[index], present[index])
    return means


def _mean(values: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Mean over the classes that are present, NaN without any."""
    return float(values[present].mean()) if present.any() else float("nan")


def _share(part: NDArray[np.int64] | float, whole: NDArray[np.int64] | float) -> NDArray[np.float64]:
    """Quotient, NaN where the whole is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(whole) == 0, np.nan, np.true_divide(part, whole))
