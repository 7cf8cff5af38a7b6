"""Checks of raster headers: a place on the ground, real numbers, usable scales."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import rasterio
from affine import Affine

from geocrodino.errors import MissingCRSError, RasterError
from geocrodino.geo.rasters.bands import Band


def require_real(path: str | Path, bands: tuple[Band, ...]) -> None:
    """Refuse complex numbers, and scales that lose the values.

    Args:
        path: The raster, for messages.
        bands: Its bands.

    Raises:
        RasterError: If a band is complex, or a scale is 0 or not finite.
    """
    if any(band.dtype.startswith("complex") for band in bands):
        raise RasterError(
            path,
            f"expected real numbers, found {bands[0].dtype}: each value has a real and an imaginary part.\n"
            "Save the part or the magnitude that you need as a raster of its own, for instance with numpy.abs.",
        )
    broken = [b for b in bands if b.scale == 0 or not math.isfinite(b.scale) or not math.isfinite(b.offset)]
    if broken:
        raise RasterError(
            path,
            f"expected a scale that is a number other than 0 and a finite offset, found scale {broken[0].scale:g}, "
            f"offset {broken[0].offset:g}.\n"
            f"Correct the tags, for instance: gdal_edit.py -scale 1 -offset 0 {shlex.quote(str(path))}",
        )


def require_place(path: str | Path, dataset: rasterio.DatasetReader) -> None:
    """Refuse a raster that does not say where on the ground its pixels lie.

    Args:
        path: The raster, for messages.
        dataset: The open raster.

    Raises:
        RasterError: If it has no geotransform, with the command that makes one from what it has instead.
        MissingCRSError: If it has no coordinate reference system.
    """
    place = dataset.transform
    located = place != Affine.identity()
    points, points_crs = dataset.gcps
    if not located and points:
        source = "" if points_crs else "-s_srs EPSG:4326 "
        raise RasterError(
            path,
            f"is located by {len(points)} ground control points alone. Expected a geotransform: pixels of one size on "
            f"straight lines.\nWarp it onto such a grid first: gdalwarp {source}{shlex.quote(str(path))} warped.tif",
        )
    if not located and dataset.rpcs is not None:
        raise RasterError(
            path,
            "is located by rational polynomial coefficients (RPC) alone. Expected a geotransform: pixels of one size "
            "on straight lines.\nWarp it onto such a grid first, with a terrain model where there is one: "
            f"gdalwarp -rpc -to RPC_DEM=dem.tif -t_srs EPSG:32631 {shlex.quote(str(path))} warped.tif",
        )
    if not located:
        command = "rio edit-info" if dataset.crs else "rio edit-info --crs EPSG:32631"
        what = "a geotransform" if dataset.crs else "a coordinate reference system and a geotransform"
        raise RasterError(
            path,
            f"does not say where it lies. Expected {what} (pixel size and place of the first pixel), found none.\n"
            f"Write the right one into it, for instance: {command} --transform "
            f"'[0.5, 0, 400000, 0, -0.5, 5000000]' {shlex.quote(str(path))}\n"
            "If only its pixel size is known, state that in metres, for instance: `pixel_m=0.5`",
        )
    if dataset.crs is None:
        raise MissingCRSError(
            path,
            "no coordinate reference system. Expected one in the file, found none.\n"
            f"Write the right one into it, for instance: rio edit-info --crs EPSG:32631 {shlex.quote(str(path))}\n"
            "Or state it, for instance: `crs='EPSG:32631'`",
        )
