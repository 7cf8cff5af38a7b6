import pytest
import timm
import torch
from helpers.rounding import output_rounding
from safetensors.torch import save_file

from geocrodino.errors import ModelError
from geocrodino.models.branch import build_branch, receptive_field_radius_px
from geocrodino.models.fusion import MiddleFusion, modality_branch
from geocrodino.models.pretrained.state import read_weights
from geocrodino.settings.network import NetworkSettings

SMALL = NetworkSettings(
    encoder="tu-resnet18", decoder="unet", depth=3, invariant_channels=8, decoder_channels=(16, 8, 8)
)
BANDS = {"optical": 3, "elevation": 1}


def warmed_up(network, in_channels):
    """The network in evaluation mode, its batch statistics no longer those that it was born with."""
    with torch.no_grad():
        network.train()(torch.randn(4, in_channels, 32, 32))
    return network.eval()


@pytest.fixture
def fusion():
    torch.manual_seed(0)
    return warmed_up(MiddleFusion(SMALL, BANDS, num_classes=5), 4)


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_shapes_are_those_of_a_branch(decoder, depth):
    settings = NetworkSettings(encoder="tu-resnet18", decoder=decoder, depth=depth, invariant_channels=8)
    fusion = MiddleFusion(settings, BANDS, 6).eval()
    stride = 2**depth
    images = torch.randn(2, 4, 2 * stride, 3 * stride)
    found = fusion.forward_features(images)
    assert (fusion.stride, fusion.in_channels, fusion.num_classes) == (stride, 4, 6)
    assert [x.shape for x in found] == [x.shape for x in build_branch(settings, 4, 6).forward_features(images)]
    assert fusion(images).equal(found.logits)


def test_encode_gives_what_the_decoder_reads(fusion):
    images = torch.randn(1, 4, 32, 32)
    features, found = fusion.encode(images), fusion.forward_features(images)
    assert features[-1].equal(torch.cat([found.invariant, found.specific], dim=1))
    assert fusion.decoder(features).equal(found.logits)
    assert found.invariant.min() < 0 < found.invariant.max()


def test_optical_comes_first_whatever_the_order_of_the_counts():
    fusion = MiddleFusion(SMALL, {"elevation": 1, "optical": 3}, 2)
    kernels = {name: next(encoder.parameters()) for name, encoder in fusion.encoders.items()}
    assert {name: kernel.shape[1] for name, kernel in kernels.items()} == BANDS
    fusion(torch.randn(2, 4, 16, 16) * torch.tensor([0.0, 0, 0, 1])[:, None, None]).square().mean().backward()
    assert not kernels["optical"].grad.any()
    assert kernels["elevation"].grad.any()


@pytest.mark.parametrize("band", range(4))
def test_every_band_changes_the_output(fusion, band):
    images = torch.randn(1, 4, 32, 32)
    changed = images.clone()
    changed[:, band] += 1
    for before, after in zip(fusion.forward_features(images), fusion.forward_features(changed), strict=True):
        assert not before.allclose(after)


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("missing", [(0, 3), (3, 4)])
def test_the_decoder_reads_no_map_of_one_modality_alone(decoder, missing):
    fusion = MiddleFusion(SMALL.model_copy(update={"decoder": decoder, "decoder_channels": None}), BANDS, 2).eval()
    images = torch.randn(1, 4, 32, 32)
    blanked = images.clone()
    blanked[:, slice(*missing)] = 0
    read = {"unet": slice(1, None), "fpn": slice(2, None)}[decoder]
    assert not any(
        x.allclose(y) for x, y in zip(fusion.encode(images)[read], fusion.encode(blanked)[read], strict=True)
    )


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("encoder", ["tu-resnet18", "tu-mobilenetv3_small_100", "mobilenet_v2", "convnext_atto"])
def test_no_weight_is_dead(encoder, decoder):
    fusion = MiddleFusion(NetworkSettings(encoder=encoder, decoder=decoder, invariant_channels=8), BANDS, 3)
    fusion(torch.randn(2, 4, 64, 64)).square().mean().backward()
    assert [name for name, p in fusion.named_parameters() if p.grad is None] == []


