"""Bad input ends with one message, exit code 2, and nothing written."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from rasterio.features import geometry_mask
from rasterio.transform import Affine


@pytest.fixture
def study(town, tiny, here):
    """The settings of a tiny training in the working folder, with changes by section."""

    def make(**sections):
        content = yaml.safe_load(town.config.read_text())
        content["data"] = {k: str(town.config.parent / v) for k, v in content["data"].items()}
        content |= tiny
        for name, section in sections.items():
            content[name] = {**content.get(name, {}), **section} if isinstance(section, dict) else section
        Path("geocrodino.yaml").write_text(yaml.safe_dump(content))

    make()
    return make


def changed(source: Path, target: Path, *, edit=None, **profile):
    """A copy of a raster with other values or another header."""
    with rasterio.open(source) as dataset:
        values, options = dataset.read(), dataset.profile
    options.update(profile)
    for key in [k for k, v in profile.items() if v is None]:
        options.pop(key)
    values = values if edit is None else edit(values)
    with rasterio.open(target, "w", **{**options, "count": values.shape[0], "dtype": values.dtype}) as out:
        out.write(values)
    return target


def moved(source: Path, target: Path, metres: float):
    with rasterio.open(source) as dataset:
        return changed(source, target, transform=Affine.translation(metres, 0) @ dataset.transform)


def cut(path: Path):
    """Keep the first half; a header at the end is lost with the other."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def files_below(folder):
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


def refused(result, *told):
    code, _, err = result
    assert code == 2, err
    assert err.startswith("Error: "), err
    assert err.count("Error: ") == 1
    assert "Traceback" not in err
    for words in told:
        assert words in err
    return err


def train_refused(run_cli, *words, told=()):
    result = run_cli("train", "--out", "run", *words)
    assert not Path("run/bundle.safetensors").exists()
    assert not list(Path().rglob("*.partial*")) + list(Path().glob("run/best-*"))
    return refused(result, *told)


BROKEN_RASTERS = {
    "missing": (lambda s, t: None, "no such file"),
    "empty": (lambda s, t: t.write_bytes(b""), "the file is empty (0 bytes)"),
    "truncated": (lambda s, t: cut(changed(s, t, compress=None, predictor=None)), "Copy or download it again"),
    "cut before its header": (lambda s, t: cut(shutil.copy(s, t)), "not a raster that GDAL can open"),
    "not a raster": (lambda s, t: t.write_text("a,b\n1,2\n"), "not a raster that GDAL can open"),
    "without CRS": (lambda s, t: changed(s, t, crs=None), "no coordinate reference system"),
    "elsewhere": (lambda s, t: moved(s, t, 50_000), "found x"),
}  # fmt: skip


@pytest.mark.parametrize("role", ["optical", "elevation", "labels"])
@pytest.mark.parametrize("kind", BROKEN_RASTERS)
def test_training_with_a_broken_raster(run_cli, study, town, here, role, kind):
    make, told = BROKEN_RASTERS[kind]
    make(getattr(town, role), here / "broken.tif")
    err = train_refused(run_cli, f"--{role}", "broken.tif", told=[told])
    assert "broken.tif" in err


def test_training_with_nothing_but_nodata(run_cli, study, town, here):
    changed(town.elevation, here / "nothing.tif", edit=lambda v: np.full_like(v, -9999))
    train_refused(run_cli, "--elevation", "nothing.tif", told=["nothing.tif: no valid pixel", "nodata"])


def test_an_inspection_reads_labels_as_the_file_says(run_cli, study, town, here):
    changed(town.labels, here / "coded.tif", edit=lambda v: np.where(v == 1, 77, v).astype(np.uint8))
    study(data={"labels": str(here / "coded.tif"), "label_values": {77: 1}})
    code, out, _ = run_cli("inspect")
    assert code == 0, out
    assert "values that belong to no class" not in out
    study(data={"labels": str(here / "coded.tif"), "label_values": {78: 1}})
    assert "holds label values outside the classes: 77" in run_cli("inspect")[1]


def test_training_with_label_values_outside_the_classes(run_cli, study, town, here):
    changed(town.labels, here / "more.tif", edit=lambda v: np.where(v == 1, 77, v).astype(np.uint8))
    train_refused(run_cli, "--labels", "more.tif", told=["more.tif holds label values outside the classes: 77."])


def val_area(town):
    frame = gpd.read_file(town.aoi).to_crs("EPSG:32631")
    return frame[frame["split"] == "val"].union_all()


