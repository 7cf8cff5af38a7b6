"""What the halves of the features are said to be: numbers known by hand, and a run from end to end."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from geocrodino.bundle.io import load_bundle
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.scenes import AlignedScene
from geocrodino.settings.config import load_config
from geocrodino.settings.modality import MODALITIES
from geocrodino.training.prepare import prepare

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pipeline(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "pipelines"))
    yield importlib.import_module("features")
    for name in ("features", "scoring"):
        sys.modules.pop(name, None)


def scattered(seed: int, count: int = 400):
    """Features around the axis of their class, float32 (N, 4), and the classes, of which there are four."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    return (3 * np.eye(4)[labels] + 0.3 * rng.normal(size=(count, 4))).astype(np.float32), labels


def measured(pipeline, elevation_of, specific_of=lambda optical: optical[:, ::-1]):
    """Numbers in %, the elevation features made from the optical ones."""
    samples = []
    for seed in (0, 1):
        optical, labels = scattered(seed)
        features = {}
        for m, values in (("optical", optical), ("elevation", elevation_of(optical))):
            features[m, "invariant"] = np.ascontiguousarray(values, np.float32)
            features[m, "specific"] = np.ascontiguousarray(specific_of(values), np.float32)
        samples.append(pipeline.Sample(features, labels))
    found = pipeline.measure(*samples)
    return {name: 100 * number.value for name, number in found["invariant"].items()}, found


def test_equal_features_of_both_modalities(pipeline):
    numbers, found = measured(pipeline, lambda optical: optical)
    # Whatever a probe says of a feature is right of one modality and wrong of the other, but for rounding.
    told = {name: value for name, value in numbers.items() if name.startswith("modality")}
    assert told == pytest.approx(dict.fromkeys(told, 50), abs=5)
    assert len(told) == 3
    assert all(value == 100 for name, value in numbers.items() if name.startswith(("class", "position")))
    assert {number.chance for name, number in found["specific"].items() if name.startswith("class")} == {1 / 4}
    assert {number.chance for name, number in found["specific"].items() if name.startswith("pos")} == {1 / 200}


def test_an_offset_gives_the_modality_away_until_it_is_taken_out(pipeline):
    numbers, _ = measured(pipeline, lambda optical: 2 * optical + [40, 0, 0, 0])
    assert numbers["modality, linear"] == 100
    assert numbers["modality, each standardised"] == pytest.approx(50, abs=5)
    assert numbers["modality, main components"] == pytest.approx(50, abs=5)
    assert numbers["class, elevation"] == 100
    assert numbers["class, fitted on optical, read from elevation"] == 25  # all is taken for the first
    assert numbers["class, fitted on optical, read from elevation, each standardised"] == 100


def test_modalities_of_equal_mean_and_scale_are_told_by_how_channels_go_together(pipeline):
    # The mirror image of each channel about its mean: three low and one high become three high and one low.
    numbers, _ = measured(pipeline, lambda optical: 1.5 - optical)
    assert numbers["modality, each standardised"] == 100


def test_classes_that_swap_places_are_always_mistaken(pipeline):
    numbers, _ = measured(pipeline, lambda optical: np.roll(optical, 1, axis=1))
    assert numbers["class, elevation"] == 100
    assert numbers["class, fitted on optical, read from elevation"] == 0
    assert numbers["position, optical to elevation"] == 0


@pytest.mark.parametrize(("specific", "expected"), [(lambda v: -2 * v, 100), (lambda v: v @ [[0, 1], [-1, 0]], 0)])
def test_squared_cosine_of_opposite_and_of_orthogonal_halves(pipeline, specific, expected):
    features = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    labels = np.arange(60) % 2
    halves = {"invariant": features, "specific": specific(features).astype(np.float32)}
    sample = pipeline.Sample({(m, half): v for m in MODALITIES for half, v in halves.items()}, labels)
    for half in pipeline.measure(sample, sample).values():
        for m in MODALITIES:
            assert 100 * half[f"squared cosine of the halves, {m}"].value == pytest.approx(expected, abs=1e-4)


