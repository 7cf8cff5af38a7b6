"""What to do with label values that are no class, in words and as YAML."""

from __future__ import annotations

from collections.abc import Mapping

from geocrodino.geo.labels.codes import as_yaml
from geocrodino.geo.rasters.values import MOST_VALUES
from geocrodino.settings.classes import ignore_advice, number, recode_advice

MOST_LISTED = 8
"""Values in a message."""


def values_listed(values: list[float] | list[int], *, more: bool = False) -> str:
    """List values in a message.

    Args:
        values: The values.
        more: Whether there are more than were counted.

    Returns:
        The first eight and the last.
    """
    if more:
        return f"more than {MOST_VALUES:,} values such as {', '.join(number(v) for v in values[:3])}"
    shown = [number(v) for v in values[:MOST_LISTED]]
    if len(values) > MOST_LISTED:
        return f"{', '.join(shown)} ... {number(values[-1])}"
    return " and ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) > 1 else "".join(shown)


def reading_advice(values: list[float], wrong: list[float]) -> str:
    """Advise on a raster whose values are classes, except for a few.

    Args:
        values: All values.
        wrong: Those that are no class.

    Returns:
        Sentences.
    """
    good = [v for v in values if v not in wrong]
    # Of a mask, the marked pixels become 1.
    order = (1, 0, *range(2, 255)) if len(wrong) == 1 else range(255)
    free = [v for v in order if v not in good]
    if len(good) >= 2:
        return (
            f"Leave out what is no class with {ignore_advice(wrong)}. Read what is a class as a value from 0 to 254, "
            f"for instance with {recode_advice({wrong[0]: min(free)})}."
        )
    looks = "This looks like a mask. " if set(values) == {0, 255} else ""
    shown = values_listed(wrong)
    classes = "a class" if len(wrong) == 1 else "classes"
    return f"{looks}Read {shown} as {classes} with {recode_advice(dict(zip(wrong, free, strict=False)))}."


def values_as_table(shares: Mapping[float, float]) -> str:
    """Offer the values that were found as a table; a mask of two values needs none.

    Args:
        shares: Share of the labelled pixels by value.

    Returns:
        A sentence and lines of YAML, after a line break; empty for a mask.
    """
    if set(shares) == {0, 255}:
        return ""
    codes = as_yaml((f"class {number(v)}", int(v)) for v in shares)
    return f"\nOr name the class of each in the configuration:\n{codes}"
