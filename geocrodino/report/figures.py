"""Figures of evaluations: confusion matrix, IoU per class, reliability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geocrodino.evaluation.calibration import Reliability
from geocrodino.evaluation.evaluate import Comparison, Evaluation
from geocrodino.maps.picture import save_figure
from geocrodino.report.captions import caption, comparison_caption, percent, scheme_of, title
from geocrodino.settings.classes import ClassScheme

SERIES = ("#2f6fb7", "#e08a2e", "#4a9a5b", "#8e6bb0", "#7a7f87", "#c0504d")
"""Colours of the compared maps or curves, in order; reused from the start if there are more."""


def write_figure(evaluation: Evaluation, path: str | Path) -> None:
    """Write a figure of one evaluation: the confusion matrix, in shares of each labelled class, and the IoUs.

    Args:
        evaluation: The evaluation.
        path: The PNG file; it appears complete or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    count = len(evaluation.scheme)
    side = 2.4 + 0.82 * count
    figure = Figure(figsize=(side + 5.6, side), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(side + 0.6, 5))
    _draw_matrix(left, evaluation)
    _draw_iou(right, evaluation.scheme, {"": evaluation})
    right.set_title(f"IoU, mean {percent(evaluation.scores.mean_iou)} %")
    figure.suptitle(title(evaluation) + "\n" + caption(evaluation), fontsize=10)
    save_figure(figure, Path(path))


def write_comparison(comparison: Comparison, path: str | Path) -> None:
    """Write a figure of the IoU per class of several maps, on the pixels that all of them cover.

    Args:
        comparison: The comparison.
        path: The PNG file; it appears complete or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    common = comparison.common
    scheme = scheme_of(comparison)
    height = 2.0 + 0.26 * (len(scheme) + 1) * (len(common) + 0.8)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    _draw_iou(axes, scheme, common)
    figure.legend(loc="outside upper right", ncols=len(common), frameon=False)
    figure.suptitle("IoU per class", x=0.02, ha="left", fontsize=11)
    figure.supxlabel(comparison_caption(comparison), fontsize=8)
    save_figure(figure, Path(path))


def plot_reliability(curves: Mapping[str, Reliability], path: Path) -> None:
    """Write a reliability diagram: accuracy against confidence above, a histogram of confidence below.

    Args:
        curves: Reliability by name of the prediction, for instance its modality.
        path: The PNG file; it appears complete or not at all.

    Raises:
        ValueError: If ``curves`` is empty.
        OutputError: If the file cannot be written.
    """
    if not curves:
        raise ValueError("expected one or more curves, found none")
    figure = Figure(figsize=(5.6, 7.2 + 0.22 * len(curves)), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 100), (0, 100), color="#999999", linewidth=0.9, linestyle="--", label="perfect calibration")
    for number, (name, curve) in enumerate(curves.items()):
        _draw_curve(upper, lower, name, curve, SERIES[number % len(SERIES)])
    upper.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy %")
    lower.set(ylim=(0, None), xlabel="confidence %", ylabel="samples %")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", frameon=False, fontsize=9)
    figure.suptitle("Reliability: larger points stand for more samples", x=0.02, ha="left", fontsize=11)
    save_figure(figure, Path(path))


def _draw_matrix(axes: Axes, evaluation: Evaluation) -> None:
    names = evaluation.scheme.names
    counts = np.column_stack([evaluation.confusion, evaluation.missed])
    columns = [*names, "no class"]
    if not evaluation.missed.any():
        counts, columns = evaluation.confusion, list(names)
    total = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(total, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if not total[row, 0]:
            continue
        text_colour = "white" if share > 0.55 else "black"
        text = f"{100 * share:.1f} %\n{_short_count(int(counts[row, column]))}"
        axes.text(column, row, text, ha="center", va="center", color=text_colour, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("map")
    axes.set_ylabel("labels")
    axes.set_title("Confusion matrix, shares of each row")


def _draw_iou(axes: Axes, scheme: ClassScheme, evaluations: Mapping[str, Evaluation]) -> None:
    thick = 0.8 / len(evaluations)
    for number, (name, evaluation) in enumerate(evaluations.items()):
        shares = [100 * s for s in (*evaluation.scores.iou, evaluation.scores.mean_iou)]
        place = np.arange(len(shares)) + (number - (len(evaluations) - 1) / 2) * thick
        own = [c.colour for c in scheme.classes] + ["#444444"]
        colour = own if len(evaluations) == 1 else SERIES[number % len(SERIES)]
        bars = axes.barh(place, np.nan_to_num(shares), thick * 0.92, color=colour, label=name or None)
        axes.bar_label(bars, ["absent" if math.isnan(s) else f"{s:.1f}" for s in shares], padding=3, fontsize=8)
    axes.set_yticks(range(len(scheme) + 1), [*scheme.names, "mean"])
    axes.axhline(len(scheme) - 0.5, color="#999999", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlim(0, 110)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("IoU %")
    axes.spines[["top", "right"]].set_visible(False)


def _short_count(count: int) -> str:
    """Format a count in few characters: 950, 12.3k, 4.6M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _draw_curve(upper: Axes, lower: Axes, name: str, curve: Reliability, colour: str) -> None:
    error = curve.expected_calibration_error
    label = f"{name}: " + ("no samples" if np.isnan(error) else f"calibration error {100 * error:.1f} %")
    share = 100 * curve.count / max(1, int(curve.count.sum()))
    # Points grow with the number of samples in their bin, because the accuracy of few samples is uncertain.
    places = (100 * curve.confidence, 100 * curve.accuracy)
    upper.plot(*places, color=colour, linewidth=0.8, label=label, marker="o", markersize=2, clip_on=False)
    upper.scatter(*places, s=4 * share, color=colour, alpha=0.7, linewidths=0, clip_on=False)
    lower.stairs(share, 100 * curve.edges, color=colour, linewidth=1.4)
