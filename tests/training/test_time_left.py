"""The time that is left, worked out by hand."""

from __future__ import annotations

import pytest

from geocrodino.training.time_left import TimeLeft


def after(steps, **known):
    """Three epochs of ten steps; the first two steps take 9 s, all others 1 s."""
    left = TimeLeft(3, 10, **known)
    for step in range(steps):
        left.add_step(9.0 if step < 2 else 1.0)
    return left


def test_nothing_is_said_before_it_can_be_right():
    known = {"step_s": 2.0, "validation_s": 8.0}
    assert [after(n, **known).left_s(0, n) for n in range(3)] == [None] * 3
    assert after(5).left_s(0, 5) is None  # how long a validation takes is not known


def test_a_measured_validation_counts_at_the_speed_of_the_steps():
    """Steps take half of what was measured, so validations do too: 25 steps of 1 s, 3 validations of 4 s, 6 s."""
    assert after(5, step_s=2.0, validation_s=8.0, final_s=6.0).left_s(0, 5) == 25 + 3 * 4 + 6


def test_validations_that_were_seen_replace_the_measured_one():
    left = after(10, step_s=2.0, validation_s=8.0)
    left.add_validation(5.0)
    assert left.left_s(0, 10, 1) == 20 + 2 * 5
    left.add_validation(7.0)
    assert left.left_s(1, 4) == 16 + 2 * 6
    assert left.left_s(1, 10, 0.5) == 10 + 1.5 * 6
    assert left.left_s(2, 10, 1) == 0


def test_the_last_steps_count():
    left = after(10, step_s=1.0, validation_s=0.0)
    for _ in range(50):
        left.add_step(2.0)
    assert left.left_s(0, 10) == 40


@pytest.mark.parametrize("final_s", [0.0, 3.0])
def test_very_short_trainings_end_in_a_time(final_s):
    left = TimeLeft(1, 1, final_s=final_s)
    left.add_step(5.0)
    assert left.left_s(0, 1) is None
    left.add_validation(1.0)
    assert left.left_s(0, 1, 1) == final_s
