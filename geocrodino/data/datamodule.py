"""Batches of patches for training and validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from geocrodino.data.batches import BatchReader, as_read
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.on_device import PLACES, LayersOnDevice, PlaceReader
from geocrodino.data.patches import covering_windows, require_labels, require_patches
from geocrodino.data.patches import patch_corners as corners_of
from geocrodino.data.sampling import BalancedPatchSampler, MixedSampler, one_thread_worker
from geocrodino.data.scenes import AlignedScene, SceneWindow
from geocrodino.data.shares import BatchShare, ShareSampler
from geocrodino.data.validation import choose_windows, most_windows
from geocrodino.errors import AOIError
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import Modality
from geocrodino.settings.sampling import BalanceBy

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
        balance_by: Where the pixel of a class is drawn from, see `BalancedPatchSampler`.
        parts: Equal parts into which a batch is divided, among processes and passes; ``batch_size`` is a multiple, and
            the patches without labels are rounded down to one.
    """

    patch_px: int
    batch_size: int
    steps_per_epoch: int
    balance: float = 0.5
    seed: int = 0
    workers: int = 0
    unlabelled: int = 0
    balance_by: BalanceBy = "class"
    parts: int = 1


class ValidationWindows(torch.utils.data.Dataset[dict[str, Any]]):
    """Windows that hold every labelled pixel of ``val`` once; outside the split inputs are 0 and labels are ignored."""

    def __init__(self, dataset: CoregisteredDataset, windows: list[SceneWindow]) -> None:
        self.dataset, self.windows = dataset, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene, window = self.windows[index]
        mask = self.dataset.scenes[scene].pixels_of("val")
        held = window.intersect(Window.of(mask.shape))
        sample = self.dataset.read(held, scene)
        inside = torch.from_numpy(mask[held.slices].copy())
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
            if value.ndim
            else value
            for key, value in sample.items()
        }


