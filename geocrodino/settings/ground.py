"""How the ground under a surface model is estimated."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from geocrodino.errors import HeightError

FILL_REACH_STD = 4
"""How far the filling under objects looks, in standard deviations."""


class GroundFilter(BaseModel):
    """How the ground under a surface model is found: a progressive morphological filter.

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
    cell_m: Annotated[float, Field(gt=0, description="finest cell that the ground is sought on, m")] = 1.0
    coarsest_m: Annotated[float, Field(gt=0, description="coarsest pixels that still show objects, m")] = 5.0

    def factor(self, pixel_m: float) -> int:
        """Pixels along the side of a cell."""
        return max(1, math.floor(self.cell_m / pixel_m + 1e-6))

    def halo_px(self, pixel_m: float) -> int:
        """Pixels around a window that its ground depends on.

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
    """Cells along a length, at least one."""
    return max(1, round(length_m / cell_m))
