"""Files of areas: layers, archives, URLs, and what is said about files that hold no areas."""

from __future__ import annotations

import ast
import gzip
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely

from geocrodino.errors import AccessError, AOIError, AreaWarning
from geocrodino.files.area_names import absolute_source
from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.geo.areas.sources import area_source, swapped_option

SQUARE = shapely.box(0, 0, 1, 1)
BESIDE = shapely.box(2, 0, 3, 1)


def write(path, shapes, layer=None, crs="EPSG:32631", **columns):
    gpd.GeoDataFrame(columns, geometry=shapes, crs=crs).to_file(path, **({"layer": layer} if layer else {}))
    return path


def refusal(source, crs=None) -> str:
    with pytest.raises(AOIError) as caught:
        read_aoi(source, crs)
    return str(caught.value)


def way_out(message: str) -> str:
    """What a message says that ``aoi`` should be."""
    return str(ast.literal_eval(message.splitlines()[-1].partition("`aoi=")[2].removesuffix("`")))


@pytest.fixture
def layers(tmp_path):
    """Points, then polygons, in one file."""
    path = write(tmp_path / "a.gpkg", [shapely.Point(9, 9)], "trees")
    return write(path, [SQUARE], "fields")


def test_the_layer_with_polygons(layers):
    with pytest.warns(AreaWarning) as caught:
        assert read_aoi(layers).polygons().equals(SQUARE)
    assert [str(w.message) for w in caught] == [
        f"{layers}: the layer fields is read, the only one with polygons (others: trees)."
    ]


def test_an_empty_layer_of_polygons_is_none(layers):
    empty = gpd.GeoDataFrame({"a": np.array([], int)}, geometry=gpd.GeoSeries([], crs="EPSG:32631"))
    empty.to_file(layers, layer="drafts", geometry_type="Polygon")
    with pytest.warns(AreaWarning, match="the layer fields is read"):
        assert read_aoi(layers).polygons().equals(SQUARE)


def test_several_layers_of_polygons(layers):
    write(layers, [BESIDE], "old plan")
    told = refusal(layers)
    assert told == (
        f"{layers}: expected one layer of polygons, found 2: fields, old plan.\n"
        f"Name one, for instance: `aoi='{layers}|layername=fields'`"
    )
    assert read_aoi(way_out(told)).polygons().equals(SQUARE)
    assert read_aoi(f"{layers}|layername=old plan").polygons().equals(BESIDE)
    assert read_aoi(f"{layers}|layerid=2").polygons().equals(BESIDE)


def test_layers_of_any_geometry_type(tmp_path):
    """Layers of an unknown type and of collections count if they hold polygons."""
    path = write(tmp_path / "a.gpkg", [shapely.Point(0, 0)], "points")
    mixed = gpd.GeoDataFrame(geometry=[shapely.GeometryCollection([BESIDE])], crs="EPSG:32631")
    mixed.to_file(path, layer="collections", geometry_type="GeometryCollection")
    with pytest.warns(AreaWarning, match="the layer collections is read"):
        assert read_aoi(path).polygons().equals(BESIDE)
    gpd.GeoDataFrame(geometry=[SQUARE], crs="EPSG:32631").to_file(path, layer="any", geometry_type="Unknown")
    assert "found 2: collections, any." in refusal(path)


def test_layers_without_polygons(tmp_path):
    path = write(tmp_path / "a.gpkg", [shapely.Point(0, 0)], "trees")
    write(path, [SQUARE.boundary], "roads")
    assert refusal(path) == f"{path}: expected a layer of polygons, found trees (Point), roads (LineString)."


def test_layers_that_are_named_wrongly(layers):
    assert refusal(f"{layers}|layername=x") == f"{layers}|layername=x: no such layer. Expected one of trees, fields."
    assert refusal(f"{layers}|layerid=7") == f"{layers}|layerid=7: no such layer. Expected one of trees, fields."
    assert refusal(f"{layers}|layer=x") == (
        f"{layers}|layer=x: expected the layer of a file as FILE|layername=NAME, found |layer=x."
    )
    assert refusal(f"{layers}|layerid=a") == (
        f"{layers}|layerid=a: expected a number of a layer from 0, found layerid=a."
    )


