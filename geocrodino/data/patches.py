"""Positions of patches: wholly inside the polygons of their split, without pixels of another. Needs no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.errors import AOIError
from geocrodino.geo.rasters.grid import pixel_size_m
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.sampling import LEAST_PATCH_PX


def box_sums(mask: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """Count the set pixels in every square box.

    Args:
        mask: Bool, shape (H, W).
        size: Side of a box, px.

    Returns:
        Counts by the upper left pixel of the box, int64, shape (H - size + 1, W - size + 1); (0, 0) if no box fits.
    """
    height, width = mask.shape
    if height < size or width < size:
        return np.zeros((0, 0), np.int64)
    total = np.zeros((height + 1, width + 1), np.int64)
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1, out=total[1:, 1:])
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]


def patch_corners(inside: NDArray[np.bool_], patch_px: int) -> NDArray[np.bool_]:
    """Find the patches that lie wholly inside a split.

    Args:
        inside: Whether a pixel lies wholly inside the split, bool, shape (H, W).
        patch_px: Side of a patch, px.

    Returns:
        Whether a pixel is the upper left one of such a patch, bool, shape (H - patch_px + 1, W - patch_px + 1);
        (0, 0) if no patch fits on the grid.
    """
    height, width = (max(0, side - patch_px + 1) for side in inside.shape)
    if not (height and width):
        return np.zeros((0, 0), bool)
    if inside.all() or not inside.any():  # a whole scene, or none of it
        return np.broadcast_to(np.bool_(inside[0, 0]), (height, width))
    return _compact(box_sums(inside, patch_px) == patch_px**2)


def _compact(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The same mask, without memory where all of its pixels are alike: many scenes are labelled all over."""
    if mask.size and (mask.all() or not mask.any()):
        return np.broadcast_to(np.bool_(mask.flat[0]), mask.shape)
    return mask


_LARGER = "Draw larger polygons, or use smaller patches (`patch_px`)."


def require_patches(
    corners: Iterable[NDArray[np.bool_]],
    split: str,
    source: str,
    patch_px: int,
    grid: GeoBox,
    advise: Callable[[], str] = lambda: _LARGER,
) -> None:
    """Check that a split holds at least one patch.

    Args:
        corners: Result of `patch_corners` for each scene, bool, shape (H - patch_px + 1, W - patch_px + 1).
        split: Name of the split, for the message.
        source: Name of the area of interest, for the message.
        patch_px: Side of a patch, px.
        grid: The working grid; its pixel size appears in the message.
        advise: Called for the end of the message: the way out.

    Raises:
        AOIError: If it holds none.
    """
    if not any(there.any() for there in corners):
        side = patch_px * pixel_size_m(grid)[0]
        raise AOIError(
            f"{source}: the polygons of the split {split!r} hold no patch: expected room for one of {patch_px} x "
            f"{patch_px} px ({side:.0f} m) inside the rasters, found none.\n{advise()}"
        )


def largest_square_px(inside: NDArray[np.bool_]) -> int:
    """Find the largest square of set pixels.

    Args:
        inside: Bool, shape (H, W).

    Returns:
        Its side, px; 0 if no pixel is set.
    """
    low, high = 0, min(inside.shape)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if patch_corners(inside, middle).any() else (low, middle - 1)
    return low


def patch_advice(
    inside: Iterable[NDArray[np.bool_]], patch_px: int, stride_px: int, resolution_m: float, finest_m: float
) -> str:
    """Advise what to do where no patch fits, with numbers that fit.

    Args:
        inside: Pixels wholly inside a split, of each scene, bool, shape (H, W).
        patch_px: Side of a patch, px, for which there is no room.
        stride_px: Stride of the network, px: patches are multiples of it.
        resolution_m: Pixel size of the working grid, metres.
        finest_m: Pixel size of the finest raster, metres. Finer pixels are advised only if no smaller patch fits.

    Returns:
        Larger polygons; where some pixels lie inside, also a smaller patch, finer pixels, or both.
    """
    room = max(map(largest_square_px, inside), default=0)
    if room == 0:  # no patch fits, however small
        return "No pixel lies wholly inside. Draw larger polygons."
    smaller = room // stride_px * stride_px
    # One pixel more than a patch, because pixels at both edges may lie inside in part. Rounded down to three digits.
    finer_m = resolution_m * room / (patch_px + 1)
    unit = 10.0 ** (math.floor(math.log10(finer_m)) - 2)
    finer_m = math.floor(finer_m / unit) * unit
    fits = smaller >= LEAST_PATCH_PX
    ways = [f"smaller patches (`patch_px={smaller}`)"] if fits else []
    if not fits or finer_m >= finest_m:
        ways.append(f"finer pixels (`resolution_m={finer_m:.3g}`)")
    return f"The largest square inside has {room} x {room} px. Draw larger polygons, or use {', or '.join(ways)}."


def labelled_corners(inside: NDArray[np.bool_], labels: NDArray[np.uint8], patch_px: int) -> NDArray[np.bool_]:
    """Find the patches that lie wholly inside a split and hold at least one label.

    Args:
        inside: Whether a pixel lies wholly inside the split, bool, shape (H, W).
        labels: Class indices, uint8, shape (H, W), 255 without a label.
        patch_px: Side of a patch, px.

    Returns:
        Whether a pixel is the upper left one of such a patch, bool, shape as that of `patch_corners`.
    """
    corners = patch_corners(inside, patch_px)
    if corners.any():
        return _compact(corners & (box_sums(inside & (labels != IGNORE_INDEX), patch_px) > 0))
    return corners


def require_labels(corners: Iterable[NDArray[np.bool_]], source: str, labels: str = "the labels") -> None:
    """Check that the split ``train`` holds at least one patch with a label.

    Args:
        corners: Result of `labelled_corners` for each scene, bool, shape (H - patch_px + 1, W - patch_px + 1).
        source: Name of the area of interest, for the message.
        labels: Names of the files of labels, for the message.

    Raises:
        AOIError: If it holds none.
    """
    if not any(there.any() for there in corners):
        raise AOIError(
            f"{source}: no patch of the split 'train' holds a labelled pixel of {labels}.\nDraw polygons of train "
            "where there are labels, or label some pixels there."
        )


def covering_windows(chosen: NDArray[np.bool_], size_px: int) -> list[Window]:
    """Cover the chosen pixels with square windows that do not overlap.

    Args:
        chosen: Pixels to cover, bool, shape (H, W).
        size_px: Side of a window, px.

    Returns:
        Windows of ``size_px`` x ``size_px`` px, row by row, that hold every chosen pixel once. At the right and bottom
        edge they may reach outside the mask.
    """
    height, width = chosen.shape
    return [
        Window.at(r, c, (size_px, size_px))
        for r in range(0, height, size_px)
        for c in range(0, width, size_px)
        if chosen[r : r + size_px, c : c + size_px].any()
    ]
