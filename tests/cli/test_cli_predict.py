"""``geocrodino predict`` with more than one scene, and what it writes beside the map."""

import json
from pathlib import Path

import geopandas as gpd
import pytest
import rasterio

from geocrodino.prediction.tiles.predictor import CachedTiles


@pytest.fixture
def predict(run_cli, trained, here):
    def run(*words):
        return run_cli("predict", *words, "--model", trained / "bundle.safetensors", "--workers", "1")

    return run


def test_the_modality_is_seen_and_told(predict, town):
    code, out, err = predict(town.elevation, "--out", "map.tif")
    assert (code, err) == (0, "")
    assert "Modality: elevation (1 band of float32: heights, for the elevation branch)\n" in out
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_threads_share_freed_memory(predict, town, monkeypatch):
    from geocrodino.prediction import memory

    asked = []
    monkeypatch.setattr(memory, "share_freed_memory", lambda: asked.append(True))
    assert predict(town.elevation, "--out", "map.tif")[0] == 0
    assert asked == [True]


def test_both_modalities_and_everything_that_can_be_written(predict, run_cli, town):
    code, out, err = predict(
        town.optical, "--elevation", town.elevation, "--out", "map.tif", "--layer", "confidence", "--layer",
        "disagreement", "--polygons", "map.gpkg", "--min-area-m2", "2", "--simplify-m", "0.5", "--stac", "map.json",
        "--preview", "map.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "Modality: optical and elevation (an image and a surface model were given)\n" in out
    assert "Decided by: optical " in out
    with rasterio.open("map.layers.tif") as layers:
        assert layers.descriptions == ("confidence", "disagreement")
    frame = gpd.read_file("map.gpkg", layer="classes")
    assert f"Polygons: map.gpkg, {len(frame):,}\n" in out
    item = json.loads(Path("map.json").read_text())
    assert set(item["assets"]) == {"map", "decided", "layers", "polygons", "preview"}
    assert all((Path.cwd() / asset["href"]).exists() for asset in item["assets"].values())
    assert {link["href"] for link in item["links"] if link["rel"] == "derived_from"} == {
        "map.optical-model.json", "map.elevation-model.json"
    }  # fmt: skip
    code, out, err = run_cli("evaluate", "map.tif", "--labels", town.labels, "--out", "scores")
    assert (code, err) == (0, "")
    assert "Expected calibration error " in out
    assert Path("scores/map.reliability.png").exists()


def test_half_precision_is_noted_in_the_map(predict, town, monkeypatch):
    from geocrodino.prediction.backends import torch as torch_backend

    monkeypatch.setattr(torch_backend, "has_bfloat16", lambda _: True)
    for precision, number in (("full", "float32"), ("half", "bfloat16")):
        words = ("--backend", "torch", "--precision", precision)
        code, _, err = predict(town.optical, "--out", f"{precision}.tif", *words)
        assert (code, err) == (0, "")
        with rasterio.open(f"{precision}.tif") as found:
            assert found.tags()["PRECISION"] == number


def test_the_side_of_tiles_changes_the_work_and_not_the_map(predict, town, monkeypatch):
    computed, compute, maps = [], CachedTiles._compute, []
    monkeypatch.setattr(CachedTiles, "_compute", lambda self, index: computed.append(index) or compute(self, index))
    for side, tiles in (("1024", 1), ("64", 25)):  # the town is 320 px wide
        computed.clear()
        code, _, err = predict(town.optical, "--out", f"{side}.tif", "--tile-px", side, "--backend", "torch")
        assert (code, err, len(computed)) == (0, "", tiles)
        with rasterio.open(f"{side}.tif") as found:
            maps.append(found.read(1))
    assert (maps[0] == maps[1]).mean() > 0.999  # but for rounding


def test_a_map_in_parts_with_an_item_for_each(predict, town):
    code, _, err = predict(town.optical, "--out", "map.vrt", "--block-px", "512", "--stac", "map.json")
    assert (code, err) == (0, "")
    found = json.loads(Path("map.parts.json").read_text())["features"]
    assert {item["assets"]["map"]["href"] for item in found} == {str(path) for path in Path("map.parts").glob("*.tif")}
    assert json.loads(Path("map.json").read_text())["assets"]["map"]["href"] == "map.vrt"
    code, _, err = predict(town.optical, "--out", "whole.tif", "--stac", "map.json", "--overwrite")
    assert (code, err) == (0, "")
    assert not Path("map.parts.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--resume"], "map.tif: there is no work to go on with."),
        (["--simplify-m", "1"], "--min-area-m2 and --simplify-m need --polygons: they shape the polygons of its file."),
        (["--polygons", "m.gpkg", "--simplify-m", "inf"], "--simplify-m inf: expected a finite number, 0 or more."),
        (["--bands", "1,1,2"], "--bands: expected 3 different numbers of its bands (1 red, 2 green, 3 blue), in the "),
        (["--aoi", ""], "--aoi: expected a value, found an empty text. Is a variable of the"),
        (["--aoi="], "--aoi: expected a value, found an empty text. Is a variable of the"),
        (["--modality", "both"], "--modality both needs an image and a surface model, found one raster."),
        (["--layer", "disagreement"], "the layer disagreement compares two modalities, found optical alone."),
        (["--memory", "1MB"], "is too little. Expected at least "),
        (["--memory", "much"], "memory 'much' is no size."),
        (["--aoi", "0,0,1,1", "--aoi-crs", "EPSG:4326"], "the area does not meet"),
        (["--asset", "rgb"], "the asset 'rgb' was asked for, but this is no STAC file. Leave it out."),
        (["--stac", "map.xml"], "map.xml: the STAC item is written as JSON. Let the name end in .json."),
        (["--preview", "map.jpg"], "map.jpg: the picture is written as a PNG. Let the name end in .png."),
        (
            ["--out", "map.png"],
            "(parts under a virtual raster), found one for the format PNG.\nTake map.tif.\n",
        ),
        (["--polygons", "none/map.gpkg"], "none/map.gpkg: the folder none does not exist."),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_written(predict, town, words, told):
    code, _, err = predict(town.optical, "--out", "map.tif", *words)
    assert code == 2
    assert told in err
    assert list(Path.cwd().iterdir()) == []


