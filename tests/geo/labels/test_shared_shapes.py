"""One file of shapes for many scenes: it is read once, and only shapes near a scene are drawn on it."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.errors import LabelError, LabelWarning
from geocrodino.geo.labels.burning import Burner
from geocrodino.geo.labels.opening import open_labels
from geocrodino.geo.labels.shapes import shapes_kept
from geocrodino.geo.labels.source import label_classes
from geocrodino.geo.labels.vector import _bounds_px, bounds_of, pixels_of
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.labels import LabelRules

X, Y = 400_000.0, 5_000_000.0
RULES = LabelRules(column="use", width_m=3.0)


@pytest.fixture
def tiles(write_raster):
    """Four images of 8 x 8 px of 1 m, beside each other."""
    return [
        RasterSource.open(write_raster(f"{n}.tif", np.ones((8, 8), np.uint8), origin=(X + 8 * n, Y))) for n in range(4)
    ]


def mixed(seed=0):
    """Polygons, a line and a point around the tiles, some far away."""
    rng = np.random.default_rng(seed)
    corners = np.stack([X + rng.uniform(-60, 100, 80), Y + rng.uniform(-60, 60, 80)], axis=1)
    shapes = [shapely.box(x, y, x + 5.3, y + 4.7) for x, y in corners]
    shapes += [shapely.LineString([(X - 90, Y - 3), (X + 120, Y - 5)]), shapely.Point(X + 11, Y - 2)]
    return gpd.GeoDataFrame({"use": [("a", "b", "c")[n % 3] for n in range(82)]}, geometry=shapes, crs="EPSG:32631")


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
def test_shapes_far_from_a_scene_change_nothing(tmp_path, tiles, crs):
    mixed().to_crs(crs).to_file(tmp_path / "p.gpkg")
    for tile in tiles:
        labels = open_labels(tmp_path / "p.gpkg", tile, rules=RULES)
        everything = Burner(pixels_of(labels.shapes, RULES, tile.geobox)).read(Window(0, 8, 0, 8))[0]
        np.testing.assert_array_equal(labels.read(tile.geobox)[0][0], everything)
        assert np.isfinite(everything).any()


def test_bounds_in_pixels_are_those_of_all_shapes(tmp_path, tiles):
    mixed().to_file(tmp_path / "p.gpkg")
    shapes = open_labels(tmp_path / "p.gpkg", tiles[0], rules=RULES).shapes
    turned = GeoBox((8, 8), tiles[0].geobox.affine * Affine.rotation(30), "EPSG:32631")
    for grid in (tiles[0].geobox, turned):
        expected = bounds_of(pixels_of(shapes, RULES, grid).areas)
        np.testing.assert_array_equal(_bounds_px(shapes, RULES, grid), expected)


def test_a_file_is_read_once(tmp_path, tiles):
    """The same shapes with other rules are others; outside the block nothing is kept."""
    mixed().to_file(tmp_path / "p.gpkg")
    opened = lambda rules=RULES: open_labels(tmp_path / "p.gpkg", tiles[0], rules=rules).shapes  # noqa: E731
    with shapes_kept():
        first = opened()
        assert opened() is first
        with shapes_kept():
            assert opened() is first
        assert opened(LabelRules(column="use", ignore=("a",))) is not first
    assert opened() is not first


def test_only_the_last_files_are_kept(tmp_path, tiles):
    for number in range(9):
        mixed(number).to_file(tmp_path / f"{number}.gpkg")
    opened = lambda number: open_labels(tmp_path / f"{number}.gpkg", tiles[0], rules=RULES).shapes  # noqa: E731
    with shapes_kept():
        first, second = opened(0), opened(1)
        for number in range(2, 9):
            opened(number)
        assert opened(1) is second
        assert opened(0) is not first


def test_what_was_repaired_is_told_once(tmp_path, tiles):
    frame = mixed()
    frame.loc[0, "geometry"] = shapely.Polygon([(X, Y), (X + 9, Y - 9), (X + 9, Y), (X, Y - 9)])
    frame.to_file(tmp_path / "p.gpkg")
    with shapes_kept(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LabelWarning)
        label_classes([open_labels(tmp_path / "p.gpkg", tile, rules=RULES) for tile in tiles], None)
    assert [str(w.message) for w in caught if "repaired" in str(w.message)] == [
        f"{tmp_path / 'p.gpkg'}: 1 of 82 shapes were invalid, and are repaired."
    ]


def test_a_shapefile_without_its_table(tmp_path, tiles):
    mixed()[:80].to_file(tmp_path / "p.shp")
    (tmp_path / "p.dbf").unlink()
    with pytest.raises(LabelError) as error:
        open_labels(tmp_path / "p.shp", tiles[0])
    assert str(error.value) == f"{tmp_path / 'p.shp'}: expected its columns in p.dbf, found no such file."
