"""Scenes that lack a modality: trained, mapped and evaluated beside complete ones through the command line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import yaml

from geocrodino.bundle.io import load_bundle
from geocrodino.errors import ConfigError
from geocrodino.settings.config import config_of
from geocrodino.settings.town import SceneSettings
from geocrodino.town.write import write_scene
from geocrodino.training.checks import check_inputs
from geocrodino.training.run import train
from geocrodino.training.scene_maps import plan_scene_maps, predict_scenes, scenes_of_split
from geocrodino.training.scenes import list_scenes

pytestmark = pytest.mark.filterwarnings("ignore::geocrodino.errors.SplitWarning")  # the towns overlap


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A complete scene, one with an image alone, one with heights alone, and one with heights and without labels."""
    root, found = tmp_path_factory.mktemp("scenes"), {}
    for seed, name in enumerate(("both", "image", "heights", "bare"), start=1):
        (root / name).mkdir()
        write_scene(root / name, SceneSettings(size_m=160 if name == "both" else 96, seed=seed))
        files = {"optical": "optical.tif", "elevation": "dsm.tif", "labels": "labels.tif"}
        found[name] = {"name": name, **{role: str(root / name / file) for role, file in files.items()}}
    found["both"]["aoi"] = str(root / "both" / "aoi.geojson")
    del found["image"]["elevation"], found["heights"]["optical"], found["bare"]["optical"], found["bare"]["labels"]
    found["image"]["split"], found["heights"]["split"] = "test", "train"
    return found


def config_from(tiny, scenes, **changes):
    sections = {f"{section}.{k}": v for section, keys in tiny.items() for k, v in keys.items()}
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return config_of({**sections, "encoder_weights": {}, "data.scenes": scenes, **dotted})


@pytest.fixture(scope="module")
def run(tiny, scenes, tmp_path_factory):
    """The configuration file and the folder of a run that `geocrodino train` is asked for."""
    folder = tmp_path_factory.mktemp("run")
    sections = {**tiny, "training": {**tiny["training"], "batch_norm_batches": 2}, "method": {"agreement": 0.5}}
    content = {**sections, "data": {"scenes": list(scenes.values())}}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.usefixtures("no_picture")
def test_scenes_that_lack_a_modality_train_and_are_told_apart(run, run_cli):
    code, said, wrong = run_cli("train", "--config", str(run / "config.yaml"), "--out", str(run / "out"))
    assert code == 0, wrong
    assert "Without optical: heights, bare" in said
    assert "Without elevation: image" in said
    facts = json.loads((run / "out" / "scenes.json").read_text())
    assert [sorted(scene["files"]) for scene in facts] == [
        ["elevation", "label", "optical"], ["label", "optical"], ["elevation", "label"], ["elevation"],
    ]  # fmt: skip
    bundle = load_bundle(run / "out" / "bundle.safetensors")
    assert list(bundle.manifest.modalities) == ["optical", "elevation"]
    for modality in bundle.manifest.modalities:
        assert all(torch.isfinite(value).all() for value in bundle.branch(modality).state_dict().values())
    options = ("--config", str(run / "config.yaml"), "--split", "test")
    model = ("--model", str(run / "out" / "bundle.safetensors"))
    code, said, wrong = run_cli(
        "predict", *options, "--modality", "elevation", *model, "--out", str(run / "maps")
    )  # the scene `image` cannot be mapped from heights
    assert code == 0, wrong
    assert "Without a raster of elevation, not mapped: image" in said
    assert [path.name for path in sorted((run / "maps").glob("*.tif"))] == ["both.tif"]
    told = run_cli("predict", *options, "--modality", "elevation", *model, "--out", str(run / "dry"), "--dry-run")
    assert told[0] == 0, told[2]
    assert "Dry run: 1 map\n" in told[1]
    assert "Without a raster of elevation, not mapped: image" in told[1]
    code, said, wrong = run_cli("evaluate", str(run / "maps"), *options)
    assert code == 0, wrong
    assert "Without a map, because they lack a modality; not counted: image" in said


