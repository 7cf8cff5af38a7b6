"""The networks of a training: created from its settings, and tried before the rasters are aligned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from geocrodino.modalities.channel import Channel
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import Modality
from geocrodino.training.checks import CheckedInputs
from geocrodino.training.freezing import treat_encoders
from geocrodino.training.learners.base import Learner, Shape, Weights
from geocrodino.training.learners.build import build_learner, network_settings
from geocrodino.training.start import Start
from geocrodino.training.start_weights import load_start


@dataclass(frozen=True)
class Beginning:
    """What the networks of one training begin with.

    Attributes:
        method: Their method.
        start: The bundle that they start from, if any.
        weights: What the encoders start from; a modality without an entry starts from the bundle or random weights.
    """

    method: MethodSettings
    start: Start | None = None
    weights: Weights = field(default_factory=dict)


def create_networks(
    config: TrainConfig,
    beginning: Beginning,
    specs: dict[Modality, ModalitySpec],
    classes: ClassScheme,
    class_weights: Tensor,
    tell: Callable[[str], None],
) -> Learner:
    """Create the networks of a training, with the weights that they begin with.

    Args:
        config: Shape of the network, and how encoders are treated.
        beginning: Method and weights.
        specs: Channels of each modality.
        classes: The classes.
        class_weights: Weight of each class in the cross entropy, shape (K,).
        tell: Called with lines for the user on what of a bundle is loaded and what is not frozen.

    Returns:
        The learner.

    Raises:
        ModelError: If a network cannot be built with these settings, or encoder weights do not fit it.
        BundleError: If the weights of the bundle are of another network than its manifest says.
        ConfigError: If weights, method and ``training.freeze`` contradict each other.
    """
    channels = {m: len(spec.channels) for m, spec in specs.items()}
    shape = Shape(network_settings(beginning.method, config.network), channels, len(classes))
    learner = build_learner(beginning.method, shape, class_weights, beginning.weights)
    if beginning.start is not None:
        frozen = config.training.freeze == "encoder"
        tell("\n".join(load_start(beginning.start, learner, classes, specs, frozen=frozen)))
    treat_encoders(learner, config.training, tell)
    return learner


def try_networks(config: TrainConfig, found: CheckedInputs, *trainings: Beginning) -> None:
    """Create the networks of trainings and discard them, so that errors appear before the rasters are aligned.

    Random numbers are drawn from a copy of their state.

    Args:
        config: Shape of the network, and how encoders are treated.
        found: The checked inputs.
        *trainings: What the networks of each training begin with.

    Raises:
        GeocrodinoError: One of its kinds, see `create_networks`.
    """
    specs = {
        m: ModalitySpec(recipe=recipe, channels=tuple(_unmeasured(name) for name in recipe.channel_names))
        for m, recipe in found.recipes.items()
    }
    weights = torch.ones(len(found.classes))
    with torch.random.fork_rng(devices=[]):
        for beginning in trainings:
            create_networks(config, beginning, specs, found.classes, weights, lambda _: None)


def _unmeasured(name: str) -> Channel:
    """A channel before its statistics are known: a network depends on names and numbers of channels alone."""
    return Channel.measure(name, np.zeros(1, np.float32))
