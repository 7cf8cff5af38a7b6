"""Processes that augment parts of a batch change each patch as one process changes it."""

from __future__ import annotations

import pytest
import torch

from geocrodino.data.augmentation import PairAugmentation
from geocrodino.data.augmentation.rows import Rows
from geocrodino.data.shares import BatchShare
from geocrodino.modalities.registry import definition_of
from geocrodino.settings.augmentation import AugmentationSettings

DEFAULT = AugmentationSettings().with_defaults({m: definition_of(m).radiometry for m in ("optical", "elevation")})


def batch(count):
    numbers = torch.Generator().manual_seed(0)
    made = {"labels": torch.randint(0, 3, (count, 16, 16), generator=numbers)}
    for m, channels in (("optical", 3), ("elevation", 2)):
        made[m] = torch.randn(count, channels, 16, 16, generator=numbers)
        made[f"{m}_valid"] = torch.rand(count, 16, 16, generator=numbers) > 0.1
        made[m] *= made[f"{m}_valid"][:, None]
    return made


def listed(*operations):
    return AugmentationSettings.model_validate({"optical": list(operations), "elevation": []})


@pytest.mark.parametrize(
    "settings",
    [
        DEFAULT,
        DEFAULT.model_copy(update={"decoupled": False}),
        listed({"RandomChannelDropout": {"p": 0.5}}, {"ColorJiggle": {"brightness": 0.3, "hue": 0.2, "p": 0.5}}),
        listed({"RandomGaussianBlur": {"kernel_size": 3, "sigma": [0.1, 2.0], "p": 0.5}}),
        listed({"RandomAffine": {"degrees": 30.0}}),
        listed({"RandomGaussianNoise": {"p": 0.5}}, {"RandomNoiseLevel": {"noise_std": 0.5, "p": 0.3}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("labelled", "unlabelled", "count"), [(4, 2, 2), (3, 0, 3)])
def test_the_draws_are_those_of_the_whole_batch(settings, labelled, unlabelled, count):
    share, augment = BatchShare(labelled, unlabelled, count), PairAugmentation(settings)
    whole = batch(share.total)
    for seed in range(3):
        torch.manual_seed(seed)
        expected = augment(whole)
        after = torch.rand(1)
        for part in range(count):
            rows = share.rows(part)
            torch.manual_seed(seed)
            found = augment({key: value[rows] for key, value in whole.items()}, Rows(rows, share.total))
            assert torch.equal(torch.rand(1), after)  # no process is ahead of the others
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value[rows])
