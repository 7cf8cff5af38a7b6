"""Areas of interest: polygons with a split, from a file, a bounding box or a geometry as text."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from geopandas.array import GeometryArray
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from shapely.geometry.base import BaseGeometry

from geocrodino.errors import AOIError, AreaWarning
from geocrodino.files.access import whole_file
from geocrodino.geo.areas.crs import with_crs
from geocrodino.geo.areas.sources import AreaSource, area_source, read_source
from geocrodino.geo.areas.splits import SPLITS, Split, split_column
from geocrodino.geo.rasters.grid import proj_crs

_LEARNT_BEFORE: dict[str, tuple[str, ...]] = {"val": ("train", "unlabelled"), "test": ("train", "val", "unlabelled")}
"""For each split that a training is judged on, the splits that it used before."""


@dataclass(frozen=True)
class AOI:
    """Polygons of an area of interest.

    Attributes:
        frame: GeoDataFrame with polygons and, where the file has one, a column ``split``.
        source: Where it comes from, for messages.
        given: What the user named, if the polygons still have its coordinates; None if they were made or transformed.
    """

    frame: gpd.GeoDataFrame
    source: str
    given: AreaSource | None = field(default=None, repr=False, compare=False)
    _joined: dict[str | None, BaseGeometry] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def crs(self) -> pyproj.CRS:
        """CRS of the polygons."""
        crs: pyproj.CRS = self.frame.crs
        return crs

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Splits that the polygons name, none if there is no such column."""
        if "split" not in self.frame:
            return ()
        present = set(self.frame["split"])
        return tuple(s for s in SPLITS if s in present)

    def polygons(self, split: str | None = None) -> BaseGeometry:
        """Join the polygons to one geometry.

        Args:
            split: Name of a split; all polygons by default.

        Returns:
            The geometry, in the CRS of the AOI.

        Raises:
            AOIError: If there is no polygon of that split.
        """
        if split in self._joined:
            return self._joined[split]
        frame = self.frame
        if split is not None:
            if split not in self.splits:
                there = f"Found: {', '.join(self.splits)}."
                if not self.splits:
                    there = "Found: no column `split`.\nSplits that a training drew are in splits.gpkg of its folder."
                raise AOIError(f"{self.source}: no polygon of the split {split!r}. {there}")
            chosen = frame["split"] == split
            frame = frame if chosen.all() else frame[chosen]
        # Without a common grid, polygons that share an edge would be joined with slivers of 1e-10 between them.
        self._joined[split] = shapely.union_all(frame.geometry.values)
        return self._joined[split]

    def to_crs(self, crs: object) -> AOI:
        """Transform the polygons to another CRS.

        Args:
            crs: Anything that pyproj takes as a CRS.

        Returns:
            The same polygons in that CRS.

        Raises:
            AOIError: If there is no transformation to it.
        """
        try:
            return AOI(self.frame.to_crs(pyproj.CRS.from_user_input(crs)), self.source)
        except ProjError as error:
            raise AOIError(f"{self.source}: cannot be put in the CRS of the raster ({error}).") from error

    def in_degrees(self, split: str | None = None) -> BaseGeometry:
        """Transform the polygons to longitude and latitude.

        Args:
            split: Name of a split; all polygons by default.

        Returns:
            One geometry in degrees, WGS 84; on another celestial body in the geographic CRS of the AOI's own CRS.

        Raises:
            AOIError: If there is no polygon of that split.
        """
        polygons = gpd.GeoSeries([self.polygons(split)], crs=self.crs)
        try:
            moved = polygons.to_crs("EPSG:4326")
        except ProjError:
            moved = polygons.to_crs(self.crs.geodetic_crs or self.crs)
        in_degrees: BaseGeometry = moved.iloc[0]
        return in_degrees

    def save(self, path: Path) -> None:
        """Write the polygons to a GeoPackage, in the layer ``aoi``.

        Args:
            path: The file; it appears completely or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        with whole_file(path) as partial:
            self.frame.to_file(partial, layer="aoi", driver="GPKG")


def read_aoi(source: str | Path, crs: str | None = None, *, splits: str = "all") -> AOI:
    """Read an area of interest.

    Args:
        source: One of

            - a GeoJSON, GeoPackage, Shapefile or anything else that GDAL reads, a zip archive or a URL of it; one of
              several layers as ``areas.gpkg|layername=fields``;
            - a bounding box ``minx,miny,maxx,maxy``;
            - a geometry as WKT, EWKT or GeoJSON.
        crs: CRS of the coordinates. It overrides the one that a file names, with a warning if the two differ.
        splits: Which splits must be usable: ``all``; one split, by name; or ``none``, where all polygons count alike
            and a column of splits is not read.

    Returns:
        The polygons, those that are invalid repaired, with a column ``split`` if splits are asked for and there.

    Raises:
        AOIError: If there is no such file, no polygon in it, no CRS, several layers of polygons, an unknown split, or
            splits that overlap.
        AccessError: If a file cannot be accessed.

    Warns:
        AreaWarning: If the CRS, the layer or the column of splits is not the one that the file names first, or rows
            have no area and do not count.
    """
    raw = read_source(area_source(source))
    label = raw.source.label
    shapes = np.asarray(raw.frame.geometry.values)
    _require_polygons(raw.source, shapes)
    frame = with_crs(raw, crs)
    frame = frame.set_geometry(_areas(shapes, label), crs=frame.crs)
    column = None if splits == "none" else split_column(frame, label, None if splits == "all" else splits)
    shapes = frame.geometry.values
    frame = gpd.GeoDataFrame({} if column is None else {"split": column}, geometry=shapes, crs=frame.crs)
    frame = frame[~frame.geometry.is_empty]
    if column is not None:
        frame = frame[frame["split"].notna()]
    aoi = AOI(frame.reset_index(drop=True), label, raw.source)
    _require_disjoint(aoi, None if splits == "all" else splits)
    return aoi


def area_file(area: str | Path | AOI | None) -> Path | None:
    """Find the local file that an area of interest is read from.

    Args:
        area: An area, or what a user names as one.

    Returns:
        The file or archive; None for text, URLs and areas that were made here.

    Raises:
        AOIError: If the area is named in a way that cannot be read; see `read_aoi`.
        AccessError: If a file cannot be accessed.
    """
    if area is None:
        return None
    given = area.given if isinstance(area, AOI) else area_source(area)
    return None if given is None else given.file


def from_polygons(polygons: dict[Split, BaseGeometry], crs: object, source: str) -> AOI:
    """Make an AOI from one geometry for each split.

    Args:
        polygons: Geometry of each split.
        crs: CRS of the geometries, anything that pyproj takes as one.
        source: Name of the AOI in messages.

    Returns:
        The AOI, with one row for each split.
    """
    known = proj_crs(crs) if isinstance(crs, str) else pyproj.CRS.from_user_input(crs)
    # In this form, the frames of thousands of tiles take half the time.
    shapes = GeometryArray(np.array(list(polygons.values()), dtype=object), crs=known)
    columns = {"split": list(polygons), "geometry": shapes}
    aoi = AOI(gpd.GeoDataFrame(columns, geometry="geometry"), source)
    aoi._joined.update((split, shape) for split, shape in polygons.items())  # there is nothing to join
    return aoi


def _require_polygons(source: AreaSource, shapes: NDArray[np.object_]) -> None:
    label = source.label
    missing = shapely.is_missing(shapes)
    if (missing | shapely.is_empty(shapes)).all():
        raise AOIError(f"{label}: holds no polygon.\nDraw polygons in it, or name another area.")
    if missing.any():
        raise AOIError(
            f"{label}: {missing.sum()} of {len(shapes)} rows have no geometry. Delete them, or draw their polygons."
        )
    infinite = sum(not np.isfinite(shapely.get_coordinates(shape)).all() for shape in shapes)
    if infinite:
        raise AOIError(
            f"{label}: {infinite} of {len(shapes)} rows have coordinates that are not finite numbers. Delete them, or "
            "draw them again."
        )
    drawn = shapes[~shapely.is_empty(shapes)]
    other = sorted({shape.geom_type for shape in drawn if not _polygons_of(shape)})
    if other:
        raise AOIError(f"{label}: expected polygons only, found {', '.join(other)}.{_closed_lines(source, drawn)}")


def _closed_lines(source: AreaSource, shapes: Iterable[BaseGeometry]) -> str:
    """Advice for outlines of areas that were drawn as lines."""
    if source.kind != "file" or not all(s.geom_type == "LineString" and s.is_closed for s in shapes):
        return ""
    layer = "" if source.layer is None else f", layer={source.layer!r}"
    code = (
        f"import geopandas, shapely; a = geopandas.read_file({source.gdal!r}{layer}); "
        'a.set_geometry([shapely.Polygon(line) for line in a.geometry], crs=a.crs).to_file("areas.gpkg")'
    )
    return f"\nThe lines are closed. Make areas.gpkg with polygons of them: python -c {shlex.quote(code)}"


def _parts(shape: BaseGeometry) -> list[BaseGeometry]:
    """The simple geometries of a geometry, those in nested collections included."""
    if not hasattr(shape, "geoms"):
        return [shape]
    return [p for part in shape.geoms for p in _parts(part)]


def _polygons_of(shape: BaseGeometry) -> list[BaseGeometry]:
    return [p for p in _parts(shape) if p.geom_type == "Polygon"]


def _areas(shapes: NDArray[np.object_], label: str) -> NDArray[np.object_]:
    """The areas of geometries, repaired where invalid; rows without an area are empty.

    Raises:
        AOIError: If there is no area at all.

    Warns:
        AreaWarning: If rows, or parts of rows, have no area.
    """
    found, partly = np.empty(len(shapes), object), 0
    for i, shape in enumerate(shapely.make_valid(shapely.force_2d(shapes))):
        parts = _parts(shape)
        areas = [p for p in parts if p.area > 0]
        whole = len(areas) == len(parts) and shape.geom_type != "GeometryCollection"
        found[i] = shape if whole else shapely.union_all(areas or [shapely.Polygon()])
        partly += bool(areas) and len(areas) < len(parts)
    without = int(shapely.is_empty(found).sum())
    if without == len(found):
        raise AOIError(f"{label}: holds no polygon with an area.\nDraw polygons in it, or name another area.")
    if without:
        note = f"{label}: {without} of {len(found)} rows have no area, and do not count."
        warnings.warn(note, AreaWarning, stacklevel=4)
    if partly:
        note = f"{label}: {partly} of {len(found)} rows also hold parts without an area; their areas alone count."
        warnings.warn(note, AreaWarning, stacklevel=4)
    return found


def _require_disjoint(aoi: AOI, wanted: str | None) -> None:
    """Check that splits share no area; for one wanted split, only those that the training used before count."""
    shapes = {s: aoi.polygons(s) for s in aoi.splits}
    for first, second in combinations(shapes, 2):
        if wanted is not None and not _judges(wanted, first, second):
            continue
        shared = shapes[first].intersection(shapes[second]).area
        if shared > 1e-6 * min(shapes[first].area, shapes[second].area):
            raise AOIError(
                f"{aoi.source}: the splits {first} and {second} overlap by "
                f"{100 * shared / shapes[second].area:.3g} % of {second}. "
                "Cut them apart: what is learned from must not be reported on."
            )


def _judges(wanted: str, first: str, second: str) -> bool:
    learnt = _LEARNT_BEFORE.get(wanted, ())
    return (first == wanted and second in learnt) or (second == wanted and first in learnt)
