"""Splits from spatial blocks, for an area of interest that names no splits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geocrodino.errors import AOIError
from geocrodino.geo.areas.aoi import AOI, from_polygons
from geocrodino.geo.areas.masks import AreaMask
from geocrodino.geo.areas.splits import Split
from geocrodino.geo.rasters.grid import crs_of
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import IGNORE_INDEX

_SHARES: dict[Split, float] = {"train": 0.6, "val": 0.2, "test": 0.2}
_SPLITS = tuple(_SHARES)
_BLOCKS_ALONG = 6
_DRAWS = 2000
_COMPARED = 8  # most balanced draws, which are compared again after the strips are cut out


@dataclass(frozen=True)
class _Block:
    polygon: BaseGeometry
    counts: NDArray[np.int64]


def block_splits(
    area: BaseGeometry, grid: GeoBox, labels: NDArray[np.uint8], num_classes: int, *, patch_px: int, seed: int = 0
) -> AOI:
    """Cut an area into blocks, and assign each to ``train``, ``val`` or ``test``.

    Of 2000 random assignments, the best are those whose splits are nearest to 60, 20 and 20 % of every class and of the
    area. Among the 8 best with a patch in every split, one is chosen that keeps most classes in most splits. A strip as
    wide as a patch is left out between two splits: taken from ``train`` at its borders, and from ``val`` at ``test``.

    Args:
        area: The area of interest, in the grid's CRS.
        grid: The working grid, north up, H x W px.
        labels: Class indices on the grid, uint8, shape (H, W), 255 without a label.
        num_classes: Number of classes.
        patch_px: Side of a patch, px.
        seed: Seed of the random numbers.

    Returns:
        An AOI with the column ``split``, in the grid's CRS.

    Raises:
        AOIError: If the area is too small for three splits with strips between them.
    """
    within = AreaMask.on(area, grid).read(Window.of(grid.shape))
    labels = np.where(within, labels, IGNORE_INDEX)
    blocks = _blocks(area, grid, labels, num_classes, patch_px)
    gap = patch_px * abs(grid.affine.a)
    if len(blocks) >= len(_SPLITS):
        draws = (_with_gaps(blocks, a, gap) for a in _ranked_draws(blocks, np.random.default_rng(seed)))
        found = list(islice((d for d in draws if all(_holds_a_patch(s, gap) for s in d.values())), _COMPARED))
        if found:
            # The strips can remove the last pixels of a rare class from a split.
            best = max(found, key=lambda shapes: _classes_held(shapes, grid, labels))
            return from_polygons(best, crs_of(grid).wkt, "spatial blocks")
    box = grid.boundingbox
    raise AOIError(
        f"The area of interest is too small to be cut into train, val and test: expected room for blocks of at least "
        f"{3 * patch_px} px with strips of {patch_px} px between them, found {grid.shape[0]} x {grid.shape[1]} px "
        f"({box.right - box.left:.6g} x {box.top - box.bottom:.6g} in units of the CRS).\n"
        "Draw polygons with a column `split`, or use smaller patches (`patch_px`)."
    )


def require_splits(aoi: AOI) -> None:
    """Check that an area with splits has those that a training needs.

    Args:
        aoi: The area of interest; one without splits passes.

    Raises:
        AOIError: If ``train`` or ``val`` is missing.
    """
    missing = {"train", "val"} - set(aoi.splits)
    if aoi.splits and missing:
        raise AOIError(
            f"{aoi.source}: no polygon of the split {' or '.join(sorted(missing))}. Expected train and val (and test, "
            f"to report on), found {', '.join(aoi.splits)}."
        )


def _blocks(
    area: BaseGeometry, grid: GeoBox, labels: NDArray[np.uint8], num_classes: int, patch_px: int
) -> list[_Block]:
    height, width = grid.shape
    side = max(3 * patch_px, math.ceil(math.sqrt(height * width) / _BLOCKS_ALONG))
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


def _ranked_draws(blocks: list[_Block], rng: np.random.Generator, keep: int = 50) -> list[NDArray[np.int64]]:
    """Draw assignments of blocks to splits, and return the ``keep`` most balanced ones, the best first."""
    counts = np.stack([b.counts for b in blocks]).astype(float)
    area = np.array([b.polygon.area for b in blocks])
    shares = np.concatenate([counts / np.maximum(1, counts.sum(axis=0)), area[:, None] / area.sum()], axis=1)
    present = np.append(counts.sum(axis=0) > 0, True)
    target = np.array([_SHARES[s] for s in _SPLITS])
    scored = []
    for _ in range(_DRAWS):
        assignment = rng.choice(len(_SPLITS), len(blocks), p=target)
        got = np.stack([shares[assignment == i].sum(axis=0) for i in range(len(_SPLITS))])
        error = np.abs(got - target[:, None])[:, present]
        scored.append((float(error.sum() + 10 * (got[:, present] == 0).sum()), assignment))
    scored.sort(key=lambda pair: pair[0])
    return [assignment for _, assignment in scored[:keep]]


def _with_gaps(blocks: list[_Block], assignment: NDArray[np.int64], gap: float) -> dict[Split, BaseGeometry]:
    shapes = {
        s: shapely.union_all([b.polygon for b, a in zip(blocks, assignment, strict=True) if a == i])
        for i, s in enumerate(_SPLITS)
    }
    # 1 % is added so that rounding never makes the strip narrower than a patch.
    val_test = {"val": shapes["val"].difference(shapes["test"].buffer(1.01 * gap, join_style="mitre"))}
    kept = shapely.union_all([val_test["val"], shapes["test"]])
    train = shapes["train"].difference(kept.buffer(1.01 * gap, join_style="mitre"))
    return {"train": train, "val": val_test["val"], "test": shapes["test"]}


def _classes_held(shapes: dict[Split, BaseGeometry], grid: GeoBox, labels: NDArray[np.uint8]) -> int:
    """Count the classes with a pixel in a split, summed over the splits."""
    held = (labels[AreaMask.on(s, grid).read(Window.of(grid.shape))] for s in shapes.values())
    return sum(np.setdiff1d(h, [IGNORE_INDEX]).size for h in held)


def _holds_a_patch(shape: BaseGeometry, patch: float) -> bool:
    return not shape.buffer(-0.505 * patch, join_style="mitre").is_empty
