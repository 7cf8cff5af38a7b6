"""Stochastic depth: in training, residual blocks of an encoder are left out at random."""

from __future__ import annotations

import torch
from timm.layers.drop import DropPath
from torch import nn

from geocrodino.errors import ModelError
from geocrodino.models.encoder_facts import attach_facts, encoders_in, facts_of
from geocrodino.models.encoders import create_encoder, is_of_timm


def use_stochastic_depth(network: nn.Module, rate: float) -> None:
    """Build the encoders of a network again, with stochastic depth and the weights that they have.

    timm's encoders take the rate when they are built. Names and shapes of weights are the same with and without it, and
    in evaluation mode the outputs are too.

    Args:
        network: The network; its encoders are replaced.
        rate: Share of the patches for which the last block of the whole encoder is left out, above 0, below 1. The
            share of earlier blocks rises linearly from 0; blocks beyond the encoder's depth are not there.

    Raises:
        ModelError: If an encoder has no such blocks.

    References:
        Huang et al. (2016). Deep networks with stochastic depth. https://arxiv.org/abs/1603.09382
    """
    for name, encoder in encoders_in(network).items():
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, _rebuilt(encoder, rate))


def without_stochastic_depth(network: nn.Module) -> None:
    """Switch stochastic depth off, whatever the mode of the network.

    Args:
        network: The network; changed in place.
    """
    for module in network.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0


def _rebuilt(encoder: nn.Module, rate: float) -> nn.Module:
    facts = facts_of(encoder)
    if not is_of_timm(facts.name):  # these take no rate, and some have a fixed one
        raise ModelError(_unsupported(facts.name, rate, "an encoder of segmentation-models-pytorch"))
    try:
        # Initial weights are drawn and replaced: the fork keeps the random numbers of the training unchanged.
        with torch.random.fork_rng(devices=[]):
            built = create_encoder(facts.name, in_channels=facts.in_channels, depth=facts.depth, drop_path=rate)
    except ModelError as error:
        raise ModelError(_unsupported(facts.name, rate, "timm builds it without")) from error
    if not any(isinstance(module, DropPath) and module.drop_prob for module in built.modules()):
        raise ModelError(_unsupported(facts.name, rate, "no block of this depth can be left out"))
    like = next(encoder.parameters())
    built = built.to(like.device, like.dtype).train(encoder.training)
    built.load_state_dict(encoder.state_dict())
    for name, parameter in encoder.named_parameters():  # those of a teacher need no gradient
        built.get_parameter(name).requires_grad_(parameter.requires_grad)
    return attach_facts(built, facts)


def _unsupported(name: str, rate: float, reason: str) -> str:
    return (
        f"training.drop_path: expected an encoder with stochastic depth, found '{name}' ({reason}) and drop_path "
        f"{rate:g}.\nLeave training.drop_path out, or choose another `network.encoder`, such as tu-resnet18."
    )
