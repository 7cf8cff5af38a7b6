"""Which CRS an area is in: what its file names, what the user says, and what its coordinates allow."""

from __future__ import annotations

import json
import warnings

import geopandas as gpd
import pyproj
import pytest
import shapely

from geocrodino.errors import AOIError, AreaWarning
from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.geo.areas.crs import user_crs

METRES = shapely.box(400_000, 5_000_000, 401_000, 5_001_000)
DEGREES = shapely.box(2, 45, 3, 46)


@pytest.fixture
def geojson(tmp_path):
    def write(shape, crs=None):
        path = tmp_path / "a.geojson"
        feature = {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(shape))}
        named = {} if crs is None else {"crs": {"type": "name", "properties": {"name": crs}}}
        path.write_text(json.dumps({"type": "FeatureCollection", **named, "features": [feature]}))
        return path

    return write


def refusal(source, crs=None) -> str:
    with pytest.raises(AOIError) as caught:
        read_aoi(source, crs)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "EPSG:32631", "epsg:32631", " 32631 ", "urn:ogc:def:crs:EPSG::32631", "+proj=utm +zone=31 +datum=WGS84",
        pyproj.CRS(32631).to_wkt(), pyproj.CRS(32631).to_wkt("WKT1_ESRI"),
    ],
)  # fmt: skip
def test_ways_to_write_a_crs(text):
    assert user_crs(text).to_epsg() == 32631


@pytest.mark.parametrize("text", ["", "UTM 31", "EPSG:0", "32631x"])
def test_what_is_no_crs(text):
    with pytest.raises(AOIError) as caught:
        user_crs(text)
    assert str(caught.value) == (
        f"{text!r} is not a coordinate reference system. Expected for instance EPSG:32631, WKT or a PROJ string."
    )


def test_a_crs_without_positions_on_a_map():
    with pytest.raises(AOIError, match=r"^'EPSG:5773' is a Vertical CRS \(EGM96 height\)\. Expected a projected or"):
        user_crs("EPSG:5773")
    with pytest.raises(AOIError, match=r"^'EPSG:4978' is a Geocentric CRS"):
        user_crs("EPSG:4978")


@pytest.mark.parametrize("crs", ["EPSG:32631", "32631", pyproj.CRS(32631).to_wkt("WKT1_ESRI"), "EPSG:32631+5773"])
@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.geojson"])
def test_the_same_crs_needs_no_word(tmp_path, name, crs):
    gpd.GeoDataFrame(geometry=[METRES], crs="EPSG:32631").to_file(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AreaWarning)
        assert read_aoi(tmp_path / name, crs).polygons().equals(METRES)


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.geojson"])
def test_the_users_crs_goes_before_that_of_the_file(tmp_path, name):
    path = tmp_path / name
    gpd.GeoDataFrame(geometry=[METRES], crs="EPSG:32631").to_file(path)
    with pytest.warns(AreaWarning) as caught:
        aoi = read_aoi(path, "EPSG:32632")
    assert [str(w.message) for w in caught] == [
        f"{path}: the coordinates are read as EPSG:32632, as `aoi_crs` says; the file states EPSG:32631."
    ]
    assert aoi.crs.to_epsg() == 32632
    assert aoi.polygons().equals(METRES)


def test_geojson_without_a_member_crs(geojson):
    """RFC 7946: degrees; coordinates that cannot be degrees need the user's word."""
    assert read_aoi(geojson(DEGREES)).crs.to_epsg() == 4326
    path = geojson(METRES)
    assert refusal(path) == (
        f"{path}: GeoJSON without a member 'crs' is in EPSG:4326, which counts in degrees: expected x from -360 to 360 "
        "and y from -90 to 90, found x 400000 to 401000, y 5000000 to 5001000.\n"
        "Name the CRS of these coordinates, for instance: `aoi_crs='EPSG:32631'`"
    )
    with pytest.warns(AreaWarning) as caught:
        aoi = read_aoi(path, "EPSG:32631")
    assert [str(w.message) for w in caught] == [
        f"{path}: the coordinates are read as EPSG:32631, as `aoi_crs` says; GeoJSON without a member 'crs' is in "
        "EPSG:4326."
    ]
    assert (aoi.crs.to_epsg(), aoi.polygons().equals(METRES)) == (32631, True)


def test_degrees_that_the_user_names_by_mistake(geojson):
    path = geojson(METRES, "EPSG:32631")
    assert refusal(path, "EPSG:4326").splitlines()[1] == "Leave out `aoi_crs`: the file states EPSG:32631."
    assert refusal("400000,5000000,400010,5000010", "EPSG:4326") == (
        "bounding box 400000,5000000,400010,5000010: `aoi_crs` names EPSG:4326, which counts in degrees: expected x "
        "from -360 to 360 and y from -90 to 90, found x 400000 to 400010, y 5000000 to 5000010.\n"
        "Name the CRS of these coordinates, for instance: `aoi_crs='EPSG:32631'`"
    )


def test_a_file_that_states_degrees_for_metres(tmp_path):
    path = tmp_path / "a.shp"
    gpd.GeoDataFrame(geometry=[METRES], crs="EPSG:4326").to_file(path)
    assert refusal(path).startswith(f"{path}: the file states EPSG:4326, which counts in degrees: expected x")
    with pytest.warns(AreaWarning, match=r"read as EPSG:32631, as `aoi_crs` says; the file states EPSG:4326\.$"):
        assert read_aoi(path, "EPSG:32631").crs.to_epsg() == 32631


def test_grads_go_to_400():
    """100 degrees are 111.1 grads; the older French systems count in grads."""
    assert read_aoi("390,50,399,99", "EPSG:4807").polygons().bounds == (390, 50, 399, 99)
    assert "counts in degrees" in refusal("390,50,399,101", "EPSG:4807")


def test_latitudes_beyond_90_are_longitudes():
    told = refusal("35,139,36,140", "EPSG:4326").splitlines()[1]
    assert told == ("Latitude and longitude seem to be swapped. Exchange them: `aoi='139,35,140,36'`")
    assert read_aoi("139,35,140,36", "EPSG:4326").polygons().bounds == (139, 35, 140, 36)


def test_a_file_without_a_crs(tmp_path):
    """The way out of the message, and a GeoPackage that says that its CRS is undefined."""
    for name in ("a.gpkg", "a.fgb"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gpd.GeoDataFrame(geometry=[DEGREES]).to_file(tmp_path / name)
        assert "no coordinate reference system" in refusal(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error", AreaWarning)
            assert read_aoi(tmp_path / name, "EPSG:4326").polygons().equals(DEGREES)
