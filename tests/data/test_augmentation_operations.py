"""Pipelines of Kornia's operations by name, and what is refused of them."""

import re
from pathlib import Path

import kornia.augmentation as K
import pytest
import torch
import yaml

from geocrodino.data.augmentation import PairAugmentation, check_channels, check_operations
from geocrodino.data.augmentation.build import _CHANGES_SIZE, _WITHOUT_MATRIX, _usable
from geocrodino.data.augmentation.operations import OPERATIONS
from geocrodino.data.augmentation.pipeline import _UNIT_RANGE
from geocrodino.errors import ConfigError
from geocrodino.settings.augmentation import AugmentationSettings, RadiometrySettings
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import MODALITIES

SIZE = 24
_COLOURS = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1}
NEEDED = {
    "ColorJiggle": _COLOURS,
    "ColorJitter": _COLOURS,
    "Denormalize": {"mean": 0.0, "std": 1.0},
    "Normalize": {"mean": 0.0, "std": 1.0},
    "RandomAffine": {"degrees": 15, "scale": [0.8, 1.2], "translate": [0.1, 0.1]},
    "RandomCurve": {"curve": 0.2},
    "RandomGaussianBlur": {"kernel_size": [3, 3], "sigma": [0.1, 1.0]},
    "RandomHue": {"hue": [-0.1, 0.1]},
    "RandomSaturation": {"saturation": [0.8, 1.2]},
    "RandomMotionBlur": {"kernel_size": 3, "angle": 20.0, "direction": 0.5},
    "RandomNoiseLevel": {"noise_std": 0.1},
    "RandomRain": {"drop_height": [2, 3], "drop_width": [1, 2], "number_of_drops": [3, 4]},
    "RandomResizedCrop": {"size": [SIZE, SIZE]},
    "RandomRotation": {"degrees": 15.0},
    "RandomRotation90": {"times": [0, 3]},
    "RandomRotationScale": {"degrees": 15},
    "RandomShear": {"shear": 10.0},
    "RandomTranslate": {"translate_x": [-0.2, 0.2]},
}
NOT_INSTALLED = {"RandomDissolving"}  # needs diffusers
NAMES = sorted(set(_usable()) - NOT_INSTALLED)


def pipeline(*optical, **settings):
    """Settings of which the optical list names operations, the elevation list nothing."""
    return AugmentationSettings(**{"optical": list(optical), "elevation": []} | settings)


def coordinates(count, size=SIZE):
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([columns, rows]).float().repeat(count, 1, 1, 1)


def batch(count=4, channels=3, size=SIZE):
    valid = torch.rand(count, size, size) > 0.1
    found = {"labels": torch.randint(0, 6, (count, size, size))}
    for m in MODALITIES:
        found |= {m: torch.randn(count, channels, size, size) * valid[:, None], f"{m}_valid": valid.clone()}
    return found


def call(settings, given, seed=0):
    torch.manual_seed(seed)
    return PairAugmentation(settings)(given)


def sources(transform, size=SIZE):
    """Source (x, y) of every pixel of a view."""
    pixels = torch.cat([coordinates(1, size)[0], torch.ones(1, size, size)]).flatten(1).double()
    return (torch.linalg.inv(transform.double()) @ pixels)[:, :2].unflatten(-1, (size, size))


@pytest.mark.parametrize("name", NAMES)
def test_any_operation_by_name(name):
    settings = pipeline({name: {**NEEDED.get(name, {}), "p": 1.0}})
    check_operations(settings, SIZE)
    check_channels(settings, {"optical": 3}, SIZE)
    torch.manual_seed(5)
    given = batch()
    found = call(settings, given)
    for m in MODALITIES:
        image, valid = found[m], found[f"{m}_valid"]
        assert image.shape == given[m].shape
        assert image.dtype == torch.float32
        assert image.isfinite().all()
        assert image.movedim(1, -1)[~valid].eq(0).all()
        assert found[f"{m}_labels"][~valid].eq(IGNORE_INDEX).all()
    if not issubclass(OPERATIONS.get(name) or getattr(K, name), K.GeometricAugmentationBase2D):
        assert found["optical_valid"].equal(given["optical_valid"])
        assert found["optical_transform"].equal(torch.eye(3).repeat(4, 1, 1))
        assert found["optical"].abs().max() < 50
        # Values below 0 are kept, whatever range the operation assumes.
        assert (found["optical"] < -0.1).float().mean() > 0.05 or name in {"RandomAutoContrast", "RandomJPEG"}


