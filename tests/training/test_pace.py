"""How long a training takes, and how many epochs fit into a time."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from geocrodino.settings.config import TrainingConfig
from geocrodino.training import pace, run
from geocrodino.training.assembly import parts_of
from geocrodino.training.folder import begin
from geocrodino.training.listener import Listener
from geocrodino.training.pace import Pace, _Clock, describe_budget, epochs_within, expectation, measure

PACE = Pace(step_s=0.5, preparation_s=1.0, batch_s=2.0, steps=40, val_batches=3, final_batches=10)


def test_the_parts_of_a_training():
    assert (PACE.validation_s, PACE.final_s, PACE.epoch_s) == (7.0, 20.0, 27.0)
    assert PACE.training_s(30) == 830.0


@pytest.mark.parametrize(("seconds", "epochs"), [(0, 1), (46, 1), (74, 2), (100.9, 2), (101, 3), (3600, 132)])
def test_epochs_within_a_time(seconds, epochs):
    assert epochs_within(seconds, PACE) == epochs


def test_a_teacher_and_its_students_share_the_time():
    assert epochs_within(3600, PACE, PACE) == 65  # (3600 - 40) / 54


def test_a_budget_below_one_epoch_is_told():
    assert describe_budget(1.25, 2, PACE) == "Budget: 1.25 min are enough for 2 epochs."
    assert describe_budget(1, 1, PACE) == "Budget: 1 min are enough for 1 epoch."
    assert describe_budget(0.5, 1, PACE) == (
        "Budget: 0.5 min are too few for an epoch and the validation at the end, which take about 47 s. One epoch is "
        "trained."
    )


def told(monkeypatch, finished=0, windows=(12, 12), **changes):
    monkeypatch.setattr(pace.number_format, "device_name", lambda _: "the CPU (2 threads)")
    return expectation(TrainingConfig(**changes), PACE, windows, finished)


def test_the_line_before_a_training(monkeypatch):
    assert told(monkeypatch) == (
        "30 epochs of 40 steps, about 13 min 50 s on the CPU (2 threads); early stop after 15 epochs without gain, "
        "from epoch 24 on."
    )
    assert told(monkeypatch, windows=(12, 40)).splitlines()[1] == (
        "Validation: 12 of 40 windows of val between epochs, all at the end."
    )


def test_an_early_stop_that_cannot_happen_is_not_told(monkeypatch):
    assert told(monkeypatch, epochs=1) == "1 epoch of 40 steps, about 47 s on the CPU (2 threads)."
    assert told(monkeypatch, patience=29) == "30 epochs of 40 steps, about 13 min 50 s on the CPU (2 threads)."


def test_the_line_of_a_resumed_training(monkeypatch):
    assert told(monkeypatch, finished=20, patience=1) == (
        "10 epochs of 40 steps (from epoch 21), about 4 min 50 s on the CPU (2 threads); early stop after 1 epoch "
        "without gain, from epoch 24 on."
    )


def test_the_first_steps_and_the_first_batch_only_warm_up():
    class Data:
        class plan:
            steps_per_epoch = 7

        def val_dataloader(self):
            return [0] * 5

        def whole_val_dataloader(self):
            return [0] * 9

    clock = _Clock()
    clock.steps = [0.0, 9.0, 14.0, 15.0, 17.0]
    clock.validation, clock.batches = [20.0, 30.0], [21.0, 25.0, 26.0, 28.0]
    assert clock.pace(Data()) == Pace(1.5, 1.0 + 2.0, 1.5, 7, 5, 9)
    clock.steps = [0.0, 9.0, 14.0]  # there are no others
    assert clock.pace(Data()).step_s == 5.0


@pytest.mark.parametrize("method", ["mutual", "kd"])
def test_a_measurement_changes_nothing(tiny_config, tmp_path, method):
    config = tiny_config({"method.name": method})
    _, ready = run._prepare(config, tmp_path, resume=False, teacher=None, start=None, tell=Listener())
    begin(config, tmp_path, resume=False)
    task, data = parts_of(config, config.method, ready, Listener())
    before = {key: value.clone() for key, value in task.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    drawn = list(data.sampler)
    found = measure(task, data, config.training)
    assert (found.steps, found.val_batches) == (2, len(data.val_dataloader()))
    assert min(found.step_s, found.batch_s) > 0
    assert found.preparation_s >= 0
    after = task.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert list(data.sampler) == drawn
