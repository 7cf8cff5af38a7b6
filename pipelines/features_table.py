"""The table of features.py: its numbers, in Markdown, with an explanation."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from spread import spread

Half = Literal["invariant", "specific"]
HALVES: tuple[Half, ...] = get_args(Half)

_MEANING = """\
- modality, linear: a logistic regression separates optical from elevation features. A constant offset is enough for it.
- modality, each standardised: the same after each modality was standardised by its own mean and scale. A linear probe
  can then learn nothing (its best weights are 0 for any features), so a Gaussian kernel is used: it finds other
  differences.
- modality, main components: as the last one, on the first three principal components of both modalities together.
- class: a logistic regression predicts the most frequent label under a feature, for the modality it was fitted on or
  for the other one. The other one's features are scaled like those it was fitted on or, "each standardised", by their
  own mean and scale. Classes with fewer than 10 positions in `train` or in `test` are left out.
- position: share of features whose nearest neighbour by cosine, among 200 features of random positions in the other
  modality, is the one at the same position.
- squared cosine: mean over positions of the squared cosine of invariant and specific feature. Chance is the value for
  random directions.
"""


class Number(NamedTuple):
    """A result with its baseline.

    Attributes:
        value: The result, 0 to 1.
        chance: The value for a random guess, 0 to 1.
        expected: What to expect of an invariant and of a specific half, in words.
    """

    value: float
    chance: float
    expected: str


Numbers = dict[str, Number]


def table(
    title: str,
    found: list[dict[Half, Numbers]],
    fitted_on: NDArray[np.int64],
    scored_on: NDArray[np.int64],
    names: tuple[str, ...],
) -> str:
    """Compose the table of all runs in Markdown.

    Args:
        title: Title of the table.
        found: Results of each run by half and name.
        fitted_on: Labels of the positions that the first run's probes were fitted on, shape (N,).
        scored_on: Labels of the positions that the first run was scored on, shape (N,).
        names: Names of the classes.

    Returns:
        The Markdown text, with sample counts and an explanation of the numbers.
    """
    counts = np.bincount(scored_on, minlength=len(names))
    held = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True) if count)
    runs = "one run" if len(found) == 1 else f"mean ± standard deviation of {len(found)} runs"
    lines = [
        f"## Halves of the features: {title}",
        "",
        f"Balanced accuracy, positions found and squared cosine in %, {runs}. Probes fitted on {len(fitted_on):,} "
        f"samples of `train`, all scored on {len(scored_on):,} positions of `test` ({held}).",
        "",
        "| | chance | invariant | specific | expected: invariant; specific |",
        "|---|---|---|---|---|",
    ]
    for name, first in found[0]["invariant"].items():
        chance = 100 * np.mean([halves["invariant"][name].chance for halves in found])
        cells = [spread([100 * halves[half][name].value for halves in found]) for half in HALVES]
        lines.append(f"| {name} | {chance:.1f} | {' | '.join(cells)} | {first.expected} |")
    return "\n".join([*lines, "", _MEANING])
