"""Comparison of class maps with labels on any grids, block by block."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geocrodino.errors import LabelError, LabelWarning, NoLabelError, OverlapError
from geocrodino.evaluation.boundaries import without_boundaries
from geocrodino.evaluation.calibration import Reliability
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.evaluation.results import Comparison, Evaluation
from geocrodino.files.names import raster_exists
from geocrodino.geo.areas.aoi import AOI, read_aoi
from geocrodino.geo.areas.masks import AreaMask
from geocrodino.geo.areas.place import bounds_on_grid, on_grid, placement_advice
from geocrodino.geo.areas.splits import split_name
from geocrodino.geo.labels.bands import check_one_band
from geocrodino.geo.labels.names import differing_values, moves_by_name
from geocrodino.geo.labels.opening import LabelName, open_labels
from geocrodino.geo.labels.source import LabelSource, recoded_categories
from geocrodino.geo.labels.tags import tagged_classes
from geocrodino.geo.rasters.alike import place_beside, require_one_size
from geocrodino.geo.rasters.grid import window_grid
from geocrodino.geo.rasters.place import Place
from geocrodino.geo.rasters.reader import RasterSource, require_overlap
from geocrodino.geo.rasters.scene import open_raster
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import companion_path, read_classes
from geocrodino.phrases import listed, span
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme, recode_advice, unnamed
from geocrodino.settings.labels import LabelRules
from geocrodino.spelling import did_you_mean


def evaluate_map(
    map_path: str | Path,
    labels_path: LabelName | LabelSource,
    *,
    aoi: AOI | str | Path | None = None,
    split: str | None = None,
    classes: ClassScheme | None = None,
    ignore_values: Collection[int] = (),
    label_values: Mapping[int, int] | None = None,
    rules: LabelRules | None = None,
    count_missed: bool = False,
    boundary_px: int = 0,
    exclude: Collection[str] = (),
    crs: str | None = None,
    block_px: int = 1024,
) -> Evaluation:
    """Compare a class map with labels.

    Pixels are compared on the grid of the labels. The map is resampled there to the nearest pixel, or to the most
    frequent class if the pixels of the labels are at least 1.5 times larger. All labelled pixels whose centre lies in
    the areas count. Pixels where the map has no class are counted separately and left out of the scores, or count as
    wrong with ``count_missed``. Memory use depends only on ``block_px``.

    Args:
        map_path: Class map, one band of class values.
        labels_path: Labels: rasters, or shapes with a class, in any form that
            `geocrodino.geo.labels.opening.open_labels` accepts. Nodata means no label. Shapes are compared on the grid
            of the first map. Opened labels keep their rules.
        aoi: Areas to compare in, in any form that `geocrodino.read_aoi` accepts; None: the whole raster.
        split: Split of the areas to use, such as ``test``; synonyms such as ``validation`` are accepted. None: all
            areas.
        classes: Classes; None: those in the map's tags.
        ignore_values: Label values that are not a class. Their pixels do not count.
        label_values: Class value of a label value, for instance ``{255: 1}``.
        rules: How codes, colours and attributes of labels become classes. Classes that a table or a column of words
            names are matched with those of the map by name.
        count_missed: Whether labelled pixels without a class in the map count as wrong.
        boundary_px: Leave out labelled pixels at most this far from another class, px of the labels, also from one
            outside the areas. The regions of each class are eroded by a disc of this radius; the ISPRS benchmarks take
            3. 0 leaves none out.
        exclude: Names of classes that are in no mean. Their pixels count for the accuracy, and as errors of the
            classes that are mapped there.
        crs: CRS of labels that have coordinates but state none. Labels without any place lie as a map without one.
        block_px: Side of the blocks that are read at once, in px.

    Returns:
        The evaluation.

    Raises:
        ValueError: If ``split`` is given without ``aoi``, or ``boundary_px`` is negative.
        RasterError: If a file is missing or unreadable, or no classes are given and the map has none in its tags.
        OverlapError: If map, labels and areas do not overlap.
        AOIError: If the split has no areas.
        NoLabelError: If no pixel is labelled.
        LabelError: If a file has several bands, a value of labels or map is not a class, the given classes differ
            from those of the map, or an excluded class is not one of them.

    Warns:
        LabelWarning: If labels and map name a value differently.
    """
    given = _Labels(labels_path, ignore_values, label_values, rules, place_beside(map_path, crs))
    rules_of_scores = _ScoreRules(count_missed, boundary_px, tuple(exclude))
    counts, reference = _count_all({"": map_path}, given, aoi, split, classes, rules_of_scores, block_px)
    return counts[0].evaluation(reference)


def evaluate_maps(
    maps: Mapping[str, str | Path],
    labels_path: LabelName,
    *,
    aoi: AOI | str | Path | None = None,
    split: str | None = None,
    classes: ClassScheme | None = None,
    ignore_values: Collection[int] = (),
    label_values: Mapping[int, int] | None = None,
    rules: LabelRules | None = None,
    count_missed: bool = False,
    boundary_px: int = 0,
    exclude: Collection[str] = (),
    crs: str | None = None,
    block_px: int = 1024,
) -> Comparison:
    """Compare several class maps with labels: each by itself, and all of them on the pixels that they share.

    Args:
        maps: Files by name of the map, for instance its modality.
        labels_path: Labels: rasters, or shapes with a class, in any form that
            `geocrodino.geo.labels.opening.open_labels` accepts. Nodata means no label. Shapes are compared on the grid
            of the first map.
        aoi: Areas to compare in, in any form that `geocrodino.read_aoi` accepts; None: the whole raster.
        split: Split of the areas to use, such as ``test``; synonyms such as ``validation`` are accepted. None: all
            areas.
        classes: Classes; None: those in the maps' tags.
        ignore_values: Label values that are not a class. Their pixels do not count.
        label_values: Class value of a label value, for instance ``{255: 1}``.
        rules: How codes, colours and attributes of labels become classes. Classes that a table or a column of words
            names are matched with those of the map by name.
        count_missed: Whether labelled pixels without a class in a map count as wrong.
        boundary_px: Leave out labelled pixels at most this far from another class, px of the labels, also from one
            outside the areas. The regions of each class are eroded by a disc of this radius; the ISPRS benchmarks take
            3. 0 leaves none out.
        exclude: Names of classes that are in no mean. Their pixels count for the accuracy, and as errors of the
            classes that are mapped there.
        crs: CRS of labels that have coordinates but state none. Labels without any place lie as a map without one.
        block_px: Side of the blocks that are read at once, in px.

    Returns:
        The evaluation of each map by itself, and on the labelled pixels where all maps have a class.

    Raises:
        ValueError: If no map is given, ``split`` is given without ``aoi``, or ``boundary_px`` is negative.
        LabelError: If the maps have different classes, or no labelled pixel has a class in all of them, or as for
            `evaluate_map`.
        GeocrodinoError: As for `evaluate_map`.
    """
    if not maps:
        raise ValueError("expected one or more maps, found none")
    place = place_beside(next(iter(maps.values())), crs)
    labels = _Labels(labels_path, ignore_values, label_values, rules, place)
    rules_of_scores = _ScoreRules(count_missed, boundary_px, tuple(exclude))
    counts, reference = _count_all(maps, labels, aoi, split, classes, rules_of_scores, block_px)
    evaluations = {n: c.evaluation(reference) for n, c in zip(maps, counts, strict=True)}
    if count_missed:
        return Comparison(evaluations, evaluations, dict.fromkeys(maps, 0))
    if not counts[0].shared.counts.any():
        raise LabelError(
            f"{reference.labels.path}: no labelled pixel has a class in every map: {', '.join(maps)}.\n"
            "Evaluate them one by one, or count pixels without a class as wrong with `count_missed=True`."
        )
    return _on_common(evaluations, dict(zip(maps, counts, strict=True)))


def _on_common(evaluations: Mapping[str, Evaluation], counts: Mapping[str, _MapCounts]) -> Comparison:
    """The comparison on the pixels that every map covers."""
    common, left_out = {}, {}
    for name, each in counts.items():
        shared = each.shared
        common[name] = replace(
            evaluations[name],
            confusion=shared.counts,
            missed=shared.missed,
            scores=evaluations[name].scores_of(shared),
            reliability=None,
        )
        left_out[name] = int(each.all.counts.sum() - shared.counts.sum())
    return Comparison(evaluations, common, left_out)


class _ScoreRules(NamedTuple):
    """Which pixels count, and which classes are in the means."""

    count_missed: bool
    boundary_px: int
    excluded: tuple[str, ...]

    def check(self, scheme: ClassScheme, path: Path) -> None:
        """Refuse what does not fit the classes of the maps."""
        if self.boundary_px < 0:
            raise ValueError(f"expected a boundary of 0 px or more, found {self.boundary_px}")
        names = [c.name for c in scheme.classes]
        if unknown := [name for name in self.excluded if name not in names]:
            raise LabelError(
                f"{path}: expected classes to exclude among {listed(names)}, found {unknown[0]!r}."
                f"{did_you_mean(unknown[0], names)}"
            )


@dataclass(frozen=True)
class _Reference:
    """The labels and areas that maps are compared in."""

    labels: LabelSource
    areas: AOI | None
    split: str | None
    polygon: BaseGeometry | None
    rules: _ScoreRules


class _MapCounts:
    """One of the compared maps with its counts so far: on all labelled pixels, and on those that every map covers."""

    def __init__(self, source: RasterSource, scheme: ClassScheme) -> None:
        self.source, self.scheme = source, scheme
        self.all, self.shared = ConfusionMatrix(len(scheme)), ConfusionMatrix(len(scheme))
        self._reliability: Reliability | None = None
        self._confidence = _confidence(source)

    def read(self, labels: RasterSource, window: Window, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Read and count a block of the map on the labels' grid.

        Returns:
            Class indices where there are labels, 255 elsewhere.
        """
        band = self.source.data_bands[:1]
        values, valid = self.source.read(labels.geobox, window, bands=band, kind="categorical")
        valid &= truth != IGNORE_INDEX
        found = self.scheme.to_indices(values[0], valid, str(self.source.path), "map")
        self.all.update(truth, found)
        if self._confidence is not None:
            layers, number = self._confidence
            confidence, known = layers.read(labels.geobox, window, bands=(number,), kind="categorical")
            counted = known & valid
            block = Reliability.of_confidence(confidence[0, counted], (found == truth)[counted])
            self._reliability = block if self._reliability is None else self._reliability.add(block)
        return found

    def evaluation(self, reference: _Reference) -> Evaluation:
        """The evaluation on all labelled pixels."""
        found = Evaluation(
            map_path=self.source.path,
            labels_path=reference.labels.path,
            aoi=None if reference.areas is None else reference.areas.source,
            split=reference.split,
            scheme=self.scheme,
            confusion=self.all.counts,
            missed=self.all.missed,
            scores=self.all.scores(),
            count_missed=reference.rules.count_missed,
            reliability=self._reliability,
            boundary_px=reference.rules.boundary_px,
            excluded=reference.rules.excluded,
        )
        return replace(found, scores=found.scores_of(self.all))


