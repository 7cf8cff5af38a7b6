"""Random patches of a split, as TorchGeo samplers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchgeo.samplers import GeoSampler

from geocrodino.data.class_groups import GroupedPixels, grouped_pixels
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.patches import labelled_corners
from geocrodino.data.scenes import AlignedScene, SceneWindow
from geocrodino.data.statistics import class_counts
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.sampling import BalanceBy


class Position(NamedTuple):
    """A pixel of one of several scenes.

    Attributes:
        scene: Number of the scene, from 0.
        row: Row, from 0.
        col: Column, from 0.
    """

    scene: int
    row: int
    col: int


class EvenDraw:
    """Draw set pixels of masks with equal probability; beside the masks, only one number per row is kept in memory."""

    def __init__(self, masks: Sequence[NDArray[np.bool_]]) -> None:
        self._masks = masks
        self._per_row = [np.cumsum(mask.sum(axis=1)) for mask in masks]
        self._per_mask = np.cumsum([int(rows[-1]) if rows.size else 0 for rows in self._per_row])

    @property
    def total(self) -> int:
        """Number of set pixels in all masks."""
        return int(self._per_mask[-1])

    def draw(self, rng: np.random.Generator) -> Position:
        """Draw a set pixel; a mask must have one.

        Args:
            rng: Generator of the random numbers.

        Returns:
            Number of the mask, row and column of the pixel, from 0.
        """
        k = int(rng.integers(self.total))
        mask = int(np.searchsorted(self._per_mask, k, side="right"))
        k -= int(self._per_mask[mask - 1]) if mask else 0
        per_row = self._per_row[mask]
        row = int(np.searchsorted(per_row, k, side="right"))
        before = int(per_row[row - 1]) if row else 0
        return Position(mask, row, int(np.flatnonzero(self._masks[mask][row])[k - before]))


class BalancedPatchSampler(GeoSampler):
    """Random patches with labels inside a split; a share of them is drawn around a pixel of an evenly drawn class.

    All positions of all scenes are equally probable. The order of an epoch depends only on the seed and the epoch, so a
    resumed run draws the same patches.

    Attributes:
        corners: For each scene, whether a pixel is the upper left one of a patch that may be drawn, bool, shape
            (H - patch_px + 1, W - patch_px + 1).
    """

    def __init__(
        self,
        dataset: CoregisteredDataset,
        split: str,
        *,
        patch_px: int,
        length: int,
        balance: float = 0.5,
        balance_by: BalanceBy = "class",
        seed: int = 0,
    ) -> None:
        """Find the positions of patches.

        Args:
            dataset: The scenes.
            split: Name of the split.
            patch_px: Side of a patch, px.
            length: Patches in an epoch.
            balance: Share of the patches, 0 to 1, that are drawn around a pixel of an evenly drawn class.
            balance_by: Where such a pixel is drawn from: ``class``, all of the class; otherwise from an evenly drawn
                scene, block of the size of a patch, or polygon that holds the class.
            seed: Seed of the random numbers.
        """
        super().__init__(dataset)
        self.dataset, self.patch_px, self.length = dataset, patch_px, length
        self.balance, self.seed, self.epoch = balance, seed, 0
        self.corners = tuple(labelled_corners(s.pixels_of(split), s.labels, patch_px) for s in dataset.scenes)
        self._anywhere = EvenDraw(self.corners)
        rng = np.random.default_rng(seed)
        self._class_px: Sequence[_ClassPixels | GroupedPixels] = (
            _pixels_by_class(dataset.scenes, split, rng)
            if balance_by == "class"
            else grouped_pixels(dataset.scenes, split, balance_by, patch_px, rng)
        )

    @property
    def is_empty(self) -> bool:
        """Whether no patch with a label fits into the split."""
        return not self._anywhere.total

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides the patches; Lightning calls this.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng([self.seed, self.epoch])
        for _ in range(self.length):
            corner = self._around_a_class(rng) if rng.random() < self.balance else None
            yield self.patch(corner or self._anywhere.draw(rng))

    def patch(self, corner: Position) -> SceneWindow:
        """Convert the position of a patch to its window.

        Args:
            corner: Scene, row and column of its upper left pixel.

        Returns:
            The window, ``patch_px`` x ``patch_px`` px.
        """
        return SceneWindow(corner.scene, Window.at(corner.row, corner.col, (self.patch_px, self.patch_px)))

    def _around_a_class(self, rng: np.random.Generator) -> Position | None:
        pixels = self._class_px[int(rng.integers(len(self._class_px)))]
        scene, row, col = pixels.draw(rng)
        corners = self.corners[scene]
        r0, c0 = max(0, row - self.patch_px + 1), max(0, col - self.patch_px + 1)
        near = np.flatnonzero(corners[r0 : row + 1, c0 : col + 1])
        if near.size == 0:
            return None  # no patch inside the split holds this pixel
        width = min(col + 1, corners.shape[1]) - c0
        r, c = divmod(int(near[int(rng.integers(near.size))]), width)
        return Position(scene, r0 + r, c0 + c)


@dataclass(frozen=True)
class _ClassPixels:
    """Pixels of one class in all scenes: for each scene their places, row by row, and the width of its grid."""

    places: Sequence[NDArray[np.int64]]
    widths: Sequence[int]

    def __len__(self) -> int:
        return int(self._stops[-1])

    @cached_property
    def _stops(self) -> NDArray[np.int64]:
        return np.cumsum([len(places) for places in self.places])

    def draw(self, rng: np.random.Generator) -> Position:
        """A pixel, all equally probable."""
        return self.at(int(rng.integers(len(self))))

    def at(self, index: int) -> Position:
        """The pixel of a number, counted over the scenes."""
        scene = int(np.searchsorted(self._stops, index, side="right"))
        before = int(self._stops[scene - 1]) if scene else 0
        return Position(scene, *divmod(int(self.places[scene][index - before]), self.widths[scene]))


def _pixels_by_class(
    scenes: Sequence[AlignedScene], split: str, rng: np.random.Generator, most: int = 200_000
) -> list[_ClassPixels]:
    """At most so many labelled pixels of each class that a split holds, drawn evenly over all scenes.

    Pixels are drawn by their number among those of their class, so that the places of all are never in memory at once.
    """
    counts = np.zeros((len(scenes), IGNORE_INDEX), np.int64)
    for number, scene in enumerate(scenes):
        if split in scene.inside:
            counts[number] = class_counts(scene.labels, scene.pixels_of(split), IGNORE_INDEX)
    classes = np.flatnonzero(counts.sum(axis=0)).tolist()
    stops = np.cumsum(counts, axis=0)
    totals = {index: int(stops[-1, index]) for index in classes}
    drawn = {i: np.sort(rng.choice(px, most, replace=False)) for i, px in totals.items() if px > most}
    places: dict[int, list[NDArray[np.int64]]] = {index: [] for index in classes}
    for number, scene in enumerate(scenes):
        labels = np.where(scene.pixels_of(split), scene.labels, IGNORE_INDEX) if counts[number].any() else None
        for index in classes:
            here = np.zeros(0, np.int64) if labels is None else np.flatnonzero(labels == index)
            if index in drawn:
                stop = stops[number, index]
                chosen = drawn[index]
                first, last = np.searchsorted(chosen, [stop - here.size, stop])
                here = here[chosen[first:last] - (stop - here.size)]
            places[index].append(here)
    widths = [scene.grid.shape[1] for scene in scenes]
    return [_ClassPixels(found, widths) for found in places.values()]


class MixedSampler(GeoSampler):
    """Every batch holds patches with labels, then patches without labels."""

    def __init__(
        self, labelled: BalancedPatchSampler, corners: Sequence[NDArray[np.bool_]], batch_size: int, unlabelled: int
    ) -> None:
        """Find the positions of patches without labels.

        Args:
            labelled: Sampler of the patches with labels.
            corners: For each scene, whether a pixel is the upper left one of a patch without labels, as from
                `patch_corners`, bool, shape (H - patch_px + 1, W - patch_px + 1); at least one is set.
            batch_size: Patches with labels in a batch.
            unlabelled: Patches without labels in a batch.
        """
        super().__init__(labelled.dataset)
        self.labelled, self.batch_size, self.unlabelled = labelled, batch_size, unlabelled
        self._anywhere = EvenDraw(corners)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides the patches; Lightning calls this.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self.labelled.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.labelled) // self.batch_size * (self.batch_size + self.unlabelled)

    def __iter__(self) -> Iterator[Any]:
        # Separate random numbers: patches with labels are the same as in a training without unlabelled patches.
        rng = np.random.default_rng([self.labelled.seed, self.labelled.epoch, 1])
        for drawn, patch in enumerate(self.labelled, start=1):
            yield patch
            if drawn % self.batch_size == 0:
                for _ in range(self.unlabelled):
                    yield self.labelled.patch(self._anywhere.draw(rng))


def one_thread_worker(worker_id: int) -> None:
    """Limit a data worker to one torch thread, because it only reads and normalises.

    Args:
        worker_id: Not used; part of PyTorch's interface.
    """
    torch.set_num_threads(1)
