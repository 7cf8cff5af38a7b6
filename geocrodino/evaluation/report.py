"""Tables, JSON and figures of evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rich.markup import escape
from rich.table import Table

from geocrodino.errors import OutputError, RasterError
from geocrodino.evaluation.calibration import Reliability
from geocrodino.evaluation.evaluate import Comparison, Evaluation
from geocrodino.geo.classes import ClassScheme, LandClass
from geocrodino.geo.files import whole_file
from geocrodino.geo.mapfile import read_classes
from geocrodino.geo.names import gdal_name
from geocrodino.geo.reader import RasterSource

SERIES = ("#2f6fb7", "#e08a2e", "#4a9a5b", "#8e6bb0", "#7a7f87", "#c0504d")
"""Colours of the compared maps."""


def evaluation_table(evaluation: Evaluation) -> Table:
    """Create a table of the scores per class and in total.

    Args:
        evaluation: The evaluation.

    Returns:
        A rich table, scores in percent.
    """
    scores = evaluation.scores
    table = Table(title=escape(_title(evaluation)), caption=_caption(evaluation), caption_justify="left")
    table.add_column("class")
    for name in ("IoU %", "F1 %", "precision %", "recall %", "pixels"):
        table.add_column(name, justify="right")
    rows = zip(scores.iou, scores.f1, scores.precision, scores.recall, scores.support, strict=True)
    for land, (*shares, support) in zip(evaluation.scheme.classes, rows, strict=True):
        table.add_row(_class_label(land), *(_percent(s) for s in shares), f"{support:,}")
    table.add_section()
    table.add_row("mean", _percent(scores.mean_iou), _percent(scores.mean_f1), "", "", f"{sum(scores.support):,}")
    return table


def side_by_side(comparison: Comparison) -> Table:
    """Create a table of the scores of several maps, on the pixels that all of them cover.

    Args:
        comparison: The comparison.

    Returns:
        A rich table with a column for each map, scores in percent.
    """
    common = comparison.common
    caption = escape(_comparison_caption(comparison))
    table = Table(title="IoU % per class", caption=caption, caption_justify="left")
    table.add_column("class")
    for name in common:
        table.add_column(escape(name), justify="right")
    for index, land in enumerate(_scheme_of(comparison).classes):
        shares = (_percent(e.scores.iou[index]) for e in common.values())
        table.add_row(_class_label(land), *shares)
    table.add_section()
    for label, key in (("mean IoU", "mean_iou"), ("mean F1", "mean_f1"), ("accuracy", "accuracy")):
        table.add_row(label, *(_percent(getattr(e.scores, key)) for e in common.values()))
    table.add_section()
    everything = [e.scores for e in comparison.evaluations.values()]
    table.add_row("no class in the map", *(_percent(s.missed / s.pixels if s.pixels else math.nan) for s in everything))
    if any(comparison.left_out.values()):
        table.add_row("pixels left out", *(f"{comparison.left_out[name]:,}" for name in common))
    return table


def write_json(result: Evaluation | Comparison, path: str | Path) -> None:
    """Write scores and confusion matrices as JSON. The file appears complete or not at all.

    Args:
        result: The evaluation of one map, or the comparison of several.
        path: The file.

    Raises:
        OutputError: If it cannot be written.
    """
    text = json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n"
    _write_whole(Path(path), lambda p: p.write_text(text, encoding="utf-8"))


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
    right.set_title(f"IoU, mean {_percent(evaluation.scores.mean_iou)} %")
    figure.suptitle(_title(evaluation) + "\n" + _caption(evaluation), fontsize=10)
    save_figure(figure, Path(path))


def write_comparison(comparison: Comparison, path: str | Path) -> None:
    """Write a figure of the IoU of several maps per class, on the pixels that all of them cover.

    Args:
        comparison: The comparison.
        path: The PNG file; it appears complete or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    common = comparison.common
    scheme = _scheme_of(comparison)
    height = 2.0 + 0.26 * (len(scheme) + 1) * (len(common) + 0.8)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    _draw_iou(axes, scheme, common)
    figure.legend(loc="outside upper right", ncols=len(common), frameon=False)
    figure.suptitle("IoU per class", x=0.02, ha="left", fontsize=11)
    figure.supxlabel(_comparison_caption(comparison), fontsize=8)
    save_figure(figure, Path(path))


