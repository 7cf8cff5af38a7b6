"""Segmentation networks trained with torchgeo and geoai on the patches of a geocrodino training, for accuracy.py.

What the peers get:

- **Patches**: those that geocrodino draws with the same seed, from the same aligned rasters, and as many of them.
  Pixels without a label, and pixels where an input has no data, have the ignored index 255.
- **Values for torchgeo**: 8-bit images divided by 255, as its data modules do; other images standardised by band with
  the statistics of ``train``; heights as one channel, standardised in the same way. Pixels without data are 0.
- **Values for geoai**, which divides by 255 and keeps 0 to 1: 8-bit images as they are; other images and heights
  scaled from their 0.1 % and 99.9 % quantiles in ``train`` to 0 to 255.
- **Weights**: the ImageNet weights that geocrodino starts from, adapted to the number of bands by timm.
- **Everything else** as the libraries do by default. torchgeo: AdamW with a learning rate of 0.001, reduced on a
  plateau of the loss on ``val``; crops, resizing and flips as in its data modules of rasters; the epoch with the lowest
  loss on ``val``. geoai: Adam with 0.001; flips, turns, brightness and contrast; the epoch with the best IoU on
  ``val``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import kornia.augmentation as K
import lightning as L
import numpy as np
import rasterio
import segmentation_models_pytorch as smp
import torch
from kornia.constants import DataKey, Resample
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchgeo.trainers import SemanticSegmentationTask

from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.patches import covering_windows
from geocrodino.data.sampling import BalancedPatchSampler
from geocrodino.data.scenes import SceneWindow
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.models.pretrained.package import package_weights
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.config import TrainingConfig
from geocrodino.settings.modality import Modality
from geocrodino.training.prepare import Prepared

BACKBONE = "tu-tf_efficientnet_lite0"
ARCHITECTURES = {"unet": "unet", "deeplabv3+": "deeplabv3plus"}
"""Names of the architectures in torchgeo, with those in geoai."""

_POOLED = {"deeplabv3+"}
"""Architectures in which a pixel depends on the mean of the whole tile: their tiles are as large as the patches."""


@dataclass(frozen=True)
class Peer:
    """A training of a peer.

    Attributes:
        library: ``torchgeo`` or ``geoai``.
        model: Name of the architecture, as torchgeo has it.
        modalities: The modalities whose channels the network reads.
    """

    library: str
    model: str
    modalities: tuple[Modality, ...]

    @property
    def is_pooled(self) -> bool:
        """Whether a pixel depends on the whole tile."""
        return self.model in _POOLED


class PeerDataset(Dataset[dict[str, Tensor]]):
    """Patches in the form of torchgeo: ``image``, float32, (C, h, w), and ``mask``, int64, (h, w), 255 to ignore."""

    def __init__(self, ready: Prepared, modalities: Sequence[Modality], *, library: str = "torchgeo") -> None:
        """Open the aligned rasters.

        Args:
            ready: The prepared scene.
            modalities: The modalities to read, in this order.
            library: The library that the values are scaled for.
        """
        self.source = CoregisteredDataset(ready.scenes, ready.specs)
        self.modalities, self.library, self.specs = tuple(modalities), library, ready.specs
        self.is_8_bit = {m: _is_8_bit(ready, m) for m in modalities}
        self.channels = sum(len(ready.specs[m].channels) for m in modalities)

    def __getitem__(self, query: Window | SceneWindow) -> dict[str, Tensor]:
        window, (scene,) = query.window if isinstance(query, SceneWindow) else query, self.source.scenes
        values = {m: scene.layers.read(m, window) for m in self.modalities}
        valid = np.all([np.isfinite(v).all(axis=0) for v in values.values()], axis=0)
        mask = np.where(valid, scene.labels[window.slices], IGNORE_INDEX).astype(np.int64)
        image = np.concatenate([self.scaled(m, v) for m, v in values.items()])
        return {"image": torch.from_numpy(image), "mask": torch.from_numpy(mask)}

    def scaled(self, modality: Modality, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale values as the library expects them.

        Args:
            modality: The modality.
            values: Channels in physical units, float32, shape (C, h, w), NaN where invalid.

        Returns:
            Network input, float32, shape (C, h, w); 0 where a channel is invalid. For geoai before its division by 255.
        """
        if self.is_8_bit[modality]:
            scaled = values if self.library == "geoai" else values / np.float32(255)
        elif self.library == "geoai":
            scaled = _to_byte_range(values, self.specs[modality])
        else:
            return self.specs[modality].normalise(values)
        return np.where(np.isfinite(values).all(axis=0), scaled, np.float32(0)).astype(np.float32)

    def sampler(self, ready: Prepared, settings: TrainingConfig) -> BalancedPatchSampler:
        """Create the sampler of a geocrodino training.

        Args:
            ready: The prepared scene.
            settings: Size, number and seed of the patches.

        Returns:
            The sampler, of the patches with labels of ``train``.
        """
        return BalancedPatchSampler(
            self.source,
            "train",
            patch_px=settings.patch_px,
            length=settings.steps_per_epoch * settings.batch_size,
            balance=settings.balance,
            seed=settings.seed,
        )


