import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.settings.augmentation import AugmentationSettings, RadiometrySettings
from geocrodino.settings.classes import IGNORE_INDEX

SIZE = 24
CALM = RadiometrySettings(
    gain=0, offset_std=0, band_gain=0, band_offset_std=0, curve=0, noise_std=0, blur_sigma_px=0, blur_probability=0
)
STRONG = RadiometrySettings(blur_probability=1.0, noise_std=0.2)


def _settings(**changes):
    return AugmentationSettings(**{"optical": CALM, "elevation": CALM, "resample_probability": 1.0} | changes)


def _coordinates(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows]).float()


def _batch(batch=3, height=SIZE, width=SIZE):
    """Images that hold x and y of each pixel; labels that hold a 5 px chequer of seven classes."""
    image = _coordinates(height, width).repeat(batch, 1, 1, 1)
    labels = ((image[:, 0] // 5 + 3 * (image[:, 1] // 5)) % 7).long()
    valid = torch.ones(batch, height, width, dtype=torch.bool)
    return {
        "optical": image,
        "optical_valid": valid,
        "elevation": image.clone(),
        "elevation_valid": valid.clone(),
        "labels": labels,
    }


def _sources(found, modality="optical"):
    """Source (x, y) of every augmented pixel, after the transform alone."""
    transform = found[f"{modality}_transform"].double()
    height, width = found[modality].shape[-2:]
    pixels = torch.cat([_coordinates(height, width), torch.ones(1, height, width)]).flatten(1).double()
    return (torch.linalg.inv(transform) @ pixels)[:, :2].unflatten(-1, (height, width))


@pytest.mark.parametrize("augmentation", [PairAugmentation(None), PairAugmentation(AugmentationSettings()).eval()])
def test_identity_yields_the_same_keys(augmentation):
    batch = _batch()
    batch["labels"][0, 0, 0] = IGNORE_INDEX
    batch["elevation_valid"][1, 3, 4] = False
    found = augmentation(batch)
    assert set(found) == set(PairAugmentation(AugmentationSettings())(batch))
    assert found["optical"] is batch["optical"]
    assert found["optical_labels"].equal(batch["labels"])
    assert found["elevation_labels"][1, 3, 4] == IGNORE_INDEX
    assert (found["elevation_labels"] != batch["labels"]).sum() == 1
    assert found["optical_transform"].equal(torch.eye(3).repeat(3, 1, 1))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), height=st.sampled_from([SIZE, 18]))
def test_exact_geometry_moves_pixels_untouched(seed, height):
    torch.manual_seed(seed)
    batch = _batch(6, height)
    found = PairAugmentation(_settings(resample_probability=0.0))(batch)
    assert found["optical_valid"].all()
    torch.testing.assert_close(found["optical"].double(), _sources(found), atol=1e-5, rtol=0)
    x, y = found["optical"].long().unbind(1)
    assert found["optical_labels"].equal(batch["labels"][torch.arange(6)[:, None, None], y, x])
    assert found["optical"].equal(found["optical"].round())


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), height=st.sampled_from([SIZE, 18]))
def test_free_geometry_agrees_with_its_transform(seed, height):
    torch.manual_seed(seed)
    batch = _batch(4, height)
    found = PairAugmentation(_settings())(batch)
    sources = _sources(found)
    limit = torch.tensor([SIZE - 1, height - 1])[:, None, None]
    inside = ((sources >= 0) & (sources <= limit)).all(dim=1)
    assert found["optical_valid"][inside].all()
    wrong = (found["optical"] - sources).abs().amax(dim=1)
    assert wrong[inside].max() < 1e-3
    far = ((sources < -1) | (sources > limit + 1)).any(dim=1)
    assert not found["optical_valid"][far].any()
    assert found["optical"].movedim(1, -1)[far].eq(0).all()
    assert found["optical_labels"][far].eq(IGNORE_INDEX).all()


def test_labels_follow_the_nearest_pixel():
    torch.manual_seed(1)
    batch = _batch(8)
    found = PairAugmentation(_settings())(batch)
    sources = _sources(found)
    # Rounding may fall either way on a half.
    clear = ((sources - sources.floor() - 0.5).abs() > 1e-3).all(dim=1) & found["optical_valid"]
    x, y = sources.round().long().clamp(0, SIZE - 1).unbind(1)
    expected = batch["labels"][torch.arange(8)[:, None, None], y, x]
    assert clear.float().mean() > 0.5
    assert found["optical_labels"][clear].equal(expected[clear])


