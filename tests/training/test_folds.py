"""Tiles of a town as scenes: folds and their scores, maps of a split on the command line, leaks that are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.windows import Window

from geocrodino.bundle.io import load_bundle
from geocrodino.errors import ConfigError, SplitWarning
from geocrodino.settings.config import config_of, load_config
from geocrodino.training.checks import check_inputs
from geocrodino.training.folds import train_folds
from geocrodino.training.scene_maps import predict_scenes, scene_maps, scenes_of_split
from geocrodino.training.scenes import held_out

TILE = 100


@pytest.fixture(scope="module")
def tiles(town, tmp_path_factory):
    """Nine tiles of 100 x 100 px of the town, in three rows: items of `scenes`."""
    folder = tmp_path_factory.mktemp("tiles")
    found = []
    for row in range(3):
        for column in range(3):
            item = {"name": f"{row}_{column}", "elevation": str(town.elevation), "ignore_values": [4]}
            with rasterio.open(town.optical) as image:
                bounds = image.window_bounds(Window(column * TILE, row * TILE, TILE, TILE))
            for role, path in (("optical", town.optical), ("labels", town.labels)):
                item[role] = str(folder / f"{role}_{row}_{column}.tif")
                with rasterio.open(path) as source:
                    window = source.window(*bounds).round_offsets().round_lengths()
                    transform = source.window_transform(window)
                    size = {"width": window.width, "height": window.height, "transform": transform}
                    with rasterio.open(item[role], "w", **{**source.profile, **size}) as tile:
                        tile.write(source.read(window=window))
                        if role == "labels":
                            tile.write_colormap(1, source.colormap(1))
                            tile.update_tags(**source.tags())
            found.append(item)
    return found


@pytest.fixture(scope="module")
def settings(tiny, town):
    """Sections of a configuration of these tiles."""
    classes = [c for c in yaml.safe_load(town.config.read_text())["classes"] if c["name"] != "water"]
    training = {**tiny["training"], "epochs": 1, "steps_per_epoch": 1}
    return {**tiny, "training": training, "encoder_weights": {}, "classes": classes}


@pytest.fixture(scope="module")
def configured(settings):
    def make(scenes, **data):
        sections = {f"{s}.{k}": v for s, keys in settings.items() if isinstance(keys, dict) for k, v in keys.items()}
        given = {f"data.{key}": value for key, value in data.items()}
        return config_of({**sections, "encoder_weights": {}, "classes": settings["classes"], "data.scenes": scenes,
                          **given})  # fmt: skip

    return make


@pytest.fixture(scope="module")
def folds(configured, tiles, tmp_path_factory):
    """A finished cross-validation: its folder, its scores and what was told."""
    out, told = tmp_path_factory.mktemp("runs") / "folds", []
    config = configured(tiles, splits={"by": "scenes", "folds": 3})
    return out, train_folds(config, out, tell=told.append), told


def test_every_labelled_pixel_is_tested_once(folds, tiles):
    out, scores, told = folds
    labelled = 0
    for item in tiles:
        with rasterio.open(item["labels"]) as labels:
            labelled += int((~np.isin(labels.read(1), (4, labels.nodata))).sum())
    for modality in ("optical", "elevation"):
        every = scores[modality].all.total
        assert every.scores.pixels == labelled
        parts = [scene for fold in scores[modality].folds for scene in fold.scenes.values()]
        assert len(parts) == 9
        np.testing.assert_array_equal(sum(part.confusion for part in parts), every.confusion)
        np.testing.assert_array_equal(sum(part.missed for part in parts), every.missed)
    written = json.loads((out / "folds.json").read_text())["optical"]
    assert written["confusion"] == scores["optical"].all.total.confusion.tolist()
    assert [len(fold["scenes"]) for fold in written["folds"]] == [3, 3, 3]
    assert told[0] == f"Fold 1 of 3, in {out / 'fold-0'}"
    each = [100 * fold.total.scores.mean_iou for fold in scores["optical"].folds]
    assert written["fold_mean_iou"]["mean"] == pytest.approx(np.mean(each) / 100)
    assert written["fold_mean_iou"]["standard_deviation"] == pytest.approx(np.std(each, ddof=1) / 100)


def test_a_fold_is_tested_on_scenes_that_it_did_not_learn(folds):
    out, scores, _ = folds
    for fold in range(3):
        facts = json.loads((out / f"fold-{fold}" / "scenes.json").read_text())
        tested = {scene["name"] for scene in facts if scene["splits"] == ["test"]}
        assert tested == set(scores["optical"].folds[fold].scenes)
        assert (out / f"fold-{fold}" / "splits.png").exists()
        assert sorted(p.stem for p in (out / f"fold-{fold}" / "maps" / "optical").glob("*.tif")) == sorted(tested)


@pytest.mark.slow
def test_finished_folds_are_kept(folds, configured, tiles, tmp_path):
    out = tmp_path / "folds"
    shutil.copytree(folds[0], out)
    shutil.rmtree(out / "fold-2")
    before = (out / "fold-0" / "bundle.safetensors").stat().st_mtime_ns
    told = []
    again = train_folds(configured(tiles, splits={"folds": 3, "by": "scenes"}), out, resume=True, tell=told.append)
    assert told.count("It is finished already.") == 2
    assert (out / "fold-0" / "bundle.safetensors").stat().st_mtime_ns == before
    np.testing.assert_array_equal(again["optical"].all.total.confusion, folds[1]["optical"].all.total.confusion)
    other = configured(tiles, splits={"folds": 3, "by": "scenes"}, resolution_m=0.75)
    with pytest.raises(ConfigError, match=r"only be resumed with its own settings; changed: data\.resolution_m"):
        train_folds(other, out, resume=True)


def test_what_folds_need(configured, tiles, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.splits\.folds: expected a number of folds, found none"):
        train_folds(configured(tiles), tmp_path)
    with pytest.raises(ConfigError, match=r"data\.splits\.fold: 1 is held out in a single training"):
        train_folds(configured(tiles, splits={"folds": 3, "fold": 1}), tmp_path)
    fusion = configured(tiles, splits={"folds": 3})
    fusion = fusion.model_copy(update={"method": fusion.method.model_copy(update={"name": "fusion"})})
    with pytest.raises(ConfigError, match=r"method\.name fusion: folds are scored with the branches of a bundle"):
        train_folds(fusion, tmp_path)


# Maps of a split


@pytest.fixture(scope="module")
def maps(folds, configured, tiles, tmp_path_factory):
    """Configuration of a fold, and the folder of the maps of its test scenes."""
    folder = tmp_path_factory.mktemp("maps")
    config = held_out(configured(tiles, splits={"by": "scenes", "folds": 3}), 0)
    bundle = load_bundle(folds[0] / "fold-0" / "bundle.safetensors")
    assert len(list(predict_scenes(scenes_of_split(config, "test"), bundle, "optical", folder))) == 3
    return config, folder


def test_maps_of_scenes_are_scored_on_the_command_line(run_cli, maps, folds, tmp_path):
    config, folder = folds[0] / "fold-0" / "config.yaml", maps[1]
    code, told, err = run_cli("evaluate", folder, "--config", config, "--split", "test", "--out", tmp_path)
    assert (code, err) == (0, "")
    assert "Scores of each scene" in told
    written = json.loads((tmp_path / "scenes-test.scores.json").read_text())
    expected = folds[1]["optical"].folds[0]
    assert written["confusion"] == expected.total.confusion.tolist()
    assert list(written["scenes"]) == list(expected.scenes)
    assert (tmp_path / "scenes-test.scores.png").exists()


def test_scenes_of_a_split_are_predicted_on_the_command_line(run_cli, maps, folds, tmp_path):
    run = folds[0] / "fold-0"
    words = ("--config", run / "config.yaml", "--split", "test", "--modality", "optical")
    code, told, err = run_cli("predict", *words, "--model", run / "bundle.safetensors", "--out", tmp_path)
    assert (code, err) == (0, "")
    names = sorted(path.name for path in maps[1].glob("*.tif"))
    assert sorted(told.split()) == [str(tmp_path / name) for name in names]
    for name in names:
        with rasterio.open(tmp_path / name) as one, rasterio.open(maps[1] / name) as other:
            np.testing.assert_array_equal(one.read(), other.read())
    # From both rasters, with a picture of each map; a picture that is there is not replaced.
    both = (
        "predict",
        *words[:4],
        "--modality",
        "both",
        "--model",
        run / "bundle.safetensors",
        "--out",
        tmp_path / "both",
    )
    code, told, err = run_cli(*both, "--preview", tmp_path / "pictures")
    assert (code, err) == (0, "")
    pictures = [tmp_path / "pictures" / Path(name).with_suffix(".png") for name in names]
    assert sorted(told.split()) == sorted(str(p) for p in [*pictures, *(tmp_path / "both" / name for name in names)])
    assert {p.read_bytes()[1:4] for p in pictures} == {b"PNG"}
    code, _, err = run_cli(*both[:-1], tmp_path / "again", "--preview", tmp_path / "pictures")
    assert code == 2
    assert str(pictures[0].parent) in err
    assert not (tmp_path / "again").exists()
    model = ("--model", run / "bundle.safetensors")
    for wrong, text in (
        (("--config", run / "config.yaml", *model), "--config: expected a folder for the maps of the scenes."),
        (
            ("--config", run / "config.yaml", "--aoi", "0,0,1,1", *model),
            "--out, --preview and options of the computation; found --aoi. Leave these out.",
        ),
        (
            ("--config", run / "config.yaml", "--tile-px", "64", "--stac", "a.json", *model),
            "found --tile-px, --stac.",
        ),
        (
            (*words[:2], "--out", tmp_path, *model),
            "--modality auto: with --config expected optical, elevation or both.",
        ),
    ):
        code, _, err = run_cli("predict", *wrong)
        assert code == 2
        assert text in err


def test_splits_that_are_drawn_again(run_cli, maps, folds, tmp_path):
    """A copy of the configuration beside no run: of its seed alone nobody knows whether a training had it."""
    run = folds[0] / "fold-0"
    tree = yaml.safe_load((run / "config.yaml").read_text())
    original = tmp_path / "original.yaml"
    original.write_text(yaml.safe_dump(tree))
    words = ("--config", original, "--split", "test", "--out", tmp_path / "out")
    code, _, err = run_cli("evaluate", maps[1], *words)
    assert code == 0
    assert f"{original}: its splits are drawn (scenes; training.seed 0, training.patch_px 32, " in err
    assert "name config.yaml of its run folder, which records them." in err
    tree["training"]["seed"] = 7
    original.write_text(yaml.safe_dump(tree))
    code, _, err = run_cli("predict", *words, "--modality", "optical", "--model", run / "bundle.safetensors")
    assert code == 2
    assert err.strip().replace("\n", " ") == (
        f"Error: {original}: training.seed: splits are drawn (scenes), and the training of this bundle drew others: "
        f"expected 0, found 7. Name what it recorded: {run / 'config.yaml'}"
    )
    tree["training"]["seed"], tree["data"]["partial"] = 0, "keep"  # other scenes may be there to draw from
    original.write_text(yaml.safe_dump(tree))
    code, _, err = run_cli("predict", *words, "--modality", "optical", "--model", run / "bundle.safetensors")
    assert code == 2
    assert "data.partial: splits are drawn (scenes), and the training of this bundle drew others: expected" in err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.tif"))


def test_maps_that_are_missing(maps, tmp_path):
    parts = scenes_of_split(maps[0], "test")
    shutil.copy(maps[1] / f"{parts[0].name}.tif", tmp_path)
    with pytest.raises(ConfigError) as error:
        scene_maps(parts, tmp_path)
    missing = f"{parts[1].name}.tif, {parts[2].name}.tif"
    assert str(error.value).startswith(
        f"{tmp_path}: expected the map of each of 3 scenes, found none for 2: {missing}.\n"
    )
    with pytest.raises(ConfigError, match=r"data: no scene of the split unlabelled. Found: train, val, test\."):
        scenes_of_split(maps[0], "unlabelled")


def test_options_that_do_not_go_with_a_configuration(run_cli, maps, folds):
    config = folds[0] / "fold-0" / "config.yaml"
    code, _, err = run_cli("evaluate", maps[1], "--config", config, "--ignore", 3)
    assert code == 2
    assert "--ignore: --config says it for each scene. Leave --ignore out, or name --labels." in err
    code, _, err = run_cli("evaluate", maps[1])
    assert code == 2
    assert "expected labels to compare with. Give --labels, or --config of a training." in err


@pytest.mark.slow
def test_folds_on_the_command_line(run_cli, settings, tiles, tmp_path):
    config = tmp_path / "tiles.yaml"
    config.write_text(yaml.safe_dump({**settings, "data": {"scenes": tiles[:4]}}))
    out = tmp_path / "folds"
    code, told, err = run_cli("train", "--config", config, "--folds", 2, "--out", out)
    assert (code, err) == (0, "")
    assert "Fold 2 of 2" in told
    assert "Scores of all folds with elevation" in told
    assert load_config(out / "fold-1" / "config.yaml").data.splits.fold == 1


# Leaks and missing classes


def test_a_tile_under_two_names_is_warned_of(configured, tiles, tmp_path):
    copy = {**tiles[0], "name": "copy", "split": "test"}
    scenes = [{**tiles[0], "split": "train"}, {**tiles[1], "split": "val"}, copy]
    with pytest.warns(SplitWarning, match=r"1 pair of scenes of different splits overlap: 0_0 \(train\) and copy \(te"):
        found = check_inputs(configured(scenes))
    assert found.leaks.equal == ()  # the same place is told once
    moved = {}
    for role in ("optical", "elevation", "labels"):
        shutil.copy(tiles[0][role], tmp_path / f"{role}.tif")
        with rasterio.open(tmp_path / f"{role}.tif", "r+") as raster:
            raster.transform = rasterio.Affine.translation(5000, 0) * raster.transform
        moved[role] = str(tmp_path / f"{role}.tif")
    with pytest.warns(
        SplitWarning, match=r"1 pair of scenes of different splits hold the same image: 0_0 \(train\) an"
    ):
        check_inputs(configured([*scenes[:2], {**moved, "name": "far", "split": "test"}]))


def test_a_class_that_no_split_has(configured, settings, tiles):
    config = configured([{**tiles[0], "split": "train"}, {**tiles[1], "split": "val"}])
    snow = [*settings["classes"], {"value": 9, "name": "snow", "colour": "#ffffff"}]
    config = load_none(config, snow)
    with pytest.raises(ConfigError) as error:
        check_inputs(config)
    assert str(error.value) == (
        "classes: snow (9) has no labelled pixel in any split of 2 scenes.\n"
        "Leave it out of `classes`, or correct the values of the labels or the splits of the scenes. With the key "
        "data.absent_classes: warn, the training starts all the same."
    )
    data = config.data.model_copy(update={"absent_classes": "warn"})
    count = len(snow)
    with pytest.warns(
        SplitWarning, match=rf"1 of {count} classes has nothing to learn from, and no map will show it\."
    ):
        found = check_inputs(config.model_copy(update={"data": data}))
    assert found.leaks.in_no_split == ("snow (9)",)


def load_none(config, classes):
    return type(config).model_validate({**config.model_dump(mode="json"), "classes": classes})


def test_inspect_tells_of_leaks_and_draws_the_splits(run_cli, settings, tiles, tmp_path):
    scenes = [{**tiles[0], "split": "train"}, {**tiles[1], "split": "val"}, {**tiles[0], "name": "c", "split": "test"}]
    config = tmp_path / "tiles.yaml"
    config.write_text(yaml.safe_dump({**settings, "data": {"scenes": scenes}}))
    code, told, err = run_cli("inspect", "--config", config, "--split-map", tmp_path / "splits.png")
    assert (code, err) == (0, "")
    assert "Least distance between splits: train to val 0 m, train to test 0 m, val to test 0 m" in told
    assert (
        "Leak: 1 pair of scenes of different splits overlap: 0_0 (train) and c (test) by 100 % of the smaller" in told
    )
    assert (tmp_path / "splits.png").read_bytes().startswith(b"\x89PNG")
