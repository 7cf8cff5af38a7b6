"""Phrases that messages share: a list cut short, the names of arguments, and durations.

A message of the library names an argument or a setting in backticks, by its Python name: `overwrite=True`,
`height_unit='m'`, `patch_px`. A key of the configuration may carry its section: `data.labels`. The command line
replaces such a name by its own option. Words of the user's files, such as the name of a column, are no settings.
"""

from __future__ import annotations

from collections.abc import Iterable


def listed(words: Iterable[object], most: int = 5) -> str:
    """List the first few words, followed by the number of the others.

    Args:
        words: What to list, in order.
        most: Highest number of words that are named.

    Returns:
        The words in one line; empty if there are none.

    Examples:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    found = [str(word) for word in words]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def arguments(**values: object) -> str:
    """Write arguments as in a call, in backticks.

    Args:
        **values: Values by the name of the argument.

    Returns:
        The arguments as Python would read them.

    Examples:
        >>> arguments(resume=True, out="runs/a")
        "`resume=True, out='runs/a'`"
    """
    written = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return "`{}`".format(written.replace("`", r"\x60"))


def coordinate(value: float) -> str:
    """Write a coordinate without an exponent: one in metres has seven digits before its point.

    Args:
        value: The coordinate, in the unit of its CRS.

    Returns:
        From 1000 on a whole number, below it up to six digits after the point.

    Examples:
        >>> [coordinate(v) for v in (4870012.3, -117.1234567, 0.5, 1e-5)]
        ['4870012', '-117.123457', '0.5', '0.00001']
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.6f}".rstrip("0").rstrip(".")


def span(west: float, south: float, east: float, north: float) -> str:
    """Write bounds in words.

    Args:
        west: Smallest x.
        south: Smallest y.
        east: Largest x.
        north: Largest y.

    Returns:
        ``x WEST to EAST, y SOUTH to NORTH``, each as by `coordinate`; with one digit after the point where two would be
        written alike.
    """
    return f"x {_range(west, east)}, y {_range(south, north)}"


def _range(low: float, high: float) -> str:
    alike = low != high and coordinate(low) == coordinate(high)
    return f"{low:.1f} to {high:.1f}" if alike else f"{coordinate(low)} to {coordinate(high)}"


def duration(seconds: float) -> str:
    """Format a duration.

    Args:
        seconds: The duration, s, at least 0.

    Returns:
        Its two largest units.

    Examples:
        >>> [duration(s) for s in (48, 200, 7500)]
        ['48 s', '3 min 20 s', '2 h 05 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
