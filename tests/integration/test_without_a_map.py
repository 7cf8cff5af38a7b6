"""Plain pictures with heights, without CRS and geotransform: trained, predicted and evaluated on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import yaml

from geocrodino.bundle.describe import describe_manifest
from geocrodino.bundle.io import load_bundle
from geocrodino.geo.rasters.place import is_placeless
from geocrodino.geo.rasters.reader import RasterSource

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PIXEL_M = 0.5
SIDE = 96
ROOF_DM = 60  # 6 m in decimetres


def write(path, values):
    values = values if values.ndim == 3 else values[None]
    size = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    with rasterio.open(path, "w", driver="PNG", **size) as file:
        file.write(values)


def write_pair(folder, seed):
    """A picture, heights above ground in 8-bit decimetres, and labels: squares of roof (1) on grass (0)."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (SIDE // 16, SIDE // 16)).astype(np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    noise = rng.integers(0, 20, (3, SIDE, SIDE))
    write(folder / "image.png", (40 + 150 * labels[None] + noise).astype(np.uint8))
    write(folder / "ndsm.png", (ROOF_DM * labels + rng.integers(0, 3, labels.shape)).astype(np.uint8))
    write(folder / "labels.png", labels)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("pictures")
    scenes = [
        {
            "name": name,
            "split": name,
            "optical": f"{name}/image.png",
            "elevation": f"{name}/ndsm.png",
            "labels": f"{name}/labels.png",
        }
        for seed, name in enumerate(("train", "val"))
    ]
    for seed, name in enumerate(("train", "val", "test")):
        write_pair(folder / name, seed)
    data = {"scenes": scenes, "pixel_m": PIXEL_M, "height": {"scale": 0.1, "zero": "ground"}}
    classes = [{"value": 0, "name": "grass", "colour": "#00ff00"}, {"value": 1, "name": "roof", "colour": "#ff0000"}]
    settings = {k: v for k, v in tiny.items() if k != "elevation"}
    settings["training"] = {**settings["training"], "epochs": 1}
    (folder / "geocrodino.yaml").write_text(yaml.safe_dump({"data": data, "classes": classes, **settings}))
    return folder


def test_pictures_are_trained_predicted_and_evaluated(project, run_cli):
    code, told, errors = run_cli("train", "--config", project / "geocrodino.yaml", "--out", project / "run")
    assert code == 0, errors
    assert "2 scenes (train, val): heights above ground of 0.1 m a stored unit, as set" in told
    manifest = load_bundle(project / "run/bundle.safetensors").manifest
    recipe = manifest.modalities["elevation"].recipe
    assert recipe.channels == ("height_above_ground", "slope")
    assert recipe.height.model_dump(exclude_defaults=True) == {"scale": 0.1, "zero": "ground"}
    assert (recipe.dtype, manifest.resolution_m) == ("uint8", PIXEL_M)
    assert manifest.footprint == {"type": "MultiPolygon", "coordinates": []}
    told = dict(describe_manifest(manifest))
    assert told["elevation"].endswith("; coding of heights: scale 0.1, zero ground")
    assert told["pixel"] == "0.5 m, no place"
    highest = manifest.modalities["elevation"].channels[0].high
    assert 6.0 <= highest <= 6.2  # metres, not decimetres

    test = project / "test"
    words = ("--elevation", test / "ndsm.png", "--pixel-size", PIXEL_M, "--model", project / "run/bundle.safetensors")
    made = ("--stac", project / "map.json", "--polygons", project / "map.gpkg", "--preview", project / "map.png")
    code, told, errors = run_cli("predict", test / "image.png", *words, "--out", project / "map.tif", *made)
    assert code == 0, errors
    assert "Heights above ground of 0.1 m a stored unit, as in the training" in told
    with rasterio.open(project / "map.tif") as file:
        assert (file.crs, file.shape, file.tags()["PIXEL_M"]) == (None, (SIDE, SIDE), "0.5")
    found = RasterSource.open(project / "map.tif").geobox
    assert is_placeless(found)
    assert tuple(found.affine)[:6] == (PIXEL_M, 0, 0, 0, -PIXEL_M, 0)
    item = json.loads((project / "map.json").read_text())
    assert item["geometry"] is None
    assert item["properties"]["proj:code"] is None

    code, told, errors = run_cli("evaluate", project / "map.tif", "--labels", test / "labels.png")
    assert code == 0, errors
    scores = json.loads((project / "map.scores.json").read_text())
    assert np.sum(scores["confusion"]) == SIDE * SIDE


def test_pictures_without_a_pixel_size_are_refused(project, run_cli):
    test = project / "test"
    code, _, errors = run_cli("inspect", "--optical", test / "image.png", "--elevation", test / "ndsm.png")
    assert code == 2
    assert "If only its pixel size is known, state that in metres, for instance: --pixel-size 0.5" in errors


def test_inspection_of_pictures(project, run_cli):
    test = project / "test"
    words = ("--pixel-size", PIXEL_M, "--height-scale", 0.1, "--height-zero", "ground")
    code, told, errors = run_cli("inspect", "--optical", test / "image.png", "--elevation", test / "ndsm.png", *words)
    assert code == 0, errors
    assert "96 rows x 96 columns at 0.5 m, no place, metres" in told
    assert "heights above ground of 0.1 m a stored unit, as set" in told
    assert "0 to 6.2" in told
