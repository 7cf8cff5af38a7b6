"""The tiles of a scene: how they are joined, and how large they are."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from odc.geo.geobox import GeoBox

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError
from geocrodino.geo.rasters.grid import round_up
from geocrodino.prediction.tiles.lattice import TileLattice
from geocrodino.settings.prediction import Tiling

EXACT_CORE_PX = 1024
"""With a ResNet-18, whose margin is 160 px, a tile needs some 0.3 GB; tiles of twice this side need twice as much, and
save little time."""
KEPT_CORE_PX = 832
"""Where a tile keeps the probabilities of all classes. It then needs about as much memory as one of 1024 px that keeps
only the most likely classes."""
BLEND_CORE_PX = 512
BLEND_MARGIN_PX = 64
WIDEST_EXACT_FIELD_PX = 256
"""With wider receptive fields, exact tiles cost more than they are worth, and ``auto`` blends."""


def choose_lattice(
    grid: GeoBox, bundle: Bundle, tiling: Tiling, *, keeps_probabilities: bool
) -> tuple[TileLattice, Literal["exact", "blend"]]:
    """Choose the tiles of a scene.

    Args:
        grid: Working grid of the networks.
        bundle: The trained networks.
        tiling: What the user asks for.
        keeps_probabilities: Whether a tile keeps the probabilities of all classes, and not only the most likely class.

    Returns:
        Tiles over the grid, and how they are joined.

    Raises:
        BundleError: If tiles shall be joined exactly and the receptive field has no bound.
    """
    stitch, core_px = tiling.stitch, tiling.core_px
    shape = (int(grid.shape[0]), int(grid.shape[1]))
    field, stride = bundle.manifest.receptive_field_px, bundle.manifest.network.stride_px
    if stitch == "exact" and field is None:
        raise BundleError(
            f"{bundle.path}: tiles cannot be joined exactly. Expected a network with a bounded receptive field, found "
            "one whose every output depends on the whole tile.\nUse `stitch='blend'`."
        )
    if stitch == "blend" or field is None or (stitch == "auto" and field > WIDEST_EXACT_FIELD_PX):
        core = round_up(core_px or BLEND_CORE_PX, stride)
        margin = round_up(BLEND_MARGIN_PX, stride)
        largest = TileLattice.blended(shape, core_px=core, stride_px=stride, margin_px=margin)
        return largest if core_px else even_tiles(largest), "blend"
    one_tile = max(shape) <= EXACT_CORE_PX  # takes less memory than two smaller ones at the same time
    default_px = KEPT_CORE_PX if keeps_probabilities and not one_tile else EXACT_CORE_PX
    core = round_up(core_px or default_px, stride)
    largest = TileLattice.exact(shape, core_px=core, stride_px=stride, receptive_field_px=field)
    return largest if core_px else even_tiles(largest), "exact"


def even_tiles(largest: TileLattice) -> TileLattice:
    """Make tiles smaller if less of them, margins included, then lies outside the scene.

    The sides tried cut one side of the scene evenly into as few tiles as the largest side does.

    Args:
        largest: Tiles of the largest side.

    Returns:
        The lattice that reads the fewest pixels; the given one if none reads fewer.
    """
    stride = largest.stride_px
    least = max(2 * largest.ramp_px, stride)

    def even(side: int) -> int:
        return max(least, round_up(-(-side // -(-side // largest.core_px)), stride))

    def work(lattice: TileLattice) -> int:
        return math.prod(lattice.count) * math.prod(lattice.tile_shape)

    return min(largest, *(replace(largest, core_px=even(side)) for side in largest.shape), key=work)
