"""Plot the scores of a method against the length of its training, from the runs of a study.

    python pipelines/study.py configs/studies/convergence.yaml
    python pipelines/budgets.py runs/studies/convergence --out convergence.png

One panel per scene shows the mIoU of each network on ``val``, on which its epoch was chosen, and on ``test``: a point
for each run, a line through the means. Each length is a separate training, whose learning rate falls to 0 at its end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scoring import SCORING
from tables import COLOURS
from trainings import TRAINING

from geocrodino.files.access import whole_file

Scores = dict[tuple[str, str], dict[int, list[float]]]
"""mIoU in %, by network and split, then by steps."""


def read_runs(root: Path) -> dict[str, Scores]:
    """Read the scores of the runs of a study.

    Args:
        root: Folder of the study.

    Returns:
        Scores by scene.

    Raises:
        ValueError: If two rows of a scene have the same number of steps, so that they differ in another setting.
    """
    found: dict[str, Scores] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    rows: dict[tuple[str, int], str] = {}
    for path in sorted(root.glob("*/*/seed*/result.json")):
        result = json.loads(path.read_text())
        if result["scoring"] != SCORING or result.get("training") != TRAINING:
            print(f"{path.parent}: left out, trained or scored by an earlier version; pipelines/study.py repeats it")
            continue
        training = result["settings"]["training"]
        steps = training["epochs"] * training["steps_per_epoch"]
        scene, row = path.parents[2].name, path.parents[1].name
        if rows.setdefault((scene, steps), row) != row:
            raise ValueError(f"{root}: {rows[scene, steps]} and {row} of {scene} both have {steps} steps")
        for network, miou in result["val_miou"].items():
            scores = found[scene]
            scores[network, "val"][steps].append(100 * miou)
            scores[network, "test"][steps].append(100 * result["test_miou"][f"{network}|labels"])
    return found


def draw(found: dict[str, Scores], path: Path) -> None:
    """Write the figure.

    Args:
        found: Scores by scene.
        path: The PNG file; it appears complete or not at all.
    """
    figure = Figure(figsize=(1 + 3.6 * len(found), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (scene, scores) in zip(axes, found.items(), strict=True):
        for (network, split), by_steps in scores.items():
            steps = sorted(by_steps)
            style = {"color": COLOURS[network], "alpha": 1.0 if split == "val" else 0.45}
            line = "-" if split == "val" else "--"
            axis.plot(steps, [np.mean(by_steps[n]) for n in steps], line, label=f"{network}, {split}", **style)
            points = [(n, score) for n in steps for score in by_steps[n]]
            axis.plot(*zip(*points, strict=True), "o", markersize=4, **style)
        budgets = sorted({n for by_steps in scores.values() for n in by_steps})
        axis.set_xscale("log")
        axis.set_xticks(budgets, [str(n) for n in budgets])
        axis.minorticks_off()
        axis.set_title(scene, fontsize=10)
        axis.set_xlabel("steps")
        axis.grid(axis="y", color="#dddddd")
    axes[0].set_ylabel("mIoU, %")
    named = {name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named), frameon=False)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def main() -> None:
    """Read the runs and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a study's runs")
    parser.add_argument("--out", type=Path, required=True, help="picture to write (.png)")
    options = parser.parse_args()
    try:
        found = read_runs(options.study)
    except ValueError as error:
        sys.exit(f"{error}.\nGive the runs of a study of budgets, such as configs/studies/convergence.yaml.")
    if not found:
        sys.exit(
            f"{options.study}: no finished run. Expected SCENE/METHOD/seedN/result.json, as pipelines/study.py writes."
        )
    draw(found, options.out)


if __name__ == "__main__":
    main()
