"""What a branch reads: bands or height channels, their units and statistics. The same code trains and predicts."""

from __future__ import annotations

import math
import warnings
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict, Field

from geocrodino.errors import BandWarning, BundleError, HeightError
from geocrodino.geo.rasters.grid import pixel_size_m
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import ground_unit, height_unit, with_height_limits
from geocrodino.geo.rasters.validity import tagged_alpha
from geocrodino.geo.rasters.window import Window
from geocrodino.geo.terrain import ground_surface, inner, position_halo_px, slope_deg, topographic_position
from geocrodino.modalities.band_matching import BandMatch, match_bands
from geocrodino.settings.ground import GroundFilter
from geocrodino.settings.modality import HeightChannel, Modality

_NEEDS_GROUND = {"height_above_ground", "topographic_position"}
_COMPRESSED = {"height_above_ground", "topographic_position"}
_UNITS = {"height_above_ground": "m", "topographic_position": "m", "height": "m", "slope": "deg"}


class Recipe(BaseModel):
    """How the channels of one modality are made from a raster, before statistics.

    Attributes:
        modality: Which modality.
        bands: One-based numbers of the optical bands, in order; empty for elevation.
        band_names: Their names, by which bands of other images are matched; ``band 1`` and so on without a name.
        dtype: Type of the training image's stored numbers; None for elevation and in older bundles.
        channels: Height channels, in order; empty for optical.
        ground: The filter that finds the ground where no ground raster is given.
        position_m: Width (standard deviation) of the surroundings of ``topographic_position``, m.
        height_unit: Unit of heights that the training was told, for files that name none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modality: Modality
    bands: tuple[int, ...] = ()
    band_names: tuple[str, ...] = ()
    dtype: str | None = None
    channels: tuple[HeightChannel, ...] = ()
    ground: GroundFilter = GroundFilter()
    position_m: Annotated[float, Field(gt=0)] = 60.0
    height_unit: str | None = None

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return self.band_names if self.modality == "optical" else self.channels

    def halo_px(self, grid: GeoBox, *, ground_given: bool = False) -> int:
        """Pixels around a window that its channels depend on.

        Raises:
            HeightError: If the grid is too coarse for height above ground.
        """
        halo = 1 if "slope" in self.channels else 0
        if _NEEDS_GROUND & set(self.channels) and not ground_given:
            halo = self.ground.halo_px(_side_m(grid))
        return halo + self._around_px(grid)

    def check(self, raster: RasterSource, *, ground_given: bool = False) -> None:
        """Check that a raster has the bands, and heights fine enough for the channels.

        Raises:
            BundleError: If it lacks a band, or its values are no brightness and no heights.
            HeightError: If its pixels are too coarse for height above ground.
        """
        if self.modality == "optical":
            self.match(raster)
            return
        _require_measured(raster, "elevation")
        if len(raster.data_bands) != 1:
            raise BundleError(
                f"{raster.path}: expected one band of heights, found {len(raster.data_bands)} "
                f"({', '.join(raster.data_names)}).\nGive an image as the optical raster: `modality='optical'` in a "
                "prediction, `data.optical` in a training."
            )
        try:
            self.halo_px(raster.geobox, ground_given=ground_given)
        except HeightError as error:
            raise HeightError(f"{raster.path}: {error}") from error

    def check_ground(self, ground: RasterSource) -> None:
        """Check that a ground raster holds one band of heights.

        Raises:
            BundleError: If it does not.
        """
        _require_measured(ground, "elevation")
        if len(ground.data_bands) != 1:
            raise BundleError(
                f"{ground.path}: expected one band of ground heights, found {len(ground.data_bands)} "
                f"({', '.join(ground.data_names)}).\nGive a terrain model with one band."
            )

    def match(self, raster: RasterSource, asked: tuple[int, ...] | None = None) -> BandMatch:
        """Which bands of an image are those of the recipe; arguments as for `match_bands`.

        Raises:
            BundleError: If a band is missing or has another name, or the values are no brightness.
        """
        _require_measured(raster, "optical")
        return match_bands(raster, self.band_names, self.bands, asked)

    def fitted(
        self, raster: RasterSource, *, unit: str | None = None, bands: tuple[int, ...] | None = None
    ) -> RasterSource:
        """A raster as this recipe reads it.

        Args:
            raster: The optical or height raster.
            unit: Unit of height, where the user gave one.
            bands: Numbers of optical bands, where the user gave them.

        Returns:
            The raster with the bands of the recipe in its order; impossible heights are missing.

        Raises:
            BundleError: If it lacks a band.
            HeightError: If a unit of height is not known.
        """
        if self.modality == "optical":
            return raster.with_bands(self.match(raster, bands).numbers)
        return with_height_limits(raster, height_unit(raster, unit, self.height_unit)[0], unit or self.height_unit)

    def fitted_ground(self, ground: RasterSource, *, unit: str | None = None) -> RasterSource:
        """A ground raster whose impossible heights are missing; errors as for `fitted`."""
        given = unit or self.height_unit
        return with_height_limits(ground, ground_unit(ground, given)[0], given)

    def read(
        self,
        raster: RasterSource,
        grid: GeoBox,
        window: Window,
        *,
        ground: RasterSource | None = None,
        unit: str | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Channels of a window of a grid.

        Args:
            raster: The optical or height raster, see `fitted`.
            grid: Grid to read on.
            window: Part of it; may reach outside, where nothing is valid.
            ground: Heights of the bare ground, in any CRS and resolution, if known; see `fitted_ground`.
            unit: Unit of height of the raster, and of the ground where its file does not say it.

        Returns:
            Channels, float32, shape (C, H, W), in physical units, NaN where invalid; validity, shape (H, W).
        """
        window = Window(*window)
        if self.modality == "optical":
            return raster.read(grid, window)
        halo = self.halo_px(grid, ground_given=ground is not None)
        values, valid = raster.read(grid, window.grow(halo))
        surface = values[0] * np.float32(height_unit(raster, unit, self.height_unit)[0])
        below = surface  # where no channel needs the ground
        if _NEEDS_GROUND & set(self.channels):
            below = self._ground(surface, grid, window, halo, ground, unit)
        out = np.stack([self._channel(name, surface, below, grid, window, halo) for name in self.channels])
        valid = inner(valid, halo) & np.isfinite(out).all(axis=0)
        out[:, ~valid] = np.nan
        return out, valid

    def _around_px(self, grid: GeoBox) -> int:
        """Pixels around a window whose ground its channels depend on."""
        return position_halo_px(_side_m(grid), self.position_m) if "topographic_position" in self.channels else 0

    def _channel(
        self,
        name: HeightChannel,
        surface: NDArray[np.float32],
        below: NDArray[np.float32],
        grid: GeoBox,
        window: Window,
        halo: int,
    ) -> NDArray[np.float32]:
        if name == "height":
            return inner(surface, halo)
        if name == "slope":
            return inner(slope_deg(inner(surface, halo - 1), pixel_size_m(grid)), 1)
        around = self._around_px(grid)
        if name == "topographic_position":
            corner = window.grow(around).corner
            return topographic_position(below, _side_m(grid), self.position_m, corner, trim_px=around)
        return inner(surface, halo) - inner(below, around)

    def _ground(
        self,
        surface: NDArray[np.float32],
        grid: GeoBox,
        window: Window,
        halo: int,
        ground: RasterSource | None,
        unit: str | None,
    ) -> NDArray[np.float32]:
        """Ground of a window and ``_around_px``."""
        around = self._around_px(grid)
        if ground is None:
            corner = window.grow(halo).corner
            return ground_surface(surface, self.ground, _side_m(grid), corner, trim_px=halo - around)
        values, _ = ground.read(grid, window.grow(around))
        heights: NDArray[np.float32] = values[0] * np.float32(ground_unit(ground, unit or self.height_unit)[0])
        return heights


