"""HDF5 and MATLAB files are unpacked once, completely or not at all, and read as they are meant."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import pickle
import re

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io

from geocrodino.errors import ConfigError, OutputError, RasterError, SplitWarning
from geocrodino.presets import packed as packed_module
from geocrodino.presets.catalogue import PRESETS
from geocrodino.presets.contents import dataset_settings, look, missing_text, unpack_dataset
from geocrodino.presets.packed import UNPACKED, content_key, not_unpacked
from tests.helpers.data_sets import NYU_CODES, nyu_arrays, write_gamus, write_hdf5, write_nyu_file, write_nyu_splits

NYU_TILES = ("kitchen_0004-0001", "kitchen_0004-0002", "bedroom_0010a-0003", "bedroom_0010a-0004", "office_0002-0005")

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def unpacked(root, name):
    """Values and missing pixels of an unpacked raster."""
    with rasterio.open(root / UNPACKED / name) as file:
        return file.read(), file.read_masks(1) == 0


def todo(name, root):
    return [raster.name for raster in not_unpacked(look(PRESETS[name], root).packed, root)]


def without_h5py(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *a: None if module == "h5py" else find(module, *a))


# --- NYU --------------------------------------------------------------------------------------------------------------


def test_pictures_of_nyu_have_their_axes_in_order(tmp_path):
    write_nyu_file(tmp_path)
    unpack_dataset(PRESETS["nyu"], tmp_path)
    for number, tile in enumerate(NYU_TILES):
        picture, depth, _, objects = nyu_arrays(number)
        np.testing.assert_array_equal(unpacked(tmp_path, f"RGB/{tile}.tif")[0], picture)
        millimetres, missing = unpacked(tmp_path, f"Depth/{tile}.tif")
        np.testing.assert_array_equal(millimetres[0], np.round(1000 * depth.astype(float)))
        assert not missing.any()
        classes = np.concatenate([[0], NYU_CODES])[objects]
        np.testing.assert_array_equal(unpacked(tmp_path, f"Label/{tile}.tif")[0][0], classes)
        assert set(np.unique(classes[objects == 0])) == {0}  # 0 is no label, and no class


def test_holes_of_measured_distances_are_missing(tmp_path):
    write_nyu_file(tmp_path)
    unpack_dataset(PRESETS["nyu-raw"], tmp_path)
    _, depth, raw, _ = nyu_arrays(0)
    millimetres, missing = unpacked(tmp_path, f"RawDepth/{NYU_TILES[0]}.tif")
    np.testing.assert_array_equal(missing, ~(raw > 0))  # 0 and what is no number
    assert missing.sum() == 8
    np.testing.assert_array_equal(millimetres[0][~missing], np.round(1000 * depth.astype(float))[~missing])


def test_official_splits_of_nyu_and_val_by_whole_scenes(tmp_path):
    write_nyu_file(tmp_path)
    assert {scene.name: scene.split for scene in look(PRESETS["nyu"], tmp_path).scenes} == {
        "bedroom_0010a-0003": "train",
        "bedroom_0010a-0004": "train",
        "kitchen_0004-0001": "val",
        "kitchen_0004-0002": "val",
        "office_0002-0005": "test",  # number 5 of splits.mat, which counts from 1
    }


def test_pictures_without_names_of_scenes(tmp_path):
    write_nyu_file(tmp_path, scenes=None)
    assert [scene.name for scene in look(PRESETS["nyu"], tmp_path).scenes] == ["0001", "0002", "0003", "0004", "0005"]


def test_nyu_without_splits(tmp_path):
    write_nyu_file(tmp_path, splits=False)
    unpack_dataset(PRESETS["nyu"], tmp_path)
    contents = look(PRESETS["nyu"], tmp_path)
    assert contents.count("test") == 0
    sentence = "splits.mat is not there: pictures of test are not told from those of train."
    assert missing_text(PRESETS["nyu"], contents) == sentence
    with pytest.warns(SplitWarning, match=rf"^{tmp_path}: {sentence}$"):
        dataset_settings(PRESETS["nyu"], tmp_path)


def test_splits_that_come_later_are_written_beside_the_rasters(tmp_path):
    write_nyu_file(tmp_path, splits=False)
    unpack_dataset(PRESETS["nyu"], tmp_path)
    write_nyu_splits(tmp_path, test=(5,))
    told = []
    unpack_dataset(PRESETS["nyu"], tmp_path, told.append)
    assert told == []  # no raster was written
    assert (tmp_path / UNPACKED / "test.txt").read_text() == "office_0002-0005\n"
    write_nyu_splits(tmp_path, test=(4, 5))
    unpack_dataset(PRESETS["nyu"], tmp_path)
    for file in tmp_path.glob("*.mat"):
        file.unlink()
    scenes = look(PRESETS["nyu"], tmp_path).scenes
    assert {scene.name for scene in scenes if scene.split == "test"} == {"bedroom_0010a-0004", "office_0002-0005"}


def test_the_lists_of_splits_outlive_an_interruption(tmp_path, monkeypatch):
    write_nyu_file(tmp_path)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(packed_module, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            unpack_dataset(PRESETS["nyu"], tmp_path)
    assert (tmp_path / UNPACKED / "test.txt").read_text() == "office_0002-0005\n"
    unpack_dataset(PRESETS["nyu"], tmp_path)
    (tmp_path / UNPACKED / "test.txt").unlink()
    assert todo("nyu", tmp_path) == []
    unpack_dataset(PRESETS["nyu"], tmp_path)
    assert (tmp_path / UNPACKED / "test.txt").read_text() == "office_0002-0005\n"


def test_written_lists_count_where_the_file_of_the_splits_is_gone(tmp_path):
    write_nyu_file(tmp_path)
    unpack_dataset(PRESETS["nyu"], tmp_path)
    before = look(PRESETS["nyu"], tmp_path)
    (tmp_path / "splits.mat").unlink()
    after = look(PRESETS["nyu"], tmp_path)
    assert after.scenes == before.scenes
    assert missing_text(PRESETS["nyu"], after) == ""


def test_unpacked_pictures_without_lists_are_told(tmp_path):
    write_nyu_file(tmp_path, splits=False)
    unpack_dataset(PRESETS["nyu"], tmp_path)
    for file in tmp_path.glob("*.mat"):
        file.unlink()
    sentence = "No list of the splits is there (train.txt, test.txt): tiles of test are not told from those of train."
    assert missing_text(PRESETS["nyu"], look(PRESETS["nyu"], tmp_path)) == sentence
    with pytest.warns(SplitWarning, match=rf"^{tmp_path}: {re.escape(sentence)}$"):
        dataset_settings(PRESETS["nyu"], tmp_path)


def test_nyu_without_the_classes_of_its_objects(tmp_path):
    write_nyu_file(tmp_path, classes=False)
    with pytest.raises(ConfigError) as error:
        dataset_settings(PRESETS["nyu"], tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected tiles of nyu for the split train, found none. {tmp_path}/nyu_depth_v2_labeled.mat: its "
        "labels are names of 894 objects, and classMapping40.mat, which says the class of each of them, is not in the "
        "same data set. Get it from https://github.com/ankurhanda/nyuv2-meta-data."
    )


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "splits.mat",
            {"trainNdxs": [[1], [6]], "testNdxs": [[2]]},
            "expected numbers of pictures from 1 to 5 under trainNdxs, found 6. It does not belong to this "
            "nyu_depth_v2_labeled.mat.",
        ),
        (
            "splits.mat",
            {"train": [[1]]},
            "expected the key trainNdxs, which the file does not have. Download it again.",
        ),
        (
            "classMapping40.mat",
            {"mapClass": [[1, 41]]},
            "expected classes of 1 to 40 under mapClass, found others. Download it again.",
        ),
    ],
)
def test_small_files_of_nyu_that_do_not_fit(file, values, message, tmp_path):
    write_nyu_file(tmp_path)
    scipy.io.savemat(tmp_path / file, values)
    with pytest.raises(ConfigError) as error:
        look(PRESETS["nyu"], tmp_path)
    assert str(error.value) == f"{tmp_path}/{file}: {message}"


def test_a_small_file_that_is_no_matlab_file(tmp_path):
    write_nyu_file(tmp_path)
    (tmp_path / "splits.mat").write_text("<html>")
    with pytest.raises(ConfigError, match=r"splits\.mat: expected a MATLAB file that can be read \(.*Download it"):
        look(PRESETS["nyu"], tmp_path)


def test_labels_beyond_the_table_of_classes(tmp_path):
    write_nyu_file(tmp_path)
    scipy.io.savemat(tmp_path / "classMapping40.mat", {"mapClass": [[1] * 39]})
    with pytest.raises(RasterError, match=r"expected labels of at most 39, .* found 40 in picture 1\. The two files"):
        unpack_dataset(PRESETS["nyu"], tmp_path)


def test_a_matlab_file_that_was_cut_off(tmp_path):
    write_nyu_file(tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(
        RasterError, match=r"labeled\.mat: expected a whole HDF5 file, found a damaged one \(.*Download"
    ):
        look(PRESETS["nyu"], tmp_path)


def test_a_matlab_file_of_other_arrays(tmp_path):
    write_nyu_file(tmp_path)
    write_hdf5(tmp_path / "nyu_depth_v2_labeled.mat", {"images": np.zeros((2, 3, 8, 6)), "depths": np.zeros((2, 8, 6))})
    with pytest.raises(RasterError, match="expected the array labels, found depths, images"):
        look(PRESETS["nyu"], tmp_path)
    write_hdf5(
        tmp_path / "nyu_depth_v2_labeled.mat",
        {"images": np.zeros((2, 3, 8, 6)), "depths": np.zeros((2, 8, 6)), "labels": np.zeros((2, 6, 8))},
    )
    with pytest.raises(RasterError, match=r"found \(2, 3, 8, 6\), \(2, 8, 6\) and \(2, 6, 8\)"):
        look(PRESETS["nyu"], tmp_path)


# --- GAMUS ------------------------------------------------------------------------------------------------------------


def test_gamus_is_unpacked(tmp_path):
    write_gamus(tmp_path / "tif")
    write_gamus(tmp_path / "h5", hdf5=True)
    unpack_dataset(PRESETS["gamus"], tmp_path / "h5")
    assert len(list((tmp_path / "h5" / UNPACKED).glob("*/*/*.tif"))) == 3 * 2 * 3
    for tile in ("DC_01_25", "NYC_00735"):  # images of New York are called IMG
        for name in (f"images/train/{tile}_RGB.tif", f"classes/train/{tile}_CLS.tif"):
            with rasterio.open(tmp_path / "tif" / name) as file:
                expected = file.read()
            values, _ = unpacked(tmp_path / "h5", name)
            assert values.dtype == np.uint8
            np.testing.assert_array_equal(values, expected)


def test_gaps_of_washington_are_missing_and_noise_is_not(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    unpack_dataset(PRESETS["gamus"], tmp_path)
    _, missing = unpacked(tmp_path, "heights/train/DC_01_25_AGL.tif")
    assert missing[:2, :4].all()
    assert missing.sum() == 8
    heights, missing = unpacked(tmp_path, "heights/train/NYC_00735_AGL.tif")
    assert not missing.any()
    assert heights.min() == -0.25


def test_labels_that_are_no_class(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    path = tmp_path / "classes/train/NYC_00735_CLS.h5"
    with h5py.File(path, "r+") as file:
        file["image"][0, :4] = [np.nan, -1, 300, 2.5]
    unpack_dataset(PRESETS["gamus"], tmp_path)
    values, missing = unpacked(tmp_path, "classes/train/NYC_00735_CLS.tif")
    assert values[0, 0, :4].tolist() == [255] * 4
    assert missing.sum() == 4


@pytest.mark.parametrize(
    ("file", "arrays", "message"),
    [
        ("images/val/DC_01_25_RGB.h5", {"rgb": np.zeros((8, 8, 3))}, "expected the array image, found rgb."),
        (
            "images/val/DC_01_25_RGB.h5",
            {"image": np.zeros((3, 8, 8), np.uint8)},
            "expected an array of shape (H, W, 3), found (3, 8, 8).",
        ),
        (
            "heights/val/DC_01_25_AGL.h5",
            {"image": np.zeros((8, 8, 1))},
            "expected an array of shape (H, W), found (8, 8, 1).",
        ),
    ],
)
def test_arrays_of_gamus_that_do_not_fit(file, arrays, message, tmp_path):
    write_gamus(tmp_path, hdf5=True)
    write_hdf5(tmp_path / file, arrays)
    with pytest.raises(RasterError) as error:
        unpack_dataset(PRESETS["gamus"], tmp_path)
    assert str(error.value) == f"{tmp_path}/{file}: {message}"


def test_two_images_of_a_tile(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    write_hdf5(tmp_path / "images/train/DC_01_25_IMG.h5", {"image": np.zeros((8, 8, 3), np.uint8)})
    with pytest.raises(ConfigError, match=r"DC_01_25_RGB\.h5: expected one image of a tile, found .*_IMG\.h5 too"):
        look(PRESETS["gamus"], tmp_path)


def test_a_download_that_is_no_hdf5_file(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    path = tmp_path / "classes/test/DC_01_25_CLS.h5"
    path.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(RasterError, match=r"CLS\.h5: expected an HDF5 file, found another kind of file \(.*Download"):
        unpack_dataset(PRESETS["gamus"], tmp_path)


def test_an_array_that_is_damaged(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    path = tmp_path / "classes/test/DC_01_25_CLS.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=np.ones((64, 64), np.uint8), chunks=(64, 64), compression="gzip")
        start = file["image"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[start : start + 8] = b"\0" * 8  # no start of a compressed block
    path.write_bytes(content)
    with pytest.raises(RasterError, match=r"CLS\.h5: expected a whole HDF5 file, found a damaged one \(.*Download"):
        unpack_dataset(PRESETS["gamus"], tmp_path)


# --- once, completely or not at all -----------------------------------------------------------------------------------


def test_a_training_needs_the_unpacked_tiles(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    with pytest.raises(ConfigError) as error:
        dataset_settings(PRESETS["gamus"], tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected the tiles of gamus in {tmp_path}/geocrodino-unpacked, found 18 of 18 rasters not "
        "unpacked yet. Unpack them first: geocrodino.presets.contents.unpack_dataset."
    )
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    unpack_dataset(PRESETS["gamus"], tmp_path)
    (first, *_) = dataset_settings(PRESETS["gamus"], tmp_path)["data"]["scenes"]
    assert first == {
        "name": "test_DC_01_25",
        "optical": f"{tmp_path}/geocrodino-unpacked/images/test/DC_01_25_RGB.tif",
        "elevation": f"{tmp_path}/geocrodino-unpacked/heights/test/DC_01_25_AGL.tif",
        "labels": f"{tmp_path}/geocrodino-unpacked/classes/test/DC_01_25_CLS.tif",
        "split": "test",
    }


def test_the_size_is_told_before(tmp_path):
    write_nyu_file(tmp_path)
    told, steps = [], []
    unpack_dataset(PRESETS["nyu"], tmp_path, told.append, lambda done, total: steps.append((done, total)))
    size = 5 * 48 * 64 * (3 + 2 + 1)
    assert told == [f"Unpacking 15 rasters into {tmp_path}/geocrodino-unpacked: at most {size:,} bytes to write."]
    assert steps == [(done, 15) for done in range(1, 16)]
    unpack_dataset(PRESETS["nyu-13"], tmp_path, told.append)  # the same files
    assert len(told) == 1
    unpack_dataset(PRESETS["nyu-raw"], tmp_path, told.append)
    assert told[1].startswith("Unpacking 5 rasters into ")
    assert told[1].endswith("; 10 are there.")


def test_an_interrupted_unpacking_goes_on(tmp_path, monkeypatch):
    write_gamus(tmp_path, hdf5=True)
    write, calls = packed_module._write, []

    def interrupted(path, pixels):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(path)
        write(path, pixels)

    monkeypatch.setattr(packed_module, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack_dataset(PRESETS["gamus"], tmp_path)
    monkeypatch.setattr(packed_module, "_write", write)
    assert len(todo("gamus", tmp_path)) == 14
    record = tmp_path / UNPACKED / "unpacked.jsonl"
    record.write_text(record.read_text()[:-9])  # a kill cut the last line off
    assert len(todo("gamus", tmp_path)) == 15
    unpack_dataset(PRESETS["gamus"], tmp_path)
    assert todo("gamus", tmp_path) == []
    assert {path.suffix for path in (tmp_path / UNPACKED).glob("*/*/*")} == {".tif"}


def test_files_that_change_or_come_later_are_unpacked_alone(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    unpack_dataset(PRESETS["gamus"], tmp_path)
    path = tmp_path / "heights/val/DC_01_25_AGL.h5"
    os.utime(path, ns=(1, 1))
    write_hdf5(tmp_path / "heights/val/DC_01_26_AGL.h5", {"image": np.zeros((8, 8), np.float32)})
    assert todo("gamus", tmp_path) == ["heights/val/DC_01_25_AGL.tif", "heights/val/DC_01_26_AGL.tif"]
    (tmp_path / UNPACKED / "images/test/DC_01_25_RGB.tif").unlink()
    assert "images/test/DC_01_25_RGB.tif" in todo("gamus", tmp_path)


def test_another_table_of_classes_touches_the_labels_alone(tmp_path):
    write_nyu_file(tmp_path)
    unpack_dataset(PRESETS["nyu"], tmp_path)
    scipy.io.savemat(tmp_path / "classMapping40.mat", {"mapClass": np.ones((1, 895), np.uint8)})
    assert todo("nyu", tmp_path) == [f"Label/{tile}.tif" for tile in NYU_TILES]


def test_the_key_follows_the_content_not_the_folder(tmp_path):
    paths = [tmp_path / "a/x.h5", tmp_path / "b/x.h5"]
    for path in paths:
        path.parent.mkdir()
        path.write_text("x")
        os.utime(path, ns=(5, 5))
    first, second = (content_key([str(path)]) for path in paths)
    assert first == second
    assert content_key([str(paths[0])], "more") != first


def test_unpacked_tiles_outlive_the_packed_file(tmp_path):
    write_nyu_file(tmp_path)
    unpack_dataset(PRESETS["nyu"], tmp_path)
    before = look(PRESETS["nyu"], tmp_path).scenes
    for file in tmp_path.glob("*.mat"):
        file.unlink()
    assert look(PRESETS["nyu"], tmp_path).scenes == before


@pytest.mark.parametrize("way", ["no classes", "no h5py"])
def test_unpacked_tiles_count_where_the_packed_file_cannot_be_unpacked(way, tmp_path, monkeypatch):
    write_nyu_file(tmp_path)
    unpack_dataset(PRESETS["nyu"], tmp_path)
    before = look(PRESETS["nyu"], tmp_path).scenes
    if way == "no h5py":
        without_h5py(monkeypatch)
    else:
        (tmp_path / "classMapping40.mat").unlink()
    after = look(PRESETS["nyu"], tmp_path)
    assert after.scenes == before
    assert missing_text(PRESETS["nyu"], after) == ""
    assert len(dataset_settings(PRESETS["nyu"], tmp_path)["data"]["scenes"]) == len(before)
    with pytest.raises(ConfigError, match=r"nyu-raw .*found none\. .*nyu_depth_v2_labeled\.mat: "):  # no RawDepth yet
        dataset_settings(PRESETS["nyu-raw"], tmp_path)


def test_tiles_of_the_usual_form_come_first(tmp_path):
    write_gamus(tmp_path)
    write_gamus(tmp_path, hdf5=True)
    contents = look(PRESETS["gamus"], tmp_path)
    assert contents.packed is None
    assert contents.scenes[0].files["optical"] == f"{tmp_path}/images/test/DC_01_25_RGB.tif"


def test_a_folder_that_cannot_be_written(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    (tmp_path / UNPACKED).write_text("a file")
    with pytest.raises(
        OutputError, match=r"Rasters are unpacked beside the data\. Link the files into a folder of you"
    ):
        unpack_dataset(PRESETS["gamus"], tmp_path)


def test_a_pipe_that_closes_is_no_damage_of_a_file(tmp_path):
    write_gamus(tmp_path, hdf5=True)

    def closed(done, total):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        unpack_dataset(PRESETS["gamus"], tmp_path, on_progress=closed)
    assert len(todo("gamus", tmp_path)) == 17  # the first raster is complete and noted


def test_a_full_disk_is_no_damage_of_a_file(tmp_path, monkeypatch):
    write_gamus(tmp_path, hdf5=True)

    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rasterio.io.DatasetWriter, "write", full)
    with pytest.raises(OutputError, match=r"\.tif: cannot be written \(No space left on device\)\.$"):
        unpack_dataset(PRESETS["gamus"], tmp_path)


@pytest.mark.parametrize(("name", "writer"), [("nyu", write_nyu_file), ("gamus", write_gamus)])
def test_without_h5py_a_message_names_the_extra(name, writer, tmp_path, monkeypatch):
    writer(tmp_path, **({"hdf5": True} if name == "gamus" else {}))
    without_h5py(monkeypatch)
    with pytest.raises(ConfigError) as error:
        dataset_settings(PRESETS[name], tmp_path)
    assert str(error.value).endswith(
        'expected h5py to read it, which is not installed. Install it: pip install "geocrodino[hdf5]"'
    )


def test_the_record_holds_a_line_for_each_raster(tmp_path):
    write_gamus(tmp_path, hdf5=True)
    unpack_dataset(PRESETS["gamus"], tmp_path)
    lines = (tmp_path / UNPACKED / "unpacked.jsonl").read_text().splitlines()
    assert len(lines) == 18
    assert set(json.loads(lines[0])) == {"raster", "key"}
