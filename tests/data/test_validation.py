"""Which windows are scored between epochs."""

from __future__ import annotations

import numpy as np
import pytest

from geocrodino.data.validation import choose_windows, most_windows


@pytest.mark.parametrize(
    ("patches", "patch_px", "window_px", "most"),
    [
        # 40 steps of 8 patches cost 320 x 3 forward passes of 128 x 128 px: as much as 240 windows; a fifth is 48.
        (320, 128, 256, 48),
        (320, 256, 256, 192),
        (12 * 40, 128, 256, 72),
        (320, 512, 512, 192),  # windows are as large as patches
        (80, 96, 256, 8),  # 6.75 windows would say too little
        (1, 32, 256, 8),
    ],
)
def test_scoring_costs_at_most_a_fifth_of_the_training_steps(patches, patch_px, window_px, most):
    assert most_windows(patches, patch_px, window_px) == most


def rare(windows=100):
    """Pixels of three classes: one everywhere, one in every tenth window, one in window 37 alone; a fourth nowhere."""
    counts = np.zeros((windows, 4), np.int64)
    counts[:, 0] = 1000
    counts[::10, 1] = 10
    counts[37:38, 2] = 1
    return counts


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_are_scored(seed):
    counts = rare()
    chosen = choose_windows(counts, 12, seed)
    assert len(chosen) == len(set(chosen)) == 12
    assert chosen == sorted(chosen)
    assert 37 in chosen
    assert (counts[chosen, 1] > 0).sum() >= 1


@pytest.mark.parametrize("seed", range(5))
def test_windows_are_spread_over_the_area(seed):
    """Of one class, half is drawn anywhere; of the others, one comes from each sixth of the remaining windows."""
    chosen = choose_windows(np.ones((60, 1), np.int64), 12, seed)
    assert len(chosen) == 12
    assert all(any(low <= c < low + 16 for c in chosen) for low in (0, 10, 20, 30, 40, 44))


def test_the_draw_depends_on_the_seed_alone():
    assert choose_windows(rare(), 12, 3) == choose_windows(rare(), 12, 3)
    assert choose_windows(rare(), 12, 3) != choose_windows(rare(), 12, 4)


def test_few_windows_are_all_scored():
    assert choose_windows(rare(8), 8, 0) == list(range(8))
    assert choose_windows(rare(9)[:, :1], 8, 0) != list(range(9))


def test_more_classes_than_half_of_the_windows_are_all_there():
    counts = np.eye(20, 6, dtype=np.int64)  # six classes, each in one window
    assert set(range(6)) <= set(choose_windows(counts, 8, 0))
    assert len(choose_windows(counts, 4, 0)) == 4  # as many as there is room for
