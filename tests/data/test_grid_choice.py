"""The working grid by rule: pixel sizes, pixel edges and the sentence that explains them."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geocrodino.data.alignment import Sources, align, reference_grid
from geocrodino.data.grid_choice import choose_grid, describe_work
from geocrodino.errors import ConfigError
from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.geo.labels.opening import open_labels
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.recipe import elevation_recipe, optical_recipe
from geocrodino.settings.classes import ClassScheme

LEFT, TOP = 400_000.0, 5_000_000.0


@pytest.fixture
def opened(write_raster):
    """Opens a new raster of one band of zeros: name, pixel size and options of `write_raster`."""

    def make(name, pixel, *, shape=(60, 90), dtype=np.uint8, **options):
        return RasterSource.open(write_raster(f"{name}.tif", np.zeros(shape, dtype), pixel=pixel, **options))

    return make


@pytest.fixture
def scene(opened):
    """An image of one pixel size and heights of another."""

    def make(image_m, height_m):
        return {"optical": opened("image", image_m), "elevation": opened("dsm", height_m, dtype=np.float32)}

    return make


def test_labels_three_times_coarser_set_pixel_size_and_edges(opened, scene):
    """Columns 0 to 90 m of the image touch the labels' columns from 1 m west of its edge to 92 m: 31 of 3 m."""
    labels = opened("labels", 3.0, origin=(LEFT - 10, TOP + 14))
    found = choose_grid(scene(1.0, 3.0), labels)
    assert (found.resolution_m, found.grid_of, found.image_m) == (3.0, "labels", 1.0)
    assert (found.grid.affine.c, found.grid.affine.f) == (LEFT - 1, TOP + 2)
    assert (found.grid.affine.a, found.grid.affine.e, found.grid.shape) == (3.0, -3.0, (21, 31))
    assert found.note == (
        "Image 1 m, heights 3 m, labels 3 m: works at 3 m, the pixel size of the labels. `data.resolution_m=1` keeps "
        "that of the image, with 9 times the pixels."
    )


@pytest.mark.parametrize(
    ("label_m", "expected_m"), [(0.5, 1.0), (1.0, 1.0), (1.4, 1.0), (1.5, 1.5), (10.0, 10.0), (10.5, 1.0)]
)
def test_labels_set_the_pixel_size_from_1_5_to_10_times_coarser(opened, scene, label_m, expected_m):
    found = choose_grid(scene(1.0, 1.0), opened("labels", label_m))
    assert found.resolution_m == found.grid.resolution.x == expected_m
    assert found.grid_of == ("image" if expected_m == 1 else "labels")


def test_much_coarser_labels_are_named(opened, scene):
    assert choose_grid(scene(1.0, 2.0), opened("labels", 30.0)).note == (
        "Image 1 m, heights 2 m, labels 30 m: works at 1 m, the pixel size of the image. Labels are 30 times as coarse"
        ": `data.resolution_m=30` works at theirs. Heights are interpolated."
    )


def test_coarse_heights_are_interpolated(opened, scene):
    found = choose_grid(scene(30.0, 90.0), opened("labels", 30.0))
    assert found.resolution_m == 30.0
    assert found.note == (
        "Image 30 m, heights 90 m, labels 30 m: works at 30 m, the pixel size of the image. Heights are interpolated."
    )


def test_labels_too_coarse_for_height_above_ground_do_not_set_the_pixel_size(opened, scene):
    rasters, labels = scene(2.0, 2.0), opened("labels", 6.0)
    above_ground = [elevation_recipe(("height_above_ground",))]
    found = choose_grid(rasters, labels, recipes=above_ground)
    assert (found.resolution_m, found.grid_of) == (2.0, "image")
    assert found.note == (
        "Image 2 m, heights 2 m, labels 6 m: works at 2 m, the pixel size of the image. Labels are 3 times as coarse, "
        "too coarse for the height channels."
    )
    assert choose_grid(rasters, labels, recipes=above_ground, ground_given=True).resolution_m == 6.0
    assert choose_grid(rasters, labels, recipes=[elevation_recipe(("height", "slope"))]).resolution_m == 6.0


