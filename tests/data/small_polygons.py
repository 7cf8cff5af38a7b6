"""Polygons of any shape."""

from __future__ import annotations

import math

import shapely
from hypothesis import strategies as st


@st.composite
def polygons(draw):
    """Stars of any shape, in pixels, some reaching over the grid's edge; now and then with a hole."""
    n = draw(st.integers(3, 9))
    radii = [draw(st.floats(4, 45)) for _ in range(n)]
    turn = draw(st.floats(0, 6.28))
    centre = draw(st.tuples(st.floats(5, 65), st.floats(5, 55)))
    ring = [
        (centre[0] + r * math.cos(turn + 6.283 * i / n), centre[1] + r * math.sin(turn + 6.283 * i / n))
        for i, r in enumerate(radii)
    ]
    shape = shapely.make_valid(shapely.Polygon(ring))
    if draw(st.booleans()):
        shape = shape.difference(shapely.Point(centre).buffer(draw(st.floats(0.5, 3))))
    return shape
