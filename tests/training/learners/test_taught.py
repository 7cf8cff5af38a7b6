"""Students of a frozen teacher: what they learn from it and when, and that it never changes."""

from __future__ import annotations

import pytest
import torch

from geocrodino.losses.distillation import distillation_loss, masked_feature_loss, prototype_distillation_loss
from geocrodino.models.branch import Branch, BranchOutput
from geocrodino.models.fusion import MiddleFusion
from geocrodino.training.learners.base import Step, network_input
from geocrodino.training.task import averaged

from .conftest import SIDE, K

MODALITIES = ("optical", "elevation")
RIVALS = ["kd", "protokd", "maskedkd"]


def each(name):
    return {f"{name}/{m}" for m in MODALITIES}


@pytest.mark.parametrize(
    ("name", "progress", "expected"),
    [
        ("kd", 0.0, each("distillation")),
        ("kd", 1.0, each("distillation")),
        ("protokd", 0.0, each("distillation") | each("prototype")),
        ("maskedkd", 0.0, {"masks/segmentation", "masks/diversity"}),
        ("maskedkd", 0.199, {"masks/segmentation", "masks/diversity"}),
        ("maskedkd", 0.2, each("masked")),
        ("maskedkd", 1.0, each("masked")),
    ],
)
def test_terms_of_each_method(build, make_step, name, progress, expected):
    assert set(build(name).losses(make_step(progress=progress), None)) == each("segmentation") | expected


@pytest.mark.parametrize(
    ("name", "change", "gone"),
    [
        ("kd", {"distillation": 0}, each("distillation")),
        ("protokd", {"distillation": 0}, each("distillation")),
        ("protokd", {"prototype": 0}, each("prototype")),
        ("maskedkd", {"tokens": 0, "masked": 0}, each("masked")),
    ],
)
def test_a_switch_removes_its_own_term_and_changes_no_other(build, make_step, name, change, gone):
    before, after = (build(name, **c).losses(make_step(), None) for c in ({}, change))
    assert set(after) == set(before) - gone
    assert all(after[n].equal(before[n]) for n in after)


@pytest.mark.parametrize(
    ("name", "field", "term"),
    [
        ("kd", "distillation", "distillation"),
        ("protokd", "distillation", "distillation"),
        ("protokd", "prototype", "prototype"),
        ("maskedkd", "masked", "masked"),
        ("kd", "dice", "dice"),
    ],
)
def test_a_weight_scales_its_own_term(build, make_step, name, field, term):
    before, after = (build(name, **{"dice": 1.0, field: v}).losses(make_step(), None) for v in (1.0, 2.5))
    assert set(before) == set(after)
    for n in before:
        torch.testing.assert_close(after[n], (2.5 if n in each(term) else 1.0) * before[n])


def teaching(learner, step):
    """What the teacher says and feels, and what each student does, in evaluation mode."""
    with torch.no_grad():
        features = learner.teacher.encode(network_input("fusion", step.batch))
        students = {m: learner.network(m).forward_features(step.batch[m]) for m in MODALITIES}
        return learner.teacher.decoder(features), features[-1], students


