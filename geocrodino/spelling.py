"""Suggestions for misspelt words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: object, known: Iterable[str], *, most: int = 1) -> str:
    """Suggest known words that are spelt like an unknown one.

    Args:
        word: The unknown word.
        known: Valid words. Of equally close ones, the first is suggested.
        most: Highest number of suggestions.

    Returns:
        A sentence with a leading space, such as `` Did you mean crodino?``; empty if no word is close.
    """
    by_lower: dict[str, str] = {}
    for name in known:
        by_lower.setdefault(name.lower(), name)
    asked = str(word).strip().lower()
    close = difflib.get_close_matches(asked, by_lower, n=most)
    if not close and len(asked) > 1:  # a beginning, such as conf for confidence
        close = [name for name in by_lower if name.startswith(asked)][:most]
    return f" Did you mean {' or '.join(by_lower[name] for name in close)}?" if close else ""
