"""Labelled pixels of each class by scene, block or polygon, so that small places with a rare class are drawn too.

Drawn from all pixels of a class, a pixel lies almost always where the class is frequent: in the largest scene, the
largest lake. Drawn from groups, each group is drawn as often as any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geocrodino.data.scenes import AlignedScene
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.sampling import GroupedBy

_PER_GROUP = 16  # pixels that are kept of a block or polygon
_PER_CLASS = 200_000  # pixels that are kept of all scenes, and groups, of a class
_EIGHT = np.ones((3, 3), bool)  # pixels of a polygon touch at a side or a corner


@dataclass(frozen=True)
class GroupedPixels:
    """Pixels of one class in groups.

    Attributes:
        scenes: Number of the scene of each group, shape (G,).
        starts: Where the pixels of each group start, and their total, shape (G + 1,).
        places: Pixels by their number in their grid, row by row, group after group, int64.
        widths: Width of the grid of each scene, px.
    """

    scenes: NDArray[np.int64]
    starts: NDArray[np.int64]
    places: NDArray[np.int64]
    widths: Sequence[int]

    def __len__(self) -> int:
        return len(self.scenes)

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw a group evenly, then one of its pixels.

        Args:
            rng: Generator of the random numbers.

        Returns:
            Number of the scene, row and column, from 0.
        """
        group = int(rng.integers(len(self)))
        place = self.places[int(rng.integers(self.starts[group], self.starts[group + 1]))]
        scene = int(self.scenes[group])
        return (scene, *divmod(int(place), self.widths[scene]))


def grouped_pixels(
    scenes: Sequence[AlignedScene], split: str, by: GroupedBy, block_px: int, rng: np.random.Generator
) -> list[GroupedPixels]:
    """Group the labelled pixels of each class that a split holds.

    Of a block or polygon at most 16 pixels are kept, of a scene more; of a class at most 200,000 groups. What is kept
    is drawn evenly. Scenes are read one after the other.

    Args:
        scenes: The scenes.
        split: Name of the split.
        by: What a group is: a scene; a square block of a scene; or a polygon, pixels of the class that touch.
        block_px: Side of a block, px.
        rng: Generator of the random numbers.

    Returns:
        The groups of each class that the split holds, in the order of the classes.
    """
    most = max(_PER_GROUP, _PER_CLASS // len(scenes)) if by == "scene" else _PER_GROUP
    found: dict[int, _Groups] = {}
    for number, scene in enumerate(scenes):
        if split not in scene.inside:
            continue
        labels = np.where(scene.pixels_of(split), scene.labels, IGNORE_INDEX).astype(np.uint8)
        for index, places, groups in _of_scene(labels, by, block_px):
            found.setdefault(index, _Groups()).add(number, *_some_of_each(places, groups, most, rng), rng)
    widths = [scene.grid.shape[1] for scene in scenes]
    return [found[index].joined(widths) for index in sorted(found)]


def _of_scene(
    labels: NDArray[np.uint8], by: GroupedBy, block_px: int
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Index of a class, its places in a scene, and the group number of each place; each group comes in one piece."""
    width = labels.shape[1]
    rows_at_once = block_px if by == "block" else max(1, len(labels))
    for start in range(0, len(labels), rows_at_once):
        part = labels[start : start + rows_at_once]
        for index in np.flatnonzero(np.bincount(part.ravel(), minlength=256)[:IGNORE_INDEX]).tolist():
            mask = part == index
            places = np.flatnonzero(mask).astype(np.int64)
            if by == "block":
                groups = places % width // block_px
            elif by == "polygon":
                groups = ndimage.label(mask, structure=_EIGHT)[0].ravel()[places].astype(np.int64)
            else:
                groups = np.zeros_like(places)
            yield index, places + start * width, groups


def _some_of_each(
    places: NDArray[np.int64], groups: NDArray[np.int64], most: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At most so many places of each group, drawn evenly, group after group; and how many each group has."""
    order = np.lexsort((rng.random(len(places)), groups))
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    return places[order[rank < most]], np.minimum(counts, most)


@dataclass
class _Groups:
    """Groups of a class while scenes are read: of too many, those with the lowest random numbers are kept."""

    scenes: list[NDArray[np.int64]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    places: list[NDArray[np.int64]] = field(default_factory=list)
    keys: list[NDArray[np.float64]] = field(default_factory=list)
    held: int = 0

    def add(self, scene: int, places: NDArray[np.int64], counts: NDArray[np.int64], rng: np.random.Generator) -> None:
        self.scenes.append(np.full(len(counts), scene, np.int64))
        self.counts.append(counts)
        self.places.append(places)
        self.keys.append(rng.random(len(counts)))
        self.held += len(counts)
        if self.held > 2 * _PER_CLASS:
            self._cut()

    def _cut(self) -> None:
        keys, counts = np.concatenate(self.keys), np.concatenate(self.counts)
        kept = np.ones(len(keys), bool)
        if len(keys) > _PER_CLASS:
            kept = keys <= np.partition(keys, _PER_CLASS - 1)[_PER_CLASS - 1]
        self.keys, self.counts = [keys[kept]], [counts[kept]]
        self.scenes = [np.concatenate(self.scenes)[kept]]
        self.places = [np.concatenate(self.places)[np.repeat(kept, counts)]]
        self.held = int(kept.sum())

    def joined(self, widths: Sequence[int]) -> GroupedPixels:
        self._cut()
        starts = np.concatenate([[0], np.cumsum(self.counts[0])]).astype(np.int64)
        return GroupedPixels(self.scenes[0], starts, self.places[0], widths)
