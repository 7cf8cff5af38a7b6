"""Awkward inputs, as rows of the table in docs/reliability.md."""

from __future__ import annotations

from typing import Any, Literal

import pytest

Outcome = Literal["right", "refused", "warned"]


def marked(kind: str, outcome: Outcome) -> pytest.MarkDecorator:
    """Mark a test as one input of a kind.

    Args:
        kind: The row of the table.
        outcome: What must become of the input: it is read right, refused with a message, or read with a warning.
    """
    return pytest.mark.reliability(kind=kind, outcome=outcome)


def case(kind: str, outcome: Outcome, *values: Any, id: str, slow: bool = False) -> Any:
    """A parameter set that is one input of a kind; see `marked`. One that is slow runs with ``-m slow`` alone."""
    marks = (marked(kind, outcome), *([pytest.mark.slow] if slow else []))
    return pytest.param(*values, id=id, marks=marks)
