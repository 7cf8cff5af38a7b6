"""From files to a configuration that a training accepts."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from affine import Affine
from rasterio.windows import Window

from geocrodino.errors import ConfigError, OutputError
from geocrodino.presets.catalogue import PRESETS
from geocrodino.project.classes import LabelGuess
from geocrodino.project.entries import ProjectSettings, SceneSettings
from geocrodino.project.guess import Known, guess_project
from geocrodino.project.heights import HeightGuess
from geocrodino.project.layers import Layer
from geocrodino.project.scenes import SceneGuess
from geocrodino.settings.config import config_of, load_config
from geocrodino.settings.town import CLASSES
from geocrodino.training.checks import inputs_or_refusal
from tests.helpers.data_sets import write_gamus


@pytest.fixture
def folder(town, tmp_path, monkeypatch):
    """The files of a generated scene in the working folder, under names of their own."""
    monkeypatch.chdir(tmp_path)
    names = {"optical": "my image.tif", "elevation": "dsm.tif", "ground": "dtm.tif", "labels": "classes.tif"}
    for role, name in names.items():
        shutil.copy(getattr(town, role), tmp_path / name)
    shutil.copy(town.aoi, tmp_path / "areas.geojson")
    return tmp_path


def test_what_is_written_is_what_was_checked(folder):
    project = guess_project()
    out = project.write()
    assert load_config(out) == config_of(project.values)
    assert not isinstance(inputs_or_refusal(load_config(out)), str)
    written = yaml.safe_load(out.read_text())
    assert {key: written["data"][key] for key in ("optical", "elevation", "ground", "labels", "aoi")} == {
        "optical": "my image.tif",
        "elevation": "dsm.tif",
        "ground": "dtm.tif",
        "labels": "classes.tif",
        "aoi": "areas.geojson",
    }
    assert [each["colour"] for each in written["classes"]] == [each.colour for each in CLASSES.classes]
    with pytest.raises(OutputError, match=r"geocrodino\.yaml: exists"):
        project.write()


def test_each_guess_has_a_reason(folder):
    told = guess_project().summary()
    assert any("elevation: dsm.tif" in line and "by the band's unit tag" in line for line in told)
    assert any(line.startswith("aoi: areas.geojson (polygons with a column of splits: ") for line in told)


def test_files_that_are_named_are_not_searched(folder):
    (folder / "other").mkdir()
    (folder / "classes.tif").rename(folder / "other/truth.tif")
    with pytest.raises(ConfigError, match="expected labels") as refused:
        guess_project([*folder.glob("*.tif")])
    assert "my image.tif: image (3 bands of uint8, called image)" in str(refused.value)
    named = Known(labels="other/truth.tif", optical="my image.tif", elevation="dsm.tif")
    assert guess_project(known=named).values["data"]["labels"] == str(folder / "other/truth.tif")


def test_drawn_labels_with_splits_are_labels(folder):
    drawn = gpd.read_file("areas.geojson")
    drawn["landuse"] = [("field", "wood")[row % 2] for row in range(len(drawn))]
    drawn.to_file("drawn.gpkg")
    for name in ("areas.geojson", "classes.tif"):
        (folder / name).unlink()
    told = guess_project().summary()
    assert any(line.startswith("labels: drawn.gpkg (shapes with attributes; their column of splits ") for line in told)
    assert any(line.startswith("classes: field, wood (") for line in told)
    assert any(line.startswith("splits: {by: blocks}") for line in told)


@pytest.mark.parametrize(("plots", "how"), [(7, "scenes"), (2, "blocks")])
def test_plots_of_one_lattice_that_lie_far_apart(tmp_path, monkeypatch, plots, how):
    """Six plots or more are drawn whole; fewer are cut where they have room, as a training does without the key."""
    rng, shapes = np.random.default_rng(0), []
    for role in ("optical", "dsm"):
        (tmp_path / role).mkdir()
    for number in range(plots):
        x, y, side = 600_000.0 + 4_000 * number, 4_500_000.0, 1_300 if number == 0 and plots < 6 else 200
        truth = np.arange(side)[:, None] // 20 % 2 + np.zeros((side, side), int)
        profile = {"driver": "GTiff", "width": side, "height": side, "crs": "EPSG:32617"}
        profile["transform"] = Affine(0.2, 0, x, 0, -0.2, y)
        image = (100 + 60 * truth + rng.integers(0, 9, (3, side, side))).astype(np.uint8)
        heights = (300 + 5 * truth + rng.random((side, side))).astype(np.float32)
        for role, values in (("optical", image), ("dsm", heights[None])):
            with rasterio.open(
                tmp_path / role / f"plot{number}.tif", "w", count=len(values), dtype=values.dtype, **profile
            ) as target:
                target.write(values)
        rows = [(row, y - 4 * row) for row in range(side // 20)]
        shapes += [(("low", "high")[row % 2], shapely.box(x, top - 4, x + 0.2 * side, top)) for row, top in rows]
    drawn = gpd.GeoDataFrame({"kind": [kind for kind, _ in shapes]}, geometry=[s for _, s in shapes], crs="EPSG:32617")
    drawn.to_file(tmp_path / "drawn.gpkg")
    monkeypatch.chdir(tmp_path)
    project = guess_project()
    data = project.values["data"]
    assert data.get("splits") == ({"by": "scenes"} if how == "scenes" else None)
    assert project.values["training"]["patch_px"] == 128
    text = project.write().read_text()
    assert f"splits: {{by: {how}}}" in text
    checked = inputs_or_refusal(load_config(tmp_path / "geocrodino.yaml"))
    assert checked.drawn == (how,)


@pytest.mark.parametrize(("shapes", "expected"), [([(44, 40)], 64), ([(20, 20), (65, 30)], None), ([(32, 9)], 32)])
def test_patches_are_no_larger_than_plots_need(shapes, expected):
    scenes = [SimpleNamespace(choice=SimpleNamespace(grid=SimpleNamespace(shape=shape))) for shape in shapes]
    changed = ProjectSettings((), 128, "").with_small_scenes(SimpleNamespace(scenes=scenes))
    assert (None if changed is None else changed.patch_px) == expected


def _scenes_of(**roles):
    """Scenes by name, each with the roles of its layers."""
    layers = {name: {role: Layer(role, (), "") for role in own.split()} for name, own in roles.items()}
    return tuple(SceneSettings(SceneGuess(name, own), {}, LabelGuess(), HeightGuess()) for name, own in layers.items())


def test_smaller_patches_give_small_scenes_another_chance():
    scenes = _scenes_of(a="optical labels", b="optical labels", c="optical labels")
    settings, seen = ProjectSettings(scenes, 64, "as usual"), []
    for small in "bca":
        settings = settings.with_room(f"Scene {small}: too small to be cut")
        seen.append((settings.patch_px, [each.split for each in settings.scenes]))
    # The last scene must be cut: with smaller patches the others may have room too.
    assert seen == [(64, [None, "train", None]), (64, [None, "train", "train"]), (32, [None, None, None])]
    for small in "bc":
        settings = settings.with_room(f"Scene {small}: too small to be cut")
    assert settings.with_room("Scene a: too small to be cut") is None


def test_a_scene_without_labels_is_not_the_one_that_is_cut():
    scenes = _scenes_of(a="optical labels", b="optical labels", c="optical")
    settings = ProjectSettings(scenes, 64, "as usual").with_room("Scene a: too small to be cut")
    assert (settings.patch_px, [each.split for each in settings.scenes]) == (64, ["train", None, None])
    settings = settings.with_room("Scene b: too small to be cut")
    assert (settings.patch_px, [each.split for each in settings.scenes]) == (32, [None, None, None])


def test_the_only_scene_with_heights_and_labels_is_cut():
    scenes = _scenes_of(a="optical elevation labels", b="optical labels", c="optical elevation")
    settings = ProjectSettings(scenes, 64, "as usual").with_room("Scene a: too small to be cut")
    assert (settings.patch_px, [each.split for each in settings.scenes]) == (32, [None, None, None])
    settings = ProjectSettings(scenes, 64, "as usual").with_room("Scene b: too small to be cut")
    assert (settings.patch_px, [each.split for each in settings.scenes]) == (64, [None, "train", None])


@pytest.fixture
def second_place(folder):
    """Add a second place whose image has other values."""

    def make(change_image):
        for name, change in (("my image", change_image), ("dsm", None), ("classes", None)):
            (folder / "two").mkdir(exist_ok=True)
            with rasterio.open(folder / f"{name}.tif") as source:
                values, colours = source.read(), source.colorinterp
                profile = {**source.profile, "transform": Affine.translation(5_000, 0) * source.transform}
            values = values if change is None else change(values)
            profile |= {"dtype": values.dtype, "photometric": "MINISBLACK"}
            with rasterio.open(folder / "two" / f"{name}.tif", "w", **profile) as target:
                target.write(values)
                target.colorinterp = colours
        for name in ("dtm.tif", "areas.geojson"):
            (folder / name).unlink()

    return make


def test_an_image_of_another_type_and_scale_gets_a_factor(second_place):
    """A second place with fractions of 1 in place of whole numbers up to 255."""
    second_place(lambda v: v.astype("float32") / 255)
    project = guess_project()
    (scale,) = [each["rescale"] for each in project.values["data"]["scenes"] if "rescale" in each]
    assert scale in (255, pytest.approx(1 / 255, rel=1e-5))
    assert any("rescale: " in line and "(? found red " in line for line in project.summary())


def test_an_image_on_another_scale_that_no_factor_explains_is_left_out(second_place, folder):
    """A second place whose values are 399 and 400, beside ones up to 255: the nearest power of ten is 1."""
    second_place(lambda v: np.where(v % 2, 399, 400).astype("float32"))
    project = guess_project()
    assert "scenes" not in project.values["data"]
    (why,) = [why for why in project.left_out.values() if "no factor is known" in why]
    assert why.startswith("its scene ")
    assert "rescale" not in project.text()


def test_two_label_files_are_asked_about(folder):
    shutil.copy(folder / "classes.tif", folder / "labels.tif")
    with pytest.raises(ConfigError, match="2 files may be the labels of"):
        guess_project()
    project = guess_project(["."], Known(labels="labels.tif"))
    assert project.values["data"]["labels"] == str(folder / "labels.tif")


@pytest.mark.parametrize("name", ["empty", "unreadable"])
def test_nothing_to_read(folder, name):
    (folder / name).mkdir()
    if name == "unreadable":
        (folder / name / "a.tif").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"Name what is missing with `optical`, `elevation`, `labels`"):
        guess_project([name])


def test_the_command_writes_nothing_when_it_asks(folder, run_cli):
    shutil.copy(folder / "classes.tif", folder / "labels.tif")
    before = sorted(folder.rglob("*"))
    code, _, errors = run_cli("init")
    assert code == 2
    assert errors.startswith("Error: 2 files may be the labels of")
    assert "Name the right one: --labels" in errors
    assert sorted(folder.rglob("*")) == before
    code, told, errors = run_cli("init", ".", "--labels", "labels.tif")
    assert code == 0, errors
    assert "Wrote geocrodino.yaml. Next: geocrodino train --config geocrodino.yaml --dry-run" in told
    assert run_cli("init")[2].startswith("Error: geocrodino.yaml: exists. Replace it with --overwrite")


def _quarters(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    with rasterio.open(source) as raster:
        height, width = raster.height // 2, raster.width // 2
        for row in (0, 1):
            for col in (0, 1):
                window = Window(col * width, row * height, width, height)
                size = {"width": width, "height": height, "transform": raster.window_transform(window)}
                profile = {"driver": "GTiff", "count": raster.count, "dtype": raster.dtypes[0], "crs": raster.crs}
                with rasterio.open(
                    folder / f"tile_{row}_{col}.tif", "w", **profile, **size, nodata=raster.nodata
                ) as target:
                    target.write(raster.read(window=window))
                    target.colorinterp = raster.colorinterp


@pytest.mark.slow
def test_real_scenes(real_data, tmp_path):
    for role, name in (("ortho", "optical"), ("heights", "dsm"), ("masks", "labels")):
        _quarters(real_data / f"autzen/{name}.tif", tmp_path / "autzen" / role)
    tiles = guess_project([tmp_path / "autzen"])
    assert tiles.values["data"] == {
        "optical": f"{tmp_path}/autzen/ortho/",
        "elevation": f"{tmp_path}/autzen/heights/",
        "labels": f"{tmp_path}/autzen/masks/",
        "splits": {"by": "blocks"},
    }
    (tmp_path / "two/ign").mkdir(parents=True)
    for name in ("optical", "dsm", "labels"):
        shutil.copy(real_data / f"ign77055/{name}.tif", tmp_path / f"two/ign/{name}.tif")
    shutil.copytree(tmp_path / "autzen", tmp_path / "two/autzen")
    two = guess_project([tmp_path / "two"]).values["data"]["scenes"]
    assert [scene["name"] for scene in two] == ["autzen", "ign"]
    assert two[1]["bands"] == [1, 2, 3]
    assert two[1]["split"] == "train"  # 50 m are too few for blocks
    zion = guess_project([real_data / "zion"])
    assert zion.values["elevation"] == {"channels": ["height", "slope"]}
    assert zion.values["data"]["aoi"].endswith("zion/aoi.gpkg")


def test_files_of_a_data_set_that_are_no_rasters(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    with pytest.raises(ConfigError) as error:
        guess_project([tmp_path])
    assert str(error.value).endswith(
        f"\nInstead: these files look like {PRESETS['gamus'].title}, for which there is a preset: geocrodino train "
        f"--dataset gamus --root {tmp_path}"
    )


def test_a_class_outside_all_splits(folder):
    """Water lies in the corner alone, which no area covers: a training refuses it, unless the file says otherwise."""
    with rasterio.open(folder / "classes.tif", "r+") as dataset:
        values = dataset.read(1)
        water = next(land.value for land in CLASSES.classes if land.name == "water")
        values[values == water] = 0
        values[:4, :4] = water
        dataset.write(values, 1)
    out = guess_project().write()
    line = next(line for line in out.read_text().splitlines() if "absent_classes" in line)
    assert line.split() == f"absent_classes: warn # ? class {water} ({water}): in the labels, but in no split".split()
    assert not isinstance(inputs_or_refusal(load_config(out)), str)


@pytest.mark.parametrize("kind", [str, Path, lambda path: [path]])
def test_one_path_is_no_list_of_letters(folder, kind):
    assert guess_project(kind(str(folder))).text() == guess_project([folder]).text()
