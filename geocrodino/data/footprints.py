"""The ground that scenes and their splits cover, in planes where they can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from shapely.geometry.base import BaseGeometry

from geocrodino.errors import GridError
from geocrodino.geo.rasters.grid import crs_of, metres_per_unit, proj_crs

_COMMON = "EPSG:3857"  # true to shapes, so the nearest of several places is found in it too
_EDGE_PARTS = 20  # straight edges become curves in another CRS


@dataclass(frozen=True)
class Footprint:
    """Polygons of one scene.

    Attributes:
        scene: Number of the scene, from 0.
        split: Name of the split of these polygons; empty for a whole scene.
        shape: The polygons, in the CRS of the plane.
        pixel: Side of a pixel of the scene, in units of that CRS.
    """

    scene: int
    split: str
    shape: BaseGeometry
    pixel: float


@dataclass(frozen=True)
class Plane:
    """Footprints in one CRS.

    Attributes:
        crs: The CRS.
        footprints: The polygons.
    """

    crs: pyproj.CRS
    footprints: tuple[Footprint, ...]

    def overlaps(self) -> Iterator[tuple[Footprint, Footprint, float]]:
        """Find footprints of different scenes that share more than the pixels along their edges.

        Yields:
            Two footprints, that of the earlier scene first, and the share of the smaller one that the other covers, 0
            to 1.
        """
        shapes = [f.shape for f in self.footprints]
        firsts, seconds = shapely.STRtree(shapes).query(shapes, predicate="intersects")
        for first, second in sorted(zip(firsts.tolist(), seconds.tolist(), strict=True)):
            one, other = self.footprints[first], self.footprints[second]
            if one.scene >= other.scene:
                continue
            shared = one.shape.intersection(other.shape)
            if shared.area and not shared.buffer(-0.51 * max(one.pixel, other.pixel)).is_empty:
                yield one, other, float(shared.area / min(one.shape.area, other.shape.area))

    def distances(self, split: str, other: str) -> Iterator[float]:
        """Measure how far the polygons of two splits are apart.

        Args:
            split: Name of a split.
            other: Name of another one.

        Yields:
            Distance between two neighbours, m; none where the plane lacks one of the splits.
        """
        from_there = [f.shape for f in self.footprints if f.split == split]
        to_there = [f.shape for f in self.footprints if f.split == other]
        if not from_there or not to_there:
            return
        (start, end), gaps = shapely.STRtree(to_there).query_nearest(from_there, return_distance=True)
        nearest = int(gaps.argmin())
        line = shapely.shortest_line(from_there[start[nearest]], to_there[end[nearest]])
        yield self._metres(line)

    def _metres(self, line: BaseGeometry) -> float:
        """Length of a short line on the ground."""
        (xa, ya), (xb, yb) = shapely.get_coordinates(line)
        along_x, along_y = metres_per_unit(CRS(self.crs.to_wkt()), (xa + xb) / 2, (ya + yb) / 2)
        return float(np.hypot((xb - xa) * along_x, (yb - ya) * along_y))


def planes_of(grids: Sequence[GeoBox], shapes: Sequence[tuple[int, str, BaseGeometry]]) -> tuple[Plane, ...]:
    """Bring polygons of scenes into planes where they can be compared.

    Args:
        grids: Grid of each scene.
        shapes: Number of the scene, name of the split and polygons, in the CRS of the scene's grid.

    Returns:
        One plane if all scenes have one CRS, or lie on the Earth. Scenes whose coordinates have no place on the Earth
        cannot be compared with others: each gets a plane of its own.
    """
    crs = {i: proj_crs(crs_of(grids[i]).wkt) for i in dict.fromkeys(i for i, _, _ in shapes)}
    if not crs:
        return ()
    first = next(iter(crs.values()))
    placed = [s for s in shapes if not crs[s[0]].is_engineering]
    alone = [s for s in shapes if crs[s[0]].is_engineering]
    found: list[Plane] = []
    if placed and all(crs[i] == first for i, _, _ in placed):
        pixels = [abs(grids[i].affine.a) for i, _, _ in placed]
        found.append(_plane(first, placed, [shape for _, _, shape in placed], pixels))
    elif placed:
        moved = {i: _moved([s for s in placed if s[0] == i], crs[i]) for i in dict.fromkeys(i for i, _, _ in placed)}
        there = [s for s in placed if moved[s[0]] is not None]
        alone += [s for s in placed if moved[s[0]] is None]
        if there:
            common = [shape for i in dict.fromkeys(i for i, _, _ in there) for shape in moved[i] or ()]
            there = sorted(there, key=lambda s: list(moved).index(s[0]))
            sizes = [new.area / old.area if old.area else 1.0 for new, (_, _, old) in zip(common, there, strict=True)]
            pixels = [abs(grids[i].affine.a) * float(np.sqrt(s)) for s, (i, _, _) in zip(sizes, there, strict=True)]
            found.append(_plane(pyproj.CRS.from_user_input(_COMMON), there, common, pixels))
    for i in dict.fromkeys(i for i, _, _ in alone):
        own = [s for s in alone if s[0] == i]
        found.append(_plane(crs[i], own, [shape for _, _, shape in own], [abs(grids[i].affine.a)] * len(own)))
    return tuple(found)


def _plane(
    crs: pyproj.CRS,
    shapes: Sequence[tuple[int, str, BaseGeometry]],
    moved: Sequence[BaseGeometry],
    pixels: Sequence[float],
) -> Plane:
    rows = zip(shapes, moved, pixels, strict=True)
    return Plane(crs, tuple(Footprint(i, split, shape, pixel) for (i, split, _), shape, pixel in rows))


def is_placeless(grid: GeoBox) -> bool:
    """Find out whether a grid has a pixel size but no place on the Earth.

    Args:
        grid: The grid.

    Returns:
        Whether its CRS is an engineering CRS.
    """
    return pyproj.CRS.from_user_input(crs_of(grid).wkt).is_engineering


def _moved(shapes: Sequence[tuple[int, str, BaseGeometry]], crs: pyproj.CRS) -> list[BaseGeometry] | None:
    """The polygons of a scene in the common CRS; None if there is no way there."""
    own = [shape for _, _, shape in shapes]
    side = max((max(s.bounds[2] - s.bounds[0], s.bounds[3] - s.bounds[1]) for s in own if not s.is_empty), default=0)
    try:
        series = gpd.GeoSeries([shapely.segmentize(s, side / _EDGE_PARTS) if side else s for s in own], crs=crs)
        found = list(series.to_crs(_COMMON))
    except (ProjError, GridError):
        return None
    return found if all(np.isfinite(shapely.get_coordinates(s)).all() for s in found) else None
