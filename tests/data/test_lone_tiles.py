"""Tiles of a scene that is joined by place, where another layer has no file."""

from __future__ import annotations

import itertools
import warnings

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geocrodino.data.grid_choice import choose_grid
from geocrodino.data.inspection import inspect_files
from geocrodino.data.lone_tiles import lone_tiles
from geocrodino.data.sources import open_sources
from geocrodino.errors import LeftOutWarning
from geocrodino.geo.areas.aoi import from_polygons
from geocrodino.settings.scenes import SceneConfig

X, Y, SIDE = 400_000, 5_000_000, 16


@pytest.fixture
def put(write_raster, tmp_path):
    """Write a file of 16 x 16 px of 1 m, or of another shape, at a place in tiles."""

    def write(name, row, col, bands=1, shape=(SIDE, SIDE)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        values = np.random.default_rng(0).integers(0, 200, (bands, *shape)).astype("uint8" if bands > 1 else "float32")
        return write_raster(name, values, origin=(X + SIDE * col, Y - SIDE * row))

    return write


@pytest.fixture
def scene(put, tmp_path):
    """Four tiles of the image and three of the heights, of which one is 1 px higher than it needs to be."""
    for row, col in itertools.product(range(2), range(2)):
        put(f"img/i_{row}_{col}.tif", row, col, bands=3)
        if (row, col) != (1, 1):
            put(f"dsm/d_{row}_{col}.tif", row, col, shape=(SIDE + (row == 0), SIDE))
    return {"optical": tmp_path / "img", "elevation": tmp_path / "dsm"}


def _notes(scene, area=None, name=""):
    found = open_sources(SceneConfig(**scene))
    grid = choose_grid(found.rasters, found.labels).grid
    return lone_tiles(name, found, grid, area)


def test_a_tile_without_heights_is_named(scene):
    """The heights of the tile above reach 1 of 16 rows into the tile: less than a tenth."""
    expected = (
        f"no file of {scene['elevation']} covers 1 of 4 tiles of data.optical: i_1_1.tif. There, elevation is missing."
        "\nAdd the files, or leave these tiles out of data.optical."
    )
    assert _notes(scene) == [f"data.elevation: {expected}"]
    assert _notes(scene, name="north") == [f"data.elevation of scene north: {expected}"]


def test_tiles_outside_the_area_are_not_counted(scene):
    west, east = (shapely.box(X + a, Y - 32, X + b, Y) for a, b in ((0, 16), (16, 32)))
    assert _notes(scene, from_polygons({"train": west}, "EPSG:32631", "aoi")) == []
    (note,) = _notes(scene, from_polygons({"train": east}, "EPSG:32631", "aoi"))
    assert "covers 1 of 2 tiles of data.optical: i_1_1.tif." in note


def test_one_raster_beside_many_tiles(scene, put):
    assert _notes({**scene, "elevation": put("dsm.tif", 0, 0, shape=(32, 32))}) == []
    (note,) = _notes({**scene, "elevation": put("dsm.tif", 0, 0, shape=(16, 32))})
    assert "covers 2 of 4 tiles of data.optical: i_1_0.tif, i_1_1.tif." in note


def test_tiles_of_other_sizes(scene, put, tmp_path):
    for row in range(4):
        put(f"rows/r_{row}.tif", row / 2, 0, shape=(8, 32))
    assert _notes({**scene, "elevation": tmp_path / "rows"}) == []


def test_labels_of_a_part(scene, put, tmp_path):
    put("dsm/d_1_1.tif", 1, 1)
    for col in range(2):
        put(f"lab/l_{col}.tif", 0, col)
    (note,) = _notes({**scene, "labels": tmp_path / "lab"})
    assert note.startswith(f"data.labels: no file of {tmp_path / 'lab'} covers 2 of 4 tiles of data.optical: i_1_0.tif")
    assert "There, labels are missing." in note
    shapes = gpd.GeoDataFrame({"use": [1]}, geometry=[shapely.box(X, Y - 9, X + 9, Y)], crs="EPSG:32631")
    shapes.to_file(tmp_path / "drawn.gpkg")
    assert _notes({**scene, "labels": tmp_path / "drawn.gpkg"}) == []


def test_an_inspection_warns(scene):
    opened = open_sources(SceneConfig(**scene))
    with pytest.warns(LeftOutWarning, match="covers 1 of 4 tiles of data.optical: i_1_1.tif"):
        inspect_files(dict(opened.rasters))
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeftOutWarning)
        inspect_files({"optical": opened.rasters["optical"]})