@pytest.mark.parametrize("modality", MODALITIES)
def test_terms_are_what_they_say(build, make_step, modality):
    step = make_step()
    step.batch["elevation_valid"][:, :8] = False
    labels, valid = step.batch[f"{modality}_labels"], step.batch[f"{modality}_valid"]
    seen = valid[:, ::8, ::8]
    assert seen.all() == (modality == "optical")

    def check(name, term, value):
        learner = build(name).eval()
        found = learner.losses(step, None)[f"{term}/{modality}"]
        logits, deepest, students = teaching(learner, step)
        student = students[modality]
        features = torch.cat([student.invariant, student.specific], dim=1)
        torch.testing.assert_close(found, value(learner, student.logits, logits, features, deepest))

    check("kd", "distillation", lambda _, s, t, f, g: distillation_loss(s, t, 4.0, valid))
    check("protokd", "distillation", lambda _, s, t, f, g: 0.1 * distillation_loss(s, t, 10.0, valid))
    check("protokd", "prototype", lambda _, s, t, f, g: 0.1 * prototype_distillation_loss(f, g, labels, K, seen))
    check("maskedkd", "masked", lambda k, s, t, f, g: 0.5 * masked_feature_loss(f, g, k.masks(g) * seen[:, None]))


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(build, make_step):
    step = make_step()
    for name in RIVALS:
        learner = build(name).eval()
        logits, deepest, _ = teaching(learner, step)
        same = BranchOutput(logits, *deepest.chunk(2, dim=1))
        for m in MODALITIES:
            learner.network(m).forward_features = lambda images, same=same: same
        found = learner.losses(step, None)
        taught = {n: v.item() for n, v in found.items() if n.split("/")[0] in {"distillation", "prototype", "masked"}}
        assert taught == pytest.approx(dict.fromkeys(taught, 0), abs=1e-6)
        assert taught


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("fusion", ["middle", "early"])
def test_the_teacher_never_changes(build, make_step, total, name, fusion):
    learner = build(name, fusion=fusion)
    average = averaged(learner, 0.9)
    before = {k: v.clone() for k, v in learner.teacher.state_dict().items()}
    students = {k: v.clone() for k, v in learner.students.state_dict().items()}
    assert any("running_mean" in k for k in before)
    assert isinstance(learner.teacher, Branch if fusion == "early" else MiddleFusion)
    optimiser = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for step, mode in enumerate((None, True, False, True)):
        if mode is not None:
            assert learner.train(mode) is learner
            assert learner.students.training is mode
        assert not any(m.training for m in learner.teacher.modules())
        total(learner, make_step(seed=step, progress=step / 4), average.module)
        optimiser.step()
        average.update_parameters(learner)
    for teacher in (learner.teacher, average.module.teacher):
        assert all(v.equal(before[k]) for k, v in teacher.state_dict().items())
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    changed = {k for k, v in learner.students.state_dict().items() if not v.equal(students[k])}
    assert any("running_mean" in k for k in changed)


def test_the_teacher_is_no_part(build):
    for name in RIVALS:
        learner = build(name)
        assert learner.coupled
        of_teacher = {id(p) for p in learner.teacher.parameters()}
        assert not of_teacher & {id(p) for part in learner.parts() for p in part}
        assert len(learner.parts()) == (3 if name == "maskedkd" else 2)


def test_masks_are_learnt_first_and_alone(build, make_step):
    learner = build("maskedkd")
    found = learner.losses(make_step(progress=0.1), None)
    (found["masks/segmentation"] + found["masks/diversity"]).backward()
    assert learner.masks.tokens.grad.any()
    assert all(p.grad is None for p in learner.students.parameters())
    learner.zero_grad()
    found = learner.losses(make_step(progress=0.3), None)
    torch.stack(list(found.values())).sum().backward()
    assert learner.masks.tokens.grad is None
    assert any(p.grad.any() for p in learner.students.parameters() if p.grad is not None)


def test_masks_that_let_nothing_through_are_told_of_by_the_segmentation(build, make_step):
    learner, step = build("maskedkd"), make_step(progress=0.1)
    wide = learner.losses(step, None)["masks/segmentation"]
    learner.masks.forward = lambda features: torch.zeros(3, 8, 4, 4)
    assert learner.losses(step, None)["masks/segmentation"] != wide
    learner.masks.forward = lambda features: torch.ones(3, 8, 4, 4)
    logits, _, _ = teaching(learner, step)
    expected = torch.nn.functional.cross_entropy(logits, step.source["labels"])
    torch.testing.assert_close(learner.losses(step, None)["masks/segmentation"], expected)


def test_each_student_learns_from_its_own_modality(build, make_step):
    learner, first = build("kd").eval(), make_step()
    second = Step({**first.batch, "optical": first.batch["optical"] + 1}, first.source, 0.5)
    learner.teacher.encode = lambda images: [images]
    learner.teacher.decoder.forward = lambda features: torch.zeros(3, K, SIDE, SIDE)
    here, there = learner.losses(first, None), learner.losses(second, None)
    assert {n for n in here if not here[n].equal(there[n])} == {"segmentation/optical", "distillation/optical"}


def test_patches_without_labels_are_learnt_from(build, make_step):
    for name in RIVALS:
        found = build(name).losses(make_step(labelled=0), None)
        taught = {n for n, v in found.items() if v.item() > 0}
        assert taught == (each("masked") if name == "maskedkd" else each("distillation"))
