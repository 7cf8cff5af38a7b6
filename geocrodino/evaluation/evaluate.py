"""Compare a class map with labels, wherever the two lie, block by block."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from geocrodino.errors import LabelError, OverlapError
from geocrodino.evaluation.calibration import Reliability
from geocrodino.evaluation.metrics import ConfusionMatrix, Scores
from geocrodino.geo.aoi import AOI, read_aoi
from geocrodino.geo.aoi_crs import span
from geocrodino.geo.aoi_place import bounds_there, on_grid, way_out
from geocrodino.geo.aoi_splits import split_name
from geocrodino.geo.classes import IGNORE_INDEX, ClassScheme, whole_values
from geocrodino.geo.grid import Window, window_grid
from geocrodino.geo.mapfile import beside, read_classes, tagged_classes
from geocrodino.geo.reader import RasterSource, require_overlap


@dataclass(frozen=True)
class Evaluation:
    """A map, what it was compared with, and the result.

    Attributes:
        map_path: The class map.
        labels_path: The labels; their grid is where pixels are compared.
        aoi: Source of the areas, None for everywhere.
        split: The split of the areas, None for all.
        scheme: The classes.
        confusion: Labelled pixels, rows are the labels, columns the map, int64 (K, K).
        missed: Labelled pixels of each class where the map has no class, int64 (K,).
        scores: Scores of all pixels together.
        count_missed: Whether labelled pixels without a class in the map count as wrong in the scores.
        reliability: Confidence and accuracy, where the map has a layer of confidence (``NAME.layers.tif`` beside it).
    """

    map_path: Path
    labels_path: Path
    aoi: str | None
    split: str | None
    scheme: ClassScheme
    confusion: NDArray[np.int64]
    missed: NDArray[np.int64]
    scores: Scores
    count_missed: bool = False
    reliability: Reliability | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; scores that do not exist are None."""
        plain = {
            name: [_number(v) for v in value] if isinstance(value, tuple) else _number(value)
            for name, value in asdict(self.scores).items()
        }
        return {
            "map": str(self.map_path),
            "labels": str(self.labels_path),
            "aoi": self.aoi,
            "split": self.split,
            "classes": [c.model_dump() for c in self.scheme.classes],
            "scores": plain,
            "confusion": self.confusion.tolist(),
            "missed": self.missed.tolist(),
            "missed_count_as_wrong": self.count_missed,
            "calibration_error": None if self.reliability is None else self.reliability.expected_calibration_error,
        }


def evaluate_map(
    map_path: str | Path,
    labels_path: str | Path,
    *,
    aoi: AOI | str | Path | None = None,
    split: str | None = None,
    classes: ClassScheme | None = None,
    ignore_values: Collection[int] = (),
    count_missed: bool = False,
    block_px: int = 1024,
) -> Evaluation:
    """Compare a class map with labels.

    Pixels are compared on the grid of the labels: the map is read there by its nearest pixel, or its most
    frequent class where the labels' pixels are at least 1.5 times larger. Every labelled pixel counts whose
    centre lies in the areas. Where the map has no class or does not reach, it is left out of the scores and counted
    apart, or counts as wrong if ``count_missed`` says so.
    Memory depends on ``block_px`` alone.

    Args:
        map_path: Class map, one band of class values.
        labels_path: Labels, one band of class values; nodata is no label.
        aoi: Areas to compare in, or what `geocrodino.read_aoi` takes; everywhere by default.
        split: Which of the areas, ``validation`` and other synonyms included; all by default.
        classes: Classes; by default those named in the map's tags.
        ignore_values: Label values that are no class and do not count.
        count_missed: Whether labelled pixels where the map has no class count as wrong.
        block_px: Side of the blocks that are read at once.

    Returns:
        The evaluation.

    Raises:
        RasterError: If a file is missing, unreadable, or a map that names no classes while none are given.
        OverlapError: If map, labels and areas do not meet.
        AOIError: If there are no areas of the split.
        LabelError: If a value of labels or map is no class, or no pixel is labelled.
    """
    if split is not None and aoi is None:
        raise ValueError("a split needs an area of interest: give aoi")
    predicted, labels = RasterSource.open(map_path), RasterSource.open(labels_path)
    scheme = _scheme(predicted, classes)
    require_overlap({"map": predicted}, labels.geobox)
    split = None if split is None else split_name(split)
    areas = read_aoi(aoi, splits=split or "none") if isinstance(aoi, str | Path) else aoi
    polygon = _polygon(areas, split, labels)
    matrix, reliability = _count(predicted, labels, scheme, polygon, ignore_values, block_px)
    if not (matrix.counts.any() or matrix.missed.any()):
        where = "" if areas is None else f" in {areas.source}" + (f" ({split})" if split else "")
        raise LabelError(
            f"{labels.path}: expected labelled pixels{where}, found none.\nCheck the areas and the nodata value."
        )
    return Evaluation(
        map_path=predicted.path,
        labels_path=labels.path,
        aoi=None if areas is None else areas.source,
        split=split,
        scheme=scheme,
        confusion=matrix.counts,
        missed=matrix.missed,
        scores=matrix.scores(count_missed=count_missed),
        count_missed=count_missed,
        reliability=reliability,
    )


