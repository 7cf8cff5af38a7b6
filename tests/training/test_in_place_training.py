"""Trainings that read rasters in place: what they learn, what they write, and files that change meanwhile."""

from __future__ import annotations

import itertools
import json
import os

import numpy as np
import pytest
import rasterio
import yaml
from lightning.pytorch.callbacks import Callback
from rasterio.windows import Window as RasterioWindow
from safetensors.torch import load_file

from geocrodino.data import in_place
from geocrodino.errors import ConfigError, RasterError
from geocrodino.geo.rasters import open_files
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.training.dry_run import plan_training
from geocrodino.training.folder import recorded_settings
from geocrodino.training.run import train

pytestmark = pytest.mark.usefixtures("no_picture")


@pytest.fixture(scope="module")
def files(town, tmp_path_factory):
    """Image, heights above ground and labels of the town, of one grid of 320 x 320 px, and the same in four tiles."""
    folder = tmp_path_factory.mktemp("shared")
    image = RasterSource.open(town.optical)
    surface, _ = RasterSource.open(town.elevation).read(image.geobox)
    ground, _ = RasterSource.open(town.ground).read(image.geobox)
    with rasterio.open(town.optical) as dataset:
        profile = {**dataset.profile, "compress": "deflate", "tiled": True, "blockxsize": 64, "blockysize": 64}
        layers = {"optical": dataset.read(), "elevation": np.nan_to_num(surface - ground, nan=-9999)}
        names = dataset.descriptions
    with rasterio.open(town.labels) as dataset:
        layers["labels"] = dataset.read()
    nodata = {"optical": None, "elevation": -9999, "labels": 255}
    for role, values in layers.items():
        own = {**profile, "count": len(values), "dtype": values.dtype, "nodata": nodata[role]}
        with rasterio.open(folder / f"{role}.tif", "w", **own) as target:
            target.write(values)
            target.descriptions = names if role == "optical" else (None,)
        (folder / role).mkdir()
        for row, col in itertools.product(range(2), range(2)):
            part = RasterioWindow(col * 160, row * 160, 160, 160)
            with rasterio.open(folder / f"{role}.tif") as source:
                place = {"width": 160, "height": 160, "transform": source.window_transform(part)}
            with rasterio.open(folder / role / f"{role}_{row}_{col}.tif", "w", **{**own, **place}) as target:
                target.write(values[:, row * 160 : row * 160 + 160, col * 160 : col * 160 + 160])
                target.descriptions = names if role == "optical" else (None,)
    return folder


@pytest.fixture(scope="module")
def configured(tiny_config, files):
    """Function of ``data.cache`` and changes to a configuration on the whole files, or on tiles joined by name."""

    def make(cache, tiles=False, **changes):
        name = "{0}/{0}_{{row}}_{{col}}.tif" if tiles else "{0}.tif"
        rasters = {f"data.{role}": str(files / name.format(role)) for role in ("optical", "elevation", "labels")}
        heights = {"data.height.zero": "ground", "elevation.channels": ["height_above_ground", "slope"]}
        return tiny_config({**rasters, **heights, "data.cache": cache, **changes})

    return make


def weights(bundle):
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(bundle).items()}


def losses(out):
    return (out / "logs" / "metrics.csv").read_text().splitlines()[0], [
        [value for name, value in row.items() if "loss" in name] for row in _rows(out)
    ]


