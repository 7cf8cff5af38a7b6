"""Patches of scenes that lack a modality: they reach neither its branch nor the terms between branches."""

from __future__ import annotations

import copy

import pytest
import torch

from geocrodino.models.crodino import CroDiNo
from geocrodino.models.fusion import MiddleFusion
from geocrodino.models.present_rows import PresentRows
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.training.learners.base import Step, number_there, processes_in, rows_there, whole_input
from geocrodino.training.parts import part_weights

from .conftest import CHANNELS, LEAD, NETWORK, K

MODALITIES = ("optical", "elevation")
EVERYTHING = {
    "dice": 1.0, "agreement": 1.0, "heights_from_image": 1.0, "image_from_heights": 1.0, "adversary": 1.0,
}  # fmt: skip


def with_images_alone(step):
    """The step with its three patches, and the first two once more as patches without heights."""

    def more(values):
        found = {}
        for key, value in values.items():
            again = value[:2].clone()
            if key == "elevation" or key == "elevation_valid":
                again = torch.zeros_like(again)
            elif key == "elevation_labels":
                again = torch.full_like(again, IGNORE_INDEX)
            elif key == "optical":
                again = 3 - again  # other values, which would change means and deviations
            found[key] = torch.cat([value, again])
        found["optical_there"] = torch.ones(5, dtype=torch.bool)
        found["elevation_there"] = torch.tensor([True, True, True, False, False])
        return found

    return Step(more(step.batch), more(step.source), step.progress)


def everything_there(step):
    """The step as a training with incomplete scenes has it where a batch holds complete ones alone."""
    there = {f"{m}_there": torch.ones(3, dtype=torch.bool) for m in MODALITIES}
    return Step({**step.batch, **there}, {**step.source, **there}, step.progress)


def learnt(build, total, step, name, **settings):
    """Gradients and buffers of a learner after a step, and its loss."""
    learner = build(name, **settings)
    if hasattr(learner, "set_calibration"):
        learner.set_calibration(dict.fromkeys(MODALITIES, 1.0), LEAD)
    average = copy.deepcopy(learner).eval()
    if name not in ("fusion", "dropout"):
        # Fixed statistics of the image: what it tells the heights of a patch then depends on this patch alone.
        learner.network("optical").eval()
    torch.manual_seed(1)
    loss = total(learner, step, average)
    gradients = {n: p.grad for n, p in learner.named_parameters() if p.grad is not None}
    return gradients, dict(learner.named_buffers()), loss


def of_heights(values):
    return {name: value for name, value in values.items() if "elevation" in name}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("single", {}),
        *(("crodino", {**EVERYTHING, "contrast": contrast}) for contrast in ("image", "class", "pixel")),
        ("mutual", {}),
        ("discom", {}),
        ("kd", {}),
        ("protokd", {}),
        ("maskedkd", {}),
    ],
)
def test_patches_without_heights_change_nothing_in_the_branch_of_heights(build, make_step, total, name, settings):
    step = make_step(labelled=0.75)
    plain, plain_buffers, loss = learnt(build, total, step, name, **settings)
    same, same_buffers, same_loss = learnt(build, total, everything_there(step), name, **settings)
    assert same_loss.equal(loss)
    assert all(same[n].equal(plain[n]) for n in plain)
    assert all(same_buffers[n].equal(plain_buffers[n]) for n in plain_buffers)
    more, more_buffers, _ = learnt(build, total, with_images_alone(step), name, **settings)
    assert of_heights(plain)
    for n, gradient in of_heights(plain).items():
        torch.testing.assert_close(more[n], gradient, rtol=1e-3, atol=1e-5)
    for n, value in of_heights(plain_buffers).items():
        torch.testing.assert_close(more_buffers[n], value)
    # They reach the branch of the image.
    assert any(not torch.allclose(more[n], plain[n]) for n in plain if "branches.optical" in n)


def test_terms_between_branches_are_those_of_the_complete_patches(build, make_step):
    step = make_step(labelled=0.75)
    between = ("contrast", "agreement", "across", "adversary")
    found = []
    for each in (step, with_images_alone(step)):
        learner = build("crodino", **EVERYTHING, contrast="class").eval()  # a patch is computed alike in any batch
        learner.set_calibration(dict.fromkeys(MODALITIES, 1.0), LEAD)
        terms = learner.losses(each, copy.deepcopy(learner))
        found.append({name: value for name, value in terms.items() if name.startswith(between)})
    assert set(found[0]) == {"contrast"} | {f"{t}/{m}" for t in between[1:] for m in MODALITIES}
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["crodino", "kd", "fusion", "dropout"])
def test_a_batch_without_any_heights(build, make_step, total, name):
    step = with_images_alone(make_step(labelled=0.75))
    alone = Step(*({k: v[3:] for k, v in each.items()} for each in (step.batch, step.source)), step.progress)
    before = {n: v.clone() for n, v in build(name).named_buffers()}
    gradients, buffers, loss = learnt(build, total, alone, name)
    assert torch.isfinite(loss)
    assert loss > 0
    if name in ("crodino", "kd"):
        assert not of_heights(gradients)
        assert all(value.equal(before[n]) for n, value in of_heights(buffers).items())


