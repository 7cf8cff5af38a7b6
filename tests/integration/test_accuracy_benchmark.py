"""`benchmarks/accuracy.py`: what peers get, and its table. Their trainings are a slow test."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml

from geocrodino.geo.rasters.window import Window
from geocrodino.models.pretrained.package import package_weights
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import load_config
from geocrodino.training.prepare import prepare

ROOT = Path(__file__).parents[2]
OWN = (
    "accuracy",
    "accuracy_peers",
    "accuracy_geoai",
    "real_scenes",
    "unseen_towns",
    "fragments",
    "trainings",
    "scoring",
)


@pytest.fixture
def benchmark(monkeypatch):
    """Import a script of benchmarks/ together with those that it uses."""
    monkeypatch.syspath_prepend(str(ROOT / "pipelines"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module
    for name in OWN:
        sys.modules.pop(name, None)


@pytest.fixture
def ready(town, tmp_path):
    """The town as peers see it: the height itself as the only channel of the heights."""
    config = load_config(town.config, {"elevation.channels": ["height"], "training.patch_px": 32})
    return prepare(config, tmp_path / "run")


def test_torchgeo_gets_bytes_divided_by_255_and_heights_standardised(benchmark, ready, town):
    dataset = benchmark("accuracy_peers").PeerDataset(ready, ("optical", "elevation"))
    window = Window(40, 72, 40, 72)
    sample = dataset[window]
    assert dataset.channels == 4
    assert sample["image"].dtype == torch.float32
    layers = ready.scenes[0].layers
    digital = np.asarray(layers.channels("optical")[:, 40:72, 40:72])
    assert digital.max() > 1
    valid = np.isfinite(digital).all(axis=0) & np.isfinite(layers.channels("elevation")[:, 40:72, 40:72])[0]
    assert np.array_equal(sample["image"][:3].numpy()[:, valid], (digital / np.float32(255))[:, valid])
    (channel,) = ready.specs["elevation"].channels
    assert channel.name == "height"
    metres = np.asarray(ready.scenes[0].layers.channels("elevation")[0, 40:72, 40:72])
    expected = (np.clip(metres, channel.low, channel.high) - channel.mean) / channel.std
    assert np.abs(sample["image"][3].numpy() - expected)[valid].max() < 1e-5 * max(1, abs(channel.mean / channel.std))


def test_pixels_without_label_or_input_are_ignored(benchmark, ready):
    peers = benchmark("accuracy_peers")
    dataset = peers.PeerDataset(ready, ("elevation",))
    heights = ready.scenes[0].layers.channels("elevation")[0]
    row, col = np.argwhere(~np.isfinite(heights) & (ready.scenes[0].layers.class_indices() != IGNORE_INDEX))[0]
    window = Window.at(int(row), int(col), (1, 1))
    sample = dataset[window]
    assert (sample["mask"].item(), sample["image"].item()) == (IGNORE_INDEX, 0.0)
    assert set(np.unique(dataset[Window.of(heights.shape)]["mask"])) <= {*range(len(ready.classes)), IGNORE_INDEX}


def test_geoai_gets_bytes_as_they_are_and_heights_from_0_to_255(benchmark, ready):
    peers = benchmark("accuracy_peers")
    dataset = peers.PeerDataset(ready, ("elevation",), library="geoai")
    (channel,) = ready.specs["elevation"].channels
    middle = (channel.low + channel.high) / 2
    given = np.array([[[channel.low - 9, middle, channel.high + 9, np.nan]]], np.float32)
    assert dataset.scaled("elevation", given).round(2).tolist() == [[[0.0, 127.5, 255.0, 0.0]]]
    image = peers.PeerDataset(ready, ("optical",), library="geoai")
    assert image.scaled("optical", np.full((3, 1, 1), 7, np.float32)).tolist() == [[[7.0]]] * 3


def test_validation_counts_labels_of_val_alone_and_all_of_them(benchmark, ready):
    peers = benchmark("accuracy_peers")
    dataset = peers.PeerDataset(ready, ("optical",))
    val = peers.ValDataset(dataset, ready, 32)
    seen = np.zeros(ready.grid.shape, bool)
    for index, window in enumerate(val.windows):
        seen[window.slices] |= (val[index]["mask"] != IGNORE_INDEX).numpy()
    valid = np.isfinite(ready.scenes[0].layers.channels("optical")).all(axis=0)
    assert np.array_equal(seen, ready.scenes[0].inside["val"] & (ready.scenes[0].labels != IGNORE_INDEX) & valid)


@pytest.mark.parametrize("model", ["unet", "deeplabv3+"])
def test_peers_start_from_the_weights_of_geocrodino(benchmark, model):
    state = package_weights("tf_efficientnet_lite0").tensors
    network = benchmark("accuracy_peers").create_network(model, 3, 5)
    loaded = network.encoder.state_dict()
    name = next(key for key in loaded if key.endswith("conv_stem.weight"))
    assert torch.equal(loaded[name], state["conv_stem.weight"])
    last = next(key for key in loaded if key.endswith("6.0.conv_pwl.weight") or key.endswith("6_0.conv_pwl.weight"))
    assert torch.equal(loaded[last], state["blocks.6.0.conv_pwl.weight"])
    one = benchmark("accuracy_peers").encoder_state(1)
    assert torch.allclose(one[name], state["conv_stem.weight"].sum(dim=1, keepdim=True))
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 64, 64)


def test_geoai_validates_on_the_tiles_of_val(benchmark):
    split = benchmark("accuracy_geoai").split_by_name
    names = ["/x/train0.tif", "/x/val0.tif", "/x/train1.tif"]
    train, val, train_labels, val_labels = split(names, [f"{n}.label" for n in names], test_size=0.2, random_state=1)
    assert (train, val) == (["/x/train0.tif", "/x/train1.tif"], ["/x/val0.tif"])
    assert (train_labels, val_labels) == (["/x/train0.tif.label", "/x/train1.tif.label"], ["/x/val0.tif.label"])


def test_a_map_holds_every_pixel_of_test(benchmark, ready, tmp_path):
    accuracy = benchmark("accuracy")
    target = tmp_path / "map.tif"
    accuracy.write_map(lambda w: np.full((w[1] - w[0], w[3] - w[2]), 2, np.uint8), ready, target, 48)
    with rasterio.open(target) as source:
        values = source.read(1)
    inside = accuracy.inside_mask(ready.checked[0].aoi.polygons("test"), ready.grid)
    assert inside.any()
    assert (values[inside] == 2).all()


def test_the_table_has_differences_and_the_time_of_all_networks_of_a_row(benchmark):
    accuracy = benchmark("accuracy")

    def record(method, source, miou, minutes):
        found = {"labels": "labels", "method": method, "from": source, "miou": miou, "minutes": minutes}
        return {**found, "parameters": 2_000_000}

    records = [
        *(record("geocrodino", s, [50.0, 52.0], [4.0, 4.0]) for s in ("image", "heights", "both")),
        record("torchgeo, unet", "image", [48.0, 51.0], [1.0, 1.0]),
        record("torchgeo, unet", "both", [53.0, 54.0], [2.0, 2.0]),
    ]
    assert accuracy.make_table("labels", records, ["geoai"])[2:-1] == [
        "| method | image | heights | both | minutes | of geocrodino | parameters, M |",
        "|---|---|---|---|---|---|---|",
        "| geocrodino | 51.0 ± 1.4 | 51.0 ± 1.4 | 51.0 ± 1.4 | 4.0 | 1.00 | 2.0 |",
        "| torchgeo, unet | 49.5 ± 2.1 (-1.5) |  | 53.5 ± 0.7 (+2.5) | 3.0 | 0.75 | 4.0 |",
        "| geoai | skipped | skipped | skipped | | | |",
    ]


def test_steps_are_split_into_epochs(benchmark):
    split = benchmark("accuracy").split_steps
    assert split(3) == {"training.epochs": 1, "training.steps_per_epoch": 3}
    assert split(100) == {"training.epochs": 3, "training.steps_per_epoch": 34}


@pytest.mark.slow
def test_all_trainings_run_and_a_second_call_repeats_none(town, tmp_path):
    content = yaml.safe_load(town.config.read_text())
    content["data"] = {key: str(town.config.parent / name) for key, name in content["data"].items()}
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump({**content, "training": {"patch_px": 32, "batch_size": 2}}))
    command = [
        *(sys.executable, "benchmarks/accuracy.py", "--scene", str(config), "--steps", "2", "--seeds", "0"),
        *("--out", str(tmp_path / "out"), "--fragments", str(tmp_path / "tables")),
    ]
    for trainings in (6, 0):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": training") == trainings + (trainings > 0)
    table = (tmp_path / "tables" / "peers-small.md").read_text()
    for row in ("geocrodino", "geocrodino, fusion", "torchgeo, unet", "torchgeo, deeplabv3+", "geoai"):
        assert f"| {row} |" in table