@pytest.mark.parametrize("name", NAMES)
def test_any_operation_after_a_move(name):
    """Operations get the memory layout that they were checked with."""
    torch.manual_seed(5)
    given = batch()
    moves = {"RandomVerticalFlip": {"p": 1.0}}, {"RandomRotation": {"degrees": 30.0, "p": 0.5}}
    found = call(pipeline(*moves, {name: {**NEEDED.get(name, {}), "p": 0.7}}), given)
    assert found["optical"].is_contiguous()
    assert found["optical"].isfinite().all()
    assert found["optical_labels"][~found["optical_valid"]].eq(IGNORE_INDEX).all()
    assert found["optical"].movedim(1, -1)[~found["optical_valid"]].eq(0).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_that_is_never_drawn_is_the_identity_bitwise(name):
    settings = pipeline({name: {**NEEDED.get(name, {}), "p": 0.0}})
    torch.manual_seed(5)
    given = batch()
    found = call(settings, given)
    assert found["optical"].equal(given["optical"])
    assert found["optical_valid"].equal(given["optical_valid"])
    assert found["optical_labels"].equal(given["labels"].masked_fill(~given["optical_valid"], IGNORE_INDEX))
    assert found["optical_transform"].equal(torch.eye(3).repeat(4, 1, 1))


