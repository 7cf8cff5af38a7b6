"""Rasters whose numbers were measured, told from those whose numbers are classes."""

from __future__ import annotations

import shlex

from geocrodino.errors import BundleError
from geocrodino.geo.rasters.reader import RasterSource


def require_measured(raster: RasterSource, expected: str) -> None:
    """Refuse rasters whose numbers are classes or positions in a table of colours.

    Args:
        raster: The raster.
        expected: What its values should be, for the message.

    Raises:
        BundleError: If it is such a raster.
    """
    if not (raster.is_map or raster.has_palette):
        return
    if raster.is_map:
        found = "a map that geocrodino wrote: its values are classes"
        advice = "Give the raster that the map was made from."
    else:
        found = "a table of colours: its values are classes, or colours by number"
        advice = (
            "If it is a class raster, give it as labels. If it is a coloured image, expand it first: gdal_translate "
            f"-expand rgb {shlex.quote(str(raster.path))} rgb.tif"
        )
    raise BundleError(f"{raster.path}: expected {expected}, found {found}.\n{advice}")
