"""`benchmarks/many_tiles.py`: the tiles that it writes, and its tables. Its measurements are a slow test."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from geocrodino import load_config
from geocrodino.training.scenes import list_scenes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def many_tiles(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("many_tiles")
    for name in ("many_tiles", "measured"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("apart", "step", "scenes"), [(False, 128, 1), (True, 1000, 5)])
def test_tiles_lie_side_by_side_or_are_scenes_of_their_own(many_tiles, tmp_path, apart, step, scenes):
    config = load_config(many_tiles.write_tiles(tmp_path, 5, apart=apart))
    assert len(list_scenes(config.data)) == scenes
    # Five tiles lie on a lattice three wide: the fourth is the first of the second row.
    for number, (row, col) in {0: (0, 0), 1: (0, 1), 3: (1, 0)}.items():
        for folder, kind in {"image": "uint8", "surface": "float32", "mask": "uint8"}.items():
            with rasterio.open(tmp_path / folder / f"tile_{number:06d}.tif") as file:
                assert file.shape == (256, 256)
                assert file.dtypes[0] == kind
                assert (file.bounds.left, file.bounds.top) == (300_000 + step * col, 5_000_000 - step * row)


@pytest.mark.slow
def test_few_tiles_are_measured_and_their_tables_printed(tmp_path):
    command = [sys.executable, "benchmarks/many_tiles.py", "--tiles", "40", "--apart", "--steps", "1"]
    done = subprocess.run([*command, "--seconds", "0.5"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "40 tiles of 256 px, a kilometre apart, each a scene"
    rows = {line.split(" | ")[0]: line.split(" | ") for line in lines if line.startswith("| ")}
    assert [*rows] == [
        "| work", "| `inspect`", "| start of a training", "| start again, and 2 steps", "| reader", "| geocrodino",
        "| geocrodino, `training.layers: device` on the CPU", "| torchgeo `&`, stock reading",
    ]  # fmt: skip
    assert len(rows["| `inspect`"]) == len(rows["| work"])
    assert rows["| torchgeo `&`, stock reading"][2] == "1.0"
    assert lines[8].startswith("A step on 8 patches: ")
