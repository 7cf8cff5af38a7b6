"""What every raster can do, whether a file, a mosaic of files, labels or an array is behind it."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.geo.rasters.bands import Band
from geocrodino.geo.rasters.window import Window

Kind = Literal["continuous", "categorical"]
"""Whether values may be interpolated, or stand for classes."""


class Raster(Protocol):
    """Values on a grid, with their validity.

    Each read opens the files and closes them again, so threads and processes may share a raster.
    """

    @property
    def name(self) -> str:
        """What the user named: a path, a URL or a name in GDAL's or rasterio's notation."""

    @property
    def geobox(self) -> GeoBox:
        """The grid."""

    @property
    def bands(self) -> tuple[Band, ...]:
        """What is known of each band, transparency included."""

    @property
    def data_bands(self) -> tuple[int, ...]:
        """One-based numbers of the bands that hold data, in the order in which they are read."""

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the files that hold the pixels, as GDAL opens them."""

    @property
    def header_key(self) -> tuple[object, ...]:
        """All of the header that determines values and validity."""

    @property
    def layout_key(self) -> list[object]:
        """What else identifies the raster, besides header and grid."""

    def read_own(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the raster's own grid.

        Args:
            window: Pixels of the raster; what lies outside is invalid.
            bands: One-based band numbers.

        Returns:
            Values, float32, shape (bands, H, W), NaN where invalid; validity, bool, shape (H, W).

        Raises:
            RasterError: If a file cannot be read there.
        """

    def read(
        self,
        grid: GeoBox,
        window: Window | None = None,
        *,
        bands: tuple[int, ...] | None = None,
        kind: Kind = "continuous",
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of any grid, see `geocrodino.geo.rasters.warp.read_on_grid`.

        Args:
            grid: Grid of the result.
            window: Part of it; None: all of it. What lies outside the raster is invalid.
            bands: One-based band numbers; None: ``data_bands``.
            kind: Whether values are interpolated (``continuous``) or taken as classes (``categorical``).

        Returns:
            Values, float32, shape (bands, H, W), NaN where invalid; validity, bool, shape (H, W).

        Raises:
            RasterError: If a file cannot be read there.
        """

    def describe(self) -> str:
        """Describe the raster in one line.

        Returns:
            Number of data bands, type and grid.
        """
