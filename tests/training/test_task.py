"""The training loop's view: what is counted, averaged and clipped, how steps are seeded, the course of the rate."""

from __future__ import annotations

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.optimiser import OptimiserSettings
from geocrodino.training.learners.base import Learner
from geocrodino.training.task import TrainingTask, averaged


class Constant(nn.Module):
    """A network that sees the same class everywhere."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.weight, self.norm = answer, nn.Parameter(torch.zeros(2)), nn.BatchNorm2d(1)

    def forward(self, image):
        seen = torch.full(image.shape[:1] + image.shape[2:], self.answer)
        return nn.functional.one_hot(seen, 3).movedim(-1, 1).float()


class Two(Learner):
    """Networks whose gradients are what the test says."""

    def __init__(self, method=None, answers=(0, 2)):
        super().__init__(method or MethodSettings(), torch.ones(3))
        names = ("fusion",) if self.method.name == "fusion" else self.modalities
        self.networks = nn.ModuleDict({n: Constant(a) for n, a in zip(names, answers, strict=False)})
        self.factor = {"optical": 1.0, "elevation": 1.0}
        self.steps, self.averages = [], []

    @property
    def network_names(self):
        return tuple(self.networks)

    def network(self, name):
        return self.networks[name]

    def parts(self):
        return [list(network.parameters()) for network in self.networks.values()]

    def losses(self, step, average):
        self.steps.append(step)
        self.averages.append(average)
        for name, network in self.networks.items():
            network.norm(step.batch[name][:, :1])
        return {f"x/{n}": self.factor[n] * (network.weight * torch.tensor([3.0, 4.0])).sum() for n, network in
                self.networks.items()}  # fmt: skip


def task(seed=0, *, learner=None, ema_decay=0.0, augmentation=None, **optimiser):
    return TrainingTask(
        learner or Two(),
        PairAugmentation(augmentation or AugmentationSettings()),
        OptimiserSettings(**optimiser),
        ema_decay=ema_decay,
        seed=seed,
    )


def batch(side=4):
    labels = torch.zeros(1, side, side, dtype=torch.int64)
    labels[0, 0] = torch.tensor([0, 1, 2, 255])[:side].repeat(side // 4)
    made = {"labels": labels}
    for m, channels in (("optical", 3), ("elevation", 1)):
        made[m] = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(channels))
        made[f"{m}_valid"] = torch.ones(1, side, side, dtype=torch.bool)
    return made


def fit(checked, steps=4, epochs=1, callbacks=()):
    """Lightning's own loop over one batch, again and again."""

    class Patches(torch.utils.data.Dataset):
        def __len__(self):
            return 2 * steps

        def __getitem__(self, index):
            return {k: v[0] for k, v in batch(8).items()}

    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(checked, DataLoader(Patches(), batch_size=2), DataLoader(Patches(), batch_size=2))
    return trainer


# --- validation ----------------------------------------------------------------------------------------------------


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


