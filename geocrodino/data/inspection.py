"""What files are, whether they fit together, and what of them will be used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.normalisation import HeightChannel, elevation_recipe, optical_recipe
from geocrodino.errors import AOIError, BundleError, HeightError
from geocrodino.geo.aoi import AOI
from geocrodino.geo.aoi_place import likely_mistake, on_grid
from geocrodino.geo.classes import ClassScheme
from geocrodino.geo.grid import crs_of, describe, share_ground, working_grid
from geocrodino.geo.reader import RasterSource
from geocrodino.geo.units import ground_unit, height_unit

_LOOK_PX = 512  # a raster is looked at on a grid of at most this many pixels a side


@dataclass(frozen=True)
class LayerReport:
    """One raster.

    Attributes:
        role: ``optical``, ``elevation``, ``labels`` or ``ground``.
        path: The file.
        what: Bands, type, size, CRS.
        valid: Share of valid pixels, 0 to 1.
        values: Lowest and highest value of each band, or the label values with their share.
        covers: Share of the area of interest that the raster's extent covers, or None without an area.
        notes: What deserves attention.
        problems: Why a training would refuse it.
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
    """All rasters, the grid they would be put on, and what stands in the way.

    Attributes:
        layers: The rasters.
        grid: Reference grid in words, or None without an optical raster.
        splits: Pixels of each split on the reference grid.
        problems: Why a training would be refused; empty if it would not.
    """

    layers: tuple[LayerReport, ...]
    grid: str | None
    splits: dict[str, int]
    problems: tuple[str, ...]


def inspect_files(
    sources: dict[str, RasterSource],
    aoi: AOI | None = None,
    *,
    resolution_m: float | None = None,
    unit: str | None = None,
    channels: tuple[HeightChannel, ...] = ("height_above_ground", "slope", "topographic_position"),
    classes: ClassScheme | None = None,
    ignore_values: tuple[int, ...] = (),
    bands: tuple[int, ...] | None = None,
) -> Inspection:
    """Look at rasters by role; values are read on a coarse grid, so that a large file takes no longer.

    Args:
        sources: Rasters by role.
        aoi: The area of interest.
        resolution_m: Pixel size asked for.
        unit: Unit of heights, where the user says it.
        channels: Height channels asked for.
        classes: Classes, if they are named.
        ignore_values: Label values that are no class.
        bands: Optical bands asked for.
    """
    optical = sources.get("optical")
    grid = None if optical is None else working_grid(optical.geobox, resolution_m)
    layers = tuple(_layer(role, s, aoi, unit, classes, ignore_values) for role, s in sources.items())
    problems = [f"{layer.path}: {problem}" for layer in layers for problem in layer.problems]
    problems += _missing_splits(aoi)
    if optical is not None:
        problems += _band_problems(optical, bands)
    splits: dict[str, int] = {}
    if grid is not None:
        problems += _height_problems(sources, grid, channels)
        for source in sources.values():
            if not share_ground(source.geobox, grid):
                problems.append(f"{source.path}: does not meet the optical raster.")
        if aoi is not None:
            splits = _split_px(aoi, grid)
    return Inspection(layers, None if grid is None else describe(grid), splits, tuple(problems))


def _layer(
    role: str,
    source: RasterSource,
    aoi: AOI | None,
    unit: str | None,
    classes: ClassScheme | None,
    ignore_values: tuple[int, ...],
) -> LayerReport:
    height, width = source.geobox.shape
    look = source.geobox.zoom_to((min(height, _LOOK_PX), min(width, _LOOK_PX)))
    categorical = role == "labels"
    values, valid = _coarse(source, look, categorical=categorical)
    if categorical:
        valid &= ~np.isin(values[0], ignore_values)
    notes = []
    if role == "elevation":
        notes.append(height_unit(source, unit)[1])
    if role == "ground":
        notes.append(ground_unit(source, unit)[1])
    if source.alpha_band:
        notes.append(f"band {source.alpha_band} is transparency: 0 is invalid")
    if not source.says_validity:
        notes.append("no nodata tag, mask or transparency: every finite value counts")
    if categorical and classes is not None:
        strange = sorted(set(np.unique(values[0][valid]).tolist()) - set(classes.values))
        if strange:
            notes.append(
                f"values of no class: {', '.join(f'{v:g}' for v in strange[:8])}; a training refuses them in its area. "
                "Name them under `classes`, or leave them out under `ignore_values` in `data`"
            )
    covers = None if aoi is None else _covered(source, aoi)
    return LayerReport(
        role=role,
        path=source.path,
        what=source.describe(),
        valid=float(valid.mean()),
        values=_label_values(values[0][valid], classes) if categorical else _ranges(source, values, valid),
        covers=covers,
        notes=tuple(notes),
        problems=tuple(_layer_problems(role, source, values, valid, covers, aoi)),
    )


