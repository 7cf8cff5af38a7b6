"""Creates the learner of a method."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from geocrodino.settings.method import MethodSettings
from geocrodino.settings.network import NetworkSettings
from geocrodino.training.learners.base import Learner, Shape, Weights
from geocrodino.training.learners.fusion import DropoutLearner, FusionLearner
from geocrodino.training.learners.joint import JointLearner
from geocrodino.training.learners.taught import TaughtLearner


def network_settings(method: MethodSettings, network: NetworkSettings) -> NetworkSettings:
    """Adapt the settings of a branch to a method: DisCoM-KD has a separate encoder for each half.

    Args:
        method: The method.
        network: Settings of a branch.

    Returns:
        The settings, with ``separate_encoders`` for the method ``discom``.
    """
    return network.model_copy(update={"separate_encoders": True}) if method.name == "discom" else network


def build_learner(
    method: MethodSettings, shape: Shape, class_weights: Tensor, weights: Weights | None = None
) -> Learner:
    """Create the learner of a method.

    Args:
        method: Method and terms.
        shape: Sizes of its networks.
        class_weights: Weight of each class in the cross entropy, shape (K,).
        weights: Pretrained encoder weights by modality.

    Returns:
        The learner, with initial weights.

    Raises:
        ModelError: If a network cannot be built with these settings.
        ConfigError: If ``weights`` differ between the modalities of a network with one encoder for all of them, or
            ``method.terms`` names a term that is not registered.
    """
    return learner_class(method)(method, shape, class_weights, weights)


def learner_class(method: MethodSettings) -> type[FusionLearner | DropoutLearner | TaughtLearner | JointLearner]:
    """Find the learner of a method.

    Args:
        method: The method.

    Returns:
        Its class, with the attributes ``needs_teacher`` and ``deploys``.
    """
    kinds: dict[str, type[FusionLearner | DropoutLearner | TaughtLearner | JointLearner]] = {
        "fusion": FusionLearner,
        "dropout": DropoutLearner,
        "kd": TaughtLearner,
        "protokd": TaughtLearner,
        "maskedkd": TaughtLearner,
    }
    return kinds.get(method.name, JointLearner)


def trains_teacher(method: MethodSettings, teacher: Path | None) -> bool:
    """Find out whether a training trains a teacher first.

    Args:
        method: Method of the training.
        teacher: Run folder of a finished teacher, None without one.

    Returns:
        True if the method needs a teacher and none is given.
    """
    return learner_class(method).needs_teacher and teacher is None
