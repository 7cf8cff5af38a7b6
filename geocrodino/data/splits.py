"""The splits of scenes: as they and their areas name them, otherwise drawn as spatial blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geocrodino.errors import AOIError, ConfigError
from geocrodino.geo.areas.aoi import AOI, from_polygons
from geocrodino.geo.areas.masks import AreaMask
from geocrodino.geo.areas.splits import SPLITS, Split
from geocrodino.geo.rasters.grid import crs_of
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.splits import SceneSplit, SplitSettings

_SHARES: dict[Split, float] = {"train": 0.6, "val": 0.2, "test": 0.2}
_SPLITS = tuple(_SHARES)
_BLOCKS_ALONG = 6
_DRAWS = 2000
_COMPARED = 8  # most balanced draws, which are compared again after the strips are cut out


@dataclass(frozen=True)
class SceneView:
    """What is known of a scene when its splits are decided.

    Attributes:
        name: Name of the scene; empty in a training on one scene.
        files: Names of its files.
        grid: Its grid, H x W px.
        area: Its area of interest in the CRS of the grid; None: the whole scene.
        split: The split of the whole scene, where it is named.
        labels: Class indices, uint8, shape (H, W), 255 without a label.
    """

    name: str
    files: tuple[str, ...]
    grid: GeoBox
    area: AOI | None
    split: SceneSplit | None
    labels: NDArray[np.uint8]


def split_scenes(
    views: Sequence[SceneView], settings: SplitSettings | None, num_classes: int, *, patch_px: int, seed: int
) -> tuple[AOI, ...]:
    """Decide the splits of scenes.

    The first of these decides for a scene: the split that it names, the column ``split`` of its area. A single scene
    without either is cut into blocks, see `block_splits`.

    Args:
        views: The scenes.
        settings: How scenes are divided that do not name their splits.
        num_classes: Number of classes.
        patch_px: Side of a patch, px.
        seed: Seed of the random numbers.

    Returns:
        The area of each scene with a column ``split``, in the CRS of its grid.

    Raises:
        AOIError: If the area is too small for three splits, or ``train`` or ``val`` is missing.
        ConfigError: If several scenes do not say what their splits are.
    """
    found = tuple(_splits_of(view, settings, num_classes, len(views), patch_px=patch_px, seed=seed) for view in views)
    require_splits(*found)
    return found


def _splits_of(
    view: SceneView, settings: SplitSettings | None, num_classes: int, scenes: int, *, patch_px: int, seed: int
) -> AOI:
    whole = shapely.box(*view.grid.boundingbox) if view.area is None else view.area.polygons()
    if view.split is not None:
        source = f"scene {view.name}" if view.area is None else view.area.source
        return from_polygons({view.split: whole}, crs_of(view.grid).wkt, source)
    if view.area is not None and view.area.splits:
        return view.area
    if scenes > 1:
        raise ConfigError(
            f"data.scenes: scene {view.name} has no split. Expected the key split (train, val, test or "
            "unlabelled), or polygons with a column split under the key aoi."
        )
    return block_splits(whole, view.grid, view.labels, num_classes, patch_px=patch_px, seed=seed)


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


def require_splits(*areas: AOI) -> None:
    """Check that areas with splits have those that a training needs.

    Args:
        *areas: The areas of interest of all scenes; without any split they pass.

    Raises:
        AOIError: If ``train`` or ``val`` is missing in all of them.
    """
    there = tuple(split for split in SPLITS if any(split in aoi.splits for aoi in areas))
    missing = {"train", "val"} - set(there)
    if there and missing:
        source, what = (areas[0].source, "polygon") if len(areas) == 1 else (f"The {len(areas)} scenes", "scene")
        raise AOIError(
            f"{source}: no {what} of the split {' or '.join(sorted(missing))}. Expected train and val (and test, "
            f"to report on), found {', '.join(there)}."
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
