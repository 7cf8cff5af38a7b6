"""Areas of interest in every format, and each reason to refuse one."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely

from geocrodino.errors import AOIError, AreaWarning
from geocrodino.geo.areas.aoi import AOI, area_file, from_polygons, read_aoi

SQUARE = shapely.box(0, 0, 1, 1)
BESIDE = shapely.box(2, 0, 3, 1)


@pytest.fixture
def save(tmp_path):
    def save(name, geometries, crs="EPSG:32631", **columns):
        path = tmp_path / name
        gpd.GeoDataFrame(columns, geometry=geometries, crs=crs).to_file(path)
        return path

    return save


def refusal(source, crs=None) -> str:
    with pytest.raises(AOIError) as caught:
        read_aoi(source, crs)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.geojson", "a.fgb"])
@pytest.mark.parametrize("column", ["split", "Split", "SPLIT"])
def test_formats_and_columns(save, name, column):
    aoi = read_aoi(save(name, [SQUARE, BESIDE], **{column: ["train", " VAL "], "other": [1, 2]}))
    assert aoi.splits == ("train", "val")
    assert aoi.crs.to_epsg() == 32631
    assert aoi.polygons("train").equals(SQUARE)
    assert aoi.polygons().area == pytest.approx(2)
    assert list(aoi.frame.columns) == ["split", "geometry"]


def test_without_splits(save):
    aoi = read_aoi(save("a.gpkg", [SQUARE]))
    assert aoi.splits == ()
    with pytest.raises(
        AOIError, match=r"a\.gpkg: no polygon of the split 'val'\. Found: no column `split`\.\n"
    ) as error:
        aoi.polygons("val")
    assert str(error.value).endswith("\nSplits that a training drew are in splits.gpkg of its folder.")


def test_a_split_that_is_not_there(save):
    aoi = read_aoi(save("a.gpkg", [SQUARE, BESIDE], split=["train", "test"]))
    with pytest.raises(AOIError, match=r"no polygon of the split 'val'\. Found: train, test\.$"):
        aoi.polygons("val")


def test_bounding_box():
    aoi = read_aoi("1,2,3.5,4", "EPSG:4326")
    assert aoi.polygons().bounds == (1, 2, 3.5, 4)
    assert aoi.crs.to_epsg() == 4326
    assert read_aoi(" 1, 2, 3.5, 4", "EPSG:4326").polygons().equals(aoi.polygons())


def test_bounding_boxes_that_are_refused(tmp_path):
    assert refusal("1,2,3,4") == "1,2,3,4: a bounding box needs a CRS. Name it, for instance: `aoi_crs='EPSG:4326'`"
    assert refusal("1,2,3,4", "EPSG:0") == (
        "'EPSG:0' is not a coordinate reference system. Expected for instance EPSG:32631, WKT or a PROJ string."
    )


def test_a_shapefile_without_prj(save):
    path = save("a.shp", [SQUARE])
    path.with_suffix(".prj").unlink()
    assert refusal(path) == (
        f"{path}: no coordinate reference system. Expected one in the file (a .prj beside a Shapefile), found none.\n"
        "Name it, for instance: `aoi_crs='EPSG:4326'`"
    )
    assert read_aoi(path, "EPSG:2154").crs.to_epsg() == 2154


def test_files_that_hold_no_area(tmp_path, save):
    empty = tmp_path / "empty.geojson"
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    assert refusal(empty) == f"{empty}: holds no polygon.\nDraw polygons in it, or name another area."
    lines = save("lines.gpkg", [SQUARE, SQUARE.boundary, shapely.Point(0, 0)])
    assert refusal(lines) == f"{lines}: expected polygons only, found LineString, Point."
    closed = save("closed.gpkg", [SQUARE.boundary])
    assert refusal(closed).startswith(
        f"{closed}: expected polygons only, found LineString.\n"
        "The lines are closed. Make areas.gpkg with polygons of them: python -c "
    )
    flat = tmp_path / "flat.geojson"
    ring = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0], [0, 0]]]}
    flat.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": ring}))
    assert refusal(flat) == f"{flat}: holds no polygon with an area.\nDraw polygons in it, or name another area."
    text = tmp_path / "a.gpkg"
    text.write_text("no geopackage")
    assert refusal(text).startswith(f"{text}: not a file of polygons that GDAL can read (")
    table = tmp_path / "a.csv"
    table.write_text("a,b\n1,2\n")
    assert refusal(table) == f"{table}: holds no polygon.\nA table needs a column WKT with the polygons."


def test_rows_without_geometry(save):
    path = save("a.gpkg", [SQUARE, None, None])
    assert refusal(path) == f"{path}: 2 of 3 rows have no geometry. Delete them, or draw their polygons."
    mixed = save("b.geojson", [SQUARE.boundary, None])
    assert refusal(mixed) == f"{mixed}: 1 of 2 rows have no geometry. Delete them, or draw their polygons."


def test_unknown_splits(save):
    path = save("a.gpkg", [SQUARE, BESIDE], split=["train", "evaluation"])
    told = f"{path}: unknown split 'evaluation' in the column `split`. Expected train, val, test, unlabelled."
    assert refusal(path) == told
    assert read_aoi(path, splits="none").splits == ()
    assert read_aoi(path, splits="none").polygons().area == 2
    with pytest.warns(AreaWarning, match=r"1 of 2 rows have no known split in the column `split`, and are left out\.$"):
        assert read_aoi(path, splits="train").polygons().area == 1


def test_rows_without_a_split(save):
    path = save("a.gpkg", [SQUARE, BESIDE, BESIDE], split=["train", None, " "])
    assert refusal(path) == (
        f"{path}: 2 of 3 rows have no value in the column `split`. Expected train, val, test, unlabelled. "
        "Fill them in, or delete the rows."
    )


def test_overlapping_splits(save):
    path = save("a.gpkg", [shapely.box(0, 0, 4, 1), shapely.box(3, 0, 5, 1)], split=["train", "test"])
    assert refusal(path) == (
        f"{path}: the splits train and test overlap by 50 % of test. "
        "Cut them apart: what is learned from must not be reported on."
    )


def test_overlaps_matter_where_a_split_is_judged(save):
    """Train and test overlap, val lies apart."""
    shapes = [shapely.box(0, 0, 4, 1), shapely.box(3, 0, 5, 1), shapely.box(7, 0, 8, 1)]
    path = save("a.gpkg", shapes, split=["train", "test", "val"])
    assert read_aoi(path, splits="none").polygons().area == 6
    assert read_aoi(path, splits="val").polygons("val").area == 1
    assert read_aoi(path, splits="train").polygons("train").area == 4
    with pytest.raises(AOIError, match=r"the splits train and test overlap by 50 % of test\."):
        read_aoi(path, splits="test")


def test_splits_that_touch_are_allowed(save):
    aoi = read_aoi(save("a.gpkg", [SQUARE, shapely.box(1, 0, 2, 1)], split=["train", "test"]))
    assert aoi.polygons("test").area == 1


def test_a_bow_tie_is_mended(save):
    tie = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    assert read_aoi(save("a.gpkg", [tie])).polygons().area == pytest.approx(0.5)


def test_only_areas_count(save):
    """A square of 2 x 2 with a spike, a line that is drawn as a polygon, and an empty polygon: 4 of area."""
    spike = shapely.Polygon([(0, 0), (2, 0), (2, 2), (2, 5), (2, 2), (0, 2)])
    flat = shapely.Polygon([(5, 5), (6, 6), (5, 5)])
    path = save("a.gpkg", [spike, flat, shapely.Polygon()], split=["train", "test", "test"])
    with pytest.warns(AreaWarning) as caught:
        aoi = read_aoi(path)
    assert [str(w.message) for w in caught] == [
        f"{path}: 2 of 3 rows have no area, and do not count.",
        f"{path}: 1 of 3 rows also hold parts without an area; their areas alone count.",
    ]
    assert aoi.polygons().equals(shapely.box(0, 0, 2, 2))
    assert aoi.splits == ("train",)


def test_polygons_with_heights_are_flat(save):
    path = save("a.gpkg", [shapely.force_3d(SQUARE, 7.0)])
    assert not read_aoi(path).polygons().has_z
    assert read_aoi(path).polygons().equals(SQUARE)


def test_collections_of_polygons(save):
    with pytest.warns(AreaWarning, match=r"1 of 2 rows also hold parts without an area; their areas alone count\.$"):
        aoi = read_aoi(
            save("a.gpkg", [shapely.GeometryCollection([SQUARE, shapely.Point(9, 9)]), shapely.MultiPolygon([BESIDE])])
        )
    assert aoi.polygons().equals(shapely.union_all([SQUARE, BESIDE]))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_coordinates_that_are_no_numbers(save):
    broken = shapely.Polygon([(0, 0), (1, 0), (np.inf, 1), (0, 0)])
    path = save("a.gpkg", [SQUARE, broken])
    assert refusal(path) == (
        f"{path}: 1 of 2 rows have coordinates that are not finite numbers. Delete them, or draw them again."
    )


def test_another_planet(save):
    with pytest.raises(AOIError, match=r"a\.gpkg: cannot be put in the CRS of the raster \("):
        read_aoi(save("a.gpkg", [SQUARE])).to_crs("ESRI:104905")


def test_an_area_to_learn_from_without_labels(save):
    aoi = read_aoi(save("a.gpkg", [SQUARE, BESIDE], split=["Unlabelled", "train"]))
    assert aoi.splits == ("train", "unlabelled")
    assert aoi.polygons("unlabelled").equals(SQUARE)
    path = save("b.gpkg", [SQUARE, SQUARE], split=["unlabelled", "test"])
    assert "the splits test and unlabelled overlap by 100 % of unlabelled." in refusal(path)


def test_degrees_on_earth():
    aoi = from_polygons({"train": shapely.box(400_000, 5_000_000, 401_000, 5_001_000)}, "EPSG:32631", "here")
    west, south, east, north = aoi.in_degrees("train").bounds
    assert (west, south) == pytest.approx((1.728, 45.146), abs=1e-3)
    assert (east, north) == pytest.approx((1.740, 45.155), abs=1e-3)
    assert aoi.in_degrees().bounds == pytest.approx((west, south, east, north))
    with pytest.raises(AOIError, match="no polygon of the split 'val'"):
        aoi.in_degrees("val")


def test_degrees_on_mars():
    metres = pyproj.CRS.from_proj4("+proj=eqc +lon_0=0 +R=3396190 +units=m +no_defs")
    aoi = from_polygons({"train": shapely.box(0, 0, 59_274.7, 118_549.4)}, metres, "there")
    # One degree along the equator is pi * R / 180.
    assert aoi.in_degrees("train").bounds == pytest.approx((0, 0, 1, 2), abs=1e-5)
    degrees = from_polygons({"train": SQUARE}, "ESRI:104905", "there")
    assert degrees.in_degrees("train").equals(SQUARE)


def test_save_and_read_back(tmp_path):
    aoi = from_polygons({"train": SQUARE, "val": BESIDE}, "EPSG:32631", "blocks")
    aoi.save(tmp_path / "splits.gpkg")
    aoi.save(tmp_path / "splits.gpkg")
    again = read_aoi(tmp_path / "splits.gpkg")
    assert isinstance(again, AOI)
    assert again.splits == ("train", "val")
    assert again.polygons("val").equals(BESIDE)
    assert [p.name for p in tmp_path.iterdir()] == ["splits.gpkg"]


def test_the_file_of_an_area(save):
    path = save("a.gpkg", [SQUARE])
    assert area_file(None) is None
    assert area_file("1,2,3,4") is None
    assert area_file(path) == area_file(f"{path}|layername=a") == area_file(read_aoi(path)) == path
    assert area_file(from_polygons({"train": SQUARE}, "EPSG:32631", "here")) is None
