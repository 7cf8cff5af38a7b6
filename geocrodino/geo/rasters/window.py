"""A rectangle of pixels as a value."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Window(NamedTuple):
    """Rows ``row_start`` to ``row_stop`` and columns ``col_start`` to ``col_stop`` of a grid, in pixels.

    The stops are excluded, as in Python's slices.
    A window may reach outside its grid. It is a tuple, so it compares with, and pickles like, four numbers.

    >>> window = Window(2, 5, 0, 10)
    >>> window.shape
    (3, 10)
    >>> tuple(window.intersect(Window(4, 9, 6, 20)))
    (4, 5, 6, 10)
    >>> [tuple(block) for block in window.blocks(8)]
    [(2, 5, 0, 8), (2, 5, 8, 10)]
    """

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @classmethod
    def of(cls, shape: Sequence[int]) -> Window:
        """Make the window of all pixels of an array or grid.

        Args:
            shape: Rows and columns, (H, W).

        Returns:
            The window.
        """
        return cls(0, shape[0], 0, shape[1])

    @classmethod
    def at(cls, row: int, col: int, shape: tuple[int, int]) -> Window:
        """Make a window from its first pixel and its shape.

        Args:
            row: Row of the first pixel.
            col: Column of the first pixel.
            shape: Rows and columns, (H, W).

        Returns:
            The window.
        """
        return cls(row, row + shape[0], col, col + shape[1])

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the first pixel."""
        return self.row_start, self.col_start

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row_stop - self.row_start, self.col_stop - self.col_start

    @property
    def pixels(self) -> int:
        """Number of pixels; 0 for an empty window."""
        return max(0, self.shape[0]) * max(0, self.shape[1])

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in an array of the grid, (H, W); the window must lie on the grid."""
        return slice(self.row_start, self.row_stop), slice(self.col_start, self.col_stop)

    def grow(self, margin_px: int) -> Window:
        """Add a margin on each side.

        Args:
            margin_px: Width of the margin, px.

        Returns:
            The larger window; it may reach outside the grid.
        """
        return Window(
            self.row_start - margin_px, self.row_stop + margin_px, self.col_start - margin_px, self.col_stop + margin_px
        )

    def shift(self, rows: int, cols: int) -> Window:
        """Move the window.

        Args:
            rows: Rows to move down.
            cols: Columns to move to the right.

        Returns:
            The moved window.
        """
        return Window(self.row_start + rows, self.row_stop + rows, self.col_start + cols, self.col_stop + cols)

    def within(self, outer: Window) -> Window:
        """Count the same pixels from the first pixel of another window.

        Args:
            outer: The other window.

        Returns:
            The window in the pixels of ``outer``.
        """
        return self.shift(-outer.row_start, -outer.col_start)

    def intersect(self, other: Window) -> Window:
        """Find the common part of two windows.

        Args:
            other: The other window.

        Returns:
            The common part; where there is none, a window without rows, without columns, or without both.
        """
        row, col = max(self.row_start, other.row_start), max(self.col_start, other.col_start)
        return Window(
            row,
            max(row, min(self.row_stop, other.row_stop)),
            col,
            max(col, min(self.col_stop, other.col_stop)),
        )

    def hull(self, other: Window) -> Window:
        """Make the smallest window around two.

        Args:
            other: The other one.

        Returns:
            The window.
        """
        return Window(
            min(self.row_start, other.row_start),
            max(self.row_stop, other.row_stop),
            min(self.col_start, other.col_start),
            max(self.col_stop, other.col_stop),
        )

    def contains(self, other: Window) -> bool:
        """Find out whether every pixel of another window lies in this one.

        Args:
            other: The other window.

        Returns:
            Whether it does.
        """
        return (
            self.row_start <= other.row_start
            and other.row_stop <= self.row_stop
            and self.col_start <= other.col_start
            and other.col_stop <= self.col_stop
        )

    def blocks(self, side_px: int) -> Iterator[Window]:
        """Cut the window into squares, row by row.

        Args:
            side_px: Longest side of a part, px.

        Yields:
            Windows of at most that side that cover this one once.
        """
        for row in range(self.row_start, self.row_stop, side_px):
            for col in range(self.col_start, self.col_stop, side_px):
                yield Window(row, min(row + side_px, self.row_stop), col, min(col + side_px, self.col_stop))

    def strips(self, most_px: int) -> Iterator[Window]:
        """Cut the window into strips of whole rows.

        Args:
            most_px: Most pixels of a strip; one row is the least.

        Yields:
            Windows from top to bottom.
        """
        rows = max(1, most_px // max(1, self.shape[1]))
        for start in range(self.row_start, self.row_stop, rows):
            yield self._replace(row_start=start, row_stop=min(start + rows, self.row_stop))


def spread_windows(shape: Sequence[int], side_px: int) -> list[Window]:
    """Choose windows to look at, spread over a grid: in its corners, at the middle of its sides and in its middle.

    Args:
        shape: Rows and columns of the grid, (H, W).
        side_px: Side of a window, px; smaller where the grid is.

    Returns:
        At most nine windows, from top to bottom and from left to right.
    """
    height, width = int(shape[0]), int(shape[1])
    rows, cols = (sorted({0, max(0, (n - side_px) // 2), max(0, n - side_px)}) for n in (height, width))
    return [Window(r, min(r + side_px, height), c, min(c + side_px, width)) for r, c in itertools.product(rows, cols)]
