"""Batches of patches for training and validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from geocrodino.data.alignment import AlignedLayers
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.patches import covering_windows, require_labels, require_patches
from geocrodino.data.patches import patch_corners as corners_of
from geocrodino.data.sampling import BalancedPatchSampler, MixedSampler, one_thread_worker
from geocrodino.data.validation import choose_windows, most_windows
from geocrodino.errors import AOIError
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import Modality

_VALIDATION_PX = 256
_VALIDATION_BATCH = 4


@dataclass(frozen=True)
class BatchPlan:
    """Size and number of patches.

    Attributes:
        patch_px: Side of a patch, px.
        batch_size: Patches with labels in a batch.
        steps_per_epoch: Batches in an epoch.
        balance: Share of patches, 0 to 1, drawn around a pixel of an evenly drawn class.
        seed: Seed of the random numbers.
        workers: Reading processes; 0: read in the training process.
        unlabelled: Patches without labels in a batch, beside the ``batch_size`` patches with labels; fewer if they
            have fewer possible positions than patches with labels.
    """

    patch_px: int
    batch_size: int
    steps_per_epoch: int
    balance: float = 0.5
    seed: int = 0
    workers: int = 0
    unlabelled: int = 0


class ValidationWindows(torch.utils.data.Dataset[dict[str, Any]]):
    """Windows that hold every labelled pixel of a split once; outside the split inputs are 0 and labels are ignored."""

    def __init__(self, dataset: CoregisteredDataset, inside: NDArray[np.bool_], windows: list[Window]) -> None:
        self.dataset, self.inside, self.windows = dataset, inside, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        window = self.windows[index]
        height, width = self.inside.shape
        held = window.intersect(Window(0, height, 0, width))
        sample = self.dataset.read(held)
        inside = torch.from_numpy(self.inside[held.slices])
        for modality in self.dataset.specs:
            sample[modality] *= inside
            sample[f"{modality}_valid"] &= inside
        sample["labels"][~inside] = IGNORE_INDEX
        pad = (
            held.col_start - window.col_start,
            window.col_stop - held.col_stop,
            held.row_start - window.row_start,
            window.row_stop - held.row_stop,
        )
        return {
            key: torch.nn.functional.pad(value, pad, value=IGNORE_INDEX if key == "labels" else 0)
            for key, value in sample.items()
        }


class CoregisteredDataModule(L.LightningDataModule):
    """Training and validation batches of one scene.

    If the split ``val`` is so large that its validation would take more than a fifth of the time of the training steps
    (`most_windows`), a fixed part of its windows is validated between epochs (`choose_windows`).

    A batch is a dict: for each modality float32 (B, C, H, W) and ``<modality>_valid`` bool (B, H, W); ``labels``
    int64 (B, H, W), 255 without a label.

    Attributes:
        val_labelled_px: Labelled pixels that are validated between epochs.
        whole_val_labelled_px: Labelled pixels of the split ``val``.
    """

    def __init__(
        self,
        layers: AlignedLayers,
        specs: dict[Modality, ModalitySpec],
        inside: dict[str, NDArray[np.bool_]],
        labels: NDArray[np.uint8],
        plan: BatchPlan,
        source: str = "area of interest",
    ) -> None:
        """Find the positions of patches.

        Args:
            layers: Aligned layers on a grid of H x W px.
            specs: Channels and statistics of each modality, to normalise its values.
            inside: For ``train`` and ``val``, and ``unlabelled`` if the area has this split: whether a pixel lies
                wholly inside the split, bool, shape (H, W).
            labels: Class indices, uint8, shape (H, W), 255 where no label may be used.
            plan: Size and number of patches.
            source: Name of the area, for messages.

        Raises:
            AOIError: If ``train`` or ``unlabelled`` holds no patch, or ``train`` or ``val`` no label.
        """
        super().__init__()
        self.plan = plan
        self.dataset = CoregisteredDataset(layers, specs, labels)
        require_patches(corners_of(inside["train"], plan.patch_px), "train", source, plan.patch_px, layers.grid)
        labelled_val = inside["val"] & (labels != IGNORE_INDEX)
        self.val_labelled_px = self.whole_val_labelled_px = int(labelled_val.sum())
        if not self.whole_val_labelled_px:
            raise AOIError(
                f"{source}: the polygons of the split 'val' hold no labelled pixel. "
                "Check that they lie on the label raster."
            )
        labelled = BalancedPatchSampler(
            self.dataset,
            inside["train"],
            labels,
            patch_px=plan.patch_px,
            length=plan.steps_per_epoch * plan.batch_size,
            balance=plan.balance,
            seed=plan.seed,
        )
        require_labels(labelled.corners, source)
        self.sampler: BalancedPatchSampler | MixedSampler = labelled
        self.unlabelled = 0
        if plan.unlabelled:
            corners = corners_of(inside["train"], plan.patch_px) & ~labelled.corners
            if "unlabelled" in inside:
                given = corners_of(inside["unlabelled"], plan.patch_px)
                require_patches(given, "unlabelled", source, plan.patch_px, layers.grid)
                corners |= given
            # Few positions must not be drawn again and again; but a split ``unlabelled`` gets at least one patch.
            share = min(1.0, corners.sum() / labelled.corners.sum())
            self.unlabelled = max(round(plan.unlabelled * share), int("unlabelled" in inside))
        if self.unlabelled:
            self.sampler = MixedSampler(labelled, corners, plan.batch_size, self.unlabelled)
        side = max(_VALIDATION_PX, plan.patch_px)
        # Windows without a label would be computed and not scored.
        windows = covering_windows(labelled_val, side)
        self._whole_val = self._val = ValidationWindows(self.dataset, inside["val"], windows)
        patches = plan.steps_per_epoch * (plan.batch_size + self.unlabelled)
        most = most_windows(patches, plan.patch_px, side)
        if len(windows) > most:
            counts = self._pixels_by_kind(windows, labelled_val)
            chosen = [windows[i] for i in choose_windows(counts, most, plan.seed)]
            self._val = ValidationWindows(self.dataset, inside["val"], chosen)
            self.val_labelled_px = sum(int(labelled_val[w.slices].sum()) for w in chosen)

    def validate_whole(self) -> None:
        """Validate all windows of ``val`` between epochs, however long it takes."""
        self._val, self.val_labelled_px = self._whole_val, self.whole_val_labelled_px

    @property
    def val_windows(self) -> tuple[int, int]:
        """Numbers of windows that are validated between epochs, and of all windows of ``val`` with a label."""
        return len(self._val), len(self._whole_val)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Create the loader of random training patches.

        Returns:
            Batches of ``plan.batch_size`` patches with labels, then `unlabelled` patches without.
        """
        return DataLoader(
            self.dataset,
            batch_size=self.plan.batch_size + self.unlabelled,
            sampler=self.sampler,
            num_workers=self.plan.workers,
            worker_init_fn=one_thread_worker,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.plan.workers > 0,
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Create the loader of the windows that are validated between epochs, the same ones each time.

        Returns:
            Batches of at most 4 windows, each of 256 px or a patch on a side, whichever is larger.
        """
        return DataLoader(self._val, batch_size=_VALIDATION_BATCH, num_workers=0)

    def whole_val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Create the loader of all validation windows, which hold each labelled pixel of the split ``val`` once.

        Returns:
            Batches as those of `val_dataloader`.
        """
        return DataLoader(self._whole_val, batch_size=_VALIDATION_BATCH, num_workers=0)

    def _pixels_by_kind(self, windows: list[Window], labelled: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Labelled pixels of each class where a modality is valid, int64, shape (windows, modalities x classes).

        A network is scored only where its modality is valid, so each modality counts separately.
        """
        classes = int(self.dataset.labels[labelled].max()) + 1
        counts = np.zeros((len(windows), len(self.dataset.specs), classes), np.int64)
        for index, window in enumerate(windows):
            held = window.intersect(Window.of(labelled.shape))
            rows, cols = held.slices
            for order, modality in enumerate(self.dataset.specs):
                valid = np.isfinite(self.dataset.layers.channels(modality)[:, rows, cols]).all(axis=0)
                found = self.dataset.labels[rows, cols][labelled[rows, cols] & valid]
                counts[index, order] = np.bincount(found, minlength=classes)
        return counts.reshape(len(windows), -1)

    def val_tiles(self, margin_px: int) -> ValidationWindows:
        """All validation windows with a margin on each side; outside the split inputs are 0 and labels are ignored.

        Args:
            margin_px: Width of the margin.

        Returns:
            A sequence of samples, each a dict as in `val_dataloader` without the dimension of the batch. Without their
            margins they hold each labelled pixel of the split ``val`` once.
        """
        windows = [window.grow(margin_px) for window in self._whole_val.windows]
        return ValidationWindows(self.dataset, self._whole_val.inside, windows)
