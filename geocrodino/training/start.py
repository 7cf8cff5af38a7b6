"""The bundle that a training starts from: its network, what is recorded of it, and whether it can be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geocrodino.bundle.io import Bundle, load_bundle
from geocrodino.errors import ConfigError, ModelError
from geocrodino.files.access import exists
from geocrodino.files.bundle_name import check_bundle_name
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.encoder_weights import IMAGENET, RANDOM
from geocrodino.settings.modality import Modality
from geocrodino.settings.network import NetworkSettings
from geocrodino.settings.quality import QUALITIES
from geocrodino.training import folder as run_folder


@dataclass(frozen=True)
class Start:
    """A bundle that a training starts from.

    Attributes:
        name: Name of its model.
        sha256: Hash of its weights and manifest.
        network: Shape of its branches.
        modalities: Its branches that the training has too.
        bundle: The bundle; None for a resumed run, whose weights come from the checkpoint.
    """

    name: str
    sha256: str
    network: NetworkSettings
    modalities: tuple[Modality, ...]
    bundle: Bundle | None = None

    @property
    def origin(self) -> dict[str, str]:
        """Name and hash, for the manifest and the metrics of what is trained from it."""
        return {"name": self.name, "sha256": self.sha256}


def find_start(
    config: TrainConfig, out: Path | None = None, *, resume: bool = False, teacher: Path | None = None
) -> Start | None:
    """Find the bundle that a training starts from.

    Args:
        config: The configuration.
        out: Run folder; None if there is none yet.
        resume: Whether an interrupted run is continued. If it has finished an epoch (of its own, not of a teacher), the
            bundle is not opened: its record in the run folder is enough.
        teacher: Run folder of a finished teacher; None if the training has none, or trains it first.

    Returns:
        The bundle or its record; None if the configuration names no bundle.

    Raises:
        ConfigError: If the method has no branches to load, no modality is common, a branch has encoder weights too that
            no teacher starts from, the record cannot be read, or a resumed run would load another bundle than it began
            with.
        BundleError: If the bundle is missing or damaged.
    """
    if config.start_from is None:
        return None
    begun = None
    if out is not None and resume and run_folder.has_progress(out):
        begun = _recorded(out / run_folder.START_NAME)
        if exists(run_folder.last_checkpoint(out)):
            return begun
    # Without a checkpoint of its own, a run whose teacher is begun has yet to load the bundle.
    check_bundle_name(config.start_from)
    bundle = load_bundle(config.start_from)
    if begun is not None and bundle.sha256 != begun.sha256:
        raise ConfigError(
            f"{bundle.path}: expected the bundle that the run in {out} began with (sha256 {begun.sha256}), found "
            f"another (sha256 {bundle.sha256}).\n{run_folder.RESTORE}"
        )
    _require_branches(config)
    manifest, trained = bundle.manifest, config.data.modalities()
    common = tuple(m for m in trained if m in manifest.modalities)
    if not common:
        raise ConfigError(
            f"{bundle.path}: no branch of this bundle can be trained on these rasters. Expected a branch for "
            f"{' or '.join(trained)}, found {', '.join(manifest.modalities)}.\nName another bundle with `start_from`, "
            "or leave `start_from` out."
        )
    _require_used_weights(config, bundle, common, teacher)
    return Start(manifest.name, bundle.sha256, manifest.network, common, bundle)


def with_network(config: TrainConfig, start: Start | None) -> TrainConfig:
    """Take over the network of the bundle that a training starts from.

    Args:
        config: The configuration. Keys of ``network`` that it does not name are those of the bundle.
        start: The bundle, None without one.

    Returns:
        The configuration with the bundle's network.

    Raises:
        ConfigError: If the configuration names another network.
    """
    if start is None:
        return config
    from geocrodino.training.learners.build import network_settings

    there = comparable(start.network)
    asked = comparable(network_settings(config.method, config.network))
    named = {*config.network.model_fields_set, *(["separate_encoders"] if config.method.name == "discom" else [])}
    differing = [key for key in NetworkSettings.model_fields if key in named and asked[key] != there[key]]
    if differing:
        written = ", ".join(f"{key}: {_yaml(value)}" for key, value in start.network.model_dump(mode="json").items())
        raise ConfigError(
            f"{config.start_from}: the bundle has another network than these settings: "
            + "; ".join(f"network.{k}: expected {_yaml(there[k])}, found {_yaml(asked[k])}" for k in differing)
            + f".\n{_way_out(config, differing)} The network of the bundle: {{{written}}}"
        )
    return config.model_copy(update={"network": start.network})


def record_start(start: Start, out: Path) -> None:
    """Write ``start.json`` into the run folder: all that a resumed run needs to know of the bundle.

    Args:
        start: The bundle.
        out: Run folder.

    Raises:
        OutputError: If the file cannot be written.
    """
    network = start.network.model_dump(mode="json")
    run_folder.save_json(
        out / run_folder.START_NAME, {**start.origin, "network": network, "modalities": list(start.modalities)}
    )


def _recorded(path: Path) -> Start:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        network = NetworkSettings.model_validate(found["network"])
        return Start(str(found["name"]), str(found["sha256"]), network, tuple(found["modalities"]))
    except (OSError, ValueError, TypeError, KeyError, ValidationError) as error:
        what = "no such file" if not exists(path) else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{path}: expected the record of the bundle that the run started from, found {what}.\n{run_folder.RESTORE}"
        ) from error


def _require_branches(config: TrainConfig) -> None:
    from geocrodino.training.learners.build import learner_class

    if not learner_class(config.method).has_branches:
        raise ConfigError(
            f"`start_from`: the method {config.method.name} trains one network on all modalities, and a bundle holds "
            "no such fusion network, only a branch for each modality.\nLeave `start_from` out, or choose a method "
            "with branches: `method.name='mutual'`, single, crodino, discom, kd, protokd or maskedkd."
        )


def _require_used_weights(
    config: TrainConfig, bundle: Bundle, common: tuple[Modality, ...], teacher: Path | None
) -> None:
    """Refuse encoder weights that nothing starts from: neither a branch nor a teacher, which knows no bundle."""
    from geocrodino.training.learners.build import trains_teacher

    given = config.encoder_weights
    twice = [m for m in common if (m in given if isinstance(given, dict) else given not in (IMAGENET, RANDOM))]
    if twice and not trains_teacher(config.method, teacher):
        raise ConfigError(
            f"encoder_weights.{twice[0]}: the {twice[0]} branch starts from the bundle {bundle.path}, so these weights "
            "would be replaced. Leave them out."
        )


def comparable(network: NetworkSettings) -> dict[str, Any]:
    """Give the settings of a network in one spelling, to compare them with others.

    Args:
        network: The settings.

    Returns:
        Values by name: the encoder as its library names it, and the decoder's channels in full.
    """
    from geocrodino.models.encoders import resolve_encoder

    try:
        encoder = resolve_encoder(network.encoder)
    except ModelError:
        encoder = network.encoder  # whoever builds the network refuses it
    return {**network.model_dump(), "encoder": encoder, "decoder_channels": network.resolved_decoder_channels}


def _way_out(config: TrainConfig, differing: list[str]) -> str:
    if config.method.name == "discom" and differing == ["separate_encoders"]:
        return "Choose another method than discom, which has a separate encoder for each half."
    named = {} if config.quality is None else QUALITIES[config.quality].keys
    sources = ["`quality`" if named.get(key) == getattr(config.network, key) else f"network.{key}" for key in differing]
    return f"Leave out {', '.join(dict.fromkeys(sources))}: the bundle's network is the default."


def _yaml(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
