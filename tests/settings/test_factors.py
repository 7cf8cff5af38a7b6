"""Factors as they are written."""

from __future__ import annotations

import pytest

from geocrodino.settings.factors import factor_text


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (257.0, "257"),
        (0.0001, "0.0001"),
        (1 / 257, "1/257"),
        (2.55, "2.55"),
        (1 / 3.3, "1/3.3"),
        (0.123456789, "0.123456789"),
    ],
)
def test_a_factor_is_written_as_it_is_read(factor, text):
    assert factor_text(factor) == text
