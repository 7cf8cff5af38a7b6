"""`benchmarks/gpu.py` itself, on the CPU and tiny sizes, so that it works when a GPU is at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(out, *checks):
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--quick", "--out", str(out), "--only", *checks]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "gpu.json").read_text())
    assert [name for name, check in found.items() if "problem" in check] == []
    return found


@pytest.mark.slow
def test_its_checks_run_on_the_cpu(tmp_path):
    found = run(tmp_path, "ceilings", "prediction", "evidence")
    assert found["prediction"]["agreement with the CPU, full"] == 1.0  # the same device, twice
    row, *by_threads = found["prediction"]["rows"]
    assert 0 < row["share of time the network runs"] < 1
    assert [each["threads"] for each in by_threads] == [1, 2]
    assert found["evidence"] == {
        "not run": "needs --real",
        "check took s": found["evidence"]["check took s"],
    }


@pytest.mark.slow
def test_its_trainings_run_on_the_cpu(tmp_path):
    found = run(tmp_path, "training")["training"]
    for row in ("single", "single, patches from files"):
        assert found[row]["patches/s"] > 0
