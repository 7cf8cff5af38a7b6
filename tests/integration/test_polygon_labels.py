"""From polygons with a column of words to scores, through the command line, without any preparation."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from rasterio.features import shapes

from geocrodino.settings.town import CLASSES


@pytest.fixture
def parcels(town, tmp_path):
    """Polygons of the classes of the generated scene in degrees, two of three, and their number by class."""
    with rasterio.open(town.labels) as labels:
        values, transform, crs = labels.read(1), labels.transform, labels.crs
    found = [(shapely.geometry.shape(g), int(v)) for g, v in shapes(values, values != 255, transform=transform)]
    kept = [(shape, CLASSES.by_value[value]) for i, (shape, value) in enumerate(found) if i % 3]
    frame = gpd.GeoDataFrame({"landuse": [n for _, n in kept]}, geometry=[s for s, _ in kept], crs=crs)
    frame.to_crs("EPSG:4326").to_file(tmp_path / "parcels.gpkg")
    return tmp_path / "parcels.gpkg"


@pytest.mark.slow
def test_polygons_with_words(town, tiny, parcels, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    files = ("--optical", town.optical, "--elevation", town.elevation, "--aoi", town.aoi)
    labelled = ("--labels", parcels, "--label-column", "landuse")

    code, out, _ = run_cli("inspect", *files, *labelled, "--config", "tiny.yaml")
    assert code == 0, out
    assert "polygons, column landuse, EPSG:4326" in out

    code, out, err = run_cli("train", *files, *labelled, "--config", "tiny.yaml", "--out", "run")
    assert code == 0, err
    names = sorted(set(gpd.read_file(parcels)["landuse"]))
    assert f"Classes: {', '.join(names)} (found in column landuse of parcels.gpkg, in alphabetical order)" in out
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["data"]["label_rules"]["column"] == "landuse"

    run_cli("predict", town.optical, "--modality", "optical", "--model", "run/bundle.safetensors", "--out", "map.tif")
    scores = []
    for way in (labelled, ("--labels", parcels, "--config", "run/config.yaml")):
        code, out, err = run_cli("evaluate", "map.tif", *way, "--aoi", town.aoi, "--split", "test")
        assert code == 0, err
        scores.append(json.loads((tmp_path / "map.scores.json").read_text()))
    assert scores[0] == scores[1]
    # Burnt by hand: pixels of the polygons in `test`, by class.
    assert sum(map(sum, scores[0]["confusion"])) == labelled_px(town, parcels)


def labelled_px(town, parcels) -> int:
    """Pixels whose centres lie in a polygon and in `test`, where the map has a class."""
    with rasterio.open("map.tif") as made:
        grid, predicted = made.transform, made.read(1)
        areas = gpd.read_file(town.aoi).to_crs(made.crs)
        drawn = shapely.union_all(gpd.read_file(parcels).to_crs(made.crs).geometry.values)
    test = shapely.union_all(areas[areas["split"] == "test"].geometry.values)
    rows, cols = np.mgrid[: predicted.shape[0], : predicted.shape[1]]
    x, y = grid * (cols + 0.5, rows + 0.5)
    inside = shapely.contains_xy(drawn, x, y) & shapely.contains_xy(test, x, y)
    return int((inside & (predicted != 255)).sum())


def test_a_missing_column_and_another_place(town, tiny, parcels, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    files = ("--optical", town.optical, "--elevation", town.elevation, "--aoi", town.aoi, "--config", "tiny.yaml")
    code, _, err = run_cli("train", *files, "--labels", parcels, "--label-column", "landuze")
    assert code == 2
    assert err.endswith(
        "parcels.gpkg: data.label_rules.column: no column 'landuze'. Expected one of landuse. Did you mean landuse?\n"
    )
    frame = gpd.read_file(parcels)
    frame.set_geometry(frame.translate(yoff=-90)).to_file(tmp_path / "south.gpkg")
    code, _, err = run_cli("train", *files, "--labels", "south.gpkg", "--label-column", "landuse")
    assert code == 2
    assert "south.gpkg (labels): does not meet the raster that it belongs to: expected shapes within" in err
    code, _, err = run_cli("train", *files, "--labels", "none.gpkg", "--label-column", "landuse")
    assert code == 2
    assert "none.gpkg: no such file" in err
