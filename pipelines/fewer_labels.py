"""Scenes with fewer labels: a random share of them, or those of one side of the area."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.features import geometry_mask

from geocrodino.files.access import whole_file
from geocrodino.geo.areas.aoi import read_aoi
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import TrainConfig

_SQUARE_PX = 64
"""Side of the squares that keep or lose their labels."""

_ENOUGH_PX = 100
"""A square with this many pixels of a class is enough to learn the class from."""


def write_share(config: TrainConfig, share: float, seed: int, path: Path) -> Path:
    """Write a copy of the labels in which ``train`` keeps a share, in complete squares of 64 px, as an annotator works.

    First a square is chosen for each class, the rarest class first, so that none is lost by chance. Then squares are
    added at random until the share is reached. Other splits keep all labels. An existing file that is newer than the
    labels and the area is kept, so that runs side by side learn from the same labels.

    Args:
        config: Names the labels and the area.
        share: Share of the labelled pixels to keep, 0 to 1.
        seed: Seed of the random choice.
        path: The file to write.

    Returns:
        ``path``.
    """
    if _is_newer(path, config):
        return path
    with rasterio.open(config.data.labels) as source:
        values, profile = source.read(1), source.profile
        valid = source.read_masks(1) > 0
        areas = read_aoi(config.data.aoi, config.data.aoi_crs).to_crs(source.crs.to_wkt())
        train = ~geometry_mask([areas.polygons("train")], source.shape, source.transform)
    labelled = valid & train & ~np.isin(values, [IGNORE_INDEX, *config.data.ignore_values])
    rng = np.random.default_rng(seed)
    rows, columns = (-(-side // _SQUARE_PX) for side in values.shape)
    square = (np.arange(values.shape[0])[:, None] // _SQUARE_PX) * columns + np.arange(values.shape[1]) // _SQUARE_PX
    by_class = {
        value: np.bincount(square[labelled & (values == value)], minlength=rows * columns)
        for value in np.unique(values[labelled])
    }
    total = sum(by_class.values())
    chosen: list[int] = []
    for held in sorted(by_class.values(), key=lambda counts: counts.sum()):
        if not held[chosen].any():  # a square with enough pixels of the class
            chosen.append(int(rng.choice(np.flatnonzero(held >= min(held.max(), _ENOUGH_PX)))))
    for other in rng.permutation(np.flatnonzero(total)):
        if total[chosen].sum() >= share * total.sum():
            break
        if other not in chosen:
            chosen.append(int(other))
    kept = labelled & np.isin(square, chosen)
    values[~valid | (train & ~kept)] = IGNORE_INDEX
    profile.update(nodata=IGNORE_INDEX, driver="GTiff", dtype="uint8", compress="deflate")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, rasterio.open(partial, "w", **profile) as target:
        target.write(values.astype(np.uint8), 1)
    return path


def write_corner(config: TrainConfig, share: float, path: Path) -> Path:
    """Write an area in which ``train`` is the westernmost share of the original one; the rest becomes ``unlabelled``.

    An existing file that is newer than the labels and the area is kept.

    Args:
        config: Names the area.
        share: Share of the surface of ``train`` to keep, 0 to 1.
        path: The file to write.

    Returns:
        ``path``.
    """
    if _is_newer(path, config):
        return path
    areas = read_aoi(config.data.aoi, config.data.aoi_crs)
    train = areas.polygons("train")
    west, south, east, north = train.bounds
    low, high = west, east
    for _ in range(50):
        middle = (low + high) / 2
        part = train.intersection(shapely.box(west, south, middle, north))
        low, high = (middle, high) if part.area < share * train.area else (low, middle)
    others = areas.frame[areas.frame["split"] != "train"]
    made = {"train": part, "unlabelled": train.intersection(shapely.box(middle, south, east, north))}
    frame = gpd.GeoDataFrame(
        {"split": [*made, *others["split"]]}, geometry=[*made.values(), *others.geometry], crs=areas.crs
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        frame.to_file(partial, layer="aoi", driver="GPKG")
    return path


def _is_newer(path: Path, config: TrainConfig) -> bool:
    """Whether a file exists and was written after the labels and the area."""
    sources = [Path(name) for name in (config.data.labels, config.data.aoi)]
    made_from = [source.stat().st_mtime_ns for source in sources if source.exists()]  # an area may be a bounding box
    return path.exists() and path.stat().st_mtime_ns > max(made_from)