def test_labels_of_another_crs_set_the_pixel_size_alone(opened, scene):
    found = choose_grid(scene(1.0, 1.0), opened("labels", 3.0, crs="EPSG:32632"))
    assert (found.resolution_m, found.grid_of, found.grid.crs) == (3.0, "image", "EPSG:32631")
    assert (found.grid.affine.c, found.grid.affine.f, found.grid.shape) == (LEFT, TOP, (20, 30))


def test_oblong_labels_set_the_pixel_size_alone(opened, scene, write_raster):
    """Pixels of 2 m x 4.5 m are as large as squares of 3 m."""
    transform = RasterSource.open(write_raster("x.tif", np.zeros((9, 9), np.uint8))).geobox.affine
    labels = opened("labels", 1.0, transform=transform * transform.scale(2.0, 4.5))
    found = choose_grid(scene(1.0, 1.0), labels)
    assert (found.resolution_m, found.grid_of, found.grid.shape) == (pytest.approx(3.0), "image", (20, 30))


def test_a_given_size_wins(opened, scene):
    found = choose_grid(scene(1.0, 1.0), opened("labels", 3.0, origin=(LEFT - 1, TOP)), resolution_m=3.0)
    assert (found.resolution_m, found.grid_of, found.grid.affine.c) == (3.0, "image", LEFT)
    assert found.note == "Image 1 m, heights 1 m, labels 3 m: works at 3 m, as set."


def test_a_size_far_finer_than_all_rasters_is_refused(opened, scene):
    assert choose_grid(scene(1.6, 3.2), None, resolution_m=0.1).resolution_m == 0.1
    with pytest.raises(ConfigError) as refused:
        choose_grid(scene(1.6, 3.2), opened("labels", 9.0), resolution_m=0.09)
    assert str(refused.value) == (
        "data.resolution_m 0.09: expected pixels at least 1/16 as wide as the finest of the rasters, 1.6 m.\n"
        "Give the pixel size in metres, or leave it out."
    )


def test_the_edges_of_labels_with_another_size(opened, scene):
    labels = opened("labels", 3.0, origin=(LEFT - 1, TOP))
    found = choose_grid(scene(1.0, 1.0), labels, resolution_m=2.0, grid_of="labels")
    assert (found.grid.resolution.x, found.grid.affine.c, found.grid.shape) == (2.0, LEFT - 1, (30, 46))
    alone = choose_grid(scene(1.0, 1.0), labels, grid_of="labels")
    assert (alone.resolution_m, alone.grid.affine.c) == (3.0, LEFT - 1)
    assert choose_grid(scene(1.0, 1.0), labels, grid_of="image").resolution_m == 1.0


def test_edges_of_labels_in_another_crs_are_refused(opened, scene):
    labels = opened("labels", 3.0, crs="EPSG:32632")
    with pytest.raises(ConfigError) as refused:
        choose_grid(scene(1.0, 1.0), labels, grid_of="labels")
    assert str(refused.value) == (
        "data.grid_of labels: expected labels in the CRS of the working grid, 60 rows x 90 columns at 1 m, EPSG:32631; "
        f"found {labels.path}, 60 rows x 90 columns at 3 m, EPSG:32632.\nLeave grid_of out."
    )


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:32632"])
@pytest.mark.parametrize("label_m", [0.7, 1.0, 2.3, 30.0])
def test_what_is_recorded_gives_the_same_grid(opened, scene, crs, label_m):
    rasters, labels = scene(0.9, 2.0), opened("labels", label_m, crs=crs, origin=(LEFT - 1.1, TOP + 0.7))
    first = choose_grid(rasters, labels)
    again = choose_grid(rasters, labels, resolution_m=first.resolution_m, grid_of=first.grid_of)
    assert (again.grid, again.resolution_m, again.grid_of) == (first.grid, first.resolution_m, first.grid_of)


