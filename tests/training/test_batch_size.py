"""`batch_size: auto`: the largest power of two that fits, and what changes with it."""

from __future__ import annotations

import pytest
import torch

from geocrodino.settings.config import TrainingConfig
from geocrodino.training import folder as run_folder
from geocrodino.training.batch_size import StepMemory, largest_power, step_memory, with_batch_size
from geocrodino.training.run import train


@pytest.mark.parametrize(
    ("settings", "memory", "expected"),
    [
        ({}, 100 + 7 * 10, 4),  # seven patches fit
        ({}, 100 + 8 * 10, 8),
        ({}, 10**9, 32),  # 40 steps of 8 patches: an epoch keeps ten steps
        ({"steps_per_epoch": 2}, 100 + 40 * 10, 32),  # steps that the user names stay: memory alone decides
        ({"steps_per_epoch": 400}, 100 + 300 * 10, 256),
        ({}, 0, 2),  # the least that a training can have
        ({"devices": 2}, 100 + 8 * 10, 16),
        ({"devices": 3}, 100 + 8 * 10, 24),
        ({"accumulate": 4}, 10**9, 8),  # 32 patches between two changes of the weights
    ],
)
def test_the_largest_power_of_two(settings, memory, expected):
    assert largest_power(TrainingConfig(**settings), [StepMemory(100, 10), StepMemory(50, 5)], memory) == expected


def test_steps_and_learning_rate_follow(tiny_config):
    made = tiny_config({"training.batch_size": "auto"})
    free = made.model_copy(update={"training": TrainingConfig(batch_size="auto")})
    found = with_batch_size(free, 32).training
    assert (found.batch_size, found.batch_size_measured) == (32, True)
    assert found.steps_per_epoch == 10  # 320 patches, as in 40 steps of 8
    assert found.optimiser.learning_rate == 0.004  # twice, for four times the patches


def test_what_is_named_stays(tiny_config):
    given = {"batch_size": "auto", "steps_per_epoch": 7, "optimiser": {"learning_rate": 0.01}}
    made = tiny_config().model_copy(update={"training": TrainingConfig.model_validate(given)})
    found = with_batch_size(made, 32).training
    assert (found.steps_per_epoch, found.optimiser.learning_rate) == (7, 0.01)


def test_a_run_records_the_number_and_is_resumed_with_it(
    tiny_config, tmp_path, monkeypatch, no_measurement, no_picture
):
    monkeypatch.setattr("geocrodino.training.assembly.step_memory", lambda *_: StepMemory(100, 10))
    monkeypatch.setattr("geocrodino.training.batch_size.usable_memory", lambda _: 100 + 7 * 10)
    lines, out = [], tmp_path / "run"
    config = tiny_config({"training.batch_size": "auto", "training.steps_per_epoch": 5, "training.epochs": 1})
    state = torch.get_rng_state()
    train(config, out, tell=lines.append)
    recorded = run_folder.recorded_settings(out).training
    assert recorded.batch_size == 4  # seven patches fit
    assert recorded.batch_size_measured
    assert any(line.startswith("Batch size: 4, about ") for line in lines)
    (out / run_folder.BUNDLE_NAME).unlink()
    before = run_folder.with_recorded_epochs(config, out)
    assert before.training.batch_size == 4
    assert state.shape == torch.get_rng_state().shape


def test_more_patches_need_more_memory(tiny_config, tmp_path, monkeypatch, no_measurement, no_picture):
    found = []

    def noted(task, data, settings):
        found.extend(step_memory(task, data, settings) for _ in range(2))
        return found[-1]

    monkeypatch.setattr("geocrodino.training.assembly.step_memory", noted)
    monkeypatch.setattr("geocrodino.training.batch_size.usable_memory", lambda _: 0)  # the least: batches of 2
    config = tiny_config({"training.batch_size": "auto", "training.steps_per_epoch": 2, "training.epochs": 1})
    train(config, tmp_path / "run")
    first, second = found
    assert first == second  # the same every time
    values = 4 * 32 * 32 * (3 + 1)  # float32 of both modalities of a patch
    assert first.patch > 2 * values


def test_patches_that_lack_a_modality_are_measured_as_complete_ones(tiny_config, tmp_path, monkeypatch, no_picture):
    """The first patches may be those of scenes without heights; the memory must be enough for any batch."""
    found = []

    def noted(task, data, settings):
        found.append(step_memory(task, data, settings))
        lacking = {f"{m}_there": torch.tensor(m == "optical") for m in ("optical", "elevation")}
        read = data.dataset.read
        monkeypatch.setattr(data.dataset, "read", lambda *where: {**read(*where), **lacking})
        found.append(step_memory(task, data, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr("geocrodino.training.assembly.step_memory", noted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config({"training.batch_size": "auto"}), tmp_path / "run")
    complete, partial = found
    assert partial == complete