def test_number_of_parameters_by_hand():
    fusion = MiddleFusion(NetworkSettings(encoder="tu-resnet18"), BANDS, 5)
    branch = build_branch(NetworkSettings(encoder="tu-resnet18"), 3, 5)
    encoder = sum(p.numel() for p in branch.encoder.parameters())
    # A second encoder whose first kernels (64 of 7 x 7) read two bands less; 1 x 1 kernels with scale and shift at
    # the scales of 64 and 128 channels that the pyramid reads; the projection to 128 channels reads 256 more.
    merged = (2 * 64 * 64 + 2 * 64) + (2 * 128 * 128 + 2 * 128)
    assert fusion.num_parameters == branch.num_parameters + encoder - 2 * 64 * 49 + merged + 256 * 128


def test_it_sees_as_far_as_a_branch():
    for decoder, expected in (("fpn", 150), ("unet", 151)):
        assert (
            receptive_field_radius_px(
                MiddleFusion(NetworkSettings(encoder="tu-resnet18", decoder=decoder), BANDS, 2), 4
            )
            == expected
        )


def test_encoder_weights_by_modality(tmp_path):
    source = timm.create_model("resnet18")
    path = tmp_path / "resnet18.safetensors"
    save_file(source.state_dict(), path)
    fusion = MiddleFusion(SMALL, BANDS, 2, weights={"elevation": read_weights(path)})
    kernels = {name: next(encoder.parameters()) for name, encoder in fusion.encoders.items()}
    assert kernels["elevation"].allclose(source.conv1.weight.sum(dim=1, keepdim=True))
    assert not kernels["optical"].allclose(source.conv1.weight)


def test_wrong_inputs_of_the_fusion(fusion):
    with pytest.raises(ValueError, match=r"^expected images \(B, 4, H, W\), found \(1, 3, 16, 16\)$"):
        fusion(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"^height and width must be multiples of 8 px, found 16 x 20 px: pad the im"):
        fusion(torch.zeros(1, 4, 16, 20))
    with pytest.raises(ValueError, match=r"^expected bands of both optical and elevation, found optical$"):
        MiddleFusion(SMALL, {"optical": 3}, 2)
    with pytest.raises(ValueError, match=r"^expected bands of both optical and elevation, found none$"):
        MiddleFusion(SMALL, {}, 2)
    with pytest.raises(ValueError, match=r"found in_channels 0 and num_classes 2$"):
        MiddleFusion(SMALL, {"optical": 3, "elevation": 0}, 2)
    with pytest.raises(ModelError) as error:
        MiddleFusion(SMALL.model_copy(update={"separate_encoders": True}), BANDS, 2)
    assert str(error.value) == (
        "Middle fusion has one encoder for each modality: expected separate_encoders: false, found true.\n"
        "Leave separate_encoders out, or train a method that has a branch for each modality."
    )


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("encoder", ["tu-resnet18", "tu-mobilenetv3_small_100", "mobilenet_v2", "convnext_atto"])
def test_a_modality_alone_is_the_whole_network_with_zeros(encoder, decoder):
    torch.manual_seed(0)
    settings = NetworkSettings(encoder=encoder, decoder=decoder, invariant_channels=8)
    network = warmed_up(build_branch(settings, 4, 3), 4)
    images = torch.randn(1, 4, 64, 64)
    for modality, own in (("optical", slice(0, 3)), ("elevation", slice(3, 4))):
        alone = modality_branch(network, modality, BANDS)
        blanked = torch.zeros_like(images)
        blanked[:, own] = images[:, own]
        assert alone.in_channels == BANDS[modality]
        assert not alone.training
        found = alone.forward_features(images[:, own])
        for value, expected in zip(found, network.forward_features(blanked), strict=True):
            torch.testing.assert_close(value, expected, rtol=0, atol=output_rounding(network, expected))
        assert not found.logits.allclose(network(images))


