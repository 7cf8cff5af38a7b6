"""What must hold for every method: its networks, whose gradient is whose, and batches that trap losses."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch

from geocrodino.models.branch import Branch
from geocrodino.models.fusion import MiddleFusion
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.method import MethodName
from geocrodino.training.learners.base import network_input
from geocrodino.training.learners.build import learner_class
from geocrodino.training.learners.joint import JointLearner
from geocrodino.training.task import averaged

from .conftest import CHANNELS, LEAD, K

METHODS = get_args(MethodName)
EVERYTHING = {
    "agreement": 1.0, "heights_from_image": 0.5, "image_from_heights": 0.2, "adversary": 0.5, "dice": 1.0, "ramp": 0.6,
}  # fmt: skip
VARIANTS = [
    *((name, {}) for name in METHODS),
    *(("crodino", {**EVERYTHING, "contrast": c}) for c in ("image", "class", "pixel")),
    *(("crodino", {"contrast": c, "shuffled": True}) for c in ("image", "class", "pixel")),
    ("mutual", {"agreement": 0.5}),
    ("fusion", {"fusion": "early"}),
    ("kd", {"fusion": "early"}),
    ("dropout", {"blank": 1.0}),
]
every_variant = pytest.mark.parametrize(
    ("name", "terms"), VARIANTS, ids=["-".join([n, *map(str, t.values())]) for n, t in VARIANTS]
)


@pytest.fixture
def validated(build):
    """Learners after their first validation: from then on the branches teach each other."""

    def make(*args, **options):
        learner = build(*args, **options)
        if isinstance(learner, JointLearner):
            learner.set_calibration(dict.fromkeys(CHANNELS, 1.0), LEAD)
        return learner

    return make


every_method = pytest.mark.parametrize("name", METHODS)


def stages(name):
    """Shares of the training at which a method does different things."""
    return (0.1, 0.5) if name == "maskedkd" else (0.5,)


@every_variant
def test_networks_of_a_method(validated, make_step, name, terms):
    learner = validated(name, **terms).eval()
    batch = make_step().batch
    for network_name in learner.network_names:
        network = learner.network(network_name)
        assert isinstance(network, MiddleFusion if (name, terms) == ("fusion", {}) else Branch)
        assert network(network_input(network_name, batch)).shape == (3, K, 32, 32)
    if name != "fusion":
        assert {m: learner.network(m).in_channels for m in CHANNELS} == CHANNELS


@every_method
def test_what_a_method_makes_and_whether_it_has_a_teacher(validated, name):
    learner, expected = validated(name), ("fusion",) if name == "fusion" else ("optical", "elevation")
    assert learner.network_names == expected
    assert learner.deploys == ("network" if name == "fusion" else "bundle")
    assert learner.needs_teacher is (name in {"kd", "protokd", "maskedkd"})
    assert isinstance(learner, learner_class(learner.method))
    if learner.needs_teacher:
        assert learner.teacher_method(learner.method).name == "fusion"
    else:
        for call in (lambda: learner.teacher_method(learner.method), lambda: learner.load_teacher({})):
            with pytest.raises(NotImplementedError, match=f"{name} has no teacher"):
                call()


@every_method
def test_only_discom_separates_the_encoders(validated, name):
    learner = validated(name)
    if name != "fusion":
        assert (learner.network("optical").specific_encoder is not None) == (name == "discom")


@every_variant
def test_parts_are_disjoint_and_complete(validated, name, terms):
    learner = validated(name, **terms)
    parts = [{id(p) for p in part} for part in learner.parts()]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert set.union(*parts) == {id(p) for p in learner.parameters() if p.requires_grad}
    if name not in {"fusion", "dropout"}:
        for part, m in zip(parts, CHANNELS, strict=False):  # what both share comes after the branches
            assert part == {id(p) for p in learner.network(m).parameters()}


@every_variant
def test_every_weight_is_taught(validated, make_step, total, name, terms):
    learner = validated(name, **terms)
    taught = set()
    for progress in stages(name):
        total(learner, make_step(progress=progress), averaged(learner, 0.9).module)
        taught |= {n for n, p in learner.named_parameters() if p.grad is not None}
    assert taught == {n for n, p in learner.named_parameters() if p.requires_grad}


TRAPS = {
    "no label": {"labelled": False},
    "no image": {"invalid": ("optical",)},
    "no heights": {"invalid": ("elevation",)},
    "nothing": {"invalid": ("optical", "elevation")},
    "neither labels nor heights": {"labelled": False, "invalid": ("elevation",)},
}


@every_variant
def test_batches_with_something_missing_give_a_finite_loss(validated, make_step, total, name, terms):
    learner = validated(name, **terms)
    average = averaged(learner, 0.9).module
    augmentation = AugmentationSettings(decoupled=not learner.coupled)
    for trap, progress in itertools.product(TRAPS, stages(name)):
        loss = total(learner, make_step(augmentation, progress=progress, **TRAPS[trap]), average)
        assert loss.isfinite(), trap
        assert all(p.grad.isfinite().all() for p in learner.parameters() if p.grad is not None), trap


@every_variant
def test_bfloat16_autocast_gives_the_same_loss_but_for_rounding(validated, make_step, total, name, terms):
    learner = validated(name, **terms)
    average = averaged(learner, 0.9).module
    for progress in stages(name):
        step = make_step(AugmentationSettings(decoupled=not learner.coupled), progress=progress, labelled=0.75)
        torch.manual_seed(0)
        expected = total(learner, step, average)
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = total(learner, step, average)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.2, atol=0.02)
        assert all(p.grad.isfinite().all() for p in learner.parameters() if p.grad is not None)


@every_method
def test_a_batch_is_left_as_it_was(validated, make_step, name):
    learner, step = validated(name), make_step()
    before = {k: v.clone() for k, v in {**step.source, **step.batch}.items()}
    learner.losses(step, averaged(learner, 0.9).module)
    assert all(v.equal(before[k]) for k, v in {**step.source, **step.batch}.items())


@every_method
def test_the_same_seed_gives_the_same_learner(validated, name):
    first, second = validated(name).state_dict(), validated(name).state_dict()
    other = validated(name, seed=1).state_dict()
    assert all(v.equal(second[k]) for k, v in first.items())
    assert not all(v.equal(other[k]) for k, v in first.items())
