"""Loads the branches of a bundle into those of a training whose channels and classes may differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from geocrodino.errors import ConfigError
from geocrodino.geo.rasters.bands import common_names
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.models.branch import Branch
from geocrodino.models.encoder_facts import encoders_in, facts_of
from geocrodino.models.first_layer import first_layer
from geocrodino.phrases import listed
from geocrodino.settings.classes import ClassScheme, LandClass, unnamed
from geocrodino.settings.labels import plain_word
from geocrodino.settings.modality import Modality
from geocrodino.training.learners.base import Learner
from geocrodino.training.start import Start

STATISTICS = (
    "Its channels are scaled by statistics measured on the split train of this training, not by those of the bundle."
)
"""Told at every start from a bundle."""


@dataclass(frozen=True)
class Matched:
    """Which old inputs or outputs become which new ones.

    Attributes:
        sources: For each new one, the index of the old one, or None.
        rule: What happens to those without a source: ``start`` (channels at 0, classes with new weights), ``repeat``
            (all channels are the old ones, repeated and rescaled) or ``new`` (the whole layer is new).
        words: The match in words.
    """

    sources: tuple[int | None, ...]
    rule: str
    words: str


def load_start(
    start: Start, learner: Learner, classes: ClassScheme, specs: dict[Modality, ModalitySpec], *, frozen: bool
) -> list[str]:
    """Load the weights of a bundle into the branches of a learner. A resumed run only learns which they are.

    Args:
        start: The bundle.
        learner: A learner with a branch for each modality; its weights are replaced where the bundle's fit.
        classes: Classes of the training.
        specs: Channels of the training.
        frozen: Whether the encoders will be frozen.

    Returns:
        Lines for the user: what of each branch was loaded, and what starts new.

    Raises:
        ConfigError: If a frozen encoder would have channels that the bundle does not know.
        BundleError: If the weights are of another network than the manifest says.
    """
    if start.bundle is None:
        lines = [f"The run started from bundle {start.name} (sha256 {start.sha256[:12]})."]
    else:
        lines = [f"Starting from bundle {start.name} (sha256 {start.sha256[:12]}). {STATISTICS}"]
    for modality in learner.modalities:
        if modality not in start.modalities:
            lines.append(f"{modality}: no branch in the bundle, so this branch starts without it.")
            continue
        branch = cast(Branch, learner.network(modality))
        for encoder in encoders_in(branch).values():
            facts_of(encoder).pretrained = True
        if start.bundle is None:
            continue
        there = start.bundle.manifest
        channels = match_channels(there.modalities[modality], specs[modality])
        if frozen and (channels.rule == "new" or None in channels.sources):
            raise ConfigError(
                f"training.freeze: the {modality} encoder of the bundle does not know all channels of this training "
                f"({channels.words}), and a frozen encoder would never learn to read them.\nLeave `training.freeze` "
                "out, or train on the channels of the bundle."
            )
        outputs = match_classes(there.classes, classes)
        left = load_branch(branch, start.bundle.branch(modality), channels, outputs)
        also = f" Not loaded, because their shapes differ: {listed(left)}." if left else ""
        lines.append(f"{modality}: channels {channels.words}; classes {outputs.words}.{also}")
    return lines


def load_branch(branch: Branch, old: Branch, channels: Matched, classes: Matched) -> list[str]:
    """Load the weights of a branch into another one of the same network.

    Args:
        branch: The branch to load into.
        old: The branch of the bundle.
        channels: Which of its channels are which.
        classes: Which of its classes are which.

    Returns:
        Names of tensors that were left as they were, because their shapes differ for another reason.
    """
    inputs, outputs = _first_kernels(branch), _last_layer(branch)
    loaded, left = branch.state_dict(), []
    for name, value in old.state_dict().items():
        if name in outputs:
            loaded[name] = _with_classes(loaded[name], value, classes)
        elif name in inputs:
            loaded[name] = _with_channels(loaded[name], value, channels)
        elif loaded[name].shape == value.shape:
            loaded[name] = value
        else:
            left.append(name)
    branch.load_state_dict(loaded)
    return left


def match_channels(old: ModalitySpec, new: ModalitySpec) -> Matched:
    """Match the channels of a training with those of a bundle.

    Args:
        old: Channels of the bundle.
        new: Channels of the training.

    Returns:
        The match: by name where both name any common channel; by number if one side names none and there are as many;
        otherwise the bands of an image are adapted by the rule for encoder weights, and height channels start new,
        because a slope is no height.
    """
    heights = new.definition.holds_heights
    before, now = (
        tuple(c.name for c in s.channels) if heights else common_names([c.name for c in s.channels]) for s in (old, new)
    )
    shown = [c.name for c in new.channels]
    if before == now:
        return Matched(tuple(range(len(now))), "start", f"{listed(shown, most=8)} as in the bundle")
    both = {name for name in now if name is not None and name in before}
    if both and len(set(before)) == len(before) and len(set(now)) == len(now):
        sources = tuple(before.index(name) if name in both else None for name in now)
        return Matched(sources, "start", _channel_words(sources, shown, [c.name for c in old.channels]))
    unnamed = not any(before) or not any(now)
    if len(before) == len(now) and unnamed:
        return Matched(
            tuple(range(len(now))), "start", f"{listed(shown, most=8)} by number, because one side has no names"
        )
    had = listed([c.name for c in old.channels], most=8)
    if heights:
        return Matched((None,) * len(now), "new", f"{listed(shown, most=8)} start new (the bundle has {had})")
    words = f"{listed(shown, most=8)} start from those of the bundle ({had}), repeated and rescaled"
    return Matched(tuple(i % len(before) for i in range(len(now))), "repeat", words)


def match_classes(old: ClassScheme, new: ClassScheme) -> Matched:
    """Match the classes of a training with those of a bundle.

    Args:
        old: Classes of the bundle.
        new: Classes of the training.

    Returns:
        The match: by name, whatever the value, the case and spaces around the name. If neither scheme names a class and
        both have the same values, by value. A class without a name matches no other.
    """
    if not any(map(_is_named, (*old.classes, *new.classes))) and set(old.values) == set(new.values):
        by_value = tuple(old.values.index(value) for value in new.values)
        return Matched(by_value, "start", f"{listed(map(str, new.values), most=8)} by value")
    known = {_plain(c): i for i, c in enumerate(old.classes) if _is_named(c)}
    sources = tuple(known.get(_plain(c)) if _is_named(c) else None for c in new.classes)
    common = [c.name for c, i in zip(new.classes, sources, strict=True) if i is not None]
    fresh = [c.name for c, i in zip(new.classes, sources, strict=True) if i is None]
    unused = [c.name for i, c in enumerate(old.classes) if i not in sources]
    parts = (
        (common, "by name"),
        (fresh, "start new" if common else "start new, because none has the name of a class of the bundle"),
        (unused, "of the bundle are not used"),
    )
    return Matched(sources, "start", ", ".join(f"{listed(names, most=8)} {what}" for names, what in parts if names))


def _channel_words(sources: tuple[int | None, ...], shown: list[str], had: list[str]) -> str:
    common = [name for name, i in zip(shown, sources, strict=True) if i is not None]
    fresh = [name for name, i in zip(shown, sources, strict=True) if i is None]
    unused = [name for i, name in enumerate(had) if i not in sources]
    parts = ((common, "by name"), (fresh, "with weights of 0 at the start"), (unused, "of the bundle are not used"))
    return ", ".join(f"{listed(names, most=8)} {what}" for names, what in parts if names)


def _is_named(land: LandClass) -> bool:
    return land.name != unnamed(land.value)


def _plain(land: LandClass) -> str:
    return plain_word(land.name)


def _first_kernels(branch: Branch) -> set[str]:
    """Names of the kernels that read the channels: the first convolution of each encoder."""
    found = set()
    for prefix, encoder in encoders_in(branch).items():
        first = next(((n, m) for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d)), None)
        if first is not None and first[1].in_channels == branch.in_channels and first[1].groups == 1:
            found.add(f"{prefix}.{first[0]}.weight")
    return found


def _last_layer(branch: Branch) -> set[str]:
    """Names of the weight and the bias that give the logits."""
    layer = branch.decoder.classifier
    last = layer[-1] if isinstance(layer, nn.Sequential) else layer
    own = {id(p) for p in last.parameters()}
    return {name for name, p in branch.named_parameters() if id(p) in own}


def _with_channels(kernel: Tensor, old: Tensor, match: Matched) -> Tensor:
    """Kernel (O, C, h, w) for the new channels from one for the old ones."""
    if match.rule == "new":
        return kernel
    if match.rule == "repeat":
        return first_layer(old, kernel.shape[1], "repeat", lambda: kernel)
    made = torch.zeros_like(kernel)
    for index, source in enumerate(match.sources):
        if source is not None:
            made[:, index] = old[:, source]
    return made


def _with_classes(value: Tensor, old: Tensor, match: Matched) -> Tensor:
    """Rows of the last layer, (K, ...): those of common classes from the bundle."""
    made = value.clone()
    for index, source in enumerate(match.sources):
        if source is not None:
            made[index] = old[source]
    return made
