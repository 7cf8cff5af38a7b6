"""A training on several scenes, each in its own CRS: files of the run, resuming, and what is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from geocrodino.bundle.io import load_bundle
from geocrodino.data import scales
from geocrodino.data.grid_choice import describe_work
from geocrodino.data.held_labels import PackedLabels
from geocrodino.errors import AOIError, BandWarning, ConfigError, HeightError, HeightRangeWarning, ValueRangeWarning
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.config import config_of, load_config
from geocrodino.settings.town import SceneSettings
from geocrodino.town.write import write_scene
from geocrodino.training.checks import check_inputs
from geocrodino.training.run import train
from geocrodino.training.scenes import list_scenes

ZONE_32 = "EPSG:32632"


@pytest.fixture(scope="module")
def south(tmp_path_factory):
    """A second town, in the next UTM zone: its folder."""
    folder = tmp_path_factory.mktemp("south")
    paths = write_scene(folder, SceneSettings(size_m=160, seed=2))
    for path in folder.glob("*.tif"):
        with rasterio.open(path, "r+") as dataset:
            dataset.crs = ZONE_32
    areas = gpd.read_file(paths.aoi).to_crs("EPSG:32631").set_crs(ZONE_32, allow_override=True)
    areas.to_file(folder / "aoi.gpkg")
    return folder


@pytest.fixture(scope="module")
def two(town, south):
    """The two towns as items of `scenes`."""
    folder = town.optical.parent
    return [
        {"name": "north", **files_of(folder), "aoi": str(folder / "aoi.geojson")},
        {"name": "south", **files_of(south), "aoi": str(south / "aoi.gpkg")},
    ]


def files_of(folder):
    names = {"optical": "optical.tif", "elevation": "dsm.tif", "labels": "labels.tif"}
    return {role: str(folder / name) for role, name in names.items()}


@pytest.fixture(scope="module")
def configured(tiny):
    sections = {f"{section}.{k}": v for section, keys in tiny.items() for k, v in keys.items()}

    def make(scenes, **changes):
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        return config_of({**sections, "encoder_weights": {}, "data.scenes": scenes, **dotted})

    return make


@pytest.fixture(scope="module")
def run(configured, two, tmp_path_factory):
    """A finished run, and what was told."""
    out, told = tmp_path_factory.mktemp("runs") / "two", []
    train(configured(two), out, tell=told.append)
    return out, told


def weights(bundle):
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(bundle).items()}


def test_what_is_told(run):
    lines = run[1][0].splitlines()
    assert lines[0].startswith("Scenes: 2 (north, south), ")
    assert lines[0].endswith("EPSG:32631, 84,100 px; a patch of 32 px covers 16 m")
    assert lines[1] == "Images of 2 scenes 0.5 m: all work at 0.5 m, the coarsest that a scene asks for."
    assert lines[2] == "2 scenes (north, south): heights in metre, by the band's unit tag"


def aligned(out):
    """The folder of the layers of each scene of a run."""
    return {name: Path(place) for name, place in json.loads((out / "aligned" / "scenes.json").read_text()).items()}


def test_the_run_folder_describes_each_scene(run, two):
    out, _ = run
    north, south = json.loads((out / "scenes.json").read_text())
    assert (north["name"], south["name"]) == ("north", "south")
    assert (north["crs"], south["crs"]) == ("EPSG:32631", ZONE_32)
    assert south["files"]["optical"] == [two[1]["optical"]]
    assert north["splits"] == south["splits"] == ["train", "val", "test"]
    counted = 0
    for scene in (north, south):
        labels = np.fromfile(aligned(out)[scene["name"]] / "labels.img", np.uint8).reshape(scene["shape"])
        assert 0 < scene["pixels"]["train"] <= labels.size
        counted += (labels != 255).sum()
    assert sum(json.loads((out / "statistics.json").read_text())["class_px"].values()) < counted


def test_the_splits_of_all_scenes_are_in_one_file(run):
    found = gpd.read_file(run[0] / "splits.gpkg")
    assert found.crs.to_epsg() == 4326
    assert list(zip(found.scene, found.split, strict=True)) == [
        (scene, split) for scene in ("north", "south") for split in ("train", "val", "test")
    ]


def test_the_bundle_names_both_places(run):
    manifest = load_bundle(run[0] / "bundle.safetensors").manifest
    assert manifest.crs == "EPSG:32631"
    footprint = shapely.from_geojson(json.dumps(manifest.footprint))
    splits = gpd.read_file(run[0] / "splits.gpkg")
    for place in splits[splits.split == "train"].geometry:
        assert footprint.intersection(place).area == pytest.approx(place.area, rel=1e-6)


def test_a_resumed_run_ends_as_an_uninterrupted_one(run, configured, two, tmp_path):
    class Stop(Callback):
        def on_train_epoch_start(self, trainer, _):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(configured(two), tmp_path / "run", callbacks=[Stop()])
    with pytest.raises(ConfigError, match=r"only be resumed with its own settings; changed: data\.scenes"):
        train(configured(two[:1]), tmp_path / "run", resume=True)
    result = train(configured(two), tmp_path / "run", resume=True)
    assert weights(result.bundle) == weights(run[0] / "bundle.safetensors")


def test_the_settings_of_a_run_train_it_again(run):
    written = load_config(run[0] / "config.yaml")
    assert [scene.name for scene in list_scenes(written.data)] == ["north", "south"]
    assert (written.data.resolution_m, written.data.grid_of) == (pytest.approx(0.5, rel=1e-3), "image")


def test_a_list_of_one_scene_trains_what_the_short_form_trains(trained, configured, two, tiny_config, tmp_path):
    classes = tiny_config().model_dump(mode="json")["classes"]
    scene = {k: v for k, v in two[0].items() if k != "name"}
    result = train(configured([scene], classes=classes), tmp_path / "run")
    assert weights(result.bundle) == weights(trained / "bundle.safetensors")
    assert (tmp_path / "run" / "statistics.json").read_bytes() == (trained / "statistics.json").read_bytes()


def test_train_predict_and_evaluate_on_the_command_line(run_cli, two, tiny, tmp_path):
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump({**tiny, "encoder_weights": {}, "data": {"scenes": two}}))
    out = tmp_path / "run"
    code, told, err = run_cli("train", "--config", config, "--epochs", 1, "--out", out)
    assert (code, err) == (0, "")
    assert "method crodino; scenes: 2" in told
    code, _, err = run_cli(
        "predict", two[1]["optical"], "--modality", "optical", "--model", out / "bundle.safetensors",
        "--out", tmp_path / "map.tif", "--backend", "torch",
    )  # fmt: skip
    assert (code, err) == (0, "")
    code, told, err = run_cli(
        "evaluate", tmp_path / "map.tif", "--labels", two[1]["labels"], "--aoi", out / "splits.gpkg", "--split", "test"
    )
    assert (code, err) == (0, "")
    assert "accuracy" in told


def test_inspect_describes_each_scene(run_cli, two, tmp_path):
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump({"data": {"scenes": two}, "training": {"patch_px": 32}}))
    code, told, err = run_cli("inspect", "--config", config)
    assert (code, err) == (0, "")
    assert told.startswith("Reading 2 scenes.\nScene north\noptical: ")
    grids = [scene.grid for scene in check_inputs(load_config(config, {})).scenes]
    assert grids[1].crs.epsg == 32632
    assert [line for line in told.splitlines() if line.startswith("Working grid: ")] == [
        f"Working grid: {describe_work(grid, 32)}" for grid in grids
    ]
    assert told.endswith("These files fit together.\n")


def test_inspect_tells_the_common_pixel_size(run_cli, two, tmp_path):
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump({"data": {"scenes": two, "resolution_m": 1}, "training": {"patch_px": 32}}))
    code, told, err = run_cli("inspect", "--config", config)
    assert (code, err) == (0, "")
    assert [line.partition(" at ")[2][:4] for line in told.splitlines() if line.startswith("Working grid: ")] == [
        "1 m,", "1 m,",
    ]  # fmt: skip
    assert "Images of 2 scenes 0.5 m: all work at 1 m, as set." in told


# Whole scenes, scenes without labels


def whole(item, **changes):
    return {k: v for k, v in {**item, "aoi": None, **changes}.items() if v is not None}


def test_whole_scenes_are_one_split_each(configured, two):
    scenes = [whole(two[0], split="train"), whole(two[1], split="val"), whole(two[1], name="more", labels=None)]
    found = check_inputs(configured(scenes))
    assert [list(scene.inside) for scene in found.scenes] == [["train"], ["val"], ["unlabelled"]]
    assert found.split_px() == {"train": 102_400, "val": 102_400, "unlabelled": 102_400}
    assert (found.scenes[2].labels == 255).all()
    assert not found.drawn
    assert all(mask.strides == (0, 0) for scene in found.scenes for mask in scene.inside.values())


def test_a_scene_to_test_on_is_not_copied(configured, two, tmp_path):
    scenes = [two[0], whole(two[1], split="test")]
    train(configured(scenes, training__epochs=1), tmp_path / "run")
    assert list(aligned(tmp_path / "run")) == ["north"]
    assert json.loads((tmp_path / "run" / "scenes.json").read_text())[1]["splits"] == ["test"]


def test_unlabelled_scenes_are_learnt_from(configured, two, tmp_path):
    told, scenes = [], [two[0], whole(two[1], labels=None)]
    train(configured(scenes, training__epochs=1, training__unlabelled_share=1.0), tmp_path / "run", tell=told.append)
    assert "A batch holds 2 patches with labels and 2 without." in told
    labels = np.fromfile(aligned(tmp_path / "run")["south"] / "labels.img", np.uint8)
    assert (labels == 255).all()


def test_a_scene_smaller_than_a_patch_gets_the_size_of_one(configured, two, tmp_path):
    small = {}
    for role in ("optical", "labels"):
        with rasterio.open(two[1][role]) as source:
            small[role] = str(tmp_path / f"{role}.tif")
            profile = {**source.profile, "height": 20, "width": 50}
            with rasterio.open(small[role], "w", **profile) as target:
                target.write(source.read(window=((100, 120), (100, 150))))
    scenes = [two[0], whole(two[1], **small, split="train", name="small")]
    scene = check_inputs(configured(scenes)).scenes[1]
    assert tuple(scene.grid.shape) == (32, 50)
    assert (scene.labels[20:] == 255).all()
    assert (scene.labels[:20] != 255).any()
    # Its split is the ground of the scene, 10 x 25 m, without that of the patch.
    (box,) = scene.aoi.frame.geometry
    assert box.area == pytest.approx(250)
    assert scene.inside["train"].all()


def test_a_scene_smaller_than_a_patch_gets_the_size_of_one_with_an_area_too(configured, two, tmp_path):
    """The area is the left half of a scene of 20 x 50 px; labels outside it are not used."""
    small = {}
    for role in ("optical", "labels"):
        small[role] = str(tmp_path / f"{role}.tif")
        with rasterio.open(two[1][role]) as source:
            place = source.window_transform(((100, 120), (100, 150)))
            profile = {**source.profile, "height": 20, "width": 50, "transform": place}
            with rasterio.open(small[role], "w", **profile) as target:
                target.write(source.read(window=((100, 120), (100, 150))))
    with rasterio.open(small["optical"]) as source:
        left, bottom, right, top = source.bounds
    half = f"{left},{bottom},{(left + right) / 2},{top}"
    scenes = [two[0], {**whole(two[1], **small, split="train", name="small"), "aoi": half, "aoi_crs": ZONE_32}]
    scene = check_inputs(configured(scenes)).scenes[1]
    assert tuple(scene.grid.shape) == (32, 32)
    assert scene.inside["train"].all()
    (box,) = scene.aoi.frame.geometry
    assert box.area == pytest.approx(10 * 12.5)
    assert (scene.labels[:20, :25] != 255).any()
    assert (scene.labels[20:] == 255).all()
    assert (scene.labels[:, 25:] == 255).all()


def test_labels_are_read_once_and_many_are_compressed(configured, two, monkeypatch):
    plain, read = check_inputs(configured(two)), []
    indices = LabelSource.indices
    monkeypatch.setattr(LabelSource, "indices", lambda self, *given: read.append(given[1]) or indices(self, *given))
    monkeypatch.setattr("geocrodino.training.scene_checks._FEW", 1)
    packed = check_inputs(configured(two))
    assert len(read) == sum(len(list(Window.of(scene.grid.shape).blocks(512))) for scene in packed.scenes)
    for one, other in zip(plain.scenes, packed.scenes, strict=True):
        assert isinstance(other.held, PackedLabels)
        assert sum(map(len, other.held.tiles)) < one.labels.size / 10
        assert np.array_equal(one.labels, other.labels)
    assert all(np.array_equal(packed.leaks.class_px[split], counts) for split, counts in plain.leaks.class_px.items())


def test_labels_of_many_scenes_are_those_of_their_files(run, configured, two, tmp_path, monkeypatch):
    monkeypatch.setattr("geocrodino.training.scene_checks._FEW", 1)
    monkeypatch.setattr("geocrodino.training.prepare._MOST_MAPPED", 1)
    result = train(configured(two), tmp_path / "run")
    assert weights(result.bundle) == weights(run[0] / "bundle.safetensors")
    assert (tmp_path / "run" / "inputs.json").read_bytes() == (run[0] / "inputs.json").read_bytes()


# What is refused


def refused(config, kind=ConfigError):
    with pytest.raises(kind) as error:
        check_inputs(config)
    return str(error.value)


def test_each_scene_needs_a_split(configured, two):
    assert refused(configured([two[0], whole(two[1])])) == (
        "data.scenes: scene south has no split. Expected the key split (train, val, test or unlabelled), polygons "
        "with a column split under the key aoi, or rules for all scenes under data.splits."
    )
    only = [whole(two[0], split="train"), whole(two[1], split="test")]
    assert refused(configured(only), AOIError) == (
        "The 2 scenes: no scene of the split val. Expected train and val (and test, to report on), found train, test.\n"
        "Name it for some, with the key split of a scene, in a list file, or in the column split of areas."
    )


def test_a_scene_without_labels_is_neither_train_nor_val(configured, two):
    scenes = [two[0], whole(two[1], labels=None, split="train")]
    assert refused(configured(scenes)).startswith(
        "data.scenes: scene south: expected labels for the split train, found none."
    )
    bare = [whole(item, labels=None) for item in two]
    assert refused(configured(bare)).startswith("data.scenes: no scene has labels.")


def test_a_scene_of_several_may_lack_a_modality(configured, two):
    scenes = [{**two[0], "elevation": None}, two[1]]
    assert [tuple(s.sources.rasters) for s in check_inputs(configured(scenes)).scenes] == [
        ("optical",),
        ("optical", "elevation"),
    ]


def changed(path, target, change, **options):
    with rasterio.open(path) as source:
        values = change(source.read())
        profile = {**source.profile, "count": len(values), "dtype": values.dtype, "nodata": None}
        profile.pop("photometric", None)
        with rasterio.open(target, "w", **profile, **options) as written:
            written.write(values)
    return str(target)


def test_other_bands_and_other_types_name_both_scenes(configured, two, tmp_path):
    two_bands = changed(two[1]["optical"], tmp_path / "two.tif", lambda v: v[:2])
    message = refused(configured([two[0], {**two[1], "optical": two_bands}]))
    assert message.startswith(f"Scene south is unlike scene north. {two_bands}: expected 3 optical bands")
    assert message.endswith("Give the numbers of the same bands, under data or for each scene: bands: [1, 2]")
    plain = [
        changed(item["optical"], tmp_path / f"{item['name']}.tif", lambda v: v, photometric="MINISBLACK")
        for item in two
    ]
    four = changed(
        two[1]["optical"], tmp_path / "four.tif", lambda v: np.concatenate([v, v[:1]]), photometric="MINISBLACK"
    )
    scenes = [{**two[0], "optical": plain[0]}, {**two[1], "optical": four}]
    assert refused(configured(scenes)) == (
        f"Scene south is unlike scene north. {four}: expected 3 optical bands (band 1, band 2, band 3) as in "
        f"{plain[0]}, found 4 (band 1, band 2, band 3, band 4), and no names tell which of them are alike.\n"
        "Give the numbers of the same bands, under data or for each scene: bands: [1, 2, 3]"
    )
    assert check_inputs(configured([{**item, "bands": [1, 2, 3]} for item in scenes])).recipes["optical"].bands == (
        1,
        2,
        3,
    )


def test_types_of_images_may_differ_where_their_values_are_alike(configured, two, tmp_path):
    deep = changed(two[1]["optical"], tmp_path / "deep.tif", lambda v: v.astype(np.uint16))
    told = f"{deep}: values of the type uint16 in scene south, uint8 in scene north. Both are read as they are"
    with pytest.warns(ValueRangeWarning) as warned:
        found = check_inputs(configured([two[0], {**two[1], "optical": deep}]))
    assert [str(w.message)[: len(told)] for w in warned if w.category is ValueRangeWarning] == [told]
    assert [scene.sources.rasters["optical"].dtype for scene in found.scenes] == ["uint8", "uint16"]


def test_many_images_of_another_type_get_one_warning(configured, two, tmp_path, monkeypatch):
    """Seven scenes: the first image is looked at once, and the other ones once each."""
    deep = changed(two[1]["optical"], tmp_path / "deep.tif", lambda v: v.astype(np.uint16))
    others = [{**two[1], "name": name, "optical": deep} for name in "abcdef"]
    looked = []
    look = scales._look
    monkeypatch.setattr(scales, "_look", lambda raster: looked.append(str(raster.path)) or look(raster))
    with pytest.warns(ValueRangeWarning) as warned:
        check_inputs(configured([two[0], *others]))
    assert [str(w.message) for w in warned if w.category is ValueRangeWarning] == [
        "6 scenes (a, b, c, d, e and 1 more): values of the type uint16 in their images, uint8 in scene north. All are "
        "read as they are: the values of 6 are alike."
    ]
    assert (looked.count(two[0]["optical"]), looked.count(deep)) == (1, 6)


def test_another_type_and_scale_needs_a_factor(configured, two, tmp_path):
    """Fractions of 1 and whole numbers up to 255: the factor of their full ranges is 255."""
    shares = changed(two[1]["optical"], tmp_path / "shares.tif", lambda v: v.astype(np.float32) / 255)
    scenes = [two[0], {**two[1], "optical": shares}]
    message = refused(configured(scenes))
    assert message.startswith(
        f"{shares}: values of the type float32 in scene south, uint8 in scene north, and on another scale: found red 0."
    )
    assert message.endswith("Give scene south the factor between the two scales, for instance rescale: 255.")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ValueRangeWarning)
        found = check_inputs(configured([two[0], {**two[1], "optical": shares, "rescale": 255}]))
    read = [scene.sources.rasters["optical"].read_own(Window(0, 64, 0, 64), (1,))[0] for scene in found.scenes]
    with rasterio.open(two[1]["optical"]) as stored:
        np.testing.assert_allclose(read[1][0], stored.read(1)[:64, :64], rtol=1e-6)


def test_a_factor_replaces_the_one_that_the_scene_has(configured, two, tmp_path):
    """Fractions of 1 that are multiplied by 0.01 need 255 times 100 in place of it: the advice is one that works."""
    shares = changed(two[1]["optical"], tmp_path / "shares.tif", lambda v: v.astype(np.float32) / 255)
    message = refused(configured([two[0], {**two[1], "optical": shares, "rescale": 0.01}]))
    assert message.endswith("for instance rescale: 2.55 instead of 0.01.")


def test_no_factor_is_named_where_it_would_be_1(configured, two, tmp_path):
    """Values up to 255, and others of 399 and 400: the logarithm of their quotient is between 0 and 0.5."""
    other = changed(two[1]["optical"], tmp_path / "near.tif", lambda v: np.where(v % 2, 399, 400).astype(np.float32))
    message = refused(configured([two[0], {**two[1], "optical": other}]))
    assert message.partition("\n")[2] == (
        "No factor follows from their highest values. Compare how both images were made (units, offset, correction). "
        "Give scene south the factor that their makers state as its key rescale, or leave the "
        "scene out."
    )


def test_a_band_that_is_named_is_not_doubted_in_any_scene(configured, two, tmp_path):
    """Four bands of 8 bits: GDAL tags the last one as transparency."""
    four = [
        changed(each["optical"], tmp_path / f"{each['name']}.tif", lambda v: np.concatenate([v, v[:1]]), alpha="YES")
        for each in two
    ]
    scenes = [{**each, "optical": image} for each, image in zip(two, four, strict=True)]
    for changes, expected in (({}, 1), ({"data__bands": [1, 2, 3, 4]}, 0)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = check_inputs(configured(scenes, **changes))
        assert sum(w.category is BandWarning for w in told) == expected
        assert found.recipes["optical"].bands == (1, 2, 3, 4)


def test_ground_in_some_scenes_is_warned_of(configured, two):
    north = {**two[0], "ground": two[0]["elevation"].replace("dsm.tif", "dtm.tif")}
    with pytest.warns(HeightRangeWarning, match=r"only for some scenes is the ground known.*\(south\)"):
        found = check_inputs(configured([north, two[1]]))
    assert not found.ground_given


def test_units_of_heights_are_those_of_each_scene(configured, two, tmp_path):
    bare = changed(two[1]["elevation"], tmp_path / "bare.tif", lambda v: v)
    feet = {**two[1], "elevation": bare, "height_unit": "ft"}
    found = check_inputs(configured([two[0], feet]))
    assert [scene.sources.height_unit for scene in found.scenes] == [None, "ft"]
    assert found.recipes["elevation"].height_unit is None
    agreed = check_inputs(configured([{**two[0], "height_unit": "m"}, {**feet, "height_unit": "m"}]))
    assert agreed.recipes["elevation"].height_unit == "m"


# Teachers


def test_a_teacher_of_other_splits_is_refused(configured, two, tmp_path):
    short = {"training__epochs": 1}
    train(configured(two, method__name="fusion", **short), tmp_path / "teacher")
    students = configured(two, method__name="kd", **short)
    train(students, tmp_path / "run", teacher=tmp_path / "teacher")
    record = json.loads((tmp_path / "teacher" / "inputs.json").read_text())
    record["polygons of the splits"] = "0" * 64
    (tmp_path / "teacher" / "inputs.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="the teacher was trained on other splits of these scenes"):
        train(students, tmp_path / "other", teacher=tmp_path / "teacher")


def test_swapped_surface_and_ground_are_refused_by_a_training(configured, two, write_raster, tmp_path):
    """A ground 4 m above the surface, everywhere."""
    with rasterio.open(two[0]["elevation"]) as dataset:
        above = write_raster("above.tif", dataset.read(1) + 4, transform=dataset.transform, crs=dataset.crs)
    with pytest.raises(HeightError, match=r"by 4\.0 m in the median; expected.*\nSwap data\.elevation and data\.gro"):
        check_inputs(configured([{**two[0], "ground": str(above)}, two[1]]))
