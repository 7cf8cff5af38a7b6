"""Awkward areas of interest in every command: each is used as it was meant, or named with a way out."""

from __future__ import annotations

import json
import shlex
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import yaml

from geocrodino.errors import AreaWarning
from reliability.kinds import case, marked

CRS = "EPSG:32631"
COMMANDS = ("inspect", "train", "predict", "evaluate")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def class_map(sample: Any, town: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of the whole town."""
    from geocrodino.bundle.io import load_bundle
    from geocrodino.prediction.engine import predict

    out = tmp_path_factory.mktemp("map") / "map.tif"
    predict(town.optical, out, load_bundle(sample.bundle), "optical")
    return out


@pytest.fixture
def command(run_cli: Callable[..., Any], sample: Any, town: Any, class_map: Path) -> Callable[..., Any]:
    """Run a command on the town with an area; exit code, standard output, standard error."""
    rasters = ("--optical", town.optical, "--elevation", town.elevation, "--labels", town.labels)
    small = ("--epochs", "1", "--steps", "1", "--patch-px", "32", "--weights", "random")
    words = {
        # Without labels, so no training is checked: the town is small, and its parts hold no blocks for splits.
        "inspect": ("inspect", *rasters[:4]),
        "train": ("train", "--out", "run", *small, *rasters),
        "predict": ("predict", town.optical, "--modality", "optical", "--model", sample.bundle, "--out", "part.tif"),
        "evaluate": ("evaluate", class_map, "--labels", town.labels, "--out", "scores"),
    }

    def run(name: str, *area: object) -> tuple[int, str, str]:
        return run_cli(*words[name], *area)

    return run


@pytest.fixture
def middle(town: Any) -> shapely.Polygon:
    """The middle quarter of the town, in metres, on edges of its pixels."""
    with rasterio.open(town.optical) as dataset:
        a, rows, columns = dataset.transform, dataset.height, dataset.width
    left, top = a @ (columns // 4, rows // 4)
    right, bottom = a @ (3 * columns // 4, 3 * rows // 4)
    return shapely.box(left, bottom, right, top)


@pytest.fixture
def areas(middle: shapely.Polygon) -> Callable[..., gpd.GeoDataFrame]:
    """Strips of the middle of the town, one for each value of a column, in the CRS of the town."""

    def make(**columns: Any) -> gpd.GeoDataFrame:
        count = max((len(v) for v in columns.values()), default=1)
        left, bottom, right, top = middle.bounds
        edges = np.linspace(left, right, count + 1)
        strips = [shapely.box(a, bottom, b, top) for a, b in pairwise(edges)]
        return gpd.GeoDataFrame(columns, geometry=strips, crs=CRS)

    return make


def in_degrees(shape: shapely.Geometry) -> shapely.Geometry:
    return gpd.GeoSeries([shape], crs=CRS).to_crs("EPSG:4326").iloc[0]


def box_text(shape: shapely.Geometry) -> str:
    return ",".join(repr(v) for v in shape.bounds)


def swapped(shape: shapely.Geometry) -> shapely.Geometry:
    return shapely.transform(shape, lambda c: c[:, ::-1])


def plain_geojson(path: Path, frame: gpd.GeoDataFrame) -> Path:
    """GeoJSON without a member `crs`, whatever its coordinates are."""
    tree = json.loads(frame.to_json(drop_id=True))
    tree.pop("crs", None)
    path.write_text(json.dumps(tree))
    return path


def share_mapped(path: Path = Path("part.tif")) -> float:
    with rasterio.open(path) as dataset:
        return float((dataset.read(1) != dataset.nodata).mean())


def mapped(result: tuple[int, str, str], *notes: str) -> None:
    """Check that a prediction mapped the middle quarter, and told these notes and nothing else."""
    code, _, err = result
    assert code == 0, err
    assert share_mapped() == pytest.approx(0.25, abs=0.01)
    warnings = [line for line in err.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == len(notes), err
    for note, warning in zip(notes, warnings, strict=True):
        assert note in warning


def refused(result: tuple[int, str, str], *told: str) -> str:
    """Check that a command ended with one message, and left no result."""
    code, out, err = result
    assert code == 2, err
    message = err[err.index("Error: ") :] if "Error: " in err else out[out.index("Problem: ") :]
    assert "Traceback" not in out + err
    assert "nan" not in message
    for words in told:
        assert words in message
    assert not Path("part.tif").exists()
    assert not Path("run/bundle.safetensors").exists()
    assert not Path("scores").exists()
    return message


# CRS


@marked("CRS of an area", "warned")
def test_metres_in_geojson_without_crs(command, areas, here):
    plain_geojson(here / "a.geojson", areas())
    mapped(
        command("predict", "--aoi", "a.geojson", "--aoi-crs", CRS),
        "a.geojson: the coordinates are read as EPSG:32631, as --aoi-crs says; GeoJSON without a member 'crs' is in",
    )


@pytest.mark.parametrize("name", [case("CRS of an area", "refused", c, id=f"metres in GeoJSON, {c}") for c in COMMANDS])
def test_metres_in_geojson_need_a_crs(command, areas, here, name):
    plain_geojson(here / "a.geojson", areas())
    refused(command(name, "--aoi", "a.geojson"), "which counts in degrees", "--aoi-crs EPSG:32631")


@pytest.mark.parametrize(
    "name",
    [case("CRS of an area", "refused", c, id=f"without an area, {c}") for c in ("inspect", "predict", "evaluate")],
)
def test_a_crs_without_an_area(command, here, name):
    told = "--aoi-crs EPSG:4326 needs --aoi: it is the CRS of an area, and no area is named."
    refused(command(name, "--aoi-crs", "EPSG:4326"), told)


@pytest.mark.parametrize(
    "crs",
    [
        case("CRS of an area", "right", "32631", id="number alone"),
        case("CRS of an area", "right", "epsg:32631", id="lower case"),
        case("CRS of an area", "right", "+proj=utm +zone=31 +datum=WGS84", id="PROJ string"),
        case("CRS of an area", "right", pyproj.CRS(32631).to_wkt("WKT1_ESRI"), id="WKT"),
    ],
)
def test_the_same_crs_in_other_words(command, areas, here, crs):
    areas().to_file("a.gpkg")
    mapped(command("predict", "--aoi", "a.gpkg", "--aoi-crs", crs))


@pytest.mark.parametrize(
    "crs",
    [
        case("CRS of an area", "refused", "UTM31", id="no CRS"),
        case("CRS of an area", "refused", "EPSG:5773", id="heights"),
        case("CRS of an area", "refused", "EPSG:4326", id="degrees for metres"),
    ],
)
def test_a_crs_that_cannot_be_used(command, areas, here, crs):
    areas().to_file("a.gpkg")
    refused(command("predict", "--aoi", "a.gpkg", "--aoi-crs", crs), "EPSG:32631")


@pytest.mark.parametrize(
    "name", [case("CRS of an area", "warned", c, id=f"other CRS, {c}") for c in ("predict", "evaluate")]
)
def test_another_crs_than_the_file_states(command, areas, here, name):
    """The file is wrong, and the user's word is right."""
    areas().set_crs("EPSG:32632", allow_override=True).to_file("a.gpkg")
    code, _, err = command(name, "--aoi", "a.gpkg", "--aoi-crs", CRS)
    assert code == 0, err
    assert err.splitlines() == [
        "Warning: a.gpkg: the coordinates are read as EPSG:32631, as --aoi-crs says; the file states EPSG:32632."
    ]


@marked("CRS of an area", "refused")
def test_a_wrong_crs_in_the_file(command, areas, here):
    areas().set_crs("EPSG:32632", allow_override=True).to_file("a.gpkg")
    refused(command("predict", "--aoi", "a.gpkg"), "does not meet", "If they are: --aoi-crs EPSG:32631")


@marked("CRS of an area", "right")
def test_the_crs_in_the_settings(run_cli, town, middle, here):
    """A list and a number in YAML."""
    content = yaml.safe_load(town.config.read_text())
    content["data"] = {k: str(town.config.parent / v) for k, v in content["data"].items()}
    with rasterio.open(town.optical) as dataset:
        content["data"] |= {"aoi": list(dataset.bounds), "aoi_crs": 32631}
    Path("geocrodino.yaml").write_text(yaml.safe_dump(content))
    code, out, err = run_cli("inspect", "--patch-px", 32)
    assert (code, err) == (0, ""), out
    with rasterio.open(town.optical) as dataset:
        assert f", {dataset.width * dataset.height:,} px; a patch of 32 px covers 16 m\n" in out


@marked("CRS of an area", "warned")
def test_the_crs_of_another_area_in_the_settings(run_cli, town, areas, middle, here):
    content = yaml.safe_load(town.config.read_text())
    content["data"] = {k: str(town.config.parent / v) for k, v in content["data"].items()}
    content["data"] |= {"aoi": box_text(in_degrees(middle)), "aoi_crs": "EPSG:4326"}
    Path("geocrodino.yaml").write_text(yaml.safe_dump(content))
    areas().to_file("a.gpkg")
    code, out, err = run_cli("inspect", "--aoi", "a.gpkg", "--patch-px", 32)
    assert code == 0, out + err
    assert "aoi_crs EPSG:4326 is the CRS of the area in this file, and is not used for --aoi a.gpkg" in err


# Axes


@pytest.mark.parametrize("name", [case("axes of an area swapped", "refused", c, id=f"box, {c}") for c in COMMANDS])
def test_a_box_with_latitude_first(command, middle, here, name):
    box = box_text(swapped(in_degrees(middle)))
    told = refused(command(name, "--aoi", box, "--aoi-crs", "EPSG:4326"), "With x and y exchanged it meets the raster")
    option = shlex.split(told[told.index("--aoi") :])[:2]
    assert command("inspect", *option, "--aoi-crs", "EPSG:4326")[0] == 0


@pytest.mark.parametrize("name", [case("axes of an area swapped", "refused", c, id=f"file, {c}") for c in COMMANDS])
def test_a_file_with_latitude_first(command, areas, here, name):
    frame = areas(split=["train", "val"]).to_crs("EPSG:4326")
    frame.geometry = [swapped(s) for s in frame.geometry]
    frame.to_file("a.gpkg")
    refused(command(name, "--aoi", "a.gpkg"), "With x and y exchanged it meets the raster", "areas-xy.gpkg")


@pytest.mark.parametrize("name", [case("axes of an area swapped", "refused", c, id=f"WKT, {c}") for c in COMMANDS])
def test_text_with_northing_first(command, middle, here, name):
    text = swapped(middle).wkt
    refused(
        command(name, "--aoi", text, "--aoi-crs", CRS),
        "northing and easting, seem to be swapped",
        "Exchange them: --aoi 'POLYGON",
    )


@marked("axes of an area swapped", "refused")
def test_a_box_with_its_minimum_last(command, middle, here):
    west, south, east, north = middle.bounds
    told = refused(command("predict", "--aoi", f"{east},{south},{west},{north}", "--aoi-crs", CRS), "found minx")
    option = shlex.split(told[told.index("--aoi") :])[:2]
    mapped(command("predict", *option, "--aoi-crs", CRS))


@marked("axes of an area swapped", "warned")
def test_a_box_in_pairs(command, middle, here):
    """minx,maxx,miny,maxy spans thousands of kilometres if it is read as minx,miny,maxx,maxy."""
    west, south, east, north = in_degrees(middle).bounds
    code, _, err = command("predict", "--aoi", f"{west},{east},{south},{north}", "--aoi-crs", "EPSG:4326")
    assert code == 0
    assert "It meets the raster if the numbers are minx,maxx,miny,maxy" in err


# Splits


@pytest.mark.parametrize(
    ("column", "words"),
    [
        case("column of splits", "warned", "set", ("train", "val", "test"), id="set"),
        case("column of splits", "warned", "Subset", ("train", "val", "test"), id="subset"),
        case("column of splits", "warned", "fold", ("training", "validation", "testing"), id="fold, synonyms"),
        case("column of splits", "warned", "use of it", ("train", "valid", "test"), id="unusual name"),
        case("column of splits", "warned", "split", ("Training", "Val", "Test"), id="split, synonyms"),
        case("column of splits", "right", " Split", ("train", "val", "test"), id="split with a blank"),
    ],
)
def test_columns_of_splits(command, areas, here, column, words):
    plain_geojson(here / "a.geojson", areas(**{column: words}).to_crs("EPSG:4326"))
    code, out, err = command("inspect", "--aoi", "a.geojson")
    assert code == 0, out + err
    px = [int(line.split()[2].replace(",", "")) for line in out.splitlines() if line.startswith("Area ")]
    assert [line.split()[1] for line in out.splitlines() if line.startswith("Area ")] == ["train:", "val:", "test:"]
    assert max(px) - min(px) <= 0.02 * max(px)
    assert ("Warning: a.geojson: " in err) == (column.strip() != "Split"), err
    assert command("evaluate", "--aoi", "a.geojson", "--split", "test")[0] == 0


@pytest.mark.parametrize(
    "name", [case("column of splits", "refused", c, id=f"two columns, {c}") for c in ("inspect", "train")]
)
def test_two_columns_of_splits(command, areas, here, name):
    areas(set=["train", "val"], subset=["val", "train"]).to_file("a.gpkg")
    refused(command(name, "--aoi", "a.gpkg"), "expected one column of splits, found 2 that differ: 'set', 'subset'")


@pytest.mark.parametrize(
    ("column", "words", "told"),
    [
        case("column of splits", "refused", "split", ["train", None, "val"], "1 of 3 rows have no value", id="nothing"),
        case("column of splits", "refused", "set", ["train", "", "val"], "1 of 3 rows have no value", id="empty text"),
        case("column of splits", "refused", "split", ["train", "vla", "val"], "unknown split 'vla'", id="misspelt"),
        case(
            "column of splits", "refused", "set", ["train", "vla", "val"], "unknown split 'vla'", id="misspelt in set"
        ),
    ],
)
def test_splits_that_a_training_cannot_use(command, areas, here, column, words, told):
    areas(**{column: words}).to_file("a.gpkg")
    refused(command("inspect", "--aoi", "a.gpkg"), told)
    refused(command("train", "--aoi", "a.gpkg"), told)


@pytest.mark.parametrize(
    "name", [case("column of splits", "right", c, id=f"not needed, {c}") for c in ("predict", "evaluate")]
)
def test_splits_that_are_not_needed(command, areas, here, name):
    """Unknown words, and splits that overlap."""
    frame = areas(split=["train", "reserve", "test"])
    frame.loc[len(frame)] = {"split": "test", "geometry": frame.geometry[0]}
    frame.set_crs(areas().crs).to_file("a.gpkg")  # older geopandas loses it with a new row
    code, _, err = command(name, "--aoi", "a.gpkg")
    assert (code, err) == (0, "")


@marked("column of splits", "warned")
def test_the_one_split_that_is_needed(command, areas, here):
    areas(split=["train", "reserve", "test"]).to_file("a.gpkg")
    code, _, err = command("evaluate", "--aoi", "a.gpkg", "--split", "test")
    assert code == 0
    assert "1 of 3 rows have no known split in the column `split`, and are left out." in err


@marked("column of splits", "warned")
def test_a_synonym_on_the_command_line(command, areas, here):
    areas(split=["train", "val"]).to_file("a.gpkg")
    code, _, err = command("evaluate", "--aoi", "a.gpkg", "--split", "validation")
    assert (code, err) == (0, "Warning: The split 'validation' is read as 'val'.\n")


@marked("column of splits", "refused")
def test_a_split_without_a_column(command, areas, here):
    areas(name=["north", "south"]).to_file("a.gpkg")
    refused(
        command("evaluate", "--aoi", "a.gpkg", "--split", "test"), "no polygon of the split 'test'. Found: no column"
    )


# Layers


@pytest.fixture
def with_points(areas, here) -> Path:
    """A GeoPackage whose first layer holds points."""
    frame = areas()
    frame.set_geometry(frame.centroid).to_file("a.gpkg", layer="stations")
    frame.to_file("a.gpkg", layer="fields")
    return here / "a.gpkg"


@marked("layers of an area file", "warned")
def test_the_only_layer_of_polygons(command, with_points):
    mapped(command("predict", "--aoi", "a.gpkg"), "a.gpkg: the layer fields is read, the only one with polygons")


@pytest.mark.parametrize("name", [case("layers of an area file", "refused", c, id=c) for c in COMMANDS])
def test_two_layers_of_polygons(command, areas, with_points, name):
    areas().set_geometry(areas().buffer(50)).to_file("a.gpkg", layer="old plan")
    refused(command(name, "--aoi", "a.gpkg"), "found 2: fields, old plan.", "a.gpkg|layername=fields'")


@marked("layers of an area file", "right")
def test_a_layer_that_is_named(command, areas, with_points):
    areas().set_geometry(areas().buffer(50)).to_file("a.gpkg", layer="old plan")
    mapped(command("predict", "--aoi", "a.gpkg|layername=fields"))


@marked("layers of an area file", "right")
def test_a_layer_in_the_settings(run_cli, town, areas, with_points):
    areas().set_geometry(areas().buffer(50)).to_file("a.gpkg", layer="old plan")
    content = yaml.safe_load(town.config.read_text())
    content["data"] = {k: str(town.config.parent / v) for k, v in content["data"].items()}
    content["data"]["aoi"] = "a.gpkg|layername=fields"
    Path("geocrodino.yaml").write_text(yaml.safe_dump(content))
    assert run_cli("inspect", "--patch-px", 32)[0] == 0


@marked("layers of an area file", "refused")
def test_no_layer_of_polygons(command, areas, here):
    frame = areas()
    frame.set_geometry(frame.centroid).to_file("a.gpkg", layer="stations")
    frame.set_geometry(frame.boundary).to_file("a.gpkg", layer="roads")
    refused(
        command("predict", "--aoi", "a.gpkg"),
        "expected a layer of polygons, found stations (Point), roads (LineString)",
    )


# Text


@pytest.mark.parametrize(
    ("write", "crs"),
    [
        case("area given inline", "right", lambda s: s.wkt, CRS, id="WKT"),
        case("area given inline", "right", lambda s: f"SRID=32631;{s.wkt}", None, id="EWKT"),
        case("area given inline", "right", lambda s: shapely.to_geojson(in_degrees(s)), None, id="GeoJSON"),
        case("area given inline", "right", lambda s: " ; ".join(map(repr, s.bounds)), CRS, id="box with semicolons"),
        case("area given inline", "right", lambda s: f"[{box_text(s)}]", CRS, id="box in brackets"),
        case(
            "area given inline",
            "right",
            lambda s: gpd.GeoSeries([s], crs=CRS).to_crs("EPSG:4326").to_json(),
            None,
            id="long FeatureCollection",
        ),
    ],
)  # fmt: skip
def test_areas_as_text(command, middle, here, write, crs):
    """As long as no file name can be, too: the outline gets a thousand points."""
    shape = shapely.segmentize(middle, middle.length / 1000) if crs is None else middle
    mapped(command("predict", "--aoi", write(shape), *(() if crs is None else ("--aoi-crs", crs))))


@marked("area given inline", "warned")
def test_geojson_in_metres_as_text(command, middle, here):
    text = shapely.to_geojson(middle)
    mapped(command("predict", "--aoi", text, "--aoi-crs", CRS), "GeoJSON without a member 'crs' is in EPSG:4326")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        case("area given inline", "refused", "POLYGON ((0 0, 1 1", "not a geometry in WKT", id="cut WKT"),
        case("area given inline", "refused", '{"type": "Polygon"', "not a geometry in GeoJSON", id="cut GeoJSON"),
        case("area given inline", "refused", "POLYGON ((0 0, 1 0, 1 1, 0 0))", "needs a CRS", id="WKT without a CRS"),
        case("area given inline", "refused", "POINT (0 0)", "expected polygons only, found Point", id="point"),
        case("area given inline", "refused", "1,2,3", "four numbers", id="three numbers"),
        case("area given inline", "refused", '{"type": "Polygon", "coordinates": []}', "no polygon", id="no ring"),
    ],
)
def test_text_that_cannot_be_used(command, here, text, told):
    refused(command("predict", "--aoi", text), told)