class _Batches(L.LightningDataModule):
    """Random patches of ``train``, and all windows of one patch that lie on ``val``."""

    def __init__(self, dataset: PeerDataset, ready: Prepared, settings: TrainingConfig) -> None:
        super().__init__()
        self.dataset, self.settings = dataset, settings
        self.sampler = dataset.sampler(ready, settings)
        self.val = ValDataset(dataset, ready, settings.patch_px)
        size = (settings.patch_px, settings.patch_px)
        nearest = {DataKey.MASK: {"resample": Resample.NEAREST, "align_corners": None}}
        self.augmentation = K.AugmentationSequential(
            K.RandomResizedCrop(size, scale=(0.6, 1.0)),
            K.RandomVerticalFlip(p=0.5),
            K.RandomHorizontalFlip(p=0.5),
            data_keys=None,
            keepdim=True,
            extra_args=nearest,
        )

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.dataset, batch_size=self.settings.batch_size, sampler=self.sampler)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.val, batch_size=self.settings.batch_size)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        if self.trainer is None or not self.trainer.training:
            return batch
        out: dict[str, Tensor] = self.augmentation({**batch, "mask": batch["mask"][:, None].float()})
        return {"image": out["image"], "mask": out["mask"][:, 0].round().long()}


class _LowestLoss(Callback):
    """Keeps the weights of the epoch with the lowest loss on ``val``, like torchgeo's examples with Lightning."""

    def __init__(self) -> None:
        self.loss, self.weights = float("inf"), {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = float(trainer.callback_metrics["val_loss"])
        if not trainer.sanity_checking and (loss < self.loss or not self.weights):
            self.loss = loss
            self.weights = {k: v.detach().cpu().clone() for k, v in pl_module.model.state_dict().items()}


class ValDataset(Dataset[dict[str, Tensor]]):
    """Windows of one patch that hold every labelled pixel of ``val`` with data; labels outside ``val`` are ignored."""

    def __init__(self, dataset: PeerDataset, ready: Prepared, patch_px: int) -> None:
        """Find the windows.

        Args:
            dataset: The patches.
            ready: The prepared scene.
            patch_px: Side of a window, px.
        """
        self.dataset, self.inside = dataset, ready.scenes[0].inside["val"]
        height, width = self.inside.shape
        # A batch without any usable label would have the loss NaN, and its epoch too.
        valid = [np.isfinite(ready.scenes[0].layers.channels(m)).all(axis=0) for m in dataset.modalities]
        usable = np.logical_and.reduce([self.inside, ready.scenes[0].labels != IGNORE_INDEX, *valid])
        found = covering_windows(usable, patch_px)
        # Windows at the edge are moved onto the grid; pixels that two windows hold count twice.
        corners = [(min(w.row_start, height - patch_px), min(w.col_start, width - patch_px)) for w in found]
        self.windows = [Window.at(*corner, (patch_px, patch_px)) for corner in corners]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        window = self.windows[index]
        sample = self.dataset[window]
        sample["mask"][torch.from_numpy(~self.inside[window.slices])] = IGNORE_INDEX
        return sample


def create_network(model: str, channels: int, classes: int) -> nn.Module:
    """Create the network that torchgeo and geoai train, with ImageNet weights in the encoder.

    Args:
        model: Name of the architecture, as torchgeo has it.
        channels: Bands of the input.
        classes: Number of classes.

    Returns:
        The network; its decoder has random weights.
    """
    network = smp.create_model(
        ARCHITECTURES[model], encoder_name=BACKBONE, encoder_weights=None, in_channels=channels, classes=classes
    )
    network.encoder.load_state_dict(encoder_state(channels))
    return network


def encoder_state(channels: int) -> dict[str, Tensor]:
    """Read the ImageNet weights that geocrodino starts from, and adapt them to a number of bands by timm's rule.

    Args:
        channels: Bands of the input.

    Returns:
        Weights of the encoder by their names in segmentation-models-pytorch.
    """
    tensors = package_weights(BACKBONE.removeprefix("tu-")).tensors
    given = {name: value for name, value in tensors.items() if not name.startswith("classifier.")}
    encoder = smp.encoders.get_encoder(
        BACKBONE,
        in_channels=channels,
        depth=5,
        weights=True,
        pretrained_cfg_overlay={"state_dict": given},
    )
    state: dict[str, Tensor] = encoder.state_dict()
    return state


def train_torchgeo(
    peer: Peer, ready: Prepared, settings: TrainingConfig, minutes: float | None
) -> tuple[nn.Module, float]:
    """Train with torchgeo's `SemanticSegmentationTask`.

    Args:
        peer: What to train.
        ready: The prepared scene.
        settings: Patches, epochs, seed and device.
        minutes: Wall time of the training instead of the number of epochs; None: the epochs.

    Returns:
        The network of the best epoch, in evaluation mode, and the minutes of the training.
    """
    L.seed_everything(settings.seed, verbose=False)
    dataset = PeerDataset(ready, peer.modalities)
    task = SemanticSegmentationTask(
        model=peer.model,
        backbone=BACKBONE,
        weights=None,
        in_channels=dataset.channels,
        task="multiclass",
        num_classes=len(ready.classes),
        loss="ce",
        ignore_index=IGNORE_INDEX,
    )
    task.model.encoder.load_state_dict(encoder_state(dataset.channels))
    best = _LowestLoss()
    trainer = L.Trainer(
        max_epochs=settings.epochs if minutes is None else -1,
        max_time=None if minutes is None else timedelta(minutes=minutes),
        accelerator=settings.accelerator,
        devices=1,
        precision=settings.precision,  # type: ignore[arg-type]
        callbacks=[best],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    started = time.monotonic()
    trainer.fit(task, _Batches(dataset, ready, settings))
    spent = (time.monotonic() - started) / 60
    task.model.load_state_dict(best.weights or task.model.state_dict())
    network: nn.Module = task.model
    return network.cpu().eval(), spent


def train_geoai(
    peer: Peer, ready: Prepared, settings: TrainingConfig, folder: Path, python: Path
) -> tuple[nn.Module, float]:
    """Train with geoai's `train_segmentation_model`, in its environment.

    geoai reads a fixed set of tiles: those of the first epoch of a geocrodino training.

    Args:
        peer: What to train.
        ready: The prepared scene.
        settings: Patches, epochs and seed.
        folder: Folder of the tiles and of the trained network.
        python: Interpreter of an environment with geoai.

    Returns:
        The network of the best epoch, in evaluation mode, and the minutes of the training.
    """
    torch.manual_seed(settings.seed)
    dataset = PeerDataset(ready, peer.modalities, library="geoai")
    val = ValDataset(dataset, ready, settings.patch_px)
    for index, window in enumerate(dataset.sampler(ready, settings)):
        _write_tile(dataset[window], folder, f"train{index:05d}.tif")
    for index in range(len(val)):
        _write_tile(val[index], folder, f"val{index:05d}.tif")
    network = create_network(peer.model, dataset.channels, len(ready.classes))
    torch.save(network.state_dict(), folder / "start.pth")
    chosen = {
        "architecture": ARCHITECTURES[peer.model],
        "encoder_name": BACKBONE,
        "num_channels": dataset.channels,
        "num_classes": len(ready.classes),
        "batch_size": settings.batch_size,
        "num_epochs": settings.epochs,
        "seed": settings.seed,
        "ignore_index": IGNORE_INDEX,
    }
    script = Path(__file__).with_name("accuracy_geoai.py")
    done = subprocess.run(
        [str(python), str(script), str(folder), json.dumps(chosen)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{python}: the training with geoai failed.\n{done.stderr}")
    best = folder / "best_model.pth"
    trained = best if best.exists() else folder / "final_model.pth"  # no epoch had an IoU above 0
    network.load_state_dict(torch.load(trained, "cpu", weights_only=True))
    return network.eval(), json.loads(done.stdout.strip().splitlines()[-1]) / 60


def _write_tile(sample: Mapping[str, Tensor], folder: Path, name: str) -> None:
    image, mask = sample["image"].numpy(), sample["mask"].numpy().astype(np.uint8)
    for kind, values in (("images", image), ("labels", mask[None])):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        count, height, width = values.shape
        profile: dict[str, Any] = {"driver": "GTiff", "count": count, "height": height, "width": width}
        with rasterio.open(folder / kind / name, "w", dtype=values.dtype, **profile) as target:
            target.write(values)


def _to_byte_range(values: NDArray[np.float32], spec: ModalitySpec) -> NDArray[np.float32]:
    low = np.array([c.low for c in spec.channels], np.float32)[:, None, None]
    high = np.array([c.high for c in spec.channels], np.float32)[:, None, None]
    scaled = 255 * (values - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    return np.clip(scaled, 0, 255)


def _is_8_bit(ready: Prepared, modality: Modality) -> bool:
    """Whether a modality is an image of bytes."""
    if ready.specs[modality].definition.holds_heights:
        return False
    path = Path(ready.checked[0].sources.rasters[modality].path)
    if not path.is_file():
        return False
    with rasterio.open(path) as source:
        return set(source.dtypes) == {"uint8"}