class Channel(BaseModel):
    """One input channel: its unit, its range in the training split and what it is scaled by.

    A value is clipped to ``low`` to ``high``, compressed if ``compress`` says so, and standardised by ``mean`` and
    ``std``, which belong to the compressed value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: str
    low: Annotated[float, Field(description="0.1 % quantile in the training split, in the unit")]
    high: Annotated[float, Field(description="99.9 % quantile in the training split, in the unit")]
    mean: float
    std: Annotated[float, Field(gt=0)]
    compress: Annotated[bool, Field(description="sign(x) * log(1 + |x|) before scaling")] = False

    @classmethod
    def measure(cls, name: str, values: NDArray[np.float32]) -> Channel:
        """Statistics of valid training values, shape (N,)."""
        low, high = (float(q) for q in np.quantile(values.astype(np.float64), (0.001, 0.999)))
        compress = name in _COMPRESSED
        scaled = np.clip(values.astype(np.float64), low, high)
        scaled = np.sign(scaled) * np.log1p(np.abs(scaled)) if compress else scaled
        # A constant channel carries nothing: scale by one rather than by zero.
        std = float(scaled.std())
        return cls(
            name=name,
            unit=_UNITS.get(name, "digital number"),
            low=low,
            high=high,
            mean=float(scaled.mean()),
            std=std if std > 1e-12 * max(1.0, abs(high)) else 1.0,
            compress=compress,
        )

    def apply(self, values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Scale values of any shape into ``out``; NaN stays NaN."""
        np.clip(values, np.float32(self.low), np.float32(self.high), out=out)
        if self.compress:
            np.copysign(np.log1p(np.abs(out)), out, out=out)
        out -= np.float32(self.mean)
        out /= np.float32(self.std)


