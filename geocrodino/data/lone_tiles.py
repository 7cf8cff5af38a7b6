"""Tiles of a scene that is joined by place, where another layer of it has no file."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.parts import covered_shapes
from geocrodino.data.sources import Sources
from geocrodino.errors import LeftOutWarning
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.place import on_grid
from geocrodino.geo.labels.vector import VectorLabels
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.phrases import listed

_COVERED = 0.1
"""Share of a tile from which another layer covers it; tiles often overlap their neighbours by a strip."""


def warn_of_lone_tiles(scene: str, sources: Sources, grid: GeoBox, area: AOI | None) -> None:
    """Warn of tiles of the first modality that no file of another layer covers.

    Files that are joined by place are one raster each, which may be of any extent, so this is no error as it is for
    tiles that are joined by name. Shapes cover what they cover, and are not compared.

    Args:
        scene: Name of the scene; empty for a single one.
        sources: Its rasters.
        grid: Its grid.
        area: Its area; tiles outside are not read and not compared. None: the whole scene.

    Warns:
        LeftOutWarning: For each layer that lacks tiles.
    """
    for note in lone_tiles(scene, sources, grid, area):
        warnings.warn(note, LeftOutWarning, stacklevel=3)


def lone_tiles(scene: str, sources: Sources, grid: GeoBox, area: AOI | None) -> list[str]:
    """Find tiles of the first modality that no file of another layer covers.

    Args:
        scene: Name of the scene; empty for a single one.
        sources: Its rasters.
        grid: Its grid.
        area: Its area; None: the whole scene.

    Returns:
        For each layer that lacks tiles, a sentence with their number and the names of a few.
    """
    first, reference = next(iter(sources.rasters.items()))
    if len(reference.file_names) < 2 or len(reference.covered) != len(reference.file_names):
        return []
    tiles = covered_shapes(reference, grid).to_numpy()
    used = np.flatnonzero(_shares(tiles, [shapely.box(*grid.boundingbox)]) > 0)
    if area is not None:
        placed = on_grid(area, grid).frame.geometry.to_numpy()
        used = used[_shares(tiles[used], [shapely.union_all(placed)]) > 0]
    notes = []
    for role, layer in sources.roles.items():
        if layer is reference or isinstance(layer, VectorLabels):
            continue
        lone = used[_shares(tiles[used], _footprints(layer, grid)) < _COVERED]
        if lone.size and lone.size < len(used):  # layers that share no ground at all are refused with a reason
            key, verb = ("labels", "are") if role == "label" else (role, "is")
            where = f" of scene {scene}" if scene else ""
            names = listed(Path(reference.file_names[int(number)]).name for number in lone)
            notes.append(
                f"data.{key}{where}: no file of {layer.name} covers {lone.size} of {len(used)} tiles of data.{first}: "
                f"{names}. There, {key} {verb} missing.\nAdd the files, or leave these tiles out of data.{first}."
            )
    return notes


def _footprints(raster: RasterSource, grid: GeoBox) -> list[shapely.Geometry]:
    return [shape for shape in covered_shapes(raster, grid) if shape.is_valid and not shape.is_empty]


def _shares(tiles: NDArray[np.object_], others: list[shapely.Geometry]) -> NDArray[np.float64]:
    """Share of each tile that other polygons cover, 0 to 1; what several cover counts several times."""
    shares = np.zeros(len(tiles))
    if len(tiles) and others:
        tile, other = shapely.STRtree(others).query(tiles, predicate="intersects")
        common = shapely.area(shapely.intersection(tiles[tile], np.array(others, object)[other]))
        np.add.at(shares, tile, common / shapely.area(tiles)[tile])
    return shares
