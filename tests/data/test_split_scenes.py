"""Splits of several scenes: whole, by lists, drawn by class balance, in folds, and in blocks with a buffer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.data.balance import ranked_draws, splits_of_fold
from geocrodino.data.splits import SceneView, block_splits, split_scenes
from geocrodino.errors import AOIError, ConfigError
from geocrodino.geo.areas.aoi import AOI, from_polygons
from geocrodino.settings.splits import SplitSettings

SIDE = 20


def view(number, classes=(0, 1), *, split=None, area=None, files=(), left=None, crs="EPSG:32631", name=None):
    """A scene of 20 x 20 px of 1 m, its rows labelled in turn; scenes stand 100 m apart."""
    left = 100 * number if left is None else left
    grid = GeoBox((SIDE, SIDE), Affine(1, 0, 400_000 + left, 0, -1, 5_000_000), crs)
    labels = np.full((SIDE, SIDE), 255, np.uint8)
    for row, value in zip(range(SIDE), [c for c in classes for _ in range(SIDE // max(1, len(classes)))], strict=False):
        labels[row] = value
    return SceneView(name or f"s{number}", tuple(files), grid, area, split, labels)


def decide(views, *, classes=2, seed=0, **rules):
    settings = SplitSettings(**rules) if rules else None
    return split_scenes(views, settings, classes, patch_px=4, seed=seed)


def names(decided):
    return ["+".join(aoi.splits) for aoi in decided.areas]


# What decides


def test_the_scene_decides_before_lists_and_these_before_areas(tmp_path):
    grid = view(2).grid
    area = from_polygons({"train": shapely.box(*grid.boundingbox)}, grid.crs.wkt, "areas")
    (tmp_path / "train.txt").write_text("s0\ns1\ns3\n")
    (tmp_path / "test.txt").write_text("s2\n")
    views = [view(0), view(1, split="val"), view(2, area=area), view(3), view(4, area=from_polygons(
        {"val": shapely.box(*view(4).grid.boundingbox)}, grid.crs.wkt, "areas"))]  # fmt: skip
    found = decide(views, lists={"train": tmp_path / "train.txt", "test": tmp_path / "test.txt"})
    assert names(found) == ["train", "val", "test", "train", "val"]
    assert found.drawn == found.notes == ()


def test_one_scene_becomes_blocks_and_six_are_drawn_whole():
    grid = GeoBox((200, 200), Affine(1, 0, 0, 0, -1, 0), "EPSG:32631")
    one = SceneView("", (), grid, None, None, np.zeros((200, 200), np.uint8))
    found = split_scenes([one], None, 1, patch_px=8, seed=0)
    assert (names(found), found.drawn) == (["train+val+test"], ("blocks",))
    found = decide([view(n) for n in range(6)])
    # 0.6, 0.2 and 0.2 of 6 scenes: 3.6, 1.2 and 1.2, so the fourth goes to train.
    assert sorted(names(found)) == ["test", "train", "train", "train", "train", "val"]
    assert found.drawn == ("scenes",)


def test_fewer_scenes_than_six_must_say_what_they_are():
    with pytest.raises(ConfigError, match=r"data\.scenes: scene s0 has no split. Expected the key split"):
        decide([view(n) for n in range(5)])
    assert sorted(names(decide([view(n) for n in range(5)], by="scenes"))) == ["test", "train", "train", "train", "val"]


def test_splits_that_scenes_name_are_not_drawn_again():
    views = [view(0, split="test"), *(view(n) for n in range(1, 9))]
    found = names(decide(views, by="scenes"))
    assert found[0] == "test"
    assert sorted(found[1:]) == ["train"] * 6 + ["val"] * 2


def test_scenes_without_labels_stay_unlabelled():
    views = [view(0, (), split="unlabelled"), *(view(n) for n in range(1, 7))]
    found = names(decide(views))
    assert found[0] == "unlabelled"
    assert sorted(set(found[1:])) == ["test", "train", "val"]


def test_one_scene_cannot_be_drawn_whole():
    with pytest.raises(ConfigError, match=r"data.splits.by: scenes: expected several scenes, found one. Use blocks."):
        decide([view(0)], by="scenes")


# Class balance


@pytest.mark.parametrize("seed", range(3))
def test_a_rare_class_in_three_scenes_comes_into_each_split(seed):
    views = [view(n, (0, 1) if n in (2, 5, 11) else (0,)) for n in range(15)]
    found = names(decide(views, seed=seed))
    assert sorted(found[n] for n in (2, 5, 11)) == ["test", "train", "val"]
    assert [found.count(s) for s in ("train", "val", "test")] == [9, 3, 3]


def test_the_best_of_all_assignments_is_found():
    # One unit holds 60 % of everything, two hold 20 % each: only one assignment of three has no error.
    counts, area = np.array([[20], [60], [20]]), np.array([20.0, 60.0, 20.0])
    best = ranked_draws(counts, area, (0.6, 0.2, 0.2), np.random.default_rng(0), even=True)[0]
    assert best[1] == 0
    assert sorted(best) == [0, 1, 2]


def test_scenes_that_overlap_get_the_same_split():
    # s0 and s1 share 10 of 20 m, s1 and s2 too; s3 to s8 stand alone, s4 and s5 share only an edge.
    lefts = [0, 10, 20, 100, 200, 220, 300, 400, 500]
    for seed in range(5):
        found = names(decide([view(n, left=left) for n, left in enumerate(lefts)], by="scenes", seed=seed))
        assert found[0] == found[1] == found[2]
        assert {"train", "val", "test"} == set(found)
    with pytest.raises(ConfigError) as error:
        decide([view(n, left=left) for n, left in enumerate([0, 10, 20, 100])], by="scenes")
    assert str(error.value).startswith(
        "data.splits: expected at least 3 scenes that do not overlap for three splits, found 2 (4 scenes, of which "
        "some overlap and go together)."
    )


def test_a_share_of_zero_draws_no_scene():
    found = names(decide([view(n) for n in range(6)], by="scenes", shares=(0.5, 0.5, 0)))
    assert sorted(found) == ["train"] * 3 + ["val"] * 3


# Folds


def test_each_scene_is_tested_once():
    views = [view(n) for n in range(10)]
    folds = [names(decide(views, by="scenes", folds=5, fold=fold)) for fold in range(5)]
    for scene in range(10):
        assert [found[scene] for found in folds].count("test") == 1
        assert [found[scene] for found in folds].count("val") == 1
    for fold, found in enumerate(folds):
        assert [found.count(s) for s in ("train", "val", "test")] == [6, 2, 2]
        # The scenes to choose weights on are those that the next fold tests.
        assert [s == "val" for s in found] == [s == "test" for s in folds[(fold + 1) % 5]]


def test_two_folds_draw_val_from_the_other_half():
    units = np.ones((8, 1), int), np.ones(8)
    found = splits_of_fold(np.array([0, 1] * 4), 2, 0, *units, seed=0)
    assert (found[::2] == 2).all()
    assert sorted(found[1::2]) == [0, 0, 0, 1]


def test_leave_one_out():
    views = [view(n) for n in range(10)]
    folds = [names(decide(views, folds=10, fold=fold)) for fold in range(10)]
    assert sorted(found.index("test") for found in folds) == list(range(10))


def test_folds_of_blocks_test_the_whole_scene_once():
    grid = GeoBox((240, 240), Affine(1, 0, 0, 0, -1, 0), "EPSG:32631")
    labels = np.zeros((240, 240), np.uint8)
    scene = SceneView("", (), grid, None, None, labels)
    areas = [
        split_scenes([scene], SplitSettings(by="blocks", folds=4, fold=k), 1, patch_px=8, seed=0).areas[0]
        for k in range(4)
    ]
    tests = [aoi.polygons("test") for aoi in areas]
    assert sum(test.area for test in tests) == shapely.union_all(tests).area == 240 * 240
    for aoi in areas:
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            assert aoi.polygons(one).distance(aoi.polygons(other)) >= 8


@pytest.mark.parametrize("views", [[view(0, split="train"), view(1)], [view(0), view(1)]])
def test_what_folds_need(views):
    if views[0].split:
        with pytest.raises(ConfigError, match="scene s0: names splits, so it cannot be divided into folds"):
            decide(views, by="scenes", folds=3, fold=0)
    else:
        with pytest.raises(ConfigError, match="expected at least 3 scenes that do not overlap for 3 folds, found 2"):
            decide(views, by="scenes", folds=3, fold=0)
        with pytest.raises(ConfigError, match=r"data\.splits\.fold: expected the number of the fold .* 0 to 2, found"):
            decide(views, by="scenes", folds=3)


# Blocks with a buffer

GRID = GeoBox((300, 300), Affine(0.5, 0, 0, 0, -0.5, 0), "EPSG:32631")
LABELS = np.random.default_rng(0).integers(0, 2, (300, 300)).astype(np.uint8)


def blocks(**rules):
    whole = shapely.box(*GRID.boundingbox)
    return block_splits(whole, GRID, LABELS, 2, patch_px=8, rules=SplitSettings(by="blocks", **rules))


@pytest.mark.parametrize("buffer", [0, 2, 7.5])
def test_the_buffer_is_in_metres(buffer):
    aoi = blocks(block_m=30, buffer_m=buffer)
    # 150 m hold 5 x 5 blocks of 30 m; those of test keep their whole area.
    assert aoi.polygons("test").area % 900 == pytest.approx(0, abs=1e-6)
    gaps = [aoi.polygons(a).distance(aoi.polygons(b)) for a, b in (("train", "val"), ("train", "test"))]
    assert min(gaps) == pytest.approx(1.01 * buffer)


def test_shares_of_blocks():
    aoi = blocks(block_m=15, buffer_m=0, shares=(0.8, 0.2, 0))
    assert aoi.splits == ("train", "val")
    # A hundred blocks of 1 %: the best of many draws is near the shares.
    assert aoi.polygons("val").area / 150**2 == pytest.approx(0.2, abs=0.03)


def test_blocks_too_large():
    with pytest.raises(AOIError) as error:
        blocks(block_m=120)
    assert str(error.value) == (
        "The area of interest is too small to be cut into train, val and test: expected room for blocks of at least "
        "240 px with strips of 8 px between them, found 300 x 300 px, width x height (150 x 150 in units of the CRS).\n"
        "Draw polygons with a column `split`, or give another block_m or buffer_m."
    )


def test_a_scene_of_several_without_room_for_blocks():
    scenes = [view(0, split="val"), view(1)]
    with pytest.raises(AOIError) as error:
        split_scenes(scenes, SplitSettings(by="blocks"), 2, patch_px=16, seed=0)
    assert str(error.value) == (
        "Scene s1: The area of interest is too small to be cut into train, val and test: expected room for blocks of "
        "at least 48 px with strips of 16 px between them, found 20 x 20 px, width x height (20 x 20 in units of the "
        "CRS).\n"
        "Draw polygons with a column `split`.\nOr give the whole scene one split, with the key split of the scene."
    )
    named = [scenes[0], dataclasses.replace(scenes[1], split="train")]
    assert [a.splits for a in split_scenes(named, None, 2, patch_px=16, seed=0).areas] == [("val",), ("train",)]


# Lists


def write(folder, **texts):
    paths = {}
    for split, text in texts.items():
        paths[split] = folder / f"{split}.txt"
        paths[split].write_text(text)
    return paths


POTSDAM = [
    view(n, name=f"{row}_{col}", files=(f"/d/2_Ortho/top_potsdam_{row}_{col}_RGB.tif", f"/d/dsm_{row:02}_{col:02}.tif"))
    for n, (row, col) in enumerate([(2, 10), (2, 11), (3, 10), (3, 11)])
]
FLAIR = [
    view(n, name=f"p{n}", files=(f"/f/aerial_train/{domain}/{zone}/img/IMG_{n:06}.tif",))
    for n, (domain, zone) in enumerate([("D004_2021", "Z1_NN"), ("D004_2021", "Z1_NN"), ("D004_2021", "Z2_UU"),
                                        ("D014_2020", "Z1_NN")])
]  # fmt: skip


@pytest.mark.parametrize(
    ("views", "texts", "expected"),
    [
        (POTSDAM, {"train": "2_10, 2_11\n", "val": "3_10", "test": "# held out\n3_11\n\n"}, "train train val test"),
        (POTSDAM, {"train": "02_10\n2_11", "val": "3_10", "test": "3_11"}, "train train val test"),
        (POTSDAM, {"train": "top_potsdam_2_10_RGB.tif\ntop_potsdam_2_11_RGB", "val": "dsm_03_10.tif"},
         "train train val "),
        (FLAIR, {"train": "D004_2021/Z1_NN\n", "val": "D004_2021/Z2_UU", "test": "D014_2020"}, "train train val test"),
        (FLAIR, {"train": "IMG_000000\nIMG_000001", "val": "IMG_000002"}, "train train val "),
        (FLAIR, {"train": "flair/aerial_train/D004_2021/Z1_NN/img/IMG_000000.tif flair/msk/MSK_000000.tif",
                 "val": "aerial_train\\D014_2020\\Z1_NN\\img\\IMG_000003.tif"}, "train   val"),
        (POTSDAM, {"train": "2_10, 2_11 3_10", "val": "3_11"}, "train train train val"),
        (POTSDAM, {"train": "2_10 2_11", "val": "3_10 dsm_03_10", "test": "3_11"}, "train train val test"),
    ],
)  # fmt: skip
def test_lists_as_data_sets_bring_them(tmp_path, views, texts, expected):
    assert names(decide(views, lists=write(tmp_path, **texts))) == expected.split(" ")


def test_tables(tmp_path):
    table = tmp_path / "split.csv"
    table.write_text("id,tile,subset\n1,2_10,train\n2,2_11,Training\n3,3_10,val\n4,3_11,test\n")
    lists = dict.fromkeys(("train", "val", "test"), table)
    assert names(decide(POTSDAM, lists=lists)) == ["train", "train", "val", "test"]
    assert names(decide(POTSDAM, lists=lists, column="tile")) == ["train", "train", "val", "test"]
    with pytest.raises(ConfigError) as error:
        decide(POTSDAM, lists=lists, column="tiles")
    assert str(error.value) == (
        f"{table}: data.splits.column: no column 'tiles'. Expected one of id, tile, subset. Did you mean tile?"
    )


def test_names_of_no_scene(tmp_path):
    lists = write(tmp_path, train="2_10\n2_11\n3_12\nall_of_it\n", val="3_10")
    with pytest.raises(ConfigError) as error:
        decide(POTSDAM, lists=lists)
    assert str(error.value) == (
        f"{lists['train']}: 2 of 4 names match no scene: line 3 3_12 (did you mean 3_11?), line 4 all_of_it. Expected "
        "names of scenes or of their files, such as 2_10, 2_11, 3_10 and 1 more.\n"
        "Correct or remove these lines, or add the scenes."
    )


def test_a_line_with_blanks_is_read_whole(tmp_path):
    lists = write(tmp_path, train="2_10 2_11 3_12", val="3_10")
    with pytest.raises(ConfigError, match=r"1 of 3 names matches no scene: line 1 3_12 \(did you mean 3_11\?\)\."):
        decide(POTSDAM, lists=lists)


def test_names_of_no_file_of_a_single_scene(tmp_path):
    alone = dataclasses.replace(view(0, files=("img/ortho_1.tif", "dsm/dsm_1.tif")), name="")
    lists = write(tmp_path, train="ortho_2.tif")
    with pytest.raises(ConfigError, match=r"such as ortho_1, dsm_1\.\nCorrect or remove these lines"):
        decide([alone], lists=lists)
    with pytest.raises(AOIError) as error:
        decide([dataclasses.replace(alone, split="test")])
    assert str(error.value) == (
        "the scene: no polygon of the split train or val. Expected train and val (and test, to report on), found test."
    )


def test_a_scene_in_two_lists(tmp_path):
    lists = write(tmp_path, train="2_10\n2_11\n3_10", val="# again\n3_10")
    with pytest.raises(ConfigError) as error:
        decide(POTSDAM, lists=lists)
    assert str(error.value) == (
        f"{lists['val']}: line 2: scene 3_10 is in the list of train too. What is learned from must not be reported "
        "on: name each scene in one list."
    )


def test_a_list_that_is_not_there_or_empty(tmp_path):
    with pytest.raises(ConfigError, match=r"data.splits.lists.train: .*no.txt: no such file\. Check the path;"):
        decide(POTSDAM, lists={"train": tmp_path / "no.txt"})
    with pytest.raises(ConfigError, match="expected names of scenes of the split train, found none"):
        decide(POTSDAM, lists=write(tmp_path, train="# nothing\n"))


def test_val_is_drawn_where_no_list_names_it(tmp_path):
    found = decide(POTSDAM, lists=write(tmp_path, train="2_10\n2_11\n3_10", test="3_11"))
    assert sorted(names(found)[:3]) == ["train", "train", "val"]
    assert names(found)[3] == "test"
    moved = POTSDAM[names(found).index("val")].name
    assert found.notes == (f"No list names val: 1 of the 3 scenes of train are drawn as val ({moved})",)
    assert found.drawn == ("scenes",)


def test_listed_scenes_to_test_on_are_not_learnt_from_without_labels(tmp_path):
    views = [*POTSDAM[:3], view(3, (), name="3_11", split="unlabelled")]
    found = decide(views, lists=write(tmp_path, train="2_10\n2_11", val="3_10", test="3_11"))
    assert names(found) == ["train", "train", "val", "test"]


def test_an_area_without_rows_is_one_without_splits():
    empty = from_polygons({}, "EPSG:32631", "nothing")
    assert isinstance(empty, AOI)
    assert empty.splits == ()


# Parts of one scene, and scenes that differ in their modalities


def part(number, side):
    grid = GeoBox((side, side), Affine(1, 0, 400_000 + 1000 * number, 0, -1, 5_000_000), "EPSG:32631")
    labels = np.zeros((side, side), np.uint8)
    labels[:, side // 2 :] = 1
    return SceneView(f"part-{number}", (), grid, None, None, labels)


def test_few_parts_of_one_scene_are_cut_into_blocks_like_one_scene():
    found = split_scenes([part(1, 200), part(2, 8)], None, 2, patch_px=8, seed=0, parts_of_one=True)
    assert names(found) == ["train+val+test", "train"]
    assert found.drawn == ("blocks",)
    assert found.notes == ("Too small for three splits, so the whole part is train: part-2",)
    with pytest.raises(ConfigError, match="scene part-1 has no split"):
        split_scenes([part(1, 200), part(2, 8)], None, 2, patch_px=8, seed=0)
    with pytest.raises(ConfigError, match="none of 2 parts of the scene has room for three splits"):
        split_scenes([part(1, 8), part(2, 8)], None, 2, patch_px=8, seed=0, parts_of_one=True)


def test_each_split_gets_its_share_of_each_modality():
    """Of ten equal scenes five have heights alone: of five splits of each kind, three are `train`."""
    views = [dataclasses.replace(view(n), modalities=("optical" if n % 2 else "elevation",)) for n in range(10)]
    for seed in range(3):
        found = names(decide(views, seed=seed))
        for kind in (0, 1):
            assert sorted(found[kind::2]) == ["test", "train", "train", "train", "val"]


def test_a_scene_with_a_larger_grid_is_split_by_its_own_ground():
    small = dataclasses.replace(view(0, split="val"), extent=shapely.box(400_000, 4_999_990, 400_010, 5_000_000))
    found = decide([view(1, split="train"), small])
    assert found.areas[1].polygons("val").area == 100
