"""A file of a scene that is missing is named with its scene and its key, before anything is imported or written."""

from __future__ import annotations

import yaml


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


def test_a_missing_file_of_one_scene_names_the_file(run_cli, here, write_raster):
    optical = write_raster("optical.tif", [[1, 2], [3, 4]])
    data = {"optical": str(optical), "elevation": "none.tif", "labels": str(optical)}
    (here / "geocrodino.yaml").write_text(yaml.safe_dump({"data": data}))
    code, _, err = run_cli("train", "--out", "run")
    told = f"Error: {here / 'none.tif'}: no such file. Check the path; relative ones start at the working folder.\n"
    assert (code, err) == (2, told)


def test_a_missing_area_of_a_scene(run_cli, here, write_raster):
    names = {role: str(write_raster(f"{role}.tif", [[1, 2], [3, 4]])) for role in ("optical", "elevation", "labels")}
    scenes = [{"name": "north", **names}, {"name": "south", **names, "aoi": "none.gpkg"}]
    (here / "geocrodino.yaml").write_text(yaml.safe_dump({"data": {"scenes": scenes}}))
    code, _, err = run_cli("train", "--out", "run")
    assert code == 2
    assert err.startswith(
        f"Error: data.scenes: aoi of scene south: {here / 'none.gpkg'}: no such file. Expected a file of"
    )