class _Labels(NamedTuple):
    """Labels as a user names them, or opened already."""

    path: LabelName | LabelSource
    ignore_values: Collection[int]
    label_values: Mapping[int, int] | None
    rules: LabelRules | None
    place: Place | None

    def open(self, like: RasterSource) -> LabelSource:
        """Open and check them, beside the first map."""
        if isinstance(self.path, LabelSource):
            return self.path
        labels = open_labels(
            self.path,
            like,
            rules=self.rules,
            ignore_values=self.ignore_values,
            label_values=self.label_values,
            place=self.place,
        )
        check_one_band(labels)
        if labels.names is not None or not labels.has_pixels:
            for note in labels.check():
                warnings.warn(f"{labels.name}: {note}.", LabelWarning, stacklevel=5)
        return labels


def _count_all(
    maps: Mapping[str, str | Path],
    given: _Labels,
    aoi: AOI | str | Path | None,
    split: str | None,
    classes: ClassScheme | None,
    rules: _ScoreRules,
    block_px: int,
) -> tuple[list[_MapCounts], _Reference]:
    """Count all maps in one pass over the labels; the counts are in the order of the maps."""
    if block_px < 1:
        raise ValueError(f"block_px must be at least 1, found {block_px}")
    if split is not None and aoi is None:
        raise ValueError("a split needs an area of interest: give aoi")
    opened = [open_raster(path) for path in maps.values()]
    labels = given.open(opened[0])
    schemes = [_scheme(source, classes) for source in opened]
    _require_same_classes(opened, schemes)
    rules.check(schemes[0], opened[0].path)
    for source in opened:
        require_one_size({"label": labels, "map": source})
        require_overlap({"map": source}, labels.geobox)
    split = None if split is None else split_name(split)
    areas = read_aoi(aoi, splits=split or "none") if isinstance(aoi, str | Path) else aoi
    reference = _Reference(labels, areas, split, _polygon(areas, split, labels), rules)
    counts = [_MapCounts(source, schemes[0]) for source in opened]
    for window, truth in _labelled_blocks(reference, schemes[0], block_px):
        found = [each.read(labels, window, truth) for each in counts]
        covered = np.logical_and.reduce([part != IGNORE_INDEX for part in found])
        for each, part in zip(counts, found, strict=True):
            each.shared.update(np.where(covered, truth, IGNORE_INDEX), part)
    if not (counts[0].all.counts.any() or counts[0].all.missed.any()):
        where = "" if areas is None else f" in {areas.source}" + (f" ({split})" if split else "")
        raise NoLabelError(
            f"{labels.path}: expected labelled pixels{where}, found none.\nCheck the areas and the nodata value."
        )
    _compare_names(labels, opened[0], schemes[0], counts[0].all)
    return counts, reference


