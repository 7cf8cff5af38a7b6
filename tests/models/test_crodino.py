import pytest
import torch

from geocrodino.models.crodino import CroDiNo
from geocrodino.settings.network import NetworkSettings

SMALL = NetworkSettings(
    encoder="tu-resnet18", decoder="unet", depth=3, invariant_channels=8, decoder_channels=(16, 8, 8)
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return CroDiNo(SMALL, {"optical": 4, "elevation": 1}, num_classes=5)


@pytest.fixture
def images():
    return {"optical": torch.randn(2, 4, 32, 32), "elevation": torch.randn(2, 1, 32, 32)}


def test_shapes(network, images):
    found = network(images)
    assert list(found) == ["optical", "elevation"]
    for output in found.values():
        assert output.logits.shape == output.auxiliary_logits.shape == (2, 5, 32, 32)
        assert output.invariant.shape == output.specific.shape == (2, 8, 4, 4)


def test_one_modality_alone_says_the_same(network, images):
    network.eval()
    both = network(images)
    for modality in images:
        alone = network({modality: images[modality]})
        assert list(alone) == [modality]
        assert alone[modality].logits.equal(both[modality].logits)
        assert network.branch(modality)(images[modality]).equal(both[modality].logits)


def test_one_auxiliary_decoder_reads_the_invariant_half_of_both(network, images):
    found = network.eval()(images)
    for output in found.values():
        assert network.auxiliary(output.invariant).equal(output.auxiliary_logits)
    network.zero_grad()
    network(images)["elevation"].auxiliary_logits.square().sum().backward()
    kernel = network.branch("elevation").projection[0].weight.grad
    assert kernel[:8].abs().sum() > 0
    assert kernel[8:].abs().sum() == 0
    assert all(p.grad is None for p in network.branch("optical").parameters())


def test_every_parameter_learns(network, images):
    sum(o.logits.square().mean() + o.auxiliary_logits.square().mean() for o in network(images).values()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_without_auxiliary_decoder(images):
    network = CroDiNo(SMALL, {"optical": 4, "elevation": 1}, num_classes=5, auxiliary=False)
    assert network(images)["optical"].auxiliary_logits is None


def test_one_branch_only(images):
    network = CroDiNo(SMALL, {"elevation": 1}, num_classes=5)
    assert list(network.branches) == ["elevation"]
    with pytest.raises(ValueError, match="no branch for optical: this network has elevation"):
        network(images)


def test_unknown_modalities(network):
    with pytest.raises(ValueError, match="expected one or both of optical, elevation, found rgb"):
        network({"rgb": torch.zeros(1, 3, 32, 32)})
    with pytest.raises(ValueError, match="expected one or both of optical, elevation, found none"):
        network({})
