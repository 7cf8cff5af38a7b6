"""A file of a scene that is missing is named with its scene and its key, before anything is imported or written."""

from __future__ import annotations

import zipfile

import geopandas as gpd
import shapely
import yaml

from geocrodino.geo.rasters.reader import RasterSource


def test_a_missing_file_names_scene_and_key(run_cli, here, write_raster):
    names = {role: str(write_raster(f"{role}.tif", [[1, 2], [3, 4]])) for role in ("optical", "elevation", "labels")}
    scenes = [{"name": "north", **names}, {"name": "south", **names, "labels": "none.tif"}]
    for given, where in ((scenes, " of scene south"), ([{**s, "name": ""} for s in scenes], "")):
        (here / "geocrodino.yaml").write_text(yaml.safe_dump({"data": {"scenes": given}}))
        code, out, err = run_cli("train", "--out", "run")
        assert (code, out) == (2, "")
        assert err == (
            f"Error: data.scenes: labels{where}: {here / 'none.tif'}: no such file. Check the path; relative ones "
            "start at the folder of the file that names them.\n"
        )
        assert not (here / "run").exists()


def test_a_missing_file_of_one_scene_names_the_key_unless_it_is_typed(run_cli, here, write_raster):
    optical = write_raster("optical.tif", [[1, 2], [3, 4]])
    data = {"optical": str(optical), "elevation": "none.tif", "labels": str(optical)}
    (here / "geocrodino.yaml").write_text(yaml.safe_dump({"data": data}))
    code, _, err = run_cli("train", "--out", "run")
    told = f"{here / 'none.tif'}: no such file. Check the path; relative ones start at the "
    assert (code, err) == (2, f"Error: data.elevation: {told}folder of the file that names them.\n")
    code, _, err = run_cli("train", "--out", "run", "--elevation", "none.tif")
    assert (code, err) == (2, f"Error: {told}working folder.\n")


def test_shapes_in_the_place_of_heights(run_cli, here, write_raster):
    optical = str(write_raster("optical.tif", [[1, 2], [3, 4]]))
    frame = gpd.GeoDataFrame({"kind": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32631")
    frame.to_file(here / "a.gpkg")
    data = {"optical": optical, "elevation": "a.gpkg", "labels": optical}
    (here / "geocrodino.yaml").write_text(yaml.safe_dump({"data": data}))
    code, _, err = run_cli("train", "--out", "run")
    assert code == 2
    assert err.startswith(f"Error: data.elevation: {here / 'a.gpkg'}: not a raster that GDAL can open")


def test_an_empty_folder_and_an_archive(run_cli, here, write_raster):
    optical = write_raster("optical.tif", [[1, 2], [3, 4]])
    (here / "new").mkdir()
    with zipfile.ZipFile(here / "dsm.zip", "w") as archive:
        archive.write(optical, "dsm_1.tif")
        archive.write(optical, "dsm_2.tif")
    data = {"optical": str(optical), "labels": str(optical)}
    for name, told in (
        (
            "new",
            "no raster to read. Expected files of a scene, such as *.tif, found none.\nName a folder that holds some, "
            "or a pattern for those of several folders, such as tiles/*/*.tif.\n",
        ),
        (
            "dsm.zip",
            "expected a raster, found an archive of 2 files (dsm_1.tif, dsm_2.tif).\nName a file in it, for instance "
            f"zip://{here / 'dsm.zip'}!dsm_1.tif; of several, unpack it and name the folder.\n",
        ),
    ):
        (here / "geocrodino.yaml").write_text(yaml.safe_dump({"data": {**data, "elevation": name}}))
        assert run_cli("train", "--out", "run") == (2, "", f"Error: data.elevation: {here / name}: {told}")
        scenes = [{"name": "north", **data, "elevation": name}]
        (here / "geocrodino.yaml").write_text(yaml.safe_dump({"data": {"scenes": scenes}}))
        where = "Error: data.scenes: elevation of scene north"
        assert run_cli("train", "--out", "run") == (2, "", f"{where}: {here / name}: {told}")
    assert RasterSource.open(f"zip://{here / 'dsm.zip'}!dsm_1.tif").geobox.shape == (2, 2)


def test_a_missing_area_of_a_scene(run_cli, here, write_raster):
    names = {role: str(write_raster(f"{role}.tif", [[1, 2], [3, 4]])) for role in ("optical", "elevation", "labels")}
    scenes = [{"name": "north", **names}, {"name": "south", **names, "aoi": "none.gpkg"}]
    (here / "geocrodino.yaml").write_text(yaml.safe_dump({"data": {"scenes": scenes}}))
    code, _, err = run_cli("train", "--out", "run")
    assert code == 2
    assert err.startswith(
        f"Error: data.scenes: aoi of scene south: {here / 'none.gpkg'}: no such file. Expected a file of"
    )
