"""Random patches of a split, as TorchGeo samplers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchgeo.samplers import GeoSampler

from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.patches import labelled_corners
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.classes import IGNORE_INDEX


class EvenDraw:
    """Draw set pixels of a mask with equal probability; beside the mask, only one number per row is kept in memory."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._mask = mask
        self._per_row = np.cumsum(mask.sum(axis=1))

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw a set pixel; the mask must have one.

        Args:
            rng: Generator of the random numbers.

        Returns:
            Row and column of the pixel, from 0.
        """
        k = int(rng.integers(self._per_row[-1]))
        row = int(np.searchsorted(self._per_row, k, side="right"))
        before = int(self._per_row[row - 1]) if row else 0
        return row, int(np.flatnonzero(self._mask[row])[k - before])


class BalancedPatchSampler(GeoSampler):
    """Random patches with labels inside a split; a share of them is drawn around a pixel of an evenly drawn class.

    The order of an epoch depends only on the seed and the epoch, so a resumed run draws the same patches.

    Attributes:
        corners: Whether a pixel is the upper left one of a patch that may be drawn, bool, shape
            (H - patch_px + 1, W - patch_px + 1).
    """

    def __init__(
        self,
        dataset: CoregisteredDataset,
        inside: NDArray[np.bool_],
        labels: NDArray[np.uint8],
        *,
        patch_px: int,
        length: int,
        balance: float = 0.5,
        seed: int = 0,
    ) -> None:
        """Find the positions of patches.

        Args:
            dataset: The layers, on a grid of H x W px.
            inside: Whether a pixel lies wholly inside the split, bool, shape (H, W).
            labels: Class indices, uint8, shape (H, W), 255 without a label.
            patch_px: Side of a patch, px.
            length: Patches in an epoch.
            balance: Share of the patches, 0 to 1, that are drawn around a pixel of an evenly drawn class.
            seed: Seed of the random numbers.
        """
        super().__init__(dataset)
        self.dataset, self.patch_px, self.length = dataset, patch_px, length
        self.balance, self.seed, self.epoch = balance, seed, 0
        labelled = inside & (labels != IGNORE_INDEX)
        self.corners = labelled_corners(inside, labels, patch_px)
        self._anywhere = EvenDraw(self.corners)
        rng = np.random.default_rng(seed)
        self._class_px = [
            _at_most(np.flatnonzero(labelled & (labels == i)), rng) for i in np.unique(labels[labelled]).tolist()
        ]
        self._width = inside.shape[1]

    @property
    def is_empty(self) -> bool:
        """Whether no patch with a label fits into the split."""
        return not self.corners.any()

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

    def patch(self, corner: tuple[int, int]) -> Window:
        """Convert the position of a patch to its window.

        Args:
            corner: Row and column of its upper left pixel.

        Returns:
            The window, ``patch_px`` x ``patch_px`` px.
        """
        return Window.at(*corner, (self.patch_px, self.patch_px))

    def _around_a_class(self, rng: np.random.Generator) -> tuple[int, int] | None:
        pixels = self._class_px[int(rng.integers(len(self._class_px)))]
        row, col = divmod(int(pixels[int(rng.integers(len(pixels)))]), self._width)
        r0, c0 = max(0, row - self.patch_px + 1), max(0, col - self.patch_px + 1)
        near = np.flatnonzero(self.corners[r0 : row + 1, c0 : col + 1])
        if near.size == 0:
            return None  # no patch inside the split holds this pixel
        width = min(col + 1, self.corners.shape[1]) - c0
        r, c = divmod(int(near[int(rng.integers(near.size))]), width)
        return r0 + r, c0 + c


class MixedSampler(GeoSampler):
    """Every batch holds patches with labels, then patches without labels."""

    def __init__(
        self, labelled: BalancedPatchSampler, corners: NDArray[np.bool_], batch_size: int, unlabelled: int
    ) -> None:
        """Find the positions of patches without labels.

        Args:
            labelled: Sampler of the patches with labels.
            corners: Whether a pixel is the upper left one of a patch without labels, as from `patch_corners`, bool,
                shape (H - patch_px + 1, W - patch_px + 1); at least one is set.
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


def _at_most(pixels: NDArray[np.intp], rng: np.random.Generator, most: int = 200_000) -> NDArray[np.intp]:
    return pixels if pixels.size <= most else np.sort(rng.choice(pixels, most, replace=False))