@pytest.mark.parametrize("find", [predict_scenes, plan_scene_maps])
def test_maps_and_dry_runs_without_any_raster_of_the_modality_are_refused(tiny, scenes, find, tmp_path):
    bare = {**scenes["image"], "split": "unlabelled"}
    (image,) = scenes_of_split(config_from(tiny, [scenes["both"], bare]), "unlabelled")
    with pytest.raises(ConfigError) as refused:
        list(find([image], None, "elevation", tmp_path / "maps"))
    assert str(refused.value) == (
        "data.elevation: expected its raster for a scene of this split, found none for 1.\n"
        "Choose another modality with `modality`, or another split."
    )
    assert not any(tmp_path.iterdir())


def test_scenes_that_lack_a_modality_are_inspected(tiny, scenes, run_cli, tmp_path):
    content = {**tiny, "data": {"scenes": [scenes[name] for name in ("both", "image", "heights")]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    code, said, wrong = run_cli("inspect", "--config", str(tmp_path / "config.yaml"))
    assert code == 0, said + wrong
    shown = said.split("\nScene ")
    assert [("\noptical: " in each, "\nelevation: " in each) for each in shown[1:]] == [
        (True, True), (True, False), (False, True),
    ]  # fmt: skip
    assert "These files fit together." in said


def test_the_statistics_are_those_of_the_scenes_that_have_the_modality(tiny, scenes):
    found = check_inputs(config_from(tiny, list(scenes.values())))
    assert [tuple(scene.sources.rasters) for scene in found.scenes] == [
        ("optical", "elevation"), ("optical",), ("elevation",), ("elevation",),
    ]  # fmt: skip
    assert not found.ground_given
    ground = scenes["both"]["elevation"].replace("dsm", "dtm")
    known = [{**scenes["both"], "ground": ground}, scenes["image"]]
    assert check_inputs(config_from(tiny, known)).ground_given


@pytest.mark.parametrize(("split", "verb"), [("train", "trained"), ("val", "validated")])
def test_a_modality_without_labels_in_a_split_is_refused(tiny, scenes, split, verb):
    """Only `heights` and `bare` have heights, and they have no labelled pixel in the split."""
    image = {**scenes["both"]}
    del image["elevation"]
    heights = {**scenes["heights"], "split": "val" if split == "train" else "train"}
    with pytest.raises(ConfigError) as refused:
        check_inputs(config_from(tiny, [image, heights, scenes["bare"]]))
    assert str(refused.value) == (
        f"data.elevation: no labelled pixel of the split {split!r} in 3 scenes has a valid elevation value, so the "
        f"elevation branch cannot be {verb}.\nGive a scene with elevation and labels the split {split}."
    )


def curve(out):
    with (out / "logs" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss/total"]]
    return {key: [float(row[key]) for row in rows] for key in rows[0] if key.startswith("loss/")}


@pytest.mark.slow
@pytest.mark.usefixtures("no_picture", "no_measurement")
@pytest.mark.parametrize(
    "method",
    [
        {
            "method__name": "single",
            "training__batch_size": 2,
        },  # often no patch of a modality
        {"method__contrast": "none", "method__agreement": 0.5, "training__batch_size": 4},
    ],
)
def test_two_processes_have_the_loss_curve_of_one(tiny, scenes, tmp_path, method):
    """In float64, where Adam does not blow differences of rounding up to the size of a step."""
    shared = {"training__epochs": 2, "training__steps_per_epoch": 4, "training__precision": "64-true", **method}
    train(config_from(tiny, list(scenes.values()), **shared), tmp_path / "one")
    train(config_from(tiny, list(scenes.values()), **shared, training__devices=2), tmp_path / "two")
    expected, found = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert list(found) == list(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-6, err_msg=key)


def test_a_scene_without_any_raster_is_refused(tiny, scenes):
    nothing = {"name": "nothing", "labels": scenes["both"]["labels"]}
    with pytest.raises(ConfigError) as refused:
        list_scenes(config_from(tiny, [scenes["both"], nothing]).data)
    assert str(refused.value) == (
        "data.optical of scene nothing: expected the raster of a modality (optical, elevation), found none. Name it, "
        "or leave the scene out."
    )
