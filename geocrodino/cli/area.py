"""The options that name an area of interest, the same in every command."""

from __future__ import annotations

from geocrodino.errors import ConfigError

AREA_HELP = "Polygons (a file, WKT or GeoJSON), or minx,miny,maxx,maxy"
CRS_HELP = "CRS of the area's coordinates, for instance EPSG:4326; by default the one that its file names."


def require_area(aoi: str | None, aoi_crs: str | None) -> None:
    """Check that a CRS of an area comes with an area.

    Raises:
        ConfigError: If it does not.
    """
    if aoi is None and aoi_crs is not None:
        raise ConfigError(f"--aoi-crs {aoi_crs} needs --aoi: it is the CRS of an area, and no area is named.")
