"""Areas of interest: polygons with a split, from a file or a bounding box."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import geopandas as gpd
import pyproj
import shapely
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry.base import BaseGeometry

from geocrodino.errors import AOIError
from geocrodino.geo.files import whole_file

Split = Literal["train", "val", "test", "unlabelled"]
"""Train on, choose on, report on; learn from the rasters alone, whatever labels there are."""

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class AOI:
    """Polygons of an area of interest.

    Attributes:
        frame: GeoDataFrame with polygons and, where the file has one, a column ``split``.
        source: Where it comes from, for messages.
    """

    frame: gpd.GeoDataFrame
    source: str

    @property
    def crs(self) -> pyproj.CRS:
        """CRS of the polygons."""
        crs: pyproj.CRS = self.frame.crs
        return crs

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the polygons name, none if there is no such column."""
        if "split" not in self.frame:
            return ()
        present = set(self.frame["split"])
        return tuple(s for s in SPLITS if s in present)

    def polygons(self, split: str | None = None) -> BaseGeometry:
        """All polygons, or those of one split, as one geometry in the AOI's CRS.

        Raises:
            AOIError: If there is no polygon of that split.
        """
        frame = self.frame
        if split is not None:
            if split not in self.splits:
                there = f"Found: {', '.join(self.splits)}."
                if not self.splits:
                    there = "Found: no column `split`.\nSplits that a training drew are in splits.gpkg of its folder."
                raise AOIError(f"{self.source}: no polygon of the split {split!r}. {there}")
            frame = frame[frame["split"] == split]
        # Without a common grid, polygons that share an edge would be joined with slivers of 1e-10 between them.
        return shapely.union_all(frame.geometry.values)

    def to_crs(self, crs: object) -> AOI:
        """The same polygons in another CRS.

        Raises:
            AOIError: If no transformation leads there.
        """
        try:
            return AOI(self.frame.to_crs(pyproj.CRS.from_user_input(crs)), self.source)
        except ProjError as error:
            raise AOIError(f"{self.source}: cannot be put in the CRS of the raster ({error}).") from error

    def in_degrees(self, split: str | None = None) -> BaseGeometry:
        """The polygons in longitude and latitude, WGS 84; on another celestial body those of the AOI's own CRS."""
        polygons = gpd.GeoSeries([self.polygons(split)], crs=self.crs)
        try:
            moved = polygons.to_crs("EPSG:4326")
        except ProjError:
            moved = polygons.to_crs(self.crs.geodetic_crs or self.crs)
        in_degrees: BaseGeometry = moved.iloc[0]
        return in_degrees

    def save(self, path: Path) -> None:
        """Write a GeoPackage."""
        with whole_file(path) as partial:
            self.frame.to_file(partial, layer="aoi", driver="GPKG")


def read_aoi(source: str | Path, crs: str | None = None) -> AOI:
    """Read an area of interest.

    Args:
        source: A GeoJSON, GeoPackage, Shapefile or anything else that GDAL reads, or ``minx,miny,maxx,maxy``.
        crs: CRS of a bounding box; for a file only if it does not name its own.

    Raises:
        AOIError: If there is no such file, no polygon in it, no CRS, an unknown split, or splits that overlap.
    """
    box = _bounding_box(str(source))
    if box is not None:
        if crs is None:
            raise AOIError(f"{source}: a bounding box needs a CRS. Name it, for instance: --aoi-crs EPSG:4326")
        frame = gpd.GeoDataFrame(geometry=[box], crs=_user_crs(crs))
        return AOI(frame, f"bounding box {source}")
    return _checked(_read_file(Path(source)), str(source), crs)


def from_polygons(polygons: dict[Split, BaseGeometry], crs: object, source: str) -> AOI:
    """An AOI from one geometry for each split."""
    frame = gpd.GeoDataFrame(
        {"split": list(polygons)}, geometry=list(polygons.values()), crs=pyproj.CRS.from_user_input(crs)
    )
    return AOI(frame, source)


