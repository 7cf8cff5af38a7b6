"""Weights of classes in the loss, from their numbers of labelled pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geocrodino.settings.class_weights import ClassWeightRule


def class_weights(
    counts: NDArray[np.int64], rule: ClassWeightRule = "power", *, power: float = 0.5, beta: float = 0.999999
) -> NDArray[np.float32]:
    """Compute class weights from numbers of pixels, with mean 1 over the labelled pixels.

    Before they are scaled to this mean, the weights of a class with n of N pixels are

    - ``power``: ``(n / N) ** -power``;
    - ``effective``: ``(1 - beta) / (1 - beta ** n)``, by the effective number of samples. Classes with many more than
      ``1 / (1 - beta)`` pixels have the same weight;
    - ``median``: the median frequency over that of the class. The frequency counts only pixels of scenes in which the
      class occurs, so that a class that is frequent in few scenes is not taken for a rare one.

    Args:
        counts: Labelled pixels of each class in each scene, int64, shape (S, K).
        rule: The rule.
        power: For ``power``, 0 to 1: 0 for equal weights, 1 for the inverse frequency.
        beta: For ``effective``, 0 to below 1.

    Returns:
        Weights, float32, shape (K,); 0 for a class without pixels.

    References:
        Cui et al. (2019). Class-balanced loss based on effective number of samples. https://arxiv.org/abs/1901.05555
        Eigen & Fergus (2015). Predicting depth, surface normals and semantic labels (median frequency).
        https://arxiv.org/abs/1411.4734

    Examples:
        Nine and one pixels by the inverse frequency: the mean over the ten pixels is 1.

        >>> class_weights(np.array([[9, 1]]), power=1).round(3).tolist()
        [0.556, 5.0]
    """
    total = counts.sum(axis=0)
    share = total / max(1, total.sum())
    found = total > 0
    if rule == "effective":
        raw = (1 - beta) / -np.expm1(np.maximum(total, 1) * np.log(beta)) if beta > 0 else np.ones_like(share)
    elif rule == "median":
        among = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0)  # pixels of scenes with the class
        frequency = total / np.maximum(among, 1)
        raw = np.median(frequency[found] if found.any() else 1.0) / np.maximum(frequency, 1e-12)
    else:
        raw = np.power(np.maximum(share, 1e-12), -power)
    weights = np.where(found, raw, 0.0)
    return (weights / max(1e-12, float((weights * share).sum()))).astype(np.float32)
