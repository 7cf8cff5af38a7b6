"""The method's loss: every term is there exactly when it is asked for."""

from __future__ import annotations

import math

import pytest
import torch

from geocrodino.models.branch import NetworkSettings
from geocrodino.models.crodino import CroDiNo, CrodinoOutput
from geocrodino.training.method import MethodSettings, feature_valid, joint_loss

K, STRIDE, SIDE = 3, 4, 16
MODALITIES = ("optical", "elevation")
NOTHING_BETWEEN = MethodSettings(auxiliary=0, orthogonality=0, contrast="none")


def outputs(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(channels, side):
        return torch.randn(2, channels, side, side, generator=generator, requires_grad=True)

    return {m: CrodinoOutput(draw(K, SIDE), draw(5, 4), draw(5, 4), draw(K, SIDE)) for m in MODALITIES}


def batch(labels=None, valid=True):
    generator = torch.Generator().manual_seed(9)
    if labels is None:
        labels = torch.randint(0, K, (2, 4, 4), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    made = {}
    for m in MODALITIES:
        made[f"{m}_labels"] = labels
        made[f"{m}_valid"] = torch.full((2, SIDE, SIDE), valid)
        made[f"{m}_transform"] = torch.eye(3).expand(2, 3, 3)
    return made


def terms(settings, out=None, data=None):
    return joint_loss(out or outputs(), data or batch(), settings, torch.ones(K), STRIDE)


def each(name):
    return {f"{name}/{m}" for m in MODALITIES}


EVERYTHING = MethodSettings(dice=1.0, contrast="class")
ALL_NAMES = each("segmentation") | each("dice") | each("auxiliary") | each("orthogonality") | {"contrast"}


def test_all_terms_are_there():
    assert set(terms(EVERYTHING)) == ALL_NAMES


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"auxiliary": 0.0}, each("auxiliary")),
        ({"orthogonality": 0.0}, each("orthogonality")),
        ({"dice": 0.0}, each("dice")),
        ({"contrast": "none"}, {"contrast"}),
        ({"contrast_weight": 0.0}, {"contrast"}),
    ],
)
def test_a_switch_removes_its_own_term_and_changes_no_other(change, gone):
    before, after = terms(EVERYTHING), terms(EVERYTHING.model_copy(update=change))
    assert set(after) == ALL_NAMES - gone
    assert all(torch.equal(after[name], before[name]) for name in after)


@pytest.mark.parametrize(
    ("field", "scaled"),
    [
        ("auxiliary", each("auxiliary")),
        ("orthogonality", each("orthogonality")),
        ("dice", each("dice")),
        ("contrast_weight", {"contrast"}),
    ],
)
def test_a_weight_scales_its_own_term(field, scaled):
    before, after = terms(EVERYTHING), terms(EVERYTHING.model_copy(update={field: 2.5}))
    for name in ALL_NAMES:
        factor = 2.5 if name in scaled else 1.0
        torch.testing.assert_close(after[name], factor * before[name])


def test_label_smoothing_touches_the_segmentation_alone():
    before, after = terms(EVERYTHING), terms(EVERYTHING.model_copy(update={"label_smoothing": 0.2}))
    assert {n for n in ALL_NAMES if not torch.equal(before[n], after[n])} == each("segmentation")


def test_values_by_hand():
    # No preference among 3 classes costs ln 3; equal halves have cosine 1; features that do not tell the two classes
    # that are there apart cost ln 2.
    same = torch.ones(2, 5, 4, 4)
    flat = torch.zeros(2, K, SIDE, SIDE)
    out = {m: CrodinoOutput(flat, same, same, flat) for m in MODALITIES}
    labels = torch.zeros(2, SIDE, SIDE, dtype=torch.int64)
    labels[:, 8:] = 2
    found = terms(MethodSettings(), out, batch(labels))
    expected = dict.fromkeys(each("segmentation") | each("auxiliary"), math.log(3))
    expected |= dict.fromkeys(each("orthogonality"), 1.0) | {"contrast": math.log(2)}
    assert {n: v.item() for n, v in found.items()} == pytest.approx(expected, rel=1e-5)


