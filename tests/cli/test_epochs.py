"""What a training shows of its epochs."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from geocrodino.cli import epochs
from geocrodino.cli.epochs import EpochLines
from geocrodino.cli.progress import stages
from geocrodino.training.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(epochs.time, "monotonic", lambda: now[0])
    return now


def run(console, clock, *, step_s, validation_s, count=2, steps=3, should_stop=False):
    """A training of epochs whose steps take ``step_s``; lines that were shown."""
    shown = []
    trainer = SimpleNamespace(
        max_epochs=count, num_training_batches=steps, num_val_batches=[2], should_stop=should_stop, current_epoch=0,
        callback_metrics={"loss/total": 0.5, "val_miou/optical": 0.625},
    )  # fmt: skip
    pace = Pace(step_s, 0.0, validation_s / 2, steps, val_batches=2, final_batches=2)
    task = SimpleNamespace(pace=pace, validated={"optical": None})
    with stages(console) as view:
        lines = EpochLines(shown.append, view)
        lines.on_train_start(trainer, task)
        for trainer.current_epoch in range(count):
            lines.on_train_epoch_start(trainer, task)
            for index in range(steps):
                clock[0] += step_s
                lines.on_train_batch_end(trainer, task, {"loss": 0.75}, None, index)
            lines.on_validation_start(trainer, task)
            for index in range(2):
                clock[0] += validation_s / 2
                lines.on_validation_batch_end(trainer, task, None, None, index)
            lines.on_validation_end(trainer, task)
            lines.on_train_epoch_end(trainer, task)
        lines.on_train_end(trainer, task)
    return shown


def test_a_log_has_one_line_for_each_short_epoch(clock):
    out = io.StringIO()
    shown = run(Console(file=out, force_terminal=False), clock, step_s=5.0, validation_s=4.0)
    # 3 steps and two validations of 4 s are left after the first epoch, the second one is the last of all.
    assert shown == [
        "epoch 1/2  loss 0.500  val mIoU optical 62.5 %  23 s left",
        "epoch 2/2  loss 0.500  val mIoU optical 62.5 %  4 s left",
    ]
    assert out.getvalue() == ""


def test_a_long_epoch_shows_a_line_after_a_minute(clock):
    shown = run(Console(file=io.StringIO(), force_terminal=False), clock, step_s=61.0, validation_s=80.0, count=1)
    assert shown == [
        "epoch 1/1  step 1/3  loss 0.750",
        "epoch 1/1  step 2/3  loss 0.750",
        "epoch 1/1  step 3/3  loss 0.750  2 min 40 s left",
        # The line of the first validation batch would come 40 s after the last one.
        "epoch 1/1  validation batch 2/2  loss 0.750  1 min 20 s left",
        "epoch 1/1  loss 0.500  val mIoU optical 62.5 %  1 min 20 s left",
    ]


def test_after_an_early_stop_the_last_validation_is_left(clock):
    console = Console(file=io.StringIO(), force_terminal=False)
    shown = run(console, clock, step_s=5.0, validation_s=4.0, should_stop=True)
    assert shown[0] == "epoch 1/2  loss 0.500  val mIoU optical 62.5 %  4 s left"


def test_on_a_terminal_steps_move_a_bar(clock):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None, force_interactive=True)
    shown = run(console, clock, step_s=61.0, validation_s=80.0, count=1)
    assert shown == ["epoch 1/1  loss 0.500  val mIoU optical 62.5 %  1 min 20 s left"]
    assert "epoch 1/1" in out.getvalue()


def test_a_stage_is_named_on_a_terminal_and_silent_in_a_short_log():
    for terminal in (True, False):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=100, color_system=None)
        with stages(console) as view:
            view.stage("Opening and checking rasters")
            view.advance(1, 4)
        assert ("Opening and checking rasters" in out.getvalue()) is terminal
        assert ("\x1b" in out.getvalue()) is terminal
