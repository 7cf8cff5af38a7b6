"""Values of one view as another sees them."""

from __future__ import annotations

import pytest
import torch
from helpers.rounding import rounding

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.losses.alignment import carry
from geocrodino.settings.augmentation import AugmentationSettings, RadiometrySettings

SIDE = 12
PLAIN = RadiometrySettings(
    gain=0, offset_std=0, band_gain=0, band_offset_std=0, curve=0, noise_std=0, blur_sigma_px=0, blur_probability=0
)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _same(batch=1):
    return torch.eye(3).repeat(batch, 1, 1)


def _by_position(values):
    """Largest change of interpolated values by rounding of positions: products of three 3 x 3 matrices, in pixels."""
    steepest = 2 * float(values.abs().max())  # between neighbours
    return steepest * rounding(SIDE, terms=3 * 9)


def _shift(x, y=0.0):
    moved = _same()
    moved[:, 0, 2], moved[:, 1, 2] = x, y
    return moved


def _augmented(values, seed=0, **settings):
    """A view of the values, its transform, and which of its pixels lie in the values."""
    valid = torch.ones(values.shape[0], *values.shape[2:], dtype=torch.bool)
    torch.manual_seed(seed)
    batch = PairAugmentation(AugmentationSettings(optical=PLAIN, **settings))({
        "optical": values,
        "optical_valid": valid,
        "labels": valid.long(),
    })  # fmt: skip
    return batch["optical"], batch["optical_transform"], batch["optical_valid"]


def test_the_same_view_gives_the_same_values():
    values = _random(2, 3, SIDE, SIDE)
    transform = _augmented(values, resample_probability=1)[1]
    for t in (_same(2), transform):
        found, seen = carry(values, t, t)
        torch.testing.assert_close(found, values, rtol=0, atol=_by_position(values))
        assert seen.all()


def test_quarter_turns_and_mirrors_are_exact():
    values = _random(32, 2, SIDE, SIDE).double()
    view, transform, _ = _augmented(values, resample_probability=0)
    assert len({tuple(t.flatten().tolist()) for t in transform}) == 8
    for source, target, given, expected in (
        (_same(32), transform, values, view),
        (transform, _same(32), view, values),
    ):
        found, seen = carry(given, source, target)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert seen.all()


def test_from_one_turned_view_into_another():
    values = _random(16, 2, SIDE, SIDE).double()
    first, there, _ = _augmented(values, seed=1, resample_probability=0)
    second, here, _ = _augmented(values, seed=2, resample_probability=0)
    found, seen = carry(first, there, here)
    torch.testing.assert_close(found, second, rtol=0, atol=1e-12)
    assert seen.all()


def test_patches_that_are_not_square():
    values = _random(16, 1, 6, 10)
    view, transform, _ = _augmented(values, resample_probability=0)
    found, seen = carry(values, _same(16), transform)
    torch.testing.assert_close(found, view, rtol=0, atol=_by_position(values))
    assert seen.all()


def test_a_free_view_is_followed():
    """Both look up between pixels in the same way."""
    values = _random(8, 2, SIDE, SIDE)
    view, transform, valid = _augmented(values, resample_probability=1)
    found, seen = carry(values, _same(8), transform)
    inside = seen & valid
    assert inside.float().mean() > 0.6
    torch.testing.assert_close(
        found.movedim(1, -1)[inside], view.movedim(1, -1)[inside], rtol=0, atol=2e-3
    )  # positions are rounded to a ten-thousandth of a pixel


def ramp(transform, slope=(2.0, -3.0), size=SIDE):
    """A plane over the common frame as a view with a transform sees it."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)]).flatten(1).double()
    x, y, _ = (torch.linalg.inv(transform.double()) @ pixels).unbind(dim=1)
    return (slope[0] * x + slope[1] * y).reshape(-1, 1, size, size)


def test_the_inverse_of_an_augmentation():
    """There and back again, wherever the way led through pixels that there are."""
    transform = _augmented(torch.zeros(8, 1, SIDE, SIDE), resample_probability=1)[1]
    plane = ramp(_same(8))
    there, seen_there = carry(plane, _same(8), transform)
    back, seen_back = carry(torch.cat([there, seen_there[:, None].to(there)], dim=1), transform, _same(8))
    kept = seen_back & (back[:, 1] > 0.999)
    assert kept.float().mean() > 0.4
    torch.testing.assert_close(back[:, 0][kept], plane[:, 0][kept], rtol=0, atol=2e-3)


def test_a_plane_is_carried_exactly():
    """Half a pixel off, it would be wrong by half of its slope."""
    transforms = _augmented(torch.zeros(8, 1, SIDE, SIDE), resample_probability=1)[1]
    for source, target in ((_same(8), transforms), (transforms, _same(8)), (transforms, transforms.flip(0))):
        found, seen = carry(ramp(source), source, target)
        assert seen.float().mean() > 0.4
        torch.testing.assert_close(found[:, 0][seen], ramp(target)[:, 0][seen], rtol=0, atol=1e-3)


def test_half_a_pixel_to_the_right():
    values = torch.tensor([0.0, 10, 20, 40]).expand(1, 1, 4, 4)
    found, seen = carry(values, _same(), _shift(0.5))
    # Column 0 of the view shows column -0.5: it lies outside, and gets the border.
    assert found[0, 0, 1].tolist() == [0, 5, 15, 30]
    assert seen[0, 1].tolist() == [False, True, True, True]


def test_what_is_seen():
    values = torch.ones(1, 1, 4, 4)
    assert carry(values, _same(), _shift(2, -1))[1][0].int().tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
    ]  # fmt: skip
    assert not carry(values, _same(), _shift(4))[1].any()
    assert carry(values, _shift(2, -1), _shift(2, -1))[1].all()


def test_each_image_has_its_own_view():
    values = _random(2, 1, 4, 4)
    target = torch.cat([_same(), _shift(1)])
    found, seen = carry(values, _same(2), target)
    assert found[0].equal(values[0])
    torch.testing.assert_close(found[1, :, :, 1:], values[1, :, :, :-1])
    assert seen[0].all()
    assert not seen[1, :, 0].any()


def test_gradients_reach_the_values():
    values = _random(1, 2, 4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: carry(v, _same(), _shift(0.3, 0.6))[0], (values,))


def test_half_precision_and_autocast():
    values = 100 * _random(1, 2, SIDE, SIDE)
    expected = carry(values.half().float(), _same(), _shift(0.25))[0]
    found = carry(values.half(), _same(), _shift(0.25))[0]
    assert found.dtype == torch.float32
    assert found.equal(expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert carry(values.half(), _same(), _shift(0.25))[0].equal(expected)
    assert carry(values.double(), _same(), _shift(0.25))[0].dtype == torch.float64


def test_transforms_must_fit():
    values = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"expected transforms \(2, 3, 3\), found \(1, 3, 3\)"):
        carry(values, _same(1), _same(2))
    with pytest.raises(ValueError, match=r"expected transforms \(2, 3, 3\), found \(2, 2, 3\)"):
        carry(values, _same(2), _same(2)[:, :2])
