"""The stages of an encoder, found by what its feature maps depend on, so that they need no names of layers."""

from __future__ import annotations

import torch
from torch import nn

from geocrodino.models.encoder_facts import facts_of


def stages_above(encoder: nn.Module) -> dict[nn.Parameter, int]:
    """Count, for each parameter, the stages between it and the deepest feature map.

    A stage is what lies between two feature maps. A parameter belongs to the stage of the finest map that depends on
    it.

    Args:
        encoder: An encoder of `create_encoder`. Its modes and gradients are as before afterwards.

    Returns:
        For each parameter that needs a gradient: 0 in the deepest stage, 1 in the one before it, and so on. A parameter
        that no map depends on counts as deepest.
    """
    facts = facts_of(encoder)
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    if not parameters:
        return {}
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    with torch.inference_mode(False), torch.enable_grad():
        side = 2 << facts.depth
        maps = encoder(parameters[0].detach().new_ones(1, facts.in_channels, side, side))[1:]
        learnt = [features for features in maps if features.requires_grad]  # not the empty map of a patch stem
        above = dict.fromkeys(parameters, 0)
        for index, features in reversed(list(enumerate(learnt))):
            found = torch.autograd.grad(features.sum(), parameters, allow_unused=True, retain_graph=True)
            for parameter, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    above[parameter] = len(learnt) - 1 - index
    for module, mode in modes.items():
        module.training = mode
    return above
