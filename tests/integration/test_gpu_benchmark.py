"""`benchmarks/gpu.py` itself, on the CPU and tiny sizes, so that it works when a GPU is at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_its_checks_run_on_the_cpu(tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--only", "ceilings", "prediction", "training", "evidence"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [name for name, check in found.items() if "problem" in check] == []
    assert found["prediction"]["agreement with the CPU, full"] == 1.0  # the same device, twice
    (row,) = found["prediction"]["rows"]
    assert 0 < row["share of time the network runs"] < 1
    assert found["training"]["single"]["patches/s"] > 0
    assert found["evidence"] == {
        "not run": "needs --real and --weights",
        "check took s": found["evidence"]["check took s"],
    }
