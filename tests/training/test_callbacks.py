"""Best weights of each branch, early end, average of weights."""

from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn

from geocrodino.training.callbacks import BestBranches, weight_average

NAN = float("nan")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleDict({"optical": nn.Linear(1, 1), "elevation": nn.Linear(1, 1)})

    def branch(self, modality):
        return self.branches[modality]


def validate(best, model, epoch, optical, elevation):
    """An epoch ends with these scores; its weights hold its number."""
    for branch in model.branches.values():
        nn.init.constant_(branch.weight, float(epoch))
    scores = {"optical": optical, "elevation": elevation}
    logged = {}
    module = SimpleNamespace(
        model=model,
        confusion={m: SimpleNamespace(scores=lambda v=v: SimpleNamespace(mean_iou=v)) for m, v in scores.items()},
        log=lambda name, value, **_: logged.update({name: value}),
    )
    trainer = SimpleNamespace(current_epoch=epoch, should_stop=False)
    best.on_validation_epoch_end(trainer, module)
    assert set(logged) == {"val_miou/optical", "val_miou/elevation"}
    return trainer.should_stop


def weights(best):
    model = Model()
    best.load(model)
    return {m: model.branch(m).weight.item() for m in ("optical", "elevation")}


def test_each_branch_is_kept_at_its_own_best_epoch(tmp_path):
    best, model = BestBranches(tmp_path, patience=10), Model()
    for epoch, scores in enumerate([(0.2, 0.3), (0.5, 0.1), (0.4, 0.6), (0.5, 0.6)]):
        validate(best, model, epoch, *scores)
    assert best.best == {"optical": 0.5, "elevation": 0.6}
    assert best.epoch == {"optical": 1, "elevation": 2}  # an equal score is no gain
    assert weights(best) == {"optical": 1.0, "elevation": 2.0}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best-elevation.safetensors", "best-optical.safetensors"]


def test_a_score_that_is_no_number_is_never_best(tmp_path):
    best, model = BestBranches(tmp_path, patience=10), Model()
    validate(best, model, 0, NAN, 0.1)
    assert best.epoch == {"optical": -1, "elevation": 0}
    assert not best.path("optical").exists()
    validate(best, model, 1, 0.0, NAN)
    assert weights(best) == {"optical": 1.0, "elevation": 0.0}
    validate(best, model, 2, NAN, NAN)
    assert best.best == {"optical": 0.0, "elevation": 0.1}


def test_training_stops_when_neither_has_gained_for_the_patience(tmp_path):
    best, model = BestBranches(tmp_path, patience=2), Model()
    scores = [(0.2, 0.2), (0.1, 0.1), (0.1, 0.3), (0.1, 0.2), (0.1, 0.1)]
    assert [validate(best, model, e, *s) for e, s in enumerate(scores)] == [False, False, False, False, True]


def test_a_resumed_run_knows_the_best(tmp_path):
    first, model = BestBranches(tmp_path, patience=3), Model()
    validate(first, model, 0, 0.5, 0.4)
    second = BestBranches(tmp_path, patience=3)
    second.load_state_dict(first.state_dict())
    assert (second.best, second.epoch) == (first.best, first.epoch)
    validate(second, model, 1, 0.45, 0.45)
    assert weights(second) == {"optical": 0.0, "elevation": 1.0}
    assert first.best["elevation"] == 0.4  # the state is a copy


class One(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        # The first step is taken over; the second keeps 2/11 of it, the third 3/12, the fourth 4/13.
        (0.99, (0.25 * (2 / 11 * 1 + 9 / 11 * 2) + 0.75 * 3) * 4 / 13 + 4 * 9 / 13),
        # No more than the decay is ever kept.
        (0.1, ((1 * 0.1 + 2 * 0.9) * 0.1 + 3 * 0.9) * 0.1 + 4 * 0.9),
    ],
)
def test_the_average_by_hand(decay, expected):
    module, average = One(), weight_average(decay)
    average.setup(SimpleNamespace(), module, "fit")
    for step in (1, 2, 3, 4):
        with torch.no_grad():
            module.value.fill_(float(step))
        module.count.fill_(step)
        average.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
    average.on_train_end(SimpleNamespace(), module)
    assert module.value.item() == pytest.approx(expected, rel=1e-6)
    assert module.count.item() == 4
