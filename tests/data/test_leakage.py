"""What different splits share: planted overlaps, copies and missing classes are found, neighbours are not."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.data.leakage import SplitScene, find_leaks
from geocrodino.geo.areas.aoi import from_polygons
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.settings.classes import ClassScheme, LandClass

CLASSES = ClassScheme(
    classes=tuple(LandClass(value=v, name=n, colour="#000000") for v, n in ((1, "road"), (2, "water"), (9, "house")))
)
NO_PLACE = 'ENGCRS["no place",EDATUM["none"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'


def scene(name, split, left=0, *, crs="EPSG:32631", side=100, labels=0, raster=None, polygon=None, pixel=1.0):
    """A scene of ``side`` px whose upper left corner lies ``left`` units east of (400 km, 5000 km)."""
    grid = GeoBox((side, side), Affine(pixel, 0, 400_000 + left, 0, -pixel, 5_000_000), crs)
    shape = shapely.box(*grid.boundingbox) if polygon is None else polygon
    aoi = from_polygons({split: shape} if isinstance(split, str) else split, grid.crs.wkt, name)
    return SplitScene(name, grid, aoi, np.full((side, side), labels, np.uint8), {}, raster)


def test_a_planted_overlap_is_found_and_a_shared_edge_is_not():
    scenes = [scene("a", "train"), scene("b", "val", 75), scene("c", "test", 175), scene("d", "train", 175.4)]
    found = find_leaks(scenes, CLASSES)
    assert [str(each) for each in found.overlaps] == [
        "a (train) and b (val) by 25 % of the smaller",
        "c (test) and d (train) by 99.6 % of the smaller",
    ]
    assert found.leaks == (
        "2 pairs of scenes of different splits overlap: a (train) and b (val) by 25 % of the smaller, c (test) and d "
        "(train) by 99.6 % of the smaller. Scores on ground that was learnt are too good: give scenes that overlap one "
        "split, or cut them apart with areas.",
    )


def test_scenes_of_one_split_may_overlap():
    assert find_leaks([scene("a", "train"), scene("b", "train", 50), scene("c", "val", 300)], CLASSES).leaks == ()


def test_overlaps_across_zones():
    # 6 degrees of longitude are 0.5 * 10^6 m of zone 31 and of zone 32 from the common meridian.
    east = scene("east", "val", 0, crs="EPSG:32632", pixel=10.0)
    corner = shapely.Point(400_500, 4_999_500)
    there = gpd.GeoSeries([corner], crs="EPSG:32632").to_crs("EPSG:32631").iloc[0]
    grid = GeoBox((100, 100), Affine(10, 0, there.x - 500, 0, -10, there.y + 500), "EPSG:32631")
    aoi = from_polygons({"train": shapely.box(*grid.boundingbox)}, grid.crs.wkt, "west")
    west = SplitScene("west", grid, aoi, np.zeros((100, 100), np.uint8), {})
    (found,) = find_leaks([west, east], CLASSES).overlaps
    # The same square kilometre, turned against itself by the convergence of the meridians, about 4 degrees.
    assert 0.9 < found.share < 1
    assert find_leaks([scene("a", "train"), scene("b", "val", crs="EPSG:32632")], CLASSES).overlaps == ()


def test_scenes_without_a_place_are_not_compared_by_it():
    scenes = [scene("a", "train", crs=NO_PLACE), scene("b", "val", crs=NO_PLACE)]
    found = find_leaks(scenes, CLASSES)
    assert (found.overlaps, found.distance_m) == ((), {})


def test_distances_are_the_least_between_two_splits():
    parts = {"train": shapely.box(400_000, 4_999_900, 400_030, 5_000_000),
             "val": shapely.box(400_042, 4_999_900, 400_060, 5_000_000)}  # fmt: skip
    scenes = [scene("a", parts), scene("b", "train", 500), scene("c", "test", 1640), scene("d", "val", 640)]
    assert find_leaks(scenes, CLASSES).distance_m == {
        ("train", "val"): 12, ("train", "test"): 1040, ("val", "test"): 900,
    }  # fmt: skip
    feet = [scene("a", "train", crs="EPSG:2269"), scene("b", "val", 200, crs="EPSG:2269")]
    (distance,) = find_leaks(feet, CLASSES).distance_m.values()
    assert distance == pytest.approx(100 * 0.3048)
    one_of_many = [scene("a", "train"), scene("b", "val", 200), scene("c", "val", crs="EPSG:32632")]
    assert find_leaks(one_of_many, CLASSES).distance_m["train", "val"] == pytest.approx(100, rel=1e-3)


def test_copies_are_found_by_their_content(write_raster):
    values = np.random.default_rng(0).integers(0, 255, (3, 300, 200)).astype(np.uint8)
    changed = values.copy()
    changed[:, :64, :64] += 1  # the middle is the same
    rasters = {
        "a": write_raster("a.tif", values),
        "b": write_raster("b.tif", values, origin=(500_000.0, 5_000_000.0)),
        "c": write_raster("c.tif", changed, origin=(600_000.0, 5_000_000.0)),
        "d": write_raster("d.tif", values, origin=(700_000.0, 5_000_000.0)),
        "e": write_raster("e.tif", np.zeros((3, 300, 200), np.uint8), origin=(800_000.0, 5_000_000.0)),
        "f": write_raster("f.tif", np.zeros((3, 300, 200), np.uint8), origin=(900_000.0, 5_000_000.0)),
    }
    splits = {"a": "train", "b": "test", "c": "val", "d": "train", "e": "train", "f": "val"}
    scenes = [
        scene(name, splits[name], 100_000 * n, raster=RasterSource.open(path))
        for n, (name, path) in enumerate(rasters.items())
    ]
    found = find_leaks(scenes, CLASSES)
    assert [str(each) for each in found.equal] == ["a (train) and b (test)", "b (test) and d (train)"]
    assert found.leaks == (
        "2 pairs of scenes of different splits hold the same image: a (train) and b (test), b (test) and d (train). "
        "Scores on images that were learnt are too good: remove the copies.",
    )


def test_one_image_with_two_areas_is_no_copy(write_raster):
    values = np.random.default_rng(0).integers(0, 255, (3, 100, 100)).astype(np.uint8)
    raster = RasterSource.open(write_raster("a.tif", values))
    left, right = (
        shapely.box(400_000, 4_999_900, 400_040, 5_000_000),
        shapely.box(400_060, 4_999_900, 400_100, 5_000_000),
    )
    scenes = [scene("a", "train", raster=raster, polygon=left), scene("b", "val", raster=raster, polygon=right)]
    assert find_leaks(scenes, CLASSES).leaks == ()
    placeless = [scene(n, s, raster=raster, crs=NO_PLACE) for n, s in (("a", "train"), ("b", "val"))]
    assert [str(each) for each in find_leaks(placeless, CLASSES).equal] == ["a (train) and b (val)"]


def test_classes_are_counted_in_each_split():
    parts = {"train": shapely.box(400_000, 4_999_950, 400_100, 5_000_000),
             "test": shapely.box(400_000, 4_999_900, 400_100, 4_999_940)}  # fmt: skip
    mixed = scene("a", parts)
    mixed.labels[:10] = 1
    mixed.labels[95:] = 255
    found = find_leaks([mixed, scene("b", "val", 500, labels=1), scene("c", {}, 900)], CLASSES)
    assert {split: px.tolist() for split, px in found.class_px.items()} == {
        "train": [4000, 1000, 0], "val": [0, 10_000, 0], "test": [3500, 0, 0],
    }  # fmt: skip
    assert found.in_no_split == ("house (9)",)
    assert found.facts == (
        "Least distance between splits: train to val 400 m, train to test 10 m, val to test 400 m",
        "Classes without a labelled pixel in train: house",
        "Classes without a labelled pixel in val: road, house",
        "Classes without a labelled pixel in test: water, house",
        "1 scene without a split, not used: c",
    )


def test_distances_without_an_exponent():
    found = find_leaks([scene("a", "train"), scene("b", "val", 112_500), scene("c", "test", 130)], CLASSES)
    assert found.facts[0] == (
        "Least distance between splits: train to val 112,400 m, train to test 30 m, val to test 112,270 m"
    )