def test_training_without_heights_to_judge_by(run_cli, study, town, here):
    with rasterio.open(town.elevation) as dataset:
        hole = geometry_mask(
            [val_area(town).buffer(2)], dataset.shape, dataset.transform, all_touched=True, invert=True
        )
    changed(town.elevation, here / "hole.tif", edit=lambda v: np.where(hole, -9999, v).astype(v.dtype))
    train_refused(
        run_cli,
        "--elevation",
        "hole.tif",
        told=["the split 'val': no labelled pixel has a valid elevation value in", "hole.tif, so the elevation"],
    )


def write_areas(path, shapes, crs="EPSG:32631", **options):
    gpd.GeoDataFrame({"split": list(shapes)}, geometry=list(shapes.values()), crs=crs).to_file(path, **options)


@pytest.fixture
def corner(town):
    with rasterio.open(town.optical) as dataset:
        return dataset.bounds.left, dataset.bounds.bottom


def test_an_area_outside(run_cli, study, here, corner):
    x, y = corner[0] + 90_000, corner[1]
    write_areas(
        "far.gpkg", {"train": shapely.box(x, y, x + 60, y + 60), "val": shapely.box(x + 70, y, x + 130, y + 60)}
    )
    train_refused(run_cli, "--aoi", "far.gpkg", told=["far.gpkg: the area of interest lies outside ", "optical.tif"])


# 20 px of 0.5 m are less than the least patch, 32 px. Of 0.303 m, 33 px cover the side of 10 m.
@pytest.mark.parametrize(
    ("side_m", "advice"),
    [
        (10, "has 20 x 20 px. Draw larger polygons, or use finer pixels (--resolution 0.303)."),
        (0.2, "\nNo pixel lies wholly inside. Draw larger polygons."),
    ],
)
def test_an_area_smaller_than_the_least_patch(run_cli, study, here, corner, side_m, advice):
    x, y = corner[0] + 20, corner[1] + 20
    small = shapely.box(x, y, x + side_m, y + side_m)
    write_areas("small.gpkg", {"train": small, "val": shapely.box(x + 30, y, x + 80, y + 60)})
    told = ["small.gpkg: the polygons of the split 'train' hold no patch", "32 x 32 px (16 m)", f"{advice}\n"]
    train_refused(run_cli, "--aoi", "small.gpkg", told=told)
    for words in re.findall(r"\((--\S+ \S+)\)", advice):
        code, _, errors = run_cli("train", "--out", "run", "--aoi", "small.gpkg", "--dry-run", *words.split())
        assert code == 0, errors


def test_a_box_too_small_to_be_cut(run_cli, study, here, corner):
    x, y = corner
    box = f"{x},{y},{x + 30},{y + 30}"
    train_refused(
        run_cli, "--aoi", box, "--aoi-crs", "EPSG:32631", told=["too small to be cut into train, val and test"]
    )
    train_refused(run_cli, "--aoi", box, told=["a bounding box needs a CRS", "--aoi-crs EPSG:4326"])
    train_refused(run_cli, "--aoi", box, "--aoi-crs", "EPSG:0", told=["'EPSG:0' is not a coordinate reference system"])


def test_an_area_that_is_missing_without_crs_or_without_val(run_cli, study, here, corner):
    train_refused(run_cli, "--aoi", "none.gpkg", told=["none.gpkg: no such file."])
    x, y = corner
    boxes = {"train": shapely.box(x, y, x + 60, y + 60)}
    write_areas("plain.shp", boxes, crs=None)
    train_refused(run_cli, "--aoi", "plain.shp", told=["plain.shp: no coordinate reference system.", "--aoi-crs"])
    write_areas("train.gpkg", boxes)
    train_refused(run_cli, "--aoi", "train.gpkg", told=["train.gpkg: no polygon of the split val."])
    Path("text.geojson").write_text("no polygons")
    train_refused(run_cli, "--aoi", "text.geojson", told=["text.geojson: not a file of polygons"])


def test_a_method_that_there_is_not_or_a_teacher_that_is_none(run_cli, study, trained, here):
    train_refused(run_cli, "--method", "crodno", told=["method.name: input should be 'single', 'crodino', 'mutual'"])
    study(method={"agreement": 0.5})
    told = ["method: agreement has no meaning for the method kd: it belongs to crodino, mutual, discom"]
    train_refused(run_cli, "--method", "kd", told=told)
    study(method={})
    told = ["--teacher: the method crodino learns without a teacher. Leave --teacher out, or use --method kd,"]
    train_refused(run_cli, "--teacher", trained, told=told)
    told = [f"{trained / 'fusion.safetensors'}: expected the fusion network of a finished training", "no such file."]
    train_refused(run_cli, "--method", "kd", "--teacher", trained, told=told)
    assert not Path("run").exists()


