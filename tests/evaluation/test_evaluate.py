"""A map against labels: on one grid, on two, within areas, and with mistakes in the files."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import box

from geocrodino.errors import AOIError, LabelError, LabelWarning, OverlapError, RasterError
from geocrodino.evaluation.evaluate import evaluate_map, evaluate_maps
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.maps.files import class_map, layer_file, read_classes
from geocrodino.maps.writer import MapWriter
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.labels import LabelRules

X, Y = 400_000.0, 5_000_000.0

LABELS = [[1, 1, 2, 2], [1, 1, 2, 2], [7, 7, 255, 255]]
MAP = [[1, 1, 2, 1], [1, 2, 2, 2], [7, 255, 7, 1]]


def _areas(tmp_path, crs="EPSG:32631", **splits):
    frame = gpd.GeoDataFrame({"split": list(splits)}, geometry=list(splits.values()), crs="EPSG:32631").to_crs(crs)
    frame.to_file(tmp_path / "aoi.geojson", driver="GeoJSON")
    return tmp_path / "aoi.geojson"


def test_one_grid_by_hand(write_map, write_labels, scheme):
    result = evaluate_map(write_map(MAP), write_labels(LABELS), count_missed=True)
    np.testing.assert_array_equal(result.confusion, [[3, 1, 0], [1, 3, 0], [0, 0, 1]])
    np.testing.assert_array_equal(result.missed, [0, 0, 1])
    assert result.scheme == scheme
    assert result.scores.accuracy == pytest.approx(7 / 10)
    assert result.scores.iou == pytest.approx((3 / 5, 3 / 5, 1 / 2))
    assert (result.aoi, result.split) == (None, None)


@pytest.mark.parametrize("block_px", [1, 2, 3, 1024])
def test_blocks_do_not_change_the_result(write_map, write_labels, block_px):
    result = evaluate_map(write_map(MAP), write_labels(LABELS), block_px=block_px)
    np.testing.assert_array_equal(result.confusion, [[3, 1, 0], [1, 3, 0], [0, 0, 1]])


def test_only_pixels_whose_centre_lies_in_the_areas_count(write_map, write_labels, tmp_path):
    areas = _areas(tmp_path, train=box(X, Y - 2, X + 1.6, Y), test=box(X + 1.6, Y - 0.6, X + 3.4, Y))
    result = evaluate_map(write_map(MAP), write_labels(LABELS), aoi=areas, split="test")
    np.testing.assert_array_equal(result.confusion, [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    both = evaluate_map(write_map(MAP), write_labels(LABELS), aoi=areas)
    assert both.scores.pixels == 5
    assert (result.aoi, result.split) == (str(areas), "test")


def test_areas_in_another_crs_choose_the_same_pixels(write_map, write_labels, tmp_path):
    labels, predicted = write_labels(LABELS), write_map(MAP)
    shape = box(X - 0.3, Y - 1.7, X + 2.7, Y + 0.2)
    results = [
        evaluate_map(predicted, labels, aoi=_areas(tmp_path, crs, val=shape), split="val")
        for crs in ("EPSG:32631", "EPSG:4326")
    ]
    assert results[0].scores.pixels == 6
    np.testing.assert_array_equal(results[0].confusion, results[1].confusion)


def test_labels_beyond_the_map_count_as_missed(write_map, write_labels):
    result = evaluate_map(write_map([[1, 1]]), write_labels([[1, 1, 1, 2]]), count_missed=True)
    np.testing.assert_array_equal(result.missed, [1, 1, 0])
    assert result.scores.missed == 2
    assert result.scores.accuracy == 0.5


def test_labels_without_a_class_in_the_map_are_left_out_by_default(write_map, write_labels):
    result = evaluate_map(write_map(MAP), write_labels(LABELS))
    np.testing.assert_array_equal(result.missed, [0, 0, 1])
    assert (result.scores.pixels, result.scores.missed) == (10, 1)
    assert result.scores.accuracy == pytest.approx(7 / 9)
    assert result.scores.iou == pytest.approx((3 / 5, 3 / 5, 1))


def test_a_finer_map_is_read_by_its_most_frequent_class(write_map, write_labels):
    fine = [[1, 1, 2, 7], [1, 2, 7, 7], [2, 2, 255, 255], [2, 1, 255, 7]]
    result = evaluate_map(write_map(fine, pixel=1.0), write_labels([[1, 7], [2, 2]], pixel=2.0))
    np.testing.assert_array_equal(result.confusion, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(result.missed, [0, 1, 0])


def test_a_coarser_map_is_read_by_its_nearest_pixel(write_map, write_labels):
    result = evaluate_map(write_map([[1, 2], [7, 7]], pixel=2.0), write_labels(np.repeat([[1, 1, 2, 2]], 2, axis=0)))
    np.testing.assert_array_equal(result.confusion, [[4, 0, 0], [0, 4, 0], [0, 0, 0]])


def test_a_map_in_another_crs_agrees_with_where_things_are(write_map, write_labels, tmp_path, scheme):
    """Halves of a field, in UTM labels and in a map of degrees, differ by the pixels along the border only."""
    values = np.ones((200, 200), np.uint8)
    values[:, 100:] = 7
    labels = write_labels(values)
    grid = GeoBox((200, 200), Affine(1, 0, X, 0, -1, Y), "EPSG:32631").to_crs("EPSG:4326", resolution=0.000009)
    lon, lat = np.meshgrid(
        grid.affine.c + (np.arange(grid.shape[1]) + 0.5) * grid.affine.a,
        grid.affine.f + (np.arange(grid.shape[0]) + 0.5) * grid.affine.e,
    )
    east = gpd.points_from_xy(lon.ravel(), lat.ravel(), crs=4326).to_crs(32631).x.reshape(grid.shape)
    with MapWriter((class_map(tmp_path / "degrees.tif", scheme),), grid) as writer:
        writer.write((0, grid.shape[0], 0, grid.shape[1]), [np.where(east < X + 100, 1, 7).astype(np.uint8)[None]])
    result = evaluate_map(tmp_path / "degrees.tif", labels)
    assert result.scores.missed == 0
    assert result.scores.accuracy > 0.995
    assert result.confusion[0, 2] + result.confusion[2, 0] <= 200


def test_ignored_values_do_not_count(write_map, write_labels):
    labels = write_labels([[1, 2, 9, 9]], nodata=None)
    with pytest.raises(LabelError, match=r"labels.tif holds label values outside the classes: 9"):
        evaluate_map(write_map([[1, 1, 2, 7]]), labels)
    result = evaluate_map(write_map([[1, 1, 2, 7]]), labels, ignore_values=(9,))
    assert result.scores.pixels == 2


def test_a_map_value_of_no_class_is_told(write_map, write_labels):
    with pytest.raises(LabelError, match=r"map.tif holds values outside the classes: 4"):
        evaluate_map(write_map([[1, 4]]), write_labels([[1, 1]]))


@pytest.mark.parametrize("block_px", [1, 1024])
def test_values_of_no_class_outside_the_areas_do_not_matter(write_map, write_labels, tmp_path, block_px):
    """Neither those of the labels nor those of the map, whatever the blocks."""
    labels, predicted = write_labels([[1, 1, 9, 2]]), write_map([[1, 2, 4, 4]])
    areas = _areas(tmp_path, test=box(X, Y - 1, X + 2, Y))
    result = evaluate_map(predicted, labels, aoi=areas, split="test", block_px=block_px)
    np.testing.assert_array_equal(result.confusion, [[1, 1, 0], [0, 0, 0], [0, 0, 0]])


def test_given_classes_must_be_those_of_the_map(write_map, write_labels):
    other = ClassScheme.from_values([1, 2], ["grass", "water"])
    path = write_map([[1, 2]])
    with pytest.raises(LabelError) as caught:
        evaluate_map(path, write_labels([[1, 1]]), classes=other)
    assert str(caught.value) == (
        f"{path}: the map's classes differ from the given ones. Expected 1 grass, 2 water; "
        "found 1 grass, 2 road, 7 roof.\n"
        "Give the classes that the map was made with, or leave them out to use the map's own."
    )


def test_a_map_without_names_needs_classes(write_labels, scheme):
    bare, labels = write_labels([[1, 2]], name="bare.tif"), write_labels([[1, 1]])
    with pytest.raises(RasterError, match=r"bare.tif: names no classes: expected a tag CLASSES, found none"):
        evaluate_map(bare, labels)
    assert evaluate_map(bare, labels, classes=scheme).scores.accuracy == 0.5


def test_class_tag_that_is_no_list_of_classes_is_told(write_labels):
    import rasterio

    path = write_labels([[1]])
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(CLASSES='[{"value": "x"}]')
    with pytest.raises(RasterError, match="the tag CLASSES does not list classes"):
        read_classes(path)


def test_files_that_do_not_meet_are_told(write_map, write_labels, tmp_path):
    labels = write_labels(LABELS)
    with pytest.raises(OverlapError, match=r"map.tif: the map raster does not meet"):
        evaluate_map(write_map(MAP, origin=(X + 500, Y)), labels)
    areas = _areas(tmp_path, test=box(X + 50, Y, X + 60, Y + 10))
    with pytest.raises(
        OverlapError, match=r"aoi.geojson \(test\) does not meet the labels .*labels.tif: expected area"
    ):
        evaluate_map(write_map(MAP), labels, aoi=areas, split="test")


def test_missing_things_are_told(write_map, write_labels, tmp_path):
    labels, predicted = write_labels(LABELS), write_map(MAP)
    with pytest.raises(RasterError, match=r"none.tif: no such file"):
        evaluate_map(tmp_path / "none.tif", labels)
    areas = _areas(tmp_path, train=box(X, Y - 2, X + 2, Y))
    with pytest.raises(AOIError, match=r"no polygon of the split 'test'. Found: train"):
        evaluate_map(predicted, labels, aoi=areas, split="test")
    with pytest.raises(ValueError, match="a split needs an area of interest"):
        evaluate_map(predicted, labels, split="test")
    empty = _areas(tmp_path, test=box(X + 2, Y - 3, X + 4, Y - 2))
    with pytest.raises(LabelError, match=r"expected labelled pixels in .*aoi.geojson \(test\), found none"):
        evaluate_map(predicted, labels, aoi=empty, split="test")


def test_blocks_outside_the_areas_are_not_read(write_map, write_labels, tmp_path, monkeypatch):
    labels = write_labels(np.ones((40, 40)))
    areas = _areas(tmp_path, test=box(X + 1, Y - 9, X + 9, Y - 1))
    windows = []
    read = RasterSource.read_own
    monkeypatch.setattr(RasterSource, "read_own", lambda s, w, b: windows.append((s.path.name, w)) or read(s, w, b))
    result = evaluate_map(write_map(np.ones((40, 40))), labels, aoi=areas, block_px=10)
    assert result.scores.pixels == 64
    assert windows == [("labels.tif", (0, 10, 0, 10)), ("map.tif", (0, 10, 0, 10))]


def test_a_layer_of_confidence_says_how_far_it_can_be_believed(tmp_path, write_map, write_labels):
    """Sure and right twice; half sure and wrong twice: 2 / 4 of the samples are off by one half."""
    labels, found = write_labels([[1, 1, 7, 7, 1]]), write_map([[1, 7, 1, 7, 255]])
    assert evaluate_map(found, labels).reliability is None
    with rasterio.open(found) as file:
        grid = GeoBox(file.shape, file.transform, file.crs.to_wkt())
    layers = layer_file(found.with_name("map.layers.tif"), ("entropy", "confidence"))
    with MapWriter((layers,), grid) as writer:
        writer.write((0, 1, 0, 5), [np.array([[[9, 9, 9, 9, 255]], [[254, 127, 127, 254, 255]]], np.uint8)])
    result = evaluate_map(found, labels)
    assert result.reliability.count.sum() == 4
    assert result.reliability.expected_calibration_error == pytest.approx(0.25)
    assert result.as_dict()["calibration_error"] == pytest.approx(0.25)


@pytest.mark.parametrize("block_px", [1, 2, 1024])
def test_pixels_near_another_class_are_left_out(write_map, write_labels, block_px):
    """With 1 px, the columns beside the boundary between 1 and 2 and the rows above and on 7 do not count."""
    labels = [[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [7, 7, 7, 7, 7, 255]]
    predicted = [[1, 2, 2, 1, 2, 1], [2, 1, 1, 2, 2, 1], [7, 7, 7, 7, 7, 7]]
    result = evaluate_map(write_map(predicted), write_labels(labels), boundary_px=1, block_px=block_px)
    np.testing.assert_array_equal(result.confusion, [[1, 1, 0], [2, 1, 0], [0, 0, 0]])
    assert result.as_dict()["boundary_px"] == 1
    with pytest.raises(ValueError, match="expected a boundary of 0 px or more, found -1"):
        evaluate_map(write_map(predicted), write_labels(labels), boundary_px=-1)


@pytest.mark.parametrize("block_px", [1, 2, 1024])
@pytest.mark.parametrize("outside", [2, 99])
def test_classes_outside_the_areas_erode_those_inside(write_map, write_labels, tmp_path, outside, block_px):
    """Of three pixels inside, the two nearest to the other class do not count; 99 outside is an other class, no error.

    ISPRS erodes the whole image of labels. 255, no label, erodes nothing.
    """
    areas = _areas(tmp_path, test=box(X + 2, Y - 1, X + 5, Y))
    labels = write_labels([[255, 255, 1, 1, 1, outside, outside]])
    found = write_map([[1, 1, 1, 1, 1, 1, 1]])
    result = evaluate_map(found, labels, aoi=areas, split="test", boundary_px=2, block_px=block_px)
    np.testing.assert_array_equal(result.confusion, [[1, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_named_classes_outside_the_areas_erode_those_inside(write_map, tmp_path, scheme):
    """Shapes of a word that is no class of the map lie outside: the pixel beside them does not count."""
    first = scheme.names[0]
    shapes = gpd.GeoDataFrame(
        {"kind": [first, "swamp"]}, geometry=[box(X, Y - 1, X + 3, Y), box(X + 3, Y - 1, X + 5, Y)], crs="EPSG:32631"
    )
    shapes.to_file(tmp_path / "drawn.gpkg")
    areas = _areas(tmp_path, test=box(X, Y - 1, X + 3, Y))
    rules = LabelRules(column="kind")
    found = write_map([[1, 1, 1, 1, 1]])
    result = evaluate_map(found, tmp_path / "drawn.gpkg", aoi=areas, split="test", rules=rules, boundary_px=1)
    np.testing.assert_array_equal(result.confusion, [[2, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_an_excluded_class_is_in_no_mean_of_any_map(write_map, write_labels, scheme):
    """IoU of 1 and 2: 3/5 each; of 7: 1 (one pixel has no class in the map)."""
    names = [c.name for c in scheme.classes]
    found = evaluate_maps({"a": write_map(MAP)}, write_labels(LABELS), exclude=(names[2],))
    scores = found.common["a"].scores
    assert scores.iou == pytest.approx((3 / 5, 3 / 5, 1))
    assert scores.mean_iou == pytest.approx(3 / 5)
    assert scores.accuracy == pytest.approx(7 / 9)
    assert found.as_dict()["classes_in_no_mean"] == [names[2]]
    with pytest.raises(LabelError, match=r"expected classes to exclude among .*, found 'cluter'"):
        evaluate_map(write_map(MAP), write_labels(LABELS), exclude=("cluter",))


# --- several maps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_px", [1, 3, 1024])
def test_maps_are_compared_on_the_pixels_that_all_of_them_cover(write_map, write_labels, block_px):
    """MAP has one hole at a labelled pixel, the other map has two others."""
    other = [[255, 1, 2, 2], [1, 1, 255, 2], [7, 7, 1, 1]]
    maps = {"a": write_map(MAP, name="a.tif"), "b": write_map(other, name="b.tif")}
    labels = write_labels(LABELS)
    found = evaluate_maps(maps, labels, block_px=block_px)
    assert found.pixels == 7
    assert found.left_out == {"a": 2, "b": 1}
    np.testing.assert_array_equal(found.common["a"].confusion, [[2, 1, 0], [1, 2, 0], [0, 0, 1]])
    np.testing.assert_array_equal(found.common["b"].confusion, [[3, 0, 0], [0, 3, 0], [0, 0, 1]])
    assert not found.common["a"].missed.any()
    assert found.common["a"].scores.accuracy == pytest.approx(5 / 7)
    for name, path in maps.items():
        alone = evaluate_map(path, labels)
        np.testing.assert_array_equal(found.evaluations[name].confusion, alone.confusion)
        assert found.evaluations[name].scores == alone.scores


def test_maps_on_different_grids_are_compared(write_map, write_labels):
    maps = {
        "fine": write_map(np.repeat([[1, 1, 2, 255]], 2, axis=0), name="fine.tif"),
        "coarse": write_map([[1, 7]], pixel=2.0, name="coarse.tif"),
    }
    found = evaluate_maps(maps, write_labels(np.repeat([[1, 1, 2, 7]], 2, axis=0)))
    assert found.pixels == 6
    assert found.left_out == {"fine": 0, "coarse": 2}
    assert found.common["coarse"].scores.accuracy == pytest.approx(4 / 6)
    assert found.evaluations["coarse"].scores.accuracy == pytest.approx(6 / 8)


def test_missing_pixels_that_count_are_common(write_map, write_labels):
    maps = {"a": write_map(MAP, name="a.tif"), "b": write_map([[1, 255]], name="b.tif")}
    found = evaluate_maps(maps, write_labels(LABELS), count_missed=True)
    assert found.pixels == 10
    assert found.common == found.evaluations
    assert found.as_dict()["maps"]["b"]["missed"] == [3, 4, 2]
    assert found.as_dict()["missed_count_as_wrong"] is True


def test_maps_with_the_same_classes_in_another_order_or_colour(write_map, write_labels, scheme):
    turned = ClassScheme(classes=tuple(c.model_copy(update={"colour": "#123456"}) for c in scheme.classes[::-1]))
    maps = {"a": write_map(MAP, name="a.tif"), "b": write_map(MAP, name="b.tif", scheme=turned)}
    found = evaluate_maps(maps, write_labels(LABELS))
    np.testing.assert_array_equal(found.common["a"].confusion, found.common["b"].confusion)


def test_maps_that_cannot_be_compared(write_map, write_labels):
    labels = write_labels([[1, 1, 2, 2]])
    left, right = write_map([[1, 1, 255, 255]], name="l.tif"), write_map([[255, 255, 2, 2]], name="r.tif")
    with pytest.raises(LabelError) as caught:
        evaluate_maps({"left": left, "right": right}, labels)
    assert str(caught.value) == (
        f"{labels}: no labelled pixel has a class in every map: left, right.\n"
        "Evaluate them one by one, or count pixels without a class as wrong with `count_missed=True`."
    )
    with pytest.raises(ValueError, match="expected one or more maps, found none"):
        evaluate_maps({}, labels)
    fewer = write_map([[1, 2]], name="f.tif", scheme=ClassScheme.from_values([1, 2], ["grass", "road"]))
    with pytest.raises(LabelError) as caught:
        evaluate_maps({"left": left, "fewer": fewer}, labels)
    assert str(caught.value) == (
        f"The maps have different classes: {left} has 7 roof; {fewer} has no other.\nEvaluate them one by one."
    )


def test_labels_with_recoded_values(write_map, write_labels):
    labels = write_labels([[0, 255, 9]], nodata=None)
    result = evaluate_map(write_map([[1, 2, 2]]), labels, label_values={0: 1, 255: 2}, ignore_values=(9,))
    np.testing.assert_array_equal(result.confusion, [[1, 0, 0], [0, 1, 0], [0, 0, 0]])


def _named(labels, names):
    listed = "".join(f"<Category>{n}</Category>" for n in names)
    labels.with_name("labels.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{listed}</CategoryNames></PAMRasterBand></PAMDataset>'
    )
    return labels


@pytest.mark.parametrize(
    ("names", "differ"),
    [
        (["", "Grass", " ROAD "], None),
        (["", "class 1", "road"], None),
        (["", "road", "grass"], "1 is 'road' in the labels and 'grass' in the map; 2 is 'grass' in the labels and"),
        (["", "grass", "road", "", "", "", "", "house"], None),  # no pixel of the value 7
    ],
)
def test_names_of_the_labels_and_of_the_map(write_map, write_labels, names, differ, recwarn):
    evaluate_map(write_map([[1, 2]]), _named(write_labels([[1, 2]]), names))
    told = [str(w.message) for w in recwarn if issubclass(w.category, LabelWarning)]
    assert bool(told) == (differ is not None)
    assert all(differ in text for text in told)


def test_the_names_of_the_map_at_other_values(write_map, write_labels):
    predicted, labels = write_map([[1, 2, 7]]), _named(write_labels([[2, 1, 7]]), ["", "Road", "grass"])
    with pytest.warns(LabelWarning) as warned:
        found = evaluate_map(predicted, labels)
    np.testing.assert_array_equal(found.confusion, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert str(warned[0].message).endswith(
        "Classes are compared by value, not by name.\n"
        "Both have these names, at other values: `label_values={1: 2, 2: 1}` compares them by name."
    )
    found = evaluate_map(predicted, labels, label_values={1: 2, 2: 1})
    np.testing.assert_array_equal(found.confusion, np.eye(3))


def _shapes(tmp_path, **columns):
    """Two polygons over the first two rows of the map, and one over the third column of the last."""
    drawn = [box(X, Y - 2, X + 2, Y), box(X + 2, Y - 2, X + 4, Y), box(X + 2, Y - 3, X + 3, Y - 2)]
    gpd.GeoDataFrame(columns, geometry=drawn, crs="EPSG:32631").to_file(tmp_path / "shapes.gpkg")
    return tmp_path / "shapes.gpkg"


def test_polygons_are_compared_by_the_names_of_classes(write_map, scheme, tmp_path):
    """The alphabetical positions of the words differ from the map's values 1, 2 and 7."""
    found = evaluate_map(write_map(MAP), _shapes(tmp_path, use=["Grass", "road", "roof"]))
    assert found.scheme == scheme
    np.testing.assert_array_equal(found.confusion, [[3, 1, 0], [1, 3, 0], [0, 0, 1]])


