"""Frozen encoders: no gradients, and statistics that stay whatever sets the mode."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from timm.layers.drop import DropPath
from torch import nn
from torch.optim.swa_utils import update_bn

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.errors import ConfigError
from geocrodino.models.encoder_facts import encoders_in, facts_of
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.config import TrainingConfig
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.network import NetworkSettings
from geocrodino.settings.optimiser import OptimiserSettings
from geocrodino.training.freezing import freeze_encoders, hidden_encoders, treat_encoders
from geocrodino.training.learners.base import Shape
from geocrodino.training.learners.build import build_learner, network_settings
from geocrodino.training.task import TrainingTask

NETWORK = NetworkSettings(encoder="tu-resnet10t", depth=3, invariant_channels=4, decoder_channels=(8,))


def made(name="single", pretrained=("optical",), encoder=NETWORK.encoder):
    method, network = MethodSettings(name=name), NETWORK.model_copy(update={"encoder": encoder})
    shape = Shape(network_settings(method, network), {"optical": 2, "elevation": 1}, 3)
    learner = build_learner(method, shape, torch.ones(3))
    for path, encoder in encoders_in(learner).items():
        facts_of(encoder).pretrained = any(m in path for m in pretrained)
    return learner


def norms(module):
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def test_encoders_with_weights_are_frozen_and_others_are_trained():
    learner, told = made(), []
    treat_encoders(learner, TrainingConfig(freeze="encoder"), told.append)
    assert told == ["Not frozen, because they start from random weights: model.branches.elevation.encoder."]
    frozen = learner.branch("optical").encoder
    assert {p.requires_grad for p in frozen.parameters()} == {False}
    assert {p.requires_grad for p in learner.branch("optical").decoder.parameters()} == {True}
    assert {p.requires_grad for p in learner.branch("elevation").parameters()} == {True}
    assert {part.training for part in frozen.modules()} == {False}
    assert {part.training for part in learner.branch("elevation").modules()} == {True}


def test_nothing_is_frozen_by_default():
    learner = made()
    treat_encoders(learner, TrainingConfig(), lambda _: None)
    assert {p.requires_grad for p in learner.parameters()} == {True}


def rates(learner, settings):
    treat_encoders(learner, settings, lambda _: None)
    return [part.drop_prob for part in learner.modules() if isinstance(part, DropPath)]


def test_stochastic_depth_by_default_where_the_encoder_has_it():
    # ResNet-10 has four blocks, with rates of 0, 1/3, 2/3 and all of 0.2; the second one is in each of two branches.
    assert rates(made(), TrainingConfig()) == pytest.approx(2 * [0.2 / 3])
    assert rates(made(), TrainingConfig(drop_path=0)) == []
    assert rates(made(encoder="mobilenet_v2"), TrainingConfig()) == []


def test_a_teacher_is_not_trained_and_not_named():
    learner, told = made("kd", ()), []
    for modality in ("optical", "elevation"):
        facts_of(learner.network(modality).encoder).pretrained = True
    treat_encoders(learner, TrainingConfig(freeze="encoder", drop_path=0.1), told.append)
    assert told == []
    assert not any(p.requires_grad for p in learner.teacher.parameters())


@pytest.mark.parametrize(("name", "count"), [("discom", 4), ("fusion", 2), ("kd", 2)])
def test_every_kind_of_network(name, count):
    learner = made(name, ("optical", "elevation"))
    assert freeze_encoders(learner) == ()
    encoders = encoders_in(learner).values()
    assert sum(facts_of(encoder).frozen for encoder in encoders) == count
    assert not any(
        p.requires_grad or part.training for e in encoders for part in e.modules() for p in part.parameters()
    )


def test_random_encoders_alone_are_refused():
    with pytest.raises(ConfigError) as refused:
        freeze_encoders(made(pretrained=()))
    assert str(refused.value) == (
        "training.freeze: expected an encoder that starts from weights, found random weights alone, which would never "
        "learn.\nName a bundle with `start_from` or weights with `encoder_weights`, or leave `training.freeze` out."
    )


def test_a_training_step_changes_no_frozen_weight_and_no_statistic():
    learner = made()
    freeze_encoders(learner)
    augmentation = PairAugmentation(AugmentationSettings())
    task = TrainingTask(learner, augmentation, OptimiserSettings(learning_rate=0.1), ema_decay=0.9)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    task.train()
    task._trainer = SimpleNamespace(estimated_stepping_batches=9)
    optimiser = task.configure_optimizers()["optimizer"]
    outputs = learner.model({"optical": torch.randn(2, 2, 16, 16), "elevation": torch.randn(2, 1, 16, 16)})
    sum(output.logits.square().mean() for output in outputs.values()).backward()
    optimiser.step()
    task.average.update_parameters(learner)
    for networks in (learner, task.kept):
        changed = {name for name, value in networks.state_dict().items() if not torch.equal(value, before[name])}
        assert not any("optical.encoder" in name for name in changed)
        assert any("optical.decoder" in name for name in changed)
        assert any("elevation.encoder" in name for name in changed)
    assert all(p.grad is None for p in learner.branch("optical").encoder.parameters())


def test_statistics_of_a_frozen_encoder_are_not_measured_anew():
    learner = made()
    freeze_encoders(learner)
    branch = learner.branch("optical").train()
    images = torch.randn(2, 2, 16, 16)
    kept = [norm.running_var.clone() for norm in norms(branch.encoder)]
    others = [norm.running_var.clone() for norm in norms(branch.decoder)]
    names = list(branch.state_dict())
    with hidden_encoders(branch):
        update_bn([images], branch, torch.device("cpu"))
    assert list(branch.state_dict()) == names
    assert all(torch.equal(norm.running_var, before) for norm, before in zip(norms(branch.encoder), kept, strict=True))
    assert not any(
        torch.equal(norm.running_var, before) for norm, before in zip(norms(branch.decoder), others, strict=True)
    )