def test_a_bar_in_the_name_of_a_file(tmp_path):
    assert read_aoi(write(tmp_path / "a|b.gpkg", [SQUARE])).polygons().equals(SQUARE)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Pack shapefiles into an archive in the working folder, each into a folder of the given name."""
    monkeypatch.chdir(tmp_path)

    def pack(name, **places):
        with zipfile.ZipFile(name, "w") as target:
            for stem, (folder, shape) in places.items():
                write(tmp_path / f"{stem}.shp", [shape])
                for part in tmp_path.glob(f"{stem}.*"):
                    target.write(part, f"{folder}{part.name}")
                    part.unlink()
        return name

    return pack


@pytest.mark.parametrize(
    "name",
    ["areas.zip", "/vsizip/areas.zip", "/vsizip/areas.zip/a.shp", "zip://areas.zip", "zip://areas.zip!a.shp"],
)
def test_archives(archive, name):
    archive("areas.zip", a=("", SQUARE))
    aoi = read_aoi(name)
    assert aoi.polygons().equals(SQUARE)
    assert aoi.given is not None
    assert aoi.given.file == Path("areas.zip")


def test_a_file_in_a_folder_of_an_archive(archive):
    archive("areas.zip", a=("data/2024/", SQUARE))
    assert read_aoi("areas.zip").polygons().equals(SQUARE)


def test_archives_with_several_files(archive):
    archive("areas.zip", a=("one/", SQUARE), b=("two/", BESIDE))
    told = refusal("areas.zip")
    assert told == (
        "areas.zip: expected one file of polygons in the archive, found 2: one/a.shp, two/b.shp.\n"
        "Name one, for instance: `aoi='/vsizip/areas.zip/one/a.shp'`"
    )
    assert read_aoi(way_out(told)).polygons().equals(SQUARE)
    archive("side.zip", a=("", SQUARE), b=("", BESIDE))
    told = refusal("side.zip")
    assert told.startswith("side.zip: expected one layer of polygons, found 2: ")
    assert read_aoi(way_out(told)).polygons().area == 1


def test_archives_without_the_file(archive, tmp_path):
    archive("areas.zip", a=("", SQUARE))
    first = "/vsizip/areas.zip/b.shp: no file of polygons of that name in the archive. It holds "
    assert refusal("/vsizip/areas.zip/b.shp").startswith(first)
    with zipfile.ZipFile("notes.zip", "w") as notes:
        notes.writestr("readme.txt", "nothing here")
    assert refusal("notes.zip") == ("notes.zip: no file of polygons of that name in the archive. It holds readme.txt.")
    assert refusal("/vsizip/none.zip/b.shp").startswith("/vsizip/none.zip/b.shp: no such file. Expected ")


def test_archives_of_tar(archive, tmp_path):
    write(tmp_path / "a.geojson", [SQUARE])
    write(tmp_path / "b.geojson", [BESIDE])
    with tarfile.open("one.tar.gz", "w:gz") as packed:
        packed.add("a.geojson", "data/a.geojson")
    with tarfile.open("two.tar", "w") as packed:
        packed.add("a.geojson")
        packed.add("b.geojson")
    assert read_aoi("one.tar.gz").polygons().equals(SQUARE)
    assert way_out(refusal("two.tar")) == "/vsitar/two.tar/a.geojson"
    assert read_aoi("/vsitar/two.tar/b.geojson").polygons().equals(BESIDE)


def test_rows_that_gdal_does_not_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.gpkg", [SQUARE, BESIDE])
    read = pyogrio.read_dataframe
    monkeypatch.setattr(pyogrio, "read_dataframe", lambda *a, **k: read(*a, **k)[:1])
    assert refusal(path) == f"{path}: holds 2 rows, but GDAL reads 1 of them. Unpack or copy the file."


def test_damaged_archives(archive):
    archive("areas.zip", a=("deep/", SQUARE))
    content = Path("areas.zip").read_bytes()
    Path("cut.zip").write_bytes(content[: len(content) // 2])
    Path("bad.zip").write_bytes(content.replace(b"PK\x01\x02", b"PK\x09\x09"))
    Path("bad.tar.gz").write_bytes(b"\x1f\x8b" + bytes(20))
    for name in ("cut.zip", "bad.zip", "bad.tar.gz"):
        assert refusal(name).startswith(f"{name}: not a file of polygons that GDAL can read (")


def test_a_folder_with_numbers_for_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("1 2").mkdir()
    write(Path("1 2") / "a.shp", [SQUARE])
    assert read_aoi("1 2").polygons().equals(SQUARE)


def test_compressed_files(tmp_path):
    path = write(tmp_path / "a.geojson", [SQUARE], crs="EPSG:4326")
    with gzip.open(tmp_path / "b.geojson.gz", "wb") as packed:
        packed.write(path.read_bytes())
    assert read_aoi(tmp_path / "b.geojson.gz").polygons().equals(SQUARE)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of a server of the files in a folder, in another process: older pyogrio holds the GIL while it reads."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    words = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", tmp_path]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield re.search(r"http://[\d.:]+", process.stdout.readline())[0]
        process.terminate()


def test_urls(server, tmp_path, archive):
    write(tmp_path / "a.geojson", [SQUARE], crs="EPSG:4326")
    archive("areas.zip", b=("", BESIDE))
    for name in (f"{server}/a.geojson", f"/vsicurl/{server}/a.geojson", Path(f"{server}/a.geojson")):
        assert read_aoi(name).polygons().equals(SQUARE)
    assert read_aoi(f"{server}/areas.zip").polygons().equals(BESIDE)
    told = refusal(f"{server}/none.geojson").splitlines()
    assert told[0].startswith(f"{server}/none.geojson: not a file of polygons that GDAL can read there (")
    assert told[1:] == ["Check the address."]
    assert refusal("sftp://x/a.gpkg") == (
        "sftp://x/a.gpkg: not a URL that can be read. Expected one of https, http, ftp, s3, gs, az, oss.\n"
        "Download the file, and name the copy."
    )
    assert read_aoi(f"file://{tmp_path}/a.geojson").polygons().equals(SQUARE)


def test_files_that_are_none(tmp_path, write_raster):
    empty = tmp_path / "a.gpkg"
    empty.touch()
    assert refusal(empty) == f"{empty}: the file is empty (0 bytes). Copy or download it again."
    raster = write_raster("a.tif", np.ones((4, 4), np.uint8))
    expected = "Expected a file of polygons, a bounding box minx,miny,maxx,maxy, or a geometry as WKT or GeoJSON."
    assert refusal(raster) == f"{raster}: expected polygons, found a raster. {expected}"
    with zipfile.ZipFile(tmp_path / "plan.qgz", "w") as project:
        project.writestr("plan.qgs", "<qgis/>")
    assert refusal(tmp_path / "plan.qgz").startswith(f"{tmp_path}/plan.qgz: a QGIS project, which names files")
    assert refusal(tmp_path / "none.gpkg") == f"{tmp_path}/none.gpkg: no such file. {expected}"
    assert refusal("  ") == f"the area of interest is empty. {expected}"
    assert refusal(tmp_path) == (
        f"{tmp_path}: not a file of polygons that GDAL can read (a folder).\n"
        "Name a file such as areas.gpkg, or leave the area out."
    )


def test_a_table_with_wkt(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,split,WKT\n1,train,"POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0))"\n')
    assert "no coordinate reference system" in refusal(path)
    aoi = read_aoi(path, "EPSG:32631")
    assert (aoi.splits, aoi.polygons().equals(SQUARE)) == (("train",), True)


def test_curved_polygons(tmp_path):
    """A circle of radius 1, which GDAL turns into lines: its area is pi within one in a thousand."""
    path = tmp_path / "a.csv"
    path.write_text('id,WKT\n1,"CURVEPOLYGON (CIRCULARSTRING (0 0, 1 1, 2 0, 1 -1, 0 0))"\n')
    assert read_aoi(path, "EPSG:32631").polygons().area == pytest.approx(np.pi, rel=2e-3)


def test_names_that_cannot_be_looked_at(tmp_path, monkeypatch):
    path = write(tmp_path / "a.gpkg", [SQUARE])
    with pytest.raises(AccessError, match="File name too long"):
        read_aoi("x" * 300)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AccessError, match=r"a\.gpkg: cannot be accessed \(Permission denied\)"):
        read_aoi(path)


def test_sources_from_any_folder():
    there = Path("/there")
    assert absolute_source("a.gpkg", there) == "/there/a.gpkg"
    assert absolute_source("/a.gpkg|layername=b", there) == "/a.gpkg|layername=b"
    assert absolute_source("a.gpkg|layername=b", there) == "/there/a.gpkg|layername=b"
    assert absolute_source("/vsizip/a.zip/b.shp", there) == "/vsizip//there/a.zip/b.shp"
    assert absolute_source("zip://a.zip!b.shp", there) == "zip:///there/a.zip!b.shp"
    for same in ("1,2,3,4", "POLYGON EMPTY", "SRID=1;x", "{}", "https://x/a.gpkg", "/vsicurl/https://x/a.gpkg"):
        assert absolute_source(same, there) == same


def test_an_absolute_name_in_an_archive(archive, tmp_path):
    archive("areas.zip", a=("", SQUARE))
    assert read_aoi(absolute_source("/vsizip/areas.zip/a.shp", tmp_path)).polygons().equals(SQUARE)
    assert read_aoi(absolute_source("zip://areas.zip!a.shp", tmp_path)).polygons().equals(SQUARE)


@pytest.mark.filterwarnings("ignore::geocrodino.errors.AreaWarning")
def test_the_command_that_exchanges_x_and_y(layers, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write(layers, [shapely.box(5, 0, 6, 1)], "fields", split=["train"])
    given = read_aoi(layers).given
    assert given is not None
    run_printed(swapped_option(given))
    aoi = read_aoi("areas-xy.gpkg")
    assert aoi.polygons("train").equals(shapely.box(0, 5, 1, 6))
    assert aoi.crs.to_epsg() == 32631


def test_the_command_that_makes_polygons_of_lines(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lines.gpkg", [SQUARE.boundary, BESIDE.boundary], split=["train", "val"])
    run_printed(refusal("lines.gpkg"))
    aoi = read_aoi("areas.gpkg")
    assert (aoi.splits, aoi.polygons("val").equals(BESIDE)) == (("train", "val"), True)


def run_printed(message: str) -> None:
    """Run the command at the end of a message."""
    words = shlex.split(message.partition("python -c ")[2])
    subprocess.run([sys.executable, "-c", words[0]], check=True)


def test_what_names_a_source():
    assert area_source("1,2,3,4").kind == "box"
    assert area_source("POLYGON ((0 0, 1 0, 1 1, 0 0))").kind == "wkt"
    assert area_source(' {"type": "Polygon"}').kind == "geojson"
    assert area_source("polygon.gpkg").kind == "file"
