"""Weights of the Hugging Face hub, with a hub that is a folder."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from safetensors.torch import save_file

from geocrodino.errors import ModelError
from geocrodino.models.pretrained import hub
from geocrodino.models.pretrained.hub import default_weights, hub_weights

NAME = "timm/resnet10t.c3_in1k"
REVISION = "9" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def fill(cache, revision=REVISION, *, main=False):
    """Put weights into the cache as huggingface_hub does: content by its hash, revisions as links to it."""
    place = cache / "models--timm--resnet10t.c3_in1k"
    for folder in ("blobs", "refs", f"snapshots/{revision}"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    save_file(timm.create_model("resnet10t").state_dict(), place / "new")
    digest = hashlib.sha256((place / "new").read_bytes()).hexdigest()
    (place / "new").rename(place / "blobs" / digest)
    link = place / "snapshots" / revision / "model.safetensors"
    link.symlink_to(place / "blobs" / digest)
    if main:
        (place / "refs" / "main").write_text(revision)
    return link, digest


@pytest.fixture
def online(cache, monkeypatch):
    """A hub with one repository; ``asked`` lists the calls."""
    asked = []
    stated = SimpleNamespace(sha256=None)

    def model_info(self, repository, *, revision, files_metadata, timeout):
        asked.append(("info", repository, revision))
        assert files_metadata
        file = SimpleNamespace(rfilename="model.safetensors", size=21_900_000, lfs=stated)
        return SimpleNamespace(sha=REVISION, siblings=[file], tags=["timm", "license:apache-2.0"])

    def download(repository, name, *, revision):
        asked.append(("download", repository, revision))
        link, digest = fill(cache, revision)
        stated.sha256 = stated.sha256 or digest
        return str(link)

    monkeypatch.setattr(hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    return SimpleNamespace(asked=asked, stated=stated)


def refuse(*_, **__):
    raise OfflineModeIsEnabled("offline mode is enabled.")


def test_the_default_of_timm():
    assert default_weights("resnet18") == "timm/resnet18.a1_in1k"
    with pytest.raises(ModelError, match=r"^No ImageNet weights of encoder 'resnet18d_none' are known.\nName another"):
        default_weights("resnet18d_none")


def test_a_download_names_size_licence_and_revision(online, cache):
    told = []
    found = hub_weights(NAME, told.append)
    assert told == [f"Downloading {NAME}@{REVISION}: 22 MB, licence apache-2.0."]
    assert online.asked == [("info", NAME, None), ("download", NAME, REVISION)]
    assert found.origin.record() == {
        "weights": f"{NAME}@{REVISION}",
        "source": f"{NAME}@{REVISION}",
        "sha256": online.stated.sha256,
        "licence": "apache-2.0",
    }
    again = hub_weights(NAME, told.append)
    assert (len(told), len(online.asked), again.origin) == (1, 2, found.origin)


def test_a_revision_can_be_asked_for(online, cache):
    fill(cache, "1" * 40, main=True)
    assert hub_weights(NAME, lambda _: None).origin.weights == f"{NAME}@{'1' * 40}"
    assert hub_weights(f"{NAME}@{'1' * 40}", lambda _: None).origin.weights == f"{NAME}@{'1' * 40}"
    assert online.asked == []
    assert hub_weights(f"{NAME}@{REVISION}", lambda _: None).origin.weights == f"{NAME}@{REVISION}"
    assert online.asked == [("info", NAME, REVISION), ("download", NAME, REVISION)]


def test_another_file_than_the_hub_states_is_refused(online):
    online.stated.sha256 = "f" * 64
    with pytest.raises(ModelError, match=rf"not the one of the Hugging Face hub. Expected sha256 {'f' * 64}, found "):
        hub_weights(NAME, lambda _: None)


def test_a_damaged_cache_is_refused(cache):
    link, digest = fill(cache, main=True)
    blob = link.resolve()
    blob.write_bytes(blob.read_bytes()[:-4] + b"0000")
    with pytest.raises(ModelError, match=rf"the file is damaged or not the one .*Expected sha256 {digest}, found "):
        hub_weights(NAME, lambda _: None)


def test_the_cache_needs_no_network(cache, monkeypatch):
    monkeypatch.setattr(hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    _, digest = fill(cache)
    found = hub_weights(NAME, pytest.fail)
    assert (found.origin.weights, found.origin.sha256) == (f"{NAME}@{REVISION}", digest)
    assert found.tensors.keys() == timm.create_model("resnet10t").state_dict().keys()


def test_without_a_network_the_message_names_a_command(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name, option in ((NAME, ""), (f"{NAME}@abc", " --revision abc")):
        with pytest.raises(ModelError) as error:
            hub_weights(name, pytest.fail)
        first, second, third = str(error.value).splitlines()
        assert first.startswith(
            f"Encoder weights {NAME} are not on this machine, and the Hugging Face hub cannot be reached: "
        )
        assert second == f"Fetch them where there is a network: hf download {NAME} model.safetensors{option}"
        assert third == f"They belong in {Path(cache)}. Or start from random weights: `encoder_weights='random'`."
