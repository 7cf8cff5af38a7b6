import re
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from geocrodino.errors import ModelError
from geocrodino.models.encoder_facts import facts_of
from geocrodino.models.encoders import create_encoder, resolve_encoder
from geocrodino.models.pretrained.state import Origin, Pretrained, read_weights


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
    encoder = create_encoder("resnet18", in_channels=3, depth=4, weights=read_weights(path))
    for name, value in encoder.model.state_dict().items():
        assert value.equal(state[name]), name
    assert "layer3.1.conv2.weight" in encoder.model.state_dict()


@pytest.mark.parametrize("bands", [1, 2, 4, 5])
def test_a_grey_image_means_the_same_in_any_number_of_bands(resnet, weights, bands):
    encoder = create_encoder("resnet18", in_channels=bands, depth=3, weights=read_weights(weights)).eval()
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
    encoder = create_encoder("mobilenet_v2", in_channels=3, depth=4, weights=read_weights(path))
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
        create_encoder("resnet18", in_channels=3, depth=4, weights=read_weights(path))


def test_shapes_that_do_not_fit_are_named(resnet, tmp_path):
    path = tmp_path / "bad.safetensors"
    save_file(resnet.state_dict() | {"conv1.weight": torch.zeros(64, 4, 7, 7)}, path)
    with pytest.raises(ModelError, match=r"conv1.weight expected \(64, 3, 7, 7\), found \(64, 4, 7, 7\)"):
        create_encoder("resnet18", in_channels=4, depth=4, weights=read_weights(path))


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(
        ModelError,
        match=r"none.pth: no such file of encoder weights. Name another file, or `encoder_weights='imagenet'`",
    ):
        create_encoder("resnet18", in_channels=3, depth=4, weights=read_weights(tmp_path / "none.pth"))
    with pytest.raises(ModelError, match=r"expected encoder weights as .safetensors or .pth, found '.txt'"):
        create_encoder("resnet18", in_channels=3, depth=4, weights=read_weights(tmp_path / "a.txt"))
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(b"not a file of weights")
        with pytest.raises(ModelError, match=r"expected a state dict \(names to tensors\), found .*\nWrite one where"):
            create_encoder("resnet18", in_channels=3, depth=4, weights=read_weights(path))
    path = tmp_path / "wrapped.pth"
    torch.save({"state_dict": {}, "epoch": 3}, path)
    with pytest.raises(ModelError, match="expected a state dict"):
        create_encoder("resnet18", in_channels=3, depth=4, weights=read_weights(path))


def test_weights_of_more_bands_than_three(resnet):
    source = timm.create_model("resnet18", in_chans=4)
    given = Pretrained(source.state_dict(), 4, "S2", Origin("S2"))
    same = create_encoder("resnet18", in_channels=4, depth=3, weights=given)
    assert same.model.conv1.weight.equal(source.conv1.weight)
    fewer = create_encoder("resnet18", in_channels=2, depth=3, weights=given)
    assert fewer.model.conv1.weight.equal(source.conv1.weight[:, :2] * 2)
    message = (
        r"^S2 does not fit encoder 'tu-resnet18' with 5 input channels, 1 tensors .*conv1.weight expected \(64, 5, 7"
    )
    with pytest.raises(ModelError, match=message):
        create_encoder("resnet18", in_channels=4, depth=3, weights=replace(given, bands=5))


def test_rules_of_the_first_layer(resnet):
    given = Pretrained(resnet.state_dict(), 3, "R", Origin("R"), "mean")
    mean = resnet.conv1.weight.mean(dim=1)
    for bands in (1, 3, 4):
        kernel = create_encoder("resnet18", in_channels=bands, depth=3, weights=given).model.conv1.weight
        torch.testing.assert_close(kernel, torch.stack([mean] * bands, dim=1) * 3 / bands)
    drawn = create_encoder("resnet18", in_channels=3, depth=3, weights=replace(given, first_layer="random"))
    assert not drawn.model.conv1.weight.isclose(resnet.conv1.weight).any(dim=(1, 2, 3)).all()
    assert drawn.model.layer1[0].conv1.weight.equal(resnet.layer1[0].conv1.weight)


def test_an_encoder_knows_whether_its_weights_are_pretrained(resnet):
    given = Pretrained(resnet.state_dict(), 3, "R", Origin("R"))
    assert facts_of(create_encoder("resnet18", in_channels=4, depth=3, weights=given)).pretrained
    assert not facts_of(create_encoder("resnet18", in_channels=4, depth=3)).pretrained


def test_a_first_layer_that_cannot_be_adapted():
    source = timm.create_model("tresnet_m")
    given = Pretrained(source.state_dict(), 3, "T", Origin("T"))
    create_encoder("tresnet_m", in_channels=3, depth=3, weights=given)
    with pytest.raises(ModelError) as error:
        create_encoder("tresnet_m", in_channels=4, depth=3, weights=given)
    assert str(error.value) == (
        "The first layer of encoder 'tu-tresnet_m' cannot be adapted to 4 bands: expected a kernel (out, 3, height, "
        "width), found body.conv1.conv.weight of (64, 48, 3, 3).\nChoose an encoder that starts with a plain "
        "convolution, such as tu-resnet18, or start from random weights: `encoder_weights='random'`."
    )


def test_timm_does_not_warn_of_stages_that_are_cut_off(caplog):
    source = timm.create_model("tf_efficientnet_lite0")
    create_encoder(
        "tf_efficientnet_lite0", in_channels=4, depth=4, weights=Pretrained(source.state_dict(), 3, "L", Origin("L"))
    )
    assert caplog.text == ""


def test_what_a_file_holds_instead_of_weights(tmp_path):
    def told(content):
        path = tmp_path / "weights.pth"
        torch.save(content, path) if content != b"" else path.write_bytes(b"")
        with pytest.raises(ModelError) as error:
            read_weights(path)
        assert "\x1b" not in str(error.value)
        return str(error.value).removeprefix(f"{path}: expected a state dict (names to tensors), found ")

    write = "\nWrite one where the model is trusted: torch.save({}, 'weights.pth')"
    alone = write.format("model.state_dict()")
    assert told([1]) == "a list." + alone
    assert told(torch.nn.Linear(1, 1)) == "objects that are no tensors, or a damaged file." + alone
    assert told({"epoch": 3, "state_dict": {"a": torch.zeros(1)}}) == (
        "a checkpoint with epoch, state_dict." + write.format("torch.load('weights.pth')['state_dict']")
    )
    assert told(b"").endswith(alone)
    (tmp_path / "dir.pth").mkdir()
    with pytest.raises(ModelError, match=r"dir\.pth: is a folder\. Name another file"):
        read_weights(tmp_path / "dir.pth")


def test_weights_that_diverged(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    state["layer1.0.conv1.weight"][0] = float("nan")
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(ModelError) as error:
        create_encoder("tu-resnet18", in_channels=3, depth=4, weights=read_weights(tmp_path / "broken.safetensors"))
    assert str(error.value) == (
        f"{tmp_path / 'broken.safetensors'}: expected finite weights, found NaN or infinite ones in "
        "layer1.0.conv1.weight.\nGive another file: the training that wrote this one has diverged."
    )
