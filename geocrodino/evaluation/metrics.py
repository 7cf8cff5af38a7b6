"""Scores of a class map, from one confusion matrix over all pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocrodino.settings.classes import IGNORE_INDEX


@dataclass(frozen=True)
class Scores:
    """Scores of one map. Tuples have one entry per class, in index order; shares lie in 0 to 1.

    A class that neither labels nor map hold has NaN scores. Means are taken over the classes that the
    labels hold: a class that only the map holds has IoU 0 and does not enter the mean, but its pixels count
    against the classes they were taken from.

    Attributes:
        iou: Intersection over union.
        f1: Harmonic mean of precision and recall.
        precision: Share of the map's pixels of a class that the labels confirm.
        recall: Share of the labels' pixels of a class that the map finds.
        support: Labelled pixels of each class.
        mean_iou: Mean IoU over the classes in the labels; NaN without labels.
        mean_f1: Mean F1 over the same.
        accuracy: Share of labelled pixels that are right.
        kappa: Cohen's kappa, with "no class in the map" as an answer of its own.
        pixels: Labelled pixels, those without a class in the map included.
        missed: Labelled pixels where the map has no class, counted as wrong or left out as asked.
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
    """Counts of labelled pixels by class in the labels and class in the map.

    Attributes:
        counts: Rows are the labels, columns the map, int64 (K, K).
        missed: Labelled pixels of each class where the map has none, int64 (K,).
    """

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise ValueError(f"expected at least one class, found {classes}")
        self.counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)
        self.missed: NDArray[np.int64] = np.zeros(classes, np.int64)

    def update(self, labels: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Add pixels.

        Args:
            labels: Class indices, any shape; 255 is no label, and such pixels do not count.
            predicted: Class indices of the map, same shape; 255 is no class.

        Raises:
            ValueError: If the shapes differ or an index is neither a class nor 255.
        """
        if labels.shape != predicted.shape:
            raise ValueError(f"expected labels and map of one shape, found {labels.shape} and {predicted.shape}")
        classes = len(self.missed)
        labelled = labels != IGNORE_INDEX
        truth, answer = labels[labelled].astype(np.int64), predicted[labelled].astype(np.int64)
        for name, values in (("label", truth), ("map", answer)):
            if ((values < 0) | ((values >= classes) & (values != IGNORE_INDEX))).any():
                raise ValueError(f"expected {name} indices 0 to {classes - 1} or {IGNORE_INDEX}, found others")
        answer[answer == IGNORE_INDEX] = classes
        table = np.bincount(truth * (classes + 1) + answer, minlength=classes * (classes + 1))
        table = table.reshape(classes, classes + 1)
        self.counts += table[:, :classes]
        self.missed += table[:, classes]

    def scores(self, *, count_missed: bool = False) -> Scores:
        """Scores of all pixels so far.

        Args:
            count_missed: Whether labelled pixels where the map has no class count as wrong. They are left out by
                default: where its input is invalid, a map makes no claim.
        """
        hits = np.diag(self.counts)
        support = self.counts.sum(axis=1) + (self.missed if count_missed else 0)
        claimed = self.counts.sum(axis=0)
        total, missed = int(support.sum()), int(self.missed.sum())
        present = support > 0
        iou, f1 = _share(hits, support + claimed - hits), _share(2 * hits, support + claimed)
        accuracy = float(_share(hits.sum(), total))
        chance = float(_share((support.astype(float) * claimed).sum(), float(total) ** 2))
        return Scores(
            iou=tuple(iou.tolist()),
            f1=tuple(f1.tolist()),
            precision=tuple(_share(hits, claimed).tolist()),
            recall=tuple(_share(hits, support).tolist()),
            support=tuple(support.tolist()),
            mean_iou=float(iou[present].mean()) if total else float("nan"),
            mean_f1=float(f1[present].mean()) if total else float("nan"),
            accuracy=accuracy,
            kappa=float(_share(accuracy - chance, 1 - chance)),
            pixels=int(self.counts.sum()) + missed,
            missed=missed,
        )


def _share(part: NDArray[np.int64] | float, whole: NDArray[np.int64] | float) -> NDArray[np.float64]:
    """Quotient, NaN where the whole is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(whole) == 0, np.nan, np.true_divide(part, whole))
