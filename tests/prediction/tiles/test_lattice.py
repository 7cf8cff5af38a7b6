import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocrodino.geo.rasters.grid import round_up
from geocrodino.prediction.tiles.lattice import TileLattice, blocks, probability_bytes


@st.composite
def lattices(draw):
    stride = draw(st.sampled_from([1, 4, 16]))
    core = stride * draw(st.integers(1, 6))
    margin = stride * draw(st.integers(0, 4))
    ramp = draw(st.integers(0, min(margin, core // 2)))
    shape = (draw(st.integers(1, 150)), draw(st.integers(1, 150)))
    return TileLattice(shape, core, margin, ramp, stride)


@settings(deadline=None, max_examples=40)
@given(lattices())
def test_cores_cover_every_pixel_and_reads_are_multiples_of_the_stride(lattice):
    seen = np.zeros(lattice.shape, int)
    for index in np.ndindex(*lattice.count):
        r0, r1, c0, c1 = lattice.read_window(index)
        assert (r1 - r0) % lattice.stride_px == 0
        assert (c1 - c0) % lattice.stride_px == 0
        assert r0 % lattice.stride_px == 0
        a0, a1, b0, b1 = lattice.support(index)
        assert a0 < a1
        assert b0 < b1
        assert r0 <= a0
        assert a1 <= r1
        assert c0 <= b0
        assert b1 <= c1
        seen[index[0] * lattice.core_px : (index[0] + 1) * lattice.core_px,
             index[1] * lattice.core_px : (index[1] + 1) * lattice.core_px] += 1  # fmt: skip
    assert (seen == 1).all()


@settings(deadline=None, max_examples=40)
@given(lattices(), st.data())
def test_tiles_are_those_whose_support_meets_the_window(lattice, data):
    height, width = lattice.shape
    r0 = data.draw(st.integers(0, height - 1))
    c0 = data.draw(st.integers(0, width - 1))
    window = (r0, data.draw(st.integers(r0 + 1, height)), c0, data.draw(st.integers(c0 + 1, width)))
    expected = []
    for index in np.ndindex(*lattice.count):
        a0, a1, b0, b1 = lattice.support(index)
        if a0 < window[1] and window[0] < a1 and b0 < window[3] and window[2] < b1:
            expected.append(index)
    assert lattice.tiles(window) == expected


def test_bytes_of_a_tile():
    lattice = TileLattice((100, 300), core_px=64, margin_px=32, ramp_px=16, stride_px=16)
    assert lattice.tile_bytes(probability_bytes(5)) == np.zeros((6, 96, 96), np.float32).nbytes
    assert lattice.tile_shape == (128, 128)  # of 64 px and 32 px on each side


def test_bytes_of_a_tile_that_is_larger_than_the_scene():
    lattice = TileLattice((100, 300), core_px=4096, margin_px=32, ramp_px=0, stride_px=16)
    assert lattice.tile_shape == (112 + 64, 304 + 64)  # the scene in whole strides
    assert lattice.tile_bytes(probability_bytes(5)) == np.zeros((6, 112, 304), np.float32).nbytes


def test_exact_margin_is_the_radius_rounded_up_to_the_stride():
    lattice = TileLattice.exact((100, 300), core_px=64, stride_px=16, receptive_field_px=151)
    assert (lattice.margin_px, lattice.ramp_px, lattice.count) == (160, 0, (2, 5))
    assert lattice.read_window((0, 0)) == (-160, 224, -160, 224)
    assert lattice.read_window((1, 4)) == (-96, 288, 96, 480)  # beyond the scene, as large as the others


def test_a_scene_smaller_than_a_core_has_one_small_tile():
    lattice = TileLattice.blended((7, 5), core_px=512, stride_px=16, margin_px=32)
    assert lattice.count == (1, 1)
    assert lattice.read_window((0, 0)) == (-32, 48, -32, 48)
    assert lattice.support((0, 0)) == (0, 7, 0, 5)


@pytest.mark.parametrize(
    ("core", "margin", "ramp", "text"),
    [
        (20, 16, 0, "multiples of the stride 16 px"),
        (32, 8, 0, "multiples"),
        (32, 32, 17, "ramp 17 px"),
        (0, 0, 0, "core 0"),
    ],
)
def test_lattices_out_of_phase_are_refused(core, margin, ramp, text):
    with pytest.raises(ValueError, match=text):
        TileLattice((10, 10), core, margin, ramp, 16)


def test_windows_outside_the_scene_are_refused():
    with pytest.raises(ValueError, match="outside the scene of 10 x 10 px"):
        TileLattice((10, 10), 16, 0, 0, 16).tiles((0, 11, 0, 1))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.none() | st.integers(1, 90))
def test_blocks_cover_every_pixel_once(height, width, block, band):
    seen = np.zeros((height, width), int)
    for r0, r1, c0, c1 in blocks((height, width), block, band):
        assert 0 < r1 - r0 <= block
        assert 0 < c1 - c0 <= block
        seen[r0:r1, c0:c1] += 1
    assert (seen == 1).all()


def test_blocks_go_down_the_grid_in_bands():
    assert blocks((20, 40), 10, 20)[:4] == [(0, 10, 0, 10), (0, 10, 10, 20), (10, 20, 0, 10), (10, 20, 10, 20)]


def test_round_up():
    assert [round_up(v, 16) for v in (0, 1, 16, 17)] == [0, 16, 16, 32]