@pytest.mark.parametrize(
    ("name", "settings", "terms"),
    [
        ("single", {"losses": {"cross_entropy": 1, "focal": 1}}, 4),
        ("discom", {}, 8),  # cross entropy, auxiliary decoder, orthogonality and adversary of both branches
        ("crodino", {**EVERYTHING, "contrast": "none"}, 12),  # and what each branch learns from the other, two terms
        ("kd", {}, 4),
        ("protokd", {}, 6),
        ("maskedkd", {}, 4),
        ("fusion", {}, 1),
    ],
)
@pytest.mark.parametrize("rows", [[[0, 3], [1, 2, 4]], [[0, 1, 2], [3, 4]]])
def test_parts_of_a_batch_add_up_to_its_loss(build, make_step, rows, name, settings, terms):
    """Parts hold different numbers of complete patches; the second way, one part has none."""
    step = with_images_alone(make_step(labelled=0.75, progress=0.1))
    learner = build(name, **settings).eval()  # a patch is computed alike in any batch
    learner.class_weights.copy_(torch.tensor([1.0, 2.0, 0.5]))
    if name == "crodino":
        learner.assume_validated()
    whole = learner.losses(step, learner)
    assert all(value.detach() > 0 for term, value in whole.items() if term.startswith("agreement"))
    parts = [Step(*({k: v[own] for k, v in x.items()} for x in (step.batch, step.source)), 0.1) for own in rows]
    found = dict.fromkeys(whole.keys() & learner.amounts(step.batch).keys(), 0.0)
    for part, weights in zip(parts, part_weights([learner.amounts(part.batch) for part in parts]), strict=True):
        for term, value in learner.losses(part, learner).items():
            if term in found:
                found[term] += float(weights[term] * value.detach())
    assert len(found) == terms
    for term, value in found.items():
        assert value == pytest.approx(float(whole[term].detach()), rel=1e-4), term


@pytest.mark.parametrize(
    ("name", "settings"),
    [("crodino", {**EVERYTHING, "contrast": contrast}) for contrast in ("image", "class", "pixel")] + [("protokd", {})],
)
def test_a_part_without_complete_patches_takes_nothing_from_terms_between_branches(build, make_step, name, settings):
    """The first part has all three complete patches, so the terms of the whole batch are its own."""
    step = with_images_alone(make_step(labelled=0.75))
    learner = build(name, **settings).eval()
    if name == "crodino":
        learner.set_calibration(dict.fromkeys(MODALITIES, 1.0), LEAD)
    parts = [
        Step(*({k: v[own] for k, v in x.items()} for x in (step.batch, step.source)), 0.5)
        for own in (slice(3), slice(3, None))
    ]
    terms = []
    for each in (step, *parts):
        torch.manual_seed(1)  # a contrast of pixels draws some
        terms.append({k: float(v.detach()) for k, v in learner.losses(each, learner).items()})
    weights = part_weights([learner.amounts(part.batch) for part in parts])
    whole, between = terms[0], ("contrast", "across", "agreement", "prototype")
    own = [term for term in whole if term.startswith(between)]
    assert len(own) == (5 if name == "crodino" else 2)
    for term in own:
        assert whole[term] > 0, term
        found = sum(float(w[term]) * part.get(term, 0.0) for part, w in zip(terms[1:], weights, strict=True))
        assert found == pytest.approx(whole[term], rel=1e-4), term


@pytest.mark.parametrize(("contrast", "expected"), [("image", [2, 0]), ("pixel", [2, 0]), ("class", [2, 1])])
def test_a_single_complete_patch_has_a_contrast_of_classes_alone(build, make_step, contrast, expected):
    batch = with_images_alone(make_step()).batch
    learner = build("crodino", contrast=contrast)
    parts = [{key: value[rows] for key, value in batch.items()} for rows in ([0, 1, 3], [2, 4])]
    assert [int(learner.amounts(part)["contrast"]) for part in parts] == expected
    everywhere = {key: value for key, value in batch.items() if not key.endswith("_there")}
    assert not {"contrast", "across/optical", "agreement/optical"} & learner.amounts(everywhere).keys()


