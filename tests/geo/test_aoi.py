"""Areas of interest in every format, and each reason to refuse one."""

from __future__ import annotations

import json

import geopandas as gpd
import pyproj
import pytest
import shapely

from geocrodino.errors import AOIError
from geocrodino.geo.aoi import AOI, from_polygons, read_aoi

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
    assert refusal("1,2,3,4") == "1,2,3,4: a bounding box needs a CRS. Name it, for instance: --aoi-crs EPSG:4326"
    words = "expected minx,miny,maxx,maxy with minx < maxx and miny < maxy."
    for box in ("3,2,1,4", "1,4,3,4", "nan,2,3,4", "1,2,inf,4"):
        assert refusal(box, "EPSG:4326") == f"{box}: {words}"
    assert refusal("1,2,3,4", "EPSG:0") == (
        "'EPSG:0' is not a coordinate reference system. Expected for instance EPSG:32631."
    )
    assert refusal("1,2,3") == "1,2,3: no such file. Expected polygons, or a bounding box minx,miny,maxx,maxy."


def test_a_shapefile_without_prj(save):
    path = save("a.shp", [SQUARE])
    path.with_suffix(".prj").unlink()
    assert refusal(path) == (
        f"{path}: no coordinate reference system. Expected one in the file (a .prj beside a Shapefile), found none.\n"
        "Name it, for instance: --aoi-crs EPSG:4326"
    )
    assert read_aoi(path, "EPSG:2154").crs.to_epsg() == 2154


def test_files_that_hold_no_area(tmp_path, save):
    empty = tmp_path / "empty.geojson"
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    assert refusal(empty) == f"{empty}: holds no polygon."
    lines = save("lines.gpkg", [SQUARE, SQUARE.boundary, shapely.Point(0, 0)])
    assert refusal(lines) == f"{lines}: expected polygons only, found LineString, Point."
    flat = tmp_path / "flat.geojson"
    ring = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0], [0, 0]]]}
    flat.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": ring}))
    assert refusal(flat) == f"{flat}: holds no polygon with an area."
    text = tmp_path / "a.gpkg"
    text.write_text("no geopackage")
    assert refusal(text).startswith(f"{text}: not a file of polygons that GDAL can read (")
    table = tmp_path / "a.csv"
    table.write_text("a,b\n1,2\n")
    assert refusal(table) == f"{table}: holds no polygon."


def test_several_layers(save):
    path = save("a.gpkg", [SQUARE])
    gpd.GeoDataFrame(geometry=[BESIDE], crs="EPSG:32631").to_file(path, layer="old plan")
    assert refusal(path) == (
        f"{path}: expected one layer of polygons, found 2: a, old plan.\n"
        f"Write the right one to a file of its own, for instance: ogr2ogr aoi.gpkg {path} a"
    )


def test_rows_without_geometry(save):
    path = save("a.gpkg", [SQUARE, None, None])
    assert refusal(path) == f"{path}: 2 of 3 rows have no geometry. Delete them, or draw their polygons."
    mixed = save("b.geojson", [SQUARE.boundary, None])
    assert refusal(mixed) == f"{mixed}: 1 of 2 rows have no geometry. Delete them, or draw their polygons."


def test_unknown_splits(save):
    path = save("a.gpkg", [SQUARE, BESIDE], split=["train", "validation"])
    assert refusal(path) == f"{path}: unknown split 'validation'. Expected train, val, test, unlabelled."
    path = save("b.gpkg", [SQUARE, BESIDE], split=["train", None])
    assert "unknown split" in refusal(path)


def test_overlapping_splits(save):
    path = save("a.gpkg", [shapely.box(0, 0, 4, 1), shapely.box(3, 0, 5, 1)], split=["train", "test"])
    assert refusal(path) == (
        f"{path}: the splits train and test overlap by 50 % of test. "
        "Cut them apart: what is learned from must not be reported on."
    )


def test_splits_that_touch_are_allowed(save):
    aoi = read_aoi(save("a.gpkg", [SQUARE, shapely.box(1, 0, 2, 1)], split=["train", "test"]))
    assert aoi.polygons("test").area == 1


def test_a_bow_tie_is_mended(save):
    tie = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    assert read_aoi(save("a.gpkg", [tie])).polygons().area == pytest.approx(0.5)


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
