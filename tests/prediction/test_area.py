"""Only an area of a scene is predicted."""

import json

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from helpers.small_scenes import (
    UTM,
    brightest,
    classes_of,
    decided_in,
    grouped,
    heights,
    image,
    make_bundle,
    names_in,
    write_raster,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geocrodino.errors import AOIError, OverlapError, RasterError
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.masks import AreaMask
from geocrodino.geo.rasters.window import Window
from geocrodino.prediction.engine import predict
from geocrodino.prediction.tiles.lattice import blocks
from geocrodino.settings.prediction import Tiling

SHAPE = (60, 80)
TO_DEGREES = pyproj.Transformer.from_crs("EPSG:32610", "EPSG:4326", always_xy=True)


def area(*polygons, crs="EPSG:32610"):
    return AOI(gpd.GeoDataFrame(geometry=list(polygons), crs=crs), "area")


def on_scene(polygon, transform=UTM):
    """A polygon in columns and rows of the scene, in its CRS."""
    return shapely.transform(polygon, lambda xy: np.array([transform @ (c, r) for c, r in xy]))


def centres(shape=SHAPE):
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    return cols, rows


@pytest.fixture
def scene(tmp_path):
    write_raster(tmp_path / "s.tif", image(*SHAPE))
    return tmp_path / "s.tif"


def mapped(scene, aoi, bundle, **options):
    out = scene.with_name("m.tif")
    return predict(scene, out, bundle, "optical", aoi=aoi, **grouped(overwrite=True, **options)), classes_of(out)


corners = st.tuples(st.integers(-8, 60), st.integers(-8, 60))


def inside_of(polygons, window):
    return AreaMask(polygons).read(Window(*window))


@settings(max_examples=60, deadline=None)
@given(st.lists(corners, min_size=3, max_size=6), st.sampled_from([2, 3, 10]), st.sampled_from([1, 5, 7, 16]))
def test_a_pixel_is_inside_whatever_the_window(points, fraction, block_px):
    """Also where an edge runs through its centre: corners in halves of pixels make that common."""
    polygon = shapely.Polygon([(x / fraction, y / fraction) for x, y in points])
    assume(polygon.is_valid and polygon.area > 0)
    whole = inside_of(polygon, (0, 24, 0, 27))
    pieces = np.zeros_like(whole)
    for r0, r1, c0, c1 in blocks(whole.shape, block_px):
        pieces[r0:r1, c0:c1] = inside_of(polygon, (r0, r1, c0, c1))
    np.testing.assert_array_equal(pieces, whole)
    cols, rows = centres(whole.shape)
    surely = shapely.distance(polygon.boundary, shapely.points(cols, rows)) > 1e-9
    np.testing.assert_array_equal(whole[surely], shapely.contains_xy(polygon, cols, rows)[surely])


def test_holes_and_parts():
    ring = shapely.box(1, 1, 7, 7) - shapely.box(3, 3, 5, 5)
    inside = inside_of(shapely.union_all([ring, shapely.box(8, 0, 9, 9)]), (0, 8, 0, 10))
    expected = np.zeros((8, 10), bool)
    expected[1:7, 1:7], expected[3:5, 3:5], expected[:, 8] = True, False, True
    np.testing.assert_array_equal(inside, expected)


def test_areas_that_share_an_edge_share_no_pixel_and_lose_none():
    """Even where the edge runs through the centres of pixels."""
    parts = [shapely.box(0.5, 0.5, 3.5, 8.5), shapely.box(3.5, 0.5, 7.5, 8.5)]
    found = sum(inside_of(part, (0, 9, 0, 9)).astype(int) for part in parts)
    np.testing.assert_array_equal(found, inside_of(shapely.union_all(parts), (0, 9, 0, 9)))
    assert found.sum() == 8 * 7


def test_only_the_inside_is_predicted_and_counted(bundle, by_pixel, tmp_path):
    values = image(*SHAPE)
    values[:, 20:25, 30:40] = 0
    scene = write_raster(tmp_path / "s.tif", values, nodata=0)
    polygon = shapely.Polygon([(10, 10), (70, 15), (40, 50)], [[(38, 30), (44, 30), (41, 36)]])
    summary, classes = mapped(scene, area(on_scene(polygon)), bundle, block_px=16, core_px=16)
    inside = shapely.contains_xy(polygon, *centres())
    valid = np.ones(SHAPE, bool)
    valid[20:25, 30:40] = False
    np.testing.assert_array_equal(classes, np.where(inside & valid, brightest(values), 255))
    assert summary.nodata_share == 50 / inside.sum()
    assert summary.pixels == {
        name: int((classes == value).sum()) for name, value in (("water", 0), ("grass", 2), ("roof", 5))
    }
    assert sum(summary.area_m2.values()) == inside.sum() - 50


def test_blocks_outside_are_not_computed(bundle, by_pixel, tmp_path):
    write_raster(tmp_path / "s.tif", image(128, 128))
    steps = []
    corner = area(on_scene(shapely.box(40, 40, 60, 60)), on_scene(shapely.box(97, 1, 127, 31)))
    predict(
        tmp_path / "s.tif",
        tmp_path / "m.tif",
        bundle,
        "optical",
        aoi=corner,
        on_progress=lambda *step: steps.append(step),
        tiling=Tiling(block_px=32, core_px=32),
    )
    assert len(by_pixel) == 2
    assert steps == [(1, 2), (2, 2)]


def test_parts_of_a_large_block_outside_are_not_computed(bundle, by_pixel, tmp_path):
    write_raster(tmp_path / "s.tif", image(300, 300))
    corner = area(on_scene(shapely.box(200, 200, 210, 210)))
    predict(
        tmp_path / "s.tif", tmp_path / "m.tif", bundle, "optical", aoi=corner, tiling=Tiling(block_px=4096, core_px=64)
    )
    # The pieces of a block that is the whole scene are its 5 x 5 tiles: one of them meets the area.
    assert len(by_pixel) == 1


@pytest.mark.parametrize("resolution_m", [1.0, 0.7])
def test_an_area_changes_no_pixel_inside(bundle, kept_networks, tmp_path, resolution_m):
    used = bundle if resolution_m == 1 else make_bundle(tmp_path / "b", resolution_m=resolution_m)
    scene = write_raster(tmp_path / "s.tif", image(*SHAPE))
    options = {"core_px": 32, "backend": "torch"}
    _, whole = mapped(scene, None, used, **options)
    polygon = shapely.Polygon([(5.5, 5.5), (65.5, 25.5), (25.5, 55.5)])
    inside = shapely.contains_xy(polygon, *centres())
    # Edges run through centres of pixels; these are in or out, but the same ones in each map.
    surely = shapely.distance(polygon.boundary, shapely.points(*centres())) > 1e-6
    assert not surely.all()
    found = set()
    for more in ({}, {"block_px": 16}, {"block_px": 37, "workers": 2}):
        _, classes = mapped(scene, area(on_scene(polygon)), used, **options, **more)
        np.testing.assert_array_equal(classes[surely], np.where(inside, whole, 255)[surely])
        found.add((tmp_path / "m.tif").read_bytes())
    assert len(found) == 1


def test_an_area_in_another_crs(bundle, by_pixel, scene):
    left, bottom = TO_DEGREES.transform(*(UTM @ (10, 50)))
    right, top = TO_DEGREES.transform(*(UTM @ (70, 12)))
    _, classes = mapped(scene, area(shapely.box(left, bottom, right, top), crs="EPSG:4326"), bundle)
    lon, lat = TO_DEGREES.transform(*(UTM @ centres()))
    pixel = 1e-5  # degrees, about 1 m
    apart = np.minimum(np.minimum(lon - left, right - lon), np.minimum(lat - bottom, top - lat)) / pixel
    assert (classes[apart > 0.01] != 255).all()
    assert (classes[apart < -0.01] == 255).all()
    assert (classes != 255).sum() == pytest.approx(60 * 38, rel=0.02)


def test_long_edges_follow_the_line_they_are_in_their_own_crs(bundle, by_pixel, scene):
    """A parallel of latitude, 20 degrees of it: far from straight in the CRS of the scene."""
    south = TO_DEGREES.transform(*(UTM @ (40, 30)))[1]
    strip = shapely.box(-133, south, -113, 60)
    _, classes = mapped(scene, area(strip, crs="EPSG:4326"), bundle)
    latitude = TO_DEGREES.transform(*(UTM @ centres()))[1]
    apart_m = (latitude - south) * 111_000
    assert (classes[apart_m > 0.02] != 255).all()
    assert (classes[apart_m < -0.02] == 255).all()


@pytest.mark.parametrize("world", [(-180, -90, 180, 90), (-180, 0, 180, 84), (-170, -80, -10, 80)])
def test_an_area_as_large_as_the_world(bundle, by_pixel, scene, world):
    """Much of it has no image in the CRS of the scene."""
    summary, classes = mapped(scene, area(shapely.box(*world), crs="EPSG:4326"), bundle)
    np.testing.assert_array_equal(classes, brightest(image(*SHAPE)))
    assert summary.nodata_share == 0


def test_a_scene_across_the_date_line(bundle, by_pixel, tmp_path):
    where = Affine(1, 0, 833_978.56 - 40, 0, -1, 30)  # UTM 60, longitude 180 on the equator
    scene = write_raster(tmp_path / "s.tif", image(*SHAPE), transform=where, crs="EPSG:32660")
    _, classes = mapped(scene, area(shapely.box(179, -1, 180, 1), crs="EPSG:4326"), bundle)
    assert (classes[:, :39] != 255).all()
    assert (classes[:, 41:] == 255).all()


def test_a_rotated_scene(bundle, by_pixel, tmp_path):
    turned = Affine(0.8, -0.6, 500000, -0.6, -0.8, 4000000)
    scene = write_raster(tmp_path / "s.tif", image(*SHAPE), transform=turned)
    polygon = shapely.Polygon([(10.2, 10.2), (50.2, 14.2), (30.2, 44.2)])
    summary, classes = mapped(scene, area(on_scene(polygon, turned)), bundle, core_px=32)
    inside = shapely.contains_xy(polygon, *centres())
    np.testing.assert_array_equal(classes != 255, inside)
    assert sum(summary.pixels.values()) == inside.sum()
    assert sum(summary.area_m2.values()) == pytest.approx(inside.sum())


def test_files_and_splits(bundle, by_pixel, scene, tmp_path):
    """All polygons count, whatever split they are of."""
    polygons = [shapely.box(2, 2, 12, 12), shapely.box(30, 30, 50, 50)]
    frame = gpd.GeoDataFrame({"split": ["train", "test"]}, geometry=[on_scene(p) for p in polygons], crs="EPSG:32610")
    frame.to_file(tmp_path / "a.gpkg")
    expected = np.full(SHAPE, 255, np.uint8)
    for part in (np.s_[2:12, 2:12], np.s_[30:50, 30:50]):
        expected[part] = brightest(image(*SHAPE))[part]
    for aoi in (tmp_path / "a.gpkg", str(tmp_path / "a.gpkg")):
        np.testing.assert_array_equal(mapped(scene, aoi, bundle)[1], expected)


def test_with_both_modalities_shares_are_those_of_the_area(bundle, by_pixel, scene, tmp_path):
    metres = heights(*SHAPE)
    metres[:, :40] = -1
    dsm = write_raster(tmp_path / "d.tif", metres, nodata=-1)
    summary = predict(scene, tmp_path / "m.tif", bundle, elevation=dsm, aoi=area(on_scene(shapely.box(10, 0, 50, 20))))
    assert summary.decided == {"optical": 0.75, "elevation": 0, "both": 0.25}
    decided = decided_in(tmp_path / "m.tif")
    assert (decided[:20, 10:40] == 1).all()
    assert (decided[:20, 40:50] == 3).all()
    assert (decided != 255).sum() == 20 * 40


def test_an_area_elsewhere(bundle, scene):
    before = names_in(scene.parent)
    for aoi in (area(on_scene(shapely.box(200, 0, 210, 10))), area(shapely.box(7, 50, 8, 51), crs="EPSG:4326")):
        with pytest.raises(OverlapError) as error:
            mapped(scene, aoi, bundle)
        assert str(error.value) == (
            f"area: the area does not meet {scene} (3 bands uint8, 60 rows x 80 columns at 1 m, EPSG:32610).\n"
            "Check that both show the same place and carry the right CRS."
        )
    assert names_in(scene.parent) == before


def test_an_area_beside_the_scene_that_its_bounding_box_meets(bundle, scene):
    l_shape = shapely.box(-10, -10, 90, 70) - shapely.box(-1, -1, 90, 70)
    with pytest.raises(OverlapError, match="area: the area does not meet"):
        mapped(scene, area(on_scene(l_shape)), bundle)


def test_an_area_between_the_centres_of_pixels(bundle, by_pixel, scene):
    before = names_in(scene.parent)
    with pytest.raises(OverlapError) as error:
        mapped(scene, area(on_scene(shapely.box(10.6, 10.6, 11.4, 11.4))), bundle)
    assert str(error.value) == (
        f"{scene}: the area holds the centre of none of its pixels (3 bands uint8, 60 rows x 80 columns at 1 m, "
        "EPSG:32610).\nGive a larger area, or leave it out."
    )
    assert names_in(scene.parent) == before


def test_an_area_of_one_pixel(bundle, by_pixel, scene):
    summary, classes = mapped(scene, area(on_scene(shapely.box(10.4, 20.4, 10.6, 20.6))), bundle)
    assert np.argwhere(classes != 255).tolist() == [[20, 10]]
    assert summary.nodata_share == 0
    assert sum(summary.pixels.values()) == 1


def test_an_area_without_a_valid_pixel(bundle, by_pixel, tmp_path):
    values = image(*SHAPE)
    values[:, :, :20] = 0
    scene = write_raster(tmp_path / "s.tif", values, nodata=0)
    with pytest.raises(RasterError) as error:
        mapped(scene, area(on_scene(shapely.box(2, 2, 9, 9))), bundle)
    assert str(error.value) == (
        f"{scene}: no pixel is valid for optical in the area: all are nodata, masked or NaN.\n"
        "Expected at least one valid pixel. Check the nodata tag: it may name the value of the data."
    )
    assert names_in(tmp_path) == ["s.tif"]


def test_an_area_on_another_planet(bundle, scene):
    with pytest.raises(AOIError, match="area: cannot be put in the CRS of the raster"):
        mapped(scene, area(shapely.box(0, 0, 1, 1), crs="IAU_2015:49900"), bundle)


def test_a_file_without_polygons(bundle, scene, tmp_path):
    points = {"type": "Point", "coordinates": [-123, 36]}
    (tmp_path / "p.geojson").write_text(json.dumps(points))
    with pytest.raises(AOIError, match=r"p\.geojson"):
        mapped(scene, tmp_path / "p.geojson", bundle)
    with pytest.raises(AOIError, match=r"none\.geojson: no such file"):
        mapped(scene, tmp_path / "none.geojson", bundle)
