"""A batch that is computed in parts has the loss and the gradient of the whole batch."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.data.shares import BatchShare
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.optimiser import OptimiserSettings
from geocrodino.training.learners.base import Learner
from geocrodino.training.parts import part_weights, split
from geocrodino.training.task import TrainingTask

LABELS = torch.tensor([[[0, 1], [2, 255]], [[255, 255], [255, 1]], [[1, 1], [0, 2]], [[2, 255], [255, 255]]])


class Plain(Learner):
    """A network without batch normalisation, so that patches do not influence each other."""

    def __init__(self):
        super().__init__(MethodSettings(name="single"), torch.tensor([1.0, 2.0, 0.5]), ("optical",))
        self.body = nn.Conv2d(3, 3, 1)

    def network(self, name):
        return self.body

    def losses(self, step, average):
        return self.supervised("optical", self.body(step.batch["optical"]), step.batch["optical_labels"])


class Patches(torch.utils.data.Dataset):
    """Eight patches with different numbers of labelled pixels."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        image = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(index))
        return {"optical": image, "optical_valid": torch.ones(2, 2, dtype=torch.bool), "labels": LABELS[index % 4]}


class Data(L.LightningDataModule):
    """Two batches of four patches."""

    share = BatchShare(4, 0, 1)

    def train_dataloader(self):
        return DataLoader(Patches(), batch_size=4)


def trained(accumulate, precision="64-true"):
    torch.manual_seed(0)
    task = TrainingTask(
        Plain(), PairAugmentation(AugmentationSettings(), ["optical"]), OptimiserSettings(), ema_decay=0.9,
        accumulate=accumulate,
    )  # fmt: skip
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, precision=precision,
    )  # fmt: skip
    trainer.fit(task, datamodule=Data())
    return task, trainer


def test_weights_by_hand():
    found = part_weights([{"a": torch.tensor(1), "b": torch.tensor(0)}, {"a": torch.tensor(3), "b": torch.tensor(0)}])
    assert [{k: float(v) for k, v in part.items()} for part in found] == [{"a": 0.25, "b": 0.0}, {"a": 0.75, "b": 0.0}]


def test_terms_without_amounts_have_no_weights():
    assert part_weights([{}, {}]) == [{}, {}]


def test_a_batch_is_divided_with_what_it_holds():
    batch = {"x": torch.arange(6), "source": {"y": 10 * torch.arange(6)}}
    first, second = split(batch, BatchShare(4, 2, 2))
    assert first["x"].tolist() == [0, 1, 4]
    assert second["source"]["y"].tolist() == [20, 30, 50]


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_change_neither_loss_nor_weights(parts):
    (whole, one), (divided, other) = trained(1), trained(parts)
    assert other.global_step == one.global_step == 6
    torch.testing.assert_close(divided.learner.body.weight, whole.learner.body.weight)
    torch.testing.assert_close(divided.average.module.body.weight, whole.average.module.body.weight)
    key = "loss/segmentation/optical"
    torch.testing.assert_close(other.callback_metrics[key], one.callback_metrics[key])
    torch.testing.assert_close(other.callback_metrics["loss/total"], one.callback_metrics["loss/total"])


def test_bfloat16_in_parts():
    divided, trainer = trained(2, "bf16-mixed")
    assert trainer.global_step == 6
    assert torch.isfinite(divided.learner.body.weight).all()
