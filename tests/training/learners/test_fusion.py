"""Both modalities at once: what is blanked, what is labelled, what is left of the network without one of them."""

from __future__ import annotations

import pytest
import timm
import torch
from helpers.rounding import output_rounding

from geocrodino.errors import ConfigError
from geocrodino.models.branch import Branch
from geocrodino.models.fusion import MiddleFusion
from geocrodino.models.pretrained.state import Origin, Pretrained
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.method import MethodSettings
from geocrodino.training.learners.base import Shape, Step, network_input
from geocrodino.training.learners.build import build_learner
from geocrodino.training.learners.fusion import either_labels

from .conftest import CHANNELS, NETWORK, SIDE, Answer, K


@pytest.mark.parametrize("name", ["fusion", "dropout"])
def test_the_terms(build, make_step, name):
    assert set(build(name).losses(make_step(), None)) == {"segmentation/fusion"}
    assert set(build(name, dice=0.5).losses(make_step(), None)) == {"segmentation/fusion", "dice/fusion"}
    assert build(name).coupled


def test_where_the_modalities_are_joined(build):
    assert isinstance(build("fusion").network("fusion"), MiddleFusion)
    early = build("fusion", fusion="early").network("fusion")
    assert isinstance(early, Branch)
    assert early.in_channels == sum(CHANNELS.values())
    assert isinstance(build("dropout").fusion, Branch)


@pytest.mark.parametrize(("name", "terms"), [("fusion", {"fusion": "early"}), ("dropout", {})])
def test_early_fusion_has_no_use_for_weights_of_one_modality(name, terms):
    shape = Shape(NETWORK, CHANNELS, K)
    source = timm.create_model("test_efficientnet")
    start = Pretrained(source.state_dict(), 3, "a.pth", Origin("a.pth"))
    with pytest.raises(ConfigError) as error:
        build_learner(MethodSettings(name=name, **terms), shape, torch.ones(K), {"optical": start})
    assert str(error.value) == (
        "encoder_weights: early fusion has one encoder for the bands of all modalities; expected the same weights for "
        "all, found a.pth for optical, random for elevation.\nName one for all, such as imagenet or random, or use "
        "the method fusion with `fusion: middle`."
    )
    build_learner(MethodSettings(name=name, **terms), shape, torch.ones(K), {})
    learner = build_learner(MethodSettings(name=name, **terms), shape, torch.ones(K), dict.fromkeys(CHANNELS, start))
    bands = sum(CHANNELS.values())
    kernel = next(learner.fusion.encoder.parameters())
    expected = torch.stack([source.conv_stem.weight[:, i % 3] for i in range(bands)], dim=1) * 3 / bands
    torch.testing.assert_close(kernel.detach(), expected.detach())


def test_labels_are_those_of_either_modality():
    batch = {"optical_labels": torch.tensor([1, IGNORE_INDEX, 0, IGNORE_INDEX])}
    batch["elevation_labels"] = torch.tensor([1, 2, IGNORE_INDEX, IGNORE_INDEX])
    assert either_labels(batch).tolist() == [1, 2, 0, IGNORE_INDEX]


def test_fusion_reads_both_and_learns_where_either_is_valid(build, make_step):
    step = make_step(invalid=("elevation",))
    assert (step.batch["elevation_labels"] == IGNORE_INDEX).all()
    learner = build("fusion")
    learner.fusion = Answer(torch.randn(3, K, SIDE, SIDE))
    found = learner.losses(step, learner)["segmentation/fusion"]
    (asked,) = learner.fusion.asked
    assert asked.equal(torch.cat([step.batch["optical"], step.batch["elevation"]], dim=1))
    expected = torch.nn.functional.cross_entropy(learner.fusion.logits, step.source["labels"])
    torch.testing.assert_close(found, expected)


# --- blanking ------------------------------------------------------------------------------------------------------


def blanked(build, make_step, blank, steps=200):
    """For each patch of many steps, whether the image and whether the heights were blanked, and where labels went."""
    learner, step = build("dropout", blank=blank), make_step()
    learner.fusion = Answer(torch.zeros(3, K, SIDE, SIDE))
    batch = dict(step.batch)
    # Labels tell where they come from.
    batch["optical_labels"] = torch.full_like(batch["optical_labels"], 0)
    batch["elevation_labels"] = torch.full_like(batch["elevation_labels"], 1)
    used = []
    learner.supervised = lambda name, logits, labels: used.append(labels) or {"x": logits.sum()}
    for _ in range(steps):
        learner.losses(Step(batch, step.source, 0.5), learner)
    assert batch["optical"] is step.batch["optical"]
    gone = []
    for asked, labels in zip(learner.fusion.asked, used, strict=True):
        for image, label, own in zip(asked, labels, range(3), strict=True):
            optical, elevation = image[: CHANNELS["optical"]], image[CHANNELS["optical"] :]
            missing = (not optical.any().item(), not elevation.any().item())
            assert missing[0] or optical.equal(batch["optical"][own])
            assert missing[1] or elevation.equal(batch["elevation"][own])
            assert label.unique().tolist() == [1 if missing[0] else 0]
            gone.append(missing)
    return gone


@pytest.mark.parametrize("blank", [0.0, 0.5, 1.0])
def test_a_share_of_the_patches_loses_one_modality_and_its_labels(build, make_step, blank):
    torch.manual_seed(0)
    gone = blanked(build, make_step, blank)
    assert (True, True) not in gone
    share = {modality: sum(g[i] for g in gone) / len(gone) for i, modality in enumerate(CHANNELS)}
    assert share == {m: pytest.approx(blank / 2, abs=0.07) for m in CHANNELS}
    assert blank > 0 or not any(map(any, gone))
    assert blank < 1 or all(map(any, gone))


def test_what_is_blanked_follows_torchs_seed(build, make_step):
    def drawn(seed):
        learner, step = build("dropout"), make_step()
        learner.fusion = Answer(torch.zeros(3, K, SIDE, SIDE))
        torch.manual_seed(seed)
        for _ in range(5):
            learner.losses(step, learner)
        return torch.stack(learner.fusion.asked)

    assert drawn(1).equal(drawn(1))
    assert not drawn(1).equal(drawn(2))


@pytest.mark.parametrize("modality", CHANNELS)
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_a_branch_is_the_fusion_network_with_zeros_for_the_other(build, make_step, modality, mode):
    learner = build("dropout")
    with torch.no_grad():
        learner.fusion(torch.randn(4, 3, SIDE, SIDE))  # batch statistics of its own
    learner.train(mode)
    batch = make_step().batch
    zeros = {m: batch[m] if m == modality else torch.zeros_like(batch[m]) for m in CHANNELS}
    network = learner.network(modality)
    assert network.in_channels == CHANNELS[modality]
    assert network.training is mode
    found, expected = network(batch[modality]), learner.fusion(network_input("fusion", zeros))
    torch.testing.assert_close(found, expected, rtol=0, atol=output_rounding(learner.fusion, expected))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert any(p.any() for p in learner.fusion.parameters())  # weights of its own
