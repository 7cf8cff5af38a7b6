"""Tables that live as long as a block."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar

from geocrodino.files.kept import kept_inside


def test_blocks_inside_one_another_share_a_table_that_ends_with_the_outer_one():
    table: ContextVar[dict[str, int] | None] = ContextVar("table", default=None)
    with suppress(KeyError), kept_inside(table):
        outer = table.get()
        with kept_inside(table):
            assert table.get() is outer == {}
        assert table.get() is outer
        raise KeyError
    assert table.get() is None