# Parts without an area


def spiked(shape: shapely.Polygon) -> shapely.Polygon:
    """The same area with a line that sticks out, as careless clicks leave it."""
    left, bottom, right, top = shape.bounds
    return shapely.Polygon([(left, bottom), (right, bottom), (right, top), (right, top + 9), (right, top), (left, top)])


@pytest.mark.parametrize("name", [case("parts without an area", "warned", c, id=f"spike, {c}") for c in COMMANDS[::2]])
def test_a_spike(command, areas, here, name):
    frame = areas()
    frame.geometry = [spiked(s) for s in frame.geometry]
    frame.to_file("a.gpkg")
    code, _, err = command(name, "--aoi", "a.gpkg")
    assert code == 0
    assert "a.gpkg: 1 of 1 rows also hold parts without an area; their areas alone count." in err


@pytest.mark.parametrize(
    "shape",
    [
        case("parts without an area", "warned", shapely.Polygon(), id="empty polygon"),
        case("parts without an area", "warned", shapely.Polygon([(0, 0), (9, 9), (0, 0)]), id="line as a polygon"),
    ],
)
def test_rows_without_an_area(command, areas, here, shape):
    frame = areas(name=["town"])
    frame.loc[1] = {"name": "nothing", "geometry": shape}
    frame.set_crs(areas().crs).to_file("a.gpkg")  # older geopandas loses it with a new row
    mapped(command("predict", "--aoi", "a.gpkg"), "a.gpkg: 1 of 2 rows have no area, and do not count.")


