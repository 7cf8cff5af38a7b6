"""Small learners of every method, and batches for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.settings.augmentation import AugmentationSettings
from geocrodino.settings.classes import IGNORE_INDEX
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import MODALITIES
from geocrodino.settings.network import NetworkSettings
from geocrodino.training.learners.base import Learner, Shape, Step
from geocrodino.training.learners.build import build_learner, network_settings

K, SIDE = 3, 32
CHANNELS = {"optical": 2, "elevation": 1}
NETWORK = NetworkSettings(
    encoder="tu-test_efficientnet", decoder="fpn", depth=3, invariant_channels=4, decoder_channels=(8,)
)  # a stride of 8 px

LEAD = {pair: np.zeros((K, K)) for pair in (("optical", "elevation"), ("elevation", "optical"))}
"""The image is right where it predicts 0 and the heights another class, the heights where classes 1 and 2 are named."""
LEAD["optical", "elevation"][0, 1:] = 0.4
LEAD["elevation", "optical"][1, 2] = LEAD["elevation", "optical"][2, 1] = 0.6


@pytest.fixture
def build() -> Callable[..., Learner]:
    """The learner of a method with terms, in training mode; the same weights for the same seed."""

    def make(name: str, *, seed: int = 0, network: NetworkSettings = NETWORK, **terms: object) -> Learner:
        method = MethodSettings(name=name, **terms)
        torch.manual_seed(seed)
        return build_learner(method, Shape(network_settings(method, network), CHANNELS, K), torch.ones(K))

    return make


@pytest.fixture
def make_step() -> Callable[..., Step]:
    """A step with three patches: labels in squares of 8 px, in a share of the columns, every pixel valid and no
    augmentation unless asked."""

    def make(
        augmentation: AugmentationSettings | None = None,
        *,
        seed: int = 0,
        progress: float = 0.5,
        labelled: float = 1.0,
        invalid: tuple[str, ...] = (),
    ) -> Step:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, K, (3, 4, 4), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
        labels[:, :, round(labelled * SIDE) :] = IGNORE_INDEX
        source = {"labels": labels}
        for m in MODALITIES:
            valid = torch.full((3, SIDE, SIDE), m not in invalid)
            source[m] = torch.randn(3, CHANNELS[m], SIDE, SIDE, generator=generator) * valid[:, None]
            source[f"{m}_valid"] = valid
        torch.manual_seed(seed)
        return Step(PairAugmentation(augmentation)(source), source, progress)

    return make


@pytest.fixture
def total() -> Callable[..., torch.Tensor]:
    """Sum of the terms of a step, on its way back through the networks."""

    def run(learner: Learner, step: Step, average: Learner | None = None) -> torch.Tensor:
        learner.zero_grad()
        loss = torch.stack(list(learner.losses(step, average or learner).values())).sum()
        loss.backward()
        return loss.detach()

    return run


class Answer(nn.Module):
    """A network that says what it is told to, and remembers what it was asked."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.asked = logits, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(images)
        return self.logits


class Answers(Learner):
    """A learner whose networks say what they are told to."""

    def __init__(self, logits: dict[str, torch.Tensor]) -> None:
        super().__init__(MethodSettings(), torch.ones(K))
        self.answers = nn.ModuleDict({name: Answer(value) for name, value in logits.items()})

    def network(self, name: str) -> nn.Module:
        return self.answers[name]

    def losses(self, step: Step, average: Learner) -> dict[str, torch.Tensor]:
        raise NotImplementedError


@pytest.fixture
def answers() -> type[Answers]:
    """Makes networks that say what they are told to, from logits by name."""
    return Answers
