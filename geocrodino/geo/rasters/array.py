"""Rasters as labelled arrays, for notebooks."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from geocrodino.geo.rasters.protocol import Kind
from geocrodino.geo.rasters.scene import open_scene


def read_raster(path: str | Path, *, like: GeoBox | None = None, kind: Kind = "continuous") -> xr.DataArray:
    """Read a raster whole, on its own grid or on another one.

    Args:
        path: The file, or anything else that names a scene, see `geocrodino.geo.rasters.scene.open_scene`.
        like: Grid of the result, for instance ``other.odc.geobox`` of an array that was read before.
        kind: ``categorical`` takes the nearest or most frequent value, ``continuous`` interpolates.

    Returns:
        Float32, shape (bands, H, W), dimensions ``band`` (named), ``y`` and ``x``, NaN where invalid, CRS in
        ``spatial_ref``.

    Raises:
        RasterError: If the file is missing or cannot be read.
        MissingCRSError: If it has no coordinate reference system.
    """
    source = open_scene(path)
    grid = like or source.geobox
    values, _ = source.read(grid, kind=kind)
    names = [source.band_names[b - 1] for b in source.data_bands]
    coordinates = {"band": names, **xr_coords(grid, dims=("y", "x"))}
    return xr.DataArray(values, coordinates, ("band", "y", "x"), Path(path).stem, {"nodata": float("nan")})
