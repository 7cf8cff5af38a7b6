"""Commands at work: what they choose by default, what they say."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from geocrodino.cli.predict import newest_bundle
from geocrodino.cli.progress import _Lines, duration, progress
from geocrodino.cli.scene_scores import _print_whole
from geocrodino.errors import BundleError
from geocrodino.settings.config import load_config
from geocrodino.settings.prediction import Execution
from geocrodino.training.checks import check_inputs


@pytest.fixture(scope="module")
def class_map(trained, town, tmp_path_factory):
    from geocrodino.bundle.io import load_bundle
    from geocrodino.prediction.engine import predict

    out = tmp_path_factory.mktemp("maps") / "map.tif"
    predict(town.optical, out, load_bundle(trained / "bundle.safetensors"), "optical", execution=Execution(workers=1))
    return out


def touch(path, seconds):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    os.utime(path, (seconds, seconds))
    return path


def test_the_newest_bundle(here):
    with pytest.raises(BundleError, match="no bundle under "):
        newest_bundle(Path("runs"))
    touch(Path("runs/a/bundle.safetensors"), 300)
    newest = touch(Path("runs/deep/b/bundle.safetensors"), 900)
    touch(Path("runs/c/bundle.safetensors"), 600)
    touch(Path("runs/d/.bundle.safetensors.x1.part/bundle.safetensors"), 999)  # left by a process that was killed
    assert newest_bundle(Path("runs")) == newest


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_for_people(seconds, told):
    assert duration(seconds) == told


def test_progress_in_a_log_is_a_line_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("geocrodino.cli.progress.time.monotonic", lambda: now[0])
    with progress(Console(highlight=False), "Working") as advance:
        assert isinstance(advance, _Lines)
        for done in range(5):
            now[0] = 4.0 * done
            advance(done, 10)
    assert capsys.readouterr().out == "Working: 3 of 10, about 28 s left\n"


def test_lines_are_never_broken(run_cli, town, here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    folder = Path("a folder [with] a name that is much longer than a terminal is wide")
    code, out, _ = run_cli("sample", folder, "--size-m", "96")
    assert code == 0
    assert out.splitlines() == [
        str(folder / n) for n in ("optical.tif", "dsm.tif", "dtm.tif", "labels.tif", "aoi.geojson", "geocrodino.yaml")
    ]


def test_inspecting_a_study(run_cli, town, here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    code, out, err = run_cli("inspect", "--config", town.config, "--patch-px", 32)
    assert (code, err) == (0, "")
    assert out.endswith("These files fit together.\n")
    checked = check_inputs(load_config(town.config, {"training.patch_px": 32}))
    grid = checked.scenes[0].grid  # the part of the image that the area covers
    assert f"\nGrid: {grid.shape[0]} rows x {grid.shape[1]} columns at 0.5 m, EPSG:32631, " in out
    assert "Working grid" not in out
    assert "\nImage 0.5 m, heights 1 m, labels 0.5 m: works at 0.5 m, the pixel size of the image. Heights are " in out
    px, labelled = checked.split_px(), checked.labelled_px()
    assert (
        "\nPixels: "
        + ", ".join(f"{px[split]:,} {split} ({labelled[split]:,} with a label)" for split in ("train", "val"))
        in out
    )
    assert re.search(r"\nPixels of test: [\d,]+\n", out)
    assert "building" in out


def test_inspecting_one_file(run_cli, town, here):
    code, out, _ = run_cli("inspect", "--elevation", town.elevation)
    assert code == 0
    assert "heights in metre, by the band's unit tag" in out
    assert out.endswith("This file can be read.\n")


def test_maps_of_one_name_keep_their_own_scores(run_cli, class_map, town, here):
    for folder in ("first", "second"):
        Path(folder).mkdir()
        shutil.copy(class_map, f"{folder}/map.tif")
    code, _, err = run_cli("evaluate", "first/map.tif", "second/map.tif", "--labels", town.labels, "--out", "scores")
    assert (code, err) == (0, "")
    assert sorted(p.name for p in Path("scores").iterdir()) == [
        "comparison.json", "comparison.png", "first-map.scores.json", "first-map.scores.png", "second-map.scores.json",
        "second-map.scores.png",
    ]  # fmt: skip
    assert json.loads(Path("scores/second-map.scores.json").read_text())["map"] == "second/map.tif"


def test_a_map_named_twice_is_evaluated_once(run_cli, class_map, town, here):
    code, _, err = run_cli("evaluate", class_map, class_map, "--labels", town.labels, "--out", "scores")
    assert (code, err) == (0, "")
    assert sorted(p.name for p in Path("scores").iterdir()) == ["map.scores.json", "map.scores.png"]


def test_left_out_values_and_missing_pixels(run_cli, class_map, town, here):
    def scores(*words):
        code, _, err = run_cli("evaluate", class_map, "--labels", town.labels, "--out", "scores", *words)
        assert (code, err) == (0, "")
        return json.loads(Path("scores/map.scores.json").read_text())

    everything, without = scores(), scores("--ignore", "0", "--ignore", "1")
    assert [s == 0 for s in without["scores"]["support"]] == [True, True, False, False, False]
    assert without["scores"]["support"][2:] == everything["scores"]["support"][2:]
    assert scores("--count-missing")["missed_count_as_wrong"] is True


def test_ctrl_c_is_told(run_cli, town, here, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("geocrodino.town.write.write_scene", stopped)
    code, out, err = run_cli("sample", "town")
    assert (code, out) == (130, "")
    assert err == "Stopped. Unfinished results are not written.\n"


def test_settings_of_an_inspection_are_checked_as_those_of_a_training(run_cli, town, here):
    files = ("--optical", town.optical, "--elevation", town.elevation, "--labels", town.labels, "--aoi", town.aoi)
    code, out, err = run_cli("inspect", *files, "--patch-px", 16)
    assert (code, out) == (2, "")
    assert err == (
        "Error: the given configuration cannot be used:\n"
        "  training.patch_px: input should be greater than or equal to 32, found 16\n"
    )


def test_a_table_in_a_file_is_as_wide_as_it_needs():
    table, file = Table(), io.StringIO()
    for number in range(12):
        table.add_column(f"class {number} IoU %")
    table.add_row(*[f"{number}3,456" for number in range(12)])
    _print_whole(table, Console(file=file, width=80))
    assert "…" not in file.getvalue()
    assert all(f"{number}3,456" in file.getvalue() for number in range(12))
