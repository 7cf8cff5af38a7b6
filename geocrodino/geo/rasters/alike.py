"""Checks of rasters of which only the pixel size is known."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from geocrodino.errors import RasterError
from geocrodino.geo.rasters.place import Place, is_placeless, place_of, stated_place
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_raster

_SAME_SIDE = 0.01
"""Files without a place may differ in size by this share: some tiles of public data lack a row or a column."""


def place_beside(path: str | Path, crs: str | None = None) -> Place | None:
    """Get the place of files that belong to a map and state none themselves.

    Args:
        path: The map.
        crs: CRS of files that have coordinates and state none, where the user gave one.

    Returns:
        The pixel size of a map without a place, and the CRS; None where neither is known.

    Raises:
        RasterError: If the map cannot be opened.
        AccessError: If the operating system does not let it be looked up or read.
    """
    own = place_of(open_raster(path).geobox)
    return stated_place(crs, None if own is None else own.pixel_m)


def require_one_size(sources: Mapping[str, RasterSource]) -> None:
    """Check that rasters of which only the pixel size is known can lie on each other.

    Args:
        sources: Rasters by role; the roles appear in messages.

    Raises:
        RasterError: If a raster without a place is more than 1 % larger or smaller than the first one, or others have a
            place.
    """
    without = {role: source for role, source in sources.items() if is_placeless(source.geobox)}
    placed = {role: source for role, source in sources.items() if role not in without}
    if without and placed:
        (role, source), (other, like) = next(iter(without.items())), next(iter(placed.items()))
        names = [shlex.quote(str(each.path)) for each in (like, source)]
        article = "an" if role[0] in "aeiou" else "a"
        raise RasterError(
            source.name,
            f"expected {article} {role} raster that says where it lies, as the {other} raster {like.name} does, found "
            "one with a pixel size alone.\nIf both show the same pixels, copy the place, for instance: "
            f"rio edit-info --like {names[0]} --crs like --transform like {names[1]}",
        )
    for role, source in without.items():
        expected, found = next(iter(without.values())).geobox.shape, source.geobox.shape
        if any(abs(a - b) > _SAME_SIDE * b for a, b in zip(found, expected, strict=True)):
            raise RasterError(
                source.name,
                f"expected {expected[0]} x {expected[1]} px for the {role} raster, found {found[0]} x {found[1]}. "
                "Files without a place are laid on each other pixel by pixel.\n"
                f"Bring it to that size first, for instance: gdal_translate -outsize {expected[1]} {expected[0]} "
                f"{shlex.quote(str(source.path))} alike.tif",
            )
