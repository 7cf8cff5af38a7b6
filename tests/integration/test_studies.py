"""Plans of studies, fewer labels, scores by blocks and paired differences."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml
from rasterio.features import geometry_mask

from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.models.branch import build_branch, receptive_field_radius_px
from geocrodino.settings.config import load_config
from geocrodino.settings.network import NetworkSettings
from geocrodino.training import number_format

ROOT = Path(__file__).parents[2]
PLANS = sorted((ROOT / "configs" / "studies").glob("*.yaml"))


@pytest.fixture
def pipeline(monkeypatch):
    """Import a script of pipelines/ together with those that it uses."""
    monkeypatch.syspath_prepend(str(ROOT / "pipelines"))
    yield importlib.import_module
    for name in ("study", "tables", "scoring", "fewer_labels", "budgets", "fragments", "trainings"):
        sys.modules.pop(name, None)


def test_the_margin_of_the_scores_holds_all_that_the_default_network_sees(pipeline):
    scoring = pipeline("scoring")
    branch = build_branch(NetworkSettings(), 3, 2).eval()
    assert receptive_field_radius_px(branch, 3) <= scoring._MARGIN_PX
    assert scoring._MARGIN_PX % 32 == 0


@pytest.mark.parametrize("path", PLANS, ids=[p.stem for p in PLANS])
def test_every_run_of_a_plan_has_settings_that_can_be_used(path, pipeline, monkeypatch, tmp_path, town):
    study = pipeline("study")
    monkeypatch.setenv("GEOCRODINO_REAL_DATA", str(tmp_path))
    monkeypatch.setattr(study.Run, "town", lambda self: town.config)
    plan = study.Plan.model_validate(yaml.safe_load(path.read_text()))
    runs = list(study._runs(path, plan, tmp_path))
    assert plan.baseline in plan.methods
    assert len(runs) == sum(len(plan.seeds_of(scene, m)) for scene in plan.scenes for m in plan.methods)
    settings = {f"{r.config()} {r.labels()}" for r in runs}
    assert len(settings) == len(runs)  # no two runs are the same
    for run in runs:
        assert run.config().training.seed == run.seed
        assert "$" not in str(run.config().data.labels)
        assert (run.teacher() is None) or run.teacher().config().method.name == "fusion"
    if path.stem == "methods":
        taught = next(r for r in runs if r.method == "kd")
        assert taught.teacher().method == "middle fusion"


@pytest.mark.parametrize(("has", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_all_runs_of_a_study_have_one_number_format(pipeline, monkeypatch, tmp_path, town, has, expected):
    study = pipeline("study")
    monkeypatch.setattr(number_format, "has_bfloat16", lambda _: has)
    methods = {"as the plan": {}, "its own": {"training.precision": "64-true"}}
    asked = {"training.precision": "auto"}
    plan = study.Plan(
        title="t", scenes={"a": {"config": str(town.config)}}, methods=methods, baseline="its own", set=asked
    )
    for precision, found in ((None, expected), ("16-mixed", "16-mixed")):
        chosen = study.in_one_format(plan, precision)
        first, second = (study.Run(tmp_path / "plan.yaml", chosen, "a", method, 0, tmp_path) for method in methods)
        assert (first.config().training.precision, second.config().training.precision) == (found, "64-true")
        words = first.command()
        assert words[words.index("--precision") + 1] == found  # a worker elsewhere does not choose again


@pytest.mark.slow
def test_a_plan_runs_once_and_tells_what_it_found(town, tiny, tmp_path):
    sections = {"encoder_weights": {}} | {
        f"{section}.{k}": v for section, keys in tiny.items() for k, v in keys.items()
    }
    plan = {
        "title": "Tiny",
        "set": sections,
        "scenes": {"town": {"config": str(town.config)}, "few": {"config": str(town.config), "label_share": 0.2}},
        "methods": {
            "single": {"method.name": "single"},
            "kd": {"method.name": "kd"},
            "teacher": {"method.name": "fusion"},
        },
        "seeds": 1,
        "baseline": "single",
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    line = [sys.executable, str(ROOT / "pipelines" / "study.py"), str(path), "--out", str(tmp_path / "out")]
    first = subprocess.run([*line, "--only", "town"], capture_output=True, text=True, check=True)
    assert first.stdout.splitlines()[0] == "Number format: 32-true"
    assert "3/3 town/kd seed 0: done" in first.stdout  # its teacher comes before it
    again = subprocess.run([*line, "--only", "town/single"], capture_output=True, text=True, check=True)
    assert "done" not in again.stdout
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| method | seeds | optical | elevation | fusion |" in table
    assert "\nNumber format of the trainings: 32-true.\n" in table
    overview, rows = table.split("### town, scored on labels")
    assert overview.splitlines()[-2].startswith("| kd | 2 | ")
    assert [row.split(" | ")[0] for row in rows.splitlines() if row.startswith("| ")][1:] == [
        "| single",
        "| kd",
        "| teacher",
    ]
    with np.load(tmp_path / "out" / "town" / "single" / "seed0" / "blocks.npz") as blocks:
        counts = blocks["optical|labels"].sum()
    with rasterio.open(town.labels) as labels:
        area = read_aoi(town.aoi).to_crs(labels.crs.to_wkt()).polygons("test")
        inside = geometry_mask([area], labels.shape, labels.transform, invert=True)
        labelled = (labels.read(1) != 255) & inside
    assert counts == pytest.approx(labelled.sum(), rel=0.02)  # pixels cut by the polygon's edge do not count
    assert (tmp_path / "out" / "results.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_cluster_runs_a_plan(town, tiny, tmp_path):
    distributed = pytest.importorskip("distributed")
    sections = {"encoder_weights": {}} | {
        f"{section}.{k}": v for section, keys in tiny.items() for k, v in keys.items()
    }
    methods = {"single": {"method.name": "single"}}
    plan = {"title": "Tiny", "set": sections, "scenes": {"town": {"config": str(town.config)}}, "methods": methods}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({**plan, "seeds": 2, "baseline": "single"}))
    line = [sys.executable, str(ROOT / "pipelines" / "study.py"), str(path), "--out", str(tmp_path / "out")]
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        ran = subprocess.run(
            [*line, "--scheduler", cluster.scheduler_address], capture_output=True, text=True, check=True
        )
    assert "2/2 town/single seed 1: done" in ran.stdout
    assert "| single | 2 |" in (tmp_path / "out" / "results.md").read_text()


def test_a_scene_may_have_other_seeds_than_the_plan(pipeline, tmp_path):
    study = pipeline("study")
    plan = {
        "title": "",
        "methods": {"a": {}, "b": {"method.name": "single"}},
        "baseline": "a",
        "seeds": {"a": 2, "b": 1},
    }
    made = study.Plan.model_validate({**plan, "scenes": {"one": {}, "two": {"seeds": {"a": 1, "b": 0}}}})
    runs = [(r.scene, r.method, r.seed) for r in study._runs(tmp_path / "plan.yaml", made, tmp_path)]
    assert runs == [("one", "a", 0), ("one", "b", 0), ("two", "a", 0), ("one", "a", 1)]
    with pytest.raises(ValueError, match="seeds of a scene: expected methods of the plan, found c"):
        study.Plan.model_validate({**plan, "scenes": {"one": {"seeds": {"c": 1}}}})
    with pytest.raises(ValueError, match="scene one: expected at least one seed of the baseline a, found 0"):
        study.Plan.model_validate({**plan, "scenes": {"one": {"seeds": {"a": 0}}}})


def test_differences_are_paired_and_drawn_by_blocks(pipeline):
    tables = pipeline("tables")
    right, half = np.array([[10, 0], [0, 10]]), np.array([[10, 0], [10, 0]])

    def row(name, *blocks):
        results = [{"settings": {"training": {"seed": s}}} for s in range(len(blocks))]
        return tables.Row("scene", name, results, [{"optical|labels": np.array(b)} for b in blocks])

    base = row("single", [right, right, right])
    assert tables.paired_difference(base, base, "optical|labels")[0] == 0
    worse = row("worse", *[[half] * 3] * 3)  # IoU 0.5 and 0
    good = row("good", *[[right] * 3] * 3)
    assert tables.paired_difference(worse, good, "optical|labels") == pytest.approx((-75, -75, -75))
    mean, low, high = tables.paired_difference(row("mixed", [right, half, right]), base, "optical|labels")
    assert mean == pytest.approx(-100 * (1 - (30 / 40 + 20 / 30) / 2))
    assert np.isnan([low, high]).all()  # one seed says nothing of the noise between seeds
    blocks = [right, half, right]
    mean, low, high = tables.paired_difference(
        row("mixed", blocks, blocks, blocks), row("single", *[[right] * 3] * 3), "optical|labels"
    )
    assert low < mean < high
    assert high == 0  # draws that leave the bad block out


def test_a_share_of_the_labels_keeps_every_class_and_other_splits(town, pipeline, tmp_path):
    config = load_config(town.config)
    path = pipeline("fewer_labels").write_share(config, 0.1, 0, tmp_path / "few.tif")
    with rasterio.open(town.labels) as before, rasterio.open(path) as after:
        area = read_aoi(town.aoi).to_crs(before.crs.to_wkt()).polygons("train")
        train = ~geometry_mask([area], before.shape, before.transform)
        old, new = before.read(1), after.read(1)
    assert (new[~train] == old[~train]).all()
    kept = new[train] != 255
    assert (new[train][kept] == old[train][kept]).all()
    assert set(np.unique(new[train][kept])) == set(np.unique(old[train & (old != 255)]))
    labelled = (old[train] != 255).sum()
    assert 0.1 <= kept.sum() / labelled < 0.1 + 5 * 64**2 / labelled  # whole squares, the last may be one too many
    assert pipeline("fewer_labels").write_share(config, 0.1, 0, tmp_path / "same.tif").read_bytes() == path.read_bytes()
    content = path.read_bytes()
    for older, taken in ((False, True), (True, False)):  # made from labels that have changed since, or not
        path.write_bytes(b"made before")
        os.utime(path, None if not older else (0, 0))
        pipeline("fewer_labels").write_share(config, 0.1, 0, path)
        assert path.read_bytes() == (b"made before" if taken else content)


def test_a_corner_keeps_its_share_and_the_rest_is_unlabelled(town, pipeline, tmp_path):
    config = load_config(town.config)
    path = pipeline("fewer_labels").write_corner(config, 0.25, tmp_path / "corner.gpkg")
    before, after = read_aoi(town.aoi), read_aoi(path)
    assert set(after.splits) == {*before.splits, "unlabelled"}
    whole, part, rest = before.polygons("train"), after.polygons("train"), after.polygons("unlabelled")
    assert part.area == pytest.approx(0.25 * whole.area, rel=1e-6)
    assert part.area + rest.area == pytest.approx(whole.area, rel=1e-6)
    assert part.bounds[2] <= rest.bounds[0] + 1e-9
    assert gpd.read_file(path)["split"].tolist()[:2] == ["train", "unlabelled"]


def test_the_scripts_of_studies_need_nothing_but_each_other(tmp_path):
    for name in ("study.py", "tables.py", "scoring.py", "fewer_labels.py", "trainings.py", "fragments.py", "spread.py"):
        shutil.copy(ROOT / "pipelines" / name, tmp_path)
    line = [sys.executable, str(tmp_path / "study.py"), "--help"]
    assert "--scheduler" in subprocess.run(line, capture_output=True, text=True, check=True).stdout


def test_overview_by_hand(pipeline):
    tables = pipeline("tables")

    def row(scene, method, *results):
        found = [
            {
                "settings": {"training": {"seed": seed}},
                "val_miou": {"optical": val},
                "test_miou": {"optical|labels": test},
            }
            for seed, val, test in results
        ]
        return tables.Row(scene, method, found, [])

    rows = [
        row("a", "single", (0, 0.50, 0.40), (1, 0.60, 0.50)),
        row("a", "other", (1, 0.63, 0.49)),  # of the second seed alone: +3 and -1
        row("b", "single", (0, 0.20, 0.20)),
        row("b", "other", (0, 0.21, 0.25)),  # +1 and +5
        row("c", "other", (0, 0.90, 0.90)),  # nothing to compare with
    ]
    assert tables._val(rows[0], "optical") == "55.0 ± 7.1"  # 50 and 60: the root of 50
    assert tables._overview("single", rows)[-2] == "| other | 2 | +2.0 (+1.0 to +3.0) | +2.0 (-1.0 to +5.0) |"


def test_gains_of_classes(pipeline):
    """Two seeds with 10 pixels of each of two classes; the third one is in no label."""
    tables = pipeline("tables")
    settings = {"classes": [{"name": name} for name in ("road", "tree", "water")]}

    def row(method, *hits):
        counts = [np.array([[h, 10 - h, 0], [0, 10, 0], [0, 0, 0]]) for h in hits]
        results = [{"settings": {**settings, "training": {"seed": seed}}} for seed in range(len(hits))]
        return tables.Row("a", method, results, [{"optical|labels": c[None]} for c in counts])

    # Of 10 pixels of road, 5 and 10 are found: IoU 50 and 100; tree is mapped there instead: 10/15 and 10/10.
    rows = [row("single", 5, 10), row("crodino", 10, 10)]
    assert tables.class_table("single", rows)[2:] == ["| a | crodino | image | road +25.0, tree +16.7 |"]


def test_scores_by_budget(pipeline, tmp_path, capsys):
    budgets = pipeline("budgets")
    for seed, miou in ((0, 0.5), (1, 0.75)):
        folder = tmp_path / "town" / "long" / f"seed{seed}"
        folder.mkdir(parents=True)
        result = {
            "scoring": budgets.SCORING,
            "training": budgets.TRAINING,
            "settings": {"training": {"epochs": 3, "steps_per_epoch": 40}},
            "val_miou": {"optical": miou},
            "test_miou": {"optical|labels": miou / 2, "optical|hand points": 0.0},
        }
        (folder / "result.json").write_text(json.dumps(result))
    found = budgets.read_runs(tmp_path)
    assert found == {"town": {("optical", "val"): {120: [50.0, 75.0]}, ("optical", "test"): {120: [25.0, 37.5]}}}
    budgets.draw(found, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000
    shutil.copytree(tmp_path / "town" / "long", tmp_path / "town" / "other")
    with pytest.raises(ValueError, match="long and other of town both have 120 steps"):
        budgets.read_runs(tmp_path)
    earlier = tmp_path / "town" / "other" / "seed0" / "result.json"
    earlier.write_text(json.dumps(json.loads(earlier.read_text()) | {"training": budgets.TRAINING - 1}))
    shutil.rmtree(tmp_path / "town" / "other" / "seed1")
    capsys.readouterr()
    assert budgets.read_runs(tmp_path) == found
    assert capsys.readouterr().out == (
        f"{earlier.parent}: left out, trained or scored by an earlier version; pipelines/study.py repeats it\n"
    )
