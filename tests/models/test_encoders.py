import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from geocrodino.errors import ModelError
from geocrodino.models.encoders import create_encoder, resolve_encoder


@pytest.fixture(scope="module")
def resnet():
    return timm.create_model("resnet18", pretrained=False)


@pytest.fixture
def weights(resnet, tmp_path):
    path = tmp_path / "resnet18.safetensors"
    save_file(resnet.state_dict(), path)
    return path


def test_names():
    assert resolve_encoder("resnet18") == "tu-resnet18"
    assert resolve_encoder("tu-resnet18") == "tu-resnet18"
    assert resolve_encoder("mobileone_s0") == "tu-mobileone_s0"
    assert resolve_encoder("mobilenet_v2") == "mobilenet_v2"


def test_unknown_name_offers_close_ones():
    with pytest.raises(ModelError, match=r"Unknown encoder 'resnet81': .*Did you mean .*resnet18"):
        resolve_encoder("resnet81")


@pytest.mark.parametrize("name", ["tu-resnet18", "tu-mobilenetv3_small_100", "mobilenet_v2", "efficientnet-b0"])
def test_no_stage_is_dead(name):
    encoder = create_encoder(name, in_channels=2, depth=4)
    features = encoder(torch.randn(2, 2, 64, 64))
    assert [64 // f.shape[-1] for f in features] == [1, 2, 4, 8, 16]
    features[-1].sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_building_leaves_training_mode_and_statistics():
    encoder = create_encoder("resnet18", in_channels=3, depth=3)
    assert all(m.training for m in encoder.modules())
    assert encoder.model.bn1.running_mean.eq(0).all()
    assert encoder.model.bn1.num_batches_tracked == 0


def test_unsuitable_encoder():
    with pytest.raises(ModelError, match=r"'swin_tiny_patch4_window7_224' cannot be built for 3 bands and depth 4"):
        create_encoder("swin_tiny_patch4_window7_224", in_channels=3, depth=4)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_are_loaded(resnet, tmp_path, suffix):
    path = tmp_path / f"encoder{suffix}"
    state = resnet.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    encoder = create_encoder("resnet18", in_channels=3, depth=4, weights=path)
    for name, value in encoder.model.state_dict().items():
        assert value.equal(state[name]), name
    assert "layer3.1.conv2.weight" in encoder.model.state_dict()


@pytest.mark.parametrize("bands", [1, 2, 4, 5])
def test_a_grey_image_means_the_same_in_any_number_of_bands(resnet, weights, bands):
    encoder = create_encoder("resnet18", in_channels=bands, depth=3, weights=weights).eval()
    grey = torch.rand(1, 1, 32, 32)
    kernel = resnet.conv1.weight
    found = encoder.model.conv1.weight
    assert found.shape == (64, bands, 7, 7)
    if bands == 1:
        torch.testing.assert_close(found.sum(1), kernel.sum(1))
    expected = torch.stack([kernel[:, i % 3] for i in range(bands)], 1) * 3 / bands
    if bands > 1:
        torch.testing.assert_close(found, expected)
    assert encoder(grey.expand(1, bands, 32, 32))[-1].isfinite().all()


def test_weights_for_an_own_encoder_of_segmentation_models(tmp_path):
    source = create_encoder("mobilenet_v2", in_channels=3, depth=5)
    path = tmp_path / "mobilenet.safetensors"
    save_file(source.state_dict(), path)
    encoder = create_encoder("mobilenet_v2", in_channels=3, depth=4, weights=path)
    state = source.state_dict()
    assert all(value.equal(state[name]) for name, value in encoder.state_dict().items())


def test_keys_that_do_not_fit_are_named(resnet, tmp_path):
    state = resnet.state_dict()
    del state["layer1.0.conv1.weight"]
    state["extra.weight"] = torch.zeros(1)
    path = tmp_path / "bad.safetensors"
    save_file(state, path)
    message = f"{path} does not hold weights of encoder 'tu-resnet18': expected 120 tensors, found 120; missing "
    with pytest.raises(ModelError, match=re.escape(message + "layer1.0.conv1.weight; not expected extra.weight.")):
        create_encoder("resnet18", in_channels=3, depth=4, weights=path)


def test_shapes_that_do_not_fit_are_named(resnet, tmp_path):
    path = tmp_path / "bad.safetensors"
    save_file(resnet.state_dict() | {"conv1.weight": torch.zeros(64, 4, 7, 7)}, path)
    with pytest.raises(ModelError, match=r"conv1.weight expected \(64, 3, 7, 7\), found \(64, 4, 7, 7\)"):
        create_encoder("resnet18", in_channels=4, depth=4, weights=path)


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(ModelError, match=r"no such file of encoder weights. Weights are never downloaded"):
        create_encoder("resnet18", in_channels=3, depth=4, weights=tmp_path / "none.pth")
    with pytest.raises(ModelError, match=r"expected encoder weights as .safetensors or .pth, found '.txt'"):
        create_encoder("resnet18", in_channels=3, depth=4, weights=tmp_path / "a.txt")
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(b"not a file of weights")
        with pytest.raises(ModelError, match="cannot be read as a state dict of tensors"):
            create_encoder("resnet18", in_channels=3, depth=4, weights=path)
    path = tmp_path / "wrapped.pth"
    torch.save({"state_dict": {}, "epoch": 3}, path)
    with pytest.raises(ModelError, match="expected a state dict"):
        create_encoder("resnet18", in_channels=3, depth=4, weights=path)
