"""The place of rasters whose files state none: a CRS for their coordinates, or a pixel size alone."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache

import pyproj
import rasterio
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError

from geocrodino.errors import AreaWarning, ConfigError, RasterError
from geocrodino.geo.rasters.grid import crs_of, turn_of
from geocrodino.geo.rasters.header_checks import require_place

PIXEL_TAG = "PIXEL_M"
"""Tag of a map without a place: its pixel size, m."""

_NO_PLACE = (
    'ENGCRS["no place, metres",EDATUM["upper left corner of the file"],CS[Cartesian,2],'
    'AXIS["x",east,ORDER[1]],AXIS["y",north,ORDER[2]],LENGTHUNIT["metre",1]]'
)


@dataclass(frozen=True)
class Place:
    """What a user states of the place of files that do not.

    Attributes:
        crs: CRS of files that have coordinates and state none, anything that pyproj takes; None: not given.
        pixel_m: Pixel size of files without any place, m; None: not given. Such a file begins at x 0 and y 0, and y
            decreases downwards.
    """

    crs: str | None = None
    pixel_m: float | None = None


def stated_place(crs: str | None, pixel_m: float | None) -> Place | None:
    """Put together what a user states.

    Args:
        crs: CRS of files that have coordinates and state none, or None.
        pixel_m: Pixel size of files without any place, m, or None.

    Returns:
        The place; None where neither is given.
    """
    return None if crs is None and pixel_m is None else Place(crs, pixel_m)


@lru_cache(maxsize=1)
def no_place() -> CRS:
    """The CRS of rasters of which only the pixel size is known.

    Returns:
        An engineering CRS in metres, from which no transformation leads to another one.
    """
    return CRS(_NO_PLACE)


def is_placeless(grid: GeoBox) -> bool:
    """Find out whether only the pixel size of a grid is known.

    Args:
        grid: The grid.

    Returns:
        Whether it has no place on the ground.
    """
    return bool(grid.crs == no_place())


def place_of(grid: GeoBox) -> Place | None:
    """Get what a user would state for files that belong to a grid.

    Args:
        grid: The grid.

    Returns:
        The pixel size of a grid without a place; None for any other.
    """
    return Place(pixel_m=abs(grid.affine.a)) if is_placeless(grid) else None


def placeless_grid(shape: tuple[int, int], pixel_m: float) -> GeoBox:
    """Make the grid of a raster of which only the pixel size is known.

    Args:
        shape: Rows and columns.
        pixel_m: Pixel size, m.

    Returns:
        The grid, whose upper left corner is x 0 and y 0.
    """
    return GeoBox(shape, Affine(pixel_m, 0, 0, 0, -pixel_m, 0), no_place())


def located(name: str, dataset: rasterio.DatasetReader, place: Place | None) -> GeoBox:
    """Find the grid of an open raster: as its file says, otherwise as the user states.

    Args:
        name: The raster, for messages.
        dataset: The open raster.
        place: What the user states; None: nothing.

    Returns:
        The grid. A map that this package made without a place says so itself.

    Raises:
        RasterError: If the file has no geotransform and no pixel size is stated.
        MissingCRSError: If it has a geotransform but no CRS, and none is stated.
        ConfigError: If the stated CRS is none.

    Warns:
        AreaWarning: If the file has another CRS than the stated one, or has a place although only a pixel size is
            stated: what is stated is then not used. If it has coordinates without a CRS and a pixel size is stated:
            then its coordinates are not used.
    """
    shape = (dataset.height, dataset.width)
    own = place or Place(pixel_m=_tagged(dataset))
    has_transform = dataset.transform != Affine.identity()
    if own.crs is not None and has_transform:
        stated = _crs(own.crs)
        if dataset.crs is None:
            return GeoBox(shape, dataset.transform, stated)
        if CRS(dataset.crs.to_wkt()) != stated:
            warnings.warn(
                f"{name}: the file has its own CRS ({_named(dataset.crs.to_wkt())}), and the stated one ({own.crs}) is "
                "not used for it.",
                AreaWarning,
                stacklevel=4,
            )
    elif own.pixel_m is not None and (dataset.crs is None or not has_transform) and not _has_points(dataset):
        if has_transform and place is not None:
            warnings.warn(
                f"{name}: the file has coordinates, which are not used: only the stated pixel size ({own.pixel_m:g} m) "
                "is. If they are right, state their CRS instead, for instance: `crs='EPSG:32631'`",
                AreaWarning,
                stacklevel=4,
            )
        return placeless_grid(shape, own.pixel_m)
    require_place(name, dataset)
    if place is not None and place.crs is None and place.pixel_m is not None:
        warnings.warn(
            f"{name}: the file has a place of its own, and the stated pixel size ({place.pixel_m:g} m) is not used for "
            "it.",
            AreaWarning,
            stacklevel=4,
        )
    grid = GeoBox(shape, dataset.transform, CRS(dataset.crs.to_wkt()))
    _require_on_globe(name, grid)
    return grid


def _require_on_globe(name: str, grid: GeoBox) -> None:
    """Refuse latitudes beyond the poles, and longitudes of more than a whole turn; a pixel more is usual."""
    if not crs_of(grid).geographic:
        return
    turn, box, a = turn_of(crs_of(grid)), grid.boundingbox, grid.affine
    high, wide = abs(a.d) + abs(a.e), abs(a.a) + abs(a.b)
    if max(-box.bottom, box.top) > turn / 4 + high or box.right - box.left > turn + 2 * wide:
        raise RasterError(
            name,
            f"expected longitudes of at most a whole turn and latitudes of -{turn / 4:g} to {turn / 4:g}, found "
            f"longitudes {box.left:.6g} to {box.right:.6g} and latitudes {box.bottom:.6g} to {box.top:.6g}.\nIs its "
            "CRS another one, or are the two exchanged? Write the right CRS and geotransform into it.",
        )


def _has_points(dataset: rasterio.DatasetReader) -> bool:
    """Whether ground control points or rational polynomials place a raster; to look for the latter takes long."""
    return bool(dataset.gcps[0]) or dataset.rpcs is not None


def _tagged(dataset: rasterio.DatasetReader) -> float | None:
    """The pixel size that a map without a place carries."""
    try:
        found = float(dataset.tags().get(PIXEL_TAG, "nan"))
    except ValueError:
        return None
    return found if math.isfinite(found) and found > 0 else None


def _crs(text: str) -> CRS:
    try:
        return CRS(pyproj.CRS.from_user_input(text).to_wkt())
    except ProjError as error:
        raise ConfigError(f"`crs={text!r}`: expected a CRS such as EPSG:32631 or WKT, found none ({error}).") from error


def _named(wkt: str) -> str:
    crs = pyproj.CRS.from_user_input(wkt)
    authority = crs.to_authority()
    return crs.name if authority is None else ":".join(authority)


def pictures(place: Place | None) -> tuple[str, ...]:
    """Names of the files of a folder that are rasters only where their place is stated.

    Args:
        place: What the user states; None: nothing.

    Returns:
        Their suffixes.
    """
    return (".png", ".jpg", ".jpeg") if place is not None else ()
