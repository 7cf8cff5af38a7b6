"""Encoders that are not trained: no gradients, and batch-norm statistics that stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from torch import Tensor, nn

from geocrodino.errors import ConfigError, ModelError
from geocrodino.models.encoder_facts import encoders_in, facts_of
from geocrodino.models.stochastic_depth import use_stochastic_depth
from geocrodino.settings.config import TrainingConfig
from geocrodino.training.checks import NOTHING_TO_FREEZE

_DROP_PATH = 0.2
"""Stochastic depth with ``auto``."""


def treat_encoders(learner: nn.Module, settings: TrainingConfig, tell: Callable[[str], None]) -> None:
    """Give the encoders stochastic depth, and freeze those that start from weights, if the settings say so.

    Args:
        learner: All networks of a training; changed in place.
        settings: ``drop_path`` and ``freeze``.
        tell: Called with a line for the user on encoders that are not frozen.

    Raises:
        ModelError: If an encoder has no stochastic depth and the settings name a rate.
        ConfigError: If no encoder can be frozen.
    """
    if isinstance(settings.drop_path, str):
        with suppress(ModelError):  # an encoder without such blocks is used as it is
            use_stochastic_depth(learner, _DROP_PATH)
    elif settings.drop_path:
        use_stochastic_depth(learner, settings.drop_path)
    if settings.freeze == "encoder":
        left = freeze_encoders(learner)
        if left:
            tell(f"Not frozen, because they start from random weights: {', '.join(left)}.")


def freeze_encoders(learner: nn.Module) -> tuple[str, ...]:
    """Freeze the encoders that start from weights. Those with random weights are trained.

    Args:
        learner: All networks of a training; changed in place.

    Returns:
        Dotted names of the trained encoders, which start from random weights.

    Raises:
        ConfigError: If no encoder starts from weights.
    """
    # A teacher is not trained anyway.
    encoders = {n: e for n, e in encoders_in(learner).items() if any(p.requires_grad for p in e.parameters())}
    for encoder in encoders.values():
        if facts_of(encoder).pretrained:
            facts_of(encoder).frozen = True
            encoder.requires_grad_(False)
    left = tuple(name for name, encoder in encoders.items() if not facts_of(encoder).frozen)
    if len(left) == len(encoders):
        raise ConfigError(NOTHING_TO_FREEZE)
    keep_frozen(learner)
    return left


def keep_frozen(learner: nn.Module) -> None:
    """Set frozen encoders to evaluation mode, so that their batch-norm statistics stay.

    Args:
        learner: All networks of a training.
    """
    for encoder in encoders_in(learner).values():
        if facts_of(encoder).frozen:
            encoder.eval()


@contextmanager
def hidden_encoders(network: nn.Module) -> Iterator[None]:
    """Hide frozen encoders from functions that reset or set the mode of all modules; the network computes the same.

    Args:
        network: The network; as before afterwards.

    Yields:
        Nothing.
    """
    frozen = {name: encoder for name, encoder in encoders_in(network).items() if facts_of(encoder).frozen}
    for name, encoder in frozen.items():
        _put(network, name, _Hidden(encoder.eval()))
    try:
        yield
    finally:
        for name, encoder in frozen.items():
            _put(network, name, encoder)


class _Hidden(nn.Module):
    """Calls a module that is not among its submodules."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = (module,)  # in a tuple, because a module as an attribute would become a submodule

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self._module[0](images))


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
