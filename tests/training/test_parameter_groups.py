"""The share of the learning rate at which each parameter learns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.models.encoder_facts import facts_of
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.network import NetworkSettings
from geocrodino.settings.optimiser import OptimiserSettings
from geocrodino.training.learners.base import Shape
from geocrodino.training.learners.build import build_learner
from geocrodino.training.parameter_groups import parameter_groups
from geocrodino.training.task import TrainingTask

NETWORK = NetworkSettings(encoder="tu-resnet10t", depth=3, invariant_channels=4, decoder_channels=(8,))


@pytest.fixture
def learner():
    """Two branches; the encoder of the optical one starts from weights."""
    shape = Shape(NETWORK, {"optical": 2, "elevation": 1}, 3)
    made = build_learner(MethodSettings(name="single"), shape, torch.ones(3))
    facts_of(made.branch("optical").encoder).pretrained = True
    return made


def names(learner, parameters):
    return {name for name, p in learner.named_parameters() if any(p is own for own in parameters)}


def test_rates_of_1_leave_one_group_in_the_order_of_the_learner(learner):
    ((share, parameters),) = parameter_groups(learner, OptimiserSettings(encoder_rate=1))
    assert share == 1
    assert [id(p) for p in parameters] == [id(p) for p in learner.parameters()]


def test_only_an_encoder_that_starts_from_weights_learns_slower(learner):
    groups = parameter_groups(learner, OptimiserSettings(encoder_rate=0.1))
    assert [share for share, _ in groups] == [1, 0.1]
    slow = "model.branches.optical.encoder."
    assert names(learner, groups[1][1]) == {n for n, _ in learner.named_parameters() if n.startswith(slow)}
    assert sum(len(parameters) for _, parameters in groups) == len(list(learner.parameters()))


def test_each_earlier_stage_gets_the_factor_once_more(learner):
    groups = parameter_groups(learner, OptimiserSettings(encoder_rate=0.5, layer_decay=0.5))
    assert [share for share, _ in groups] == [1, 0.5, 0.25, 0.125]
    place = "model.branches.optical.encoder.model."
    stages = [{n.removeprefix(place).split(".")[0] for n in names(learner, found)} for _, found in groups[1:]]
    assert stages == [{"layer2"}, {"layer1"}, {"conv1", "bn1"}]


def test_parameters_without_gradients_are_in_no_group(learner):
    learner.branch("optical").encoder.requires_grad_(False)
    groups = parameter_groups(learner, OptimiserSettings(encoder_rate=0.5, layer_decay=0.5))
    assert [share for share, _ in groups] == [1]
    assert not any("optical.encoder" in name for name in names(learner, groups[0][1]))


def made_optimiser(learner, **settings):
    task = TrainingTask(learner, PairAugmentation(AugmentationSettings()), OptimiserSettings(**settings))
    task._trainer = SimpleNamespace(estimated_stepping_batches=9)
    return task.configure_optimizers()


def test_each_group_has_its_own_cycle(learner):
    made = made_optimiser(learner, learning_rate=0.02, encoder_rate=0.5)
    optimiser, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = [[group["lr"] for group in optimiser.param_groups]]
    for _ in range(9):
        optimiser.step()
        scheduler.step()
        rates.append([group["lr"] for group in optimiser.param_groups])
    assert rates[0] == pytest.approx([0.02 / 25, 0.01 / 25])
    assert max(rate for rate, _ in rates) <= 0.02
    assert all(slow == pytest.approx(fast / 2) for fast, slow in rates)


def test_an_optimiser_of_an_earlier_version_is_continued(learner):
    parameters = [p for p in learner.parameters() if p.requires_grad]
    earlier = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, index + 1.0)
    earlier.step()
    optimiser = made_optimiser(learner, encoder_rate=1)["optimizer"]
    optimiser.load_state_dict(earlier.state_dict())
    for index, parameter in enumerate(learner.parameters()):
        assert torch.allclose(optimiser.state[parameter]["exp_avg"], torch.tensor(0.1 * (index + 1)))


def test_settings_outside_0_to_1_are_refused():
    for key, value in (("encoder_rate", 0), ("encoder_rate", 1.1), ("layer_decay", 0), ("layer_decay", 2)):
        with pytest.raises(ValueError, match=key):
            OptimiserSettings(**{key: value})


def test_a_module_without_an_encoder_is_one_group():
    module = nn.Linear(2, 2)
    ((share, parameters),) = parameter_groups(module, OptimiserSettings(encoder_rate=0.1, layer_decay=0.9))
    assert (share, len(parameters)) == (1, 2)
