"""What is known of an encoder beside its weights: how it was built, and where its weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn

_ATTRIBUTE = "encoder_facts"


@dataclass
class EncoderFacts:
    """How an encoder was built, and how a training treats it.

    Attributes:
        name: Name under which it was asked for.
        in_channels: Bands of its input.
        depth: Number of halvings of the resolution.
        pretrained: Whether it starts from weights that were learnt elsewhere, rather than from random ones.
        frozen: Whether its weights and batch-norm statistics stay as they are.
    """

    name: str
    in_channels: int
    depth: int
    pretrained: bool = False
    frozen: bool = False


def attach_facts(encoder: nn.Module, facts: EncoderFacts) -> nn.Module:
    """Attach facts to an encoder. They are copied with it, and are no part of its state dict.

    Args:
        encoder: The encoder; changed in place.
        facts: What is known of it.

    Returns:
        The same encoder.
    """
    setattr(encoder, _ATTRIBUTE, facts)
    return encoder


def facts_of(encoder: nn.Module) -> EncoderFacts:
    """Get the facts of an encoder.

    Args:
        encoder: An encoder of `create_encoder`.

    Returns:
        Its facts; a change to them is a change to the encoder's.

    Raises:
        AttributeError: If the module is no such encoder.
    """
    return cast(EncoderFacts, getattr(encoder, _ATTRIBUTE))


def encoders_in(module: nn.Module) -> dict[str, nn.Module]:
    """Find the encoders of a network, or of several.

    Args:
        module: The network.

    Returns:
        The encoders of `create_encoder` in it, by their dotted name.
    """
    return {name: part for name, part in module.named_modules() if hasattr(part, _ATTRIBUTE)}
