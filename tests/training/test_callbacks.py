"""Best weights of each network, early end."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from geocrodino.training.callbacks import BestNetworks

NAN = float("nan")
NAMES = ("optical", "elevation")


def validate(best, epoch, optical, elevation):
    """An epoch ends with these scores; its weights hold its number."""
    validated = {name: nn.Linear(1, 1) for name in NAMES}
    for network in validated.values():
        nn.init.constant_(network.weight, float(epoch))
    scores = {"optical": optical, "elevation": elevation}
    logged = {}
    module = SimpleNamespace(
        validated=validated,
        confusion={m: SimpleNamespace(scores=lambda v=v: SimpleNamespace(mean_iou=v)) for m, v in scores.items()},
        log=lambda name, value, **_: logged.update({name: value}),
    )
    trainer = SimpleNamespace(current_epoch=epoch, should_stop=False)
    best.on_validation_epoch_end(trainer, module)
    assert set(logged) == {"val_miou/optical", "val_miou/elevation"}
    return trainer.should_stop


def weights(best):
    return {name: best.load(name, nn.Linear(1, 1)).weight.item() for name in NAMES}


def test_each_network_is_kept_at_its_own_best_epoch():
    best = BestNetworks(10, NAMES)
    for epoch, scores in enumerate([(0.2, 0.3), (0.5, 0.1), (0.4, 0.6), (0.5, 0.6)]):
        validate(best, epoch, *scores)
    assert best.best == {"optical": 0.5, "elevation": 0.6}
    assert best.epoch == {"optical": 1, "elevation": 2}  # an equal score is no gain
    assert weights(best) == {"optical": 1.0, "elevation": 2.0}


def test_a_score_that_is_no_number_is_never_best():
    best = BestNetworks(10, NAMES)
    validate(best, 0, NAN, 0.1)
    assert best.epoch == {"optical": -1, "elevation": 0}
    assert set(best.weights) == {"elevation"}
    validate(best, 1, 0.0, NAN)
    assert weights(best) == {"optical": 1.0, "elevation": 0.0}
    validate(best, 2, NAN, NAN)
    assert best.best == {"optical": 0.0, "elevation": 0.1}


def test_training_stops_when_neither_has_gained_for_the_patience():
    best = BestNetworks(2, NAMES)
    scores = [(0.2, 0.2), (0.1, 0.1), (0.1, 0.3), (0.1, 0.2), (0.1, 0.1)]
    assert [validate(best, e, *s) for e, s in enumerate(scores)] == [False, False, False, False, True]


def test_a_resumed_run_knows_the_best():
    first = BestNetworks(3, NAMES)
    validate(first, 0, 0.5, 0.4)
    second = BestNetworks(3, NAMES)
    second.load_state_dict(first.state_dict())
    assert (second.best, second.epoch) == (first.best, first.epoch)
    validate(second, 1, 0.45, 0.45)
    assert weights(second) == {"optical": 0.0, "elevation": 1.0}
    assert first.best["elevation"] == 0.4  # the state is a copy


def test_one_network_alone():
    best = BestNetworks(2, ("fusion",))
    network, stops = nn.Linear(1, 1), []
    for epoch, score in enumerate((0.1, 0.3, 0.2, 0.3)):
        nn.init.constant_(network.weight, float(epoch))
        trainer = SimpleNamespace(current_epoch=epoch, should_stop=False)
        counts = SimpleNamespace(scores=lambda v=score: SimpleNamespace(mean_iou=v))
        module = SimpleNamespace(validated={"fusion": network}, confusion={"fusion": counts}, log=lambda *_, **__: None)
        best.on_validation_epoch_end(trainer, module)
        stops.append(trainer.should_stop)
    assert stops == [False, False, False, True]
    assert (best.best, best.epoch) == ({"fusion": 0.3}, {"fusion": 1})
    assert best.weights["fusion"]["weight"].item() == 1.0


def test_loaded_networks_are_ready_for_use():
    """Whatever the number format of the training."""
    best = BestNetworks(2, NAMES)
    validate(best, 3, 0.5, 0.5)
    loaded = best.load("optical", nn.Linear(1, 1).to(torch.bfloat16).train())
    assert not loaded.training
    assert (loaded.weight.dtype, loaded.weight.item()) == (torch.float32, 3.0)
