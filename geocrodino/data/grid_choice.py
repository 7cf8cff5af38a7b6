"""The working grid of a training: its pixel size and pixel edges, chosen from the image and the labels.

The grid covers the raster of the first modality, the image, in its CRS. A network learns no finer classes than its
labels show, so a much finer image is averaged to the pixel size of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from odc.geo.geobox import GeoBox

from geocrodino.data.sources import Sources
from geocrodino.errors import ConfigError, GridError, HeightError
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.grid import SAME_SIZE_TOLERANCE, describe, on_lattice, pixel_side_m, working_grid
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.warp import AGGREGATE_FROM
from geocrodino.modalities.recipe import Recipe
from geocrodino.settings.grid import GridOf
from geocrodino.settings.modality import MODALITIES, Modality

_FINEST = 16
"""A pixel size is refused if the pixels of all rasters have more than this many times its side."""

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
        ConfigError: If ``grid_of`` names labels that have another CRS than the grid, or no pixels, or if
            ``resolution_m`` is far finer than all rasters.
        GridError: If the raster of the first modality has no position on the ellipsoid.
    """
    labels = _with_pixels(labels, grid_of)
    name, image = next(iter(rasters.items()))
    own = working_grid(image.geobox)
    image_m, label_m = pixel_side_m(image.geobox), None if labels is None else _known_side_m(labels.geobox)
    others = {m: _known_side_m(raster.geobox) for m, raster in rasters.items() if m != name}
    known = {name: image_m, **others, "labels": label_m}
    sizes = {role: size for role, size in known.items() if size is not None}
    if resolution_m is not None and min(sizes.values()) / resolution_m > _FINEST:
        raise ConfigError(
            f"data.resolution_m {resolution_m:g}: expected pixels at least 1/{_FINEST} as wide as the finest of the "
            f"rasters, {_metres(min(sizes.values()))} m.\nGive the pixel size in metres, or leave it out."
        )
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


def choose_grids(
    scenes: Sequence[Sources],
    *,
    resolution_m: float | None = None,
    grid_of: GridOf | None = None,
    recipes: Collection[Recipe] = (),
) -> tuple[GridChoice, ...]:
    """Choose the working grid of each scene of a training: all grids have one pixel size in metres.

    A single scene gets the grid of `choose_grid`. Of several, each scene with the first modality would choose a pixel
    size of its own; the coarsest of them is that of all. A scene whose pixels have this size within 1 % keeps them.
    With ``grid_of`` labels, or where a scene would choose the grid of its labels, every scene whose labels have the
    common pixel size in the CRS of its grid keeps the pixel edges of its labels.

    Args:
        scenes: The rasters of each scene, as the recipes read them; at least one.
        resolution_m: Pixel size, m; None: see above.
        grid_of: Raster whose pixel edges the grids keep, where possible; None: see above, or the image where
            ``resolution_m`` is given.
        recipes: Recipes of the training, as for `choose_grid`.

    Returns:
        The choice for each scene. The pixel size and the raster that they name give the same grids again.

    Raises:
        ConfigError: If ``grid_of`` names labels that have another CRS than the grid of a single scene.
        GridError: If the raster of the first modality of a scene has no position on the ellipsoid.
    """
    if len(scenes) == 1:
        return (_choice_of(scenes[0], resolution_m, grid_of, recipes),)
    first = MODALITIES.in_order(m for scene in scenes for m in scene.rasters)[0]
    leading = [scene for scene in scenes if first in scene.rasters]
    size, edges, own = resolution_m, grid_of or "image", list[GridChoice]()
    if size is None:
        own = [_choice_of(scene, None, _possible(scene, None, grid_of), recipes) for scene in leading]
        size = max(choice.resolution_m for choice in own)
        edges = grid_of or ("labels" if any(choice.grid_of == "labels" for choice in own) else "image")
    found = own
    if len(own) < len(scenes) or any((choice.resolution_m, choice.grid_of) != (size, edges) for choice in own):
        found = [_choice_of(scene, size, _possible(scene, size, edges), recipes) for scene in scenes]
    images = [choice.image_m for choice, scene in zip(found, scenes, strict=True) if first in scene.rasters]
    note = _common_note(images, size, asked=resolution_m is not None)
    return tuple(replace(choice, resolution_m=size, grid_of=edges, note=note) for choice in found)


def _choice_of(
    scene: Sources, resolution_m: float | None, grid_of: GridOf | None, recipes: Collection[Recipe]
) -> GridChoice:
    return choose_grid(
        scene.rasters,
        scene.labels,
        resolution_m=resolution_m,
        grid_of=grid_of,
        recipes=[recipe for recipe in recipes if recipe.modality in scene.rasters],
        ground_given=scene.ground_given,
    )


def _possible(scene: Sources, resolution_m: float | None, grid_of: GridOf | None) -> GridOf | None:
    """The raster whose pixel edges a scene of several keeps: labels only if they have the pixel size and the CRS."""
    if grid_of != "labels":
        return grid_of
    labels, image = scene.labels, scene.reference.geobox
    if labels is None or (label_m := _known_side_m(labels.geobox)) is None:
        return "image"
    fits = resolution_m is None or abs(label_m / resolution_m - 1) < SAME_SIZE_TOLERANCE
    return "labels" if fits and working_grid(labels.geobox).crs == working_grid(image).crs else "image"


def _common_note(sizes: Sequence[float], work_m: float, *, asked: bool) -> str:
    """The pixel sizes of the images of several scenes, and that of all grids."""
    low, high = min(sizes), max(sizes)
    span = _metres(low) if _metres(low) == _metres(high) else f"{_metres(low)} to {_metres(high)}"
    reason = "as set" if asked else "the coarsest that a scene asks for"
    note = f"Images of {len(sizes)} scenes {span} m: all work at {_metres(work_m)} m, {reason}."
    if work_m > 2 * low:
        note += f" The finest image has {(work_m / low) ** 2:.3g} times as many pixels."
    return note


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


def describe_work(grid: GeoBox, patch_px: int | None) -> str:
    """Describe how much a training on a grid reads.

    Args:
        grid: The working grid.
        patch_px: Side of a training patch, px; None: left out.

    Returns:
        Size, CRS and number of pixels of the grid, and the ground that a patch covers, in one line.
    """
    size = f"{describe(grid)}, {math.prod(grid.shape):,} px"
    if patch_px is None:
        return size
    return f"{size}; a patch of {patch_px} px covers {_metres(patch_px * pixel_side_m(grid))} m"


def _asked_grid(
    image: GeoBox, labels: RasterSource | None, resolution_m: float | None, grid_of: GridOf
) -> tuple[GeoBox, float]:
    """The grid that the settings name, and its pixel size in metres."""
    if grid_of == "image" or labels is None:
        grid = working_grid(image, resolution_m)
        return grid, pixel_side_m(image) if resolution_m is None else resolution_m
    lattice, own = working_grid(labels.geobox, resolution_m), working_grid(image)
    if lattice.crs != own.crs:
        raise ConfigError(
            f"data.grid_of labels: expected labels in the CRS of the working grid, {describe(own)}; found "
            f"{labels.path}, {describe(labels.geobox)}.\nLeave grid_of out."
        )
    return on_lattice(own, lattice), pixel_side_m(labels.geobox) if resolution_m is None else resolution_m


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
        return pixel_side_m(grid)
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