def test_fusion_is_counted_where_either_is_valid():
    checked, data = task(learner=Two(MethodSettings(name="fusion"))), batch()
    data["elevation_valid"][0, 1:] = False
    data["optical_valid"][0, 2:] = False
    checked.on_validation_epoch_start()
    checked.validation_step(data, 0)
    assert set(checked.confusion) == {"fusion"}
    assert checked.confusion["fusion"].counts.tolist() == [[5, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_every_validation_starts_from_zero():
    checked = task()
    checked.on_validation_epoch_start()
    checked.validation_step(batch(), 0)
    assert any(c.counts.sum() for c in checked.confusion.values())
    checked.on_validation_epoch_start()
    assert all(c.counts.sum() == 0 for c in checked.confusion.values())


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_averaged_networks_are_judged_if_there_are_such(ema_decay):
    checked = task(ema_decay=ema_decay)
    checked.on_validation_epoch_start()
    kept = checked.average.module if ema_decay else checked.learner
    assert checked.kept is kept
    assert checked.validated == {m: kept.network(m) for m in ("optical", "elevation")}
    assert not any(network.training for network in checked.validated.values())
    assert (checked.kept is checked.learner) is (ema_decay == 0)


# --- a step --------------------------------------------------------------------------------------------------------


def test_augmentation_depends_on_seed_and_step_alone():
    def drawn(seed, step, noise):
        torch.manual_seed(noise)
        checked = task(seed)
        checked._trainer = SimpleNamespace(training=True, global_step=step)
        return checked.on_after_batch_transfer(batch(8), 0)["optical"]

    assert torch.equal(drawn(3, 5, noise=1), drawn(3, 5, noise=2))
    assert not torch.equal(drawn(3, 5, noise=1), drawn(3, 6, noise=1))
    assert not torch.equal(drawn(3, 5, noise=1), drawn(4, 5, noise=1))


def test_the_patches_as_they_are_travel_with_the_batch():
    checked, data = task(), batch(8)
    checked._trainer = SimpleNamespace(training=True, global_step=0)
    found = checked.on_after_batch_transfer(data, 0)
    assert found["source"] is data
    assert not found["optical"].equal(data["optical"])
    assert data["optical"].equal(batch(8)["optical"])
    assert {"optical_labels", "elevation_labels", "optical_transform", "elevation_transform"} <= set(found)


def test_nothing_is_augmented_in_validation():
    checked, data = task(), batch()
    checked._trainer = SimpleNamespace(training=False, global_step=0)
    assert checked.on_after_batch_transfer(data, 0) is data


@pytest.mark.filterwarnings("ignore")
def test_steps_know_how_far_the_training_is():
    checked = task(ema_decay=0.9)
    fit(checked, steps=5, epochs=2)
    assert [s.progress for s in checked.learner.steps] == pytest.approx([i / 10 for i in range(10)])
    assert all(a is checked.average.module for a in checked.learner.averages)
    for step in checked.learner.steps:
        assert step.source["optical"].equal(batch(8)["optical"].expand(2, -1, -1, -1))


@pytest.mark.filterwarnings("ignore")
def test_terms_are_logged_and_their_sum_is_the_loss():
    checked = task()
    logged = fit(checked, steps=1).callback_metrics
    # Weights start at 0: so does the loss.
    assert {n: float(v) for n, v in logged.items()} == {"loss/x/optical": 0, "loss/x/elevation": 0, "loss/total": 0}
    assert all(network.weight.ne(0).all() for network in checked.learner.networks.values())


# --- clipping ------------------------------------------------------------------------------------------------------


def clipped(checked):
    """Lengths of the gradients that the optimiser gets."""
    learner = checked.learner
    for name, network in learner.networks.items():
        network.weight.grad = learner.factor[name] * torch.tensor([3.0, 4.0])
    checked.configure_gradient_clipping(None)
    return {n: network.weight.grad.norm().item() for n, network in learner.networks.items()}


def test_the_gradient_of_each_network_has_a_limit_of_its_own():
    checked = task()
    checked.learner.factor = {"optical": 100.0, "elevation": 0.1}
    assert clipped(checked) == pytest.approx({"optical": 1.0, "elevation": 0.5}, rel=1e-4)
    direction = checked.learner.network("optical").weight.grad
    torch.testing.assert_close(direction, torch.tensor([0.6, 0.8]))
    wide = task(gradient_norm=50)
    wide.learner.factor = {"optical": 100.0, "elevation": 4.0}
    assert clipped(wide) == pytest.approx({"optical": 50.0, "elevation": 20.0}, rel=1e-4)


def test_a_part_without_gradient_is_no_problem():
    task().configure_gradient_clipping(None)


@pytest.mark.filterwarnings("ignore")
def test_lightning_clips_before_every_step():
    checked, seen = task(), []

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append({n: p.weight.grad.norm().item() for n, p in pl_module.learner.networks.items()})

    checked.learner.factor = {"optical": 100.0, "elevation": 0.1}
    fit(checked, steps=2, callbacks=[Look()])
    assert seen == [pytest.approx({"optical": 1.0, "elevation": 0.5}, rel=1e-4)] * 2


# --- average -------------------------------------------------------------------------------------------------------


class One(Learner):
    def __init__(self):
        super().__init__(MethodSettings(), torch.ones(3))
        self.value = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(()))

    def network(self, name):
        return self

    def losses(self, step, average):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        # The first step is taken over; the second keeps 2/11 of it, the third 3/12, the fourth 4/13.
        (0.99, (0.25 * (2 / 11 * 1 + 9 / 11 * 2) + 0.75 * 3) * 4 / 13 + 4 * 9 / 13),
        # No more than the decay is ever kept.
        (0.1, ((1 * 0.1 + 2 * 0.9) * 0.1 + 3 * 0.9) * 0.1 + 4 * 0.9),
    ],
)
def test_the_average_by_hand(decay, expected):
    learner = One()
    checked = task(learner=learner, ema_decay=decay)
    for step in (1, 2, 3, 4):
        with torch.no_grad():
            for number in (learner.value, learner.count, learner.mean):
                number.fill_(step)
        checked.on_train_batch_end(None, None, 0)
    average = checked.average.module
    assert average.value.item() == pytest.approx(expected, rel=1e-6)
    assert average.mean.item() == pytest.approx(expected, rel=1e-6)  # batch statistics go with the weights
    assert average.count.item() == 4
    assert learner.value.item() == 4
    assert checked.kept is average


def test_the_average_is_a_copy_that_is_not_trained():
    learner = Two()
    average = averaged(learner, 0.9)
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in learner.parameters())
    assert not {id(p) for p in average.parameters()} & {id(p) for p in learner.parameters()}
    checked = task(learner=learner, ema_decay=0.9)
    checked._trainer = SimpleNamespace(estimated_stepping_batches=3)
    (group,) = checked.configure_optimizers()["optimizer"].param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in learner.parameters()}


def test_without_average_nothing_is_kept_twice():
    checked = task()
    assert checked.average is None
    checked.on_train_batch_end(None, None, 0)
    assert not [n for n in checked.state_dict() if n.startswith("average")]


class Modes(Callback):
    """Notes in which mode things are at every step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, *_):
        average = {m.training for m in pl_module.average.modules()}
        self.seen.append((average, {m.training for m in pl_module.learner.modules()}))


@pytest.mark.filterwarnings("ignore")
def test_the_average_is_in_evaluation_mode_at_every_step():
    """Also after a validation, and when someone puts everything into training mode."""
    checked, modes = task(ema_decay=0.9), Modes()
    fit(checked, steps=2, epochs=3, callbacks=[modes])
    assert modes.seen == [({False}, {True})] * 6
    assert checked.train() is checked
    assert not any(m.training for m in checked.average.modules())


def test_parameters_that_are_not_trained_are_left_to_nobody():
    learner = Two()
    learner.network("optical").requires_grad_(False)
    checked = task(learner=learner)
    checked._trainer = SimpleNamespace(estimated_stepping_batches=3)
    (group,) = checked.configure_optimizers()["optimizer"].param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in learner.network("elevation").parameters()}


# --- learning rate -------------------------------------------------------------------------------------------------


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
