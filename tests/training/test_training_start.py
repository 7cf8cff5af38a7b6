"""A training that starts from a bundle: which network, what is loaded, recorded, resumed and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from geocrodino.bundle.io import load_bundle
from geocrodino.errors import BundleError, ConfigError
from geocrodino.models.pretrained.state import Origin, Pretrained
from geocrodino.settings.config import TrainConfig, load_config
from geocrodino.training.checks import refusal
from geocrodino.training.pace import Pace
from geocrodino.training.run import train
from geocrodino.training.start import find_start, record_start, with_network

ONE_STEP = {"training.epochs": 1, "training.steps_per_epoch": 1}


class Networks(Callback):
    """Keeps the weights of the branches before the first step, and the learning rates of the groups."""

    def on_train_start(self, trainer, pl_module):
        state = pl_module.learner.state_dict()
        self.weights = {name: value.clone() for name, value in state.items()}
        self.groups = len(trainer.optimizers[0].param_groups)


class Broken(Callback):
    """Breaks a training off in its second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")


def of_branches(weights):
    return {name.removeprefix("model.branches."): v for name, v in weights.items() if name.startswith("model.branches")}


@pytest.fixture
def bundle(trained):
    return trained / "bundle.safetensors"


@pytest.fixture
def plain(town):
    """The settings of a user who names files, a bundle and no network."""

    def make(bundle, changes=None):
        short = {"training.patch_px": 32, "training.batch_size": 2, "training.accelerator": "cpu", **ONE_STEP}
        heights = {"elevation.channels": ["height_above_ground"], "elevation.ground": {"radii_m": [2.0, 5.0]}}
        return load_config(town.config, {**short, **heights, "start_from": str(bundle), **(changes or {})})

    return make


def test_the_branches_and_the_network_are_those_of_the_bundle(plain, bundle, tmp_path):
    told, seen = [], Networks()
    result = train(plain(bundle), tmp_path / "run", tell=told.append, callbacks=[seen])
    there = load_bundle(bundle)
    expected, found = load_file(bundle), of_branches(seen.weights)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    origin = {"name": there.manifest.name, "sha256": there.sha256}
    made = load_bundle(result.bundle).manifest
    assert made.network == there.manifest.network
    assert made.training["started_from"] == origin
    assert json.loads((tmp_path / "run/metrics.json").read_text())["started_from"] == origin
    assert load_config(tmp_path / "run/config.yaml").network == there.manifest.network
    names = ", ".join(made.classes.names)
    assert (
        f"Starting from bundle {origin['name']} (sha256 {origin['sha256'][:12]}). Its channels are scaled by "
        "statistics measured on the split train of this training, not by those of the bundle.\n"
        f"optical: channels red, green, blue as in the bundle; classes {names} by name.\n"
        f"elevation: channels height_above_ground as in the bundle; classes {names} by name."
    ) in told


