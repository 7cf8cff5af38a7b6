"""The working grid of a run: chosen, recorded, and kept when the run goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from lightning.pytorch.callbacks import Callback

from geocrodino.bundle.io import load_bundle
from geocrodino.errors import ConfigError
from geocrodino.settings.config import load_config
from geocrodino.training.folder import on_recorded_grid
from geocrodino.training.prepare import prepare
from geocrodino.training.run import train

CHOSEN = (
    "Image 0.5 m, heights 1 m, labels 1 m: works at 1 m, the pixel size of the labels. `data.resolution_m=0.5` keeps "
    "that of the image, with 4 times the pixels."
)


class PowerCut(Callback):
    """Breaks a training off in its second epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")


def interrupted(config, out, **options):
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, out, callbacks=[PowerCut()], **options)


@pytest.fixture(scope="module")
def coarse(town, tiny_config, tmp_path_factory):
    """Configurations with labels of 1 m: every second pixel of those of the town, whose image has 0.5 m."""
    path = tmp_path_factory.mktemp("coarse") / "labels.tif"
    with rasterio.open(town.labels) as dataset:
        profile = dataset.profile | {"width": 160, "height": 160, "transform": dataset.transform * Affine.scale(2)}
        with rasterio.open(path, "w", **profile) as target:
            target.write(np.ascontiguousarray(dataset.read()[:, ::2, ::2]))

    def make(**changes):
        return tiny_config({"data.labels": str(path), **{k.replace("__", "."): v for k, v in changes.items()}})

    return make


def as_written_by_version_0_1(out):
    """Take the grid out of the recorded settings."""
    settings = yaml.safe_load((out / "config.yaml").read_text())
    settings["data"]["resolution_m"] = None
    del settings["data"]["grid_of"]
    (out / "config.yaml").write_text(yaml.safe_dump(settings))


def grid_in(out):
    data = load_config(out / "config.yaml").data
    return data.resolution_m, data.grid_of


def test_a_run_works_at_the_labels_size_and_goes_on_with_it(coarse, tmp_path):
    out, told = tmp_path / "run", []
    interrupted(coarse(), out, tell=told.append)
    assert told[0].splitlines()[0].endswith(" px; a patch of 32 px covers 32 m")
    assert told[0].splitlines()[1] == CHOSEN
    assert grid_in(out) == (1.0, "labels")
    shape = json.loads((out / "aligned" / "aligned.json").read_text())["shape"]
    bundle = train(coarse(), out, resume=True).bundle
    assert load_bundle(bundle).manifest.resolution_m == 1.0
    assert grid_in(out) == (1.0, "labels")

    aligned = {path.name: path.read_bytes() for path in (out / "aligned").glob("*.img")}
    again = (
        prepare(load_config(out / "config.yaml"), tmp_path / "again").scenes[0].layers
    )  # as a new training with this file
    assert list(again.grid.shape) == shape
    assert {p.name: p.read_bytes() for p in (*again.rasters.values(), again.labels)} == aligned


def test_a_run_of_version_0_1_stays_on_the_grid_of_its_image(coarse, tmp_path):
    out = tmp_path / "run"
    interrupted(coarse(data__grid_of="image"), out)
    as_written_by_version_0_1(out)
    with pytest.raises(ConfigError) as refused:
        train(coarse(data__resolution_m=1.0), out, resume=True)
    assert str(refused.value) == (
        f"{out}: a run can only be resumed with its own settings; changed: data.resolution_m.\n"
        "Undo the change, or start anew in another folder with `out`. The settings of the run are in "
        f"{out / 'config.yaml'}, which can be given as the configuration."
    )
    bundle = train(coarse(), out, resume=True).bundle
    assert load_bundle(bundle).manifest.resolution_m == 0.5
    assert grid_in(out) == (0.5, "image")


def test_a_run_that_named_the_raster_alone_goes_on_with_the_same_words(coarse):
    recorded = coarse().with_grid(1.0, "labels")
    assert on_recorded_grid(coarse(data__grid_of="labels"), recorded) == recorded
    other = on_recorded_grid(coarse(data__grid_of="image"), recorded).data
    assert (other.resolution_m, other.grid_of) == (None, "image")


def test_students_work_on_the_grid_of_their_teacher(coarse, tmp_path):
    teacher = tmp_path / "teacher"
    train(coarse(method__name="fusion", data__grid_of="image"), teacher)
    as_written_by_version_0_1(teacher)
    train(coarse(method__name="kd"), tmp_path / "run", teacher=teacher)
    assert grid_in(tmp_path / "run") == (0.5, "image")
    with pytest.raises(ConfigError, match="the teacher was trained with other settings: data"):
        train(coarse(method__name="kd", data__resolution_m=1.0), tmp_path / "other", teacher=teacher)
