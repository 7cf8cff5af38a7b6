"""The generated scene: reproducible, physically consistent, and not solvable from one modality alone."""

from __future__ import annotations

import itertools
import json
import math

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml
from pydantic import ValidationError
from rasterio.features import geometry_mask
from scipy import ndimage

from geocrodino.errors import OutputError
from geocrodino.town import CLASSES, Scene, SceneSettings, generate_scene, write_scene
from geocrodino.town.noise import smooth_noise
from geocrodino.town.plan import Material
from geocrodino.town.rendering import cast_shadows

SEALED = (Material.ASPHALT, Material.PAVEMENT, Material.MARKING, Material.CAR)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return generate_scene(SceneSettings(size_m=384, seed=3))


def _colours(scene: Scene, *materials: Material):
    return scene.optical[:, np.isin(scene.material, materials)].T


def _pixel_accuracy(first, second):
    """Balanced accuracy of the best histogram classifier of single pixels, fitted on half and scored on half."""
    code = lambda x: (x.astype(np.int64) >> 4) @ np.array([256, 16, 1])  # noqa: E731
    histograms = [np.bincount(code(x[::2]), minlength=4096) / len(x[::2]) for x in (first, second)]
    says_first = histograms[0] >= histograms[1]
    return (says_first[code(first[1::2])].mean() + (~says_first)[code(second[1::2])].mean()) / 2


def _on_heights(scene: Scene):
    """Material under every pixel of the heights, -1 beyond the image."""
    rows, cols = np.indices(scene.dsm.shape)
    here, there = scene.elevation_transform, scene.optical_transform
    col = np.floor((here.c + (cols + 0.5) * here.a - there.c) / there.a).astype(int)
    row = np.floor((here.f + (rows + 0.5) * here.e - there.f) / there.e).astype(int)
    height, width = scene.material.shape
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    return np.where(inside, scene.material[row.clip(0, height - 1), col.clip(0, width - 1)].astype(int), -1)