def _labelled_blocks(
    reference: _Reference, scheme: ClassScheme, block_px: int
) -> Iterator[tuple[Window, NDArray[np.uint8]]]:
    """Blocks with at least one labelled pixel, as class indices."""
    grid, polygon, margin = reference.labels.geobox, reference.polygon, reference.rules.boundary_px
    mask = None if polygon is None else AreaMask.on(polygon, grid)
    for window in _windows(grid, polygon, block_px):
        seen = window.grow(margin).intersect(Window.of(grid.shape))
        outside = None if mask is None else ~mask.read(seen)
        # The edge of an area does not end a region: classes outside erode those inside, as in one image of labels.
        truth = without_boundaries(reference.labels.indices(scheme, seen, unchecked=outside), margin)
        if outside is not None:
            truth[outside] = IGNORE_INDEX
        truth = truth[window.within(seen).slices]
        if (truth != IGNORE_INDEX).any():
            yield window, truth


def _require_same_classes(maps: Sequence[RasterSource], schemes: Sequence[ClassScheme]) -> None:
    first = schemes[0].by_value
    for source, scheme in zip(maps[1:], schemes[1:], strict=True):
        if scheme.by_value == first:
            continue
        pairs = ((maps[0].path, first, scheme.by_value), (source.path, scheme.by_value, first))
        alone = "; ".join(f"{path} has {_classes_only_in(own, other)}" for path, own, other in pairs)
        raise LabelError(f"The maps have different classes: {alone}.\nEvaluate them one by one.")


