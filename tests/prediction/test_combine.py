import math

import numpy as np
import pytest
from helpers.small_scenes import SCHEME
from hypothesis import given
from hypothesis import strategies as st

from geocrodino.maps.files import encode_fractions
from geocrodino.prediction.backends.protocol import most_likely
from geocrodino.prediction.combine import (
    CombinedPrediction,
    Prediction,
    class_indices,
    combine,
    decision_codes,
    layer_bands,
    layer_values,
)

OPTICAL, ELEVATION = (0.6, 0.3, 0.1), (0.15, 0.05, 0.8)
DECIDED_BY = decision_codes(("optical", "elevation"))
EVEN = {"optical": 0.5, "elevation": 0.5}
ALL_LAYERS = ("probabilities", "confidence", "entropy", "disagreement")


def answer(probabilities, valid):
    """The same probabilities at each pixel of a row."""
    values = np.repeat(np.array(probabilities, np.float32)[:, None, None], len(valid), axis=2)
    return Prediction(values, np.array([valid]))


def four_pixels(weight):
    """Both have data, optical alone, elevation alone, neither."""
    return combine(
        {
            "optical": answer(OPTICAL, [True, True, False, False]),
            "elevation": answer(ELEVATION, [True, False, True, False]),
        },
        weight,
    )


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_most_likely_class_is_the_first_of_the_largest(count, seed):
    probabilities = np.random.default_rng(seed).integers(0, 4, (count, 5, 7)).astype(np.float32)  # many are equal
    before = probabilities.copy()
    found = most_likely(probabilities)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, probabilities.argmax(axis=0))
    np.testing.assert_array_equal(probabilities, before)


def test_both_are_averaged_and_one_alone_decides():
    combined = four_pixels({"optical": 0.75, "elevation": 0.25})
    np.testing.assert_allclose(combined.probabilities[:, 0, 0], (0.4875, 0.2375, 0.275), rtol=1e-6)
    np.testing.assert_array_equal(combined.probabilities[:, 0, 1], np.float32(OPTICAL))
    np.testing.assert_array_equal(combined.probabilities[:, 0, 2], np.float32(ELEVATION))
    assert combined.probabilities.dtype == combined.disagreement.dtype == np.float32
    assert combined.valid.tolist() == [[True, True, True, False]]
    assert combined.decided.tolist() == [[3, 1, 2, 255]]
    assert combined.decided.dtype == np.uint8
    assert combined.compared.tolist() == [[True, False, False, False]]
    assert class_indices(combined).tolist() == [[0, 0, 2, 255]]


def test_weights_turn_the_class():
    combined = four_pixels({"optical": 0.25, "elevation": 0.75})
    np.testing.assert_allclose(combined.probabilities[:, 0, 0], (0.2625, 0.1125, 0.625), rtol=1e-6)
    assert class_indices(combined).tolist() == [[2, 0, 2, 255]]


@pytest.mark.parametrize("weight", [{"optical": 3, "elevation": 1}, {"optical": 0.3, "elevation": 0.1}])
def test_only_the_ratio_of_weights_counts(weight):
    expected = four_pixels({"optical": 0.75, "elevation": 0.25})
    np.testing.assert_allclose(four_pixels(weight).probabilities, expected.probabilities, rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "both"), [({"optical": 1, "elevation": 0}, OPTICAL), ({"optical": 0, "elevation": 1}, ELEVATION)]
)
def test_a_modality_without_weight_decides_where_it_alone_has_data(weight, both):
    combined = four_pixels(weight)
    np.testing.assert_array_equal(combined.probabilities[:, 0, 0], np.float32(both))
    assert combined.decided.tolist() == [[3, 1, 2, 255]]
    assert class_indices(combined)[0, 1:].tolist() == [0, 2, 255]


def test_what_is_said_where_nothing_is_valid_means_nothing():
    optical, elevation = answer(OPTICAL, [True, False, False]), answer(ELEVATION, [False, True, False])
    for said in (optical, elevation):
        said.probabilities[:, ~said.valid] = np.nan
    combined = combine({"optical": optical, "elevation": elevation}, EVEN)
    assert class_indices(combined).tolist() == [[0, 2, 255]]
    found = layer_values(ALL_LAYERS, combined)
    assert (found[:, 0, 2] == 255).all()
    assert found[:3, 0, :2].tolist() == [[152, 38], [76, 13], [25, 203]]


@pytest.mark.parametrize("modality", ["optical", "elevation"])
def test_one_branch_passes_unchanged(modality):
    only = answer(OPTICAL, [True, False])
    combined = combine({modality: only}, {modality: 0.0})
    assert combined.probabilities is only.probabilities
    assert combined.decided.tolist() == [[DECIDED_BY[modality], 255]]
    assert class_indices(combined).tolist() == [[0, 255]]
    assert not combined.compared.any()