def test_settings_that_cannot_be_used(run_cli, study, here):
    study(data={"optcal": "x.tif"})
    train_refused(
        run_cli, told=["geocrodino.yaml: the configuration cannot be used:", "data.optcal: is not a known key"]
    )
    study(classes=[{"value": 0, "name": "a"}, {"value": 0, "name": "b"}])
    train_refused(run_cli, told=["classes: two classes share a value: [0, 0]"])
    study(elevation={"channels": []})
    train_refused(run_cli, told=["elevation.channels is empty"])
    study()
    told = ["training.patch_px: expected a multiple of the network's stride of 8 px, found 60."]
    train_refused(run_cli, "--patch-px", "60", told=told)
    train_refused(run_cli, "--encoder", "resnet1e9", told=["Unknown encoder 'resnet1e9'"])
    train_refused(run_cli, "--height-unit", "ell", told=["unknown unit of height 'ell'", "us-ft"])
    train_refused(run_cli, "--accelerator", "abacus", told=["'abacus'"])
    train_refused(run_cli, "--config", "none.yaml", told=["none.yaml: no such configuration file."])
    study(data={"bands": [9]})
    train_refused(
        run_cli,
        told=["optical.tif: data.bands: expected numbers of its 3 bands (1 red, 2 green, 3 blue), found 9 among 9."],
    )


def test_an_output_folder_that_cannot_be_written(run_cli, study, trained, town, here):
    Path("file").write_text("in the way")
    refused(run_cli("train", "--out", "file/run"), "file/run: cannot be written", "--out")
    bundle = trained / "bundle.safetensors"
    predict = ("predict", town.optical, "--modality", "optical", "--model", bundle)
    refused(run_cli(*predict, "--out", "file/map.tif"), "file/map.tif")
    refused(run_cli("sample", "file/town", "--size-m", "96"), "file/town")
    shutil.copy(town.labels, "labels.tif")
    assert run_cli(*predict, "--out", "map.tif")[0] == 0
    refused(
        run_cli("evaluate", "map.tif", "--labels", town.labels, "--out", "file/scores"),
        "file/scores: cannot be written",
    )
    assert Path("file").read_text() == "in the way"


def test_resuming_nothing(run_cli, study, here):
    refused(run_cli("train", "--resume"), "holds no run to resume", "--out")
    assert not Path("runs").exists()


@pytest.fixture
def predict(run_cli, here, trained):
    def run(scene, modality, *words, model=trained / "bundle.safetensors"):
        before = files_below(here)
        result = run_cli("predict", scene, "--modality", modality, "--model", model, "--out", "map.tif", *words)
        if result[0]:
            assert files_below(here) == before
            assert not list(here.glob(".*"))
        return result

    return run


@pytest.mark.parametrize("kind", [k for k in BROKEN_RASTERS if k != "elsewhere"])
@pytest.mark.parametrize("role", ["optical", "elevation"])
def test_predicting_from_a_broken_raster(predict, town, here, role, kind):
    make, told = BROKEN_RASTERS[kind]
    make(getattr(town, role), here / "broken.tif")
    refused(predict("broken.tif", role), told, "broken.tif")


def test_predicting_from_nothing_but_nodata(predict, town, here):
    changed(town.elevation, here / "nothing.tif", edit=lambda v: np.full_like(v, -9999))
    refused(predict("nothing.tif", "elevation"), "nothing.tif: no pixel is valid for elevation")


def test_predicting_from_other_bands(predict, town, here):
    refused(predict(town.elevation, "optical"), "expected 3 optical bands (red, green, blue", "found 1")
    refused(predict(town.optical, "elevation"), "expected one band of heights, found 3", "--modality optical")


def test_predicting_without_a_bundle(predict, run_cli, town, here):
    optical = town.optical
    refused(predict(optical, "optical", model="none.safetensors"), "none.safetensors: no such bundle")
    Path("checkpoint.ckpt").write_bytes(pickle.dumps({"weights": [1, 2]}))
    refused(predict(optical, "optical", model="checkpoint.ckpt"), "found a Python pickle", "can run code")
    refused(predict(optical, "optical", model=optical), "found another kind of file")
    err = refused(run_cli("predict", optical, "--modality", "optical"), "no bundle under ", "Name one with --model")
    assert str(here / "runs") in err
    assert not optical.with_name("optical.classes.tif").exists()


