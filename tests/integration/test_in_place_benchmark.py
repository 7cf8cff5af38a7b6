"""`benchmarks/in_place.py`: its tables on small files. Its measurements are a slow test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_small_files_are_read_in_both_ways(tmp_path):
    command = [sys.executable, "benchmarks/in_place.py", "--size-px", "2048", "--tiles", "20", "--rounds", "1"]
    done = subprocess.run([*command, "--seconds", "0.5"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, _, *rows = (line.strip("| ").split(" | ") for line in done.stdout.splitlines())
    assert [row[1] for row in rows] == [
        "copied", "in place", "in place, 16 MB of blocks", "copied", "in place", "in place, 16 MB of blocks", "copied",
        "in place",
    ]  # fmt: skip
    assert {len(row) for row in rows} == {len(head)}
    # Copies hold three bands and two channels of heights, float32, and labels of a byte; in place, labels alone.
    layers = [row[6] for row in rows]
    copied, labels = (f"{2048**2 * size / 1e6:.0f}" for size in (21, 1))
    assert layers[:6] == [copied, labels, labels] * 2
