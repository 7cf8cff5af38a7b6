"""Random assignments of blocks or scenes to splits or folds, the most balanced first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DRAWS = 2000
_VAL_OF_HALF = 0.25  # of the half that is not held out when there are two folds


def ranked_draws(
    counts: NDArray[np.int64],
    area: NDArray[np.floating],
    shares: Sequence[float],
    rng: np.random.Generator,
    *,
    even: bool = False,
    keep: int = 50,
) -> list[NDArray[np.int64]]:
    """Draw assignments of units to splits, and rank them.

    The best of 2000 draws are those whose splits are nearest to the wanted shares of every class and of the area. A
    split without any pixel of a class, or without any unit, counts as 10 further.

    Args:
        counts: Labelled pixels of each class in each of N units, integer, shape (N, K).
        area: Size of each unit, in any unit of area, shape (N,).
        shares: Wanted share of each split, S of them, with a sum of 1.
        rng: Source of random numbers.
        even: Whether each split gets its share of the number of units, which suits few or equal units. Otherwise every
            unit is drawn by itself.
        keep: Highest number of assignments that are returned.

    Returns:
        Assignments, the best first: number of the split of each unit, int64, shape (N,).
    """
    totals = counts.astype(float)
    parts = np.concatenate([totals / np.maximum(1, totals.sum(axis=0)), area[:, None] / area.sum()], axis=1)
    present = np.append(totals.sum(axis=0) > 0, True)
    target, wanted = np.array(shares), np.array(shares) > 0
    dealt = _dealt(len(parts), target)
    scored = []
    for _ in range(_DRAWS):
        assignment = rng.permutation(dealt) if even else rng.choice(len(target), len(parts), p=target)
        got = np.stack([parts[assignment == i].sum(axis=0) for i in range(len(target))])
        error = np.abs(got - target[:, None])[:, present]
        missing = (got[:, present] == 0)[wanted].sum()
        scored.append((float(error.sum() + 10 * missing), assignment))
    scored.sort(key=lambda pair: pair[0])
    return [assignment for _, assignment in scored[:keep]]


def _dealt(units: int, target: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of splits, each as often as its share of the units says, at least once where it is above 0."""
    numbers = np.maximum(np.floor(target * units), target > 0).astype(int)
    while numbers.sum() > units:
        numbers[numbers.argmax()] -= 1
    while numbers.sum() < units:
        numbers[(target * units - numbers).argmax()] += 1
    return np.repeat(np.arange(len(target)), numbers)


def splits_of_fold(
    assignment: NDArray[np.int64],
    folds: int,
    fold: int,
    counts: NDArray[np.int64],
    area: NDArray[np.floating],
    seed: int,
) -> NDArray[np.int64]:
    """Turn folds into splits: one fold is ``test``, the next one ``val``, all others are ``train``.

    With two folds, a quarter of the other half is drawn as ``val``.

    Args:
        assignment: Number of the fold of each of N units, int64, shape (N,).
        folds: Number of folds.
        fold: The fold that is held out, from 0.
        counts: Labelled pixels of each class in each unit, integer, shape (N, K).
        area: Size of each unit, shape (N,).
        seed: Seed of the random numbers.

    Returns:
        0 for ``train``, 1 for ``val`` and 2 for ``test``, int64, shape (N,).

    Examples:
        >>> units = np.ones((4, 1), int), np.ones(4)
        >>> splits_of_fold(np.array([0, 1, 2, 3]), 4, 3, *units, seed=0).tolist()
        [1, 0, 0, 2]
    """
    found = np.where(assignment == fold, 2, 0)
    if folds > 2:
        return np.where(assignment == (fold + 1) % folds, 1, found)
    rest = np.flatnonzero(found == 0)
    shares = (1 - _VAL_OF_HALF, _VAL_OF_HALF)
    if len(rest) > 1:
        rng = np.random.default_rng((seed, fold))
        found[rest] = ranked_draws(counts[rest], area[rest], shares, rng, even=True)[0]
    return found