def _bounding_box(text: str) -> BaseGeometry | None:
    parts = text.split(",")
    if len(parts) != 4:
        return None
    try:
        minx, miny, maxx, maxy = (float(p) for p in parts)
    except ValueError:
        return None
    if not all(map(math.isfinite, (minx, miny, maxx, maxy))) or minx >= maxx or miny >= maxy:
        raise AOIError(f"{text}: expected minx,miny,maxx,maxy with minx < maxx and miny < maxy.")
    return shapely.box(minx, miny, maxx, maxy)


def _read_file(path: Path) -> gpd.GeoDataFrame:
    if not path.exists():
        raise AOIError(f"{path}: no such file. Expected polygons, or a bounding box minx,miny,maxx,maxy.")
    try:
        layers = gpd.list_layers(path)
        drawn = layers["name"][layers["geometry_type"].notna()].tolist()
        frame = gpd.read_file(path, layer=drawn[0] if drawn else None)
    except (RuntimeError, ValueError, OSError) as error:
        raise AOIError(f"{path}: not a file of polygons that GDAL can read ({error}).") from error
    if len(drawn) > 1:
        raise AOIError(
            f"{path}: expected one layer of polygons, found {len(drawn)}: {', '.join(drawn)}.\n"
            f"Write the right one to a file of its own, for instance: ogr2ogr aoi.gpkg {path} {shlex.quote(drawn[0])}"
        )
    return frame


def _checked(frame: gpd.GeoDataFrame, source: str, crs: str | None) -> AOI:
    if not isinstance(frame, gpd.GeoDataFrame) or (frame.geometry.is_empty | frame.geometry.isna()).all():
        raise AOIError(f"{source}: holds no polygon.")
    missing = int(frame.geometry.isna().sum())
    if missing:
        raise AOIError(
            f"{source}: {missing} of {len(frame)} rows have no geometry. Delete them, or draw their polygons."
        )
    if frame.crs is None:
        if crs is None:
            raise AOIError(
                f"{source}: no coordinate reference system. Expected one in the file (a .prj beside a Shapefile), "
                "found none.\nName it, for instance: --aoi-crs EPSG:4326"
            )
        frame = frame.set_crs(_user_crs(crs))
    other = sorted(set(frame.geometry.geom_type) - {"Polygon", "MultiPolygon"})
    if other:
        raise AOIError(f"{source}: expected polygons only, found {', '.join(map(str, other))}.")
    frame = frame.set_geometry(shapely.make_valid(frame.geometry.values))
    if not shapely.area(frame.geometry.values).sum() > 0:
        raise AOIError(f"{source}: holds no polygon with an area.")
    column = next((c for c in frame.columns if str(c).lower() == "split"), None)
    if column is None:
        return AOI(frame[["geometry"]].copy(), source)
    frame = frame[[column, "geometry"]].rename(columns={column: "split"})
    frame["split"] = [str(s).strip().lower() for s in frame["split"]]
    unknown = sorted(set(frame["split"]) - set(SPLITS))
    if unknown:
        raise AOIError(f"{source}: unknown split {', '.join(map(repr, unknown))}. Expected {', '.join(SPLITS)}.")
    aoi = AOI(frame, source)
    _require_disjoint(aoi)
    return aoi


def _require_disjoint(aoi: AOI) -> None:
    found: Sequence[str] = aoi.splits
    shapes = {s: aoi.polygons(s) for s in found}
    for i, first in enumerate(found):
        for second in found[i + 1 :]:
            shared = shapes[first].intersection(shapes[second]).area
            if shared > 1e-6 * min(shapes[first].area, shapes[second].area):
                raise AOIError(
                    f"{aoi.source}: the splits {first} and {second} overlap by "
                    f"{100 * shared / shapes[second].area:.3g} % of {second}. "
                    "Cut them apart: what is learned from must not be reported on."
                )


def _user_crs(crs: str) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(crs)
    except CRSError as error:
        raise AOIError(f"{crs!r} is not a coordinate reference system. Expected for instance EPSG:32631.") from error