EXACT = {
    "mirror": ({"RandomHorizontalFlip": {"p": 1.0}}, lambda v: v.flip(-1)),
    "upside down": ({"RandomVerticalFlip": {"p": 1.0}}, lambda v: v.flip(-2)),
    "Kornia's quarter turn": ({"RandomRotation90": {"times": [1, 1], "p": 1.0}}, lambda v: v.rot90(1, (-2, -1))),
    "Kornia's rotation by 90 degrees": (
        {"RandomRotation": {"degrees": [90.0, 90.0], "p": 1.0}},
        lambda v: v.rot90(1, (-2, -1)),
    ),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("size", [24, 25, 256])
def test_mirrors_and_turns_are_bit_exact(name, size):
    operation, move = EXACT[name]
    torch.manual_seed(1)
    given = batch(3, size=size)
    found = call(pipeline(operation, {"RandomVerticalFlip": {"p": 1.0}}), given)
    valid = move(given["optical_valid"]).flip(-2)
    assert found["optical"].equal(move(given["optical"]).flip(-2))
    assert found["optical_valid"].equal(valid)
    assert found["optical_labels"].equal(move(given["labels"]).flip(-2).masked_fill(~valid, IGNORE_INDEX))
    assert found["optical_transform"].equal(found["optical_transform"].round())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_exact_moves_keep_every_number_format(dtype):
    torch.manual_seed(1)
    given = batch(3)
    given["optical"] = given["optical"].to(dtype)
    found = call(pipeline({"RandomHorizontalFlip": {"p": 1.0}}), given)
    assert found["optical"].dtype == dtype
    assert found["optical"].equal(given["optical"].flip(-1))


def test_quarter_turns_are_equally_likely():
    turns = OPERATIONS["RandomQuarterTurn"]().generate_parameters(torch.Size((4000, 1, 8, 8)))["quarter_turns"]
    assert torch.bincount(turns).min() > 900
    halves = OPERATIONS["RandomQuarterTurn"]().generate_parameters(torch.Size((4000, 1, 8, 9)))["quarter_turns"]
    assert set(halves.tolist()) == {0, 2}


GEOMETRIC = [
    {"RandomAffine": {"degrees": 30, "scale": [0.7, 1.4], "shear": 10.0, "translate": [0.2, 0.2], "p": 0.8}},
    {"RandomRotation": {"degrees": 40.0, "p": 0.8}},
    {"RandomResizedCrop": {"size": [SIZE, SIZE], "scale": [0.4, 0.9]}},
    {"RandomShear": {"shear": [-20.0, 20.0], "p": 0.8}},
    {"RandomTranslate": {"translate_x": [-0.2, 0.2], "translate_y": [0.0, 0.2], "p": 0.8}},
    {"RandomRotationScale": {"degrees": 40, "scale": [0.5, 2.0], "p": 0.8}},
]


@pytest.mark.parametrize(
    "operations", [*([g] for g in GEOMETRIC), GEOMETRIC[:2], [{"RandomVerticalFlip": None}, *GEOMETRIC[3:]]]
)
def test_matrices_tell_where_pixels_went(operations):
    given = batch(8)
    given["optical"] = coordinates(8)
    given["optical_valid"] = torch.ones(8, SIZE, SIZE, dtype=torch.bool)
    found = call(pipeline(*operations), given)
    source, valid = sources(found["optical_transform"]), found["optical_valid"]
    inside = ((source >= 0) & (source <= SIZE - 1)).all(dim=1)
    assert inside.float().mean() > 0.1
    assert valid[inside].all()
    assert (found["optical"] - source).abs().amax(dim=1)[inside].max() < 1e-3
    far = ((source < -1) | (source > SIZE)).any(dim=1)
    assert not valid[far].any()
    assert found["optical_labels"][far].eq(IGNORE_INDEX).all()
    clear = ((source - source.floor() - 0.5).abs() > 1e-3).all(dim=1) & valid
    x, y = source.round().long().clamp(0, SIZE - 1).unbind(1)
    assert found["optical_labels"][clear].equal(given["labels"][torch.arange(8)[:, None, None], y, x][clear])


def test_geometry_before_and_after_a_change_of_values():
    shift = {"RandomTranslate": {"translate_x": [0.25, 0.25], "p": 1.0}}
    given = batch(2)
    given["optical"] = coordinates(2)
    given["optical_valid"] = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    found = call(pipeline(shift, {"RandomGainOffset": {"offset_std": 0.5}}, shift), given)
    assert found["optical_transform"][0].allclose(torch.tensor([[1.0, 0, 12], [0, 1, 0], [0, 0, 1]]), atol=1e-5)
    assert found["optical_valid"][..., 12:].all()
    assert not found["optical_valid"][..., :12].any()
    moved = found["optical"][:, 0, :, 12:] - given["optical"][:, 0, :, :12]
    assert moved.std(dim=(-2, -1)).max() < 1e-4
    assert moved.mean(dim=(-2, -1)).abs().min() > 1e-3


def test_a_pixel_is_valid_only_if_more_than_half_of_its_weight_is():
    """Shifts by a quarter and by three quarters of a pixel, of a hole whose border lies between two columns."""
    given = batch(1)
    given["optical"] = torch.full((1, 3, SIZE, SIZE), 2.0)
    given["optical_valid"] = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    given["optical_valid"][..., 12:] = False
    given["optical"] *= given["optical_valid"][:, None]
    for share, last in ((0.25, 11), (0.75, 12)):
        shift = {"RandomTranslate": {"translate_x": [share / SIZE, share / SIZE], "p": 1.0}}
        found = call(pipeline(shift), given)
        assert found["optical_valid"][0, 5].nonzero().flatten().tolist() == list(range(share > 0.5, last + 1))
        assert found["optical"][found["optical_valid"][:, None].expand(1, 3, -1, -1)].allclose(torch.tensor(2.0))
        assert found["optical"][~found["optical_valid"][:, None].expand(1, 3, -1, -1)].eq(0).all()


@pytest.mark.parametrize("name", ["RandomGaussianBlur", "RandomBoxBlur", "RandomMotionBlur"])
def test_blurs_read_valid_pixels_alone(name):
    given = batch(3)
    given["optical"] = torch.full((3, 3, SIZE, SIZE), 2.0) * given["optical_valid"][:, None]
    found = call(pipeline({"RandomGainOffset": {"offset_std": 0.5}}, {name: {**NEEDED.get(name, {}), "p": 1.0}}), given)
    for image, valid in zip(found["optical"], found["optical_valid"], strict=True):
        values = image[:, valid]
        torch.testing.assert_close(values, values[:1, :1].expand_as(values))


def test_decoupled_and_coupled():
    operations = [{"RandomHorizontalFlip": {"p": 0.5}}, {"RandomAffine": {"degrees": 30.0, "p": 1.0}}]
    noise = [{"RandomNoiseLevel": {"noise_std": 0.2}}]
    torch.manual_seed(2)
    given = batch(6)
    apart = call(AugmentationSettings(optical=operations, elevation=operations), given)
    assert not apart["optical_transform"].allclose(apart["elevation_transform"])
    together = call(AugmentationSettings(decoupled=False, optical=operations, elevation=operations + noise), given)
    assert together["optical_transform"].equal(together["elevation_transform"])
    assert together["optical_labels"].equal(
        together["elevation_labels"].where(together["optical_valid"], torch.tensor(IGNORE_INDEX))
    )
    assert not together["optical"].equal(together["elevation"])


def test_coupled_lists_must_move_pixels_alike():
    flip, turn = {"RandomHorizontalFlip": {"p": 0.5}}, {"RandomRotation90": {"times": [0, 3]}}
    apart = AugmentationSettings(optical=[flip, turn], elevation=[flip])
    PairAugmentation(apart)
    with pytest.raises(ConfigError, match="found RandomHorizontalFlip, RandomRotation90 for optical and RandomH"):
        check_operations(apart, SIZE, coupled=True)
    with pytest.raises(ConfigError, match="found RandomHorizontalFlip for optical and none for elevation"):
        PairAugmentation(AugmentationSettings(decoupled=False, optical=[flip], elevation=[]))
    with pytest.raises(ConfigError, match="the same parameters of RandomHorizontalFlip in both lists"):
        PairAugmentation(
            AugmentationSettings(decoupled=False, optical=[flip], elevation=[{"RandomHorizontalFlip": {"p": 0.2}}])
        )


def test_a_seed_reproduces_a_call():
    names = ("RandomAffine", "RandomGaussianBlur", "RandomErasing", "RandomGaussianNoise", "RandomResizedCrop")
    settings = pipeline(*({name: NEEDED.get(name, {})} for name in names))
    given = batch(6)
    first, again, other = call(settings, given, 3), call(settings, given, 3), call(settings, given, 4)
    assert all(first[key].equal(again[key]) for key in first)
    assert not first["optical"].equal(other["optical"])


def test_draws_stay_on_the_cpu_and_out_of_checkpoints():
    augmentation = PairAugmentation(AugmentationSettings()).to("meta")
    assert not augmentation.state_dict()
    assert {str(s.kornia.device) for p in augmentation.pipelines.values() for s in p.steps} == {"cpu"}


def test_only_drawn_images_are_computed():
    seen = []
    blur = {"kernel_size": [3, 3], "sigma": [0.5, 1.0], "p": 0.3}
    augmentation = PairAugmentation(pipeline({"RandomGaussianBlur": blur}))
    step = augmentation.pipelines["optical"].steps[0]
    plain = step.kornia.apply_transform
    step.kornia.apply_transform = lambda image, *a, **k: seen.append(len(image)) or plain(image, *a, **k)
    torch.manual_seed(0)
    given = batch(20)
    found = augmentation(given)
    changed = (found["optical"] != given["optical"]).flatten(1).any(dim=1).sum()
    assert seen == [int(changed)]
    assert 1 <= changed <= 12


def test_operations_that_assume_values_of_0_to_1_keep_contrast():
    """0 to 1 stands for -3 to 3 standard deviations; what lies beyond keeps its distance."""
    given = batch(2)
    ramp = torch.linspace(-5, 5, SIZE).expand(2, 3, SIZE, SIZE).contiguous()
    given["optical"], given["optical_valid"] = ramp, torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    found = call(pipeline({"RandomBrightness": {"brightness": [1.1, 1.1], "p": 1.0}}), given)["optical"]
    middle = ramp.abs() < 2
    torch.testing.assert_close(found[middle], ramp[middle] + 0.6)
    assert found.max() >= 5
    assert found.min() <= -4
    found = call(pipeline({"RandomContrast": {"contrast": [1.2, 1.2], "clip_output": False, "p": 1.0}}), given)
    torch.testing.assert_close(found["optical"], 1.2 * ramp)


REFUSED = {
    "an unknown class": (
        {"RandomGausianBlur": {}},
        r"augmentation.optical.0.RandomGausianBlur: expected an operation of kornia.augmentation .* or geocrodino, "
        r"found 'RandomGausianBlur'. Did you mean RandomGaussianBlur\?",
    ),
    "another case": ({"randomhorizontalflip": {}}, r"Did you mean RandomHorizontalFlip\?"),
    "nothing alike": ({"Blubb": {}}, "found 'Blubb'. geocrodino's own: RandomQuarterTurn, RandomRotationScale"),
    "an unknown parameter": (
        {"RandomGaussianBlur": {"kernel_size": [3, 3], "sigm": [0.1, 1]}},
        r"augmentation.optical.0.RandomGaussianBlur.sigm: is not a parameter. Did you mean sigma\?",
    ),
    "a parameter unlike any": (
        {"RandomHorizontalFlip": {"zzz": 1}},
        "RandomHorizontalFlip.zzz: is not a parameter. Expected one of p, p_batch, same_on_batch",
    ),
    "a missing parameter": (
        {"RandomGaussianBlur": {"p": 0.2}},
        "RandomGaussianBlur: expected kernel_size, sigma, found p",
    ),
    "a parameter without effect": (
        {"RandomAffine": {"degrees": 3, "padding_mode": "border"}},
        "RandomAffine.padding_mode: has no effect",
    ),
    "a value that Kornia refuses": (
        {"RandomRotation": {"degrees": [-700, 700]}},
        r"RandomRotation: cannot be built with degrees \(-700, 700\)",
    ),
    "a value of our own that is out of range": (
        {"RandomCurve": {"curve": 2}},
        "RandomCurve: cannot be built with curve 2: curve must be at least 0 and below 1, found 2",
    ),
    "a percentage": (
        {"RandomHorizontalFlip": {"p": 50}},
        "RandomHorizontalFlip.p: expected a share of the patches, 0 to 1, found 50",
    ),
    "a word for a share": ({"RandomHorizontalFlip": {"p": "half"}}, "a share of the patches, 0 to 1, found 'half'"),
    "mixed images": ({"RandomMixUpV2": {}}, "found RandomMixUpV2, which mixes the images of a batch"),
    "a change of size": ({"CenterCrop": {"size": 9}}, "CenterCrop, which changes the size of a patch"),
    "no matrix": ({"RandomElasticTransform": {}}, "RandomElasticTransform, which moves pixels without a matrix"),
    "a perspective": ({"RandomPerspective": {}}, "RandomPerspective, which is not affine"),
    "volumes": ({"RandomAffine3D": {}}, r"RandomAffine3D, which is for volumes. Did you mean RandomAffine\?"),
    "a container": ({"AugmentationSequential": {}}, "which is not a single augmentation"),
    "a base class": ({"IntensityAugmentationBase2D": {}}, "which is not a single augmentation"),
    "a module": ({"auto": {}}, "found 'auto'"),
    "a crop of another size": (
        {"RandomResizedCrop": {"size": [9, 9]}},
        "RandomResizedCrop.size: expected that of a patch, 24, 24 px .training.patch_px., found 9, 9",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    operation, words = REFUSED[name]
    with pytest.raises(ConfigError, match=words) as error:
        check_operations(pipeline(operation), SIZE)
    assert str(error.value).startswith("augmentation.optical.0.")


def test_operations_for_three_bands_on_other_numbers_of_bands():
    settings = pipeline({"RandomHue": {"hue": [-0.1, 0.1]}}, {"RandomHorizontalFlip": {}})
    before = torch.get_rng_state()
    check_channels(settings, {"optical": 3, "elevation": 2}, SIZE)
    assert before.equal(torch.get_rng_state())
    with pytest.raises(
        ConfigError, match=r"augmentation.optical.0.RandomHue: cannot be applied to 4 channels: Input size"
    ):
        check_channels(settings, {"optical": 4}, SIZE)


def test_operations_that_spoil_standardised_values(monkeypatch):
    monkeypatch.setattr("geocrodino.data.augmentation.pipeline._UNIT_RANGE", ())
    gamma, light = {"RandomGamma": {"p": 0.1}}, {"RandomBrightness": {"p": 0.1}}
    for operation in (gamma, light):
        with pytest.raises(ConfigError, match="cuts all values to 0 to 1"):
            check_channels(pipeline(operation), {"optical": 3}, SIZE)
    monkeypatch.setattr(K.RandomGamma, "apply_transform", lambda self, x, *a, **k: x.log())
    with pytest.raises(ConfigError, match="expected finite values, found NaN or infinity"):
        check_channels(pipeline(gamma), {"optical": 3}, SIZE)


def test_the_page_lists_what_is_handled_in_a_special_way():
    page = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text(encoding="utf-8")
    values = page.partition("## Kornia's classes")[2]
    listed, rest = (set(re.findall(r"`(\w+)`", part)) for part in (values.partition("\n- ")[0], values))
    assert listed - {"clip_output"} == set(_UNIT_RANGE)
    assert rest >= {*_CHANGES_SIZE, *_WITHOUT_MATRIX}
    assert set(OPERATIONS) <= set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    three = set(re.findall(r"`(\w+)`", values.partition("**Three bands only:**")[2].partition("**One or three:**")[0]))
    for name in sorted(set(NAMES) - set(OPERATIONS)):
        settings = pipeline({name: NEEDED.get(name, {})})
        if name in three:
            with pytest.raises(ConfigError, match="cannot be applied to 1 channel"):
                check_channels(settings, {"optical": 1}, SIZE)
        else:
            check_channels(settings, {"optical": 1}, SIZE)


def test_own_names_are_not_kornias():
    assert not set(OPERATIONS) & set(K.__all__)


def test_own_operations_work_in_kornias_container():
    torch.manual_seed(0)
    own = [c(**NEEDED.get(name, {})) for name, c in OPERATIONS.items()]
    image = torch.randn(4, 3, SIZE, SIZE)
    container = K.AugmentationSequential(*own, data_keys=["input"])
    assert container(image).shape == image.shape
    turn = OPERATIONS["RandomQuarterTurn"]()
    turned = turn(image)
    expected = [x.rot90(int(k), (-2, -1)) for x, k in zip(image, turn._params["quarter_turns"], strict=True)]
    assert turned.equal(torch.stack(expected))
    free = OPERATIONS["RandomRotationScale"](degrees=20, scale=(0.8, 1.2), p=1.0)
    moved = free(coordinates(4))
    source = sources(free.transform_matrix)
    inside = ((source >= 0) & (source <= SIZE - 1)).all(dim=1)
    assert (moved - source).abs().amax(dim=1)[inside].max() < 1e-3


def names(settings, modality):
    return [operation.name for operation in settings.operations(modality)]


def test_the_keys_of_the_first_version_stand_for_these_operations():
    default = AugmentationSettings()
    geometry = ["RandomHorizontalFlip", "RandomQuarterTurn", "RandomRotationScale"]
    assert names(default, "elevation") == [*geometry, "RandomGainOffset", "RandomNoiseLevel"]
    assert yaml.safe_load(yaml.safe_dump([o.model_dump(mode="json") for o in default.operations("optical")])) == [
        {"RandomHorizontalFlip": {"p": 0.5}},
        {"RandomQuarterTurn": {"p": 1.0}},
        {"RandomRotationScale": {"degrees": 20.0, "scale": [0.8, 1.25], "p": 0.5}},
        {"RandomGaussianBlur": {"kernel_size": [7, 7], "sigma": [0.1, 1.0], "border_type": "constant", "p": 0.2}},
        {"RandomCurve": {"curve": 0.15}},
        {"RandomGainOffset": {"gain": 0.2, "offset_std": 0.2, "band_gain": 0.1, "band_offset_std": 0.1}},
        {"RandomNoiseLevel": {"noise_std": 0.05}},
    ]
    still = RadiometrySettings(
        gain=0, offset_std=0, band_gain=0, band_offset_std=0, curve=0, noise_std=0, blur_sigma_px=0, blur_probability=0
    )
    for unused in ({"resample_probability": 0}, {"rotation_deg": 0, "scale": (1.0, 1.0)}):
        assert names(AugmentationSettings(optical=still, **unused), "optical") == geometry[:2]
    off = {"flip": False, "quarter_turn": False, "rotation_deg": 0.0, "scale": (1.0, 1.0)}
    assert names(AugmentationSettings(optical=still, **off), "optical") == []


def test_the_short_form_written_out_gives_the_same_bytes():
    short = AugmentationSettings()
    long = AugmentationSettings(**{m: [o.model_dump(mode="json") for o in short.operations(m)] for m in MODALITIES})
    given = batch(6)
    first, second = call(short, given), call(long, given)
    assert all(first[key].equal(second[key]) for key in first)
