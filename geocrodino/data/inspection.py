"""Inspect rasters: their contents, whether they fit together, and what a training would refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.alignment import reference_grid
from geocrodino.data.grid_choice import choose_grid, describe_work
from geocrodino.data.label_look import look_at_labels
from geocrodino.data.lone_tiles import warn_of_lone_tiles
from geocrodino.data.sources import Sources, ground_is_given, with_heights
from geocrodino.data.splits import require_splits
from geocrodino.errors import AOIError, GeocrodinoError, GridError, HeightError
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.place import likely_mistake, on_grid
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.alike import require_one_size
from geocrodino.geo.rasters.grid import crs_of, share_ground
from geocrodino.geo.rasters.height_numbers import advice_on_numbers
from geocrodino.geo.rasters.impossible_heights import impossible_heights
from geocrodino.geo.rasters.reader import RasterSource, require_overlap
from geocrodino.geo.rasters.surface_ground import check_surface_above
from geocrodino.geo.rasters.units import ground_unit, height_unit, with_height_limits
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.few_values import few_values, few_values_note
from geocrodino.modalities.lone_zeros import lone_zeros, lone_zeros_note
from geocrodino.modalities.options import RecipeOptions
from geocrodino.modalities.recipe import Recipe
from geocrodino.modalities.registry import definition_of
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.grid import GridOf
from geocrodino.settings.height_channels import HeightChannelName
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import MODALITIES, Modality

_COUNTED_PX = 2**27  # impossible heights are counted only in rasters of at most this many pixels
_COARSE_PX = 512  # longest side of the coarse grid on which other values are read
_STRIPE_PX = 1 << 22  # most pixels between the rows of a coarse grid that are read together


@dataclass(frozen=True)
class LayerReport:
    """One raster.

    Attributes:
        role: The name of a modality, ``labels`` or ``ground``.
        path: The file.
        what: Description of bands, data type, size and CRS.
        valid: Share of valid pixels among those read, 0 to 1.
        values: Lowest and highest value of each band, or the label values with their share in percent.
        covers: Share of the area of interest inside the extent of the raster, 0 to 1; None without an area.
        notes: Facts that the user should check.
        problems: Reasons why a training would refuse the raster.
    """

    role: str
    path: Path
    what: str
    valid: float
    values: str
    covers: float | None
    notes: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """All rasters, the working grid of a training, and reasons why a training would be refused.

    Attributes:
        layers: One report for each raster.
        grid: Description of the working grid of a whole image; None without a raster of a modality.
        pixels: Pixel sizes of the rasters and of the working grid, and the reason for it, in one line; None likewise.
        splits: Number of pixels of each split on the working grid; ``all`` if the area names no splits.
        problems: Reasons why a training would be refused, without duplicates; empty if there are none.
    """

    layers: tuple[LayerReport, ...]
    grid: str | None
    pixels: str | None
    splits: dict[str, int]
    problems: tuple[str, ...]


def inspect_files(
    sources: dict[str, RasterSource],
    aoi: AOI | None = None,
    *,
    resolution_m: float | None = None,
    grid_of: GridOf | None = None,
    patch_px: int | None = None,
    unit: str | None = None,
    channels: tuple[HeightChannelName, ...] = ("height_above_ground", "slope", "topographic_position"),
    classes: ClassScheme | None = None,
    ignore_values: tuple[int, ...] = (),
    label_values: Mapping[int, int] | None = None,
    bands: tuple[int, ...] | None = None,
) -> Inspection:
    """Inspect the rasters of a training.

    Labels are read completely; so are heights up to 134 million pixels, to count the impossible ones. Values of other
    rasters are read on a coarse grid of at most 512 x 512 px, so that large files take little longer.

    Args:
        sources: Rasters by role: the name of a modality, ``labels`` or ``ground``. A raster of labels that is no
            `LabelSource` yet is read with ``ignore_values`` and ``label_values``.
        aoi: The area of interest; None: no area and splits are checked.
        resolution_m: Pixel size of the training, m; None: see `choose_grid`.
        grid_of: Raster whose pixel edges the working grid keeps; None: see `choose_grid`.
        patch_px: Side of a training patch, px; None: the ground that it covers is not described.
        unit: Unit of heights such as ``m`` or ``ft``; None: the unit that each file names.
        channels: Height channels of the training.
        classes: Classes of the labels; None: those found in the label file.
        ignore_values: Label values to leave out.
        label_values: Class value, 0 to 254, that a value of the label file stands for; None: none is recoded.
        bands: Optical bands to use, counted from 1; None: all.

    Returns:
        What was found. Problems are listed in it, not raised.

    Raises:
        ConfigError: If ``grid_of`` names labels that have another CRS than the grid.
        GridError: If the raster of the first modality has no CRS.
        LabelError: If ``ignore_values`` and ``label_values`` contradict each other or the label file.
        RasterError: If a file cannot be read.

    Warns:
        LeftOutWarning: If tiles of the first modality have no file of another layer at their place.
        HeightRangeWarning: If many heights lie below their ground.
    """
    if "labels" in sources and not isinstance(sources["labels"], LabelSource):
        sources = {**sources, "labels": LabelSource.of(sources["labels"], ignore_values, label_values)}
    given = ground_is_given(sources)
    options = RecipeOptions({"optical": bands}, channels, height_unit=unit)
    recipes: dict[str, Recipe] = {}
    of_recipes: list[str] = []
    for m in MODALITIES.in_order(sources):
        of_recipes += _error_texts(partial(_recipe_of, m, sources, options, recipes))
    choice = None
    if rasters := {m: sources[m] for m in MODALITIES.in_order(sources)}:
        choice = choose_grid(
            rasters,
            sources.get("labels"),
            resolution_m=resolution_m,
            grid_of=grid_of,
            recipes=recipes.values(),
            ground_given=given,
        )
    grid = None if choice is None else choice.grid
    area = _label_grid(sources, aoi, grid)
    layers = tuple(_layer_report(role, s, aoi, unit, classes, area) for role, s in sources.items())
    problems = [_with_path(layer, problem) for layer in layers for problem in layer.problems]
    if aoi is not None:
        problems += _error_texts(lambda: require_splits(aoi))
    problems += of_recipes
    for recipe in recipes.values():
        if "ground" in sources and definition_of(recipe.modality).holds_heights:
            problems += _error_texts(partial(recipe.check_ground, sources["ground"]))
            problems += _error_texts(partial(_check_surface_above, recipe, sources, unit))
    splits: dict[str, int] = {}
    if grid is not None:
        for recipe in recipes.values():
            problems += _error_texts(partial(recipe.halo_px, grid, ground_given=given))
        for role, source in sources.items():
            problems += _error_texts(partial(require_overlap, {"label" if role == "labels" else role: source}, grid))
        labels = sources.get("labels")
        scene = Sources(rasters, labels if isinstance(labels, LabelSource) else None, sources.get("ground"), unit)
        problems += _error_texts(partial(warn_of_lone_tiles, "", scene, grid, aoi))
        if aoi is not None:
            splits = _split_px(aoi, grid)
    problems += _error_texts(partial(require_one_size, sources))
    distinct = tuple(dict.fromkeys(problems))
    work = None if grid is None else describe_work(grid, patch_px)
    return Inspection(layers, work, None if choice is None else choice.note, splits, distinct)


def read_heights(
    sources: Mapping[str, RasterSource], height: HeightSettings | None, unit: str | None = None
) -> dict[str, RasterSource]:
    """Read heights, and the ground under them, as their coding says.

    Args:
        sources: Rasters by role: the name of a modality, ``labels`` or ``ground``.
        height: The coding; None: the files decide.
        unit: Unit of heights, where the user gave one.

    Returns:
        The rasters by role, with the ground where a band of the heights holds it.

    Raises:
        HeightError: If the coding does not fit the heights, or there is a ground that they cannot have.
    """
    roles = {role: raster for role, raster in sources.items() if role in MODALITIES}
    read = with_heights(Sources(roles, None, sources.get("ground"), unit), height)
    ground = {} if read.ground is None else {"ground": read.ground}
    return {**sources, **read.rasters, **ground}


def _recipe_of(
    modality: Modality, sources: Mapping[str, RasterSource], options: RecipeOptions, recipes: dict[str, Recipe]
) -> None:
    """Add the recipe of a modality to ``recipes``, then check its raster as a training does."""
    definition = definition_of(modality)
    recipe = recipes[modality] = Recipe.of(modality, sources[modality], options)
    if definition.holds_heights:
        recipe.check(sources[modality], ground_given=ground_is_given(sources))


def _check_surface_above(recipe: Recipe, sources: Mapping[str, RasterSource], unit: str | None) -> None:
    """Check that heights lie above their ground, as a training does."""
    surface, ground = recipe.fitted(sources[recipe.modality], unit=unit), sources["ground"]
    names = (f"data.{recipe.modality}", "data.ground")
    check_surface_above(surface, recipe.fitted_ground(ground, unit=unit), unit, names=names)


def _error_texts(check: Callable[[], object]) -> list[str]:
    """Run a check, and return the text of its error if it raises one."""
    try:
        check()
    except GeocrodinoError as error:
        return [str(error)]
    return []


def _layer_report(
    role: str,
    source: RasterSource,
    aoi: AOI | None,
    unit: str | None,
    classes: ClassScheme | None,
    area: GeoBox | None,
) -> LayerReport:
    height, width = source.geobox.shape
    coarse_grid = source.geobox.zoom_to((min(height, _COARSE_PX), min(width, _COARSE_PX)))
    labels = look_at_labels(source, classes, area) if isinstance(source, LabelSource) else None
    notes: list[str] = []
    problems: list[str] = []
    if role == "ground" or (role in MODALITIES and definition_of(role).holds_heights):
        try:
            source, notes = _checked_heights(role, source, unit)
        except HeightError as error:
            problems.append(str(error))
    values, valid = _read_coarsely(source, coarse_grid)
    if source.alpha_band:
        notes.append(f"band {source.alpha_band} is transparency: 0 is invalid")
    if not source.says_validity:
        notes.append("no nodata tag, mask or transparency: every finite value counts")
    if labels is not None:
        notes += labels.notes
        problems += labels.problems
    covers = None if aoi is None else _covered_share(source, aoi)
    return LayerReport(
        role=role,
        path=source.path,
        what=source.describe(),
        valid=float(valid.mean()),
        values=_value_ranges(source, values, valid) if labels is None or not labels.values else labels.values,
        covers=covers,
        notes=tuple(notes),
        problems=(*_layer_problems(source, valid, covers, aoi), *problems),
    )


def _checked_heights(role: str, source: RasterSource, unit: str | None) -> tuple[RasterSource, list[str]]:
    """Set limits that mark impossible heights as missing, and return notes on the unit and on doubtful heights."""
    factor, known_by = ground_unit(source, unit) if role == "ground" else height_unit(source, unit)
    notes = [known_by]
    if len(source.data_bands) != 1 or source.has_palette or source.is_map:
        return source, notes
    source = with_height_limits(source, factor, unit)
    if math.prod(source.geobox.shape) <= _COUNTED_PX:
        found = impossible_heights(source, source.geobox, Window.of(source.geobox.shape))
        notes += [found.note(source)] if found.pixels else []
    zeros, classes = lone_zeros(source, factor), 0 if role == "ground" else few_values(source)
    notes += [lone_zeros_note(source, zeros)] if zeros else []
    notes += [few_values_note(source, classes)] if classes else []
    return source, notes


def _with_path(layer: LayerReport, problem: str) -> str:
    return problem if problem.startswith(str(layer.path)) else f"{layer.path}: {problem}"


def _layer_problems(source: RasterSource, valid: NDArray[np.bool_], covers: float | None, aoi: AOI | None) -> list[str]:
    found = []
    if not valid.any():
        found.append(f"no valid pixel among those read: {advice_on_numbers(source) or 'all of it seems to be nodata.'}")
    if covers == 0 and aoi is not None:
        found.append(f"does not overlap the area of interest. {likely_mistake(aoi, source.geobox)}".rstrip())
    return found


def _read_coarsely(source: RasterSource, coarse_grid: GeoBox) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read evenly spaced pixels of the file: values (C, h, w) and validity (h, w) on the coarse grid.

    Each read opens the file, so close rows are read together. Distant rows are read one by one.
    """
    height, width = source.geobox.shape
    rows = np.linspace(0, height - 1, coarse_grid.shape[0]).round().astype(int)
    cols = np.linspace(0, width - 1, coarse_grid.shape[1]).round().astype(int)
    if source.limits is not None:  # the search for jumps would need the neighbouring rows
        source = source.with_limits(replace(source.limits, jump=math.inf, cluster_jump=math.inf))
    together = max(1, _STRIPE_PX // (2 * width)) if height <= 2 * len(rows) else 1
    parts = []
    for some in (rows[first : first + together] for first in range(0, len(rows), together)):
        stripe = Window.at(int(some[0]), 0, (int(some[-1] - some[0]) + 1, width))
        values, valid = source.read_own(stripe, source.data_bands)
        kept = some - some[0]
        parts.append((values[:, kept][:, :, cols], valid[kept][:, cols]))
    return np.concatenate([v for v, _ in parts], axis=1), np.concatenate([ok for _, ok in parts], axis=0)


def _value_ranges(source: RasterSource, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> str:
    if not valid.any():
        return "none"
    names = [source.band_names[b - 1] for b in source.data_bands]
    return ", ".join(f"{n} {v[valid].min():.5g} to {v[valid].max():.5g}" for n, v in zip(names, values, strict=True))


def _label_grid(sources: Mapping[str, RasterSource], aoi: AOI | None, grid: GeoBox | None) -> GeoBox | None:
    """Choose the grid on which a training would read labels; None if it is unknown or labels do not overlap it."""
    if aoi is None or grid is None or "labels" not in sources:
        return None
    try:
        part = reference_grid(next(sources[m] for m in MODALITIES.in_order(sources)), aoi, grid)
    except (AOIError, GridError):
        return None
    return part if share_ground(sources["labels"].geobox, part) else None


def _covered_share(source: RasterSource, aoi: AOI) -> float:
    try:
        there = on_grid(aoi, source.geobox).polygons().intersection(source.geobox.extent.geom)
        if there.is_empty:
            return 0.0
        area = aoi.to_crs(crs_of(source.geobox).wkt).polygons()
    except AOIError:
        return 0.0  # no transformation between the two CRSs
    if not all(map(math.isfinite, area.bounds)):  # the area reaches far beyond the valid area of the raster's CRS
        back = gpd.GeoSeries([there], crs=crs_of(source.geobox).wkt).to_crs(aoi.crs)
        return float(back.area.iloc[0] / aoi.polygons().area)
    return min(1.0, float(there.area / area.area))


def _split_px(aoi: AOI, grid: GeoBox) -> dict[str, int]:
    pixel = abs(grid.affine.a * grid.affine.e)
    extent = grid.extent.geom
    try:
        local = on_grid(aoi, grid)
        named = {s: local.polygons(s) for s in local.splits} or {"all": local.polygons()}
    except AOIError:
        return {}
    return {name: round(shape.intersection(extent).area / pixel) for name, shape in named.items()}
