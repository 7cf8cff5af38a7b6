"""A surface that lies below its ground is refused or warned of; one on it or above it is not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from geocrodino.data.inspection import inspect_files
from geocrodino.errors import HeightError, HeightRangeWarning
from geocrodino.geo.rasters.heights import set_heights
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.surface_ground import check_surface_above
from geocrodino.settings.heights import HeightSettings

SIDE = 100
TERRAIN = np.add.outer(np.zeros(SIDE), np.arange(SIDE) / 10).astype("float32") + 200


def _things(share, height_m):
    """Terrain with things of one height on a share of its rows."""
    values = TERRAIN.copy()
    values[: round(share * SIDE)] += np.float32(height_m)
    return values


@pytest.fixture
def pair(write_raster):
    def write(surface, ground, **options):
        names = write_raster("dsm.tif", surface), write_raster("dtm.tif", ground, **options)
        return tuple(RasterSource.open(name) for name in names)

    return write


def test_a_swapped_forest_is_refused(pair):
    surface, ground = pair(TERRAIN, _things(0.6, 15))
    with pytest.raises(HeightError) as refused:
        check_surface_above(surface, ground)
    assert str(refused.value) == (
        f"{surface.name}: this surface lies below the ground {ground.name}: by more than 2 m on 60 % of 10,000 pixels, "
        "by 15.0 m in the median; expected a surface on the ground or above it.\n"
        "Swap data.elevation and data.ground, or give both in one unit and from one zero of height."
    )
    with pytest.warns(HeightRangeWarning, match="Swap `elevation` and `ground`, or give"):
        check_surface_above(surface, ground, names=("`elevation`", "`ground`"), refuse=False)


def test_a_surface_in_feet_over_a_ground_in_metres(pair):
    surface, ground = pair(_things(0.6, 15) / np.float32(0.3048), TERRAIN)
    with pytest.warns(HeightRangeWarning) as warned:
        check_surface_above(surface, ground)
    # The terrain of 200 to 209.9 m is (1 / 0.3048 - 1) times itself too high, 456 to 479 m, more below things.
    rise = (_things(0.6, 15) / np.float32(0.3048) - TERRAIN).astype("float64")
    assert [str(w.message) for w in warned] == [
        f"{surface.name}: this surface lies more than 30 m above the ground {ground.name} almost everywhere, by "
        f"{np.median(rise):.1f} m in the median of 10,000 pixels; expected open ground somewhere. Give both in one "
        "unit and from one zero of height."
    ]


@pytest.mark.parametrize("share", [0.6, 0.97])
def test_a_forest_with_gaps_is_not(pair, share):
    surface, ground = pair(_things(share, 60), TERRAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_surface_above(surface, ground)


def test_a_swapped_town_is_warned_of(pair):
    """Most of a town is open ground: only a fifth of it lies clearly lower where the two are swapped."""
    surface, ground = pair(TERRAIN, _things(0.2, 15))
    with pytest.warns(HeightRangeWarning, match=r"by more than 2 m on 20 % of 10,000 pixels, by 0\.0 m in the median"):
        check_surface_above(surface, ground)


def test_swapped_bands_of_one_file(write_raster):
    name = write_raster("both.tif", np.stack([TERRAIN, _things(0.6, 15)]))
    read = set_heights(RasterSource.open(name), HeightSettings(band=1, ground_band=2))
    with pytest.raises(HeightError) as refused:
        check_surface_above(read.surface, read.ground)
    assert str(refused.value).startswith(f"{name}: the surface in band 1 lies below the ground in band 2: by more")
    assert "\nSwap height.band and height.ground_band, or give both" in str(refused.value)


@pytest.mark.parametrize(
    ("surface", "ground"),
    [
        (_things(0.2, 15), TERRAIN),
        (TERRAIN, TERRAIN),
        (TERRAIN - 1, TERRAIN),  # two measurements
        (np.concatenate([TERRAIN[:60] - 30, TERRAIN[60:] + 5]), TERRAIN),  # a mine that was dug later, beside a forest
        (TERRAIN, np.full_like(TERRAIN, np.nan)),
    ],
)
def test_these_are_not_swapped(pair, surface, ground):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_surface_above(*pair(surface, ground))


def test_units_are_compared_in_metres(pair):
    """200 m of surface over 600 feet of ground, which are 183 m."""
    surface, ground = pair(TERRAIN, TERRAIN * 3, units="ft")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_surface_above(surface, ground)
    with pytest.raises(HeightError, match="below the ground"):  # without the tag
        check_surface_above(*pair(TERRAIN, TERRAIN * 3))


def test_an_inspection_lists_it(pair):
    surface, ground = pair(TERRAIN, _things(0.6, 15))
    found = inspect_files({"elevation": surface, "ground": ground})
    assert [problem.splitlines()[0] for problem in found.problems] == [
        f"{surface.name}: this surface lies below the ground {ground.name}: by more than 2 m on 60 % of 10,000 pixels, "
        "by 15.0 m in the median; expected a surface on the ground or above it."
    ]
