"""The options that name an area of interest, the same in every command."""

from __future__ import annotations

from geocrodino.errors import ConfigError

AREA_HELP = "Polygons (a file, WKT or GeoJSON), or minx,miny,maxx,maxy"
CRS_HELP = "CRS of the area's coordinates, for instance EPSG:4326; by default that of its file."


def require_area(aoi: str | None, aoi_crs: str | None) -> None:
    """Check that ``--aoi-crs`` is given only together with ``--aoi``.

    Raises:
        ConfigError: If it is given alone.
    """
    if aoi is None and aoi_crs is not None:
        raise ConfigError(f"--aoi-crs {aoi_crs} needs --aoi: it is the CRS of an area, and no area is named.")