def _count(
    predicted: RasterSource,
    labels: RasterSource,
    scheme: ClassScheme,
    polygon: BaseGeometry | None,
    ignore_values: Collection[int],
    block_px: int,
) -> tuple[ConfusionMatrix, Reliability | None]:
    matrix, reliability = ConfusionMatrix(len(scheme)), None
    confidence = _confidence(predicted)
    for window in _windows(labels.geobox, polygon, block_px):
        truth = _label_block(labels, window, scheme, ignore_values)
        if polygon is not None:
            part = window_grid(labels.geobox, window)
            truth[geometry_mask([polygon], part.shape, part.affine)] = IGNORE_INDEX
        if (truth == IGNORE_INDEX).all():
            continue
        values, valid = predicted.read(labels.geobox, window, bands=(1,), kind="categorical")
        found = scheme.to_indices(whole_values(values[0], valid), valid, str(predicted.path))
        matrix.update(truth, found)
        if confidence is not None:
            layers, band = confidence
            sure, known = layers.read(labels.geobox, window, bands=(band,), kind="categorical")
            counted = known & valid & (truth != IGNORE_INDEX)
            block = Reliability.of_confidence(sure[0, counted], (found == truth)[counted])
            reliability = block if reliability is None else reliability.add(block)
    return matrix, reliability


def _confidence(predicted: RasterSource) -> tuple[RasterSource, int] | None:
    """The layers of a map and the number of the band that says how sure it is, if there is one."""
    path = beside(predicted.path, "layers")
    if not path.exists():
        return None
    layers = RasterSource.open(path)
    if "confidence" not in layers.band_names or layers.geobox != predicted.geobox:
        return None
    return layers, layers.band_names.index("confidence") + 1


def _scheme(predicted: RasterSource, classes: ClassScheme | None) -> ClassScheme:
    """The classes given, which must be those of the map's tags if it has any."""
    if classes is None:
        return read_classes(predicted.path)
    tagged = tagged_classes(predicted.path)
    found = {} if tagged is None else {c.value: c.name for c in tagged.classes}
    given = {c.value: c.name for c in classes.classes}
    if tagged is not None and found != given:
        expected, there = (", ".join(f"{v} {n}" for v, n in sorted(each.items())) for each in (given, found))
        raise LabelError(
            f"{predicted.path}: the map's classes are not those given. Expected {expected}; found {there}.\n"
            "Give the classes that the map was made with, or leave them out to use the map's own."
        )
    return classes


def _polygon(areas: AOI | None, split: str | None, labels: RasterSource) -> BaseGeometry | None:
    if areas is None:
        return None
    polygon = on_grid(areas, labels.geobox).polygons(split)
    if not polygon.intersects(labels.geobox.extent.geom):
        named = areas.source + (f" ({split})" if split else "")
        raise OverlapError(
            f"{named} does not meet the labels {labels.path}: expected areas within "
            f"{span(*labels.geobox.extent.geom.bounds)}, found {bounds_there(areas, labels.geobox, split)} (in the CRS "
            f"of the labels).\n{way_out(areas, labels.geobox)}"
        )
    return polygon


def _windows(grid: GeoBox, polygon: BaseGeometry | None, block_px: int) -> Iterator[Window]:
    """Blocks of a grid that the polygon touches, row by row."""
    height, width = grid.shape
    if polygon is not None:
        shapely.prepare(polygon)
    for row in range(0, height, block_px):
        for column in range(0, width, block_px):
            window = (row, min(row + block_px, height), column, min(column + block_px, width))
            if polygon is None or polygon.intersects(window_grid(grid, window).extent.geom):
                yield window


def _label_block(
    labels: RasterSource, window: Window, scheme: ClassScheme, ignore_values: Collection[int]
) -> NDArray[np.uint8]:
    values, valid = labels.read_own(window, (1,))
    wanted = valid & ~np.isin(values[0], list(ignore_values))
    return scheme.to_indices(whole_values(values[0], wanted), wanted, str(labels.path))


def _number(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value
