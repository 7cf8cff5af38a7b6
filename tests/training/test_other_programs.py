"""Other programs on the processors."""

from __future__ import annotations

import time
from types import SimpleNamespace

import psutil
import pytest

from geocrodino.training.other_programs import advice_on_others, others_at_work


@pytest.mark.parametrize(
    ("others", "threads", "policy", "told"),
    [
        (0.9, 2, "", True),
        (0.2, 2, "", False),  # little
        (2.1, 2, "", False),  # 2 of 4 processors are left
        (2.9, 2, "active", True),
        (2.9, 2, " PASSIVE", False),  # done already
        (3.9, 1, "", False),  # one thread waits for none
    ],
)
def test_advice(monkeypatch, others, threads, policy, told):
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2 if others < 1 else 4)
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    advice = advice_on_others(others, threads)
    assert (advice is not None) == told
    if others == 0.9:
        assert advice == (
            "Other programs keep about 0.9 of 2 processors busy, and 2 threads wait for each other. With "
            "OMP_WAIT_POLICY=passive in the environment a step may take far less time; the results are the same."
        )


def test_processors_of_others_by_hand(monkeypatch):
    """In 10 s all programs take 13 s and this one 4 s, of which a child took 1 s: others take 9 s."""
    now = SimpleNamespace(seconds=100.0, every=500.0, own=20.0, child=2.0)

    class Program:
        def cpu_times(self):
            return SimpleNamespace(user=now.own, system=1.0, children_user=0.0, children_system=0.0)

        def children(self, recursive):
            assert recursive
            return [SimpleNamespace(cpu_times=lambda: (now.child, 0.5)), SimpleNamespace(cpu_times=gone)]

    def gone():
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(time, "monotonic", lambda: now.seconds)
    monkeypatch.setattr(psutil, "Process", Program)
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(user=now.every, system=5.0, nice=1.0))
    processors = others_at_work()
    assert processors() == 0
    now.seconds, now.every, now.own, now.child = 110.0, 513.0, 23.0, 3.0
    assert processors() == pytest.approx(0.9)
    now.every = 502.0  # clocks of different precision
    assert processors() == 0


def test_own_work_is_not_that_of_others():
    processors = others_at_work()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert processors() <= psutil.cpu_count()
