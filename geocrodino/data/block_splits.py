"""Splits of one scene, drawn as spatial blocks with strips between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geocrodino.data.balance import ranked_draws, splits_of_fold
from geocrodino.errors import AOIError
from geocrodino.geo.areas.aoi import AOI, from_polygons
from geocrodino.geo.areas.masks import AreaMask
from geocrodino.geo.areas.splits import Split
from geocrodino.geo.rasters.grid import crs_of, pixel_size_m
from geocrodino.geo.rasters.window import Window
from geocrodino.phrases import arguments
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.splits import SplitSettings

DRAWN: tuple[Split, ...] = ("train", "val", "test")
"""The splits that are drawn, in the order of their numbers."""

SHARES = (0.6, 0.2, 0.2)
"""Their shares where none are given."""

_BLOCKS_ALONG = 6
_COMPARED = 8  # most balanced draws, which are compared again after the strips are cut out
_SIDES_PX = 32  # sides of smaller patches that a message names are multiples of it, as of the strides of networks


@dataclass(frozen=True)
class _Block:
    polygon: BaseGeometry
    counts: NDArray[np.int64]


def block_splits(
    area: BaseGeometry,
    grid: GeoBox,
    labels: NDArray[np.uint8],
    num_classes: int,
    *,
    patch_px: int,
    seed: int = 0,
    rules: SplitSettings | None = None,
) -> AOI:
    """Cut an area into blocks, and assign each to ``train``, ``val`` or ``test``.

    Of 2000 random assignments, the best are those whose splits are nearest to 60, 20 and 20 % of every class and of the
    area. Among the 8 best with a patch in every split, one is chosen that keeps most classes in most splits. A strip as
    wide as a patch is left out between two splits: taken from ``train`` at its borders, and from ``val`` at ``test``.

    With folds, the blocks are assigned to folds instead, in the same way for each fold that is held out. Together the
    parts ``test`` of all folds are the whole area.

    Args:
        area: The area of interest, in the grid's CRS.
        grid: The working grid, north up, H x W px.
        labels: Class indices on the grid, uint8, shape (H, W), 255 without a label.
        num_classes: Number of classes.
        patch_px: Side of a patch, px.
        seed: Seed of the random numbers.
        rules: Side of the blocks, width of the strips, shares and folds; None: as above.

    Returns:
        An AOI with the column ``split``, in the grid's CRS.

    Raises:
        AOIError: If the area is too small for the splits with strips between them.
    """
    rules = rules or SplitSettings()
    within = AreaMask.on(area, grid).read(Window.of(grid.shape))
    labels = np.where(within, labels, IGNORE_INDEX)
    found = list(islice(_fitting(area, grid, labels, num_classes, patch_px, seed, rules), _most_compared(rules)))
    if found:
        # The strips can remove the last pixels of a rare class from a split.
        best = max(found, key=lambda shapes: _classes_held(shapes, grid, labels))
        return from_polygons({s: best[s] for s in DRAWN if not best[s].is_empty}, crs_of(grid).wkt, "spatial blocks")
    sides = (patch_px // 2**n // _SIDES_PX * _SIDES_PX for n in range(1, 8 if rules.folds is None else 1))
    smaller = (side for side in sides if side and any(_fitting(area, grid, labels, num_classes, side, seed, rules)))
    raise _too_small(grid, patch_px, next(smaller, None), rules)


def _fitting(
    area: BaseGeometry,
    grid: GeoBox,
    labels: NDArray[np.uint8],
    num_classes: int,
    patch_px: int,
    seed: int,
    rules: SplitSettings,
) -> Iterator[dict[Split, BaseGeometry]]:
    """Splits of the most balanced draws that leave room for a patch in every split."""
    side, strip_px = _sizes_px(grid, patch_px, rules)
    blocks = _blocks(area, grid, labels, num_classes, side)
    pixel = abs(grid.affine.a)
    draws = _fold_draws if rules.folds is not None else _draws
    return (shapes for shapes in draws(blocks, strip_px * pixel, patch_px * pixel, rules, seed) if shapes is not None)


def _most_compared(rules: SplitSettings) -> int:
    return 1 if rules.folds is not None else _COMPARED


def _sizes_px(grid: GeoBox, patch_px: int, rules: SplitSettings) -> tuple[int, float]:
    """Side of a block and width of a strip, px."""
    pixel_m = pixel_size_m(grid)[0] if rules.block_m is not None or rules.buffer_m is not None else math.nan
    if rules.block_m is None:
        side = max(3 * patch_px, math.ceil(math.sqrt(grid.shape[0] * grid.shape[1]) / _BLOCKS_ALONG))
    else:
        side = max(1, round(rules.block_m / pixel_m))
    return side, patch_px if rules.buffer_m is None else rules.buffer_m / pixel_m


def _too_small(grid: GeoBox, patch_px: int, smaller_px: int | None, rules: SplitSettings) -> AOIError:
    """The error for an area without room; ``smaller_px`` is the side of a patch for which there is room, if any."""
    side, strip_px = _sizes_px(grid, patch_px, rules)
    box = grid.boundingbox
    what = "train, val and test" if rules.folds is None else f"{rules.folds} folds"
    least = 3 * patch_px if rules.block_m is None else side
    ways = ["draw polygons with a column `split`"]
    if smaller_px is not None:
        ways.append(f"use smaller patches: {arguments(patch_px=smaller_px)} leaves room")
    elif rules.folds is not None:  # too slow to try out
        ways.append("use smaller patches (`patch_px`)")
    if rules.block_m is not None or rules.buffer_m is not None:
        ways.append("give another block_m or buffer_m")
    advice = ", or ".join(ways)
    return AOIError(
        f"The area of interest is too small to be cut into {what}: expected room for blocks of at least "
        f"{least} px with strips of {strip_px:.6g} px between them, found {grid.shape[1]} x {grid.shape[0]} px, "
        f"width x height ({box.right - box.left:.6g} x {box.top - box.bottom:.6g} in units of the CRS).\n"
        f"{advice[0].upper()}{advice[1:]}."
    )


def _blocks(area: BaseGeometry, grid: GeoBox, labels: NDArray[np.uint8], num_classes: int, side: int) -> list[_Block]:
    height, width = grid.shape
    rows, cols = (max(1, round(size / side)) for size in (height, width))
    edges_r, edges_c = (np.linspace(0, size, n + 1).round().astype(int) for size, n in ((height, rows), (width, cols)))
    found = []
    for r0, r1 in pairwise(edges_r):
        for c0, c1 in pairwise(edges_c):
            left, top = grid.affine @ (int(c0), int(r0))
            right, bottom = grid.affine @ (int(c1), int(r1))
            part = shapely.box(left, bottom, right, top).intersection(area)
            if part.area > 0:
                here = labels[r0:r1, c0:c1]
                found.append(_Block(part, np.bincount(here[here != IGNORE_INDEX], minlength=num_classes)))
    return found


def _draws(
    blocks: list[_Block], gap: float, patch: float, rules: SplitSettings, seed: int
) -> Iterator[dict[Split, BaseGeometry] | None]:
    """Splits of the most balanced draws, None where a split has no room for a patch."""
    shares = rules.shares or SHARES
    wanted = [split for split, share in zip(DRAWN, shares, strict=True) if share > 0]
    if len(blocks) < len(wanted):
        return
    for assignment in ranked_draws(*_amounts(blocks), shares, np.random.default_rng(seed)):
        shapes = _with_gaps(blocks, assignment, gap)
        yield shapes if all(_holds_a_patch(shapes[s], patch) for s in wanted) else None


def _fold_draws(
    blocks: list[_Block], gap: float, patch: float, rules: SplitSettings, seed: int
) -> Iterator[dict[Split, BaseGeometry] | None]:
    """Splits of the fold that is held out; None where a split of any fold has no room for a patch."""
    folds, fold = rules.folds or 0, rules.fold or 0
    amounts = _amounts(blocks)
    if len(blocks) < max(folds, len(DRAWN)):
        return
    for assignment in ranked_draws(*amounts, [1 / folds] * folds, np.random.default_rng(seed), even=True):
        each = [
            _with_gaps(blocks, splits_of_fold(assignment, folds, held, *amounts, seed), gap) for held in range(folds)
        ]
        fits = all(_holds_a_patch(shape, patch) for shapes in each for shape in shapes.values())
        yield each[fold] if fits else None


def _amounts(blocks: list[_Block]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels of each class, and the area, of each block."""
    return np.stack([b.counts for b in blocks]), np.array([b.polygon.area for b in blocks])