def plot_reliability(curves: Mapping[str, Reliability], path: Path) -> None:
    """Write a reliability diagram: accuracy against confidence above, a histogram of confidence below.

    Args:
        curves: Reliability by name of the prediction, for instance its modality.
        path: The PNG file; it appears complete or not at all.

    Raises:
        ValueError: If there are no curves.
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


def map_preview(
    map_path: str | Path,
    out_png: str | Path,
    *,
    optical: str | Path | None = None,
    classes: ClassScheme | None = None,
    max_px: int = 1200,
) -> None:
    """Write a small picture of a class map with its legend, beside the image it was made from if that is given.

    Args:
        map_path: Class map.
        out_png: The PNG file; it appears complete or not at all.
        optical: Image to show beside the map. Its first three bands are read on the map's grid and stretched.
        classes: Names and colours; None: those in the map's tags.
        max_px: Longest side that is read, in px. Larger maps are read at a lower resolution.

    Raises:
        RasterError: If a raster cannot be read, or no classes are given and the map has none in its tags.
        OutputError: If the picture cannot be written.
    """
    source = RasterSource.open(map_path)
    scheme = classes if classes is not None else read_classes(map_path)
    grid = source.geobox.zoom_out(max(1.0, max(source.geobox.shape) / max_px))
    height, width = grid.shape
    try:
        with rasterio.open(gdal_name(map_path)) as dataset:
            values = dataset.read(1, out_shape=grid.shape, resampling=Resampling.nearest, masked=True)
    except RasterioError as error:
        raise RasterError(map_path, f"the map is damaged or cut short ({error}). Create it again.") from error
    indices = scheme.to_indices(values.data, ~np.ma.getmaskarray(values), str(map_path), "map")
    panels = 1 if optical is None else 2
    scale = 7 / max(height, width)
    figure = Figure(figsize=(max(width * scale, 2) * panels, max(height * scale, 2) + 0.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if optical is not None:
        axes[0].imshow(_scaled_image(RasterSource.open(optical), grid))
        axes[0].set_title(Path(optical).name, fontsize=9)
    colours = ListedColormap([c.colour for c in scheme.classes])
    shown = np.ma.masked_greater_equal(indices, len(scheme))
    axes[-1].imshow(shown, cmap=colours, vmin=-0.5, vmax=len(scheme) - 0.5, interpolation="nearest")
    axes[-1].set_title(Path(map_path).name, fontsize=9)
    for each in axes:
        each.set_axis_off()
    handles = [Patch(color=c.colour, label=c.name) for c in scheme.classes]
    # About ten characters of the legend fit in an inch.
    widest = max(len(c.name) for c in scheme.classes) + 6
    columns = max(1, min(len(handles), int(10 * figure.get_figwidth() / widest)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    save_figure(figure, Path(out_png))


def _scaled_image(image: RasterSource, grid: GeoBox) -> NDArray[np.float32]:
    """Three bands of an image on a grid, scaled to 0 to 1, white where it has no data, shape (H, W, 3)."""
    bands = image.data_bands[:3] if len(image.data_bands) >= 3 else image.data_bands[:1] * 3
    height, width = grid.shape
    rows = [image.read(grid, (r, min(r + 16, height), 0, width), bands=bands) for r in range(0, height, 16)]
    values, valid = (np.concatenate(parts, axis=-2) for parts in zip(*rows, strict=True))
    if not valid.any():
        return np.ones((height, width, 3), np.float32)
    low, high = np.percentile(values[:, valid], (1, 99), axis=1)[..., None, None]
    values = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.where(valid[..., None], values.transpose(1, 2, 0), 1).astype(np.float32)


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
    axes.set_title("Where the labelled pixels of a class went")


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


def _scheme_of(comparison: Comparison) -> ClassScheme:
    return next(iter(comparison.common.values())).scheme


def _title(evaluation: Evaluation) -> str:
    split = f", split {evaluation.split}" if evaluation.split else ""
    return f"{evaluation.map_path.name} against {evaluation.labels_path.name}{split}"


def _caption(evaluation: Evaluation) -> str:
    scores = evaluation.scores
    how = "count as wrong" if evaluation.count_missed else "are left out"
    share = f"{scores.missed:,} labelled pixels ({_percent(scores.missed / max(1, scores.pixels))} %)"
    missed = f"; {share} without a class in the map {how}" if scores.missed else ""
    kappa = "-" if math.isnan(scores.kappa) else f"{scores.kappa:.3f}"
    return f"accuracy {_percent(scores.accuracy)} %, kappa {kappa}{missed}"


def _comparison_caption(comparison: Comparison) -> str:
    first = next(iter(comparison.evaluations.values()))
    where = f", split {first.split}" if first.split else ""
    if first.count_missed:
        return f"{comparison.pixels:,} labelled pixels{where}; those without a class in a map count as wrong in it"
    left_out = "; left out: pixels that a map covers and another does not" if any(comparison.left_out.values()) else ""
    return f"{comparison.pixels:,} labelled pixels that every map covers{where}{left_out}"


def _class_label(land: LandClass) -> str:
    return f"[{land.colour}]■[/] {escape(land.name)}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def _short_count(count: int) -> str:
    """A count in few characters: 950, 12.3k, 4.6M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file. The file appears complete or not at all.

    Args:
        figure: The figure.
        path: The file.

    Raises:
        OutputError: If it cannot be written.
    """
    FigureCanvasAgg(figure)
    _write_whole(path, lambda p: figure.savefig(p, dpi=110, format="png"))


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file completely or not at all; name the reason if it cannot be written."""
    try:
        with whole_file(path) as partial:
            write(partial)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}).\n"
            "Expected a folder with write permission and space."
        ) from error


def _draw_curve(upper: Axes, lower: Axes, name: str, curve: Reliability, colour: str) -> None:
    error = curve.expected_calibration_error
    label = f"{name}: " + ("no samples" if np.isnan(error) else f"calibration error {100 * error:.1f} %")
    share = 100 * curve.count / max(1, int(curve.count.sum()))
    # The size of a point shows the samples in its bin: the accuracy of a bin with few samples is noise.
    places = (100 * curve.confidence, 100 * curve.accuracy)
    upper.plot(*places, color=colour, linewidth=0.8, label=label, marker="o", markersize=2, clip_on=False)
    upper.scatter(*places, s=4 * share, color=colour, alpha=0.7, linewidths=0, clip_on=False)
    lower.stairs(share, 100 * curve.edges, color=colour, linewidth=1.4)
