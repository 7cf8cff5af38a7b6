"""The training loop's view: what is counted, how steps are seeded, the course of the learning rate."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geocrodino.data.augmentation import AugmentationSettings, PairAugmentation
from geocrodino.training.method import MethodSettings
from geocrodino.training.task import JointTask, OptimiserSettings


class Constant(nn.Module):
    """A network that sees the same class everywhere."""

    stride = 1

    def __init__(self, answer):
        super().__init__()
        self.answer, self.weight = answer, nn.Parameter(torch.zeros(()))

    def branch(self, modality):
        return lambda image: (
            nn.functional.one_hot(torch.full(image.shape[:1] + image.shape[2:], self.answer[modality]), 3)
            .movedim(-1, 1)
            .float()
        )


def task(seed=0, **optimiser):
    model = Constant({"optical": 0, "elevation": 2})
    augmentation = PairAugmentation(AugmentationSettings())
    return JointTask(model, augmentation, MethodSettings(), OptimiserSettings(**optimiser), torch.ones(3), seed)


def batch(side=4):
    labels = torch.zeros(1, side, side, dtype=torch.int64)
    labels[0, 0] = torch.tensor([0, 1, 2, 255])[:side].repeat(side // 4)
    made = {"labels": labels}
    for m, channels in (("optical", 3), ("elevation", 1)):
        made[m] = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(channels))
        made[f"{m}_valid"] = torch.ones(1, side, side, dtype=torch.bool)
    return made


def test_invalid_pixels_are_never_counted():
    checked, data = task(), batch()
    data["elevation_valid"][0, 1:] = False
    checked.on_validation_epoch_start()
    checked.validation_step(data, 0)
    optical, elevation = (checked.confusion[m] for m in ("optical", "elevation"))
    assert optical.counts.tolist() == [[13, 0, 0], [1, 0, 0], [1, 0, 0]]  # 16 pixels, one without a label
    assert elevation.counts.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert optical.missed.sum() == elevation.missed.sum() == 0
    assert data["labels"][0, 1, 0] == 0  # the batch stays as it was


def test_every_validation_starts_from_zero():
    checked = task()
    checked.validation_step(batch(), 0)
    checked.on_validation_epoch_start()
    assert all(c.counts.sum() == 0 for c in checked.confusion.values())


def test_augmentation_depends_on_seed_and_step_alone():
    def drawn(seed, step, noise):
        torch.manual_seed(noise)
        checked = task(seed)
        checked._trainer = SimpleNamespace(training=True, global_step=step)
        return checked.on_after_batch_transfer(batch(8), 0)["optical"]

    assert torch.equal(drawn(3, 5, noise=1), drawn(3, 5, noise=2))
    assert not torch.equal(drawn(3, 5, noise=1), drawn(3, 6, noise=1))
    assert not torch.equal(drawn(3, 5, noise=1), drawn(4, 5, noise=1))


def test_nothing_is_augmented_in_validation():
    checked, data = task(), batch()
    checked._trainer = SimpleNamespace(training=False, global_step=0)
    assert checked.on_after_batch_transfer(data, 0) is data


@pytest.mark.parametrize(("warmup", "top"), [(0.2, 2), (0.0, 0)])
def test_the_rate_rises_for_the_warm_up_and_falls_to_nothing(warmup, top):
    checked = task(learning_rate=0.01, warmup=warmup)
    checked._trainer = SimpleNamespace(estimated_stepping_batches=11)
    made = checked.configure_optimizers()
    rates = []
    for _ in range(11):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert made["lr_scheduler"]["interval"] == "step"
    assert max(rates) == pytest.approx(0.01, rel=0.1)
    assert rates.index(max(rates)) in {top, top + 1}
    assert sorted(rates[rates.index(max(rates)) :], reverse=True) == rates[rates.index(max(rates)) :]
    assert rates[-1] < 0.001
