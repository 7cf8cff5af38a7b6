"""Validation of trained networks on the whole validation split: their scores, and the calibration of branches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geocrodino.data.alignment import Progress
from geocrodino.data.datamodule import CoregisteredDataModule
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import Modality
from geocrodino.training.calibrate import Calibrated, ValidationPixels
from geocrodino.training.learners.base import network_input, network_valid


@torch.inference_mode()
def validate(
    networks: Mapping[str, nn.Module],
    data: CoregisteredDataModule,
    *,
    counts: Mapping[str, ConfusionMatrix] | None = None,
    pixels: ValidationPixels | None = None,
    device: torch.device | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Compute all validation windows once, for scores, for a calibration, or for both.

    Args:
        networks: Networks in evaluation mode by name; they are on the CPU again afterwards.
        data: Data module whose windows are read, all of them.
        counts: Confusion matrix of each network to add to, or None.
        pixels: Pixels for a calibration to add to, or None.
        device: Where to compute; the CPU by default.
        on_progress: Called with the numbers of finished and of all batches, after each batch.

    Raises:
        ModelError: If a logit is not finite and ``pixels`` are collected.
    """
    device, loader = device or torch.device("cpu"), data.whole_val_dataloader()
    for network in networks.values():
        network.to(device)
    for done, read in enumerate(loader, start=1):
        batch = {key: value.to(device) for key, value in read.items()}
        logits = {name: network(network_input(name, batch)) for name, network in networks.items()}
        if pixels is not None:
            pixels.add(logits, batch)
        if counts is not None:
            count_pixels(counts, logits, batch)
        if on_progress is not None:
            on_progress(done, len(loader))
    for network in networks.values():
        network.cpu()


def count_pixels(
    counts: Mapping[str, ConfusionMatrix], logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]
) -> None:
    """Count the pixels of a validation batch, for each network where its input is valid.

    Args:
        counts: Confusion matrix of each network; they are added to.
        logits: Logits of each network by name, (B, K, H, W).
        batch: The batch: ``labels`` (B, H, W), and ``<modality>_valid`` of each modality, bool (B, H, W).
    """
    for name, scores in logits.items():
        labels = torch.where(network_valid(name, batch), batch["labels"], IGNORE_INDEX)
        counts[name].update(labels.cpu().numpy(), scores.argmax(dim=1).cpu().numpy())


def calibrate(
    branches: Mapping[Modality, nn.Module],
    data: CoregisteredDataModule,
    counts: Mapping[str, ConfusionMatrix] | None = None,
    device: torch.device | None = None,
    on_progress: Progress | None = None,
) -> Calibrated:
    """Measure and fit the calibration of trained branches.

    Args:
        branches: Networks in evaluation mode by modality.
        data: Data module whose validation windows are read, all of them.
        counts: Confusion matrix of each branch to add to, or None.
        device: Where to compute; the CPU by default.
        on_progress: Called with the numbers of finished and of all batches, after each batch.

    Returns:
        Calibration and curves.

    Raises:
        ModelError: If a logit is not finite.
    """
    pixels = ValidationPixels(data.whole_val_labelled_px)
    validate(branches, data, counts=counts, pixels=pixels, device=device, on_progress=on_progress)
    return pixels.fit()
