"""``geocrodino datasets``, and what ``train --dataset`` refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from geocrodino.cli.datasets import _REPLACED, dataset_values
from geocrodino.errors import ConfigError
from geocrodino.presets.catalogue import PRESETS
from tests.helpers.data_sets import write_gamus, write_geonrw, write_nyu_file, write_potsdam


def test_all_data_sets_are_listed(run_cli, tmp_path):
    write_geonrw(tmp_path / "geonrw")
    write_gamus(tmp_path / "gamus", hdf5=True)
    code, told, errors = run_cli("datasets", "--root", tmp_path)
    assert code == 0, errors
    assert [name for name in PRESETS if re.search(rf"^{name}\s", told, re.MULTILINE)] == list(PRESETS)
    lines = told.splitlines()
    below = {
        name: lines[i + 1].strip() for i, line in enumerate(lines) for name in PRESETS if line.startswith(f"{name} ")
    }
    assert below["geonrw"] == "10 classes; licence: CC-BY-4.0; there: train 2, val 2, test 2"
    assert below["gamus"] == "7 classes; licence: CC-BY-4.0; there: train 2, val 2, test 2"
    assert below["mid-air"] == "classes as found; licence: see the source; not there"


def test_one_data_set_is_described(run_cli, tmp_path):
    write_potsdam(tmp_path, ("2_10", "4_10"))
    code, told, errors = run_cli("datasets", "potsdam", "--root", tmp_path)
    assert code == 0, errors
    assert "elevation: dsm_potsdam_{row}_{col}.tif" in told
    assert "██ #0000ff  building" in told
    assert "evaluate MAPS --config RUN/config.yaml --split test --erode-px 3 --exclude clutter" in told
    assert "left out: 7_10 (parts of its labels are wrong)" in told
    assert f"In {tmp_path}: files of optical 2, elevation 2, labels 2\nScenes: train 1, val 1\n" in told
    assert "Missing: Not there: 2_12, 5_11, 7_8, 2_11, 3_10 and 30 more." in told


def test_files_are_unpacked_and_described(run_cli, tmp_path):
    write_nyu_file(tmp_path)
    code, told, errors = run_cli("datasets", "nyu", "--root", tmp_path)
    assert code == 0, errors
    assert f"In {tmp_path}: files of optical 5, elevation 5, labels 5\nScenes: train 2, val 2, test 1\n" in told
    assert f"Unpacked in {tmp_path}/geocrodino-unpacked: 0 of 15\n" in told
    code, told, errors = run_cli("datasets", "nyu", "--root", tmp_path, "--unpack")
    assert code == 0, errors
    assert told.startswith(
        f"Unpacking 15 rasters into {tmp_path}/geocrodino-unpacked: at most 92,160 bytes to write.\n"
    )
    assert f"Unpacked in {tmp_path}/geocrodino-unpacked: 15 of 15\nMissing: nothing\n" in told


def test_files_that_cannot_be_unpacked(run_cli, tmp_path):
    write_nyu_file(tmp_path, classes=False)
    assert (
        "40 classes; licence: see the source; there, but cannot be unpacked"
        in run_cli("datasets", "--root", tmp_path)[1]
    )
    code, told, _ = run_cli("datasets", "nyu", "--root", tmp_path)
    assert code == 0
    assert "classMapping40.mat, which says the class of each of them, is not in the same data set." in told
    code, _, errors = run_cli("datasets", "--unpack", "--root", tmp_path)
    assert code == 2
    assert "--unpack: expected the name of a data set and its folder (--root) beside it." in errors


def test_a_dry_run_does_not_unpack(run_cli, tmp_path):
    write_gamus(tmp_path, hdf5=True)
    code, _, errors = run_cli("train", "--dataset", "gamus", "--root", tmp_path, "--dry-run")
    assert code == 2
    assert f"Unpack them first: geocrodino datasets gamus --root {tmp_path} --unpack\n" in errors
    assert "unpack_dataset" not in errors
    assert not (tmp_path / "geocrodino-unpacked").exists()


def test_inspect_makes_the_checks_of_a_training_on_a_data_set(run_cli, tmp_path):
    write_geonrw(tmp_path)
    options = ("--dataset", "geonrw", "--root", tmp_path, "--patch-px", 32)
    code, told, errors = run_cli("inspect", *options)
    assert code == 0, errors
    assert "Reading 6 scenes." in told
    assert told.endswith("These files fit together.\n")
    (tmp_path / "bochum" / "310_5700_seg.tif").write_bytes(b"no raster")
    code, told, errors = run_cli("inspect", *options)
    assert code == 2
    assert "310_5700_seg.tif" in told + errors


def test_inspect_does_not_unpack(run_cli, tmp_path):
    write_gamus(tmp_path, hdf5=True)
    code, _, errors = run_cli("inspect", "--dataset", "gamus", "--root", tmp_path)
    assert code == 2
    assert f"Unpack them first: geocrodino datasets gamus --root {tmp_path} --unpack\n" in errors


def test_an_unknown_data_set(run_cli):
    code, _, errors = run_cli("datasets", "geonwr")
    assert code == 2
    assert "geonwr: expected the name of a data set" in errors
    assert "Did you mean geonrw?" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset", "potsdam"), "--dataset potsdam: expected the folder of the data set beside it: --root."),
        (("--root", "data"), "--root data: expected the name of the data set in it beside it: --dataset."),
        (
            ("--dataset", "potsdam", "--root", "data", "--labels", "mine.tif"),
            "--labels: the data set potsdam decides it already, found mine.tif beside it. Leave one of them out.",
        ),
        (
            ("--dataset", "potsdam", "--root", "nowhere"),
            "nowhere: expected the folder of potsdam, found none. Check --root.",
        ),
    ],
)
def test_what_train_refuses(words, message, run_cli, here):
    code, _, errors = run_cli("train", *words)
    assert code == 2
    assert message in errors


def test_without_a_data_set_nothing_changes():
    given = {"data.optical": "a.tif", "training.seed": None}
    assert dataset_values(None, None, given) == given


@pytest.mark.parametrize("key", _REPLACED)
def test_every_key_that_a_data_set_decides_is_refused(key):
    with pytest.raises(ConfigError, match="decides it already"):
        dataset_values("nyu", Path(), {key: "x"})


def test_other_options_come_after_those_of_the_data_set(tmp_path):
    write_potsdam(tmp_path, ("2_10", "4_10"))
    values = dataset_values("potsdam", tmp_path, {"data.resolution_m": 0.2, "training.seed": None})
    assert list(values) == ["data", "classes", "data.resolution_m"]


def test_assumed_values_are_marked(run_cli):
    code, told, _ = run_cli("datasets", "us3d")
    assert code == 0
    assert "Assumed: Pixels of 0.35 m: the files state no size, and it varies with the angle of view." in told
    assert "Other values: train --pixel-size and --height-scale, or config.yaml of a run" in told
    assert "Assumed:" not in run_cli("datasets", "geonrw")[1]