def test_a_run_is_resumed_without_the_bundle(plain, bundle, tmp_path):
    copy = shutil.copy(bundle, tmp_path / "old.safetensors")
    changes = {"training.epochs": 2, "training.optimiser.encoder_rate": 0.5}
    whole = train(plain(copy, changes), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        train(plain(copy, changes), tmp_path / "cut", callbacks=[Broken()])
    (tmp_path / "old.safetensors").unlink()
    told, seen = [], Networks()
    resumed = train(plain(copy, changes), tmp_path / "cut", resume=True, tell=told.append, callbacks=[seen])
    assert seen.groups == 2
    assert any(line.startswith("The run started from bundle ") for line in told)
    one, two = load_file(whole.bundle), load_file(resumed.bundle)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    facts = [load_bundle(r.bundle).manifest.training["started_from"] for r in (whole, resumed)]
    assert facts[0] == facts[1]
    with pytest.raises(BundleError, match=r"old\.safetensors: no such bundle"):
        train(plain(copy, changes), tmp_path / "other")


def test_a_run_with_a_teacher_alone_loads_the_bundle_that_it_began_with(plain, bundle, tmp_path):
    config = plain(bundle, {"method.name": "kd"})
    start = find_start(config)
    record_start(start, tmp_path)
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher/fusion.safetensors").touch()
    assert find_start(config, tmp_path, resume=True) == start
    record_start(replace(start, sha256="abc"), tmp_path)
    with pytest.raises(ConfigError) as refused:
        find_start(config, tmp_path, resume=True)
    assert str(refused.value).startswith(
        f"{bundle}: expected the bundle that the run in {tmp_path} began with (sha256 abc), found another (sha256 "
        f"{start.sha256}).\n"
    )
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    assert find_start(config, tmp_path, resume=True) == replace(start, sha256="abc", bundle=None)


def test_a_teacher_starts_from_encoder_weights_instead(plain, bundle, tmp_path, monkeypatch):
    pinned = "timm/test_efficientnet.r160_in1k@abc"
    hub = Pretrained(timm.create_model("test_efficientnet").state_dict(), 3, pinned, Origin(pinned, pinned, "0"))
    monkeypatch.setattr("geocrodino.training.initial_weights.hub_weights", lambda *_: hub)
    pace = Pace(step_s=1, preparation_s=0, batch_s=1, steps=1, val_batches=1, final_batches=1)
    monkeypatch.setattr("geocrodino.training.run.measure", lambda *_: pace)
    changes = {"method.name": "kd", "training.epochs": None, "training.minutes": 0.1, "training.freeze": "encoder"}
    told, out = [], tmp_path / "run"
    result = train(plain(bundle, {**changes, "encoder_weights": "imagenet"}), out, tell=told.append)
    assert result.epochs == 1  # (6 s - 2 x 1 s) / (2 x 2 s)
    assert f"It starts without the bundle. Encoder weights: optical {pinned}; elevation {pinned}." in told
    recorded = [json.loads((folder / "encoder_weights.json").read_text()) for folder in (out / "teacher", out)]
    assert [list(found) for found in recorded] == [["optical", "elevation"], []]
    teacher = load_file(out / "teacher/fusion.safetensors")
    kept = [n for n in teacher if n.endswith("encoders.optical.model.blocks.0.0.conv.weight")]
    assert kept
    assert all(torch.equal(teacher[n], hub.tensors["blocks.0.0.conv.weight"]) for n in kept)  # frozen
    assert not any("teacher" in line for line in told if line.startswith("Not frozen"))


def test_a_damaged_record_is_refused(plain, bundle, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    with pytest.raises(ConfigError, match=r"start\.json: expected the record .* found no such file"):
        find_start(plain(bundle), tmp_path, resume=True)
    (tmp_path / "start.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"start\.json: expected the record .* found KeyError: 'network'"):
        find_start(plain(bundle), tmp_path, resume=True)


def test_other_classes_and_a_frozen_encoder(plain, bundle, tmp_path):
    there = load_bundle(bundle).manifest
    classes = [c.model_dump() for c in there.classes.classes]
    classes[1]["name"] = "something new"
    seen = Networks()
    config = plain(bundle, {"classes": classes, "training.freeze": "encoder"})
    result = train(config, tmp_path / "run", callbacks=[seen])
    before, after = load_file(bundle), load_file(result.bundle)
    encoders = [name for name in before if ".encoder." in name]
    assert encoders
    assert all(torch.equal(before[name], after[name]) for name in encoders)
    loaded = of_branches(seen.weights)["optical.decoder.classifier.1.weight"]
    same = [torch.equal(a, b) for a, b in zip(loaded, before["optical.decoder.classifier.1.weight"], strict=True)]
    assert same == [index != 1 for index in range(len(classes))]
    assert load_config(tmp_path / "run/config.yaml").training.freeze == "encoder"


def test_another_network_is_refused_by_name(plain, bundle):
    config = plain(bundle, {"network.depth": 4, "network.encoder": "test_efficientnet"})
    with pytest.raises(ConfigError) as refused:
        with_network(config, find_start(config))
    assert str(refused.value) == (
        f"{bundle}: the bundle has another network than these settings: network.depth: expected 3, found 4.\nLeave out "
        "network.depth: the bundle's network is the default. The network of the bundle: {encoder: "
        "tu-test_efficientnet, decoder: fpn, depth: 3, invariant_channels: 8, decoder_channels: [16], "
        "separate_encoders: false}"
    )
    assert refusal(config) == str(refused.value)


def test_a_quality_with_another_network_is_refused_by_name(plain, bundle):
    config = plain(bundle)
    tree = {**config.model_dump(), "network": {"invariant_channels": 4}, "quality": "fast"}
    config = TrainConfig.model_validate(tree)
    with pytest.raises(ConfigError) as refused:
        with_network(config, find_start(config))
    assert str(refused.value).startswith(
        f"{bundle}: the bundle has another network than these settings: network.encoder: expected "
        "tu-test_efficientnet, found tu-tf_efficientnet_lite0; network.invariant_channels: expected 8, found 4.\n"
        "Leave out `quality`, "
        "network.invariant_channels: the bundle's network is the default. The network of the bundle: {"
    )


def test_separate_encoders_need_a_bundle_that_has_them(plain, bundle):
    config = plain(bundle, {"method.name": "discom"})
    with pytest.raises(ConfigError) as refused:
        with_network(config, find_start(config))
    assert "network.separate_encoders: expected false, found true.\nChoose another method than discom" in str(
        refused.value
    )


@pytest.mark.parametrize("method", ["fusion", "dropout"])
def test_a_method_without_branches_is_refused(plain, bundle, method):
    with pytest.raises(ConfigError) as refused:
        find_start(plain(bundle, {"method.name": method}))
    assert str(refused.value).startswith(
        f"`start_from`: the method {method} trains one network on all modalities, and a bundle holds no such fusion "
        "network, only a branch for each modality.\n"
    )


@pytest.mark.parametrize(("method", "teacher"), [("mutual", None), ("kd", Path("finished"))])
def test_encoder_weights_of_a_branch_of_the_bundle_are_refused(plain, bundle, method, teacher):
    with pytest.raises(ConfigError) as refused:
        find_start(plain(bundle, {"encoder_weights.optical": "w.pth", "method.name": method}), teacher=teacher)
    assert str(refused.value) == (
        f"encoder_weights.optical: the optical branch starts from the bundle {bundle}, so these weights would be "
        "replaced. Leave them out."
    )


def test_encoder_weights_are_those_of_the_teacher_that_is_trained(plain, bundle, tmp_path):
    file, state = tmp_path / "w.pth", timm.create_model("test_efficientnet").state_dict()
    torch.save(state, file)
    config, out, told = plain(bundle, {"encoder_weights": str(file), "method.name": "kd"}), tmp_path / "run", []
    train(config, out, tell=told.append)
    recorded = json.loads((out / "teacher/encoder_weights.json").read_text())
    assert {m: r["weights"] for m, r in recorded.items()} == {"optical": "w.pth", "elevation": "w.pth"}
    assert not json.loads((out / "encoder_weights.json").read_text())  # the students start from the bundle
    assert "It starts without the bundle. Encoder weights: optical w.pth; elevation w.pth." in told


def test_a_frozen_encoder_must_know_all_channels(plain, bundle, tmp_path):
    changes = {"elevation.channels": ["height_above_ground", "slope"], "training.freeze": "encoder"}
    with pytest.raises(ConfigError) as refused:
        train(plain(bundle, changes), tmp_path / "run")
    assert str(refused.value) == (
        "training.freeze: the elevation encoder of the bundle does not know all channels of this training "
        "(height_above_ground by name, slope with weights of 0 at the start), and a frozen encoder would never learn "
        "to read them.\nLeave `training.freeze` out, or train on the channels of the bundle."
    )
    assert not (tmp_path / "run" / "aligned").exists()


def test_the_bundle_is_named_relative_to_the_file(town, tmp_path):
    text = town.config.read_text() + "start_from: models/a.safetensors\n"
    (town.config.parent / "relative.yaml").write_text(text)
    try:
        found = load_config(town.config.parent / "relative.yaml").start_from
    finally:
        (town.config.parent / "relative.yaml").unlink()
    assert found == town.config.parent / "models/a.safetensors"
    assert load_config(town.config).start_from is None
