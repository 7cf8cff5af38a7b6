"""Values of an image beside those of the training, and the factor between them."""

from __future__ import annotations

import numpy as np
import pytest

from geocrodino.modalities.recipe import Channel
from geocrodino.modalities.value_ranges import ChannelValues, is_other_scale, likely_factor


def channel(low=10, high=250, mean=100, std=50):
    return Channel(name="red", unit="digital number", low=low, high=high, mean=mean, std=std)


def sampled(values, of=None):
    return ChannelValues.of(of or channel(), np.asarray(values, np.float32))


def test_values_by_hand():
    found = sampled(np.arange(0, 301))
    assert (found.low, found.high, found.mean) == (3, 297, 150)
    assert found.outside == 60 / 301  # 0 to 9 and 251 to 300
    assert not found.is_far
    assert found.words() == "red 10 to 250 (mean 100), found 3 to 297"


@pytest.mark.parametrize(
    ("values", "far"),
    [
        (np.linspace(20, 200, 100), False),
        (np.linspace(0, 60, 100), False),  # dark: 17 % below the range
        (np.linspace(0, 40, 100), True),  # 25 % below it
        (np.full(100, 249), False),  # 3 standard deviations, less a bit
    ],
)
def test_what_deserves_a_warning(values, far):
    assert sampled(values).is_far == far


def test_a_mean_far_away_deserves_a_warning():
    narrow = channel(low=0, high=255, mean=20, std=10)
    assert sampled(np.full(9, 51), narrow).is_far
    assert not sampled(np.full(9, 50), narrow).is_far


EIGHT_BITS = np.linspace(12, 245, 500)


@pytest.mark.parametrize(
    ("trained", "dtype", "values", "of", "other", "factor"),
    [
        ("uint8", "uint8", EIGHT_BITS, channel(), False, None),
        ("uint8", "float32", EIGHT_BITS, channel(), False, None),
        ("uint8", "uint16", EIGHT_BITS * 257, channel(), True, "1/257"),
        (None, "uint16", EIGHT_BITS * 257, channel(), True, "1/257"),
        ("uint8", "uint16", EIGHT_BITS * 10_000 / 255, channel(), True, None),
        ("uint8", "float32", EIGHT_BITS / 255, channel(), True, "255"),
        ("uint8", "float32", EIGHT_BITS / 255, channel(low=0), True, "255"),
        ("uint16", "uint8", EIGHT_BITS, channel(3000, 64_000, 30_000, 9_000), True, "257"),
        ("uint16", "float64", EIGHT_BITS / 255, channel(3000, 64_000, 30_000, 9_000), True, "65535"),
        ("float32", "uint8", EIGHT_BITS, channel(0.05, 0.95, 0.4, 0.2), True, "1/255"),
        ("float32", "uint16", EIGHT_BITS * 257, channel(0.05, 0.95, 0.4, 0.2), True, "1/65535"),
        ("uint16", "uint8", EIGHT_BITS, channel(0, 9000, 3000, 900), True, None),
        ("uint8", "uint8", np.full(9, 20), channel(), False, None),
        ("uint8", "uint16", np.linspace(98, 102, 50), channel(), False, None),  # a lake: little contrast is no scale
    ],
)
def test_scales_and_factors(trained, dtype, values, of, other, factor):
    bands = [sampled(values, of), sampled(values[::-1], of)]
    assert is_other_scale(bands, trained, dtype) == other
    assert likely_factor(bands, trained, dtype) == factor


def test_one_band_that_fits_is_no_other_scale():
    assert not is_other_scale([sampled(EIGHT_BITS), sampled(EIGHT_BITS * 257)], "uint8", "uint16")