@marked("parts without an area", "right")
def test_heights_of_corners(command, areas, here):
    frame = areas()
    frame.geometry = shapely.force_3d(frame.geometry.values, 12.0)
    frame.to_file("a.gpkg")
    mapped(command("predict", "--aoi", "a.gpkg"))


@marked("parts without an area", "warned")
def test_a_label_point_beside_the_polygon(command, areas, here):
    frame = areas()
    frame.geometry = [shapely.GeometryCollection([s, s.centroid]) for s in frame.geometry]
    frame.to_file("a.gpkg")
    mapped(command("predict", "--aoi", "a.gpkg"), "1 of 1 rows also hold parts without an area")


@pytest.mark.parametrize("name", [case("parts without an area", "refused", c, id=f"outlines, {c}") for c in COMMANDS])
def test_outlines_as_lines(command, areas, here, name):
    areas().set_geometry(areas().boundary).to_file("a.gpkg")
    refused(command(name, "--aoi", "a.gpkg"), "expected polygons only, found LineString.", "The lines are closed.")


@marked("parts without an area", "refused")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_coordinates_that_are_not_finite(command, areas, here):
    frame = areas(name=["town"])
    frame.loc[1] = {"name": "broken", "geometry": shapely.Polygon([(0, 0), (1, 0), (np.inf, 1), (0, 0)])}
    frame.to_file("a.gpkg")
    refused(command("predict", "--aoi", "a.gpkg"), "1 of 2 rows have coordinates that are not finite numbers")