def _rows(out):
    head, *rows = (line.split(",") for line in (out / "logs" / "metrics.csv").read_text().splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def copied(configured, tmp_path_factory):
    """Folder of a finished run on copies."""
    out = tmp_path_factory.mktemp("copied") / "run"
    train(configured("copy"), out)
    return out


def test_the_networks_are_those_of_a_training_on_copies(configured, copied, tmp_path):
    out, told = tmp_path / "run", []
    train(configured("in_place"), out, tell=told.append)
    assert f"Layers in {out}/aligned: " in "\n".join(told)
    assert "; optical and elevation read in place." in "\n".join(told)
    assert open_files._open_files._idle == []
    assert weights(out / "bundle.safetensors") == weights(copied / "bundle.safetensors")
    assert losses(out) == losses(copied)
    for name in ("inputs.json", "statistics.json"):
        assert (out / name).read_bytes() == (copied / name).read_bytes()
    assert sorted(path.name for path in (out / "aligned").glob("*.img")) == ["labels.img"]
    assert len(list((copied / "aligned").glob("*.img"))) == 3
    settings = [yaml.safe_load((folder / "config.yaml").read_text())["data"] for folder in (out, copied)]
    assert [data.pop("cache") for data in settings] == ["in_place", "copy"]
    assert settings[0] == settings[1]


@pytest.mark.usefixtures("no_measurement")
def test_what_is_read_in_place_is_loaded_into_memory(configured, copied, tmp_path):
    out, told = tmp_path / "run", []
    train(configured("in_place", **{"training.layers": "device"}), out, tell=told.append)
    assert any(line.startswith("Patches: cut from layers in memory, ") for line in told)
    assert "; optical and elevation read in place." in "\n".join(told)
    assert weights(out / "bundle.safetensors") == weights(copied / "bundle.safetensors")
    assert losses(out) == losses(copied)


def test_tiles_joined_by_name_are_read_in_place(configured, tmp_path):
    for cache in ("copy", "in_place"):
        train(configured(cache, tiles=True), tmp_path / cache / "run")
    one, other = (tmp_path / cache / "run" for cache in ("copy", "in_place"))
    assert weights(one / "bundle.safetensors") == weights(other / "bundle.safetensors")
    folders = json.loads((other / "aligned" / "scenes.json").read_text())
    assert len(folders) == 4
    assert {path.name for path in (tmp_path / "in_place" / "aligned-cache").rglob("*.img")} == {"labels.img"}


class _Stop(Callback):
    def on_train_epoch_start(self, trainer, _):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def test_a_run_is_resumed_in_the_other_way(configured, copied, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(configured("copy"), out, callbacks=[_Stop()])
    train(configured("in_place"), out, resume=True)
    assert recorded_settings(out).data.cache == "in_place"
    assert weights(out / "bundle.safetensors") == weights(copied / "bundle.safetensors")
    assert [path.name for path in (out / "aligned").glob("*.img")] == ["labels.img"]


def test_auto_takes_copies_that_are_there(configured, copied, monkeypatch, tmp_path):
    monkeypatch.setattr(in_place, "COPIED_BYTES", 0)
    config = configured("auto")
    assert plan_training(config, tmp_path / "run").in_place == "; optical and elevation read in place"
    plan = plan_training(config, copied, overwrite=True)
    assert (plan.in_place, plan.layer_bytes) == ("", 0)


def test_a_dry_run_names_what_is_read_in_place(configured, tmp_path):
    plan = plan_training(configured("in_place"), tmp_path / "run")
    pixels = int(plan.inputs.partition(" px")[0].rpartition(" ")[2].replace(",", ""))  # the first line names them
    assert plan.layer_bytes == pixels  # labels
    line = next(line for line in plan.lines() if line.startswith("Disk: ") and "layers" in line)
    assert line == f"Disk: {pixels:,} bytes of aligned layers in {plan.layers}; optical and elevation read in place"


def test_heights_on_another_grid_are_refused_before_anything_is_written(configured, town, tmp_path):
    with pytest.raises(ConfigError, match=r"dsm\.tif: cannot be read in place: its pixels are not those of the wo"):
        train(configured("in_place", **{"data.elevation": str(town.elevation)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_changes_during_a_training_ends_it(configured, files, tmp_path, workers):
    path = files / "optical.tif"
    status = path.stat()

    class Change(Callback):
        def on_train_epoch_end(self, *_):
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))

    out = tmp_path / "run"
    config = configured("in_place", **{"training.workers": workers})
    with pytest.raises(RasterError) as caught:
        train(config, out, callbacks=[Change()])
    assert str(caught.value).startswith(f"{path}: changed while a training reads it in place: expected ")
    assert open_files._open_files._idle == []  # no training leaves files open
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_file_that_is_another_one_when_a_run_is_resumed(configured, files, tmp_path):
    path, out = files / "optical.tif", tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(configured("in_place"), out, callbacks=[_Stop()])
    content = path.read_bytes()
    with rasterio.open(path, "r+") as file:
        file.write(255 - file.read())
    try:
        with pytest.raises(ConfigError, match="rasters"):
            train(configured("in_place"), out, resume=True)
    finally:
        path.write_bytes(content)