def test_a_preview_is_not_replaced_unasked(predict, town):
    Path("map.png").write_text("precious")
    code, _, err = predict(town.optical, "--out", "map.tif", "--preview", "map.png")
    assert (code, err.partition("\n")[0]) == (2, "Error: map.png: the file exists.")
    assert Path("map.png").read_text() == "precious"


def test_a_backend_of_processors_is_no_word_for_a_gpu(monkeypatch):
    import torch

    from geocrodino.cli import device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "_has_gpu_driver", lambda: True)
    _device = device._device
    assert [_device("auto", backend) for backend in ("auto", "torch", "openvino")] == ["cuda", "cuda", "cpu"]


def test_the_end_of_memory_is_told(predict, town, monkeypatch):
    def too_much(*_):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"
        )

    monkeypatch.setattr("geocrodino.prediction.engine.run_threads", too_much)
    code, _, err = predict(town.optical, "--out", "map.tif")
    assert code == 2
    assert err.startswith("Error: out of memory: [enforce fail")
    assert err.endswith(
        "Use less memory: a smaller --batch-size or --patch-px for a training; fewer --workers for a map, or start it "
        "anew with a smaller --tile-px or --batch.\n"
    )
    monkeypatch.setattr("geocrodino.prediction.engine.run_threads", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(town.optical, "--out", "map.tif")


def test_several_files_need_a_name(predict, town):
    code, _, err = predict(town.optical, town.optical)
    assert (code, err) == (
        2,
        "Error: several files, or one that is remote or in an archive: name the map with --out.\n",
    )


def test_a_dry_run_names_every_file(predict, town):
    words = ["--out", "map.tif", "--polygons", "map.gpkg", "--preview", "map.png", "--stac", "map.json"]
    code, out, _ = predict(town.optical, *words, "--dry-run")
    assert code == 0
    assert "\nWrites: map.tif, map.gpkg, map.png, map.json\n" in out
    assert list(Path.cwd().iterdir()) == []
