"""What the encoders of a training start from: the weights of each modality, and their record in the run folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm

from geocrodino.errors import ConfigError, ModelError
from geocrodino.models.encoders import resolve_encoder
from geocrodino.models.pretrained.hub import default_weights, hub_weights
from geocrodino.models.pretrained.package import has_package, package_weights
from geocrodino.models.pretrained.state import Origin, Pretrained, read_weights
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.encoder_weights import IMAGENET, RANDOM, weights_kind, weights_of
from geocrodino.settings.modality import Modality
from geocrodino.training import folder as run_folder
from geocrodino.training.remote_sensing_weights import other_encoder, torchgeo_weights

WEIGHTS_NAME = "encoder_weights.json"
"""File of a run folder: what the encoder of each modality started from."""


def initial_weights(
    config: TrainConfig, modalities: Iterable[Modality], out: Path, *, resume: bool, tell: Callable[[str], None]
) -> dict[Modality, Pretrained]:
    """Read the weights that the encoders start from, and download those that are not on this machine.

    Args:
        config: The configuration.
        modalities: The modalities of the training.
        out: Run folder. A resumed run reads the same weights as before, whatever is the newest revision today.
        resume: Whether the run is resumed.
        tell: Called with lines on what is downloaded.

    Returns:
        Weights by modality, without the modalities that start from random weights.

    Raises:
        ModelError: If weights are missing, cannot be downloaded, or belong to another encoder.
        ConfigError: If the record of the run to resume cannot be read, or the run began with other weights.
    """
    before = {**starting_points(out / run_folder.TEACHER_NAME), **starting_points(out)} if resume else {}
    encoder = resolve_encoder(config.network.encoder)
    read: dict[str, Pretrained] = {}
    found: dict[Modality, Pretrained] = {}
    for modality in modalities:
        name = weights_of(config.encoder_weights, modality)
        if name == RANDOM:
            continue
        recorded = before.get(modality, {})
        if str(recorded.get("weights")).startswith("timm/"):  # with its revision; files are recorded without a folder
            name = str(recorded["weights"])
        if name not in read:
            read[name] = _read(name, encoder, tell)
        _require_recorded(read[name], recorded, out)
        rule = config.first_layer.get(modality, "repeat")
        start = read[name]
        found[modality] = replace(start, first_layer=rule, origin=replace(start.origin, first_layer=rule))
    return found


def weights_elsewhere(config: TrainConfig, modalities: Iterable[Modality]) -> tuple[str, ...]:
    """Find out which weights of encoders come from the hub or from torchgeo, and may have to be downloaded.

    Args:
        config: The configuration.
        modalities: The modalities whose encoders start from weights.

    Returns:
        Their names; none where all are files of this machine or installed with the package.
    """
    encoder = resolve_encoder(config.network.encoder)
    bare = encoder.removeprefix("tu-")
    installed = encoder != bare and has_package(bare)
    names = dict.fromkeys(weights_of(config.encoder_weights, m) for m in modalities)
    return tuple(
        name
        for name in names
        if name != RANDOM and weights_kind(name) != "file" and not (weights_kind(name) == IMAGENET and installed)
    )


def _require_recorded(found: Pretrained, recorded: Mapping[str, Any], out: Path) -> None:
    """Check that a resumed run reads the weights that it began with."""
    expected = recorded.get("sha256")
    if expected is not None and expected != found.origin.sha256:
        raise ConfigError(
            f"{found.label}: expected the encoder weights that the run in {out} began with (sha256 {expected}), found "
            f"others (sha256 {found.origin.sha256}).\n{run_folder.RESTORE}"
        )


def _read(name: str, encoder: str, tell: Callable[[str], None]) -> Pretrained:
    kind, bare = weights_kind(name), encoder.removeprefix("tu-")
    if kind == "file":
        return read_weights(Path(name))
    if kind == "hub":
        _require_encoder(name, bare)
        return hub_weights(name, tell)
    if kind == "torchgeo":
        return torchgeo_weights(name, bare, tell)
    if encoder != bare and has_package(bare):
        return package_weights(bare)
    return hub_weights(default_weights(bare), tell)


def _require_encoder(name: str, encoder: str) -> None:
    """Check before a download that weights of the hub, whose names begin with their model, belong to the encoder."""
    made_for = re.split(r"[.@]", name.removeprefix("timm/"))[0]
    if timm.is_model(made_for) and made_for != encoder:
        raise ModelError(other_encoder(name, encoder, made_for))


def describe_start(weights: Mapping[Modality, Pretrained], modalities: Iterable[Modality]) -> str:
    """Describe for the user what each encoder starts from.

    Args:
        weights: Pretrained weights by modality.
        modalities: The modalities of the training.

    Returns:
        One line.
    """
    origins = (f"{m} {weights[m].origin if m in weights else RANDOM}" for m in modalities)
    return f"Encoder weights: {'; '.join(origins)}."


def record_weights(weights: Mapping[Modality, Pretrained], modalities: Iterable[Modality], out: Path) -> None:
    """Write into the run folder what each encoder starts from.

    Args:
        weights: Pretrained weights by modality.
        modalities: The modalities of the training.
        out: Run folder.

    Raises:
        OutputError: If the file cannot be written.
    """
    origins = {m: weights[m].origin if m in weights else Origin() for m in modalities}
    run_folder.save_json(out / WEIGHTS_NAME, {m: origin.record() for m, origin in origins.items()})


def starting_points(out: Path) -> dict[Modality, dict[str, Any]]:
    """Read from a run folder what each encoder started from.

    Args:
        out: Run folder.

    Returns:
        The records by modality; empty for runs of version 0.1, which wrote none.

    Raises:
        ConfigError: If the file is damaged.
    """
    path = out / WEIGHTS_NAME
    if not path.exists():
        return {}
    try:
        return {m: dict(found) for m, found in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: expected a record of the encoder weights, found {error}.\n{run_folder.RESTORE}"
        ) from error
