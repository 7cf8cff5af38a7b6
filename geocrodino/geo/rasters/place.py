"""The place of rasters whose files state none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """What a user states of the place of files that do not.

    Attributes:
        crs: CRS of files that state none, anything that pyproj takes; None: not given.
        pixel_m: Pixel size of files without any place, m; None: not given.
    """

    crs: str | None = None
    pixel_m: float | None = None