def test_values_of_invalid_pixels_never_bleed():
    torch.manual_seed(0)
    batch = _batch(6)
    hole = torch.zeros(6, SIZE, SIZE, dtype=torch.bool)
    hole[:, 8:14, 5:20] = True
    batch["optical"] = torch.full((6, 2, SIZE, SIZE), 3.0).masked_fill(hole[:, None], 0.0)
    batch["optical_valid"] = ~hole
    found = PairAugmentation(_settings(scale=(0.6, 1.6), rotation_deg=90))(batch)
    kept = found["optical_valid"]
    values = found["optical"].movedim(1, -1)
    torch.testing.assert_close(values[kept], torch.full_like(values[kept], 3.0))
    assert values[~kept].eq(0).all()
    assert found["optical_labels"][~kept].eq(IGNORE_INDEX).all()
    x, y = _sources(found).round().long().clamp(0, SIZE - 1).unbind(1)
    agrees = kept == ~hole[torch.arange(6)[:, None, None], y, x]
    assert agrees[:, 4:-4, 4:-4].float().mean() > 0.9


def test_radiometry_leaves_invalid_pixels_and_blurs_over_valid_ones_only():
    torch.manual_seed(0)
    batch = _batch()
    batch["optical_valid"][:, :, :9] = False
    batch["optical"] = torch.full((3, 2, SIZE, SIZE), 2.0).masked_fill(~batch["optical_valid"][:, None], 0.0)
    blur = CALM.model_copy(update={"blur_sigma_px": 2.0, "blur_probability": 1.0})
    still = {"flip": False, "quarter_turn": False, "resample_probability": 0.0}
    found = PairAugmentation(_settings(optical=blur, **still))(batch)["optical"]
    torch.testing.assert_close(found, batch["optical"])
    found = PairAugmentation(_settings(optical=STRONG, **still))(batch)["optical"]
    assert found[..., :9].eq(0).all()
    assert found[..., 9:].ne(2.0).any()
    assert found.isfinite().all()


def test_curve_keeps_order_and_zero():
    torch.manual_seed(0)
    curve = CALM.model_copy(update={"curve": 0.5})
    still = {"flip": False, "quarter_turn": False, "resample_probability": 0.0}
    ramp = torch.linspace(-9, 9, SIZE).expand(5, 1, SIZE, SIZE)
    batch = _batch(5) | {"optical": ramp}
    found = PairAugmentation(_settings(optical=curve, **still))(batch)["optical"]
    assert (found.diff(dim=-1) > 0).all()
    assert (found.sign() == ramp.sign()).all()
    assert not torch.allclose(found, ramp, atol=0.1)


def test_decoupled_geometry_differs_and_coupled_does_not():
    torch.manual_seed(0)
    decoupled = PairAugmentation(_settings())(_batch())
    assert not torch.allclose(decoupled["optical_transform"], decoupled["elevation_transform"])
    coupled = PairAugmentation(_settings(decoupled=False))(_batch())
    for key in ("", "_valid", "_labels", "_transform"):
        assert coupled[f"optical{key}"].equal(coupled[f"elevation{key}"])


def test_coupled_radiometry_is_still_drawn_for_each_modality():
    torch.manual_seed(0)
    found = PairAugmentation(_settings(decoupled=False, optical=STRONG, elevation=STRONG))(_batch())
    assert found["optical_labels"].equal(found["elevation_labels"])
    assert not torch.allclose(found["optical"], found["elevation"])


def test_a_seed_reproduces_a_call():
    def call(seed):
        torch.manual_seed(seed)
        return PairAugmentation(AugmentationSettings())(_batch())

    first, again, other = call(3), call(3), call(4)
    assert all(first[key].equal(again[key]) for key in first)
    assert not first["optical"].equal(other["optical"])


def test_inputs_are_not_changed():
    torch.manual_seed(0)
    batch = _batch()
    before = {key: value.clone() for key, value in batch.items()}
    PairAugmentation(AugmentationSettings(optical=STRONG, resample_probability=1.0))(batch)
    assert all(batch[key].equal(before[key]) for key in batch)


def test_one_modality_alone():
    batch = {key: value for key, value in _batch().items() if not key.startswith("optical")}
    found = PairAugmentation(AugmentationSettings())(batch)
    assert set(found) == {"elevation", "elevation_valid", "elevation_labels", "elevation_transform"}


def test_errors():
    with pytest.raises(ValueError, match="expected one of optical, elevation in the batch, found labels"):
        PairAugmentation(None)({"labels": torch.zeros(1, 2, 2)})
    with pytest.raises(ValueError, match=r"expected optical \(B, C, H, W\).*\(3, 24, 23\)"):
        PairAugmentation(None)(_batch() | {"labels": torch.zeros(3, SIZE, SIZE - 1)})
    with pytest.raises(ValidationError, match="scale must be two numbers above 0, the smaller first"):
        AugmentationSettings(scale=(1.2, 0.8))
