"""Settings for estimating the ground under a surface model."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from geocrodino.errors import HeightError

FILL_REACH_STD = 4
"""Reach of the filling under objects, in standard deviations ``fill_m``."""


class GroundFilter(BaseModel):
    """Parameters of the progressive morphological filter that estimates the ground under a surface model.

    References:
        Zhang et al. (2003). A progressive morphological filter for removing nonground measurements from airborne
        lidar data. https://doi.org/10.1109/TGRS.2003.810682
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    radii_m: Annotated[tuple[float, ...], Field(min_length=1, description="opening radii, m, growing")] = (
        2.0, 5.0, 11.0, 23.0, 45.0,
    )  # fmt: skip
    slope: Annotated[float, Field(gt=0, description="steepest ground, rise over run")] = 0.15
    step_m: Annotated[float, Field(gt=0, description="smallest height of an object, m")] = 0.5
    highest_step_m: Annotated[float, Field(gt=0, description="largest height step between two radii, m")] = 3.0
    fill_m: Annotated[float, Field(gt=0, description="standard deviation of the filling under objects, m")] = 12.0
    cell_m: Annotated[float, Field(gt=0, description="smallest cell on which the ground is estimated, m")] = 1.0
    coarsest_m: Annotated[float, Field(gt=0, description="largest pixel size that still shows single objects, m")] = 5.0

    def factor(self, pixel_m: float) -> int:
        """Compute how many pixels form the side of a cell.

        Args:
            pixel_m: Pixel size, m.

        Returns:
            Pixels along the side of a cell, at least 1; a cell is at most ``cell_m`` wide if pixels are smaller.
        """
        return max(1, math.floor(self.cell_m / pixel_m + 1e-6))

    def halo_px(self, pixel_m: float) -> int:
        """Compute the margin that the ground of a window depends on.

        Args:
            pixel_m: Pixel size, m.

        Returns:
            Margin on each side of the window, px.

        Raises:
            HeightError: If the pixels are too coarse to show objects above ground.
        """
        if pixel_m > self.coarsest_m:
            raise HeightError(
                f"Height above ground needs a surface model that shows single objects: expected pixels of at most "
                f"{self.coarsest_m:g} m, found {pixel_m:.3g} m.\n"
                "Use absolute height instead (elevation.channels: [height, slope]), or give a ground raster."
            )
        factor = self.factor(pixel_m)
        cell = factor * pixel_m
        cells = (
            sum(2 * whole_cells(r, cell) for r in self.radii_m) + FILL_REACH_STD * whole_cells(self.fill_m, cell) + 2
        )
        return cells * factor


def whole_cells(length_m: float, cell_m: float) -> int:
    """Round a length to whole cells.

    Args:
        length_m: The length, m.
        cell_m: Side of a cell, m.

    Returns:
        Number of cells, at least 1.
    """
    return max(1, round(length_m / cell_m))
