"""Measure the cost of a training step with each method: processor time, relative to `single`.

    python benchmarks/training.py

Trains on a generated town with the default network and one thread, in processes that take turns. The time of a step is
the difference between two epochs and one, validation included, divided by the steps of an epoch; it includes the steps
of a teacher. The ratio is the median over rounds. The number format is bf16-mixed if the processor has bfloat16, else
32-true; it is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from geocrodino.settings.config import load_config
from geocrodino.town.write import ScenePaths, write_scene
from geocrodino.training import number_format
from geocrodino.training.run import train

PLAN = Path(__file__).parents[1] / "configs" / "studies" / "methods.yaml"
METHODS: dict[str, dict[str, Any]] = yaml.safe_load(PLAN.read_text())["methods"]


def seconds(scene: Path, method: str, epochs: int, steps: int) -> float:
    """Measure one training in its own process.

    Args:
        scene: Folder of the generated scene.
        method: Name of the method in the plan of the method study.
        epochs: Number of epochs.
        steps: Steps of an epoch.

    Returns:
        Processor seconds.
    """
    child = [sys.executable, __file__, "--child", str(scene), method, str(epochs), str(steps)]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: float = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run_child(scene: str, method: str, epochs: str, steps: str) -> None:
    """Train once and print the processor seconds.

    Args:
        scene: Folder of the generated scene.
        method: Name of the method in the plan of the method study.
        epochs: Number of epochs.
        steps: Steps of an epoch.
    """
    torch.set_num_threads(1)
    changes = {
        **METHODS[method],
        "training.epochs": int(epochs),
        "training.steps_per_epoch": int(steps),
        "training.patch_px": 96,
        "training.precision": "auto",
    }
    config = load_config(ScenePaths.within(Path(scene)).config, changes)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        train(config, Path(folder) / "run")
        print(json.dumps(time.process_time() - started))


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=40, help="steps of an epoch")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(*options.child)
        return
    methods = dict.fromkeys(["single", *options.methods])
    costs: dict[str, list[float]] = {method: [] for method in methods}
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder) / "town")
        for _ in range(options.rounds):
            for method in methods:
                one, two = (seconds(Path(folder) / "town", method, epochs, options.steps) for epochs in (1, 2))
                costs[method].append((two - one) / options.steps)
    print(number_format.describe(number_format.resolve("auto", "auto"), "auto") + "\n")
    print("| method | processor seconds a step | of single |")
    print("|---|---|---|")
    for method, found in costs.items():
        ratio = statistics.median(mine / single for mine, single in zip(found, costs["single"], strict=True))
        print(f"| {method} | {statistics.median(found):.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
