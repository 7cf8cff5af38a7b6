import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from geocrodino.errors import ModelError
from geocrodino.models.branch import Branch, build_branch, receptive_field_radius_px
from geocrodino.models.pretrained.state import read_weights
from geocrodino.settings.network import NetworkSettings

SMALL = NetworkSettings(
    encoder="tu-resnet18", decoder="unet", depth=3, invariant_channels=8, decoder_channels=(16, 8, 8)
)
SEPARATE = SMALL.model_copy(update={"separate_encoders": True})


@pytest.fixture(scope="module")
def default_branch():
    torch.manual_seed(0)
    return build_branch(NetworkSettings(), in_channels=3, num_classes=5)


@pytest.fixture(scope="module")
def resnet_branch():
    torch.manual_seed(0)
    return build_branch(NetworkSettings(encoder="tu-resnet18"), in_channels=3, num_classes=5)


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("depth", [3, 4, 5])
def test_shapes(decoder, depth):
    branch = build_branch(
        NetworkSettings(encoder="tu-resnet18", decoder=decoder, depth=depth, invariant_channels=8), 2, 6
    )
    stride = 2**depth
    found = branch.eval().forward_features(torch.randn(2, 2, 2 * stride, 3 * stride))
    assert branch.stride == branch.settings.stride_px == stride
    assert found.logits.shape == (2, 6, 2 * stride, 3 * stride)
    assert found.invariant.shape == found.specific.shape == (2, 8, 2, 3)


def test_forward_is_the_logits_of_forward_features(default_branch):
    images = torch.randn(1, 3, 32, 48)
    branch = default_branch.eval()
    assert branch(images).equal(branch.forward_features(images).logits)


def test_halves_are_signed_and_both_reach_the_decoder(default_branch):
    branch = default_branch.eval()
    seen = []
    handle = branch.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0][-1]))
    found = branch.forward_features(torch.randn(1, 3, 64, 64))
    handle.remove()
    assert seen[0].equal(torch.cat([found.invariant, found.specific], dim=1))
    assert found.invariant.min() < 0 < found.invariant.max()
    assert found.specific.min() < 0 < found.specific.max()


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("encoder", ["tu-resnet18", "tu-mobilenetv3_small_100", "mobilenet_v2", "convnext_atto"])
def test_no_weight_is_dead(encoder, decoder):
    branch = build_branch(NetworkSettings(encoder=encoder, decoder=decoder, invariant_channels=8), 4, 3)
    branch(torch.randn(2, 4, 64, 64)).square().mean().backward()
    assert [name for name, p in branch.named_parameters() if p.grad is None] == []


def test_number_of_parameters(default_branch, resnet_branch):
    assert default_branch.num_parameters == 1_067_109
    assert resnet_branch.num_parameters == 3_179_845


def test_state_dict_fits_a_branch_built_again():
    first, second = (build_branch(SMALL, 3, 4).eval() for _ in range(2))
    images = torch.randn(1, 3, 16, 16)
    assert not first(images).equal(second(images))
    second.load_state_dict(first.state_dict())
    assert first(images).equal(second(images))


def test_wrong_inputs():
    branch = build_branch(SMALL, 3, 4)
    with pytest.raises(ValueError, match="multiples of 8 px, found 16 x 20 px: pad the image"):
        branch(torch.zeros(1, 3, 16, 20))
    with pytest.raises(ValueError, match=r"expected images \(B, 3, H, W\), found \(1, 4, 16, 16\)"):
        branch(torch.zeros(1, 4, 16, 16))
    with pytest.raises(ValueError, match="found in_channels 0 and num_classes 4"):
        Branch(SMALL, 0, 4)
    with pytest.raises(ModelError, match="Unknown encoder 'resnet81'"):
        build_branch(NetworkSettings(encoder="resnet81"), 3, 4)


def test_settings_are_checked():
    with pytest.raises(ValidationError, match="decoder_channels of unet at depth 4 needs 4 numbers, found 2"):
        NetworkSettings(decoder="unet", decoder_channels=(8, 8))
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        NetworkSettings(pretrained=True)
    assert NetworkSettings(decoder="unet").resolved_decoder_channels == (128, 64, 32, 16)
    assert NetworkSettings().resolved_decoder_channels == (96,)
    assert all(field.description for field in NetworkSettings.model_fields.values())


def test_receptive_field_of_small_modules_by_hand():
    assert receptive_field_radius_px(nn.Conv2d(2, 1, 7, padding=3), 2) == 3
    assert receptive_field_radius_px(nn.Conv2d(2, 1, (3, 9), padding=(1, 4)), 2) == 4
    assert receptive_field_radius_px(nn.Conv2d(2, 1, (9, 3), padding=(4, 1)), 2) == 4
    # An output in a cell of 4 sees the cell and, through the 3 x 3 convolution, the cells beside it: 4 + 3 px.
    cells = nn.Sequential(nn.MaxPool2d(4), nn.Conv2d(2, 1, 3, padding=1), nn.Upsample(scale_factor=4))
    assert receptive_field_radius_px(cells, 2) == 7


@pytest.mark.parametrize("whole", [nn.GroupNorm(1, 2), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(size=9))])
def test_receptive_field_of_the_whole_image_is_none(whole):
    assert receptive_field_radius_px(whole, 2) is None


def test_receptive_field_beyond_the_limit_is_none():
    wide = nn.Conv2d(1, 1, 3, padding=40, dilation=40)
    assert receptive_field_radius_px(wide, 1, limit_px=40) == 40
    assert receptive_field_radius_px(wide, 1, limit_px=39) is None