class CoregisteredDataModule(L.LightningDataModule):
    """Training and validation batches of all scenes.

    If the split ``val`` is so large that its validation would take more than a fifth of the time of the training steps
    (`most_windows`), a fixed part of its windows is validated between epochs (`choose_windows`).

    A batch is a dict: for each modality float32 (B, C, H, W) and ``<modality>_valid`` bool (B, H, W); ``labels``
    int64 (B, H, W), 255 without a label; where scenes lack a modality also ``<modality>_there`` bool (B,).

    Attributes:
        val_labelled_px: Labelled pixels that are validated between epochs.
        whole_val_labelled_px: Labelled pixels of the split ``val``.
        process: Number of this process among those that share each batch, from 0, and their number.
        on_device: The layers from which training patches are cut on the device, or None: patches are read from disk.
    """

    def __init__(
        self,
        scenes: Sequence[AlignedScene],
        specs: dict[Modality, ModalitySpec],
        plan: BatchPlan,
        source: str = "area of interest",
    ) -> None:
        """Find the positions of patches.

        Args:
            scenes: The scenes, with the pixels of ``train``, ``val`` and, where there is such a split, ``unlabelled``.
            specs: Channels and statistics of each modality, to normalise its values.
            plan: Size and number of patches.
            source: Name of the area, or of the key of the scenes, for messages.

        Raises:
            AOIError: If ``train`` or ``unlabelled`` holds no patch, or ``train`` or ``val`` no label.
        """
        super().__init__()
        self.plan, self.process = plan, (0, 1)
        self.on_device: LayersOnDevice | None = None
        self.dataset = dataset = CoregisteredDataset(scenes, specs)
        patch_px, grid = plan.patch_px, dataset.grid
        train = [corners_of(scene.pixels_of("train"), patch_px) for scene in scenes]
        require_patches(train, "train", source, patch_px, grid)
        labelled_px = [int(self._labelled_val(number).sum()) for number in range(len(scenes))]
        self.val_labelled_px = self.whole_val_labelled_px = sum(labelled_px)
        if not self.whole_val_labelled_px:
            raise AOIError(
                f"{source}: the polygons of the split 'val' hold no labelled pixel. "
                "Check that they lie on the label raster."
            )
        labelled = BalancedPatchSampler(
            dataset,
            "train",
            patch_px=patch_px,
            length=plan.steps_per_epoch * plan.batch_size,
            balance=plan.balance,
            balance_by=plan.balance_by,
            seed=plan.seed,
        )
        require_labels(labelled.corners, source)
        self.sampler: BalancedPatchSampler | MixedSampler = labelled
        self.unlabelled = 0
        if plan.unlabelled:
            corners = [some & ~with_label for some, with_label in zip(train, labelled.corners, strict=True)]
            without = any("unlabelled" in scene.inside for scene in scenes)
            if without:
                given = [corners_of(scene.pixels_of("unlabelled"), patch_px) for scene in scenes]
                require_patches(given, "unlabelled", source, patch_px, grid)
                corners = [some | more for some, more in zip(corners, given, strict=True)]
            # Few positions must not be drawn again and again; but a split ``unlabelled`` gets at least one patch.
            share = min(1.0, sum(c.sum() for c in corners) / sum(c.sum() for c in labelled.corners))
            self.unlabelled = _divisible(max(round(plan.unlabelled * share), int(without)), plan.parts)
            if self.unlabelled:
                self.sampler = MixedSampler(labelled, corners, plan.batch_size, self.unlabelled)
        side = max(_VALIDATION_PX, patch_px)
        # Windows without a label would be computed and not scored.
        windows = [
            SceneWindow(number, window)
            for number, px in enumerate(labelled_px)
            if px
            for window in covering_windows(self._labelled_val(number), side)
        ]
        self._whole_val = self._val = ValidationWindows(dataset, windows)
        patches = plan.steps_per_epoch * (plan.batch_size + self.unlabelled)
        most = most_windows(patches, patch_px, side)
        if len(windows) > most:
            counts = self._pixels_by_kind(windows)
            chosen = choose_windows(counts, most, plan.seed)
            self._val = ValidationWindows(dataset, [windows[i] for i in chosen])
            self.val_labelled_px = sum(int(self._labelled_val(*windows[i]).sum()) for i in chosen)

    def _labelled_val(self, scene: int, window: Window | None = None) -> NDArray[np.bool_]:
        """Labelled pixels of ``val`` in a scene, or in the part of a window that lies on it: bool, shape (h, w)."""
        there = self.dataset.scenes[scene]
        inside, whole = there.pixels_of("val"), Window.of(there.grid.shape)
        held = whole if window is None else window.intersect(whole)
        labelled: NDArray[np.bool_] = inside[held.slices] & (there.labels_in(held) != IGNORE_INDEX)
        return labelled

    def validate_whole(self) -> None:
        """Validate all windows of ``val`` between epochs, however long it takes."""
        self._val, self.val_labelled_px = self._whole_val, self.whole_val_labelled_px

    @property
    def val_windows(self) -> tuple[int, int]:
        """Numbers of windows that are validated between epochs, and of all windows of ``val`` with a label."""
        return len(self._val), len(self._whole_val)

    @property
    def share(self) -> BatchShare:
        """The parts of each batch that the processes compute."""
        return BatchShare(self.plan.batch_size, self.unlabelled, self.process[1])

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Create the loader of random training patches.

        Returns:
            Batches of ``plan.batch_size`` patches with labels, then `unlabelled` patches without; of several processes,
            the share of this one. Where the layers are on the device, the places of these patches, see `PlaceReader`.
        """
        part, count = self.process
        share = self.share
        return self._training_patches(
            self.sampler if count == 1 else ShareSampler(self.sampler, share, part), share.total // count
        )

    def setup(self, stage: str) -> None:
        """Load the layers on the device of this process, unless they are there; Lightning calls this.

        Args:
            stage: Not used.
        """
        if self.on_device is not None:
            self.on_device.load(self.dataset, self._trainer().strategy.root_device)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device; where the layers are there, cut out the patches that it names.

        Args:
            batch: Patches, or their places.
            device: The device.
            dataloader_idx: Not used.

        Returns:
            The patches, on the device.
        """
        if self.on_device is None or PLACES not in batch:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        # Lightning converts numbers before it moves a batch; of places there was nothing to convert.
        return self._trainer().precision_plugin.convert_input(self.on_device.cut(batch[PLACES], self.plan.patch_px))

    def _trainer(self) -> L.Trainer:
        if self.trainer is None:
            raise AssertionError("only a trainer calls this")
        return self.trainer

    def whole_train_dataloader(self) -> Iterable[dict[str, Any]]:
        """Create the loader of the training patches of all processes.

        Returns:
            Batches as those of `train_dataloader` of a single process; on the device, where the layers are there.
        """
        loader, held = self._training_patches(self.sampler, self.share.total), self.on_device
        return loader if held is None else (held.cut(places[PLACES], self.plan.patch_px) for places in loader)

    def _training_patches(self, sampler: Sampler[Any], batch_size: int) -> DataLoader[dict[str, Any]]:
        is_read = self.on_device is None
        return DataLoader(
            BatchReader(self.dataset) if is_read else PlaceReader(self.dataset),  # type: ignore[arg-type]
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=as_read,
            num_workers=self.plan.workers,
            worker_init_fn=one_thread_worker,
            pin_memory=is_read and torch.cuda.is_available(),
            persistent_workers=self.plan.workers > 0,
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Create the loader of the windows that are validated between epochs, the same ones each time.

        Returns:
            Batches of at most 4 windows, each of 256 px or a patch on a side, whichever is larger.
        """
        # Only the first process validates. Lightning gives each a loop of its own, which must not be empty.
        windows = self._val if not self.process[0] else ValidationWindows(self.dataset, self._val.windows[:1])
        return DataLoader(windows, batch_size=_VALIDATION_BATCH, num_workers=0)

    def whole_val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Create the loader of all validation windows, which hold each labelled pixel of the split ``val`` once.

        Returns:
            Batches as those of `val_dataloader`.
        """
        return DataLoader(self._whole_val, batch_size=_VALIDATION_BATCH, num_workers=0)

    def _pixels_by_kind(self, windows: list[SceneWindow]) -> NDArray[np.int64]:
        """Labelled pixels of each class where a modality is valid, int64, shape (windows, modalities x classes).

        A network is scored only where its modality is valid, so each modality counts separately.
        """
        counts = np.zeros((len(windows), len(self.dataset.specs), IGNORE_INDEX), np.int64)
        for index, (number, window) in enumerate(windows):
            scene = self.dataset.scenes[number]
            held = window.intersect(Window.of(scene.grid.shape))
            labelled, labels = self._labelled_val(number, window), scene.labels_in(held)
            for order, modality in enumerate(self.dataset.specs):
                if modality not in scene.layers.modalities:
                    continue
                valid = np.isfinite(scene.layers.read(modality, held)).all(axis=0)
                found = labels[labelled & valid]
                counts[index, order] = np.bincount(found, minlength=IGNORE_INDEX)
        classes = 1 + int(np.flatnonzero(counts.any(axis=(0, 1))).max(initial=0))
        return counts[:, :, :classes].reshape(len(windows), -1)

    def val_tiles(self, margin_px: int) -> ValidationWindows:
        """All validation windows with a margin on each side; outside the split inputs are 0 and labels are ignored.

        Args:
            margin_px: Width of the margin.

        Returns:
            A sequence of samples, each a dict as in `val_dataloader` without the dimension of the batch. Without their
            margins they hold each labelled pixel of the split ``val`` once.
        """
        windows = [SceneWindow(scene, window.grow(margin_px)) for scene, window in self._whole_val.windows]
        return ValidationWindows(self.dataset, windows)


def _divisible(patches: int, parts: int) -> int:
    """Round down to a multiple of the number of parts, but not to 0."""
    return max(patches // parts, 1) * parts if patches else 0
