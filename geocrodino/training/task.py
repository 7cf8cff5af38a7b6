"""The Lightning module: augmentation, training and validation steps, averaged weights, optimiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain, islice
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.data.augmentation.rows import Rows
from geocrodino.data.shares import BatchShare
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.models.stochastic_depth import without_stochastic_depth
from geocrodino.settings.optimiser import OptimiserSettings
from geocrodino.training.depthwise import DepthwiseInFloat32
from geocrodino.training.freezing import hidden_encoders, keep_frozen
from geocrodino.training.learners.base import Learner, Step, network_input, whole_input
from geocrodino.training.pace import Pace
from geocrodino.training.parameter_groups import parameter_groups
from geocrodino.training.parts import Processes, part_weights, split, tell_all
from geocrodino.training.shared_norm import SharedBatchNorm
from geocrodino.training.validate import count_pixels


class TrainingTask(L.LightningModule):
    """Trains the networks of a method on common patches, with a separate augmentation of each modality.

    Attributes:
        learner: Networks and loss terms.
        average: Moving average of the learner, or None.
        confusion: Confusion matrix of each network in the last validation.
        validated: The networks of the last validation, by name.
        pace: How fast steps and validations are, as measured before the training; None if it was not measured.
        processes: The processes that share each batch.
    """

    def __init__(
        self,
        learner: Learner,
        augmentation: PairAugmentation,
        optimiser: OptimiserSettings,
        *,
        ema_decay: float = 0.0,
        batch_norm_batches: int = 0,
        seed: int = 0,
        accumulate: int = 1,
    ) -> None:
        """Create the task.

        Args:
            learner: Networks and loss terms.
            augmentation: Draws geometry and radiometry for each modality, on the device.
            optimiser: Learning rate and its schedule, weight decay, gradient limit.
            ema_decay: Share of the moving average of weights that a step keeps in the long run, 0 to 1; 0: no average.
            batch_norm_batches: Number of training batches on which batch-norm statistics are measured before each
                validation; 0: keep those of the training steps.
            seed: Seed of the random numbers of the steps.
            accumulate: Parts in which a batch is computed one after the other, so that memory holds one of them.
        """
        super().__init__()
        # Convolutions are faster in this memory layout; on CPUs by a fifth.
        self.learner = learner.to(memory_format=torch.channels_last)
        self.augmentation = augmentation
        self.optimiser, self.seed, self.batch_norm_batches = optimiser, seed, batch_norm_batches
        self.average = averaged(learner, ema_decay) if ema_decay else None
        self.confusion = self._empty_counts()
        self.validated: dict[str, nn.Module] = {}
        self.pace: Pace | None = None
        self.processes, self.accumulate = Processes(), accumulate

    @property
    def kept(self) -> Learner:
        """The learner whose networks are validated and saved: the averaged one if there is an average."""
        return self.learner if self.average is None else cast(Learner, self.average.module)

    def train(self, mode: bool = True) -> TrainingTask:
        """Set the mode of the learner. The average stays in evaluation mode: it teaches and is validated.

        Args:
            mode: True for training mode.

        Returns:
            This task.
        """
        super().train(mode)
        keep_frozen(self.learner)
        if self.average is not None:
            self.average.eval()
        return self

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Augment a training batch on the device. The random numbers of a step depend only on the seed and the step.

        Args:
            batch: Patches without augmentation.
            dataloader_idx: Not used.

        Returns:
            The augmented batch, with the patches before augmentation under ``source``; in validation the batch itself.
        """
        if not self.trainer.training:
            return batch
        seed = self.seed * 1_000_003 + self.trainer.global_step
        torch.manual_seed(seed)
        if self.processes.count == 1:
            return {**self.augmentation(batch), "source": batch}
        share: BatchShare = self.trainer.datamodule.share  # type: ignore[attr-defined]
        augmented = self.augmentation(batch, Rows(share.rows(self.processes.number), share.total))
        torch.manual_seed(seed + self.processes.number * 7_919)  # what networks draw differs between the processes
        return {**augmented, "source": batch}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute and log the loss terms of a batch.

        Args:
            batch: Augmented patches, with those before augmentation under ``source``.
            batch_idx: Not used.

        Returns:
            Sum of the terms, scalar.
        """
        progress = self.trainer.global_step / max(1, int(self.trainer.estimated_stepping_batches))
        if self.processes.count * self.accumulate > 1:
            return self._step_in_parts(batch, progress)
        with DepthwiseInFloat32():
            terms = self.learner.losses(Step(batch, batch["source"], progress), self.kept)
        total = torch.stack(list(terms.values())).sum()
        self._log_terms(terms, total)
        return total

    def _step_in_parts(self, batch: dict[str, Any], progress: float) -> Tensor:
        """Compute the share of this process, part by part. All gradients but those of the last part are added here."""
        share: BatchShare = self.trainer.datamodule.share  # type: ignore[attr-defined]
        own = BatchShare(share.labelled // share.count, share.unlabelled // share.count, self.accumulate)
        parts = split(batch, own)
        tell_all(parts, self.processes)
        weights = part_weights([self.learner.amounts(part) for part in parts], self.processes.count)
        if self.accumulate > 1:
            self.zero_grad()
        sums: dict[str, Tensor] = {}
        for index, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            shared = SharedBatchNorm() if self.processes.count > 1 else nullcontext()
            with shared, DepthwiseInFloat32():
                found = self.learner.losses(Step(part, part["source"], progress), self.kept)
            terms = {name: value * _factor(weight.get(name), value, self.accumulate) for name, value in found.items()}
            total = torch.stack(list(terms.values())).sum()
            if index < self.accumulate - 1:
                self._add_gradient(total)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach()
        whole = torch.stack(list(sums.values())).sum()
        self._log_terms(sums, whole)
        return total + (whole - total.detach())  # the value of all parts, and the gradient of the last one

    def _add_gradient(self, loss: Tensor) -> None:
        """Add the gradient of a part. DDP exchanges gradients only in the backward pass after the step."""
        scaled = self.trainer.precision_plugin.pre_backward(loss, self)
        with torch.autocast(self.device.type, enabled=False):
            scaled.backward()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Keep the gradients of the parts that were computed in the step, before which they were set to zero.

        Args:
            epoch: Number of the epoch.
            batch_idx: Number of the batch.
            optimizer: The optimiser.
        """
        if self.accumulate == 1:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def _log_terms(self, terms: Mapping[str, Tensor], total: Tensor) -> None:
        """Log loss terms as means over the steps of an epoch, and over the processes."""
        several = self.processes.count > 1
        numbers = {f"loss/{name}": value.detach() for name, value in terms.items()}
        self.log_dict(numbers, on_step=False, on_epoch=True, sync_dist=several)
        self.log("loss/total", total.detach(), on_step=False, on_epoch=True, prog_bar=True, sync_dist=several)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Limit the gradient norm of each network separately, so that a large one does not slow down the others.

        Args:
            optimizer: Not used.
            gradient_clip_val: Not used; the limit is in the optimiser settings.
            gradient_clip_algorithm: Not used.
        """
        for part in self.learner.parts():
            torch.nn.utils.clip_grad_norm_([p for p in part if p.grad is not None], self.optimiser.gradient_norm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the moving average of the weights.

        Args:
            outputs: Not used.
            batch: Not used.
            batch_idx: Not used.
        """
        if self.average is not None:
            self.average.update_parameters(self.learner)

    def on_validation_epoch_start(self) -> None:
        """Prepare the networks to validate, and reset the counts."""
        self.confusion = self._empty_counts()
        if not self.processes.is_first:
            return
        self.validated = {name: self._validated_network(name) for name in self.learner.network_names}
        self.learner.on_validation_start(self._labelled_px)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count the pixels of each network where its input is valid.

        Args:
            batch: Patches without augmentation. For each modality ``m``: ``<m>`` (B, C, H, W) and ``<m>_valid``, bool,
                (B, H, W). For all: ``labels``, int64, (B, H, W).
            batch_idx: Not used.
        """
        if not self.processes.is_first:
            return
        logits = {name: network(network_input(name, batch)) for name, network in self.validated.items()}
        count_pixels(self.confusion, logits, batch)
        self.learner.on_validation_batch(logits, batch)

    def on_validation_epoch_end(self) -> None:
        """Let the learner learn from the validation."""
        if self.processes.is_first:
            self.learner.on_validation_end()

    def configure_optimizers(self) -> Any:
        """Create AdamW and its learning-rate schedule, see `OptimiserSettings`.

        Returns:
            Optimiser and scheduler in Lightning's form.
        """
        groups = parameter_groups(self.learner, self.optimiser)
        highest = [share * self.optimiser.learning_rate for share, _ in groups]
        optimizer = torch.optim.AdamW(
            [{"params": found, "lr": rate} for rate, (_, found) in zip(highest, groups, strict=True)],
            weight_decay=self.optimiser.weight_decay,
        )
        total = int(self.trainer.estimated_stepping_batches) + 1
        rising = max(1e-3, self.optimiser.warmup)
        if math.isclose(rising * total, 1):  # the rise would have 0 steps, and OneCycleLR divides by their number
            rising *= 1.001
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=total, pct_start=rising)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _validated_network(self, name: str) -> nn.Module:
        """The network as it is validated and saved, with batch-norm statistics of training batches if asked for."""
        network = self.kept.network(name)
        if self.batch_norm_batches:
            network = copy.deepcopy(network)
            batches = islice(self.trainer.datamodule.whole_train_dataloader(), self.batch_norm_batches)  # type: ignore[attr-defined]
            kind = next(network.parameters()).dtype
            without_stochastic_depth(network)
            images = (found.to(kind) for batch in batches if (found := whole_input(name, batch)) is not None)
            first = next(images, None)
            if first is not None:
                with hidden_encoders(network):
                    update_bn(chain([first], images), network, self.device)
        return network.eval()

    def _labelled_px(self) -> int:
        """Number of labelled pixels that are validated."""
        return int(self.trainer.datamodule.val_labelled_px)  # type: ignore[attr-defined]

    def _empty_counts(self) -> dict[str, ConfusionMatrix]:
        return {name: ConfusionMatrix(len(self.learner.class_weights)) for name in self.learner.network_names}


def _factor(weight: Tensor | None, value: Tensor, parts: int) -> Tensor | float:
    """Weight of a term of a part; terms whose amounts are not known are averaged over the parts."""
    return 1 / parts if weight is None else weight.to(value.dtype)


def averaged(learner: Learner, decay: float) -> AveragedModel:
    """Create an exponential moving average of the weights.

    Its decay starts low and grows with the steps, so that short runs forget the initial weights.

    Args:
        learner: Initial state of the average; it is copied.
        decay: Share of the average that a step keeps in the long run, 0 to 1.

    Returns:
        The average, in evaluation mode and without gradients.
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
    # Lightning keeps the mode that a module is in at the start.
    average.requires_grad_(False).eval()
    return average
