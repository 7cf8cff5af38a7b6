"""Which parameters learn at which share of the learning rate."""

from __future__ import annotations

from torch import nn

from geocrodino.models.encoder_facts import encoders_in, facts_of
from geocrodino.models.encoder_stages import stages_above
from geocrodino.settings.optimiser import OptimiserSettings


def parameter_groups(learner: nn.Module, settings: OptimiserSettings) -> list[tuple[float, list[nn.Parameter]]]:
    """Group the parameters that need a gradient by their share of the learning rate.

    Args:
        learner: All networks of a training.
        settings: ``encoder_rate`` and ``layer_decay`` apply to encoders that start from weights.

    Returns:
        Shares of the learning rate, highest first, each with its parameters in the order of the learner. A single group
        if both settings are 1, so that checkpoints of earlier versions, which have one, can be resumed.
    """
    share: dict[nn.Parameter, float] = {}
    if settings.encoder_rate != 1 or settings.layer_decay != 1:
        for encoder in encoders_in(learner).values():
            if facts_of(encoder).pretrained:
                for parameter, above in stages_above(encoder).items():
                    share[parameter] = settings.encoder_rate * settings.layer_decay**above
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in learner.parameters():
        if parameter.requires_grad:
            groups.setdefault(share.get(parameter, 1.0), []).append(parameter)
    return sorted(groups.items(), key=lambda group: -group[0])
