"""Measure the cost of a training step with each method: processor time, relative to `single`.

    python benchmarks/training.py

Trains on a generated town with the default network and one thread, in processes that take turns. The time of a step
(`steps.py`) includes that of a teacher, and no validation. The ratio is the median over rounds. The number format is
bf16-mixed if the processor has bfloat16, else 32-true; it is printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from steps import step_seconds

from geocrodino.town.write import write_scene
from geocrodino.training import number_format

PLAN = Path(__file__).parents[1] / "configs" / "studies" / "methods.yaml"
METHODS: dict[str, dict[str, Any]] = yaml.safe_load(PLAN.read_text())["methods"]
SETTINGS: dict[str, Any] = {"training.patch_px": 96, "training.precision": "auto"}
"""Changes of the town's settings for every method."""


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=40, help="steps of an epoch")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    methods = dict.fromkeys(["single", *options.methods])
    costs: dict[str, list[float]] = {method: [] for method in methods}
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder) / "town")
        for _ in range(options.rounds):
            for method in methods:
                found = step_seconds(Path(folder) / "town", {**SETTINGS, **METHODS[method]}, options.steps)
                if isinstance(found, str):
                    sys.exit(found)
                costs[method].append(found)
    print(number_format.describe(number_format.resolve("auto", "auto"), "auto") + "\n")
    print("| method | processor seconds a step | of single |")
    print("|---|---|---|")
    for method, own in costs.items():
        ratio = statistics.median(mine / single for mine, single in zip(own, costs["single"], strict=True))
        print(f"| {method} | {statistics.median(own):.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