def test_polygons_with_numbers_are_compared_by_value(write_map, tmp_path):
    found = evaluate_map(write_map(MAP), _shapes(tmp_path, code=[1, 2, 7]))
    np.testing.assert_array_equal(found.confusion, [[3, 1, 0], [1, 3, 0], [0, 0, 1]])


def test_a_word_that_is_no_class_of_the_map(write_map, tmp_path):
    shapes = _shapes(tmp_path, use=["grass", "rood", "roof"])
    with pytest.raises(
        LabelError, match=r"holds labels outside the classes: rood\. Expected: grass, road, roof\. Did you"
    ):
        evaluate_map(write_map(MAP), shapes)
    inside = _areas(tmp_path, test=box(X, Y - 2, X + 2, Y))
    assert evaluate_map(write_map(MAP), shapes, aoi=inside).scores.pixels == 4
    found = evaluate_map(write_map(MAP), shapes, rules=LabelRules(ignore="rood"))
    np.testing.assert_array_equal(found.confusion, [[3, 1, 0], [0, 0, 0], [0, 0, 1]])


def test_codes_of_labels_by_a_table(write_map, write_labels):
    rules = LabelRules(table={"road": [20, 21], "grass": 10, "roof": 30}, ignore=40)
    labels = write_labels([[10, 10, 20, 21], [10, 10, 20, 21], [30, 40, 30, 255]])
    found = evaluate_map(write_map(MAP), labels, rules=rules)
    np.testing.assert_array_equal(found.confusion, [[3, 1, 0], [1, 3, 0], [0, 0, 2]])
