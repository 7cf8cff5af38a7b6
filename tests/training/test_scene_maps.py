"""Each scene is predicted as the training read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import shapely

from geocrodino.errors import ConfigError, OutputError
from geocrodino.geo.areas.aoi import from_polygons
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.scenes import SceneConfig
from geocrodino.training import scene_maps
from geocrodino.training.checks import refusal
from geocrodino.training.scene_maps import PartOfScene, check_targets, predict_scenes, scenes_of_split, with_modality


@pytest.fixture
def asked(monkeypatch):
    """Arguments of each prediction."""
    found = []
    monkeypatch.setattr(scene_maps, "predict", lambda *names, **options: found.append((names, options)))
    return found


def part(**keys):
    area = from_polygons({"test": shapely.box(0, 0, 1, 1)}, "EPSG:32631", "areas")
    return PartOfScene(SceneConfig(**keys), None, area)


def test_heights_keep_the_coding_of_their_scene(asked, tmp_path):
    """Two scenes whose offset, encoding and bands differ; images have no coding."""
    codings = [HeightSettings(scale=0.1, offset=3.0, band=2), HeightSettings(encoding="float16", zero="camera"), None]
    parts = [
        part(name=str(n), optical="o.tif", elevation=f"{n}.tif", height=coding) for n, coding in enumerate(codings)
    ]
    bundle = SimpleNamespace(path=Path("b"))
    maps = list(predict_scenes(parts, bundle, "elevation", tmp_path))
    assert maps == [tmp_path / f"{n}.tif" for n in range(3)]
    assert [options["height"] for _, options in asked] == codings
    assert {(o["inputs"].height_scale, o["inputs"].height_zero) for _, o in asked} == {(None, None)}
    asked.clear()
    list(predict_scenes(parts, bundle, "optical", tmp_path))
    assert [options["height"] for _, options in asked] == [None, None, None]


def test_a_unit_beside_an_offset(asked, tmp_path):
    scene = part(name="a", elevation="a.tif", height_unit="ft", height=HeightSettings(offset=3.0))
    list(predict_scenes([scene], SimpleNamespace(path=Path("b")), "elevation", tmp_path))
    ((_, options),) = asked
    assert (options["inputs"].height_unit, options["height"].offset) == ("ft", 3.0)


def test_both_takes_what_each_scene_has(asked, tmp_path):
    parts = [
        part(name="a", optical="a.tif", elevation=["1.tif", "2.tif"], bands=[3, 2, 1], rescale=2.0, height_unit="ft"),
        part(name="b", optical="b.tif", bands=[3, 2, 1]),
        part(name="c", elevation="c.tif", height_unit="ft"),
    ]
    there, without = with_modality(parts, "both")
    assert (there, without) == (parts, ())
    list(predict_scenes(parts, SimpleNamespace(path=Path("b")), "both", tmp_path))
    assert [(str(names[0]), names[3]) for names, _ in asked] == [
        ("a.tif", "both"),
        ("b.tif", "optical"),
        ("c.tif", "elevation"),
    ]
    assert [options["elevation"] for _, options in asked] == [["1.tif", "2.tif"], None, None]
    assert [(o["inputs"].bands, o["inputs"].height_unit) for _, o in asked] == [
        ((3, 2, 1), "ft"),
        ((3, 2, 1), None),
        (None, "ft"),
    ]
    assert asked[0][1]["inputs"].rescale == 2.0


@pytest.fixture
def files(tmp_path):
    """Two scenes whose map or picture would lie on a file of one of them."""
    for name in ("a.tif", "b.png", "labels.tif", "bundle"):
        (tmp_path / name).touch()
    named = [str(tmp_path / name) for name in ("a.tif", "labels.tif", "b.png")]
    one = part(name="a", optical="a.tif")
    return [replace(one, files=tuple(named[:2])), replace(part(name="b", optical="b.png"), files=(named[2],))]


@pytest.mark.parametrize(
    ("folders", "found"),
    [(("", None), "a.tif"), (("maps", ""), "b.png")],
    ids=["map on an image", "picture on the image of another scene"],
)
def test_no_file_of_a_scene_is_replaced(files, tmp_path, folders, found):
    maps, pictures = (None if name is None else tmp_path / name for name in folders)
    bundle = tmp_path / "bundle"
    with pytest.raises(OutputError, match=rf"{found}: would replace the input .*{found}\.\nChoose another folder"):
        check_targets(files, "optical", maps, bundle, pictures=pictures, overwrite=True)
    check_targets(files, "optical", tmp_path / "maps", bundle, pictures=tmp_path / "pictures")


def test_all_maps_and_pictures_are_checked_before_the_first(asked, files, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "b.tif").touch()
    maps = predict_scenes(files, SimpleNamespace(path=tmp_path / "bundle"), "optical", tmp_path / "maps")
    with pytest.raises(OutputError, match=r"maps/b\.tif: the file exists\."):
        next(maps)
    assert asked == []


def test_maps_are_made_and_scored_where_no_patch_fits(tiny_config):
    config = tiny_config({"training.patch_px": 512})
    assert "hold no patch" in (refusal(config) or "")
    (found,) = scenes_of_split(config, "test")
    assert tuple(found.aoi.splits) == ("test",)


def test_a_single_map_where_several_are_expected(tmp_path):
    (tmp_path / "a.tif").touch()
    parts = [replace(part(name=name, optical=f"{name}.tif"), labels=SimpleNamespace()) for name in ("a", "b")]
    with pytest.raises(ConfigError) as refused:
        scene_maps.scene_maps(parts, tmp_path / "a.tif")
    assert str(refused.value) == (
        f"{tmp_path / 'a.tif'}: expected the folder with the maps of 2 scenes, found a file.\n"
        f"Name the folder {tmp_path}, or compare the one map with its `labels`."
    )