@pytest.mark.parametrize("bands", [{"optical": 1, "elevation": 1}, {"optical": 1, "elevation": 3}])
def test_other_numbers_of_bands(bands):
    total = sum(bands.values())
    network = warmed_up(build_branch(SMALL, total, 2), total)
    elevation = torch.randn(1, bands["elevation"], 16, 16)
    alone = modality_branch(network, "elevation", bands)
    blanked = torch.cat([torch.zeros(1, bands["optical"], 16, 16), elevation], dim=1)
    expected = network(blanked)
    torch.testing.assert_close(alone(elevation), expected, rtol=0, atol=output_rounding(network, expected))


def test_the_cut_network_shares_nothing_with_the_whole_one():
    network = build_branch(SMALL, 4, 2).double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    alone = modality_branch(network, "optical", BANDS)
    assert alone.training
    with torch.no_grad():
        for parameter in alone.parameters():
            assert parameter.dtype == torch.float64
            parameter.add_(1)
    alone(torch.randn(2, 3, 16, 16, dtype=torch.float64))
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


def test_cutting_leaves_random_numbers_alone():
    network = build_branch(SMALL, 4, 2)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    modality_branch(network, "elevation", BANDS)
    assert torch.rand(1) == expected


def test_a_network_cut_in_inference_mode_can_be_trained():
    network = build_branch(SMALL, 4, 2)
    with torch.inference_mode():
        alone = modality_branch(network, "elevation", BANDS)
    alone(torch.randn(2, 1, 16, 16)).square().mean().backward()
    assert all(p.grad is not None for p in alone.parameters())


def test_encoders_that_cannot_be_cut():
    two = build_branch(NetworkSettings(encoder="mobileone_s0", depth=3), 4, 2)
    with pytest.raises(ModelError) as error:
        modality_branch(two, "elevation", BANDS)
    assert str(error.value) == (
        "Encoder 'mobileone_s0' cannot be cut down to elevation: expected one tensor whose shape depends on the "
        "number of bands, found 2 (encoder.model.stem.conv_kxk.0.conv.weight, "
        "encoder.model.stem.conv_scale.conv.weight).\n"
        "Choose an encoder that starts with one convolution, such as tu-resnet18, and one encoder for both halves."
    )
    regrouped = build_branch(NetworkSettings(encoder="tresnet_m", depth=3), 4, 2)
    with pytest.raises(ModelError) as error:
        modality_branch(regrouped, "optical", BANDS)
    assert str(error.value) == (
        "Encoder 'tresnet_m' cannot be cut down to optical: expected a kernel (out, 4, height, width), found "
        "encoder.model.body_conv1.conv.weight of (64, 64, 3, 3).\n"
        "Choose an encoder that starts with a plain convolution, such as tu-resnet18."
    )
    separate = build_branch(SMALL.model_copy(update={"separate_encoders": True}), 4, 2)
    with pytest.raises(ModelError, match=r"found 2 \(encoder.model.conv1.weight, specific_encoder.model.conv1.weight"):
        modality_branch(separate, "elevation", BANDS)


def test_wrong_arguments_of_the_cut():
    network = build_branch(SMALL, 4, 2)
    with pytest.raises(ValueError, match=r"^expected bands that add up to 4, found {'optical': 4, 'elevation': 1}$"):
        modality_branch(network, "elevation", {"optical": 4, "elevation": 1})
    with pytest.raises(ValueError, match=r"^expected bands of both optical and elevation, found elevation$"):
        modality_branch(network, "elevation", {"elevation": 4})
    with pytest.raises(ValueError, match=r"^expected one of optical, elevation, found rgb$"):
        modality_branch(network, "rgb", BANDS)
    with pytest.raises(ValueError, match=r"^in_channels and num_classes must be at least 1, found in_channels 0 and "):
        modality_branch(network, "optical", {"optical": 0, "elevation": 4})
