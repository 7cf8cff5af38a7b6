"""Titles, captions and number formats that tables and figures share."""

from __future__ import annotations

import math

from geocrodino.evaluation.results import Comparison, Evaluation
from geocrodino.phrases import listed
from geocrodino.settings.classes import ClassScheme


def scheme_of(comparison: Comparison) -> ClassScheme:
    """Look up the classes that the compared maps share.

    Args:
        comparison: The comparison.

    Returns:
        The class scheme.
    """
    return next(iter(comparison.common.values())).scheme


def title(evaluation: Evaluation) -> str:
    """Write the title of an evaluation.

    Args:
        evaluation: The evaluation.

    Returns:
        File names of the map and the labels, and the split if there is one.
    """
    split = f", split {evaluation.split}" if evaluation.split else ""
    return f"{evaluation.map_path.name} against {evaluation.labels_path.name}{split}"


def caption(evaluation: Evaluation) -> str:
    """Write the caption of an evaluation.

    Args:
        evaluation: The evaluation.

    Returns:
        Accuracy in percent, kappa (a dash if undefined), the number of labelled pixels without a class in the map, if
        there are any, and which pixels and classes are left out.
    """
    scores = evaluation.scores
    how = "count as wrong" if evaluation.count_missed else "are left out"
    share = f"{scores.missed:,} labelled pixels ({percent(scores.missed / max(1, scores.pixels))} %)"
    missed = f"; {share} without a class in the map {how}" if scores.missed else ""
    kappa = "-" if math.isnan(scores.kappa) else f"{scores.kappa:.3f}"
    return f"accuracy {percent(scores.accuracy)} %, kappa {kappa}{missed}{_left_out(evaluation)}"


def _left_out(evaluation: Evaluation) -> str:
    """Pixels near boundaries and classes that do not count, where a user left them out."""
    near = (
        f"; pixels within {evaluation.boundary_px} px of another class are left out" if evaluation.boundary_px else ""
    )
    return near + (f"; means without {listed(evaluation.excluded)}" if evaluation.excluded else "")


def comparison_caption(comparison: Comparison) -> str:
    """Write the caption of a comparison.

    Args:
        comparison: The comparison.

    Returns:
        Number of compared pixels, the split if there is one, and which pixels are left out or count as wrong.
    """
    first = next(iter(comparison.evaluations.values()))
    where = f", split {first.split}" if first.split else ""
    if first.count_missed:
        return f"{comparison.pixels:,} labelled pixels{where}; those without a class in a map count as wrong in it" + (
            _left_out(first)
        )
    left_out = "; left out: pixels that a map covers and another does not" if any(comparison.left_out.values()) else ""
    return f"{comparison.pixels:,} labelled pixels that every map covers{where}{left_out}{_left_out(first)}"


def percent(share: float) -> str:
    """Format a share in percent.

    Args:
        share: 0 to 1, or NaN if undefined.

    Returns:
        Percent with one decimal, without the sign; a dash for NaN.
    """
    return "-" if math.isnan(share) else f"{100 * share:.1f}"
