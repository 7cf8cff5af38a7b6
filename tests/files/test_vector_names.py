"""Which names lead to shapes, and which to rasters."""

from __future__ import annotations

import sqlite3
import zipfile

import pytest

from geocrodino.files.vector_names import is_vector, vector_files_in, without_layer


@pytest.mark.parametrize(
    "name", ["a.gpkg", "a.GeoJSON", "https://x.org/a.fgb", "a.gpkg|layername=b", "a.gdb", "a.shp.gz"]
)
def test_shapes_by_name(name):
    assert is_vector(name)


@pytest.mark.parametrize("name", ["a.tif", "folder", "a.txt", "a.tar.gz", ("a.gpkg", "a.tif"), ()])
def test_no_shapes_by_name(name):
    assert not is_vector(name)


def test_a_stac_item_leads_to_rasters(tmp_path):
    (tmp_path / "item.json").write_text('{"type": "Feature", "assets": {}}')
    (tmp_path / "shapes.json").write_text('{"type": "FeatureCollection", "features": []}')
    assert not is_vector(tmp_path / "item.json")
    assert is_vector(tmp_path / "shapes.json")


@pytest.mark.parametrize(
    ("kinds", "expected"), [(("tiles",), False), (("tiles", "features"), True), (("features",), True)]
)
def test_a_geopackage_of_tiles_alone_is_a_raster(tmp_path, kinds, expected):
    with sqlite3.connect(tmp_path / "a.gpkg") as content:
        content.execute("CREATE TABLE gpkg_contents (data_type TEXT)")
        content.executemany("INSERT INTO gpkg_contents VALUES (?)", [(kind,) for kind in kinds])
    assert is_vector(tmp_path / "a.gpkg") == expected


@pytest.mark.parametrize(
    ("names", "expected"), [(("a.shp", "a.dbf"), True), (("a.tif",), False), (("a.shp", "a.tif"), False)]
)
def test_a_zip_archive_is_looked_into(tmp_path, names, expected):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "")
    assert is_vector(tmp_path / "a.zip") == expected


def test_a_folder_with_a_raster_is_no_folder_of_shapes(tmp_path):
    for name in ("b.gpkg", "a.geojson", ".hidden.shp", "notes.txt"):
        (tmp_path / name).touch()
    assert vector_files_in(str(tmp_path)) == [str(tmp_path / "a.geojson"), str(tmp_path / "b.gpkg")]
    assert is_vector(tmp_path)
    assert is_vector(tmp_path / "*")
    (tmp_path / "image.tif").touch()
    assert not is_vector(tmp_path)
    assert not is_vector(tmp_path / "*")


def test_a_layer_is_no_part_of_the_name():
    assert without_layer("a.gpkg|layername=b") == "a.gpkg"
    assert without_layer("a.gpkg") == "a.gpkg"
