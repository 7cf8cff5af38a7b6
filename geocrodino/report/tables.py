"""Scores as tables for the terminal and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from geocrodino.evaluation.metrics import Scores
from geocrodino.evaluation.results import Comparison, Evaluation
from geocrodino.evaluation.scenes import SceneEvaluation
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


def scenes_table(evaluation: SceneEvaluation) -> Table:
    """Create a table with a row of scores for each scene, and one for all labelled pixels together.

    Args:
        evaluation: The evaluation of several scenes.

    Returns:
        A rich table, scores in percent; a dash for classes that a scene does not have.
    """
    below = "The last row counts every labelled pixel of all scenes once."
    table = Table(title="Scores of each scene", caption=below, caption_justify="left")
    table.add_column("scene")
    classes = evaluation.total.scheme.classes
    for name in ("pixels", "mean IoU %", "mean F1 %", "accuracy %"):
        table.add_column(name, justify="right")
    for land in classes:
        table.add_column(f"{_class_label(land)} IoU %", justify="right")
    for name, each in evaluation.scenes.items():
        table.add_row(escape(name), *_row(each.scores))
    table.add_section()
    table.add_row("all", *_row(evaluation.total.scores))
    return table


def _row(scores: Scores) -> list[str]:
    # A class without labels there has an IoU of 0 as soon as one pixel is mapped as it: it says nothing of the scene.
    each = (iou if px else math.nan for iou, px in zip(scores.iou, scores.support, strict=True))
    shares = (scores.mean_iou, scores.mean_f1, scores.accuracy, *each)
    return [f"{sum(scores.support):,}", *(percent(share) for share in shares)]


def write_json(result: Evaluation | Comparison | SceneEvaluation, path: str | Path) -> None:
    """Write scores and confusion matrices as JSON. The file appears complete or not at all.

    Args:
        result: The evaluation of one map or of several scenes, or the comparison of several maps.
        path: The JSON file.

    Raises:
        OutputError: If it cannot be written.
    """
    text = json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n"
    write_whole(Path(path), lambda p: p.write_text(text, encoding="utf-8"))


def _class_label(land: LandClass) -> str:
    return f"[{land.colour}]■[/] {escape(land.name)}"