def _classes_only_in(own: Mapping[int, str], other: Mapping[int, str]) -> str:
    """Classes that only one map has."""
    differ = [f"{value} {name}" for value, name in sorted(own.items()) if other.get(value) != name]
    return ", ".join(differ) or "no other"


def _compare_names(labels: LabelSource, source: RasterSource, scheme: ClassScheme, counted: ConfusionMatrix) -> None:
    """Warn of values that occur in the labels and have a different name in the map."""
    names, there = scheme.by_value, recoded_categories(labels).names
    present = (counted.counts.sum(axis=1) + counted.missed) > 0
    own = {v: there.get(v, unnamed(v)) for v, occurs in zip(scheme.values, present, strict=True) if occurs}
    differ = differing_values(own, names)
    if not differ:
        return
    listing = "; ".join(f"{v} is {own[v]!r} in the labels and {names[v]!r} in the map" for v in differ)
    moves = {} if labels.label_values else moves_by_name(own, names)
    way = f"\nBoth have these names, at other values: {recode_advice(moves)} compares them by name." if moves else ""
    warnings.warn(
        f"{labels.path} and {source.path} name classes differently: {listing}. Classes are compared by value, not by "
        f"name.{way}",
        LabelWarning,
        stacklevel=4,
    )


def _confidence(predicted: RasterSource) -> tuple[RasterSource, int] | None:
    """The layers beside a map and the number of their band of confidence, if there is one."""
    path = companion_path(predicted.path, "layers")
    if not raster_exists(path):
        return None
    layers = RasterSource.open(path)
    if "confidence" not in layers.band_names or layers.geobox != predicted.geobox:
        return None
    return layers, layers.band_names.index("confidence") + 1


def _scheme(predicted: RasterSource, classes: ClassScheme | None) -> ClassScheme:
    """The given classes, or those in the map's tags; both must agree if both exist."""
    check_one_band(predicted, "map")
    if classes is None:
        return read_classes(predicted.path)
    tagged = tagged_classes(predicted.path)
    found = {} if tagged is None else tagged.by_value
    given = classes.by_value
    if tagged is not None and found != given:
        expected, there = (", ".join(f"{v} {n}" for v, n in sorted(each.items())) for each in (given, found))
        raise LabelError(
            f"{predicted.path}: the map's classes differ from the given ones. Expected {expected}; found {there}.\n"
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
            f"{span(*labels.geobox.extent.geom.bounds)}, found {bounds_on_grid(areas, labels.geobox, split)} "
            f"(in the CRS of the labels).\n{placement_advice(areas, labels.geobox)}"
        )
    return polygon


def _windows(grid: GeoBox, polygon: BaseGeometry | None, block_px: int) -> Iterator[Window]:
    """Blocks of a grid that the polygon touches, row by row."""
    if polygon is not None:
        shapely.prepare(polygon)
    for window in Window.of(grid.shape).blocks(block_px):
        if polygon is None or polygon.intersects(window_grid(grid, window).extent.geom):
            yield window
