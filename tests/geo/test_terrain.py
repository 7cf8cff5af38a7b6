"""Height above ground, slope, topographic position: shapes whose answer is known, holes, and no window dependence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocrodino.errors import HeightError
from geocrodino.geo import terrain
from geocrodino.geo.rasters.window import Window
from geocrodino.geo.terrain import ground_surface, position_halo_px, slope_deg, topographic_position
from geocrodino.settings.ground import GroundFilter

SMALL = GroundFilter(radii_m=(1.0, 3.0, 8.0), fill_m=3.0)  # a halo of 38 px at 1 m keeps the arrays small


def above(surface, settings=SMALL, pixel=1.0, anchor=(0, 0)):
    return surface - ground_surface(surface.astype(np.float32), settings, pixel, anchor)


def tilted(shape, east, south, pixel=1.0):
    rows, cols = ((np.arange(n) + 0.5) * pixel for n in shape)
    return (50 + east * cols[None, :] + south * rows[:, None]).astype(np.float32)


def inner(values, settings=SMALL, pixel=1.0):
    halo = settings.halo_px(pixel)
    return values[halo:-halo, halo:-halo]


# --- ground ---------------------------------------------------------------------------------------------------------


def test_halo_by_hand():
    # Openings reach twice their radius, the filling four deviations, two cells for the refinement.
    assert SMALL.halo_px(1.0) == 2 * (1 + 3 + 8) + 4 * 3 + 2
    # 0.25 m pixels: cells of 4 pixels, the same in metres.
    assert SMALL.factor(0.25) == 4
    assert SMALL.halo_px(0.25) == 4 * SMALL.halo_px(1.0)
    assert SMALL.factor(0.3) == 3
    assert SMALL.factor(2.0) == 1


def test_too_coarse_pixels():
    with pytest.raises(HeightError) as caught:
        SMALL.halo_px(30.0)
    assert str(caught.value) == (
        "Height above ground needs a surface model that shows single objects: expected pixels of at most 5 m, "
        "found 30 m.\nUse absolute height instead (elevation.channels: [height, slope]), or give a ground raster."
    )


@pytest.mark.parametrize("pixel", [1.0, 0.5, 0.3, 2.0])
def test_a_flat_plane_has_nothing_above_it(pixel):
    surface = np.full((130, 130), 812.5, np.float32)
    np.testing.assert_allclose(above(surface, pixel=pixel), 0, atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(slope=st.floats(0, 0.149), angle=st.floats(0, 2 * math.pi))
def test_a_tilted_plane_is_ground(slope, angle):
    surface = tilted((100, 100), slope * math.cos(angle), slope * math.sin(angle))
    np.testing.assert_allclose(inner(above(surface)), 0, atol=2e-3)


def test_a_tilted_plane_of_small_pixels_is_ground_to_a_cell():
    # Cells of 4 px hold their lowest pixel: at most the rise over one cell too low.
    surface = tilted((400, 400), 0.1, 0.0, pixel=0.25)
    height = inner(above(surface, pixel=0.25), pixel=0.25)
    assert height.min() > -0.01
    assert height.max() < 0.1 * 1.0 + 0.01


@pytest.mark.parametrize("slope", [0.0, 0.05])
def test_a_box_building_has_its_height(slope):
    halo = GroundFilter().halo_px(1.0)
    size = 2 * halo + 76
    surface = tilted((size, size), slope, 0.0)
    building = np.zeros(surface.shape, bool)
    building[size // 2 - 15 : size // 2 + 15, size // 2 - 15 : size // 2 + 15] = True
    surface[building] += 8
    height, building = inner(above(surface, GroundFilter()), GroundFilter()), inner(building, GroundFilter())
    assert building.sum() == 900
    np.testing.assert_allclose(height[building], 8, atol=0.3)
    np.testing.assert_allclose(height[~building], 0, atol=0.05)


def test_holes_stay_holes_and_never_draw_the_ground_down():
    surface = np.full((130, 130), 400, np.float32)
    holes = np.random.default_rng(0).random(surface.shape) < 0.3
    holes[40:80, 40:80] = True  # wider than the reach of the filter
    surface[holes] = np.nan
    height = above(surface)
    assert (np.isnan(height) == holes).all()
    np.testing.assert_allclose(height[~holes], 0, atol=1e-3)


def test_a_building_beside_a_hole_keeps_its_height():
    surface = np.full((140, 140), 400, np.float32)
    surface[60:72, 60:72] += 8
    surface[60:72, 72:90] = np.nan
    np.testing.assert_allclose(above(surface)[60:72, 60:72], 8, atol=0.3)


def test_no_surface_no_ground():
    assert np.isnan(ground_surface(np.full((20, 20), np.nan, np.float32), SMALL, 1.0)).all()


@pytest.mark.parametrize("pixel", [1.0, 0.35])
def test_the_ground_does_not_depend_on_the_window(pixel):
    rng = np.random.default_rng(4)
    small = GroundFilter(radii_m=(1.0, 2.0), fill_m=1.0)
    surface = tilted((170, 180), 0.05, 0.02, pixel) + rng.gamma(0.5, 2, (170, 180)).astype(np.float32)
    surface[rng.random(surface.shape) < 0.05] = np.nan
    halo = small.halo_px(pixel)
    assert 2 * halo < 120
    whole = ground_surface(surface, small, pixel, (11, -5))

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 40), st.integers(0, 40), st.integers(2 * halo + 1, 130), st.integers(2 * halo + 1, 130))
    def check(r, c, height, width):
        part = ground_surface(surface[r : r + height, c : c + width], small, pixel, (11 + r, c - 5))
        mine = part[halo:-halo, halo:-halo]
        theirs = whole[r : r + height, c : c + width][halo:-halo, halo:-halo]
        assert mine.tobytes() == theirs.tobytes()

    check()


@pytest.mark.parametrize("pixel", [1.0, 0.35])
@pytest.mark.parametrize("trim", [0, 1, 7, 9, 20, 45])
def test_what_is_trimmed_is_all_that_is_lost(pixel, trim):
    rng = np.random.default_rng(5)
    small = GroundFilter(radii_m=(1.0, 2.0), fill_m=1.0)
    surface = tilted((101, 118), 0.05, 0.02, pixel) + rng.gamma(0.5, 2, (101, 118)).astype(np.float32)
    surface[rng.random(surface.shape) < 0.05] = np.nan
    kept = slice(trim, -trim or None)
    whole = ground_surface(surface, small, pixel, (11, -5))
    assert ground_surface(surface, small, pixel, (11, -5), trim).tobytes() == whole[kept, kept].tobytes()
    whole = topographic_position(surface, pixel, 6.0, (11, -5))
    assert topographic_position(surface, pixel, 6.0, (11, -5), trim).tobytes() == whole[kept, kept].tobytes()


# --- slope ----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.2, 30), st.floats(0.2, 30))
def test_slope_of_a_plane(east, south, wide, high):
    rows, cols = np.mgrid[:6, :7].astype(np.float64)
    surface = (east * cols * wide + south * rows * high).astype(np.float32)
    # At the edge the missing neighbour is replaced by the pixel itself: the same plane.
    np.testing.assert_allclose(
        slope_deg(surface, (wide, high)), math.degrees(math.atan(math.hypot(east, south))), atol=2e-2
    )


def test_slope_beside_missing_neighbours():
    surface = np.tile(np.arange(5, dtype=np.float32), (5, 1))
    surface[2, 2] = np.nan
    slope = slope_deg(surface, (1.0, 1.0))
    assert np.isnan(slope[2, 2])
    np.testing.assert_allclose(slope[~np.isnan(slope)], 45, atol=1e-4)
    assert np.isnan(slope).sum() == 1
    lonely = np.full((3, 3), np.nan, np.float32)
    lonely[1, 1] = 5
    assert np.isnan(slope_deg(lonely, (1.0, 1.0))).all()
    # Neighbours along one axis only: no slope, rather than a slope of half the truth.
    lonely[1] = 5
    assert np.isnan(slope_deg(lonely, (1.0, 1.0))).all()


# --- topographic position -------------------------------------------------------------------------------------------


def test_position_of_a_plane_is_zero_and_of_a_hollow_negative():
    ground = tilted((60, 60), 0.1, 0.2)
    reach = position_halo_px(1.0, 5.0)
    np.testing.assert_allclose(topographic_position(ground, 1.0, 5.0)[reach:-reach, reach:-reach], 0, atol=1e-4)
    ground = np.full((60, 60), 300, np.float32)
    ground[30, 30] = 297
    ground[:, 0] = np.nan
    position = topographic_position(ground, 1.0, 5.0)
    # The hollow is 3 m deep and weighs 1 / (2 pi 5^2) of its own surroundings.
    assert position[30, 30] == pytest.approx(-3 * (1 - 1 / (2 * math.pi * 25)), abs=5e-3)
    assert position[30, 32] > 0
    assert np.isnan(position[:, 0]).all()
    np.testing.assert_allclose(position[:10, 1:], 0, atol=1e-5)


@pytest.mark.parametrize(("pixel_m", "sigma_m"), [(2.0, 10.0), (0.5, 12.0)])
def test_position_does_not_depend_on_the_window(pixel_m, sigma_m):
    reach = position_halo_px(pixel_m, sigma_m)
    size = 2 * reach + 40
    ground = np.random.default_rng(0).normal(500, 20, (size, size)).astype(np.float32)
    whole = topographic_position(ground, pixel_m, sigma_m)
    part = topographic_position(ground[7:-8, 11:-9], pixel_m, sigma_m, anchor=(7, 11))
    inner = slice(reach, -reach)
    assert part[inner, inner].tobytes() == whole[7:-8, 11:-9][inner, inner].tobytes()


@pytest.mark.parametrize("pixel", [0.5, 1.0])
def test_the_ground_of_a_lone_tile_is_the_same_bytes_without_its_shortcut(pixel, monkeypatch):
    rng = np.random.default_rng(0)
    surface = np.full((330, 300), np.nan, np.float32)
    surface[130:190, 101:170] = 5 + rng.random((60, 69), np.float32)
    surface[150:165, 120:140] += 8
    surface[170:175, 120:125] = np.nan
    quick = ground_surface(surface, GroundFilter(), pixel, (3, 7))
    monkeypatch.setattr(terrain, "_box", lambda known: Window.of(known.shape))  # everything is filtered
    whole = ground_surface(surface, GroundFilter(), pixel, (3, 7))
    assert np.isfinite(whole).any()
    assert quick.tobytes() == whole.tobytes()


@pytest.mark.parametrize("pixel", [0.5, 1.0])
@pytest.mark.parametrize("side", [16, 40, 96])
def test_windows_beside_a_large_hole_have_the_ground_of_the_whole(pixel, side):
    """Some windows hold no ground, but surface that lies just within reach; others hold nothing at all."""
    rng = np.random.default_rng(0)
    surface = (100 + 3 * rng.random((192, 384))).astype(np.float32)
    surface[:, :200] = np.nan
    surface[60:130, 200:300] += 15  # a hall at the edge of the hole
    halo = SMALL.halo_px(pixel)
    padded = np.pad(surface, halo, constant_values=np.nan)
    whole = ground_surface(padded, SMALL, pixel, (-halo, -halo), halo)
    assert np.isnan(whole[:, :100]).all()
    assert np.isfinite(whole[:, 200:]).all()
    for window in Window.of(surface.shape).blocks(side):
        read = window.shift(halo, halo).grow(halo)
        found = ground_surface(padded[read.slices], SMALL, pixel, read.shift(-halo, -halo).corner, halo)
        assert found.tobytes() == whole[window.slices].tobytes(), window
