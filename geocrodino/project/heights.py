"""What heights of a project mean: their unit, their zero, and which of two models is the ground."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import GeocrodinoError
from geocrodino.geo.rasters.height_numbers import as_half_precision, decimal_codings, diagonal_m
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.spikes import SENTINELS
from geocrodino.geo.rasters.units import UNNAMED, height_unit
from geocrodino.project.layers import Layer, look_windows

_HIGHEST_M = 9000.0
"""No ground is higher, m: larger numbers are not metres."""

_LOWEST_M = -9000.0
"""Lower numbers, such as -9999, stand for missing pixels, also where no tag says so."""

_RANGE = (0.01, 0.99)
"""Shares of the values between which heights lie: few others are marks of missing pixels."""

_ABOVE = 0.95  # share of the pixels where a surface lies on its ground or above it
_TOLERANCE_M = 0.5
_LEAST_RISE_M = 0.2  # mean height of a surface above its ground


@dataclass(frozen=True)
class HeightGuess:
    """How heights are read.

    Attributes:
        values: Values by key of a scene: ``height``, ``height_unit``.
        why: A reason for each of the keys, and under ``elevation`` where the unit is known from.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)


def guess_heights(layer: Layer, raster: RasterSource) -> HeightGuess:
    """Find out what the numbers of heights mean.

    Args:
        layer: The layer of heights.
        raster: A raster of it.

    Returns:
        Keys of the scene, with a reason for each; empty if the file itself describes its heights.

    Raises:
        RasterError: If it cannot be read.
    """
    bands = raster.data_bands
    coding: dict[str, Any] = {}
    reasons: list[str] = []
    if len(bands) == 2:
        rise = _rise(raster, bands[0], bands[1])
        upper, lower = (1, 0) if rise is not None and rise < 0 else (0, 1)
        coding |= {"band": bands[upper], "ground_band": bands[lower]}
        higher = f"band {bands[upper]} is higher than band {bands[lower]}, as a surface is than its ground"
        reasons.append(higher if rise else f"nothing tells which of bands {bands[0]} and {bands[1]} is the ground")
    values = sample(raster, bands[0])
    known = raster.unit is not None or raster.is_scaled
    above = layer.above or (raster.dtype == "uint8" and len(bands) == 1)
    if above:
        coding["zero"] = "ground"
        reasons.append(f"called {layer.word}: heights above the ground" if layer.word else "heights above the ground")
    if raster.dtype == "uint8" and not known:
        coding["scale"] = 0.1
        reasons.append("8 bits, as decimetres are stored; scale: 1 if these are metres")
    elif not known and values.size and float(np.quantile(values, 0.99)) > _HIGHEST_M:
        coding |= _coding_of_large(raster, values, reasons)
    found: dict[str, Any] = {"height": dict(sorted(coding.items()))} if coding else {}
    why = {"height": f"? {'; '.join(reasons)}"} if coding else {}
    if not coding and not known and values.size and _is_a_share(values):
        found["height_unit"] = "none"
        why["height_unit"] = "? values from 0 to 1, so no metres: numbers without a unit"
    elif "scale" not in coding:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                unit_m, told = height_unit(raster)
            # Real numbers in metres are the rule; whole ones may be decimetres, and foot is the unit across alone.
            guessed = UNNAMED in told and (unit_m != 1 or not (raster.is_scaled or raster.dtype.startswith("float")))
            why["elevation"] = f"? {told}" if guessed else told
        except GeocrodinoError:
            pass  # a unit that is not known; the training says so
    return HeightGuess(found, why)


def _coding_of_large(raster: RasterSource, values: NDArray[np.float32], reasons: list[str]) -> dict[str, Any]:
    """The coding of numbers that are too large for metres; adds the reason for it."""
    half = as_half_precision(raster, values)
    meant = "" if half is None else f"bits of half-precision numbers ({half.low:.3g} to {half.high:.3g} m)"
    if half is not None and half.missing:
        reasons.append(f"{meant}: some are those of no number; scale: 0.01 in place of encoding for centimetres")
        return {"encoding": "float16"}
    heights = values[~np.isin(values, np.array(SENTINELS, np.float32))]
    low, high = (float(np.quantile(heights, share)) for share in _RANGE)
    codings = decimal_codings(raster, low, high)
    if not codings:
        reasons.append(f"values up to {values.max():,.0f}, so no metres; nothing tells what they are")
        return {"scale": 0.01}
    chosen, *others = codings
    why = f"taken as {chosen.word} ({chosen.low:.4g} to {chosen.high:.4g} m)"
    usual = next((other for other in others if other.word == "centimetres"), None)
    if usual is not None:  # so the usual unit is too steep
        why += f", as {usual.word} would rise by {usual.high - usual.low:.3g} m within {diagonal_m(raster):.3g} m"
    reasons.append(f"values up to {values.max():,.0f}, so no metres: {why}")
    reasons += [f"or {other.told}" for other in others]
    if meant:
        reasons.append(f"or encoding: float16 in place of scale for {meant}")
    return {"scale": chosen.scale}


def _rise(raster: RasterSource, band: int, other: int) -> float | None:
    """How much higher a band is than another one, on average of the pixels that both have; None without such pixels.

    Means of each band alone would compare different places: a ground that lacks the valley is higher than a surface
    that has it.
    """
    rises = []
    for window in look_windows(raster):
        one, there = raster.read_own(window, (band,))
        two, also = raster.read_own(window, (other,))
        both = there & also & np.isfinite(one[0]) & np.isfinite(two[0])
        both &= (one[0] > _LOWEST_M) & (two[0] > _LOWEST_M)
        rises.append((one[0] - two[0])[both])
    rise = np.concatenate(rises)
    return float(rise.mean(dtype=np.float64)) if rise.size else None


def _is_a_share(values: NDArray[np.float32]) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1 and np.ptp(values) > 0 and (values % 1 != 0).any())


def sample(raster: RasterSource, band: int) -> NDArray[np.float32]:
    """Read some values.

    Args:
        raster: A raster.
        band: Number of a band.

    Returns:
        Valid values of at most nine windows of 256 x 256 px, float32, shape (N,).

    Raises:
        RasterError: If it cannot be read.
    """
    found = []
    for window in look_windows(raster):
        values, valid = raster.read_own(window, (band,))
        found.append(values[0][valid & np.isfinite(values[0])])
    return np.concatenate(found)


def is_surface_of(surface: Layer, ground: Layer) -> str:
    """Compare two models of heights of one place.

    Args:
        surface: The one that may be a surface.
        ground: The one that may be the ground under it.

    Returns:
        Why they are surface and ground, as a phrase; empty if they are not.

    Raises:
        RasterError: If one cannot be read.
    """
    if surface.raster is None or ground.raster is None:
        return ""
    grid = surface.raster.geobox
    rises = []
    for window in look_windows(surface.raster):
        upper, there = surface.raster.read(grid, window, bands=surface.raster.data_bands[:1])
        lower, also = ground.raster.read(grid, window, bands=ground.raster.data_bands[:1])
        rises.append((upper[0] - lower[0])[there & also])
    rise = np.concatenate(rises)
    rise = rise[np.isfinite(rise)]
    if not rise.size or (rise >= -_TOLERANCE_M).mean() < _ABOVE or rise.mean() < _LEAST_RISE_M:
        return ""
    return f"on average {rise.mean():.3g} higher than the other model"
