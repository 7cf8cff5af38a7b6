"""The modality ``elevation``: channels that are computed from a surface model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.errors import BundleError, ConfigError, HeightError, HeightRangeWarning
from geocrodino.geo.rasters.grid import align_longitudes, pixel_offset, pixel_side_m, pixel_size_m
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.units import ground_unit, height_unit, with_height_limits
from geocrodino.geo.rasters.window import Window
from geocrodino.geo.terrain import (
    ground_of_cells,
    ground_of_part,
    inner,
    position_halo_px,
    slope_deg,
    topographic_position,
)
from geocrodino.modalities.few_values import few_values, few_values_note
from geocrodino.modalities.ground_cells import FEWEST_PX, GroundCells
from geocrodino.modalities.lone_zeros import lone_zeros, lone_zeros_note
from geocrodino.modalities.measured import require_measured
from geocrodino.modalities.options import RecipeOptions
from geocrodino.modalities.recipe_values import RecipeValues
from geocrodino.modalities.registry import ModalityDefinition, Sample, register
from geocrodino.settings.augmentation import ELEVATION_RADIOMETRY
from geocrodino.settings.ground import GroundFilter
from geocrodino.settings.height_channels import HEIGHT_CHANNELS, HeightChannel, HeightChannelName
from geocrodino.settings.modality import Modality

_UNUSUAL_SHARE = 0.05
_NO_GROUND_SHAPE = "topographic_position describes the shape of the ground, which heights above ground do not hold."

_TWO_BANDS = (
    " Where two bands are the surface and the bare ground, a training names them under `data.height`: band and "
    "ground_band."
)


class ElevationModality(ModalityDefinition):
    """Height channels of the table, computed from a surface model and the ground under it."""

    holds_heights = True
    warning = HeightRangeWarning

    def recipe(self, raster: RasterSource, options: RecipeOptions) -> RecipeValues:
        """Create the recipe of a training from the height channels that are asked for.

        Args:
            raster: The surface model; only the type of its numbers counts, and only beside a coding.
            options: Height channels, ground filter, unit and coding of heights; ``bands`` is not used.

        Returns:
            The recipe.

        Raises:
            HeightError: If no channel is asked for, or one that heights above ground do not hold.
        """
        if raster.zero == "ground" and "topographic_position" in options.channels:
            raise HeightError(f"elevation.channels: {_NO_GROUND_SHAPE}\nLeave it out.")
        found = elevation_values(options.channels, options.ground, options.height_unit, self.name)
        if options.height is None:
            return found
        return found.model_copy(update={"height": options.height, "dtype": raster.dtype})

    def channel_names(self, recipe: RecipeValues) -> tuple[str, ...]:
        """Get the names of the channels.

        Args:
            recipe: The recipe.

        Returns:
            Names of the height channels, in order.
        """
        return recipe.channels

    def halo_px(self, recipe: RecipeValues, grid: GeoBox, *, ground_given: bool = False) -> int:
        """Compute how far around a window heights are read, for the channels and for the ground that they need.

        Args:
            recipe: The recipe.
            grid: Grid on which channels are computed.
            ground_given: Whether there is a ground raster; estimating the ground without one needs more pixels.

        Returns:
            Pixels of the grid on each side, at least 0.

        Raises:
            HeightError: If the grid is too coarse for height above ground.
        """
        return _halo_px(recipe, _Reach(pixel_side_m(grid), recipe.position_m), ground_given=ground_given)

    def check(
        self,
        recipe: RecipeValues,
        raster: RasterSource,
        *,
        ground_given: bool = False,
        bands: tuple[int, ...] | None = None,
    ) -> str | None:
        """Check that a raster holds one band of heights, fine enough for the channels.

        Args:
            recipe: The recipe.
            raster: The surface model.
            ground_given: Whether there is a ground raster.
            bands: Not used.

        Returns:
            None: no band has to be found.

        Raises:
            BundleError: If it holds something else.
            HeightError: If its pixels are too coarse for height above ground, or its heights count from the camera and
                a channel needs the ground.
        """
        require_measured(raster, "heights")
        if len(raster.data_bands) != 1:
            raise BundleError(
                f"{raster.path}: expected one band of heights, found {len(raster.data_bands)} "
                f"({', '.join(raster.data_names)}).\nIf it is an image, give it as the optical raster, not as heights."
                f"{_TWO_BANDS if len(raster.data_bands) == 2 else ''}"
            )
        _require_ground(recipe, raster)
        if raster.zero == "ground" and "topographic_position" in recipe.channels:
            raise HeightError(f"{raster.path}: {_NO_GROUND_SHAPE}\nUse a surface model, or train without this channel.")
        try:
            self.halo_px(recipe, raster.geobox, ground_given=ground_given or raster.zero == "ground")
        except HeightError as error:
            raise HeightError(f"{raster.path}: {error}") from error
        return None

    def fitted(
        self,
        recipe: RecipeValues,
        raster: RasterSource,
        *,
        unit: str | None = None,
        bands: tuple[int, ...] | None = None,
    ) -> RasterSource:
        """Mark impossible heights of a surface model as missing.

        Args:
            recipe: The recipe.
            raster: The surface model.
            unit: Unit of its heights, where the user gave one.
            bands: Not used.

        Returns:
            The surface model without impossible heights.

        Raises:
            HeightError: If a unit of height is not known.
        """
        return with_height_limits(raster, height_unit(raster, unit, recipe.height_unit)[0], unit or recipe.height_unit)

    def read(
        self,
        recipe: RecipeValues,
        raster: RasterSource,
        grid: GeoBox,
        window: Window,
        *,
        ground: RasterSource | None = None,
        unit: str | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Compute the height channels of a window.

        Args:
            recipe: The recipe.
            raster: The surface model, see `fitted`.
            grid: Grid to compute on.
            window: Part of it; may reach outside, where nothing is valid.
            ground: Heights of the bare ground, in any CRS and resolution; None: the ground is estimated where a channel
                needs it. Heights above ground have their ground at 0.
            unit: Unit of height of the surface model, and of the ground where its file does not name one.

        Returns:
            Channels in their units, float32, shape (C, H, W), NaN where invalid; validity, bool, shape (H, W): True
            where the surface and all channels are valid.

        Raises:
            HeightError: If the grid is too coarse for height above ground, or a unit of height is not known.
            RasterError: If a raster cannot be read there.
            ValueError: If the formula of a channel returns another shape than that of the window, or reads the ground
                although its entry in the table does not ask for it.
        """
        window = Window(*window)
        pixel_m = pixel_size_m(grid)
        reach, entries = _Reach(math.sqrt(pixel_m[0] * pixel_m[1]), recipe.position_m), _entries(recipe)
        known = ground is not None or raster.zero == "ground"
        far = _halo_px(recipe, reach, ground_given=known)
        metres = height_unit(raster, unit, recipe.height_unit)[0]
        estimated = not known and any(e.needs_ground for e in entries)
        by_cells = estimated and recipe.ground.factor(reach.side_m) >= FEWEST_PX
        near = window.grow(max(e.margin_on(reach) for e in entries))
        part = near if known or by_cells else _covered(raster, grid, window.grow(far), near)
        values, valid = raster.read(grid, part)
        surface = values[0] * np.float32(metres)
        around = _around_px(entries, reach)
        below = None
        if any(e.needs_ground for e in entries):
            if raster.zero == "ground":
                below = np.zeros(window.grow(around).shape, np.float32)
            elif by_cells:
                below = _ground_by_cells(recipe, raster, grid, window.grow(far), metres, trim_px=far - around)
            elif ground is None:
                below = ground_of_part(surface, part, window.grow(far), recipe.ground, reach.side_m, far - around)
            else:
                heights, _ = ground.read(grid, window.grow(around))
                below = heights[0] * np.float32(ground_unit(ground, unit or recipe.height_unit)[0])
        out = np.empty((len(entries), *window.shape), np.float32)
        for channel, entry in zip(out, entries, strict=True):
            margin = entry.margin_on(reach)
            seen = _Heights(
                surface=surface[window.grow(margin).within(part).slices],
                below=None if below is None or not entry.needs_ground else inner(below, around - margin),
                pixel_m=pixel_m,
                reach=reach,
                margin_px=margin,
                corner=window.grow(margin).corner,
            )
            found = entry.values(seen)
            if found.shape != window.shape:
                raise ValueError(
                    f"height channel {entry.name}: expected values of shape {window.shape}, found {found.shape}"
                )
            channel[:] = found
        valid = valid[window.within(part).slices] & np.isfinite(out).all(axis=0)
        out[:, ~valid] = np.nan
        return out, valid

    def describe(self, recipe: RecipeValues) -> str:
        """Describe the surface model for people.

        Args:
            recipe: Not used.

        Returns:
            What it is, and which branch reads it.
        """
        return f"heights, for the {self.name} branch"

    def require_plausible(self, raster: RasterSource) -> None:
        """Refuse a raster that looks like classes, where nobody named it as heights.

        Args:
            raster: A raster with one band.

        Raises:
            ConfigError: If the raster holds few different whole numbers.
        """
        values = few_values(raster)
        if values:
            raise ConfigError(
                f"{raster.path}: expected heights or an image, found {values} different whole numbers in one band, as "
                "class rasters hold them.\nIf these are heights, give `modality='elevation'`."
            )

    def unusual(self, sample: Sample) -> list[str]:
        """Find wrong units, classes in place of heights, zeros for missing heights, and a ground only in the training.

        Args:
            sample: Sampled values of the scene, and the statistics of the training.

        Returns:
            Warnings, one for each finding; empty if there is none.

        Raises:
            RasterError: If the raster cannot be read.
        """
        path, notes = sample.raster.path, []
        if sample.ground_in_training and not sample.ground_given and "height_above_ground" in sample.recipe.channels:
            notes.append(
                f"{path}: the model was trained on heights above a ground raster, and none was given: the ground is "
                "estimated. Give one with `ground`."
            )
        classes = few_values(sample.raster)
        if classes:
            notes.append(few_values_note(sample.raster, classes))
        zeros = lone_zeros(sample.raster, height_unit(sample.raster, sample.unit, sample.recipe.height_unit)[0])
        if zeros:
            notes.append(lone_zeros_note(sample.raster, zeros))
        for channel, values in zip(sample.channels, sample.values, strict=True):
            if not values.size or not HEIGHT_CHANNELS[channel.name].compared:
                continue
            share = float(((values < channel.low) | (values > channel.high)).mean())
            if share > _UNUSUAL_SHARE:
                low, high = np.quantile(values, (0.01, 0.99))
                notes.append(
                    f"{path}: {share:.0%} of the sampled pixels lie outside the range of {channel.name} seen in "
                    f"training. Expected {channel.low:.4g} to {channel.high:.4g} {channel.unit}, found {low:.4g} to "
                    f"{high:.4g}. Check the unit of height; otherwise trust the map less."
                )
        return notes

    def picture(self, raster: RasterSource, grid: GeoBox) -> NDArray[np.float32]:
        """Draw the surface as shaded relief, lit from the north-west.

        Args:
            raster: The surface model.
            grid: Grid of the picture.

        Returns:
            Grey as red, green and blue in 0 to 1, white without data, float32, shape (H, W, 3).

        Raises:
            RasterError: If the surface model cannot be read.
        """
        values, valid = raster.read(grid, Window.of(grid.shape))
        wide, high = pixel_size_m(grid)
        south, east = np.gradient(np.where(valid, values[0], np.nan), high, wide) if min(grid.shape) > 1 else (0, 0)
        light = (1 + east + south) / np.sqrt(3 * (1 + np.square(east) + np.square(south)))
        grey = np.clip(np.nan_to_num(light, nan=1.0), 0, 1).astype(np.float32)
        return np.repeat(np.where(valid, grey, np.float32(1))[..., None], 3, axis=2)


