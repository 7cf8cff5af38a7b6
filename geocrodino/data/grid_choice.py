"""The working grid of a training: its pixel size and pixel edges, chosen from the image and the labels.

The grid covers the raster of the first modality, the image, in its CRS. A network learns no finer classes than its
labels show, so a much finer image is averaged to the pixel size of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from odc.geo.geobox import GeoBox

from geocrodino.errors import ConfigError, GridError, HeightError
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.grid import describe, on_lattice, pixel_size_m, working_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.warp import AGGREGATE_FROM
from geocrodino.modalities.registry import Recipe
from geocrodino.settings.grid import GridOf
from geocrodino.settings.modality import Modality

_MUCH_COARSER = 10.0
"""Labels more than this many times coarser than the image do not set the pixel size. They describe areas, such as land
cover of 30 m under an image of 1 m; averaging a hundred pixels or more into one would remove the objects that the image
shows. A judgement, not a measurement."""

_WORDS = {"optical": ("image", "is"), "elevation": ("heights", "are"), "labels": ("labels", "are")}


@dataclass(frozen=True)
class GridChoice:
    """A working grid and the reason for it.

    Attributes:
        grid: The grid: north up, square pixels, covering the raster of the first modality.
        resolution_m: Pixel size, metres; with ``grid_of`` it gives the same grid again.
        grid_of: Raster whose pixel edges the grid keeps.
        image_m: Pixel size of the raster of the first modality, metres.
        note: Pixel sizes of the rasters, that of the grid, and the reason, in one line.
    """

    grid: GeoBox
    resolution_m: float
    grid_of: GridOf
    image_m: float
    note: str


def choose_grid(
    rasters: Mapping[Modality, RasterSource],
    labels: RasterSource | None,
    *,
    resolution_m: float | None = None,
    grid_of: GridOf | None = None,
    recipes: Collection[Recipe] = (),
    ground_given: bool = False,
) -> GridChoice:
    """Choose the working grid of a training.

    Without ``resolution_m`` and ``grid_of``, the grid has the pixel size of the labels if these are 1.5 to 10 times
    coarser than the image, otherwise that of the image. From 1.5 times on, values are averaged instead of interpolated,
    and an image pixel in two or more would see a label that its neighbours see too. The grid is that of the labels,
    which are then not resampled, if it is north up with square pixels in the CRS of the image.

    Args:
        rasters: The raster of each modality, in the order of the modalities; at least one.
        labels: The labels; None, or shapes, which have no pixels: the image alone decides.
        resolution_m: Pixel size, m; None: see above, or that of the raster ``grid_of``.
        grid_of: Raster whose pixel edges the grid keeps; None: see above, or the image where ``resolution_m`` is given.
        recipes: Recipes of the training. Labels on whose grid one of them cannot be computed do not set the pixel size.
        ground_given: Whether there is a ground raster.

    Returns:
        The grid and the reason for it.

    Raises:
        ConfigError: If ``grid_of`` names labels that have another CRS than the grid, or no pixels.
        GridError: If the raster of the first modality has no position on the ellipsoid.
    """
    labels = _with_pixels(labels, grid_of)
    name, image = next(iter(rasters.items()))
    own = working_grid(image.geobox)
    image_m, label_m = side_m(image.geobox), None if labels is None else _known_side_m(labels.geobox)
    known = {m: _known_side_m(raster.geobox) for m, raster in rasters.items()} | {"labels": label_m}
    sizes = {role: size for role, size in known.items() if size is not None}
    if resolution_m is not None or grid_of is not None:
        grid, size = _asked_grid(image.geobox, labels, resolution_m, grid_of or "image")
        note = _note(sizes, size, "as set.")
        return GridChoice(grid, size, grid_of or "image", image_m, note)
    ratio = 1.0 if label_m is None else label_m / image_m
    if labels is not None and label_m is not None and AGGREGATE_FROM <= round(ratio, 6) <= _MUCH_COARSER:
        grid, edges = _grid_like(labels.geobox, image.geobox, label_m)
        if _computable(recipes, grid, ground_given=ground_given):
            reason = (
                f"the pixel size of the labels. `data.resolution_m={image_m:.4g}` keeps that of the {_word(name)}, "
                f"with {ratio**2:.3g} times the pixels."
            )
            return GridChoice(grid, label_m, edges, image_m, _note(sizes, label_m, reason))
    reason = f"the pixel size of the {_word(name)}."
    if label_m is not None and round(ratio, 6) >= AGGREGATE_FROM:
        coarse = working_grid(image.geobox, label_m)
        reason += _coarse_labels(label_m, ratio, usable=_computable(recipes, coarse, ground_given=ground_given))
    return GridChoice(own, image_m, "image", image_m, _note(sizes, image_m, reason))


def _with_pixels(labels: RasterSource | None, grid_of: GridOf | None) -> RasterSource | None:
    """The labels if they are a raster, whose pixels a grid can keep."""
    if not isinstance(labels, LabelSource) or labels.has_pixels:
        return labels
    if grid_of == "labels":
        raise ConfigError(
            f"data.grid_of labels: expected a raster of labels, found {labels.path}, {labels.describe()}.\n"
            "Leave grid_of out."
        )
    return None


def side_m(grid: GeoBox) -> float:
    """Measure the side of a square as large as a pixel at the middle of a grid.

    Args:
        grid: The grid.

    Returns:
        The side, metres.

    Raises:
        GridError: If the grid has no CRS, or its middle no position on the ellipsoid.
    """
    return math.sqrt(math.prod(pixel_size_m(grid)))


def describe_work(grid: GeoBox, patch_px: int | None) -> str:
    """Describe how much a training on a grid reads.

    Args:
        grid: The working grid.
        patch_px: Side of a training patch, px; None: left out.

    Returns:
        Size, CRS and number of pixels of the grid, and the ground that a patch covers, in one line.
    """
    size = f"{describe(grid)}, {math.prod(grid.shape):,} px"
    return size if patch_px is None else f"{size}; a patch of {patch_px} px covers {_metres(patch_px * side_m(grid))} m"


def _asked_grid(
    image: GeoBox, labels: RasterSource | None, resolution_m: float | None, grid_of: GridOf
) -> tuple[GeoBox, float]:
    """The grid that the settings name, and its pixel size in metres."""
    if grid_of == "image" or labels is None:
        grid = working_grid(image, resolution_m)
        return grid, side_m(image) if resolution_m is None else resolution_m
    lattice, own = working_grid(labels.geobox, resolution_m), working_grid(image)
    if lattice.crs != own.crs:
        raise ConfigError(
            f"data.grid_of labels: expected labels in the CRS of the working grid, {describe(own)}; found "
            f"{labels.path}, {describe(labels.geobox)}.\nLeave grid_of out."
        )
    return on_lattice(own, lattice), side_m(labels.geobox) if resolution_m is None else resolution_m


def _grid_like(labels: GeoBox, image: GeoBox, label_m: float) -> tuple[GeoBox, GridOf]:
    """A grid with the labels' pixel size, and whose pixel edges it keeps: the labels' own where that is possible."""
    own = working_grid(image)
    if own.crs == labels.crs and working_grid(labels) == labels:
        return on_lattice(own, labels), "labels"
    return working_grid(image, label_m), "image"


def _computable(recipes: Collection[Recipe], grid: GeoBox, *, ground_given: bool) -> bool:
    """Whether the channels of all recipes can be computed on a grid. Height above ground needs fine pixels."""
    try:
        for recipe in recipes:
            recipe.halo_px(grid, ground_given=ground_given)
    except HeightError:
        return False
    return True


def _known_side_m(grid: GeoBox) -> float | None:
    """Side of a pixel in metres; None for a raster without a position on the ellipsoid, which is refused later."""
    try:
        return side_m(grid)
    except GridError:
        return None


def _note(sizes: Mapping[str, float], work_m: float, reason: str) -> str:
    listed = ", ".join(f"{_word(role)} {_metres(size)} m" for role, size in sizes.items())
    coarse = [role for role, size in sizes.items() if role != "labels" and round(size / work_m, 6) >= AGGREGATE_FROM]
    spread = "".join(f" {_word(role).capitalize()} {_WORDS.get(role, ('', 'is'))[1]} interpolated." for role in coarse)
    return f"{listed[:1].upper()}{listed[1:]}: works at {_metres(work_m)} m, {reason}{spread}"


def _coarse_labels(label_m: float, ratio: float, *, usable: bool) -> str:
    found = f" Labels are {ratio:.3g} times as coarse"
    if not usable:
        return f"{found}, too coarse for the height channels."
    return f"{found}: `data.resolution_m={label_m:.4g}` works at theirs."


def _word(role: str) -> str:
    return _WORDS.get(role, (role,))[0]


def _metres(size: float) -> str:
    return f"{size:.3g}" if size < 1000 else f"{size:,.0f}"
