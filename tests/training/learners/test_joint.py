"""Branches that learn together: every term is there exactly when it is asked for, and is what it says."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.losses.contrastive import class_contrast, image_contrast, pixel_contrast
from geocrodino.models.crodino import CrodinoOutput
from geocrodino.settings.augmentation import AugmentationSettings, RadiometrySettings
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.method import MethodSettings
from geocrodino.training.learners.base import Step
from geocrodino.training.learners.between import advice, agreement, contrast, ramped
from geocrodino.training.learners.terms import Agreement

from .conftest import CHANNELS, LEAD, SIDE, K

STRIDE, C = 8, 4
MODALITIES = ("optical", "elevation")
CONTRASTS = ["image", "class", "pixel"]


def each(name):
    return {f"{name}/{m}" for m in MODALITIES}


class Said(nn.Module):
    """Two branches whose features and answers are given."""

    stride = STRIDE

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, images):
        return self.outputs


def trust(learner):
    """The learner after its first validation."""
    learner.set_calibration(dict.fromkeys(MODALITIES, 1.0), LEAD)
    return learner


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def values(channels, side):
        return torch.randn(3, channels, side, side, generator=generator, requires_grad=True)

    return {m: CrodinoOutput(values(K, SIDE), values(C, 4), values(C, 4), values(K, SIDE)) for m in MODALITIES}


@pytest.fixture
def terms(build, make_step, answers):
    """The terms of a method, for given outputs, batch and common opinion."""

    def run(outputs=None, step=None, opinion=None, *, learner=None, name="crodino", **settings):
        learner = trust(learner or build(name, **settings))
        learner.model = Said(outputs or draw())
        said = answers({m: out.logits.detach() for m, out in (opinion or draw(7)).items()})
        return learner.losses(step or make_step(labelled=0.75), said)

    return run


EVERYTHING = {
    "dice": 1.0, "agreement": 1.0, "heights_from_image": 1.0, "image_from_heights": 1.0, "adversary": 1.0,
}  # fmt: skip
OF_BRANCHES = {"segmentation", "dice", "auxiliary", "orthogonality", "adversary", "agreement", "across"}
ALL_NAMES = set.union(*map(each, OF_BRANCHES)) | {"contrast"}


def test_all_terms_are_there(terms):
    assert set(terms(**EVERYTHING)) == ALL_NAMES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("single", each("segmentation")),
        (
            "crodino",
            each("segmentation") | each("auxiliary") | each("orthogonality") | each("agreement") | {"contrast"},
        ),
        ("mutual", each("segmentation") | each("agreement")),
        ("discom", each("segmentation") | each("auxiliary") | each("orthogonality") | each("adversary")),
    ],
)
def test_terms_of_each_method(terms, name, expected):
    assert set(terms(name=name)) == expected


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"auxiliary": 0.0}, each("auxiliary")),
        ({"orthogonality": 0.0}, each("orthogonality")),
        ({"dice": 0.0}, each("dice")),
        ({"contrast": "none"}, {"contrast"}),
        ({"contrast_weight": 0.0}, {"contrast"}),
        ({"agreement": 0.0}, each("agreement")),
        ({"heights_from_image": 0.0}, {"across/optical"}),
        ({"image_from_heights": 0.0}, {"across/elevation"}),
        ({"adversary": 0.0}, each("adversary")),
    ],
)
def test_a_switch_removes_its_own_term_and_changes_no_other(build, terms, change, gone):
    whole, less = build("crodino", **EVERYTHING), build("crodino", **EVERYTHING | change)
    less.load_state_dict(whole.state_dict(), strict=False)  # the heads of the terms, which are drawn in their order
    before, after = terms(learner=whole), terms(learner=less)
    assert set(after) == ALL_NAMES - gone
    assert all(torch.equal(after[name], before[name]) for name in after)


def test_what_only_a_term_needs_is_there_with_the_term_alone(build):
    bare, whole = build("crodino", auxiliary=0), build("crodino", **EVERYTHING)
    assert bare.model.auxiliary is None
    assert not bare.heads
    assert not hasattr(bare, "adversary")
    assert not hasattr(bare, "readers")
    assert len(bare.parts()) == 2
    assert whole.model.auxiliary is not None
    assert whole.heads == ["adversary", "readers"]
    assert set(whole.readers) == set(MODALITIES)
    assert len(whole.parts()) == 3


@pytest.mark.parametrize(
    ("field", "scaled"),
    [
        *((t, each(t)) for t in sorted(OF_BRANCHES - {"segmentation", "across"})),
        ("contrast_weight", {"contrast"}),
        ("heights_from_image", {"across/optical"}),
        ("image_from_heights", {"across/elevation"}),
    ],
)
def test_a_weight_scales_its_own_term(terms, field, scaled):
    before, after = terms(**EVERYTHING), terms(**EVERYTHING | {field: 2.5})
    assert all(before[name] != 0 for name in ALL_NAMES)
    for name in ALL_NAMES:
        torch.testing.assert_close(after[name], (2.5 if name in scaled else 1.0) * before[name])


def test_label_smoothing_touches_the_segmentation_alone(terms):
    before, after = terms(**EVERYTHING), terms(**EVERYTHING, label_smoothing=0.2)
    assert {n for n in ALL_NAMES if not torch.equal(before[n], after[n])} == each("segmentation")


def test_values_by_hand(build, make_step, terms):
    # No preference among 3 classes costs ln 3; equal halves have cosine 1; features that do not tell the two classes
    # that are there apart cost ln 2, as does an adversary that knows nothing. A target that is sure costs ln 3 too.
    # Reading 0 for a half costs 1/8.
    step = make_step()
    labels = torch.zeros(3, SIDE, SIDE, dtype=torch.int64)
    labels[:, 8:] = 2
    halves = {m: torch.full_like(step.batch[m], 0.5) for m in MODALITIES}
    sure = {"optical": labels.clone(), "elevation": torch.ones_like(labels)}
    labels[:, :, 24:] = IGNORE_INDEX
    step = Step({**step.batch, **{f"{m}_labels": labels for m in MODALITIES}, **halves}, step.source, 1.0)
    same, flat = torch.ones(3, C, 4, 4), torch.zeros(3, K, SIDE, SIDE)
    learner = build("crodino", agreement=1, adversary=1, heights_from_image=1, image_from_heights=1)
    for parameter in (*learner.adversary.parameters(), *learner.readers.parameters()):
        nn.init.zeros_(parameter)
    opinion = {m: CrodinoOutput(100 * F.one_hot(k, K).movedim(-1, 1), same, same, None) for m, k in sure.items()}
    found = terms({m: CrodinoOutput(flat, same, same, flat) for m in MODALITIES}, step, opinion, learner=learner)
    expected = dict.fromkeys(each("segmentation") | each("auxiliary"), math.log(3))
    # A quarter of the pixels has no label. The heights say 1 everywhere: the image, which says 0, leads by 0.4 on a
    # quarter of the rows; they lead by 0.6 on the others, where it says 2.
    expected |= {"agreement/optical": 0.6 * math.log(3) * 3 / 16, "agreement/elevation": 0.4 * math.log(3) / 16}
    expected |= dict.fromkeys(each("orthogonality"), 1.0) | dict.fromkeys(each("adversary"), math.log(2))
    expected |= dict.fromkeys(each("across"), 0.125) | {"contrast": math.log(2)}
    assert {n: v.item() for n, v in found.items()} == pytest.approx(expected, rel=1e-5)


def test_class_weights_enter_the_cross_entropies(build, make_step, terms):
    learner, outputs, step = build("crodino"), draw(), make_step()
    learner.class_weights = torch.tensor([0.0, 0.5, 1.0])
    found = terms(outputs, step, learner=learner)
    labels = step.batch["optical_labels"]
    for term, logits in (
        ("segmentation", outputs["optical"].logits),
        ("auxiliary", outputs["optical"].auxiliary_logits),
    ):
        expected = F.cross_entropy(logits, labels, learner.class_weights)
        torch.testing.assert_close(found[f"{term}/optical"], expected)


def test_orthogonality_and_adversary_leave_invalid_features_out(build, make_step, terms):
    outputs, step, learner = draw(), make_step(), build("crodino", adversary=1)
    step.batch["optical_valid"][:, :, 2 * STRIDE :] = False
    found = terms(outputs, step, learner=learner)
    i, s = outputs["optical"].invariant[..., :2], outputs["optical"].specific[..., :2]
    expected = F.cosine_similarity(i, s, dim=1).square().mean()
    torch.testing.assert_close(found["orthogonality/optical"], expected)
    guess = learner.adversary(i)
    expected = F.cross_entropy(guess, torch.zeros(3, 4, 2, dtype=torch.int64))
    torch.testing.assert_close(found["adversary/optical"], expected)


def test_the_adversary_learns_to_tell_and_the_branch_to_mislead(build, terms):
    learner, outputs = build("crodino", adversary=1), draw()
    (terms(outputs, learner=learner)["adversary/elevation"]).backward()
    guess = learner.adversary(outputs["elevation"].invariant.detach().requires_grad_())
    leaf = outputs["elevation"].invariant.detach().requires_grad_()
    plain = F.cross_entropy(learner.adversary(leaf), torch.ones(3, 4, 4, dtype=torch.int64))
    (gradient, weight) = torch.autograd.grad(plain, [leaf, learner.adversary.weight])
    torch.testing.assert_close(outputs["elevation"].invariant.grad, -gradient)
    torch.testing.assert_close(learner.adversary.weight.grad, weight)
    assert guess.shape == (3, 2, 4, 4)


# --- what ties the branches together -------------------------------------------------------------------------------


def gradient_of_elevation(terms, seed, **settings):
    fixed, other = draw(0), draw(seed)
    outputs = {"optical": other["optical"], "elevation": fixed["elevation"]}
    torch.manual_seed(0)
    torch.stack(list(terms(outputs, **settings).values())).sum().backward()
    return [x.grad for x in fixed["elevation"][:3]]


def test_two_singles_learn_without_each_other(terms):
    here, there = (gradient_of_elevation(terms, seed, name="single") for seed in (1, 2))
    assert torch.equal(here[0], there[0])
    assert here[1:] == there[1:] == [None, None]  # the logits' own path is all there is


@pytest.mark.parametrize("kind", CONTRASTS)
def test_a_contrast_ties_the_two_together(terms, kind):
    here, there = (gradient_of_elevation(terms, seed, contrast=kind) for seed in (1, 2))
    assert torch.equal(here[0], there[0])
    assert not torch.equal(here[1], there[1])


def test_two_singles_as_networks(build, make_step):
    found = []
    for seed in (1, 2):
        learner, step = build("single"), make_step()
        image = torch.randn(3, CHANNELS["optical"], SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        losses = learner.losses(Step({**step.batch, "optical": image}, step.source, 0.5), learner)
        torch.stack(list(losses.values())).sum().backward()
        found.append([p.grad for p in learner.network("elevation").parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", ["none", *CONTRASTS])
@pytest.mark.parametrize("trap", [{}, {"invalid": MODALITIES}], ids=["valid", "invalid"])
def test_a_batch_without_labels_gives_no_nan(make_step, terms, kind, trap):
    outputs = draw()
    found = terms(outputs, make_step(labelled=0, **trap), contrast=kind, **EVERYTHING)
    zero = each("segmentation") | each("dice") | each("auxiliary")
    if trap:
        zero = set(found)
    if kind == "class":
        zero |= {"contrast"}
    assert {name for name in zero if found[name].item() != 0} == set()
    torch.stack(list(found.values())).sum().backward()
    for m in MODALITIES:
        assert all(tensor.grad is None or torch.isfinite(tensor.grad).all() for tensor in outputs[m])


PLAIN = RadiometrySettings(
    gain=0, offset_std=0, band_gain=0, band_offset_std=0, curve=0, noise_std=0, blur_sigma_px=0, blur_probability=0
)
EXACT = AugmentationSettings(resample_probability=0, optical=PLAIN, elevation=PLAIN)
"""Quarter turns and mirrors only."""
FREE = AugmentationSettings(resample_probability=1, optical=PLAIN, elevation=PLAIN)


@pytest.mark.parametrize("shuffled", [False, True])
def test_contrasts_by_name_and_their_control(make_step, shuffled):
    outputs, batch = draw(), make_step(EXACT).batch
    optical, elevation = (outputs[m].invariant for m in MODALITIES)
    labels, views = ([batch[f"{m}_{what}"] for m in MODALITIES] for what in ("labels", "transform"))

    def check(kind, call, *args, **options):
        torch.manual_seed(1)
        found = contrast(outputs, batch, MethodSettings(contrast=kind, shuffled=shuffled), K, STRIDE)
        torch.manual_seed(1)
        torch.testing.assert_close(found, call(optical, elevation, *args, shuffled=shuffled, **options))

    check("image", image_contrast)
    check("class", class_contrast, *labels, num_classes=K)
    check("pixel", pixel_contrast, *views, STRIDE)


def test_contrasts_leave_invalid_features_out(make_step):
    outputs, batch = draw(), make_step().batch
    batch["elevation_valid"][:, :16] = False
    seen = torch.ones(3, 4, 4, dtype=torch.bool)
    seen[:, :2] = False
    optical, elevation = (outputs[m].invariant for m in MODALITIES)
    found = contrast(outputs, batch, MethodSettings(contrast="image"), K, STRIDE)
    torch.testing.assert_close(found, image_contrast(optical, elevation, second_valid=seen))
    torch.manual_seed(0)
    found = contrast(outputs, batch, MethodSettings(contrast="pixel"), K, STRIDE)
    torch.manual_seed(0)
    same = torch.eye(3).repeat(3, 1, 1)
    expected = pixel_contrast(optical, elevation, same, same, STRIDE, second_valid=seen)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", CONTRASTS)
def test_shuffling_keeps_what_belongs_together_from_being_drawn_together(make_step, kind):
    base = 5 * F.one_hot(make_step().batch["optical_labels"][:, ::STRIDE, ::STRIDE], K).movedim(-1, 1).float()
    base = torch.cat([base, torch.arange(3.0)[:, None, None, None].expand(3, C - K, 4, 4)], dim=1)
    outputs = {m: CrodinoOutput(None, base, None, None) for m in MODALITIES}

    def said(shuffled):
        torch.manual_seed(0)
        method = MethodSettings(contrast=kind, shuffled=shuffled)
        return sum(contrast(outputs, make_step().batch, method, K, STRIDE) for _ in range(10)) / 10

    assert said(shuffled=True) > said(shuffled=False) + 0.1


@pytest.mark.parametrize("temperature", [0.05, 2.0])
@pytest.mark.parametrize("kind", CONTRASTS)
def test_the_temperature_of_a_contrast(make_step, kind, temperature):
    outputs, batch = draw(), make_step().batch
    torch.manual_seed(0)
    warm = contrast(outputs, batch, MethodSettings(contrast=kind), K, STRIDE)
    torch.manual_seed(0)
    assert contrast(outputs, batch, MethodSettings(contrast=kind, temperature=temperature), K, STRIDE) != warm


# --- the ramp ------------------------------------------------------------------------------------------------------


def test_the_ramp_is_half_a_bell():
    assert [ramped(p, 0.4) for p in (0, 0.1, 0.2, 0.4, 0.7, 1)] == pytest.approx(
        [0, 0.5 - math.sqrt(0.125), 0.5, 1, 1, 1], abs=1e-6
    )
    assert [ramped(p, 0) for p in (0, 0.5, 1)] == [1, 1, 1]
    assert ramped(0.5, 1) == pytest.approx(0.5)


def test_the_ramp_holds_back_contrast_and_agreement_alone(make_step, terms):
    whole = terms(**EVERYTHING)
    for progress, share in ((0.0, 0.0), (0.15, 0.5), (0.3, 1.0), (1.0, 1.0)):
        found = terms(step=make_step(progress=progress, labelled=0.75), **EVERYTHING, ramp=0.3)
        for name in ALL_NAMES:
            held = name == "contrast" or name.startswith("agreement")
            torch.testing.assert_close(found[name], (share if held else 1.0) * whole[name], msg=name)


# --- agreement -----------------------------------------------------------------------------------------------------


def test_advice_is_worth_the_lead_in_the_two_classes_that_are_named():
    """Four pixels: class 0 against 2, class 1 against 2, class 0 against the same, and class 0 against 2, not seen."""
    probabilities = torch.tensor([[0.7, 0.1, 0.7, 0.7], [0.2, 0.6, 0.2, 0.2], [0.1, 0.3, 0.1, 0.1]])
    other = torch.tensor([[0.0, 0.0, 5.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0]])
    lead = torch.tensor([[0.0, 0.2, 0.4], [0.1, 0.0, 0.3], [0.5, 0.6, 0.0]])
    valid = torch.tensor([[[True, True, True, False]]])
    found = advice(probabilities.log()[None, :, None], other[None, :, None], lead, valid)
    assert found.shape == (1, 4, 1, 4)
    torch.testing.assert_close(found[0, :3, 0], probabilities)
    assert found[0, 3, 0].tolist() == pytest.approx([0.4, 0.3, 0, 0])


def test_nobody_is_trusted_before_the_first_measurement(build, make_step, answers):
    learner = build("mutual")
    said = answers({m: torch.randn(3, K, SIDE, SIDE) for m in MODALITIES})
    step = make_step(labelled=0)
    found = learner.losses(step, said)
    assert all(found[name].item() == 0 for name in each("agreement"))
    trust(learner)
    found = learner.losses(step, said)
    assert all(found[name].item() > 0 for name in each("agreement"))


def test_nobody_is_asked_where_there_is_a_label(build, make_step, answers):
    learner = trust(build("mutual"))
    said = answers({m: torch.randn(3, K, SIDE, SIDE) for m in MODALITIES})
    found = learner.losses(make_step(), said)
    assert all(found[name].item() == 0 for name in each("agreement"))
    assert all(said.network(m).asked == [] for m in MODALITIES)


def test_only_patches_with_unlabelled_pixels_are_asked_about_and_the_mean_is_over_all(build, make_step):
    learner, step = trust(build("mutual")), make_step()
    average = copy.deepcopy(learner).eval()
    every = learner.losses(make_step(labelled=0), average)
    for m in MODALITIES:
        step.batch[f"{m}_labels"][1] = IGNORE_INDEX
    found = learner.losses(step, average)
    parts = []
    for index in range(3):  # the same patch alone, as a third of the mean
        alone = make_step()
        for m in MODALITIES:
            alone.batch[f"{m}_labels"][index] = IGNORE_INDEX
        parts.append(learner.losses(alone, average))
    for name in each("agreement"):
        assert 0 < found[name].item() < every[name].item()
        torch.testing.assert_close(sum(part[name] for part in parts), every[name])


def test_branches_that_learn_from_different_patches(build, make_step, answers):
    """Patch 0 has an unlabelled pixel in the view of the image alone, patch 2 in that of the heights alone."""
    torch.manual_seed(0)
    learner, step, outputs = build("mutual"), make_step(), draw()
    learner.assume_validated()
    average = answers({m: torch.zeros(0) for m in MODALITIES})
    said = {m: nn.Conv2d(CHANNELS[m], K, 1).requires_grad_(False) for m in MODALITIES}
    asked = {m: [] for m in MODALITIES}
    for m in MODALITIES:
        average.answers[m] = said[m]
        said[m].register_forward_pre_hook(lambda _, given, m=m: asked[m].append(given[0]))
    unlabelled = {"optical": 0, "elevation": 2}
    for m, patch in unlabelled.items():
        step.batch[f"{m}_labels"][patch, 5] = IGNORE_INDEX
    seen = learner.seen(step, average, outputs)
    found = Agreement().between_branches(seen)
    for m in MODALITIES:
        (images,) = asked[m]
        assert images.equal(step.source[m][[0, 2]])
    logits = {m: said[m](step.source[m]) for m in MODALITIES}
    for (m, patch), teacher in zip(unlabelled.items(), reversed(MODALITIES), strict=True):
        differ = logits[teacher][patch, :, 5].argmax(dim=0) != logits[m][patch, :, 5].argmax(dim=0)
        target, own = logits[teacher][patch, :, 5].softmax(dim=0), outputs[m].logits[patch, :, 5].log_softmax(dim=0)
        divergence = (target * (target.log() - own)).sum(dim=0)[differ].sum() / (3 * SIDE * SIDE)
        assert differ.any()
        torch.testing.assert_close(found[f"agreement/{m}"], seen.ramp * learner.method.agreement * divergence)


def test_each_branch_hears_the_calibrated_other_one(build, make_step, answers):
    learner, step = build("mutual"), make_step(labelled=0)
    logits = {m: torch.randn(3, K, SIDE, SIDE) for m in MODALITIES}
    learner.set_calibration({"optical": 2.0, "elevation": 0.5}, LEAD)
    step.source["optical_valid"][:, :9] = False
    outputs = draw()
    seen = learner.seen(step, answers(logits), outputs)
    found = Agreement().between_branches(seen)["agreement/elevation"]
    told = advice(logits["optical"] / 2, logits["elevation"], learner.lead[0], step.source["optical_valid"])
    assert (told[:, -1, :9] == 0).all()
    assert (told[:, -1, 9:] > 0).any()
    expected = agreement(outputs["elevation"].logits, told, step.batch, "elevation")
    torch.testing.assert_close(found, seen.ramp * learner.method.agreement * expected)


def test_a_branch_that_is_nowhere_more_often_right_teaches_nothing(build, make_step, answers):
    learner = build("mutual")
    lead = {**LEAD, ("optical", "elevation"): np.zeros((K, K))}
    learner.set_calibration(dict.fromkeys(MODALITIES, 1.0), lead)
    step = make_step(labelled=0)
    found = learner.losses(step, answers({m: torch.randn(3, K, SIDE, SIDE) for m in MODALITIES}))
    assert found["agreement/elevation"].item() == 0
    assert found["agreement/optical"].item() > 0


def test_calibration_travels_with_the_checkpoint(build):
    learner, other = build("mutual"), build("mutual", seed=1)
    learner.set_calibration({"optical": 2.0, "elevation": 0.5}, LEAD)
    other.load_state_dict(learner.state_dict())
    assert other.temperature.tolist() == [2.0, 0.5]
    assert other.lead.equal(learner.lead)
    assert other.lead.any()


def test_the_target_is_drawn_from_patches_as_they_are_and_teaches_the_branch_alone(build, make_step, answers):
    learner, step = trust(build("mutual")), make_step(EXACT, labelled=0)
    said = answers({m: torch.randn(3, K, SIDE, SIDE, requires_grad=True) for m in MODALITIES})
    found = learner.losses(step, said)
    for m in MODALITIES:
        (asked,) = said.network(m).asked
        assert asked.equal(step.source[m])
        found[f"agreement/{m}"].backward(retain_graph=True)
        assert said.network(m).logits.grad is None
        assert any(p.grad.any() for p in learner.network(m).parameters() if p.grad is not None)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("settings", [EXACT, FREE], ids=["turned and mirrored", "turned freely and scaled"])
def test_a_branch_that_says_the_target_in_its_own_view_agrees(modality, settings):
    """The logits go the way of an image, the target the way of the loss."""
    torch.manual_seed(3)
    # Bilinear mixing is linear in probabilities, so these are what is augmented.
    said = (2 * torch.randn(8, K, SIDE, SIDE)).softmax(dim=1)
    target = torch.cat([said, torch.rand(8, 1, SIDE, SIDE)], dim=1)
    valid = torch.ones(8, SIDE, SIDE, dtype=torch.bool)
    unlabelled = torch.full((8, SIDE, SIDE), IGNORE_INDEX)
    source = {"labels": unlabelled, **dict.fromkeys(MODALITIES, said), **{f"{m}_valid": valid for m in MODALITIES}}
    batch = PairAugmentation(settings)(source)
    assert len({tuple(t.flatten().tolist()) for t in batch[f"{modality}_transform"]}) > 3
    logits = batch[modality].clamp(min=1e-9).log()
    assert agreement(logits, target, batch, modality).item() == pytest.approx(0, abs=1e-6)
    assert agreement(said.log(), target, batch, modality) > 0.1  # the other way of looking is not


@pytest.mark.parametrize("modality", MODALITIES)
def test_agreement_is_the_same_in_every_turned_and_mirrored_view(make_step, modality):
    torch.manual_seed(4)
    source, target = make_step().source, torch.rand(3, K, SIDE, SIDE).softmax(dim=1)
    target, logits = torch.cat([target, torch.rand(3, 1, SIDE, SIDE)], dim=1), torch.randn(3, K, SIDE, SIDE)
    unlabelled = torch.full_like(source["labels"], IGNORE_INDEX)
    view = PairAugmentation(EXACT)({**as_it_is(modality), "labels": unlabelled, modality: logits})
    assert not view[modality].equal(logits)
    here = agreement(logits, target, as_it_is(modality), modality)
    torch.testing.assert_close(agreement(view[modality], target, view, modality), here)


def as_it_is(modality):
    return {
        f"{modality}_transform": torch.eye(3).repeat(3, 1, 1),
        f"{modality}_valid": torch.ones(3, SIDE, SIDE, dtype=torch.bool),
        f"{modality}_labels": torch.full((3, SIDE, SIDE), IGNORE_INDEX),
    }


def test_agreement_counts_neither_what_a_branch_does_not_see_nor_what_nobody_knows():
    torch.manual_seed(0)
    logits, target = torch.randn(3, K, SIDE, SIDE), torch.randn(3, K, SIDE, SIDE).softmax(dim=1)
    sure = torch.ones(3, 1, SIDE, SIDE)
    batch = as_it_is("optical")
    batch["optical_valid"][:, 5:] = False
    sure[..., 7:] = 0
    found = agreement(logits, torch.cat([target, sure], dim=1), batch, "optical")
    expected = F.kl_div(logits.log_softmax(dim=1), target, reduction="none").sum(dim=1)[:, :5, :7].sum()
    torch.testing.assert_close(found, expected / (3 * SIDE * SIDE))


def test_agreement_beside_a_hole_is_never_negative():
    """Half of a pixel that nobody sees must not make half of a target."""
    seen = torch.ones(1, SIDE, SIDE)
    seen[..., 16:] = 0
    said = torch.tensor([0.998, 0.001, 0.001]).log()[None, :, None, None].expand(1, K, SIDE, SIDE)
    target = torch.cat([said.exp() * seen[:, None], seen[:, None]], dim=1)
    shift = torch.eye(3)[None].clone()
    shift[:, 0, 2] = 0.5
    batch = {name: value[:1] for name, value in as_it_is("optical").items()} | {"optical_transform": shift}
    assert agreement(said, target, batch, "optical").item() == pytest.approx(0, abs=1e-6)


def test_patches_without_labels_are_learnt_from(build, make_step, total, answers):
    learner = trust(build("mutual"))
    said = answers({m: torch.randn(3, K, SIDE, SIDE) for m in MODALITIES})
    total(learner, make_step(labelled=0), said)
    for m in MODALITIES:
        assert all(p.grad is not None for p in learner.network(m).parameters())
        assert any(p.grad.any() for p in learner.network(m).parameters())


# --- reading one modality from the other's features ----------------------------------------------------------------


class Reads(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, features):
        self.features = features
        return self.values


def readings(build, make_step):
    """A step of which each modality has its own view, and readers that say exactly what the other shows in it."""
    learner, source, batch = build("crodino", heights_from_image=1, image_from_heights=1), make_step().source, {}
    both = torch.cat([source[m] for m in MODALITIES], dim=1)
    for seed, (m, other) in enumerate(zip(MODALITIES, reversed(MODALITIES), strict=True)):
        torch.manual_seed(seed)
        view = PairAugmentation(EXACT)({"labels": source["labels"], m: both, f"{m}_valid": source[f"{m}_valid"]})
        shown = dict(zip(MODALITIES, view[m].split([CHANNELS[n] for n in MODALITIES], dim=1), strict=True))
        batch |= {**view, m: shown[m]}
        learner.readers[m] = Reads(shown[other])
    return learner, Step(batch, source, 0.5)


def test_a_perfect_reader_costs_nothing_whatever_the_views(build, make_step, terms):
    learner, step = readings(build, make_step)
    assert not step.batch["optical_transform"].equal(step.batch["elevation_transform"])
    outputs = draw()
    found = terms(outputs, step, learner=learner)
    for m in MODALITIES:
        assert found[f"across/{m}"].item() == pytest.approx(0, abs=1e-9)
        expected = torch.cat([outputs[m].invariant, outputs[m].specific], dim=1)
        assert learner.readers[m].features.equal(expected)


def test_a_reader_is_not_asked_for_what_either_modality_does_not_see(build, make_step, terms):
    learner, step = readings(build, make_step)
    learner.readers["optical"].values = learner.readers["optical"].values + 2.0  # smooth distance 1.5
    step.batch["optical_valid"][:, :10] = False
    learner.readers["optical"].values[:, :, :10] = 1e6
    assert terms(step=step, learner=learner)["across/optical"].item() == pytest.approx(1.5)
    step.batch["elevation_valid"][:] = False
    found = terms(step=step, learner=learner)
    assert found["across/optical"].item() == found["across/elevation"].item() == 0
