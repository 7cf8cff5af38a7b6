"""The training loop's view of the method: which batch goes where, which terms are added."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.geo.classes import IGNORE_INDEX
from geocrodino.geo.modality import MODALITIES
from geocrodino.models.crodino import CroDiNo, CrodinoOutput
from geocrodino.training.method import MethodSettings, joint_loss


class OptimiserSettings(BaseModel):
    """How weights are updated: AdamW with a linear warm-up and a cosine decay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")


class JointTask(L.LightningModule):
    """Train both branches on the same patches, each with its own augmentation."""

    def __init__(
        self,
        model: CroDiNo,
        augmentation: PairAugmentation,
        method: MethodSettings,
        optimiser: OptimiserSettings,
        class_weights: Tensor,
        seed: int,
    ) -> None:
        """Keep the parts.

        Args:
            model: Both branches.
            augmentation: Draws each modality's own geometry and radiometry, on the device.
            method: Loss terms and their weights.
            optimiser: Learning rate and its course.
            class_weights: Weight of each class in the cross entropy, shape (K,).
            seed: Start of the random numbers of a step.
        """
        super().__init__()
        self.model, self.augmentation = model, augmentation
        self.method, self.optimiser, self.seed = method, optimiser, seed
        self.class_weights: Tensor
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.confusion = {m: ConfusionMatrix(len(class_weights)) for m in MODALITIES}

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Any]:
        """Augment on the device; the random numbers of a step depend on the seed and the step alone."""
        if not self.trainer.training:
            return batch
        torch.manual_seed(self.seed * 1_000_003 + self.trainer.global_step)
        augmented: dict[str, Any] = self.augmentation(batch)
        return augmented

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Sum of the method's terms."""
        outputs: dict[Any, CrodinoOutput] = self.model({m: batch[m] for m in MODALITIES})
        terms = joint_loss(outputs, batch, self.method, self.class_weights, self.model.stride)
        total = torch.stack(list(terms.values())).sum()
        self.log_dict({f"loss/{name}": value.detach() for name, value in terms.items()}, on_step=False, on_epoch=True)
        self.log("loss/total", total.detach(), on_step=False, on_epoch=True, prog_bar=True)
        return total

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self.confusion = {m: ConfusionMatrix(len(self.class_weights)) for m in MODALITIES}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count pixels of each branch where its modality is valid."""
        for modality in MODALITIES:
            predicted = self.model.branch(modality)(batch[modality]).argmax(dim=1)
            labels = torch.where(batch[f"{modality}_valid"], batch["labels"], IGNORE_INDEX)
            self.confusion[modality].update(labels.cpu().numpy(), predicted.cpu().numpy())

    def configure_optimizers(self) -> Any:
        """AdamW; the learning rate rises for the warm-up's share of the steps and falls along a cosine."""
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.optimiser.learning_rate, weight_decay=self.optimiser.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.optimiser.learning_rate, total_steps=steps + 1, pct_start=max(1e-3, self.optimiser.warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