@pytest.mark.parametrize("progress", [0.1, 0.9])  # mask tokens learn, then the students learn by masks
@pytest.mark.parametrize(
    ("name", "settings"), [("kd", {}), ("protokd", {}), ("maskedkd", {}), ("crodino", EVERYTHING), ("fusion", {})]
)
def test_a_process_without_a_complete_patch_has_the_terms_of_the_others(build, make_step, name, settings, progress):
    """All processes log the same terms in the same order, and pass the same networks."""
    step = with_images_alone(make_step(labelled=0.75, progress=progress))
    learner = build(name, **settings)
    of_all = {f"{m}_there_of_all": step.batch[f"{m}_there"] for m in MODALITIES}
    expected = learner.losses(Step({**step.batch, **of_all}, step.source, progress), learner)
    own = {key: value[3:] for key, value in step.batch.items()}
    found = learner.losses(
        Step({**own, **of_all}, {key: value[3:] for key, value in step.source.items()}, progress), learner
    )
    assert list(found) == list(expected)
    torch.stack(list(found.values())).sum().backward()
    if name == "crodino":  # each layer of the heights' branch takes part, with a gradient of 0
        assert not any(p.grad is None or p.grad.any() for p in learner.branch("elevation").encoder.parameters())


def test_outputs_of_patches_that_are_not_there_are_0():
    torch.manual_seed(0)
    model = CroDiNo(NETWORK, CHANNELS, K).eval()
    images = torch.randn(4, 2, 32, 32)
    whole = model({"optical": images})["optical"]
    some = model({"optical": images}, {"optical": PresentRows.alone(torch.tensor([1, 3]))})["optical"]
    for found, expected in zip(some, whole, strict=True):
        torch.testing.assert_close(found[[1, 3]], expected[[1, 3]])
        assert not found[[0, 2]].any()
    one = model({"optical": images}, {"optical": PresentRows.alone(torch.tensor([2]))})["optical"]
    torch.testing.assert_close(one.logits[2], whole.logits[2])
    none = model({"optical": images}, {"optical": PresentRows.alone(torch.tensor([], dtype=torch.long))})["optical"]
    assert [value.shape for value in none] == [value.shape for value in whole]
    assert not any(value.any() for value in none)


def test_the_fusion_network_takes_zeros_for_what_is_missing():
    """In training, batch normalisation of an encoder sees the patches that have its modality alone."""
    torch.manual_seed(0)
    network = MiddleFusion(NETWORK, CHANNELS, K)
    images = torch.randn(3, 3, 32, 32)
    images[2, 2:] = 0
    rows = {"elevation": PresentRows.alone(torch.tensor([0, 1]))}
    torch.testing.assert_close(network.eval()(images, rows), network(images))
    twin = copy.deepcopy(network).train()
    twin.encoders["elevation"](images[:2, 2:])
    network.train()(images, rows)
    assert network.encoders["elevation"].training
    expected = dict(twin.encoders["elevation"].named_buffers())
    for name, value in network.encoders["elevation"].named_buffers():
        torch.testing.assert_close(value, expected[name])


def test_rows_and_inputs_by_hand():
    batch = {
        "optical": torch.arange(3.0).view(3, 1, 1, 1), "elevation": torch.arange(3.0).view(3, 1, 1, 1) + 10,
        "optical_there": torch.tensor([True, True, False]), "elevation_there": torch.tensor([False, True, True]),
    }  # fmt: skip
    assert rows_there(batch, "optical").tolist() == [0, 1]
    assert rows_there(batch, "optical", "elevation").tolist() == [1]
    assert rows_there({"optical": batch["optical"]}, "optical") is None
    of_all = {"elevation_there_of_all": torch.tensor([False, True, True, True, True, True])}
    full = {"elevation_there": torch.ones(3, dtype=torch.bool), **of_all}
    assert rows_there(full, "elevation").tolist() == [0, 1, 2]
    assert (number_there(full, "elevation"), number_there(batch, "optical", "elevation")) == (5, 1)
    assert (processes_in(full, "elevation"), processes_in(batch, "optical")) == (2, 1)
    assert rows_there({"optical_there": torch.ones(2, dtype=torch.bool)}, "optical") is None
    assert whole_input("optical", batch).flatten().tolist() == [0, 1]
    assert whole_input("fusion", batch)[:, :, 0, 0].tolist() == [[1, 11], [1, 11]]
    nothing = {**batch, "optical_there": torch.zeros(3, dtype=torch.bool)}
    assert whole_input("optical", nothing) is None
