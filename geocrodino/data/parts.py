"""Parts of a scene that lie far apart, so that no array is made of the empty space between them.

Eighteen plots of 40 m over 20 km are one mosaic by name, and one grid of a billion pixels. Only the parts that files
and areas of interest cover become layers.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geocrodino.data.alignment import nothing_valid
from geocrodino.data.listed import Member, members_of
from geocrodino.data.patches import patch_corners
from geocrodino.data.sources import Sources
from geocrodino.errors import LeftOutWarning
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.place import on_grid
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.grid import crs_of, share_ground, window_grid
from geocrodino.geo.rasters.protocol import Kind
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.phrases import listed
from geocrodino.settings.modality import Modality

SMALL_PX = 1 << 24
"""Pixels up to which a grid stays whole: its layers take 400 MB at most."""

_BLOCK_PX = 512
_LOOK_PX = 64  # side of the middle that is looked at first


@dataclass(frozen=True)
class ScenePart:
    """A part of a scene that is trained on its own.

    Attributes:
        name: Number of the part, ``-1`` and so on, for the end of the scene's name; empty for a whole scene.
        sources: The rasters of the scene; without labels where none lie on the part, and without those of modalities
            that have no pixel there, where such parts are kept.
        area: Polygons on the part, in the CRS of its grid; None: the whole part.
        grid: Its grid.
        extent: The ground of a whole part whose grid is larger, in the CRS of the grid; None: that of the grid.
    """

    name: str
    sources: Sources
    area: AOI | None
    grid: GeoBox
    extent: BaseGeometry | None = None


def scene_parts(
    sources: Sources, area: AOI | None, grid: GeoBox, patch_px: int, *, keep: bool = False
) -> tuple[ScenePart, ...]:
    """Divide a scene into parts, if most of its grid is empty.

    Empty is what no file of the first modality covers, and no polygon of the area. Parts are apart by a patch at least.
    A grid of up to 17 million pixels, and one that is covered by half, stays whole.

    Args:
        sources: The rasters of the scene.
        area: The area of interest, in any CRS; None: the whole scene.
        grid: The grid of the scene, or of the part of it that the area covers.
        patch_px: Side of a training patch, px. Smaller parts are made as large at the right and bottom.
        keep: Whether to keep parts on which a modality has no valid pixel, without its raster.

    Returns:
        The whole scene, or its parts from top to bottom.

    Raises:
        RasterError: If a raster cannot be read, or has no valid pixel on any part.

    Warns:
        LeftOutWarning: If parts are left out, because a modality has no valid pixel there.
    """
    whole = (ScenePart("", sources, area, grid),)
    if math.prod(grid.shape) <= SMALL_PX:
        return whole
    boxes = covered_boxes(sources.reference, grid)
    placed = None if area is None else on_grid(area, grid)
    if placed is not None:
        boxes = _common(boxes, _boxes(placed.frame.geometry, grid))
    windows = join_boxes(boxes, patch_px)
    if not windows or 2 * sum(window.pixels for window in windows) >= math.prod(grid.shape):
        return whole
    parts = [
        _part(f"-{number}", sources, placed, grid, window, patch_px) for number, window in enumerate(windows, start=1)
    ]
    return tuple(_with_data(parts, grid, keep=keep))


def with_surroundings(
    inside: dict[str, NDArray[np.bool_]], splits: Sequence[str], patch_px: int
) -> dict[str, NDArray[np.bool_]]:
    """Let patches reach beyond the polygons of a part that are smaller than a patch; labels stay those inside.

    Args:
        inside: Pixels inside each split that a training reads, bool, shape (H, W).
        splits: All splits of the part. With several of them nothing changes: a patch would reach into another split.
        patch_px: Side of a patch, px.

    Returns:
        The same pixels, or all of the part where no patch fits into the polygons of its only split.
    """
    if len(splits) != 1 or len(inside) != 1:
        return inside
    ((split, mask),) = inside.items()
    return inside if patch_corners(mask, patch_px).any() else {split: np.broadcast_to(np.True_, mask.shape)}


def join_boxes(boxes: NDArray[np.int64], patch_px: int) -> tuple[Window, ...]:
    """Join boxes between which no patch fits.

    Args:
        boxes: Rows and columns ``(row_start, row_stop, col_start, col_stop)`` of each box, px, shape (N, 4).
        patch_px: Side of a patch, px.

    Returns:
        Windows around the boxes, from top to bottom; two of them are ``patch_px`` apart at least, in rows or columns.
    """
    found = np.unique(boxes, axis=0)
    while True:
        joined: list[NDArray[np.int64]] = []
        left = found
        while len(left):
            box = left[0]
            while True:  # a box that has grown may come near to others
                near = (
                    (left[:, 0] < box[1] + patch_px)
                    & (left[:, 1] > box[0] - patch_px)
                    & (left[:, 2] < box[3] + patch_px)
                    & (left[:, 3] > box[2] - patch_px)
                )
                near[0] = True
                low, high = left[near].min(axis=0), left[near].max(axis=0)
                grown = np.array([low[0], high[1], low[2], high[3]])
                if (grown == box).all():
                    break
                box = grown
            joined.append(box)
            left = left[~near]
        if len(joined) == len(found):
            return tuple(Window(*box) for box in np.unique(found, axis=0).tolist())
        found = np.array(joined)


def covered_boxes(raster: RasterSource, grid: GeoBox) -> NDArray[np.int64]:
    """Find what the files of a raster cover on a grid.

    Args:
        raster: A raster or a mosaic, in any CRS.
        grid: The grid.

    Returns:
        Rows and columns of the grid ``(row_start, row_stop, col_start, col_stop)`` that each file covers, px, int64,
        shape (files on the grid, 4).
    """
    return _boxes(covered_shapes(raster, grid), grid)


def covered_shapes(raster: RasterSource, grid: GeoBox) -> gpd.GeoSeries:
    """Find what the files of a raster cover, also beyond a grid.

    Args:
        raster: A raster or a mosaic, in any CRS.
        grid: The grid.

    Returns:
        The polygon of each file in the CRS of the grid, in the order of the files.
    """
    top, bottom, left, right = raster.covered.T.astype(float)
    corners = np.stack([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])  # (5, 2, N)
    affine = raster.geobox.affine
    x = affine.a * corners[:, 0] + affine.b * corners[:, 1] + affine.c
    y = affine.d * corners[:, 0] + affine.e * corners[:, 1] + affine.f
    shapes = gpd.GeoSeries(shapely.polygons(np.stack([x.T, y.T], axis=-1)), crs=crs_of(raster.geobox).wkt)
    if raster.geobox.crs != grid.crs:
        shapes = shapes.to_crs(crs_of(grid).wkt)
    return shapes


def list_members(sources: Sources, grid: GeoBox) -> tuple[Member, ...]:
    """List the files that the layers of a scene are joined from, with their places on a grid.

    Args:
        sources: The rasters of the scene.
        grid: Its grid, or that of a part of it.

    Returns:
        The places, also those beyond the grid; none where every layer is one file.
    """
    layers = []
    for role in sources.roles.values():
        raster = role if not isinstance(role, LabelSource) or role.pixels is None else role.pixels
        if len(raster.file_names) > 1 and len(raster.covered) == len(raster.file_names):
            layers.append(list(zip(raster.file_names, covered_shapes(raster, grid), strict=True)))
    return members_of(layers)


def _boxes(shapes: gpd.GeoSeries, grid: GeoBox) -> NDArray[np.int64]:
    """Boxes of pixels around polygons in the CRS of a grid, cut to the grid; those outside are left out."""
    single = shapes.explode(ignore_index=True)
    bounds = single[~single.is_empty].bounds.to_numpy()
    x0, y0, x1, y1 = bounds.T
    inverse = ~grid.affine  # north up
    rows, cols = (inverse.e * np.stack([y1, y0]) + inverse.f), (inverse.a * np.stack([x0, x1]) + inverse.c)
    low = np.floor(np.stack([rows[0], cols[0]]) + 1e-6)
    high = np.ceil(np.stack([rows[1], cols[1]]) - 1e-6)
    limits = np.array(grid.shape, float)[:, None]
    low, high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    boxes = np.stack([low[0], high[0], low[1], high[1]], axis=1).astype(np.int64)
    return boxes[(boxes[:, 0] < boxes[:, 1]) & (boxes[:, 2] < boxes[:, 3])]


def _common(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The common part of each pair of boxes that meet."""
    found = [np.zeros((0, 4), np.int64)]
    for box in second:
        low, high = np.maximum(first[:, [0, 2]], box[[0, 2]]), np.minimum(first[:, [1, 3]], box[[1, 3]])
        meet = (low < high).all(axis=1)
        found.append(np.stack([low[meet, 0], high[meet, 0], low[meet, 1], high[meet, 1]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _part(name: str, sources: Sources, area: AOI | None, grid: GeoBox, window: Window, patch_px: int) -> ScenePart:
    rows, cols = (max(side, patch_px) for side in window.shape)
    own = window_grid(grid, Window.at(*window.corner, (rows, cols)))
    if area is None:
        return ScenePart(name, sources, None, own, shapely.box(*window_grid(grid, window).boundingbox))
    box = shapely.box(*own.boundingbox)
    frame = area.frame[area.frame.intersects(box)]
    frame = frame.set_geometry(frame.geometry.intersection(box))
    return ScenePart(name, sources, AOI(frame[frame.area > 0].reset_index(drop=True), area.source), own)


def _with_data(parts: Sequence[ScenePart], grid: GeoBox, *, keep: bool) -> list[ScenePart]:
    """Parts on which every modality has a valid pixel, or any of them; labels only where there are any."""
    rasters, labels = parts[0].sources.rasters, parts[0].sources.labels
    lacking = {part.name: [m for m, raster in rasters.items() if not any_valid(raster, part.grid)] for part in parts}
    most = len(rasters) - 1 if keep else 0
    kept = [_without(part, lacking[part.name]) for part in parts if len(lacking[part.name]) <= most]
    labelled = {part.name for part in kept if labels is not None and any_valid(labels, part.grid, categorical=True)}
    if not kept:
        raise nothing_valid(rasters[next(iter(lacking.values()))[0]], grid)
    if labels is not None and not labelled:
        raise nothing_valid(labels, grid)
    for modality, raster in rasters.items():
        for left_out in (True, False):
            missing = [name for name, found in lacking.items() if modality in found[: 1 + most]]
            missing = [name.lstrip("-") for name in missing if (len(lacking[name]) > most) == left_out]
            if not missing:
                continue
            fate = "left out" if left_out else "kept without it"
            warnings.warn(
                f"{raster.path}: no valid pixel on {len(missing)} of the {len(parts)} parts of the scene, which are "
                f"{fate}: {listed(missing)}.",
                LeftOutWarning,
                stacklevel=3,
            )
    return [p if p.name in labelled else replace(p, sources=replace(p.sources, labels=None)) for p in kept]


def _without(part: ScenePart, modalities: Sequence[Modality]) -> ScenePart:
    """A part without the rasters of some modalities."""
    if not modalities:
        return part
    rasters = {m: raster for m, raster in part.sources.rasters.items() if m not in modalities}
    return replace(part, sources=replace(part.sources, rasters=rasters))


def any_valid(raster: RasterSource, grid: GeoBox, *, categorical: bool = False) -> bool:
    """Find out whether a raster holds data on a grid; reading stops where it does.

    Args:
        raster: The raster, in any CRS.
        grid: The grid.
        categorical: Whether its values are classes.

    Returns:
        Whether a pixel of its first data band is valid.

    Raises:
        RasterError: If the raster cannot be read.
    """
    if not share_ground(raster.geobox, grid):
        return False
    kind: Kind = "categorical" if categorical else "continuous"
    band = raster.data_bands[:1]
    (rows, cols), whole = grid.shape, Window.of(grid.shape)
    # A raster without data in its middle is rare, and a few rows are read in a fraction of the time.
    middle = Window.at(rows // 2, cols // 2, (min(_LOOK_PX, rows - rows // 2), min(_LOOK_PX, cols - cols // 2)))
    windows = itertools.chain([middle], whole.blocks(_BLOCK_PX))
    return any(raster.read(grid, window, bands=band, kind=kind)[1].any() for window in windows)
