"""Factors for the values of an image, as they are written: 257, 0.0001, 1/257."""

from __future__ import annotations

import math


def factor_text(factor: float) -> str:
    """Write a factor so that it is read as the same number.

    Args:
        factor: A number above 0.

    Returns:
        The number with up to six digits, or as a fraction such as ``1/257``, or else with all digits.

    Examples:
        >>> factor_text(0.0001), factor_text(1 / 257), factor_text(257.0)
        ('0.0001', '1/257', '257')
    """
    for text in (f"{factor:g}", f"1/{1 / factor:g}"):
        above, slash, below = text.partition("/")
        if float(above) / (float(below) if slash else 1.0) == factor:
            return text
    return repr(factor)


def parse_factor(text: str) -> float:
    """Read a factor, which may be a fraction such as ``1/257``.

    Args:
        text: What a user wrote.

    Returns:
        A number above 0.

    Raises:
        ValueError: If the text is anything else.
    """
    above, slash, below = text.partition("/")
    try:
        found = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise ValueError("expected a number above 0, such as 257 or 1/257")
    return found