def test_predicting_with_what_the_machine_does_not_have(predict, town):
    refused(predict(town.optical, "optical", "--device", "abacus"), "--device abacus cannot be used here: ")


def test_predicting_over_what_is_there(predict, town, here):
    Path("map.tif").write_text("precious")
    refused(predict(town.optical, "optical"), "map.tif", "--overwrite")
    assert Path("map.tif").read_text() == "precious"
    assert predict(town.optical, "optical", "--overwrite")[0] == 0


def test_heights_unlike_those_of_the_training_are_a_warning(predict, town, here):
    code, _, err = predict(town.elevation, "elevation", "--height-unit", "ch")
    assert code == 0
    assert err.startswith("Warning: ")
    assert "lie outside the range of height_above_ground seen in training" in err
    assert [w.split(":")[0] for w in err.splitlines()] == ["Warning"], err
    assert (here / "map.tif").exists()


def test_evaluating_what_cannot_be_compared(run_cli, predict, town, here):
    assert predict(town.optical, "optical")[0] == 0
    before = files_below(here)
    evaluate = ("evaluate", "map.tif", "--labels", town.labels, "--out", "scores")
    refused(run_cli(*evaluate, "--split", "test"), "--split needs --aoi")
    refused(run_cli(*evaluate, "--aoi", town.aoi, "--split", "tset"), "no polygon of the split 'tset'")
    refused(run_cli("evaluate", "map.tif", "--labels", "none.tif"), "none.tif: no such file")
    refused(run_cli("evaluate", town.labels, "--labels", town.labels, "--out", "scores"), "names no classes")
    moved(town.labels, here / "far.tif", 50_000)
    refused(run_cli("evaluate", "map.tif", "--labels", "far.tif"), "map.tif", "does not meet")
    assert files_below(here) - before == {Path("far.tif")}
    assert not Path("scores").exists()


def test_inspecting_what_a_training_would_refuse(run_cli, town, here):
    refused(run_cli("inspect", "--aoi", town.aoi), "Nothing to inspect")
    refused(run_cli("inspect", "--optical", "none.tif"), "none.tif: no such file")
    for size in ("0", "-2", "nan", "inf"):
        words = ("inspect", "--optical", town.optical, "--resolution", size)
        refused(run_cli(*words), f"--resolution {size}: expected a pixel size in metres, above 0.")
    moved(town.labels, here / "far [1].tif", 50_000)
    code, out, err = run_cli("inspect", "--optical", town.optical, "--labels", "far [1].tif")
    assert (code, err) == (2, "")
    assert f"Problem: {here / 'far [1].tif'}: the label raster does not meet the reference grid." in out


def test_a_scene_over_one_that_is_there(run_cli, here):
    assert run_cli("sample", "town", "--size-m", "96")[0] == 0
    before = {p: (here / p).read_bytes() for p in files_below(here)}
    refused(run_cli("sample", "town", "--size-m", "96", "--seed", "1"), "town already holds optical.tif")
    assert {p: (here / p).read_bytes() for p in files_below(here)} == before


def test_debug_shows_the_traceback(monkeypatch, here):
    from geocrodino.cli.app import main
    from geocrodino.errors import RasterError

    monkeypatch.setenv("GEOCRODINO_DEBUG", "")
    monkeypatch.setattr("sys.argv", ["geocrodino", "--debug", "inspect", "--optical", "none.tif"])
    with pytest.raises(RasterError, match=r"none\.tif: no such file"):
        main()
    assert os.environ["GEOCRODINO_DEBUG"] == "1"


def test_an_error_of_the_system_that_nobody_expected(run_cli, monkeypatch, here):
    def fail(*_, **__):
        raise OSError(116, "Stale file handle", "/net/a.tif")

    monkeypatch.setattr("geocrodino.town.write.write_scene", fail)
    err = refused(run_cli("sample", "town"), "/net/a.tif: cannot be accessed (Stale file handle).\n")
    assert err.endswith("Show where it happened: geocrodino --debug COMMAND ...\n")
    monkeypatch.setattr("geocrodino.town.write.write_scene", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_cli("sample", "town")