def test_class_weights_enter_the_cross_entropies():
    out, labels = outputs(), batch()["optical_labels"]
    weights = torch.tensor([0.0, 0.0, 1.0])
    found = joint_loss(out, batch(), MethodSettings(), weights, STRIDE)
    expected = torch.nn.functional.cross_entropy(out["optical"].logits, labels, weights)
    torch.testing.assert_close(found["segmentation/optical"], expected)


def gradient_of_elevation(settings, seed):
    fixed, other = outputs(0), outputs(seed)
    out = {"optical": other["optical"], "elevation": fixed["elevation"]}
    torch.stack(list(terms(settings, out).values())).sum().backward()
    return [x.grad for x in fixed["elevation"][:3]]


def test_two_singles_learn_without_each_other():
    here, there = gradient_of_elevation(NOTHING_BETWEEN, 1), gradient_of_elevation(NOTHING_BETWEEN, 2)
    assert torch.equal(here[0], there[0])
    assert here[1:] == there[1:] == [None, None]  # the logits' own path is all there is


@pytest.mark.parametrize("contrast", ["image", "class", "pixel"])
def test_a_contrast_ties_the_two_together(contrast):
    torch.manual_seed(0)
    here = gradient_of_elevation(MethodSettings(contrast=contrast), 1)
    torch.manual_seed(0)
    there = gradient_of_elevation(MethodSettings(contrast=contrast), 2)
    assert torch.equal(here[0], there[0])
    assert not torch.equal(here[1], there[1])


def test_two_singles_as_networks():
    settings = NetworkSettings(
        encoder="tu-resnet10t", decoder="fpn", depth=3, invariant_channels=4, decoder_channels=(8,)
    )
    model = CroDiNo(settings, {"optical": 3, "elevation": 1}, K, auxiliary=False)
    elevation = torch.randn(2, 1, SIDE, SIDE)
    found = []
    for seed in (1, 2):
        model.zero_grad()
        image = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        out = model({"optical": image, "elevation": elevation})
        torch.stack(list(joint_loss(out, batch(), NOTHING_BETWEEN, torch.ones(K), 8).values())).sum().backward()
        found.append([None if p.grad is None else p.grad.clone() for p in model.branch("elevation").parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("contrast", ["none", "image", "class", "pixel"])
@pytest.mark.parametrize("valid", [True, False])
def test_a_batch_without_labels_gives_no_nan(contrast, valid):
    out = outputs()
    unlabelled = torch.full((2, SIDE, SIDE), 255)
    found = terms(EVERYTHING.model_copy(update={"contrast": contrast}), out, batch(unlabelled, valid))
    of_labels = each("segmentation") | each("dice") | each("auxiliary")
    zero = of_labels if valid else set(found)
    if contrast == "class":
        zero = zero | {"contrast"}
    assert {name for name in zero if found[name].item() != 0} == set()
    total = torch.stack(list(found.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    for m in MODALITIES:
        for tensor in out[m]:
            assert tensor.grad is None or torch.isfinite(tensor.grad).all()


def test_a_feature_is_valid_where_half_of_its_pixels_are():
    valid = torch.tensor([
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
    ]).bool()[None]  # fmt: skip
    assert feature_valid(valid, 2).tolist() == [[[True, False], [True, False]]]
    assert feature_valid(valid, 4).tolist() == [[[False]]]  # 7 of 16


def test_orthogonality_leaves_invalid_features_out():
    out, data = outputs(), batch()
    data["optical_valid"] = data["optical_valid"].clone()
    data["optical_valid"][:, :, 8:] = False
    half = terms(MethodSettings(), out, data)["orthogonality/optical"]
    i, s = out["optical"].invariant[..., :2], out["optical"].specific[..., :2]
    torch.testing.assert_close(half, torch.nn.functional.cosine_similarity(i, s, dim=1).square().mean())