# Archives and files that hold no areas


@pytest.mark.parametrize(
    "name",
    [
        case("archive of an area", "right", "a.zip", id="archive"),
        case("archive of an area", "right", "/vsizip/a.zip/deep/a.shp", id="vsizip"),
        case("archive of an area", "right", "zip://a.zip!deep/a.shp", id="zip scheme"),
    ],
)
def test_shapefiles_in_archives(command, areas, here, name):
    areas().to_file("a.shp")
    with zipfile.ZipFile("a.zip", "w") as archive:
        for part in here.glob("a.*"):
            if part.suffix != ".zip":
                archive.write(part, f"deep/{part.name}")
    mapped(command("predict", "--aoi", name))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        case("file that holds no area", "refused", "a.gpkg", b"", "the file is empty (0 bytes)", id="0 bytes"),
        case("file that holds no area", "refused", "a.gpkg", b"no file", "not a file of polygons", id="text"),
        case("file that holds no area", "refused", "a.csv", b"a,b\n1,2\n", "needs a column WKT", id="table"),
        case("file that holds no area", "refused", "a.qgs", b"<qgis/>", "a QGIS project", id="project"),
        case(
            "file that holds no area",
            "refused",
            "a.geojson",
            b'{"type": "FeatureCollection", "features": []}',
            "holds no polygon",
            id="no features",
        ),
        case("file that holds no area", "refused", "none.gpkg", None, "no such file", id="missing"),
        case("file that holds no area", "refused", "https://127.0.0.1:1/a.gpkg", None, "Check the address", id="URL"),
    ],
)  # fmt: skip
def test_files_that_hold_no_area(command, here, name, content, told):
    if content is not None:
        Path(name).write_bytes(content)
    refused(command("predict", "--aoi", name), told)