def test_the_order_in_which_answers_are_given_does_not_matter():
    optical, elevation = answer(OPTICAL, [True]), answer(ELEVATION, [True])
    weight = {"optical": 0.75, "elevation": 0.25}
    first = combine({"optical": optical, "elevation": elevation}, weight)
    second = combine({"elevation": elevation, "optical": optical}, weight)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    np.testing.assert_array_equal(first.decided, second.decided)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_pooled_probabilities_stay_probabilities(seed, share):
    rng = np.random.default_rng(seed)
    predictions = {
        m: Prediction(rng.dirichlet(np.ones(4), (3, 5)).transpose(2, 0, 1).astype(np.float32), rng.random((3, 5)) < 0.7)
        for m in ("optical", "elevation")
    }
    combined = combine(predictions, {"optical": share, "elevation": 1 - share})
    np.testing.assert_allclose(combined.probabilities.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(combined.valid, predictions["optical"].valid | predictions["elevation"].valid)
    np.testing.assert_array_equal(combined.decided == 3, combined.compared)
    for modality, code in DECIDED_BY.items():
        if modality != "both":
            alone = combined.decided == code
            np.testing.assert_array_equal(
                combined.probabilities[:, alone], predictions[modality].probabilities[:, alone]
            )
    values = layer_values(("disagreement", "entropy"), combined)
    np.testing.assert_array_equal(values[0] == 255, ~combined.compared)
    np.testing.assert_array_equal(values[1] == 255, ~combined.valid)


def combined_of(*pixels):
    values = np.array(pixels, np.float32).T[:, None, :]
    valid = np.ones(values.shape[1:], bool)
    return CombinedPrediction(
        values, valid, np.full(valid.shape, 3, np.uint8), np.zeros(valid.shape, np.float32), valid
    )


def test_layers_by_hand():
    values = layer_values(ALL_LAYERS, four_pixels({"optical": 0.75, "elevation": 0.25}))
    assert values.dtype == np.uint8
    assert values.shape == (6, 1, 4)
    pooled, alone = (0.4875, 0.2375, 0.275), ELEVATION
    assert values[:3, 0, 0].tolist() == [124, 60, 70]  # of 254: 123.8, 60.3, 69.9
    assert values[:3, 0, 2].tolist() == [38, 13, 203]
    assert values[3, 0].tolist() == [124, 152, 203, 255]
    for pixel, of in ((0, pooled), (2, alone)):
        bits = -sum(p * math.log(p) for p in of) / math.log(3)
        assert values[4, 0, pixel] == round(254 * bits)
    assert values[5, 0].tolist() == [178, 255, 255, 255]  # (0.45 + 0.25 + 0.7) / 2 = 0.7


def test_entropy_runs_from_certain_to_even():
    third = 1 / 3
    values = layer_values(("entropy",), combined_of((1, 0, 0), (0.5, 0.5, 0), (third, third, third)))
    assert values[0, 0].tolist() == [0, 160, 254]  # log 2 / log 3 = 0.63093
    assert layer_values(("entropy",), combined_of((0.5, 0.5), (0, 1)))[0, 0].tolist() == [254, 0]


def test_opposite_certainties_disagree_wholly_and_equal_ones_not_at_all():
    certain = answer((1, 0, 0), [True])
    for other, expected in (((0, 0, 1), 254), ((1, 0, 0), 0), ((0.5, 0.5, 0), 127)):
        combined = combine({"optical": certain, "elevation": answer(other, [True])}, EVEN)
        assert layer_values(("disagreement",), combined).tolist() == [[[expected]]]


def test_equal_probabilities_go_to_the_first_class():
    assert class_indices(combined_of((0.4, 0.4, 0.2), (0.2, 0.4, 0.4))).tolist() == [[0, 1]]


def test_fractions_as_bytes():
    fractions = np.array([[[0, 1, 1 / 254, 0.00196, 0.00198, 1.0000001, -1e-9, np.nan]]], np.float32)
    valid = np.array([[True] * 7 + [False]])
    # Half of a step is 0.0019685; rounding errors beyond 0 and 1 are cut.
    assert encode_fractions(fractions, valid).tolist() == [[[0, 254, 1, 0, 1, 254, 0, 255]]]


def test_names_of_bands_follow_the_order_asked_for():
    assert layer_bands(("entropy", "probabilities", "confidence"), SCHEME) == (
        "entropy", "probability of water", "probability of grass", "probability of roof", "confidence",
    )  # fmt: skip
    combined = four_pixels(EVEN)
    turned = layer_values(("disagreement", "confidence"), combined)
    np.testing.assert_array_equal(turned, layer_values(("confidence", "disagreement"), combined)[::-1])
    assert layer_bands((), SCHEME) == ()
