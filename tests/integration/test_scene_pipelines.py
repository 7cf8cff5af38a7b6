"""Scores of scenes from the image, the heights and both: `pipelines/real_scenes.py`, `pipelines/unseen_towns.py`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pipeline(monkeypatch):
    """Import a script of pipelines/ together with those that it uses."""
    monkeypatch.syspath_prepend(str(ROOT / "pipelines"))
    yield importlib.import_module
    for name in ("real_scenes", "unseen_towns", "fragments", "trainings", "tables"):
        sys.modules.pop(name, None)


def test_pixels_of_all_towns_count_together(pipeline):
    first, second = np.zeros((5, 6), np.int64), np.zeros((5, 6), np.int64)
    first[0, 0] = 1  # right
    first[0, 5] = 1  # without a class in the map
    second[0, 1] = 1  # wrong
    towns = [{"image|all": table, "image|same": table[:, :5]} for table in (first, second)]
    record = pipeline("unseen_towns")._record("image", [towns])
    assert record["pixels"] == 3
    assert record["miou"] == [50.0]  # class 0: 1 of 2 pixels with a class
    assert record["miou_same_pixels"] == [50.0]
    assert record["no_class"] == [pytest.approx(100 / 3)]
    assert record["miou_by_town"] == [100.0, 0.0]
    assert record["iou"]["ground"] == [50.0]


def test_a_bundle_is_scored_on_a_town_once(pipeline, trained, tmp_path, monkeypatch):
    towns = pipeline("unseen_towns")
    tables = []
    for _ in range(2):
        towns.write_unseen_towns([trained / "bundle.safetensors"], [101], tmp_path / "out", tmp_path / "t", size_m=96)
        tables.append((tmp_path / "t" / "unseen-towns.md").read_text())
        monkeypatch.setattr(towns, "predict", None)  # the second time must not predict
    assert tables[0] == tables[1]
    found = json.loads((tmp_path / "t" / "unseen-towns.json").read_text())
    assert [row["from"] for row in found["rows"]] == ["image", "heights", "both"]
    image, heights, both = ({**row} for row in found["rows"])
    assert both["no_class"][0] <= min(image["no_class"][0], heights["no_class"][0])  # one fills the holes of the other
    assert image["pixels"] == heights["pixels"] == both["pixels"]


@pytest.mark.slow
def test_a_finished_run_is_kept_until_its_settings_change(pipeline, tiny_config, tmp_path):
    scenes = pipeline("real_scenes")
    trainings = []
    for epochs in (1, 1, 2):
        config = tiny_config({"training.epochs": epochs})
        result = scenes.network_result(config, tmp_path / "run", scenes.labels_to_score_on(config))
        trainings.append((tmp_path / "run" / "trained.json").stat().st_mtime_ns)
        assert set(result.seconds) == {"image", "heights", "both"}
        (scores,) = result.scores.values()
        assert len({each.scores.pixels for each in scores.common.values()}) == 1
    assert trainings[0] == trainings[1] != trainings[2]


def test_the_compact_tables_of_a_study_hold_scores_and_differences(pipeline):
    tables = pipeline("tables")

    def row(method, right):
        counts = np.array([[[right, 10 - right], [0, 10]]])  # IoU of class 0: right / 10, of class 1: 10 / (20 - right)
        result = {
            "settings": {"training": {"seed": 0}},
            "test_miou": {"optical|labels": (right / 10 + 10 / (20 - right)) / 2},
            "val_miou": {"optical": 0.5},
            "minutes": 2.0,
        }
        return tables.Row("Zion", method, [result], [{"optical|labels": counts}])

    lines, records = tables.compact_tables("single", [row("single", 0), row("mutual", 10)])
    assert lines == [
        "| method | branches | val | test |",
        "|---|---|---|---|",
        "| mutual | 1 | +0.0 (+0.0 to +0.0) | +75.0 (+75.0 to +75.0) |",
        "",
        "| scene | scored on | method | seeds | image | minutes |",
        "|---|---|---|---|---|---|",
        "| Zion | labels | single | 1 | 25.0 | 2.0 |",
        "| Zion | labels | mutual | 1 | 100.0 (+75.0) | 2.0 |",
        "",
        "mIoU in % on `test`, mean ± standard deviation over seeds; in brackets the difference from `single`.",
    ]
    assert [record["difference"] for record in records] == [None, 75.0]
    json.dumps(records, allow_nan=False)
