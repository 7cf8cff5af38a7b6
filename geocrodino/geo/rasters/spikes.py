"""Impossible heights: untagged sentinels, values beyond any ground, single pixels that differ from all neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geocrodino.geo.rasters.morphology import highest_neighbour, opening

EARTH_M = (-11_500.0, 9_500.0)
"""Lowest and highest ground on Earth, the sea floor included, with room for other vertical datums; metres."""

PLANETS_M = (-30_000.0, 30_000.0)
"""The same on other celestial bodies: Olympus Mons is 22 km high."""

SENTINELS = (-9999.0, -99999.0, -32768.0, -32767.0)
"""Stored numbers that commonly mark missing heights and count as missing without a tag."""

_JUMP_M = 150.0  # more than a mast, a shaft or a cliff a pixel wide
_CLUSTER_JUMP_M = 1000.0  # more than any building
_CLUSTER_PX = 4
_STEEPEST = 2.0  # rise over run that a mountain may have from one pixel to the next


@dataclass(frozen=True)
class HeightLimits:
    """Which values of a height raster are impossible, in the raster's own unit.

    Attributes:
        low: Lowest possible value.
        high: Highest possible value.
        jump: A pixel that lies so far above or below all its valid neighbours is impossible.
        cluster_jump: The same for groups up to 4 pixels wide, above or below everything around them.
        sentinels: Values that mark missing heights.
    """

    low: float = -np.inf
    high: float = np.inf
    jump: float = np.inf
    cluster_jump: float = np.inf
    sentinels: tuple[float, ...] = SENTINELS

    @classmethod
    def of_unit(cls, unit_m: float, pixel_m: float, *, on_earth: bool, scaled: bool) -> HeightLimits:
        """Limits for heights in a unit.

        Args:
            unit_m: Metres in one unit.
            pixel_m: Pixel size, metres: the wider a pixel, the more the ground may rise from one to the next.
            on_earth: Whether the raster shows the Earth.
            scaled: Whether values differ from the stored numbers; sentinels are stored numbers and are not looked for
                then.

        Returns:
            The limits.
        """
        low, high = EARTH_M if on_earth else PLANETS_M
        rise = _STEEPEST * pixel_m
        return cls(
            low=low / unit_m,
            high=high / unit_m,
            jump=(_JUMP_M + rise) / unit_m,
            cluster_jump=(_CLUSTER_JUMP_M + _CLUSTER_PX * rise) / unit_m,
            sentinels=() if scaled else SENTINELS,
        )

    @property
    def reach_px(self) -> int:
        """Pixels around a window that decide which of its heights are impossible."""
        return 2 * (_CLUSTER_PX // 2) + 1 if np.isfinite(self.jump) else 0

    def impossible(self, heights: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which heights are impossible.

        Args:
            heights: Shape (H, W), NaN where missing.

        Returns:
            Bool, shape (H, W); true only at least ``reach_px`` pixels inside the edge. Missing pixels are False.
        """
        with np.errstate(invalid="ignore"):
            wrong = (heights < self.low) | (heights > self.high)
        for value in self.sentinels:
            wrong |= heights == np.float32(value)
        rest = np.where(wrong, np.float32(np.nan), heights)
        known = np.isfinite(rest)
        # Where all heights lie close together nothing can jump: most windows end here.
        relief = float(np.ptp(rest[known])) if known.any() else 0.0
        if relief <= self.jump:
            return wrong
        with np.errstate(invalid="ignore"):
            for surface in (rest, -rest):
                wrong |= self._alone(surface)
                if relief > self.cluster_jump:
                    wrong |= self._in_a_group(surface)
        return wrong

    def _alone(self, heights: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Pixels that jump up from all their neighbours."""
        above = heights - highest_neighbour(heights)
        # A pixel without a neighbour cannot be compared: the difference is infinite.
        return np.asarray((above > self.jump) & np.isfinite(above))

    def _in_a_group(self, heights: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Pixels of groups that jump up from everything around them."""
        surface = np.where(np.isfinite(heights), heights, np.float32(np.inf))
        return np.asarray(heights - opening(surface, _CLUSTER_PX // 2) > self.cluster_jump)