def _layer_problems(
    role: str,
    source: RasterSource,
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    covers: float | None,
    aoi: AOI | None,
) -> list[str]:
    found = []
    if not valid.any():
        found.append("no valid pixel among those looked at: all of it seems to be nodata.")
    if covers == 0 and aoi is not None:
        found.append(f"does not meet the area of interest. {likely_mistake(aoi, source.geobox)}".rstrip())
    if role in {"elevation", "ground"} and len(source.data_bands) != 1:
        found.append(f"expected one band of heights, found {len(source.data_bands)}.")
    if role == "labels":
        wrong = np.unique(values[0][valid & ((values[0] % 1 != 0) | (values[0] < 0) | (values[0] > 254))])
        if wrong.size:
            some = ", ".join(f"{v:g}" for v in wrong[:5])
            found.append(f"expected whole class values from 0 to 254, found {some}. Is this the label raster?")
    return found


def _coarse(source: RasterSource, look: GeoBox, *, categorical: bool) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Every k-th pixel of the file, row by row."""
    height, width = source.geobox.shape
    rows = np.linspace(0, height - 1, look.shape[0]).round().astype(int)
    cols = np.linspace(0, width - 1, look.shape[1]).round().astype(int)
    bands = source.data_bands[:1] if categorical else source.data_bands
    parts = [source.read_own((int(r), int(r) + 1, 0, width), bands) for r in rows]
    return (
        np.concatenate([v[:, :, cols] for v, _ in parts], axis=1),
        np.concatenate([ok[:, cols] for _, ok in parts], axis=0),
    )


def _ranges(source: RasterSource, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> str:
    if not valid.any():
        return "none"
    names = [source.band_names[b - 1] for b in source.data_bands]
    return ", ".join(f"{n} {v[valid].min():.5g} to {v[valid].max():.5g}" for n, v in zip(names, values, strict=True))


def _label_values(values: NDArray[np.float32], classes: ClassScheme | None) -> str:
    found, counts = np.unique(values, return_counts=True)
    names = {} if classes is None else dict(zip(classes.values, classes.names, strict=True))
    shares = 100 * counts / max(1, counts.sum())
    told = [
        f"{v:g} {names.get(int(v), '')}".strip() + f" {s:.2g} %"
        for v, s in zip(found[:20].tolist(), shares[:20].tolist(), strict=True)
    ]
    return ", ".join(told) + (f" and {found.size - 20} more values" if found.size > 20 else "") or "none"


def _covered(source: RasterSource, aoi: AOI) -> float:
    try:
        there = on_grid(aoi, source.geobox).polygons().intersection(source.geobox.extent.geom)
        if there.is_empty:
            return 0.0
        area = aoi.to_crs(crs_of(source.geobox).wkt).polygons()
    except AOIError:
        return 0.0  # no transformation leads from one to the other
    if not all(map(math.isfinite, area.bounds)):  # it reaches far beyond what the CRS of the raster is made for
        back = gpd.GeoSeries([there], crs=crs_of(source.geobox).wkt).to_crs(aoi.crs)
        return float(back.area.iloc[0] / aoi.polygons().area)
    return min(1.0, float(there.area / area.area))


def _missing_splits(aoi: AOI | None) -> list[str]:
    if aoi is None or not aoi.splits:
        return []
    missing = [s for s in ("train", "val") if s not in aoi.splits]
    return [f"{aoi.source}: no polygon of the split {s!r}, which a training needs." for s in missing]


def _band_problems(optical: RasterSource, bands: tuple[int, ...] | None) -> list[str]:
    try:
        optical_recipe(optical, bands)
    except BundleError as error:
        return [str(error)]
    return []


def _height_problems(sources: dict[str, RasterSource], grid: GeoBox, channels: tuple[HeightChannel, ...]) -> list[str]:
    if "elevation" not in sources:
        return []
    try:
        recipe, given = elevation_recipe(channels), "ground" in sources
        recipe.halo_px(grid, ground_given=given)
        if len(sources["elevation"].data_bands) == 1:
            recipe.check(sources["elevation"], ground_given=given)
    except HeightError as error:
        return [str(error)]
    return []


def _split_px(aoi: AOI, grid: GeoBox) -> dict[str, int]:
    pixel = abs(grid.affine.a * grid.affine.e)
    extent = grid.extent.geom
    try:
        local = on_grid(aoi, grid)
        named = {s: local.polygons(s) for s in local.splits} or {"all": local.polygons()}
    except AOIError:
        return {}
    return {name: round(shape.intersection(extent).area / pixel) for name, shape in named.items()}
