"""What is said of the heights of one scene, and of several with their names."""

from __future__ import annotations

import warnings

import numpy as np

from geocrodino.data.sources import Sources
from geocrodino.geo.rasters.impossible_heights import Impossible
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.training.scene_notes import joined_facts, unit_lines, warn_of_heights

METRES = "heights taken as metres; the file names no unit of height"
READ_AS_MISSING = (
    "read as missing: no ground lies so high or low, or a pixel jumps away from all its neighbours. If the value "
    "stands for missing data, tag it as nodata."
)


def heights(write_raster, name, given=None, dtype=np.float32):
    values = np.arange(64, dtype=dtype).reshape(8, 8) % 5
    raster = RasterSource.open(write_raster(f"{name}.tif", values))
    return Sources({"elevation": raster}, labels=None, height_unit=given)


def warned(scenes):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_heights(scenes)
    return [str(each.message) for each in caught]


def test_a_fact_of_many_scenes_is_one_line():
    facts = [(f"t{number}", "no unit") for number in range(400)]
    assert joined_facts([*facts[:7], ("odd", "in feet"), *facts[7:]]) == [
        "400 scenes (t0, t1, t2, t3, t4 and 395 more): no unit",
        "scene odd: in feet",
    ]


def test_units_name_their_scenes(write_raster):
    park, hill = heights(write_raster, "park", given="ft"), heights(write_raster, "hill")
    assert unit_lines([("hill", hill)]) == [METRES.capitalize()]
    assert unit_lines([("park", park), ("hill", hill), ("dale", hill)]) == [
        "Scene park: heights in ft, as asked",
        f"2 scenes (hill, dale): {METRES}",
    ]
    assert unit_lines([("bare", Sources({}, None)), ("empty", Sources({}, None))]) == []


def test_impossible_heights_name_their_scenes(write_raster):
    hill = heights(write_raster, "hill")
    name = hill.rasters["elevation"].name
    one, many = {"elevation": Impossible(1, -9999, -9999)}, {"elevation": Impossible(12, 20_000, 30_000)}
    found = f"{name}: 1 impossible height (-9999), {READ_AS_MISSING}"
    assert warned([("hill", hill, one)]) == [found]
    assert warned([("hill", hill, one), ("dale", hill, {})]) == [f"scene hill: {found}"]
    assert warned([("hill", hill, one), ("dale", hill, many)]) == [
        f"impossible heights of 2 scenes (hill 1 px: -9999, dale 12 px: 20000 to 30000) are {READ_AS_MISSING}"
    ]


def test_heights_that_look_like_classes_name_their_scenes(write_raster):
    hill = heights(write_raster, "hill", dtype=np.uint8)
    path = hill.rasters["elevation"].path
    found = f"{path}: expected heights, found 5 different whole numbers, as class rasters hold them."
    assert warned([("hill", hill, {})]) == [found]
    measured = heights(write_raster, "dale")
    assert warned([("hill", hill, {}), ("dale", measured, {})]) == [f"scene hill: {found}"]
    assert warned([("hill", hill, {}), ("knoll", hill, {})]) == [
        "2 scenes (hill, knoll): expected heights, found 5 different whole numbers in each, as class rasters hold them."
    ]


def test_zeros_for_missing_heights_name_their_scenes(write_raster):
    surface = RasterSource.open(write_raster("hill.tif", np.repeat(np.float32([[0, 180.5, 190, 200]]), 4, axis=0)))
    hill = Sources({"elevation": surface}, None)
    found = (
        f"{surface.path}: 25 % of the sampled heights are exactly 0 and all others at least 20 m away, so 0 may stand "
        f"for missing data, but is read as a height. If it does, tag it: rio edit-info --nodata 0 {surface.path}"
    )
    assert warned([("hill", hill, {})]) == [found]
    others = [("dale", hill, {}), ("knoll", hill, {})]
    assert warned([("hill", hill, {}), *others]) == [f"scene hill: {found}\nSo it is in 2 scenes (dale, knoll)."]