@dataclass(frozen=True)
class _Reach:
    """How far formulas reach on a grid."""

    side_m: float
    position_m: float

    @property
    def position_px(self) -> int:
        return position_halo_px(self.side_m, self.position_m)


@dataclass(frozen=True)
class _Heights:
    """Input of a formula of the table, see `geocrodino.settings.height_channels.Heights`."""

    surface: NDArray[np.float32]
    below: NDArray[np.float32] | None
    pixel_m: tuple[float, float]
    reach: _Reach
    margin_px: int
    corner: tuple[int, int]

    @property
    def ground(self) -> NDArray[np.float32]:
        if self.below is None:
            raise ValueError("expected a height channel with needs_ground=True, found one that reads the ground")
        return self.below

    def inner(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return inner(values, self.margin_px)

    def slope_deg(self) -> NDArray[np.float32]:
        return self.inner(slope_deg(self.surface, self.pixel_m))

    def topographic_position(self) -> NDArray[np.float32]:
        return topographic_position(
            self.ground, self.reach.side_m, self.reach.position_m, self.corner, trim_px=self.margin_px
        )


def elevation_values(
    channels: tuple[HeightChannelName, ...],
    ground: GroundFilter | None = None,
    height_unit: str | None = None,
    modality: Modality = "elevation",
) -> RecipeValues:
    """Create the recipe of a height raster.

    Args:
        channels: Names of the height channels, in order.
        ground: The filter that finds the ground where no ground raster is given; None: the default one.
        height_unit: Unit of heights, for files that name none.
        modality: The modality of the raster.

    Returns:
        The recipe.

    Raises:
        HeightError: If no channel is asked for.
    """
    if not channels:
        raise HeightError("elevation.channels is empty. Expected at least one of height_above_ground, height, slope.")
    filled = ground or GroundFilter()
    return RecipeValues(modality=modality, channels=channels, ground=filled, height_unit=height_unit)


_CELLS = GroundCells()


def _covered(raster: RasterSource, grid: GeoBox, window: Window, near: Window) -> Window:
    """The part of a window that a raster on the lattice of the grid covers, made larger by a window that is needed."""
    offset = pixel_offset(align_longitudes(grid, raster.geobox), raster.geobox)
    if offset is None:
        return window
    held = Window.of(raster.geobox.shape).shift(-offset[0], -offset[1]).intersect(window)
    return held.hull(near) if held.pixels else near


def _ground_by_cells(
    recipe: RecipeValues, raster: RasterSource, grid: GeoBox, window: Window, metres: float, *, trim_px: int
) -> NDArray[np.float32]:
    """Estimate the ground of a window from cells that are computed once for all windows."""
    settings, side_m = recipe.ground, pixel_side_m(grid)

    def read(part: Window) -> NDArray[np.float32]:
        heights: NDArray[np.float32] = raster.read(grid, part)[0][0] * np.float32(metres)
        return heights

    cells = _CELLS.read(raster, grid, settings.factor(side_m), metres, window, read)
    return ground_of_cells(cells, settings, side_m, window.corner, window.shape, trim_px)


def _require_ground(recipe: RecipeValues, raster: RasterSource) -> None:
    """Refuse distances from a camera for channels that need the ground under a surface."""
    needy = [entry.name for entry in _entries(recipe) if entry.needs_ground]
    if needy and raster.zero == "camera":
        free = ", ".join(name for name, entry in HEIGHT_CHANNELS.items() if not entry.needs_ground)
        raise HeightError(
            f"{raster.path}: the channel {needy[0]} needs the ground, and distances from a camera have none.\n"
            f"Train on channels without it ({free}) with `elevation.channels`."
        )


def _entries(recipe: RecipeValues) -> list[HeightChannel]:
    return [HEIGHT_CHANNELS[name] for name in recipe.channels]


def _halo_px(recipe: RecipeValues, reach: _Reach, *, ground_given: bool) -> int:
    """Pixels around a window that are read for its channels and the ground under them."""
    entries = _entries(recipe)
    halo = max((e.margin_on(reach) for e in entries if not e.needs_ground), default=0)
    if not ground_given and any(e.needs_ground for e in entries):
        halo = max(halo, recipe.ground.halo_px(reach.side_m))
    return halo + _around_px(entries, reach)


def _around_px(entries: list[HeightChannel], reach: _Reach) -> int:
    """Pixels around a window whose ground its channels depend on."""
    return max((e.margin_on(reach) for e in entries if e.needs_ground), default=0)


ELEVATION = register(
    ElevationModality("elevation", code=2, colour="#e8a33d", raster="a surface model", radiometry=ELEVATION_RADIOMETRY)
)
