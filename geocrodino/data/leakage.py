"""What a split lets through: ground or images that two splits share, the distance between them, classes they lack."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.footprints import is_placeless, planes_of
from geocrodino.data.held_labels import HeldLabels, unpacked
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.masks import inside_mask
from geocrodino.geo.areas.splits import SPLITS
from geocrodino.geo.rasters.headers import read_many
from geocrodino.geo.rasters.protocol import Raster
from geocrodino.geo.rasters.window import Window
from geocrodino.phrases import listed
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme

_SAMPLE_PX = 64
"""Side of the windows that are compared to find scenes with the same content."""

_LABELLED = ("train", "val", "test")


@dataclass(frozen=True)
class Shared:
    """Two scenes of different splits that share ground, or show the same.

    Attributes:
        first: Name of a scene.
        split: Its split.
        second: Name of the other scene.
        other: Its split.
        share: Share of the smaller footprint that the other covers, 0 to 1; None if the scenes have the same content.
    """

    first: str
    split: str
    second: str
    other: str
    share: float | None = None

    def __str__(self) -> str:
        pair = f"{self.first} ({self.split}) and {self.second} ({self.other})"
        return pair if self.share is None else f"{pair} by {100 * self.share:.3g} % of the smaller"


@dataclass(frozen=True)
class LeakReport:
    """What the splits of a training share, and what they lack.

    Attributes:
        overlaps: Scenes of different splits whose footprints overlap.
        equal: Scenes of different splits with equal content.
        distance_m: Least distance between the polygons of two splits, m.
        class_px: Labelled pixels of each class by split; of ``train``, ``val`` and ``test``, those that are there.
        classes: The classes, K of them.
        unused: Names of scenes without any split.
    """

    overlaps: tuple[Shared, ...]
    equal: tuple[Shared, ...]
    distance_m: Mapping[tuple[str, str], float]
    class_px: Mapping[str, NDArray[np.int64]]
    classes: ClassScheme
    unused: tuple[str, ...] = ()

    @property
    def leaks(self) -> tuple[str, ...]:
        """Sentences on scenes that make scores better than they are; empty if none were found."""
        found = []
        if self.overlaps:
            found.append(
                f"{_scene_pairs(self.overlaps)} of different splits overlap: {listed(self.overlaps, 3)}. Scores "
                "on ground that was learnt are too good: give scenes that overlap one split, or cut them apart with "
                "areas."
            )
        if self.equal:
            found.append(
                f"{_scene_pairs(self.equal)} of different splits hold the same image: {listed(self.equal, 3)}. "
                "Scores on images that were learnt are too good: remove the copies."
            )
        return tuple(found)

    @property
    def facts(self) -> tuple[str, ...]:
        """Sentences on distances between splits, and on classes and scenes that are missing in them."""
        found = []
        if self.distance_m:
            apart = ", ".join(f"{a} to {b} {_metres(distance)}" for (a, b), distance in self.distance_m.items())
            found.append(f"Least distance between splits: {apart}")
        for split, counts in self.class_px.items():
            names = [n for n, px in zip(self.classes.names, counts, strict=True) if not px]
            if names:
                found.append(f"Classes without a labelled pixel in {split}: {listed(names, 10)}")
        if self.unused:
            found.append(f"{_number(self.unused)} without a split, not used: {listed(self.unused)}")
        return tuple(found)

    @property
    def in_no_split(self) -> tuple[str, ...]:
        """Classes without a labelled pixel in all splits together: name and value of each."""
        counts = sum(self.class_px.values(), np.zeros(len(self.classes), np.int64))
        return tuple(
            f"{land.name} ({land.value})" for land, px in zip(self.classes.classes, counts, strict=True) if not px
        )


def _number(scenes: Sequence[str]) -> str:
    return f"{len(scenes)} scene{'s' if len(scenes) > 1 else ''}"


def _scene_pairs(pairs: Sequence[Shared]) -> str:
    return f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of scenes"


@dataclass(frozen=True)
class SplitScene:
    """A scene with its splits.

    Attributes:
        name: Its name.
        grid: Its grid, H x W px.
        aoi: Its areas with a column ``split``, in the CRS of the grid.
        labels: All class indices, uint8, shape (H, W), 255 without a label.
        inside: Pixels of splits, as far as they are known, bool, shape (H, W).
        raster: The raster whose content is compared with that of other scenes; None: it is not compared.
    """

    name: str
    grid: GeoBox
    aoi: AOI
    labels: HeldLabels
    inside: Mapping[str, NDArray[np.bool_]]
    raster: Raster | None = None


def find_leaks(scenes: Sequence[SplitScene], classes: ClassScheme) -> LeakReport:
    """Look for what different splits share, and for what is missing in one.

    Within a scene, splits share no ground, see `geocrodino.read_aoi`; scenes are compared with each other.

    Args:
        scenes: The scenes with their splits.
        classes: The classes.

    Returns:
        What was found.
    """
    shapes = [(i, split, scene.aoi.polygons(split)) for i, scene in enumerate(scenes) for split in scene.aoi.splits]
    planes = planes_of([scene.grid for scene in scenes], [each for each in shapes if not each[2].is_empty])
    overlaps = tuple(
        Shared(scenes[one.scene].name, one.split, scenes[two.scene].name, two.split, share)
        for plane in planes
        for one, two, share in plane.overlaps()
        if one.split != two.split
    )
    there = [s for s in SPLITS if any(s == split for _, split, _ in shapes)]
    distances: dict[tuple[str, str], float] = {
        pair: min(found)
        for pair in combinations(there, 2)
        if "unlabelled" not in pair and (found := [d for plane in planes for d in plane.distances(*pair)])
    }
    unused = tuple(scene.name for scene in scenes if not scene.aoi.splits)
    return LeakReport(overlaps, tuple(_equal(scenes)), distances, _class_px(scenes, len(classes)), classes, unused)


def _class_px(scenes: Sequence[SplitScene], num_classes: int) -> dict[str, NDArray[np.int64]]:
    """Count the labelled pixels of each class in each split."""
    counts: dict[str, NDArray[np.int64]] = {}
    for split in _LABELLED:
        for scene in scenes:
            if split in scene.aoi.splits:
                counts.setdefault(split, np.zeros(num_classes, np.int64))
                counts[split] += _counted(scene, split, num_classes)
    return counts


def _counted(scene: SplitScene, split: str, num_classes: int) -> NDArray[np.int64]:
    inside = scene.inside.get(split)
    if inside is None:
        inside = inside_mask(scene.aoi.polygons(split), scene.grid)
    found, labels = np.zeros(256, np.int64), unpacked(scene.labels)
    for window in Window.of(inside.shape).blocks(4096):
        found += np.bincount(labels[window.slices][inside[window.slices]], minlength=256)
    found[IGNORE_INDEX] = 0
    return found[:num_classes]


def _equal(scenes: Sequence[SplitScene]) -> Iterator[Shared]:
    """Scenes of different splits whose rasters have the same size and hold the same values."""
    if len(scenes) < 2:
        return
    alike: dict[object, list[SplitScene]] = defaultdict(list)
    compared = [(scene, scene.raster) for scene in scenes if scene.raster is not None and scene.aoi.splits]
    keys = read_many(lambda each: _content(each[1], 1), compared)
    for (scene, raster), key in zip(compared, keys, strict=True):
        if key is not None:
            alike[tuple(raster.geobox.shape), key].append(scene)
    for group in alike.values():
        # The middle is compared first, because it is read from every scene.
        whole = [_content(scene.raster, 4) if len(group) > 1 and scene.raster else None for scene in group]
        for (first, one), (second, other) in combinations(zip(group, whole, strict=True), 2):
            if one == other and set(first.aoi.splits) != set(second.aoi.splits) and not _one_place(first, second):
                yield Shared(first.name, "+".join(first.aoi.splits), second.name, "+".join(second.aoi.splits))


def _one_place(first: SplitScene, second: SplitScene) -> bool:
    """Whether two scenes have the same place on the Earth, so that their polygons were compared."""
    return first.grid.crs is not None and first.grid == second.grid and not is_placeless(first.grid)


def _content(raster: Raster, along: int) -> bytes | None:
    """Hash of the values in windows spread evenly over a raster; None if they are all one value or invalid."""
    height, width = raster.geobox.shape
    parts = []
    for row in _starts(height, along):
        for column in _starts(width, along):
            window = Window.at(row, column, (min(height, _SAMPLE_PX), min(width, _SAMPLE_PX)))
            values, valid = raster.read_own(window, raster.data_bands)
            parts.append(np.where(valid, values, np.nan))
    flat = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    if not (np.nanmax(flat, axis=1, initial=-np.inf) > np.nanmin(flat, axis=1, initial=np.inf)).any():
        return None
    return hashlib.sha256(flat.tobytes()).digest()


def _starts(size: int, along: int) -> list[int]:
    """First pixels of windows along one side; of a single window, so that it lies in the middle."""
    room = max(0, size - _SAMPLE_PX)
    return [room // 2] if along == 1 else sorted({round(room * k / (along - 1)) for k in range(along)})


def _metres(distance: float) -> str:
    """A distance in metres, to four digits, or to the millimetre."""
    return f"{distance:,.0f} m" if distance >= 1000 else f"{round(distance, 3):.4g} m"
