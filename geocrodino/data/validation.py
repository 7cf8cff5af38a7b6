"""Which windows of ``val`` are scored between epochs, so that scoring costs little compared with learning."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

STEP_FORWARDS = 3
"""Cost of a training step on a patch, in forward passes: the backward pass costs about two."""

_SHARE = 0.2
"""Largest share of the time of the training steps that the scoring between epochs may take."""

_FEWEST = 8
"""Windows that are scored in any case: half a million pixels; with fewer, a score says little."""


def most_windows(patches: int, patch_px: int, window_px: int) -> int:
    """Number of windows whose scoring takes at most a fifth of the time of an epoch's training steps.

    It follows from numbers of pixels and not from a clock, so that a training can be repeated and resumed exactly.

    Args:
        patches: Patches in an epoch.
        patch_px: Side of a patch, px.
        window_px: Side of a window, px.

    Returns:
        Number of windows, at least 8.

    Examples:
        >>> most_windows(320, 128, 256)
        48
    """
    affordable = _SHARE * STEP_FORWARDS * patches * patch_px**2 / window_px**2
    return max(_FEWEST, int(affordable + 1e-9))


def choose_windows(counts: NDArray[np.integer], most: int, seed: int) -> list[int]:
    """Choose windows that are spread over the area and in which rare kinds of pixels can be scored.

    Half of the windows are drawn one after the other for the kind of which the smallest share of pixels is held so far,
    each with a probability proportional to its pixels of this kind; more than half if some kind is still missing. The
    others are drawn evenly: one from each of as many equally long stretches of the remaining windows.

    Args:
        counts: Pixels of each kind in each window, integer, shape (N, S). A kind is a class where a modality is valid,
            for instance. Windows follow each other row by row.
        most: Number of windows to choose, at least 1.
        seed: Seed of the draw.

    Returns:
        Ascending numbers of the chosen windows: ``most`` of them, or all N if there are no more.
    """
    if len(counts) <= most:
        return list(range(len(counts)))
    rng = np.random.default_rng([seed, 2])
    present = counts[:, counts.sum(axis=0) > 0].astype(np.float64)
    total = present.sum(axis=0)
    free = np.ones(len(counts), bool)
    held = np.zeros(len(total))
    while (drawn := int((~free).sum())) < most and (drawn < most // 2 or (held == 0).any()):
        # Of kinds with an equal share, for instance none at the start, the rarest comes first.
        kind = min(range(len(total)), key=lambda k: (held[k] / total[k], total[k]))
        left = np.where(free, present[:, kind], 0)
        if not left.any():
            break  # every kind is held completely
        window = int(rng.choice(len(left), p=left / left.sum()))
        free[window] = False
        held += present[window]
    rest, missing = np.flatnonzero(free), most - int((~free).sum())
    edges = np.arange(missing + 1) * len(rest) // max(1, missing)
    free[[rest[rng.integers(low, high)] for low, high in pairwise(edges.tolist())]] = False
    return np.flatnonzero(~free).tolist()
