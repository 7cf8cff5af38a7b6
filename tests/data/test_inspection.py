"""What an inspection says of good files, and what it finds wrong with others."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geocrodino.data.inspection import inspect_files
from geocrodino.geo.areas.aoi import from_polygons, read_aoi
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.settings.classes import ClassScheme

LEFT, TOP = 400_000.0, 5_000_000.0


@pytest.fixture
def roles(sources):
    return {**sources.rasters, "labels": sources.labels}


def test_good_files(roles):
    area = from_polygons(
        {"train": shapely.box(LEFT, TOP - 96, LEFT + 64, TOP), "val": shapely.box(LEFT + 64, TOP - 96, LEFT + 96, TOP)},
        "EPSG:32631",
        "aoi",
    )
    found = inspect_files(roles, area, classes=ClassScheme.from_values([1, 2, 3], ["grass", "road", "roof"]))
    assert found.problems == ()
    assert found.grid == "96 rows x 128 columns at 1 m, EPSG:32631, 12,288 px"
    assert found.pixels == "Image 1 m, heights 1 m, labels 1 m: works at 1 m, the pixel size of the image."
    assert found.splits == {"train": 64 * 96, "val": 32 * 96}
    optical, elevation, labels = found.layers
    assert (optical.role, optical.covers) == ("optical", pytest.approx(1))
    assert optical.values == "red 0 to 127, green 0 to 254, blue 0 to 95"
    assert optical.valid == pytest.approx(1 - 48 / (96 * 128))
    assert elevation.values == "band 1 100 to 195"
    assert elevation.notes == ("heights taken as metres; the file names no unit of height",)
    assert labels.values == "1 grass 33 %, 2 road 33 %, 3 roof 33 %"
    assert labels.valid == pytest.approx(120 / 128)


@pytest.mark.parametrize("stripe_px", [1, 2000])  # a row at a time, and ten; otherwise all at once
def test_rows_that_are_read_together_say_the_same(write_raster, monkeypatch, stripe_px):
    values = np.random.default_rng(0).normal(100, 30, (700, 100)).astype(np.float32)
    values[300:320] = -9999
    source = RasterSource.open(write_raster("dsm.tif", values, nodata=-9999))
    expected = inspect_files({"elevation": source}).layers
    monkeypatch.setattr("geocrodino.data.inspection._STRIPE_PX", stripe_px)
    assert inspect_files({"elevation": source}).layers == expected


def test_without_optical_and_area(roles):
    found = inspect_files({"labels": roles["labels"]})
    assert (found.grid, found.splits, found.problems) == (None, {}, ())
    assert found.layers[0].covers is None
    assert found.layers[0].values == "1 33 %, 2 33 %, 3 33 %"


def test_all_nodata(write_raster, roles):
    path = write_raster("void.tif", np.full((20, 20), -9999, np.float32), nodata=-9999)
    found = inspect_files({**roles, "elevation": RasterSource.open(path)})
    assert found.problems == (f"{path}: no valid pixel among those read: all of it seems to be nodata.",)
    assert found.layers[1].values == "none"


def test_rasters_that_do_not_meet(write_raster, roles):
    path = write_raster("far.tif", np.ones((20, 20), np.float32), origin=(500_000.0, TOP))
    area = read_aoi(f"{LEFT},{TOP - 50},{LEFT + 50},{TOP}", "EPSG:32631")
    found = inspect_files({**roles, "elevation": RasterSource.open(path)}, area)
    assert found.problems == (
        f"{path}: does not overlap the area of interest.",
        f"{path}: the elevation raster does not meet the reference grid.\n"
        "Expected some part of x 400000 to 400128, y 4999904 to 5000000; found x 500000 to 500020, y 4999980 to "
        "5000000 (in the CRS of the reference).\nCheck that the files show the same place and carry the right CRS.",
    )
    assert found.splits == {"all": 2500}


def test_another_planet_is_a_problem_not_a_crash(write_raster, roles):
    path = write_raster("mars.tif", np.ones((20, 20), np.float32), crs="ESRI:104905", pixel=0.1, origin=(0.0, 0.0))
    area = read_aoi(f"{LEFT},{TOP - 50},{LEFT + 50},{TOP}", "EPSG:32631")
    found = inspect_files({**roles, "elevation": RasterSource.open(path)}, area)
    assert any(p.startswith(f"{path}: the elevation raster cannot be put on") for p in found.problems)


def test_a_raster_that_spans_the_globe_is_no_problem(write_raster, roles):
    path = write_raster("dem.tif", np.ones((90, 180), np.float32), pixel=2.0, origin=(-180.0, 90.0), crs="EPSG:4326")
    area = read_aoi(f"{LEFT},{TOP - 50},{LEFT + 50},{TOP}", "EPSG:32631")
    found = inspect_files({**roles, "ground": RasterSource.open(path)}, area)
    assert found.problems == ()
    assert found.layers[3].covers == pytest.approx(1)


def test_grids_too_coarse_for_heights_above_ground(roles):
    found = inspect_files(roles, resolution_m=8.0)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("Height above ground needs a surface model that shows single objects: expected")
    assert inspect_files(roles, resolution_m=8.0, channels=("height", "slope")).problems == ()
    assert inspect_files({**roles, "ground": roles["elevation"]}, resolution_m=8.0).problems == ()


def test_notes(write_raster, roles):
    three = RasterSource.open(write_raster("three.tif", np.ones((3, 20, 20), np.uint8)))
    found = inspect_files({"elevation": three}, unit="ft")
    assert found.layers[0].notes == (
        "heights in ft, as asked",
        "no nodata tag, mask or transparency: every finite value counts",
    )
    assert found.problems == (
        f"{three.path}: expected one band of heights, found 3 (red, green, blue).\nIf it is an image, give it "
        "as the optical raster, not as heights.",
    )


def test_label_values_that_are_left_out_are_no_problem(write_raster):
    path = write_raster("labels.tif", np.array([[1, 2, 255], [3, 7, 255]], np.uint8))
    roles, classes = {"labels": RasterSource.open(path)}, ClassScheme.from_values([1, 2])
    found = inspect_files(roles, classes=classes, ignore_values=(255, 7))
    assert found.problems == ()
    assert (
        found.layers[0]
        .notes[-1]
        .startswith("values that belong to no class: 3; a training refuses them in its area. Name them")
    )
    (told,) = inspect_files(roles).problems
    assert told.startswith(f"{path}: expected two or more classes with whole values from 0 to 254, found the values 1")
    assert inspect_files(roles, label_values={255: 0}).layers[0].values == "0 33 %, 1 17 %, 2 17 %, 3 17 %, 7 17 %"


def test_bands_that_there_are_not(write_raster):
    source = RasterSource.open(write_raster("image.tif", np.ones((3, 9, 9), np.uint8)))
    (told,) = inspect_files({"optical": source}, bands=(1, 4)).problems
    assert told.startswith(
        f"{source.path}: data.bands: expected numbers of its 3 bands (1 red, 2 green, 3 blue), found 4 among 1, 4."
    )


def test_an_area_without_a_split_that_training_needs(roles):
    area = from_polygons({"train": shapely.box(LEFT, TOP - 96, LEFT + 96, TOP)}, "EPSG:32631", "aoi.geojson")
    found = inspect_files(roles, area)
    assert found.problems == (
        "aoi.geojson: no polygon of the split val. Expected train and val (and test, to report on), found train.",
    )


def test_an_area_without_splits_in_another_crs(roles, tmp_path):
    frame = gpd.GeoDataFrame(geometry=[shapely.box(LEFT, TOP - 96, LEFT + 64, TOP)], crs="EPSG:32631")
    frame.to_crs("EPSG:4326").to_file(tmp_path / "a.geojson", COORDINATE_PRECISION=9)
    found = inspect_files(roles, read_aoi(tmp_path / "a.geojson"))
    assert found.splits["all"] == pytest.approx(64 * 96, abs=2)
    assert [r.covers for r in found.layers] == pytest.approx([1, 1, 1], abs=1e-4)