@pytest.mark.parametrize("name", [case("file that holds no area", "refused", c, id=f"raster, {c}") for c in COMMANDS])
def test_a_raster_as_area(command, town, here, name):
    refused(command(name, "--aoi", town.labels), "expected polygons, found a raster.")


# What a training takes from an area


def prepared(tiny_config: Callable[..., Any], folder: Path, **data: Any) -> Any:
    from geocrodino.training.prepare import prepare

    return prepare(tiny_config({f"data.{key}": value for key, value in data.items()}), folder)


@marked("column of splits", "warned")
def test_a_training_takes_the_splits_of_another_column(tiny_config, areas, here):
    """The same pixels as with a column `split`; none are drawn."""
    areas(split=["train", "val", "test"]).to_file("named.gpkg")
    areas(partition=["training", "validation", "testing"]).to_file("other.gpkg")
    expected = prepared(tiny_config, here / "a", aoi=str(here / "named.gpkg"))
    with pytest.warns(AreaWarning, match="the splits are read from the column `partition`"):
        found = prepared(tiny_config, here / "b", aoi=str(here / "other.gpkg"))
    assert found.drawn is None
    assert found.scenes[0].inside.keys() == expected.scenes[0].inside.keys() == {"train", "val"}
    for split, inside in expected.scenes[0].inside.items():
        assert inside.any()
        assert (found.scenes[0].inside[split] == inside).all()


@marked("parts without an area", "warned")
def test_a_training_takes_the_same_pixels_with_a_spike(tiny_config, areas, here):
    frame = areas(split=["train", "val", "test"])
    frame.to_file("plain.gpkg")
    frame.geometry = [spiked(s) for s in frame.geometry]
    frame.to_file("spiked.gpkg")
    expected = prepared(tiny_config, here / "a", aoi=str(here / "plain.gpkg"))
    with pytest.warns(AreaWarning, match="3 of 3 rows also hold parts without an area"):
        found = prepared(tiny_config, here / "b", aoi=str(here / "spiked.gpkg"))
    for split, inside in expected.scenes[0].inside.items():
        assert (found.scenes[0].inside[split] == inside).all()


@marked("CRS of an area", "warned")
def test_a_training_takes_the_crs_of_the_settings(tiny_config, areas, here):
    plain_geojson(here / "a.geojson", areas(split=["train", "val"]))
    with pytest.warns(AreaWarning, match="the coordinates are read as EPSG:32631, as `aoi_crs` says"):
        found = prepared(tiny_config, here / "a", aoi=str(here / "a.geojson"), aoi_crs=CRS)
    assert found.scenes[0].inside["train"].any()
