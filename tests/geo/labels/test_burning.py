"""Which pixels shapes label, worked out by hand on grids of a few pixels."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize

from geocrodino.geo.labels import burning
from geocrodino.geo.labels.burning import Burner, Layers
from geocrodino.geo.rasters.window import Window

ALL = Window(0, 4, 0, 4)
N = -1  # nothing, in expected values


def burnt(areas, values, *, marks=None, touched=False, window=ALL):
    none = np.full(len(areas), None, object)
    layers = Layers(
        np.array(areas, object),
        none if marks is None else np.array(marks, object),
        np.array(values, np.float32),
        touched,
    )
    found, valid = Burner(layers).read(window)
    assert (valid == np.isfinite(found)).all()
    return np.where(valid, found, N).astype(int).tolist()


def test_the_centre_decides():
    """From 0.6 on, the centre 0.5 of the first column is outside; up to 2.5, the centre 2.5 is not held."""
    assert burnt([shapely.box(0.6, 1, 2.5, 3)], [7]) == [
        [N, N, N, N],
        [N, 7, N, N],
        [N, 7, N, N],
        [N, N, N, N],
    ]


def test_polygons_that_share_an_edge_through_centres_share_no_pixel():
    left, right = shapely.box(0, 0, 1.5, 4), shapely.box(1.5, 0, 4, 4)
    assert burnt([left, right], [1, 2]) == burnt([right, left], [2, 1]) == [[1, 2, 2, 2]] * 4


def test_all_touched_pixels():
    assert burnt([shapely.box(0.6, 1, 2.5, 2.2)], [7], touched=True) == [
        [N, N, N, N],
        [7, 7, 7, N],
        [7, 7, 7, N],
        [N, N, N, N],
    ]


def test_a_polygon_along_pixel_edges_touches_no_neighbour():
    assert burnt([shapely.box(1, 1, 3, 3)], [7], touched=True) == [
        [N, N, N, N],
        [N, 7, 7, N],
        [N, 7, 7, N],
        [N, N, N, N],
    ]


def test_later_shapes_are_on_top():
    large, small = shapely.box(0, 0, 4, 4), shapely.box(1, 1, 3, 3)
    assert burnt([large, small], [1, 2]) == [[1, 1, 1, 1], [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1]]
    assert burnt([small, large], [2, 1]) == [[1, 1, 1, 1]] * 4


def test_a_hole_shows_what_is_below():
    ring = shapely.box(0, 0, 4, 4).difference(shapely.box(1, 1, 3, 3))
    assert burnt([ring], [5]) == [[5, 5, 5, 5], [5, N, N, 5], [5, N, N, 5], [5, 5, 5, 5]]
    assert burnt([shapely.box(0, 0, 4, 2), ring], [1, 5])[1] == [5, 1, 1, 5]


def test_a_thin_line_labels_each_pixel_that_it_runs_through():
    """From (0.5, 0.5) to (3.5, 2.5): it enters column 1 at y = 0.83 and row 1 at x = 1.25, and so on."""
    line = shapely.LineString([(0.5, 0.5), (3.5, 2.5)])
    assert burnt([line.buffer(0.01)], [3], marks=[line]) == [
        [3, 3, N, N],
        [N, 3, 3, N],
        [N, N, 3, 3],
        [N, N, N, N],
    ]


def test_a_point_labels_at_least_its_pixel():
    corner = shapely.Point(2.9, 1.1)
    assert burnt([corner.buffer(0.05)], [4], marks=[corner]) == [
        [N, N, N, N],
        [N, N, 4, N],
        [N, N, N, N],
        [N, N, N, N],
    ]


def test_a_wide_line_labels_the_centres_within_its_width():
    line = shapely.LineString([(0, 2), (4, 2)])
    rows = [row[0] for row in burnt([line.buffer(1.2, cap_style="flat")], [6], marks=[line])]
    assert rows == [N, 6, 6, N]  # centres 0.5 away from the line, not those 1.5 away


def star(rng, points):
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    reach, (x, y) = rng.uniform(2, 40, points), rng.uniform(0, 100, 2)
    return shapely.Polygon(np.c_[x + reach * np.cos(angles), y + reach * np.sin(angles)]).buffer(0)


@pytest.mark.parametrize("touched", [False, True])
def test_a_pixel_has_the_same_value_in_every_window(touched, monkeypatch):
    rng = np.random.default_rng(0)
    shapes = np.array([star(rng, 9) for _ in range(60)], object)
    lines = np.array([shapely.LineString(rng.uniform(0, 100, (4, 2))) for _ in range(20)], object)
    areas = np.concatenate([shapes, shapely.buffer(lines, 0.7)])
    marks = np.concatenate([np.full(60, None, object), lines])
    burner = Burner(Layers(areas, marks, rng.integers(0, 255, 80).astype(np.float32), touched))
    whole, _ = burner.read(Window(-10, 110, -10, 110))
    monkeypatch.setattr(burning, "_STRIP_PX", 64)  # strips of a few rows
    monkeypatch.setattr(burning, "_SPAN_PX", 5)  # spans in many parts
    for row, col in rng.integers(-10, 90, (20, 2)).tolist():
        part, _ = burner.read(Window(row, row + 17, col, col + 13))
        np.testing.assert_array_equal(part, whole[row + 10 : row + 27, col + 10 : col + 23])


def test_centres_agree_with_gdal():
    rng = np.random.default_rng(5)
    shapes = [star(rng, 8) for _ in range(40)]
    found = burnt(shapes, range(40), window=Window(0, 100, 0, 100))
    expected = rasterize(zip(shapes, range(40), strict=True), (100, 100), fill=-1, dtype="int32")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("touched", [False, True])
def test_against_the_geometry_itself(touched):
    """Each pixel by shapely: whether it holds the centre, or shares an area with the pixel."""
    rng = np.random.default_rng(3)
    shape = star(rng, 11)
    found = np.array(burnt([shape], [1], touched=touched, window=Window(0, 100, 0, 100))) == 1
    y, x = np.mgrid[:100, :100]
    assert found.any()
    if not touched:
        np.testing.assert_array_equal(found, shapely.contains_xy(shape, x + 0.5, y + 0.5))
        return
    shared = shapely.area(shapely.intersection(shapely.box(x, y, x + 1, y + 1), shape))
    assert (shared[found] > 0).all()
    assert (shared[~found] < 2 * burning._SLACK_PX).all()  # a strip, or two corners, within the slack of the border
