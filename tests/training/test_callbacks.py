"""Best weights of each network, early end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geocrodino.training.callbacks import BestNetworks, earliest_stop

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


def stops(best, optical, elevation=None, first=0):
    """Whether training stops after each epoch with these scores."""
    pairs = zip(optical, elevation or optical, strict=True)
    return [validate(best, first + epoch, *pair) for epoch, pair in enumerate(pairs)]


def test_training_stops_when_the_mean_of_three_has_not_risen_for_the_patience():
    best = BestNetworks(2, NAMES)
    # Means of elevation: 0.25, 0.25, 0.5, 0.5, 0.5 -- an equal mean is no gain.
    assert stops(best, [0.25] * 5, [0.25, 0.25, 1.0, 0.25, 0.25]) == [False, False, False, False, True]
    assert best.smoothed == {"optical": 0.25, "elevation": 0.5}
    assert best.gained == {"optical": 0, "elevation": 2}
    assert best.recent["elevation"] == [1.0, 0.25, 0.25]


def test_one_lucky_validation_does_not_end_a_training():
    """Its score is never reached again, but the means of three go on rising: eighths 0, 1/2, 1, 7/3, 8/3, 3 ..."""
    best = BestNetworks(3, NAMES)
    assert not any(stops(best, [0, 0.125, 0.25, 0.5, 0.25, 0.375, 0.375, 0.4375, 0.4375]))
    assert (best.best["optical"], best.epoch["optical"]) == (0.5, 3)  # the kept weights have the highest plain score


def test_training_does_not_stop_before_the_learning_rate_is_low():
    assert stops(BestNetworks(1, NAMES, earliest=4), [0.5] * 5) == [False, False, False, True, True]


@pytest.mark.parametrize(("epochs", "earliest"), [(1, 1), (4, 4), (5, 4), (10, 8), (25, 20), (30, 24), (31, 25)])
def test_the_last_fifth_of_the_epochs_may_be_cut_off(epochs, earliest):
    assert earliest_stop(epochs) == earliest


def test_a_resumed_run_knows_the_best():
    first = BestNetworks(3, NAMES)
    validate(first, 0, 0.5, 0.4)
    second = BestNetworks(3, NAMES)
    second.load_state_dict(first.state_dict())
    assert (second.best, second.epoch) == (first.best, first.epoch)
    validate(second, 1, 0.45, 0.45)
    assert weights(second) == {"optical": 0.0, "elevation": 1.0}
    assert first.best["elevation"] == 0.4  # the state is a copy


def test_a_resumed_run_stops_when_an_uninterrupted_one_does():
    scores = [0.25, 0.75, 0.5, 0.5, 0.5, 0.25, 0.5, 0.5]
    whole = stops(BestNetworks(3, NAMES), scores)
    assert whole == [False] * 6 + [True] * 2  # the mean of epochs 1 to 3 is the highest: 0.583
    first, second = BestNetworks(3, NAMES), BestNetworks(3, NAMES)
    before = stops(first, scores[:4])
    second.load_state_dict(first.state_dict())
    assert before + stops(second, scores[4:], first=4) == whole


def test_a_checkpoint_of_version_0_1_has_no_means():
    first, second = BestNetworks(2, NAMES), BestNetworks(2, NAMES)
    validate(first, 0, 0.5, 0.25)
    old = {key: value for key, value in first.state_dict().items() if key in {"best", "epoch", "weights"}}
    second.load_state_dict(old)
    assert (second.smoothed, second.gained) == ({"optical": 0.5, "elevation": 0.25}, {"optical": 0, "elevation": 0})
    assert stops(second, [0.5, 0.5], [0.25, 0.25], first=1) == [False, True]


@pytest.mark.parametrize("on_part", [True, False])
def test_a_resumed_run_knows_on_what_it_was_scored(on_part):
    first, second = BestNetworks(2, NAMES, on_part=on_part), BestNetworks(2, NAMES, on_part=not on_part)
    second.load_state_dict(first.state_dict())
    assert second.on_part == on_part
    old = {key: value for key, value in first.state_dict().items() if key != "on_part"}
    second.load_state_dict(old)
    assert not second.on_part  # version 0.1 scored on the whole val


def test_one_network_alone():
    best = BestNetworks(2, ("fusion",))
    network, stops = nn.Linear(1, 1), []
    for epoch, score in enumerate((0.1, 0.3, 0.1, 0.1)):  # means of 0.1, 0.2 and less
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
