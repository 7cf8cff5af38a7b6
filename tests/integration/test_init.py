"""From a folder with files of any names to a trained bundle, without an edit."""

from __future__ import annotations

import shutil

import geopandas as gpd
import pytest
import rasterio
import shapely
import yaml
from rasterio.features import shapes

from geocrodino.settings.town import CLASSES


@pytest.mark.slow
def test_init_then_train(town, tiny, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my data"
    folder.mkdir()
    for name, source in (("photo.tif", town.optical), ("dsm.tif", town.elevation), ("areas.geojson", town.aoi)):
        shutil.copy(source, folder / name)
    with rasterio.open(town.labels) as labels:
        values, transform, crs = labels.read(1), labels.transform, labels.crs
    found = [(shapely.geometry.shape(g), int(v)) for g, v in shapes(values, values != 255, transform=transform)]
    names = [CLASSES.by_value[value] for _, value in found]
    columns = {"landuse": names, "code": [value for _, value in found]}
    gpd.GeoDataFrame(columns, geometry=[shape for shape, _ in found], crs=crs).to_file(folder / "parcels.shp")

    code, out, err = run_cli("init", "my data")
    assert code == 0, err
    assert "label_rules: {column: landuse} (column of the classes: words for the numbers of the other columns)" in out
    written = yaml.safe_load((tmp_path / "geocrodino.yaml").read_text())
    assert [each["name"] for each in written["classes"]] == sorted(set(names))

    # The same files, with a network and a number of steps that take a second.
    fast = {**tiny, "training": {**written["training"], **tiny["training"]}, "elevation": {}}
    (tmp_path / "fast.yaml").write_text(yaml.safe_dump({**written, **fast}))
    code, out, err = run_cli("train", "--config", "fast.yaml", "--out", "run")
    assert code == 0, err
    assert (tmp_path / "run/bundle.safetensors").exists()
