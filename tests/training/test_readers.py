"""How many processes read: as many as keep up with the device."""

from __future__ import annotations

import pytest

from geocrodino.settings.config import TrainingConfig
from geocrodino.training import readers
from geocrodino.training.readers import describe_readers, readers_for, spare_cores


@pytest.mark.parametrize(
    ("reading_s", "step_s", "spare", "expected"),
    [
        (0.005, 0.1, 8, 0),  # a twentieth
        (0.006, 0.1, 8, 1),
        (0.05, 0.1, 8, 1),  # as long as computing
        (0.06, 0.1, 8, 2),
        (0.09, 0.1, 8, 8),  # nine would be needed
        (0.09, 0.1, 0, 0),  # no core is free
        (0.2, 0.1, 4, 4),  # measured apart, reading was slower than the whole step
    ],
)
def test_the_number_of_processes(reading_s, step_s, spare, expected):
    assert readers_for(reading_s, step_s, spare) == expected


def test_on_a_cpu_only_idle_cores_read(monkeypatch):
    monkeypatch.setattr(readers.os, "cpu_count", lambda: 6)
    monkeypatch.setattr(readers.torch, "get_num_threads", lambda: 4)
    assert spare_cores(TrainingConfig(accelerator="cpu")) == 2


def test_the_line_for_the_user():
    assert describe_readers(0.0012, 0.08, 0) == "Reading: 1.2 ms of a step of 80 ms; in the training process."
    assert describe_readers(0.06, 0.08, 3) == "Reading: 60.0 ms of a step of 80 ms; 3 reading processes."