def _with_gaps(blocks: list[_Block], assignment: NDArray[np.int64], gap: float) -> dict[Split, BaseGeometry]:
    shapes = {
        s: shapely.union_all([b.polygon for b, a in zip(blocks, assignment, strict=True) if a == i])
        for i, s in enumerate(DRAWN)
    }
    # 1 % is added so that rounding never makes the strip narrower than a patch.
    val_test = {"val": shapes["val"].difference(shapes["test"].buffer(1.01 * gap, join_style="mitre"))}
    kept = shapely.union_all([val_test["val"], shapes["test"]])
    train = shapes["train"].difference(kept.buffer(1.01 * gap, join_style="mitre"))
    return {"train": train, "val": val_test["val"], "test": shapes["test"]}


def _classes_held(shapes: Mapping[Split, BaseGeometry], grid: GeoBox, labels: NDArray[np.uint8]) -> int:
    """Count the classes with a pixel in a split, summed over the splits."""
    drawn = (shape for shape in shapes.values() if not shape.is_empty)
    held = (labels[AreaMask.on(s, grid).read(Window.of(grid.shape))] for s in drawn)
    return sum(np.setdiff1d(h, [IGNORE_INDEX]).size for h in held)


def _holds_a_patch(shape: BaseGeometry, patch: float) -> bool:
    return not shape.buffer(-0.505 * patch, join_style="mitre").is_empty