def test_one_seed_is_one_scene_and_another_seed_another():
    settings = SceneSettings(size_m=128, seed=5)
    first, again, other = (generate_scene(s) for s in (settings, settings, SceneSettings(size_m=128, seed=6)))
    for name in ("optical", "labels", "material", "shadow", "dsm", "dtm"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()


def test_grids_differ_in_origin_extent_and_pixel(scene: Scene):
    assert scene.optical.shape == (3, 768, 768)
    assert scene.labels.shape == (768, 768)
    assert scene.optical_transform.a == 0.5
    assert scene.elevation_transform.a == 1.0
    assert scene.dsm.shape == scene.dtm.shape == (384 + 22, 384 + 18)
    west, north = scene.elevation_transform.c, scene.elevation_transform.f
    assert (scene.optical_transform.c - west, north - scene.optical_transform.f) == (21.75, 14.25)
    assert west + scene.dsm.shape[1] < scene.optical_transform.c + 384


@pytest.mark.parametrize("seed", [0, 11])
def test_every_split_holds_every_class_in_earnest(seed: int):
    scene = generate_scene(SceneSettings(size_m=256, seed=seed))
    for _, polygon in scene.areas:
        inside = geometry_mask([polygon], scene.labels.shape, scene.optical_transform, invert=True)
        held = scene.labels[inside & (scene.labels != 255)]
        assert (np.bincount(held, minlength=5) / held.size > 0.01).all()


@pytest.mark.parametrize(("size_m", "repeats"), [(128, 1), (512, 1), (2048, 3)])
def test_areas_lie_apart_and_inside_both_rasters(size_m: float, repeats: int):
    from geocrodino.town.scene import ELEVATION_BEYOND_M, ORIGIN_M, split_areas

    areas = split_areas(size_m)
    assert [name for name, _ in areas] == ["train", "val", "test"] * repeats
    for (_, here), (_, beyond) in itertools.pairwise(areas):
        assert here.distance(beyond) == pytest.approx(12, rel=0.01)
    east = max(p.bounds[2] for _, p in areas)
    assert east == pytest.approx(ORIGIN_M[0] + size_m - 8)
    assert east < ORIGIN_M[0] + size_m + ELEVATION_BEYOND_M["east"]


def test_flat_roofs_and_asphalt_share_their_greys_but_not_their_height(scene: Scene):
    roofs, roads = _colours(scene, Material.FLAT_ROOF), _colours(scene, *SEALED)
    assert abs(roofs.mean() - roads.mean()) < 15
    assert _pixel_accuracy(roofs, roads) < 0.7
    above = scene.dsm - scene.dtm
    valid, material = scene.dsm > -1000, _on_heights(scene)
    assert np.median(above[valid & (material == Material.FLAT_ROOF)]) > 3
    assert abs(np.median(above[valid & np.isin(material, SEALED)])) < 0.2


def test_green_roofs_have_the_colours_of_grass():
    scenes = [generate_scene(SceneSettings(size_m=256, seed=s)) for s in (0, 1)]
    roofs = np.concatenate([_colours(s, Material.GREEN_ROOF) for s in scenes])
    grass = np.concatenate([_colours(s, Material.GRASS) for s in scenes])
    assert len(roofs) > 1000
    assert _pixel_accuracy(roofs, grass) < 0.8


def test_water_lies_level_with_the_grass_beside_it_but_looks_different(scene: Scene):
    material = _on_heights(scene)
    water, valid = material == Material.WATER, scene.dsm > -1000
    near = ndimage.binary_dilation(water, iterations=8) & (material == Material.GRASS) & valid
    assert near.sum() > 300
    assert abs(np.median(scene.dsm[near]) - np.median(scene.dsm[water & valid])) < 0.5
    assert np.ptp(scene.dtm[water]) < 0.6
    assert _pixel_accuracy(_colours(scene, Material.WATER), _colours(scene, Material.GRASS)) > 0.9


def test_absolute_height_tells_neither_roofs_nor_roads(scene: Scene):
    material, valid = _on_heights(scene), scene.dsm > -1000
    roofs = scene.dsm[valid & np.isin(material, (Material.FLAT_ROOF, Material.GREEN_ROOF, Material.PITCHED_ROOF))]
    roads = scene.dsm[valid & np.isin(material, SEALED)]
    best = max(((roofs > t).mean() + (roads <= t).mean()) / 2 for t in np.linspace(165, 215, 101))
    assert best < 0.85
    above = scene.dsm - scene.dtm
    grass, road = above[valid & (material == Material.GRASS)], above[valid & np.isin(material, SEALED)]
    assert abs(np.median(grass) - np.median(road)) < 0.1


def test_surface_is_never_below_ground_but_for_noise(scene: Scene):
    valid = scene.dsm > -1000
    assert (scene.dsm - scene.dtm)[valid].min() > -8 * scene.settings.elevation_noise_m
    quiet = generate_scene(SceneSettings(size_m=128, elevation_noise_m=0, hole_share=0))
    valid = quiet.dsm > -1000
    assert (quiet.dsm - quiet.dtm)[valid].min() >= -1e-3


def test_holes_are_flagged_on_part_of_the_water_and_little_of_the_land(scene: Scene):
    holes, material = scene.dsm == -9999, _on_heights(scene)
    assert 0.1 < holes[material == Material.WATER].mean() < 0.8
    assert 0.001 < holes[(material >= 0) & (material != Material.WATER)].mean() < 0.01
    assert np.isfinite(scene.dsm).all()
    assert scene.dsm[~holes].min() > 150


def test_a_wall_casts_its_shadow_away_from_the_sun_as_far_as_the_sun_allows():
    surface = np.zeros((60, 60), np.float32)
    surface[30, 30] = 10.0
    for azimuth, (down, right) in {0: (1, 0), 90: (0, -1), 180: (-1, 0), 270: (0, 1)}.items():
        shadow = cast_shadows(surface, 1.0, azimuth, 45.0)
        reached = {(30 + k * down, 30 + k * right) for k in range(1, 10)}
        assert set(zip(*(axis.tolist() for axis in np.nonzero(shadow)), strict=True)) == reached


@pytest.mark.parametrize("azimuth", [17.0, 100.0, 152.0, 215.0, 300.0])
def test_shadow_never_falls_where_the_sun_is_in_sight(azimuth: float):
    rng = np.random.default_rng(2)
    surface = np.zeros((90, 110), np.float32)
    for _ in range(9):
        r, c = rng.integers(5, 80), rng.integers(5, 100)
        surface[r : r + rng.integers(2, 9), c : c + rng.integers(2, 9)] = rng.uniform(2, 12)
    surface += np.linspace(0, 5, 110, dtype=np.float32)
    shadow = cast_shadows(surface, 0.5, azimuth, 35.0)
    assert 0.02 < shadow.mean() < 0.9
    climb = math.tan(math.radians(35)) * 0.5
    steps = np.arange(0.02, 90, 0.02)
    for row, col in rng.integers((0, 0), surface.shape, (150, 2)):
        rows = row - math.cos(math.radians(azimuth)) * steps
        cols = col + math.sin(math.radians(azimuth)) * steps
        inside = (rows >= 0) & (rows <= 89) & (cols >= 0) & (cols <= 109)
        seen = ndimage.map_coordinates(surface, [rows[inside], cols[inside]], order=1)
        clearance = surface[row, col] + climb * steps[inside] - seen
        if clearance.size and clearance.min() > 0.15:
            assert not shadow[row, col]
        if clearance.size and clearance.min() < -1.5:
            assert shadow[row, col]


def test_shadow_darkens_the_image(scene: Scene):
    for material in (Material.GRASS, Material.ASPHALT):
        here = scene.material == material
        lit, dark = (scene.optical[:, here & s].mean() for s in (~scene.shadow, scene.shadow))
        assert dark < 0.65 * lit


@pytest.mark.parametrize("cell_px", [1.0, 3.3, 40.0, 500.0])
def test_noise_has_unit_spread_at_any_scale(cell_px: float):
    fields = [smooth_noise(np.random.default_rng(s), (120, 90), cell_px) for s in range(200 if cell_px > 20 else 4)]
    assert fields[0].shape == (120, 90)
    assert fields[0].dtype == np.float32
    assert np.sqrt(np.mean(np.square(fields))) == pytest.approx(1, abs=0.12)


def test_edges_are_left_unlabelled_only_on_request():
    kept = generate_scene(SceneSettings(size_m=96, ignore_edges=False))
    cut = generate_scene(SceneSettings(size_m=96))
    assert (kept.labels != 255).all()
    assert 0.01 < (cut.labels == 255).mean() < 0.2
    same = cut.labels != 255
    np.testing.assert_array_equal(cut.labels[same], kept.labels[same])


@pytest.mark.parametrize("bad", [{"size_m": 10}, {"seed": -1}, {"sun_elevation_deg": 5}, {"colour": "red"}])
def test_settings_out_of_range_are_refused(bad: dict):
    with pytest.raises(ValidationError):
        SceneSettings(**bad)


def test_pixel_sizes_can_be_chosen():
    scene = generate_scene(SceneSettings(size_m=100, resolution_m=1.0, elevation_resolution_m=0.75))
    assert scene.optical.shape == (3, 100, 100)
    assert scene.dsm.shape == (int(122.25 / 0.75), int(118.75 / 0.75))


def test_files_say_what_they_hold(tmp_path):
    paths = write_scene(tmp_path / "sample", SceneSettings(size_m=128, seed=1))
    assert sorted(p.name for p in (tmp_path / "sample").iterdir()) == sorted(p.name for p in paths.all())
    with rasterio.open(paths.optical) as optical, rasterio.open(paths.labels) as labels:
        assert (optical.count, optical.dtypes[0], optical.res) == (3, "uint8", (0.5, 0.5))
        assert [c.name for c in optical.colorinterp] == ["red", "green", "blue"]
        assert (labels.transform, labels.nodata, labels.dtypes[0]) == (optical.transform, 255, "uint8")
        assert labels.colormap(1)[2] == (*CLASSES.classes[2].rgb, 255)
    with rasterio.open(paths.elevation) as dsm, rasterio.open(paths.ground) as dtm:
        assert (dsm.dtypes[0], dsm.nodata, dsm.units, dsm.res) == ("float32", -9999, ("metre",), (1.0, 1.0))
        assert (dtm.nodata, dtm.units, dtm.transform) == (None, ("metre",), dsm.transform)
        assert dsm.crs.to_epsg() == dtm.crs.to_epsg() == 32631
        assert (dsm.read(1) == -9999).any()
    areas = gpd.read_file(paths.aoi)
    assert areas.crs.to_epsg() == 4326
    assert list(areas["split"]) == ["train", "val", "test"]
    assert json.loads(paths.aoi.read_text())["type"] == "FeatureCollection"
    config = yaml.safe_load(paths.config.read_text())
    assert config["data"] == {
        "optical": "optical.tif", "elevation": "dsm.tif", "labels": "labels.tif", "aoi": "aoi.geojson",
    }  # fmt: skip
    assert config["classes"][2] == {"value": 2, "name": "building", "colour": "#d1493f"}


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    settings = SceneSettings(size_m=96, seed=4)
    first, again = (write_scene(tmp_path / name, settings) for name in ("a", "b"))
    for one, other in zip(first.all(), again.all(), strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_files_that_are_there_are_kept_unless_told(tmp_path):
    (tmp_path / "dsm.tif").write_bytes(b"mine")
    with pytest.raises(OutputError) as caught:
        write_scene(tmp_path, SceneSettings(size_m=96))
    assert str(caught.value) == (f"{tmp_path} already holds dsm.tif.\nChoose another folder, or overwrite these files.")
    assert [p.name for p in tmp_path.iterdir()] == ["dsm.tif"]
    assert (tmp_path / "dsm.tif").read_bytes() == b"mine"
    write_scene(tmp_path, SceneSettings(size_m=96), overwrite=True)
    assert (tmp_path / "dsm.tif").read_bytes() != b"mine"


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot make this folder \(Not a directory\)"):
        write_scene(tmp_path / "file" / "sample", SceneSettings(size_m=96))
