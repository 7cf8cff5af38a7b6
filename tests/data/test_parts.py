"""Parts of a scene with empty space between them."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from geocrodino.data import parts
from geocrodino.data.parts import covered_boxes, join_boxes, scene_parts, with_surroundings
from geocrodino.data.sources import Sources
from geocrodino.errors import LeftOutWarning, RasterError
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.scene import open_scene


def _joined(*boxes, patch_px=10):
    return [tuple(window) for window in join_boxes(np.array(boxes, np.int64), patch_px)]


def test_boxes_join_where_no_patch_fits_between_them():
    assert _joined((0, 20, 0, 20), (0, 20, 29, 40)) == [(0, 20, 0, 40)]
    assert _joined((0, 20, 0, 20), (0, 20, 30, 40)) == [(0, 20, 0, 20), (0, 20, 30, 40)]
    assert _joined((0, 20, 0, 20), (30, 40, 5, 9), (30, 40, 5, 9)) == [(0, 20, 0, 20), (30, 40, 5, 9)]


def test_a_box_that_grows_meets_others():
    """The first two join to one whose corner comes near to the third, which is far from both."""
    assert _joined((0, 10, 0, 10), (15, 25, 15, 25), (0, 5, 30, 40)) == [(0, 25, 0, 40)]
    assert _joined((0, 5, 30, 40), (0, 10, 0, 10), (15, 25, 15, 25)) == [(0, 25, 0, 40)]


def test_ten_thousand_boxes_in_a_row():
    starts = np.arange(10_000) * 20
    boxes = np.stack([np.zeros_like(starts), np.full_like(starts, 10), starts, starts + 11], axis=1)
    assert _joined(*boxes, patch_px=10) == [(0, 10, 0, 199_991)]
    assert len(_joined(*boxes[:2000], patch_px=9)) == 2000


@pytest.fixture
def plots(write_raster, tmp_path):
    """Three plots of 40 x 40 px of 0.5 m, 5 km apart, in files of image, heights and labels; the second unlabelled."""
    generator = np.random.default_rng(0)
    for number, (row, col) in enumerate([(0, 0), (10_000, 0), (10_000, 10_000)]):
        transform = Affine(0.5, 0, 500_000 + col / 2, 0, -0.5, 4_000_000 - row / 2)
        for role, values in {
            "optical": generator.integers(1, 255, (3, 40, 40)).astype(np.uint8),
            "elevation": generator.random((1, 40, 40)).astype(np.float32),
            "labels": np.full((1, 40, 40), 255 if number == 1 else number, np.uint8),
        }.items():
            (tmp_path / role).mkdir(exist_ok=True)
            nodata = 255 if role == "labels" else None
            write_raster(f"{role}/{number}.tif", values, transform=transform, crs="EPSG:32610", nodata=nodata)
    rasters = {role: open_scene(tmp_path / role) for role in ("optical", "elevation")}
    return Sources(rasters, LabelSource.of(open_scene(tmp_path / "labels")))


GRID = GeoBox((10_040, 10_040), Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000), CRS("EPSG:32610"))
"""The grid of all three plots: 100 million pixels, of which 4,800 hold data."""


def _polygons(*boxes, splits=None, crs="EPSG:32610"):
    """An area of boxes in pixels of the grid: rows, then columns."""
    shapes = [
        shapely.box(500_000 + c0 / 2, 4_000_000 - r1 / 2, 500_000 + c1 / 2, 4_000_000 - r0 / 2)
        for r0, r1, c0, c1 in boxes
    ]
    return AOI(gpd.GeoDataFrame({"split": splits or ["train"] * len(shapes)}, geometry=shapes, crs=crs), "areas")


def _place(part):
    """First row and column of a part in the grid, and its shape."""
    col, row = ~GRID.affine @ (part.grid.affine.c, part.grid.affine.f)
    return (round(row), round(col), *part.grid.shape)


def test_the_files_of_a_mosaic_on_a_grid(plots):
    mosaic = plots.rasters["optical"]
    assert mosaic.geobox == GRID
    assert covered_boxes(mosaic, GRID).tolist() == [
        [0, 40, 0, 40],
        [10_000, 10_040, 0, 40],
        [10_000, 10_040, 10_000, 10_040],
    ]
    coarse = GeoBox((5_020, 5_020), Affine(1, 0, 500_000, 0, -1, 4_000_000), CRS("EPSG:32610"))
    assert covered_boxes(mosaic, coarse)[2].tolist() == [5_000, 5_020, 5_000, 5_020]


def test_scattered_plots_are_parts_of_their_own(plots):
    found = scene_parts(plots, None, GRID, patch_px=32)
    assert [_place(part) for part in found] == [
        (0, 0, 40, 40),
        (10_000, 0, 40, 40),
        (10_000, 10_000, 40, 40),
    ]
    assert [part.sources.labels is None for part in found] == [False, True, False]
    assert [part.name for part in found] == ["-1", "-2", "-3"]


def test_a_part_is_as_large_as_a_patch(plots):
    assert [_place(part) for part in scene_parts(plots, None, GRID, patch_px=64)] == [
        (0, 0, 64, 64),
        (10_000, 0, 64, 64),
        (10_000, 10_000, 64, 64),
    ]


def test_parts_are_where_polygons_and_files_meet(plots):
    area = _polygons(
        (0, 36, 0, 36), (10_000, 10_036, 10_004, 10_060), (5_000, 5_040, 0, 40), splits=["train", "val", "test"]
    )
    found = scene_parts(plots, area, GRID, patch_px=32)
    assert [_place(part) for part in found] == [(0, 0, 36, 36), (10_000, 10_004, 36, 36)]
    assert [part.area.splits for part in found] == [("train",), ("val",)]
    assert [part.area.polygons().area for part in found] == [18 * 18, 18 * 18]  # cut to the part, m2


def test_a_scene_that_is_small_or_covered_stays_whole(plots, monkeypatch):
    one_file = Sources({"optical": open_scene(plots.rasters["optical"].files[0])}, None)
    assert scene_parts(one_file, None, GRID, patch_px=32)[0].grid.shape == (40, 40)
    monkeypatch.setattr(parts, "SMALL_PX", 10_040**2)
    (part,) = scene_parts(plots, None, GRID, patch_px=32)
    assert part.name == ""
    assert part.grid is GRID


def test_parts_without_heights_are_left_out(plots):
    rasters = {**plots.rasters, "elevation": open_scene(plots.rasters["elevation"].files[0])}
    with pytest.warns(LeftOutWarning) as caught:
        (part,) = scene_parts(Sources(rasters, plots.labels), None, GRID, patch_px=32)
    assert _place(part) == (0, 0, 40, 40)
    (message,) = [str(each.message) for each in caught if each.category is LeftOutWarning]
    assert message == (
        f"{rasters['elevation'].path}: no valid pixel on 2 of the 3 parts of the scene, which are left out: 2, 3."
    )


def test_parts_without_heights_can_be_kept_without_them(plots):
    rasters = {**plots.rasters, "elevation": open_scene(plots.rasters["elevation"].files[0])}
    with pytest.warns(LeftOutWarning) as caught:
        found = scene_parts(Sources(rasters, plots.labels), None, GRID, patch_px=32, keep=True)
    assert [tuple(part.sources.rasters) for part in found] == [("optical", "elevation"), ("optical",), ("optical",)]
    (message,) = [str(each.message) for each in caught if each.category is LeftOutWarning]
    assert message == (
        f"{rasters['elevation'].path}: no valid pixel on 2 of the 3 parts of the scene, which are kept without it: "
        "2, 3."
    )


def test_the_ground_of_a_part_is_what_its_files_cover(plots):
    for part in scene_parts(plots, None, GRID, patch_px=64):
        assert part.grid.shape == (64, 64)
        assert part.extent.area == 20 * 20  # 40 x 40 px of 0.5 m


def test_no_part_with_labels(plots):
    labels = LabelSource.of(open_scene(plots.labels.file_names[1]))
    with pytest.raises(RasterError, match="no valid pixel within the area of interest"):
        scene_parts(Sources(plots.rasters, labels), None, GRID, patch_px=32)


def test_patches_reach_beyond_small_polygons_alone():
    inside = np.zeros((64, 64), bool)
    inside[4:34, 4:40] = True
    assert with_surroundings({"train": inside}, ("train",), 64)["train"].all()
    assert with_surroundings({"train": inside}, ("train",), 30)["train"] is inside  # a patch fits
    assert with_surroundings({"train": inside}, ("train", "test"), 64)["train"] is inside