def test_an_image_in_degrees_works_on_labels_of_its_utm_zone(opened):
    """0.00001 degrees are 0.8 m east and 1.1 m north there."""
    image = opened("image", 1e-5, shape=(90, 120), crs="EPSG:4326", origin=(1.73, 45.15))
    labels = opened("labels", 3.0, shape=(200, 200))
    found = choose_grid({"optical": image}, labels)
    assert (found.resolution_m, found.grid_of, found.grid.crs) == (3.0, "labels", "EPSG:32631")
    again = choose_grid({"optical": image}, labels, resolution_m=3.0, grid_of="labels")
    assert again.grid == found.grid


def test_labels_are_not_resampled_and_the_image_is_averaged(write_raster, tmp_path):
    """A pixel of 3 m holds the mean of nine pixels of 1 m: 10 r + c, at the middle of the nine."""
    rows, cols = np.mgrid[:18, :24]
    image = RasterSource.open(write_raster("image.tif", (10 * rows + cols).astype(np.float32)))
    dsm = RasterSource.open(write_raster("dsm.tif", np.full((18, 24), 7, np.float32)))
    values = np.random.default_rng(0).integers(1, 4, (8, 10)).astype(np.uint8)
    path = write_raster("labels.tif", values, pixel=3.0, origin=(LEFT - 3, TOP + 3))
    labels = LabelSource.of(RasterSource.open(path))
    rasters = {"optical": image, "elevation": dsm}
    found = choose_grid(rasters, labels)
    area = read_aoi(f"{LEFT},{TOP - 18},{LEFT + 24},{TOP}", "EPSG:32631")
    grid = reference_grid(image, area, found.grid)
    recipes = {"optical": optical_recipe(image), "elevation": elevation_recipe(("height",))}
    sources, scheme = Sources(rasters, labels), ClassScheme.from_values([1, 2, 3])
    layers = align(sources, recipes, scheme, grid, tmp_path / "aligned")
    assert layers.class_indices().tolist() == (values[1:7, 1:9] - 1).tolist()
    np.testing.assert_allclose(layers.channels("optical")[0], (10 * rows + cols)[1::3, 1::3], atol=1e-4)


def test_the_work_is_described(opened):
    grid = opened("image", 0.5, shape=(2000, 1000)).geobox
    assert describe_work(grid, None) == "2000 rows x 1000 columns at 0.5 m, EPSG:32631, 2,000,000 px"
    assert describe_work(grid, 96) == f"{describe_work(grid, None)}; a patch of 96 px covers 48 m"
    coarse = opened("coarse", 30.0).geobox
    assert describe_work(coarse, 64).endswith("; a patch of 64 px covers 1,920 m")


def test_shapes_have_no_pixels_to_choose(write_raster, tmp_path):
    image = RasterSource.open(write_raster("image.tif", np.zeros((6, 6), np.float32), pixel=0.5))
    drawn = [shapely.box(LEFT, TOP - 2, LEFT + 1, TOP), shapely.box(LEFT + 1, TOP - 2, LEFT + 2, TOP)]
    gpd.GeoDataFrame({"use": ["a", "b"]}, geometry=drawn, crs="EPSG:32631").to_file(tmp_path / "a.gpkg")
    labels = open_labels(tmp_path / "a.gpkg", image)
    found = choose_grid({"optical": image}, labels)
    assert (found.grid, found.resolution_m, found.grid_of) == (image.geobox, 0.5, "image")
    assert "labels" not in found.note
    with pytest.raises(
        ConfigError, match=r"data.grid_of labels: expected a raster of labels, found .*a.gpkg, 2 polygons"
    ):
        choose_grid({"optical": image}, labels, grid_of="labels")