def test_rare_classes_are_not_asked_for(pipeline):
    features, labels = scattered(0)
    kept = (labels < 3) | (np.cumsum(labels == 3) < 10)
    sample = pipeline.Sample(
        {(m, h): features[kept] for m in MODALITIES for h in ("invariant", "specific")}, labels[kept]
    )
    assert pipeline.measure(sample, sample)["invariant"]["class, optical"].chance == 1 / 3
    rare = pipeline.Sample({key: values[:30] for key, values in sample.features.items()}, sample.labels[:30])
    with pytest.raises(ValueError, match="two or more classes with 10 positions"):
        pipeline.measure(rare, rare)


def test_retrieval_of_features_without_information_is_chance(pipeline):
    same = np.ones((1000, 3), np.float32)
    assert pipeline.retrieval(same, same) == pytest.approx(1 / 200)
    first, second = np.random.default_rng(0).normal(size=(2, 4000, 8)).astype(np.float32)
    assert pipeline.retrieval(first, second) == pytest.approx(1 / 200, abs=0.004)
    assert pipeline.retrieval(first, 3 * first) == 1
    assert pipeline.retrieval(first[:7], first[:7]) == 1  # fewer than the candidates


@pytest.fixture
def ready(trained, tmp_path):
    return prepare(load_config(trained / "config.yaml"), tmp_path / "scene")


def test_features_of_windows_are_those_of_the_whole_scene(pipeline, trained, ready, monkeypatch):
    monkeypatch.setattr(pipeline, "_WINDOW_PX", 64)
    bundle = load_bundle(trained / "bundle.safetensors")
    stride = bundle.manifest.network.stride_px
    height, width = ready.grid.shape
    chosen = np.random.default_rng(0).random((height // stride, width // stride)) < 0.2
    found = pipeline.read_features(bundle, ready, chosen)
    whole = CoregisteredDataset([AlignedScene.of(ready.scenes[0].layers)], ready.specs).read((0, height, 0, width))
    fill = (0, -width % stride, 0, -height % stride)
    at = torch.from_numpy(np.pad(chosen, [(0, -height % stride > 0), (0, -width % stride > 0)]))
    for m in MODALITIES:
        output = bundle.branch(m).forward_features(torch.nn.functional.pad(whole[m], fill)[None])
        for half in ("invariant", "specific"):
            expected = getattr(output, half)[0][:, at].T.numpy()
            np.testing.assert_allclose(found[m, half], expected, atol=1e-4)


def test_cells_are_what_lies_under_a_feature(pipeline, ready):
    cells = pipeline.find_cells(ready, 8)
    indices = ready.scenes[0].layers.class_indices()
    valid = [np.isfinite(ready.scenes[0].layers.channels(m)).all(axis=0) for m in MODALITIES]
    for row, column in np.random.default_rng(0).integers(0, min(cells.labels.shape), (50, 2)):
        under = (slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        counts = np.bincount(indices[under][indices[under] != 255], minlength=len(ready.classes))
        assert cells.labels[row, column] == (counts.argmax() if counts.any() else 255)
        assert cells.seen[row, column] == all(v[under].mean() >= 0.5 for v in valid)
        assert cells.inside["train"][row, column] == ready.scenes[0].inside["train"][under].all()
    assert cells.inside["test"].any()
    assert not (cells.inside["train"] & cells.inside["test"]).any()


def test_runs_are_measured_and_drawn(pipeline, trained, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    settings = yaml.safe_load((other / "config.yaml").read_text())
    settings["training"]["seed"] = 1
    (other / "config.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(sys, "argv", ["features.py", str(trained), str(other), "--out", str(tmp_path / "out")])
    pipeline.main()
    text = (tmp_path / "out" / "features.md").read_text()
    assert text in capsys.readouterr().out
    assert "mean ± standard deviation of 2 runs" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 13
    assert all("nan" not in cell for row in rows for cell in row)
    assert (tmp_path / "out" / "features.png").read_bytes().startswith(b"\x89PNG")

    settings["method"]["auxiliary"] = 0.5
    (other / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit):
        pipeline.main()
    assert "differ in more than seed" in capsys.readouterr().err
