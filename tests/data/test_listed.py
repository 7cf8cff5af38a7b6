"""Lists that name the files of a scene that is joined from several: each place gets the split of its list."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.data import parts
from geocrodino.data.listed import ListedScene, Member, _units, members_of
from geocrodino.data.splits import SceneView, split_scenes
from geocrodino.errors import ConfigError
from geocrodino.settings.config import config_of
from geocrodino.settings.splits import SplitSettings
from geocrodino.training.checks import check_inputs

SIDE = 10


def place(column, row=0, *, grow=0, left=0):
    """The footprint of a tile of 10 x 10 m; tiles are counted from the upper left corner of the scene."""
    x, y = left + SIDE * column, -SIDE * row
    return shapely.box(x - grow, y - SIDE - grow, x + SIDE + grow, y + grow)


def view(columns=4, *, name="", split=None, grow=0, part_of="", left=0, files=("dsm.tif",)):
    """A row of tiles of 10 x 10 px of 1 m; the tile of column 1 holds class 1, the others class 0."""
    grid = GeoBox((SIDE, SIDE * columns), Affine(1, 0, left, 0, -1, 0), "EPSG:32631")
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, SIDE : 2 * SIDE] = 1
    images = [f"/data/img/t_{c}_RGB.tif" for c in range(columns)]
    members = tuple(Member((file,), place(c, grow=grow, left=left)) for c, file in enumerate(images))
    return SceneView(name, (*images, *files), grid, None, split, labels, members, part_of)


@pytest.fixture
def decide(tmp_path):
    def make(views, seed=0, **lists):
        for split, text in lists.items():
            (tmp_path / f"{split}.txt").write_text(text)
        paths = {split: tmp_path / f"{split}.txt" for split in lists}
        return split_scenes(views, SplitSettings(lists=paths), 2, patch_px=4, seed=seed)

    return make


def areas(decided, number=0):
    frame = decided.areas[number].frame
    return {split: shape.bounds for split, shape in zip(frame["split"], frame.geometry, strict=True)}


@pytest.mark.parametrize(
    "train", ["t_0_RGB.tif\nt_2_RGB.tif", "t_00_rgb\nt_2_RGB", "img/t_0_RGB\nelse/img/t_2_RGB.tif"]
)
def test_each_file_gets_the_split_of_its_list(decide, train):
    found = decide([view()], train=train, val="t_1_RGB\n", test="/data/img/t_3_RGB.tif\n")
    assert areas(found) == {"test": (30, -10, 40, 0), "val": (10, -10, 20, 0), "train": (0, -10, 30, 0)}
    assert found.areas[0].polygons("train").area == 200
    assert found.drawn == found.notes == ()


def test_files_in_no_list_are_not_used(decide):
    assert areas(decide([view()], train="t_0_RGB\n", val="t_1_RGB\n")) == {
        "val": (10, -10, 20, 0),
        "train": (0, -10, 10, 0),
    }


def test_pixels_that_neighbours_share_are_kept_by_test_and_val(decide):
    """Tiles are 2 m larger on each side."""
    found = decide([view(grow=2)], train="t_0_RGB\n", val="t_1_RGB\n", test="t_2_RGB\n")
    assert areas(found) == {"test": (18, -10, 32, 0), "val": (8, -10, 18, 0), "train": (0, -10, 8, 0)}


def test_val_is_drawn_from_the_files_of_train(decide):
    found = decide([view(5)], train="\n".join(f"t_{n}_RGB" for n in range(4)), test="t_4_RGB\n")
    (note,) = found.notes
    assert note.startswith("No list names val: 1 of the 4 files of train are drawn as val (t_")
    assert found.areas[0].polygons("val").area == 100
    assert found.areas[0].polygons("train").area == 300
    assert found.drawn == ("scenes",)


def test_parts_of_a_scene_share_its_files(decide):
    """Two parts, far from each other; the files of both are named by one list each, or by the name of the scene."""
    plots = [view(2, name=f"plots-{n}", part_of="plots", left=500 * n) for n in range(2)]
    shared = ("/data/img/t_0_RGB.tif", "/data/img/t_1_RGB.tif", "/data/img/u_0_RGB.tif", "/data/img/u_1_RGB.tif")
    second = tuple(Member((f"/data/img/u_{c}_RGB.tif",), place(c, left=500)) for c in range(2))
    members = (*plots[0].members, *second)
    plots = [SceneView(p.name, shared, p.grid, None, None, p.labels, members, "plots") for p in plots]
    found = decide(plots, train="t_0_RGB\nu_0_RGB\n", val="t_1_RGB\nu_1_RGB\n")
    assert areas(found, 1) == {"val": (510, -10, 520, 0), "train": (500, -10, 510, 0)}
    assert areas(found, 0) == {"val": (10, -10, 20, 0), "train": (0, -10, 10, 0)}
    found = decide(plots, train="t_0_RGB\n", val="t_1_RGB\n")
    assert [a.splits for a in found.areas] == [("train", "val"), ()]
    found = decide([*plots, view(2, name="other", files=())], train="plots\n", val="other\n")
    assert [a.splits for a in found.areas] == [("train",), ("train",), ("val",)]


def test_a_scene_without_labels_does_not_learn_from_files_for_test(decide):
    views = [view(name="a"), view(name="b", split="unlabelled", left=500)]
    found = decide([views[0]], train="t_0_RGB\n", val="t_1_RGB\n")
    assert areas(found)["train"] == (0, -10, 10, 0)
    images = tuple(Member((f"/data/raw/r_{c}.tif",), place(c, left=500)) for c in range(4))
    raw = SceneView("b", tuple(m.files[0] for m in images), views[1].grid, None, "unlabelled", views[1].labels, images)
    found = decide([views[0], raw], train="t_0_RGB\nr_1\n", val="t_1_RGB\n", test="r_0\n")
    assert areas(found, 1) == {"unlabelled": (510, -10, 540, 0)}


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ({"train": "t_0_RGB\nt_9_RGB\n", "val": "t_1_RGB\n"},
         "train.txt: 1 of 2 names matches no scene: line 2 t_9_RGB (did you mean t_"),
        ({"train": "t_0_RGB\n", "val": "t_0_RGB.tif\n"},
         "val.txt: line 1: scene t_0_RGB.tif is in the list of train too."),
        ({"train": "lab/dsn.tif\n", "val": "t_1_RGB\n"}, "line 1 lab/dsn.tif (did you mean dsm?)"),
        ({"train": "dsm\n", "val": "t_1_RGB\n"},
         "data.splits.lists: t_1_RGB.tif is in the list of train and in that of val. What is learned from must not be"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be(decide, lists, told):
    with pytest.raises(ConfigError) as error:
        decide([view()], **lists)
    assert told in str(error.value)


def test_files_of_one_place_in_two_lists(decide):
    """Image and labels of one place are one; a second image of half of the place is not."""
    doubled = view()
    members = (*doubled.members, Member(("/data/more.tif",), shapely.box(0, -10, 6, 0)))
    scene = SceneView("", doubled.files, doubled.grid, None, None, doubled.labels, members)
    with pytest.raises(ConfigError, match=r"more\.tif, at the place of t_0_RGB\.tif, is in the list of train and in"):
        decide([scene], train="t_0_RGB\n", val="more\n")


def test_layers_are_joined_by_place():
    image = [(f"img/{c}.tif", place(c)) for c in range(3)]
    labels = [("lab/1.tif", place(1, grow=1)), ("lab/9.tif", place(9))]
    assert [m.files for m in members_of([image, labels])] == [
        ("img/0.tif",), ("img/1.tif", "lab/1.tif"), ("img/2.tif",), ("lab/9.tif",)]  # fmt: skip
    assert members_of([]) == ()


def test_tiles_in_folders_that_join_to_one_raster(write_raster, tmp_path):
    """Four tiles of 32 px in a row: optical and labels in folders, heights in one file."""
    rng = np.random.default_rng(0)
    for column in range(4):
        origin = (400_000 + 32 * column, 5_000_000)
        for folder in ("img", "lab"):
            (tmp_path / folder).mkdir(exist_ok=True)
        write_raster(f"img/top_{column}_RGB.tif", rng.integers(1, 250, (3, 32, 32)).astype(np.uint8), origin=origin)
        write_raster(f"lab/top_{column}_label.tif", rng.integers(0, 2, (32, 32)).astype(np.uint8), origin=origin)
    write_raster("dsm.tif", rng.normal(0, 1, (32, 128)).astype(np.float32), origin=(400_000, 5_000_000))
    (tmp_path / "train.txt").write_text("top_0_RGB\nlab/top_01_label.tif\n")
    (tmp_path / "val.txt").write_text("img/top_2_RGB.tif\n")
    config = config_of({
        "data.optical": tmp_path / "img", "data.labels": tmp_path / "lab", "data.elevation": tmp_path / "dsm.tif",
        "data.splits": {"lists": {"train": str(tmp_path / "train.txt"), "val": str(tmp_path / "val.txt")}},
        "training.patch_px": 32, "elevation.channels": ["height"], "encoder_weights": {},
    })  # fmt: skip
    (scene,) = check_inputs(config).scenes
    assert {split: int(mask.sum()) for split, mask in scene.inside.items()} == {"val": 32 * 32, "train": 2 * 32 * 32}
    assert scene.inside["train"][:, :64].all()


def test_tiles_far_apart(write_raster, tmp_path, monkeypatch):
    """Two pairs of tiles of 32 px, 10 km apart, are parts of one scene; a list names a tile of each, or the scene."""
    monkeypatch.setattr(parts, "SMALL_PX", 100)
    rng = np.random.default_rng(0)
    for number, column in enumerate((0, 1, 312, 313)):
        origin = (400_000 + 32 * column, 5_000_000)
        for folder, values in (
            ("img", rng.integers(1, 250, (3, 32, 32)).astype(np.uint8)),
            ("dsm", rng.normal(0, 1, (32, 32)).astype(np.float32)),
            ("lab", rng.integers(0, 2, (32, 32)).astype(np.uint8)),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_raster(f"{folder}/{folder}_{number}.tif", values, origin=origin)

    def split_px(train, val):
        (tmp_path / "train.txt").write_text(train)
        (tmp_path / "val.txt").write_text(val)
        config = config_of({
            "data.optical": tmp_path / "img", "data.labels": tmp_path / "lab", "data.elevation": tmp_path / "dsm",
            "data.splits": {"lists": {"train": str(tmp_path / "train.txt"), "val": str(tmp_path / "val.txt")}},
            "training.patch_px": 32, "elevation.channels": ["height"], "encoder_weights": {},
        })  # fmt: skip
        found = check_inputs(config).scenes
        assert [scene.name for scene in found] == ["part-1", "part-2"]
        return [{split: int(mask[:, :32].sum()) for split, mask in scene.inside.items()} for scene in found]

    tile = 32 * 32
    assert split_px("img_0\nlab_3\n", "dsm_1\nimg/img_2.tif\n") == [
        {"val": 0, "train": tile},
        {"val": tile, "train": 0},
    ]
    assert split_px("part-1\n", "img_3\n") == [{"train": tile}, {"val": 0}]


@pytest.mark.parametrize(
    ("lacking", "pixels"),
    [
        ("lab", [{"val": 0, "train": 1024}, {"unlabelled": 1024}]),  # the second part has no labels
        ("dsm", [{"val": 0, "train": 1024}, {"val": 0, "train": 1024}]),  # it has no heights
    ],
)
@pytest.mark.filterwarnings("ignore::geocrodino.errors.LeftOutWarning")
def test_files_of_a_part_that_lacks_a_layer(write_raster, tmp_path, monkeypatch, lacking, pixels):
    """Lists name the images of two pairs of tiles; those of the second pair are named alike on both parts."""
    monkeypatch.setattr(parts, "SMALL_PX", 100)
    rng = np.random.default_rng(0)
    for number, column in enumerate((0, 1, 312, 313)):
        for folder, values in (
            ("img", rng.integers(1, 250, (3, 32, 32)).astype(np.uint8)),
            ("dsm", rng.normal(0, 1, (32, 32)).astype(np.float32)),
            ("lab", rng.integers(0, 2, (32, 32)).astype(np.uint8)),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            if number < 2 or folder != lacking:
                origin = (400_000 + 32 * column, 5_000_000)
                write_raster(f"{folder}/{folder}_{number}.tif", values, origin=origin)
    (tmp_path / "train.txt").write_text("img_0\nimg_2\n")
    (tmp_path / "val.txt").write_text("img_1\nimg_3\n")
    config = config_of({
        "data.optical": tmp_path / "img", "data.labels": tmp_path / "lab", "data.elevation": tmp_path / "dsm",
        "data.splits": {"lists": {split: str(tmp_path / f"{split}.txt") for split in ("train", "val")}},
        "data.partial": "keep", "training.patch_px": 32, "elevation.channels": ["height"], "encoder_weights": {},
    })  # fmt: skip
    found = check_inputs(config).scenes
    assert [{split: int(mask[:, :32].sum()) for split, mask in scene.inside.items()} for scene in found] == pixels


def test_parts_share_the_places_of_their_scene():
    """A place is a target of the parts on which it lies alone: hundreds of parts may share thousands of files."""
    members = tuple(Member((f"t_{n}.tif",), place(n)) for n in range(4))
    scenes = [ListedScene(f"p-{n}", (), members, "p", place(2 * n).union(place(2 * n + 1))) for n in range(2)]
    assert [unit.targets for unit in _units(scenes)[:4]] == [[(n // 2, members[n].shape)] for n in range(4)]


def test_a_name_of_several_files(decide):
    twice = view(2, files=())
    members = (*twice.members, Member(("/data/more/t_0_RGB.tif",), shapely.box(30, -10, 40, 0)))
    scene = SceneView("", (), twice.grid, None, None, twice.labels, members)
    with pytest.raises(ConfigError, match=r"line 1 t_0_RGB \(a name of several files: add the folder, or the ending\)"):
        decide([scene], train="t_0_RGB\n", val="t_1_RGB\n")


def test_quoted_names(decide):
    found = decide([view()], train='"img/t_0_RGB.tif"\n"t_2_RGB"', val="'t_1_RGB'", test="t_3_RGB.tif")
    assert {split: shape[0] for split, shape in areas(found).items()} == {"test": 30, "val": 10, "train": 0}


def test_a_list_in_another_encoding(decide, tmp_path):
    (tmp_path / "train.txt").write_bytes("Fläche".encode("latin-1"))
    with pytest.raises(ConfigError) as refused:
        split_scenes([view()], SplitSettings(lists={"train": tmp_path / "train.txt"}), 2, patch_px=4, seed=0)
    assert str(refused.value).startswith(f"data.splits.lists.train: {tmp_path / 'train.txt'}: cannot be read as text (")
    assert str(refused.value).endswith("). Expected UTF-8.")