class ModalitySpec(BaseModel):
    """Everything that a branch must know of its input; travels in the bundle.

    Attributes:
        recipe: How channels are made.
        channels: Their statistics, in order.
        ground_given: Whether the training used a ground raster rather than an estimate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    channels: tuple[Channel, ...]
    ground_given: bool = False

    @property
    def modality(self) -> Modality:
        """Which modality."""
        return self.recipe.modality

    def normalise(self, values: NDArray[np.float32], *, in_place: bool = False) -> NDArray[np.float32]:
        """Scale channels, shape (C, H, W), NaN where invalid, to the network's input: 0 where invalid."""
        invalid = ~np.isfinite(values).all(axis=0)
        out = values if in_place else np.empty(values.shape, np.float32)
        for channel, value, target in zip(self.channels, values, out, strict=True):
            channel.apply(value, target)
        out[:, invalid] = 0
        return out

    def read(
        self,
        raster: RasterSource,
        grid: GeoBox,
        window: Window,
        *,
        ground: RasterSource | None = None,
        unit: str | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Network input of a window of a grid.

        Args:
            raster: The raster.
            grid: Grid to read on.
            window: Part of it; may reach outside, where nothing is valid.
            ground: Heights of the bare ground, if known.
            unit: Unit of height, where the files do not say it.

        Returns:
            Input, float32, shape (C, H, W), 0 where invalid; validity, bool, shape (H, W).
        """
        values, valid = self.recipe.read(raster, grid, window, ground=ground, unit=unit)
        return self.normalise(values, in_place=True), valid

    def share_outside(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> dict[str, float]:
        """Share of valid pixels outside the training's range, for each channel that a wrong unit would move.

        Args:
            values: Channels as from ``Recipe.read``, shape (C, H, W).
            valid: Validity, shape (H, W).

        Returns:
            Shares, 0 to 1, by name; slope and topographic position, which change near a scene's edge, are left out.
        """
        if not valid.any():
            return {}
        return {
            c.name: float(((v[valid] < c.low) | (v[valid] > c.high)).mean())
            for c, v in zip(self.channels, values, strict=True)
            if c.name not in {"slope", "topographic_position"}
        }


def optical_recipe(raster: RasterSource, bands: tuple[int, ...] | None = None) -> Recipe:
    """Recipe for an image: its data bands, or those asked for.

    Raises:
        BundleError: If a band that is asked for does not exist, or the values are no brightness.

    Warns:
        BandWarning: If a band that is tagged as transparency is taken for data by its values.
    """
    numbers = bands or raster.data_bands
    if bands is None and tagged_alpha(raster.bands) in numbers:
        warnings.warn(
            f"{raster.path}: band {tagged_alpha(raster.bands)} is tagged as transparency, but its values look like "
            "those of an image: it is read as data. Name the bands to use with `data.bands` to decide otherwise.",
            BandWarning,
            stacklevel=2,
        )
    raster = raster.with_bands(numbers) if all(0 < b <= raster.count for b in numbers) else raster
    first = raster.bands[raster.data_bands[0] - 1]
    recipe = Recipe(
        modality="optical",
        bands=numbers,
        band_names=tuple(raster.band_names[b - 1] if 0 < b <= raster.count else f"band {b}" for b in numbers),
        dtype="float32" if first.is_scaled else first.dtype,
    )
    _require_measured(raster, "optical")
    match_bands(raster, recipe.band_names, numbers, numbers)
    return recipe


def _require_measured(raster: RasterSource, modality: Modality) -> None:
    """Refuse rasters whose numbers are classes or positions in a table of colours."""
    if not (raster.is_map or raster.has_palette):
        return
    expected = "heights" if modality == "elevation" else "brightness in each band"
    if raster.is_map:
        found = "a map that geocrodino wrote: its values are classes"
        way_out = "Give the raster that the map was made from."
    else:
        found = "a table of colours: its values are classes, or colours by number"
        way_out = (
            f"If it is a coloured image, expand it first: gdal_translate -expand rgb {raster.path.name} rgb.tif. "
            "If it is a class raster, give it as labels."
        )
    raise BundleError(f"{raster.path}: expected {expected}, found {found}.\n{way_out}")


def elevation_recipe(
    channels: tuple[HeightChannel, ...], ground: GroundFilter | None = None, height_unit: str | None = None
) -> Recipe:
    """Recipe for a height raster.

    Raises:
        HeightError: If no channel is asked for.
    """
    if not channels:
        raise HeightError("elevation.channels is empty. Expected at least one of height_above_ground, height, slope.")
    filled = ground or GroundFilter()
    return Recipe(modality="elevation", channels=channels, ground=filled, height_unit=height_unit)


def _side_m(grid: GeoBox) -> float:
    wide, high = pixel_size_m(grid)
    return math.sqrt(wide * high)