def test_the_field_is_finite_and_measuring_it_changes_nothing(resnet_branch):
    before = {name: value.clone() for name, value in resnet_branch.state_dict().items()}
    resnet_branch.train()
    assert receptive_field_radius_px(resnet_branch, 3) == 150
    assert resnet_branch.training
    assert all(value.equal(before[name]) for name, value in resnet_branch.state_dict().items())
    assert (
        receptive_field_radius_px(build_branch(NetworkSettings(encoder="tu-resnet18", decoder="unet"), 3, 5), 3) == 151
    )


@pytest.mark.slow
def test_field_of_the_default_network(default_branch):
    assert receptive_field_radius_px(default_branch, 3) == 214


def test_squeeze_and_excite_sees_everything():
    assert receptive_field_radius_px(build_branch(NetworkSettings(encoder="tu-mobilenetv3_small_100"), 3, 2), 3) is None


def test_nothing_beyond_the_field_changes_an_output():
    branch = build_branch(SMALL, 1, 2).double().eval()
    radius = receptive_field_radius_px(branch, 1)
    assert radius is not None
    images = torch.randn(1, 1, 16, 192, dtype=torch.float64)
    changed = images.clone()
    changed[..., 96 + radius + 1 :] += 5.0
    assert branch(images)[..., 96].equal(branch(changed)[..., 96])
    assert not branch(images)[..., 104:].equal(branch(changed)[..., 104:])


@pytest.fixture
def separate():
    torch.manual_seed(0)
    return build_branch(SEPARATE, 3, 4)


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
def test_separate_encoders_give_the_same_shapes(decoder):
    branch = build_branch(
        NetworkSettings(encoder="tu-resnet18", decoder=decoder, separate_encoders=True, invariant_channels=8), 2, 6
    ).eval()
    images = torch.randn(2, 2, 32, 48)
    found = branch.forward_features(images)
    assert found.logits.shape == (2, 6, 32, 48)
    assert found.invariant.shape == found.specific.shape == (2, 8, 2, 3)
    assert branch(images).equal(found.logits)


def test_one_encoder_is_the_default_and_has_no_weights_of_a_second():
    assert not NetworkSettings.model_validate({"depth": 3}).separate_encoders
    parts = {name.split(".")[0] for name in build_branch(SMALL, 3, 4).state_dict()}
    assert parts == {"encoder", "projection", "decoder"}
    assert {name.split(".")[0] for name in build_branch(SEPARATE, 3, 4).state_dict()} == parts | {
        "specific_encoder",
        "specific_projection",
    }


@pytest.mark.parametrize(("half", "learns"), [("invariant", ""), ("specific", "specific_")])
def test_each_half_learns_in_an_encoder_of_its_own(separate, half, learns):
    found = getattr(separate.forward_features(torch.randn(2, 3, 32, 32)), half)
    (found * torch.randn_like(found)).sum().backward()
    moved = {n.split(".")[0] for n, p in separate.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {f"{learns}encoder", f"{learns}projection"}


def test_finer_maps_are_those_of_the_specific_encoder(separate):
    separate.eval()
    images = torch.randn(1, 3, 32, 32)
    seen = []
    handle = separate.decoder.register_forward_pre_hook(lambda _, args: seen.extend(args[0]))
    found = separate.forward_features(images)
    handle.remove()
    assert seen[-1].equal(torch.cat([found.invariant, found.specific], dim=1))
    assert all(x.equal(y) for x, y in zip(seen[:-1], separate.specific_encoder(images)[:-1], strict=True))
    assert not seen[1].allclose(separate.encoder(images)[1])


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
@pytest.mark.parametrize("encoder", ["tu-resnet18", "tu-mobilenetv3_small_100", "mobilenet_v2", "convnext_atto"])
def test_no_weight_of_separate_encoders_is_dead(encoder, decoder):
    settings = NetworkSettings(encoder=encoder, decoder=decoder, invariant_channels=8, separate_encoders=True)
    branch = build_branch(settings, 4, 3)
    branch(torch.randn(2, 4, 64, 64)).square().mean().backward()
    assert [name for name, p in branch.named_parameters() if p.grad is None] == []


def test_a_second_encoder_doubles_the_encoder_alone(resnet_branch):
    branch = build_branch(NetworkSettings(encoder="tu-resnet18", separate_encoders=True), 3, 5)
    encoder = sum(p.numel() for p in branch.encoder.parameters())
    # Two projections of 64 channels each weigh as much as one of 128.
    assert branch.num_parameters == resnet_branch.num_parameters + encoder


def test_separate_encoders_see_as_far_as_one():
    assert (
        receptive_field_radius_px(build_branch(NetworkSettings(encoder="tu-resnet18", separate_encoders=True), 3, 5), 3)
        == 150
    )


def test_weights_go_into_both_encoders(tmp_path):
    source = timm.create_model("resnet18")
    path = tmp_path / "resnet18.safetensors"
    save_file(source.state_dict(), path)
    branch = build_branch(SEPARATE, 3, 4, weights=read_weights(path))
    for encoder in (branch.encoder, branch.specific_encoder):
        assert next(encoder.parameters()).equal(source.conv1.weight)
    with torch.no_grad():
        next(branch.encoder.parameters()).add_(1)
    assert next(branch.specific_encoder.parameters()).equal(source.conv1.weight)


def test_encode_gives_what_the_decoder_reads(default_branch, separate):
    images = torch.randn(1, 3, 32, 32)
    for branch in (default_branch.eval(), separate.eval()):
        features, found = branch.encode(images), branch.forward_features(images)
        assert features[-1].equal(torch.cat([found.invariant, found.specific], dim=1))
        assert branch.decoder(features).equal(found.logits)
