"""Files of folders, what they are, and the scenes that they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil

from geocrodino.errors import ConfigError
from geocrodino.geo.rasters.headers import headers_kept
from geocrodino.geo.rasters.place import Place
from geocrodino.project.files import collect
from geocrodino.project.heights import guess_heights
from geocrodino.project.layers import raster_layers
from geocrodino.project.scenes import arrange

SIDE = 40
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (3, SIDE, SIDE)).astype("uint8")
HEIGHTS = RNG.random((SIDE, SIDE)).astype("float32") * 20 + 100
CLASSES = RNG.integers(0, 3, (SIDE, SIDE)).astype("uint8")


@pytest.fixture
def put(write_raster, tmp_path, monkeypatch):
    """Write a raster of 40 x 40 px into a folder of the working folder, at a place in tiles."""
    monkeypatch.chdir(tmp_path)

    def write(name, values, row=0, col=0, **options):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        origin = (400_000 + SIDE * col, 5_000_000 - SIDE * row)
        return str(write_raster(name, values, **{"origin": origin, **options}))

    return write


def _layers(*paths, place=None):
    with headers_kept():
        return raster_layers(collect(paths or (Path(),), pictures=place is not None).rasters, place)


def _guessed():
    """What the heights of the only layer mean."""
    (layer,) = _layers().layers
    assert layer.raster is not None
    return guess_heights(layer, layer.raster)


def _scenes(*paths, place=None):
    with headers_kept():
        return arrange(
            raster_layers(collect(paths or (Path(),), pictures=place is not None).rasters, place).layers, place
        )


def _roles(found):
    return {layer.role: [Path(file).as_posix() for file in layer.files] for layer in found.layers}


def test_what_files_are_without_names(put):
    put("a.tif", IMAGE)
    put("b.tif", HEIGHTS)
    put("c.tif", CLASSES)
    assert _roles(_layers()) == {"optical": ["a.tif"], "elevation": ["b.tif"], "labels": ["c.tif"]}


def test_names_decide_where_values_do_not(put):
    put("x_dtm.tif", HEIGHTS)
    put("x_mask.tif", RNG.integers(0, 255, (SIDE, SIDE)).astype("uint8"))
    put("x_ndsm.tif", RNG.integers(0, 255, (SIDE, SIDE)).astype("uint8"))
    found = _layers()
    assert _roles(found) == {"ground": ["x_dtm.tif"], "labels": ["x_mask.tif"], "elevation": ["x_ndsm.tif"]}
    assert [layer.above for layer in found.layers if layer.role == "elevation"] == [True]


def test_pictures_of_few_colours_are_labels(put):
    lut = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], "uint8")
    put("c.tif", lut[CLASSES].transpose(2, 0, 1))
    assert _roles(_layers()) == {"labels": ["c.tif"]}


def test_tiles_of_a_folder_are_one_layer(put):
    for row, col in ((0, 0), (0, 1), (1, 0)):
        put(f"ortho/{row}{col}.tif", IMAGE, row, col)
    (layer,) = _layers().layers
    assert len(layer.files) == 3
    assert layer.raster is not None
    assert tuple(layer.raster.geobox.shape) == (2 * SIDE, 2 * SIDE)


def test_a_folder_with_all_layers(put):
    for col in (0, 1):
        put(f"all/{col}_rgb.tif", IMAGE, 0, col)
        put(f"all/{col}_dsm.tif", HEIGHTS, 0, col)
        put(f"all/{col}_cls.tif", CLASSES, 0, col)
    assert {role: len(files) for role, files in _roles(_layers()).items()} == {
        "optical": 2,
        "elevation": 2,
        "labels": 2,
    }


def test_files_of_runs_maps_and_hidden_ones_are_passed_over(put, tmp_path):
    put("runs/a/optical.tif", IMAGE)
    (tmp_path / "runs/a/bundle.safetensors").touch()
    put(".hidden/optical.tif", IMAGE)
    put("aligned-cache/x.tif", IMAGE)
    found = collect([Path()], pictures=False)
    assert found.rasters == []
    assert found.runs == ["runs/a"]
    with pytest.raises(ConfigError, match="nowhere: no such file"):
        collect(["nowhere"], pictures=False)


def test_links_in_a_circle_end(put, tmp_path):
    put("a/x.tif", IMAGE)
    (tmp_path / "a/again").symlink_to(tmp_path / "a")
    assert collect([Path()], pictures=False).rasters == ["a/x.tif"]


def test_scenes_of_two_places_in_folders_by_role(put):
    for name, crs in (("north", "EPSG:32631"), ("south", "EPSG:32633")):
        put(f"img/{name}.tif", IMAGE, crs=crs)
        put(f"dsm/{name}.tif", HEIGHTS, crs=crs)
    put("msk/only.tif", CLASSES)
    found = _scenes()
    assert [scene.name for scene in found.scenes] == ["north", "south"]
    own = [{role: layer.files[0] for role, layer in scene.layers.items()} for scene in found.scenes]
    assert own[0] == {"optical": "img/north.tif", "elevation": "dsm/north.tif", "labels": "msk/only.tif"}
    assert own[1] == {"optical": "img/south.tif", "elevation": "dsm/south.tif"}


def test_scenes_are_named_without_a_word_that_all_images_have(put):
    """Lists of splits name plots by their number. Two lattices, so that the plots are no tiles of one raster."""
    for name, crs, kind in (("P1", "EPSG:32631", "float32"), ("P2", "EPSG:32632", "int16")):
        put(f"img/{name}_ortho.tif", IMAGE, crs=crs)
        put(f"dsm/{name}_dsm.tif", HEIGHTS.astype(kind), crs=crs)
    assert [scene.name for scene in _scenes().scenes] == ["P1", "P2"]


def test_an_image_with_labels_and_without_heights_is_a_scene(put):
    """Scenes in the order of their images; an image that shows neither heights nor labels is none."""
    for name, crs in (("east", "EPSG:32631"), ("mid", "EPSG:32632"), ("north", "EPSG:32633"), ("west", "EPSG:32634")):
        put(f"{name}/image.tif", IMAGE, crs=crs)
        if name not in ("east", "west"):
            put(f"{name}/dsm.tif", HEIGHTS, crs=crs)
        if name != "west":
            put(f"{name}/labels.tif", CLASSES, crs=crs)
    found = _scenes()
    assert [(scene.name, list(scene.layers)) for scene in found.scenes] == [
        ("east", ["optical", "labels"]),
        ("mid", ["optical", "elevation", "labels"]),
        ("north", ["optical", "elevation", "labels"]),
    ]
    assert found.left_out == {"west/image.tif": "neither heights nor labels show this place"}


def test_tiles_without_a_common_raster_are_joined_by_name(put):
    for i, crs in enumerate(("EPSG:32631", "EPSG:32632", "EPSG:32633")):
        put(f"img/a_{i}.tif", IMAGE, crs=crs)
        put(f"dsm/b_0{i}.tif", HEIGHTS, crs=crs)
        put(f"msk/c_{i}.tif", CLASSES, crs=crs)
    (scene,) = _scenes().scenes
    assert scene.patterns == {
        "optical": "img/a_{tile}.tif",
        "elevation": "dsm/b_{tile}.tif",
        "labels": "msk/c_{tile}.tif",
    }
    assert (scene.tiles, scene.incomplete) == (3, 0)
    Path("msk/c_2.tif").unlink()
    (scene,) = _scenes().scenes
    assert (scene.tiles, scene.incomplete) == (3, 1)


def test_tiles_in_many_folders_are_joined_by_name(put):
    for i in range(9):
        where = {"origin": (400_000 + 100.3 * i, 5_000_000)}  # of no common lattice
        put(f"D00{i}/img/IMG_{i}.tif", IMAGE, **where)
        put(f"D00{i}/dsm/DSM_{i}.tif", HEIGHTS, **where)
        put(f"D00{i}/msk/MSK_{i}.tif", CLASSES, **where)
    (scene,) = _scenes().scenes
    assert dict(scene.patterns) == {
        "optical": "D{folder}/img/IMG_{tile}.tif",
        "elevation": "D{folder}/dsm/DSM_{tile}.tif",
        "labels": "D{folder}/msk/MSK_{tile}.tif",
    }
    assert scene.tiles == 9


def test_the_higher_of_two_models_is_the_surface(put):
    put("optical.tif", IMAGE)
    put("labels.tif", CLASSES)
    put("a.tif", HEIGHTS)
    put("b.tif", HEIGHTS + 3)
    (scene,) = _scenes().scenes
    assert (scene.layers["elevation"].files, scene.layers["ground"].files) == (("b.tif",), ("a.tif",))
    assert "on average 3 higher than the other model" in scene.layers["elevation"].why


def test_a_terrain_model_alone_is_the_heights(put):
    put("optical.tif", IMAGE)
    put("dtm.tif", HEIGHTS)
    (scene,) = _scenes().scenes
    assert scene.layers["elevation"].files == ("dtm.tif",)
    assert "ground" not in scene.layers


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("optical.tif", "optical2.tif", "dsm.tif"), "2 files may be the image of one place"),
        (("optical.tif", "dsm.tif", "mask_1.tif", "mask_2.tif"), "2 files may be the labels of optical.tif"),
        (("optical.tif", "dsm_1.tif", "dsm_2.tif"), "2 files may be the heights of optical.tif"),
    ],
)
def test_two_candidates_are_asked_about(put, names, message):
    for name in names:
        values = IMAGE if name.startswith("opt") else CLASSES if name.startswith("mask") else HEIGHTS
        put(name, values)
    with pytest.raises(ConfigError, match=message) as refused:
        _scenes()
    assert "Name the right one: `" in str(refused.value)


def test_a_tile_of_another_type_is_named(put):
    for number, (row, col) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        put(f"img/img_{number}.tif", IMAGE.astype("uint16" if number == 3 else "uint8"), row, col)
        put(f"dsm/dsm_{number}.tif", HEIGHTS, row, col)
    with pytest.raises(ConfigError) as refused:
        _scenes()
    assert str(refused.value) == (
        "img: expected files of one kind, each of another place, for the image. Beside 3 such files (3 bands of uint8) "
        "there are:\n  img_3.tif: 3 bands of uint16. Convert it to 3 bands of uint8, or remove it."
    )


@pytest.mark.parametrize("copy", ["dsm_0 (copy)", "dsm_7"])
def test_a_copy_of_a_tile_is_named(put, copy):
    for number in range(3):
        put(f"img/img_{number}.tif", IMAGE, 0, number)
        put(f"dsm/dsm_{number}.tif", HEIGHTS, 0, number)
    put(f"dsm/{copy}.tif", HEIGHTS)
    with pytest.raises(ConfigError) as refused:
        _scenes()
    assert str(refused.value) == (
        "dsm: expected files of one kind, each of another place, for the heights. Beside 3 such files (1 band of "
        f"float32) there are:\n  {copy}.tif: shows the same place as dsm_0.tif. Remove one of the two."
    )


def test_a_copy_among_images_is_named(put):
    for number in range(3):
        put(f"img/img_{number}.tif", IMAGE, 0, number)
        put(f"dsm/dsm_{number}.tif", HEIGHTS, 0, number)
    put("img/img_7.tif", IMAGE)
    with pytest.raises(ConfigError, match=r"img_7\.tif: shows the same place as img_0\.tif\. Remove one of the two\."):
        _scenes()


@pytest.mark.parametrize(
    ("other", "option"), [("ms_{}.tif", "all/ms_*.tif"), ("large.tif", "all/large.tif"), ("{}.tif", None)]
)
def test_two_whole_images_are_asked_about(put, other, option):
    """The first of the files of a layer is not the layer."""
    for col in (0, 1):
        put(f"all/rgb_{col}.tif", IMAGE, 0, col)
        put(f"dsm/dsm_{col}.tif", HEIGHTS, 0, col)
    for col in (0, 1) if "{}" in other else (0,):
        wide = IMAGE if "{}" in other else np.concatenate([IMAGE, IMAGE, IMAGE], axis=2)
        name = other.format(("a", "b")[col]) if option is None else other.format(col)
        put(f"all/{name}", wide.astype("uint16"), 0, col)
    with pytest.raises(ConfigError, match="2 files may be the image of one place") as refused:
        _scenes()
    told = str(refused.value).rpartition("\n")[2]
    assert told == f"Name the right one: `optical{'' if option is None else f'={option!r}'}`."


def test_neighbours_are_two_places(put):
    """Tiles that touch: in degrees, their boxes overlap a little."""
    for col, name in enumerate("abc"):
        put(f"{name}/optical.tif", IMAGE, 0, col)
        put(f"{name}/dsm.tif", HEIGHTS, 0, col)
        if name != "b":
            put(f"{name}/labels.tif", CLASSES, 0, col)
    own = [{role: layer.files for role, layer in scene.layers.items()} for scene in _scenes().scenes]
    assert own == [
        {role: (f"{name}/{role.replace('elevation', 'dsm')}.tif",) for role in ("optical", "elevation", *labels)}
        for name, labels in (("a", ["labels"]), ("b", []), ("c", ["labels"]))
    ]


def test_heights_of_another_place(put):
    put("optical.tif", IMAGE)
    put("dsm.tif", HEIGHTS, 500, 500)
    with pytest.raises(ConfigError, match=r"no heights show the place of this image; found dsm\.tif"):
        _scenes()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("dsm.tif", HEIGHTS, {}),
        ("x_height.tif", (HEIGHTS * 2 - 200).astype("uint8"), {"height": {"scale": 0.1, "zero": "ground"}}),
        ("ndsm.tif", HEIGHTS - 100, {"height": {"zero": "ground"}}),
        ("dsm.tif", (HEIGHTS * 100).astype("uint16"), {"height": {"scale": 0.01}}),
        ("dsm.tif", HEIGHTS / 200, {"height_unit": "none"}),
        ("dsm.tif", np.stack([HEIGHTS, HEIGHTS + 2]), {"height": {"band": 2, "ground_band": 1}}),
    ],
)
def test_what_heights_mean(put, name, values, expected):
    put(name, values)
    found = _guessed()
    assert found.values == expected
    assert found.why.keys() >= expected.keys()


def test_numbers_too_large_for_metres(put):
    """Bits of half-precision numbers: those of 187 = 128 x (1 + 59/128) are 22 x 1024 + 472, which is 23,000.

    A hundredth of the heights is below 170.7 = 128 x (1 + 341/1024), whose bits are 22 x 1024 + 341, which is 22,869.
    """
    heights = np.linspace(170.5, 187, SIDE * SIDE).reshape(SIDE, SIDE).astype("float16")
    put("dsm.tif", heights.view("uint16"))
    found = _guessed()
    assert found.values == {"height": {"scale": 0.01}}
    assert found.why["height"] == (
        "? values up to 23,000, so no metres: taken as centimetres (228.7 to 230 m); or scale: 0.001 for millimetres "
        "(22.87 to 23 m); or scale: 0.1 for decimetres (2287 to 2300 m); or encoding: float16 in place of scale for "
        "bits of half-precision numbers (170 to 187 m)"
    )
    heights[0, 0] = np.nan
    put("dsm.tif", heights.view("uint16"))
    found = _guessed()
    assert found.values == {"height": {"encoding": "float16"}}
    assert found.why["height"] == (
        "? bits of half-precision numbers (170 to 187 m): some are those of no number; scale: 0.01 in place of "
        "encoding for centimetres"
    )


def test_numbers_that_are_too_steep_for_centimetres_are_millimetres(put):
    """A place of 40 x 40 m: 57 m from corner to corner, within which 60 m of 100 are too many, and 6 m are not."""
    put("dsm.tif", np.linspace(100_000, 106_000, SIDE * SIDE).reshape(SIDE, SIDE).astype("int32"))
    found = _guessed()
    assert found.values == {"height": {"scale": 0.001}}
    assert found.why["height"] == (
        "? values up to 106,000, so no metres: taken as millimetres (100.1 to 105.9 m), as centimetres would rise by "
        "58.8 m within 56.6 m; or scale: 0.01 for centimetres (1001 to 1059 m)"
    )


def test_the_surface_of_two_bands_is_found_on_the_pixels_that_both_have(put):
    """A ground of 100 m, and of 0 m in the valley, which the ground lacks: the surface is 5 m higher everywhere."""
    ground = np.where(np.arange(SIDE) < 30, 0, 100) * np.ones((SIDE, 1))
    valley = np.arange(SIDE) < 20
    put("dsm.tif", np.stack([ground + 5, np.where(valley, -9999, ground)]).astype("float32"))  # no tag says so
    assert _guessed().values == {"height": {"band": 1, "ground_band": 2}}
    put("dsm.tif", np.stack([np.where(valley, np.nan, ground), ground + 5]).astype("float32"))
    found = _guessed()
    assert found.values == {"height": {"band": 2, "ground_band": 1}}
    assert found.why["height"] == "? band 2 is higher than band 1, as a surface is than its ground"


def test_two_bands_without_a_common_pixel_tell_no_ground(put):
    left = np.arange(SIDE) < 20
    put("dsm.tif", np.stack([np.where(left, HEIGHTS, np.nan), np.where(left, np.nan, HEIGHTS)]).astype("float32"))
    found = _guessed()
    assert found.values == {"height": {"band": 1, "ground_band": 2}}
    assert found.why["height"] == "? nothing tells which of bands 1 and 2 is the ground"


def test_the_unit_of_a_file_is_not_guessed(put):
    put("dsm.tif", (HEIGHTS * 100).astype("uint16"), units="cm")
    found = _guessed()
    assert found.values == {}
    assert found.why == {"elevation": "heights in cm, by the band's unit tag"}


@pytest.mark.parametrize(
    ("kind", "crs", "expected"),
    [
        ("float32", "EPSG:32631", "heights taken as metres; the file names no unit of height"),
        ("int16", "EPSG:32631", "? heights taken as metres; the file names no unit of height"),
        (
            "float32",
            "EPSG:2994",
            "? heights taken as foot, the horizontal unit of the CRS; the file names no unit of height",
        ),
    ],
)
def test_units_that_may_be_wrong_have_a_question_mark(put, kind, crs, expected):
    put("dsm.tif", HEIGHTS.astype(kind), crs=crs)
    found = _guessed()
    assert (found.values, found.why) == ({}, {"elevation": expected})


def test_pictures_need_a_pixel_size(put, tmp_path):
    put("image.png", IMAGE, crs=None)
    assert collect([tmp_path], pictures=False).pictures == [str(tmp_path / "image.png")]
    assert _roles(_layers(place=Place(pixel_m=0.1)))["optical"] == ["image.png"]


def test_files_that_a_vrt_reads_are_no_layers_of_their_own(put):
    for band in range(3):
        put(f"bands/{band}.tif", IMAGE[band])
    rasterio.shutil.copy("bands/0.tif", "rgb.vrt", driver="VRT")
    first = Path("rgb.vrt").read_text()
    start, end = first.index("  <VRTRasterBand"), first.index("</VRTDataset>")
    bands = [first[start:end].replace("0.tif", f"{b}.tif").replace('band="1"', f'band="{b + 1}"') for b in range(3)]
    Path("rgb.vrt").write_text(first[:start] + "".join(bands) + first[end:])
    put("dsm.tif", HEIGHTS)
    found = _layers()
    assert _roles(found) == {"optical": ["rgb.vrt"], "elevation": ["dsm.tif"]}
    assert {Path(name).as_posix(): why for name, why in found.left_out.items()} == {
        "bands/0.tif and 2 more": "read through rgb.vrt"
    }
