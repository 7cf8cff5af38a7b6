"""Shapes as pixels: which pixels a polygon, line or point labels, and which shape is on top.

A pixel has the same answer in every window: crossings of a row of pixel centres are computed from whole edges. GDAL's
rasteriser moves shapes into each window first, so that a centre on an edge depends on the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from geocrodino.geo.rasters.window import Window

_STRIP_PX = 2**20  # pixels that are burnt at a time
_SPAN_PX = 2**22  # pixels of spans that are written at a time: shapes may lie on each other a hundred deep
_SLACK_PX = 1e-3  # shapes drawn along pixel edges do not touch the pixels behind these edges


class _Spans(NamedTuple):
    """Runs of pixels in rows: position of the shape, row, first column, number of columns; each int64, shape (N,)."""

    shape: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    width: NDArray[np.int64]


class _Edges(NamedTuple):
    """Straight edges: position of the shape, int64, and the ends in columns and rows, float64; each of shape (N,)."""

    shape: NDArray[np.int64]
    xa: NDArray[np.float64]
    ya: NDArray[np.float64]
    xb: NDArray[np.float64]
    yb: NDArray[np.float64]

    def only(self, chosen: NDArray[np.bool_]) -> _Edges:
        """The edges where ``chosen`` is true, bool, shape (N,)."""
        return _Edges(self.shape[chosen], self.xa[chosen], self.ya[chosen], self.xb[chosen], self.yb[chosen])


@dataclass(frozen=True)
class Layers:
    """Shapes in pixels: x in columns, y in rows of a grid, from its upper left corner.

    Attributes:
        areas: Polygons whose pixel centres are labelled, or multipolygons; object, shape (N,). Later ones are on top.
        marks: For areas around lines and points, these themselves, whose every pixel is labelled, however thin; object,
            shape (N,); None for polygons.
        values: Value of each shape, float32, shape (N,).
        touched: Whether polygons label every pixel that they touch, not only those whose centre they hold.
    """

    areas: NDArray[np.object_]
    marks: NDArray[np.object_]
    values: NDArray[np.float32]
    touched: bool = False


class Burner:
    """Values of the topmost shape at each pixel.

    Args:
        layers: The shapes, in the order in which they are drawn.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._tree = shapely.STRtree(layers.areas)

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Compute the values of a window.

        Args:
            window: Part of the grid; it may reach outside.

        Returns:
            Values, float32, shape (H, W), NaN where no shape is; validity, bool, shape (H, W).
        """
        height, width = window.shape
        values = np.full((height, width), np.nan, np.float32)
        rows = max(1, _STRIP_PX // max(1, width))
        for row in range(0, height, rows):
            strip = Window.at(window.row_start + row, window.col_start, (min(rows, height - row), width))
            self._burn(strip, values[row : row + rows])
        return values, np.isfinite(values)

    def _burn(self, window: Window, out: NDArray[np.float32]) -> None:
        r0, r1, c0, c1 = window
        near = np.sort(self._tree.query(shapely.box(c0, r0, c1, r1), predicate="intersects"))
        if not near.size:
            return
        areas, marks = self._layers.areas[near], self._layers.marks[near]
        rings = _ring_edges(areas)
        found = [_filled(rings, window), _crossed(_line_edges(marks), window, on_border=True), _pointed(marks, window)]
        if self._layers.touched:
            found.append(_crossed(_of_polygons(rings, marks), window, on_border=False))
        spans = _Spans(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
        order = np.argsort(spans.shape, kind="stable")
        _write(_Spans(*(part[order] for part in spans)), self._layers.values[near], window, out)


def _write(spans: _Spans, values: NDArray[np.float32], window: Window, out: NDArray[np.float32]) -> None:
    """Write spans in their order; of several values for a pixel the last one stays."""
    flat = out.reshape(-1)
    start = (spans.row - window.row_start) * out.shape[1] + spans.col - window.col_start
    ends = np.cumsum(spans.width)
    first = 0
    while first < len(start):
        done = int(ends[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, done + _SPAN_PX, side="right")))
        width = spans.width[first:stop]
        before = np.repeat(ends[first:stop] - width - done, width)
        place = np.repeat(start[first:stop], width) + np.arange(len(before)) - before
        flat[place] = np.repeat(values[spans.shape[first:stop]], width)
        first = stop


def _filled(edges: _Edges, window: Window) -> _Spans:
    """Pixels whose centres lie in polygons; where an edge runs through a centre, those below and right of it count."""
    r0, r1, c0, c1 = window
    first, stop = (
        np.clip(np.ceil(of(edges.ya, edges.yb) - 0.5), r0, r1).astype(np.int64) for of in (np.minimum, np.maximum)
    )
    edge, row = _ranges(first, stop)
    xa, ya = edges.xa[edge], edges.ya[edge]
    x = xa + (row + 0.5 - ya) * ((edges.xb[edge] - xa) / (edges.yb[edge] - ya))
    col = np.clip(np.ceil(x - 0.5), c0, c1).astype(np.int64) - c0
    # Sorted by shape, row and column, two neighbours are the ends of a span.
    side = c1 - c0 + 1
    keys = np.sort((edges.shape[edge] * (r1 - r0) + row - r0) * side + col)
    begin, end = keys[::2], keys[1::2]
    line, col = np.divmod(begin, side)
    shape, row = np.divmod(line, r1 - r0)
    width = end - begin
    some = width > 0
    return _Spans(shape[some], row[some] + r0, col[some] + c0, width[some])


def _crossed(edges: _Edges, window: Window, *, on_border: bool) -> _Spans:
    """Pixels that edges run through; pieces along the border of a pixel count only ``on_border``."""
    r0, r1, c0, c1 = window
    xa, ya, xb, yb = edges.xa, edges.ya, edges.xb, edges.yb
    seen = (np.minimum(xa, xb) <= c1) & (np.maximum(xa, xb) >= c0)
    seen &= (np.minimum(ya, yb) <= r1) & (np.maximum(ya, yb) >= r0)
    edges = edges.only(seen)
    _, xa, ya, xb, yb = edges
    # Every edge is cut where it crosses the border of a column or row; the middle of a piece names its pixel.
    cuts = [(np.arange(len(xa)), np.zeros(len(xa))), (np.arange(len(xa)), np.ones(len(xa)))]
    for a, b, low, high in ((xa, xb, c0, c1), (ya, yb, r0, r1)):
        first, last = (np.clip(np.ceil(np.minimum(a, b)), low, high + 1), np.clip(np.maximum(a, b), low - 1, high))
        edge, place = _ranges(first.astype(np.int64), np.floor(last).astype(np.int64) + 1)
        step = (b - a)[edge]
        apart = step != 0
        cuts.append((edge[apart], (place[apart] - a[edge[apart]]) / step[apart]))
    edge, t = (np.concatenate(parts) for parts in zip(*cuts, strict=True))
    order = np.lexsort((t, edge))
    edge, t = edge[order], t[order]
    piece = edge[1:] == edge[:-1]
    middle, edge = ((t[1:] + t[:-1]) / 2)[piece], edge[1:][piece]
    x, y = xa[edge] + middle * (xb - xa)[edge], ya[edge] + middle * (yb - ya)[edge]
    col, row = np.floor(x), np.floor(y)
    kept = (col >= c0) & (col < c1) & (row >= r0) & (row < r1)
    if not on_border:
        kept &= (np.abs(x - np.rint(x)) > _SLACK_PX) & (np.abs(y - np.rint(y)) > _SLACK_PX)
    return _single(edges.shape[edge][kept], row[kept], col[kept])


def _pointed(marks: NDArray[np.object_], window: Window) -> _Spans:
    """Pixels that hold points."""
    r0, r1, c0, c1 = window
    parts, owner = shapely.get_parts(marks, return_index=True)
    points = shapely.get_type_id(parts) == shapely.GeometryType.POINT
    xy = np.floor(shapely.get_coordinates(parts[points]))
    col, row = xy[:, 0], xy[:, 1]
    kept = (col >= c0) & (col < c1) & (row >= r0) & (row < r1)
    return _single(owner[points][kept], row[kept], col[kept])


def _single(shape: NDArray[np.integer], row: NDArray[np.float64], col: NDArray[np.float64]) -> _Spans:
    return _Spans(shape.astype(np.int64), row.astype(np.int64), col.astype(np.int64), np.ones(len(row), np.int64))


def _ring_edges(shapes: NDArray[np.object_]) -> _Edges:
    """The edges of all rings of polygons, each with the position of its polygon."""
    parts, of_part = shapely.get_parts(shapes, return_index=True)
    rings, of_ring = shapely.get_rings(parts, return_index=True)
    return _joined(rings, of_part[of_ring])


def _line_edges(marks: NDArray[np.object_]) -> _Edges:
    parts, owner = shapely.get_parts(marks, return_index=True)
    lines = shapely.get_type_id(parts) == shapely.GeometryType.LINESTRING
    return _joined(parts[lines], owner[lines])


def _joined(lines: NDArray[np.object_], owner: NDArray[np.integer]) -> _Edges:
    xy, line = shapely.get_coordinates(lines, return_index=True)
    along = line[1:] == line[:-1]
    (xa, ya), (xb, yb) = xy[:-1][along].T, xy[1:][along].T
    return _Edges(owner[line[:-1][along]].astype(np.int64), xa, ya, xb, yb)


def _of_polygons(edges: _Edges, marks: NDArray[np.object_]) -> _Edges:
    """Edges of shapes that are polygons themselves, not lines or points with a width."""
    drawn = shapely.is_missing(marks)[edges.shape] if len(edges.shape) else np.zeros(0, bool)
    return edges.only(drawn)


def _ranges(first: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whole numbers from ``first`` to below ``stop`` of each entry: positions of the entries, and the numbers."""
    count = np.maximum(stop - first, 0)
    entry = np.repeat(np.arange(len(first)), count)
    number = np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    return entry, number
