import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocrodino.prediction.tiles.lattice import TileLattice
from geocrodino.prediction.tiles.stitching import axis_weights, stitch


@st.composite
def lattices(draw):
    stride = draw(st.sampled_from([1, 4, 16]))
    core = stride * draw(st.integers(1, 6))
    margin = stride * draw(st.integers(0, 4))
    ramp = draw(st.integers(0, min(margin, core // 2)))
    shape = (draw(st.integers(1, 150)), draw(st.integers(1, 150)))
    return TileLattice(shape, core, margin, ramp, stride)


def supports(lattice, values):
    """Tiles cut out of a field."""

    def source(index):
        r0, r1, c0, c1 = lattice.support(index)
        return values[:, r0:r1, c0:c1]

    return source


@settings(deadline=None, max_examples=40)
@given(lattices(), st.integers(0, 1))
def test_weights_add_up_to_one_everywhere(lattice, axis):
    size = lattice.shape[axis]
    total = sum(axis_weights(lattice, axis, i, 0, size).astype(float) for i in range(lattice.count[axis]))
    np.testing.assert_allclose(total, 1, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(lattices(), st.integers(0, 1))
def test_weights_live_on_the_support(lattice, axis):
    size = lattice.shape[axis]
    for i in range(lattice.count[axis]):
        start, stop = lattice.support((i, 0) if axis == 0 else (0, i))[2 * axis : 2 * axis + 2]
        weights = axis_weights(lattice, axis, i, 0, size)
        assert (weights >= 0).all()
        assert not weights[:start].any()
        assert not weights[stop:].any()


def test_the_outer_ring_of_a_scene_has_full_weight():
    lattice = TileLattice((64, 64), 32, 16, 16, 16)
    assert axis_weights(lattice, 0, 0, 0, 1).tolist() == [1.0]
    assert axis_weights(lattice, 0, 1, 63, 64).tolist() == [1.0]


def test_a_ramp_is_linear_and_one_half_at_the_edge():
    lattice = TileLattice((8, 8), 4, 2, 2, 1)
    assert axis_weights(lattice, 0, 0, 0, 8).tolist() == [1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0]
    assert axis_weights(lattice, 0, 1, 0, 8).tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]


@settings(deadline=None, max_examples=40)
@given(lattices(), st.data())
def test_a_field_that_all_tiles_agree_on_comes_back_in_any_window(lattice, data):
    height, width = lattice.shape
    values = np.random.default_rng(0).random((2, height, width), np.float32)
    whole = stitch(lattice, (0, height, 0, width), supports(lattice, values))
    np.testing.assert_allclose(whole, values, atol=1e-6)
    r0 = data.draw(st.integers(0, height - 1))
    c0 = data.draw(st.integers(0, width - 1))
    r1, c1 = data.draw(st.integers(r0 + 1, height)), data.draw(st.integers(c0 + 1, width))
    part = stitch(lattice, (r0, r1, c0, c1), supports(lattice, values))
    np.testing.assert_array_equal(part, whole[:, r0:r1, c0:c1])


@settings(deadline=None, max_examples=40)
@given(lattices())
def test_without_ramps_pixels_are_copied_bit_for_bit(lattice):
    lattice = TileLattice(lattice.shape, lattice.core_px, lattice.margin_px, 0, lattice.stride_px)
    values = np.random.default_rng(1).random((1, *lattice.shape), np.float32)
    window = (0, lattice.shape[0], 0, lattice.shape[1])
    np.testing.assert_array_equal(stitch(lattice, window, supports(lattice, values)), values)


def test_a_tile_of_the_wrong_shape_is_refused():
    lattice = TileLattice((8, 8), 16, 0, 0, 16)
    with pytest.raises(ValueError, match=r"tile \(0, 0\): expected \(B, 8, 8\), found \(3, 4, 4\)"):
        stitch(lattice, (0, 8, 0, 8), lambda index: np.zeros((3, 4, 4), np.float32))
