"""The training loop's view of a method: which batch goes where, what is averaged, what is counted."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import islice
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.modality import MODALITIES
from geocrodino.settings.optimiser import OptimiserSettings
from geocrodino.training.calibrate import ValidationPixels
from geocrodino.training.learners.base import Learner, Step, network_input, network_valid
from geocrodino.training.learners.joint import JointLearner

_CALIBRATION_PX = 50_000
"""Validation pixels from which the branches' trust in each other is measured after each epoch."""


class TrainingTask(L.LightningModule):
    """Train the networks of a method on the same patches, each modality with its own augmentation."""

    def __init__(
        self,
        learner: Learner,
        augmentation: PairAugmentation,
        optimiser: OptimiserSettings,
        *,
        ema_decay: float = 0.0,
        batch_norm_batches: int = 0,
        seed: int = 0,
    ) -> None:
        """Keep the parts.

        Args:
            learner: Networks and loss terms.
            augmentation: Draws each modality's own geometry and radiometry, on the device.
            optimiser: Learning rate and its course.
            ema_decay: Share of the old average of weights that a step keeps in the long run; 0: no average.
            batch_norm_batches: Training batches from which batch-norm statistics are measured before a validation;
                0: those of the training steps.
            seed: Start of the random numbers of a step.
        """
        super().__init__()
        # The memory layout that convolutions are fastest in, on CPUs by a fifth.
        self.learner = learner.to(memory_format=torch.channels_last)
        self.augmentation = augmentation
        self.optimiser, self.seed, self.batch_norm_batches = optimiser, seed, batch_norm_batches
        self.average = averaged(learner, ema_decay) if ema_decay else None
        self.confusion = self._empty_counts()
        self.judged: dict[str, nn.Module] = {}
        self.pixels: ValidationPixels | None = None

    @property
    def kept(self) -> Learner:
        """The learner whose networks are judged and kept: the averaged one, if there is one."""
        return self.learner if self.average is None else cast(Learner, self.average.module)

    def train(self, mode: bool = True) -> TrainingTask:
        """The average is never in training mode: it teaches and is judged."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Augment on the device; the random numbers of a step depend on the seed and the step alone."""
        if not self.trainer.training:
            return batch
        torch.manual_seed(self.seed * 1_000_003 + self.trainer.global_step)
        return {**self.augmentation(batch), "source": batch}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Sum of the method's terms."""
        progress = self.trainer.global_step / max(1, int(self.trainer.estimated_stepping_batches))
        terms = self.learner.losses(Step(batch, batch["source"], progress), self.kept)
        total = torch.stack(list(terms.values())).sum()
        self.log_dict({f"loss/{name}": value.detach() for name, value in terms.items()}, on_step=False, on_epoch=True)
        self.log("loss/total", total.detach(), on_step=False, on_epoch=True, prog_bar=True)
        return total

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Limit the gradient of each network on its own, so that one cannot slow the other down."""
        for part in self.learner.parts():
            torch.nn.utils.clip_grad_norm_([p for p in part if p.grad is not None], self.optimiser.gradient_norm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the average."""
        if self.average is not None:
            self.average.update_parameters(self.learner)

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self.confusion = self._empty_counts()
        self.judged = {name: self._judge(name) for name in self.learner.method.networks}
        if isinstance(self.learner, JointLearner) and self.learner.method.agreement:
            labelled_px = self.trainer.datamodule.val_labelled_px  # type: ignore[attr-defined]
            self.pixels = ValidationPixels(labelled_px, _CALIBRATION_PX)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count pixels of each network where it has something to read."""
        logits = {name: network(network_input(name, batch)) for name, network in self.judged.items()}
        for name, said in logits.items():
            labels = torch.where(network_valid(name, batch), batch["labels"], IGNORE_INDEX)
            self.confusion[name].update(labels.cpu().numpy(), said.argmax(dim=1).cpu().numpy())
        if self.pixels is not None:
            self.pixels.add(logits, batch)

    def on_validation_epoch_end(self) -> None:
        """Where the branches teach each other, measure how far each can be trusted."""
        if self.pixels is not None and isinstance(self.learner, JointLearner):
            found = self.pixels.fit().calibration
            iou = {m: np.array(self.confusion[m].scores().iou) for m in MODALITIES}
            self.learner.set_calibration(found.temperature, iou)
            self.pixels = None

    def configure_optimizers(self) -> Any:
        """AdamW; the learning rate rises for the warm-up's share of the steps, see `OptimiserSettings`."""
        parameters = [p for p in self.learner.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=self.optimiser.learning_rate, weight_decay=self.optimiser.weight_decay
        )
        total = int(self.trainer.estimated_stepping_batches) + 1
        rising = max(1e-3, self.optimiser.warmup)
        if math.isclose(rising * total, 1):  # a rise that ends at the first step is divided by its length, 0
            rising *= 1.001
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.optimiser.learning_rate, total_steps=total, pct_start=rising
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _judge(self, name: str) -> nn.Module:
        """The network as it is validated and kept, its batch-norm statistics measured anew where that is asked for."""
        network = self.kept.network(name)
        if self.batch_norm_batches:
            network = copy.deepcopy(network)
            batches = islice(self.trainer.datamodule.train_dataloader(), self.batch_norm_batches)  # type: ignore[attr-defined]
            kind = next(network.parameters()).dtype
            update_bn((network_input(name, batch).to(kind) for batch in batches), network, self.device)
        return network.eval()

    def _empty_counts(self) -> dict[str, ConfusionMatrix]:
        return {name: ConfusionMatrix(len(self.learner.class_weights)) for name in self.learner.method.networks}


def averaged(learner: Learner, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, which starts fast so that short runs do not remember their start.

    Args:
        learner: Starts the average; it is copied.
        decay: Share of the old average that a step keeps in the long run, 0 to 1.
    """

    @torch.no_grad()
    def mix(averages: Sequence[Tensor], currents: Sequence[Tensor], count: Tensor | int) -> None:
        n = float(count)
        share = 1 - min(decay, (1 + n) / (10 + n))
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current.to(average.device), share)
            else:
                average.copy_(current)  # counters of batch normalisation

    average = AveragedModel(learner, multi_avg_fn=mix, use_buffers=True)
    # Lightning leaves the mode of modules as it finds it.
    average.requires_grad_(False).eval()
    return average
