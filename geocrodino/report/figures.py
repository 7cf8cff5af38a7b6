"""Figures: confusion matrix, IoU per class, reliability, and the map of splits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pyproj.exceptions import ProjError

from geocrodino.evaluation.calibration import Reliability
from geocrodino.evaluation.results import Comparison, Evaluation
from geocrodino.geo.areas.aoi import AOI
from geocrodino.maps.picture import save_figure
from geocrodino.report.captions import caption, comparison_caption, percent, scheme_of, title
from geocrodino.settings.classes import ClassScheme

SERIES = ("#2f6fb7", "#e08a2e", "#4a9a5b", "#8e6bb0", "#7a7f87", "#c0504d")
"""Colours of the compared maps or curves, in order; reused from the start if there are more."""

SPLIT_COLOURS = {"train": "#2f6fb7", "val": "#e08a2e", "test": "#c0504d", "unlabelled": "#9aa0a8"}
"""Colours of the splits in a map."""

_MOST_PANELS = 12
_SCATTERED = 0.02  # share of the map that scenes cover, below which each gets a map of its own


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


def plot_splits(areas: Sequence[tuple[str, AOI]], path: Path) -> None:
    """Write a map of the splits: one for all scenes, or one for each of up to 12 scenes that lie far apart.

    Args:
        areas: Name and areas of each scene, with a column ``split``; scenes without rows are left out.
        path: The PNG file; it appears complete or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    shown = [(name, aoi.frame) for name, aoi in areas if len(aoi.frame) and not aoi.frame.geometry.is_empty.all()]
    sheets = _sheets(shown)
    columns = min(4, math.ceil(math.sqrt(max(1, len(sheets)))))
    rows = max(1, math.ceil(len(sheets) / columns))
    side = 7.0 if len(sheets) < 2 else 3.4
    figure = Figure(figsize=(side * columns, side * rows + 0.6), layout="constrained")
    for axes, sheet in zip(figure.subplots(rows, columns, squeeze=False).flat, [*sheets, *[None] * 12], strict=False):
        axes.set_axis_off()
        if sheet is not None:
            _draw_splits(axes, *sheet)
    there = [split for split in SPLIT_COLOURS if any((frame["split"] == split).any() for _, frame in shown)]
    counts = {split: sum(bool((frame["split"] == split).any()) for _, frame in shown) for split in there}
    labels = [f"{s} ({counts[s]} of {len(shown)} scenes)" if len(shown) > 1 else s for s in there]
    patches = [Patch(color=SPLIT_COLOURS[s], label=label) for s, label in zip(there, labels, strict=True)]
    figure.legend(handles=patches, loc="outside lower left", ncols=len(patches) or 1, frameon=False)
    save_figure(figure, path)


def _sheets(shown: Sequence[tuple[str, gpd.GeoDataFrame]]) -> list[tuple[str, gpd.GeoDataFrame]]:
    """Title and polygons of each map."""
    frames = [frame[["split", "geometry"]] for _, frame in shown]
    if len(frames) < 2:
        return [("", frame) for frame in frames]
    one_crs = all(frame.crs == frames[0].crs for frame in frames) and not frames[0].crs.is_engineering
    if one_crs:
        together = gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), crs=frames[0].crs)
        boxes = sum(shapely.box(*frame.total_bounds).area for frame in frames)
        if boxes >= _SCATTERED * shapely.box(*together.total_bounds).area:
            return [("", together)]
    if len(frames) <= _MOST_PANELS:
        return [(name, frame) for (name, _), frame in zip(shown, frames, strict=True)]
    return [("", pd.concat([_placed(frame, number) for number, frame in enumerate(frames)], ignore_index=True))]


def _placed(frame: gpd.GeoDataFrame, number: int) -> gpd.GeoDataFrame:
    """The polygons of a scene among those of many: at their place on the Earth, otherwise side by side."""
    if not frame.crs.is_engineering:
        try:
            return frame.to_crs("EPSG:3857").set_crs(None, allow_override=True)
        except ProjError:
            pass
    left, bottom, right, top = frame.total_bounds
    shift = 1.2 * max(right - left, top - bottom)
    moved = frame.geometry.translate((number % 100) * shift - left, -(number // 100) * shift - bottom)
    return frame.set_geometry(moved).set_crs(None, allow_override=True)


def _draw_splits(axes: Axes, name: str, frame: gpd.GeoDataFrame) -> None:
    left, bottom, right, top = frame.total_bounds
    small = 0.01 * max(right - left, top - bottom)
    for split, colour in SPLIT_COLOURS.items():
        shapes = frame.geometry[frame["split"] == split]
        shapes = shapes[~shapes.is_empty]
        if len(shapes):
            shapes.set_crs(None, allow_override=True).plot(
                ax=axes, color=colour, edgecolor="white", linewidth=0.4, aspect="equal"
            )
            bounds = shapes.bounds
            dots = shapes[(bounds.maxx - bounds.minx < small) & (bounds.maxy - bounds.miny < small)].centroid
            axes.scatter(dots.x, dots.y, s=8, color=colour)
    axes.set_title(name, fontsize=9)


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
