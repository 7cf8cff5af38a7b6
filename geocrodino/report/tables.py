"""Scores as tables for the terminal and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from geocrodino.evaluation.evaluate import Comparison, Evaluation
from geocrodino.maps.picture import write_whole
from geocrodino.report.captions import caption, comparison_caption, percent, scheme_of, title
from geocrodino.settings.classes import LandClass


def evaluation_table(evaluation: Evaluation) -> Table:
    """Create a table of the scores per class and in total.

    Args:
        evaluation: The evaluation.

    Returns:
        A rich table, scores in percent.
    """
    scores = evaluation.scores
    table = Table(title=escape(title(evaluation)), caption=caption(evaluation), caption_justify="left")
    table.add_column("class")
    for name in ("IoU %", "F1 %", "precision %", "recall %", "pixels"):
        table.add_column(name, justify="right")
    rows = zip(scores.iou, scores.f1, scores.precision, scores.recall, scores.support, strict=True)
    for land, (*shares, support) in zip(evaluation.scheme.classes, rows, strict=True):
        table.add_row(_class_label(land), *(percent(s) for s in shares), f"{support:,}")
    table.add_section()
    table.add_row("mean", percent(scores.mean_iou), percent(scores.mean_f1), "", "", f"{sum(scores.support):,}")
    return table


def side_by_side(comparison: Comparison) -> Table:
    """Create a table of the scores of several maps, on the pixels that all of them cover.

    Args:
        comparison: The comparison.

    Returns:
        A rich table with a column for each map, scores in percent.
    """
    common = comparison.common
    below = escape(comparison_caption(comparison))
    table = Table(title="IoU % per class", caption=below, caption_justify="left")
    table.add_column("class")
    for name in common:
        table.add_column(escape(name), justify="right")
    for index, land in enumerate(scheme_of(comparison).classes):
        shares = (percent(e.scores.iou[index]) for e in common.values())
        table.add_row(_class_label(land), *shares)
    table.add_section()
    for label, key in (("mean IoU", "mean_iou"), ("mean F1", "mean_f1"), ("accuracy", "accuracy")):
        table.add_row(label, *(percent(getattr(e.scores, key)) for e in common.values()))
    table.add_section()
    everything = [e.scores for e in comparison.evaluations.values()]
    table.add_row("no class in the map", *(percent(s.missed / s.pixels if s.pixels else math.nan) for s in everything))
    if any(comparison.left_out.values()):
        table.add_row("pixels left out", *(f"{comparison.left_out[name]:,}" for name in common))
    return table


def write_json(result: Evaluation | Comparison, path: str | Path) -> None:
    """Write scores and confusion matrices as JSON. The file appears complete or not at all.

    Args:
        result: The evaluation of one map, or the comparison of several.
        path: The JSON file.

    Raises:
        OutputError: If it cannot be written.
    """
    text = json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n"
    write_whole(Path(path), lambda p: p.write_text(text, encoding="utf-8"))


def _class_label(land: LandClass) -> str:
    return f"[{land.colour}]■[/] {escape(land.name)}"
