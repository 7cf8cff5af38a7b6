"""Networks that cannot be created are refused before the rasters are aligned and before a run begins."""

from __future__ import annotations

import pytest
import timm
import torch

from geocrodino.errors import GeocrodinoError
from geocrodino.models.pretrained.state import Origin, Pretrained
from geocrodino.settings.method import MethodSettings
from geocrodino.training.checks import check_inputs
from geocrodino.training.networks import Beginning, try_networks
from geocrodino.training.run import train

EARLY = "encoder_weights: early fusion has one encoder for the bands of all modalities; expected the same weights"
CASES = {
    "weights of another encoder": (
        {"encoder_weights": "w.pth", "network.encoder": "tu-resnet18"},
        "w.pth does not hold weights of encoder 'tu-resnet18': expected ",
    ),
    "weights for other bands": (
        {"encoder_weights": "five.pth"},
        "five.pth does not fit encoder 'tu-test_efficientnet'",
    ),
    "weights of the hub that do not fit": (
        {"encoder_weights": "imagenet"},
        "timm/other does not hold weights of encoder 'tu-test_efficientnet': expected ",
    ),
    "stochastic depth that the encoder lacks": (
        {"training.drop_path": 0.1, "network.encoder": "mobilenet_v2"},
        "training.drop_path: expected an encoder with stochastic depth, found 'mobilenet_v2'",
    ),
    "an encoder that cannot be built": (
        {"network.encoder": "tu-vit_tiny_patch16_224"},
        "Encoder 'tu-vit_tiny_patch16_224' cannot be built for 3 bands and depth 3: ",
    ),
    "an encoder that does not exist": ({"network.encoder": "resnet1"}, "Unknown encoder 'resnet1'"),
    "early fusion from several weights": (
        {"method.name": "fusion", "method.fusion": "early", "encoder_weights": {"optical": "w.pth"}},
        EARLY,
    ),
    "a teacher of early fusion from several weights": (
        {"method.name": "kd", "method.fusion": "early", "encoder_weights": {"optical": "w.pth"}},
        EARLY,
    ),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    state = timm.create_model("test_efficientnet").state_dict()
    state["blocks.0.0.conv.weight"] = torch.zeros(1, 5, 1, 1)
    torch.save(state, tmp_path / "five.pth")
    other = Pretrained({"a": torch.ones(1)}, 3, "timm/other", Origin("timm/other", "timm/other", "0"))
    monkeypatch.setattr("geocrodino.training.initial_weights.hub_weights", lambda *_: other)
    return tmp_path


def _located(weights, folder):
    if isinstance(weights, dict):
        return {m: _located(name, folder) for m, name in weights.items()}
    return str(folder / weights) if weights.endswith(".pth") else weights


@pytest.mark.parametrize("name", CASES)
def test_networks_are_refused_before_the_long_work(tiny_config, files, monkeypatch, name):
    changes, words = CASES[name]
    if "encoder_weights" in changes:
        changes = {**changes, "encoder_weights": _located(changes["encoder_weights"], files)}
    monkeypatch.setattr("geocrodino.training.prepare.align", lambda *_: pytest.fail("aligned"))
    stages = []
    with pytest.raises(GeocrodinoError) as refused:
        train(tiny_config(changes), files / "run", on_stage=stages.append)
    assert words in str(refused.value)
    assert "Aligning rasters" not in stages
    assert not any(path.is_file() for path in (files / "run").rglob("*"))  # nothing is recorded, nothing replaced


def test_a_trial_draws_no_random_number(tiny_config):
    config = tiny_config()
    found, state = check_inputs(config), torch.get_rng_state()
    try_networks(config, found, Beginning(config.method), Beginning(MethodSettings(name="fusion")))
    assert torch.equal(torch.get_rng_state(), state)
