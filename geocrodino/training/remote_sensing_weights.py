"""Encoder weights that were trained on remote-sensing images, by the names of torchgeo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import constants

from geocrodino.errors import ModelError
from geocrodino.models.pretrained.state import Origin, Pretrained, file_sha256
from geocrodino.spelling import did_you_mean


def torchgeo_weights(name: str, encoder: str, tell: Callable[[str], None]) -> Pretrained:
    """Read weights of torchgeo from the cache of PyTorch; download them if they are not there.

    Args:
        name: Name in torchgeo, for instance ``ResNet18_Weights.SENTINEL2_RGB_MOCO``.
        encoder: Encoder of the training, name of timm without ``tu-``.
        tell: Called with a line before a download.

    Returns:
        The weights, with the number of bands that they were trained on.

    Raises:
        ModelError: If torchgeo has no such weights, they belong to another encoder, or cannot be downloaded.
    """
    # torchgeo's models are slow to import, and few trainings start from them.
    from torchgeo.models import api as registry
    from torchgeo.models import get_weight, list_models  # noqa: F401 - the import registers the weights

    try:
        weights = get_weight(name)
    except ValueError as error:
        known = [str(w) for kind in registry._model_weights.values() for w in kind]
        raise ModelError(
            f"torchgeo has no encoder weights {name}.{did_you_mean(name, known)}\n"
            "Its documentation lists the names: https://torchgeo.readthedocs.io/en/stable/api/models.html"
        ) from error
    made_for = weights.meta.get("model")
    if made_for != encoder:
        raise ModelError(other_encoder(name, encoder, made_for))
    file = Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rpartition("/")[2]
    if not file.is_file():
        if constants.HF_HUB_OFFLINE:
            raise _not_here(name, file, str(weights.url), "HF_HUB_OFFLINE is set")
        tell(f"Downloading {name} from {weights.url}: size unknown, licence not stated.")
    try:
        tensors = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise _not_here(name, file, str(weights.url), str(error)) from error
    origin = Origin(name, str(weights.url), file_sha256(file))
    return Pretrained(dict(tensors), int(weights.meta["in_chans"]), name, origin)


def other_encoder(name: str, encoder: str, made_for: str) -> str:
    """Compose the message for weights of another encoder than that of the training.

    Args:
        name: Name of the weights.
        encoder: Encoder of the training.
        made_for: Encoder of the weights.

    Returns:
        What was expected, what was found, and what to do.
    """
    return (
        f"{name}: expected weights of encoder '{encoder}', found weights of '{made_for}'.\n"
        "Name that encoder with `network.encoder`, or other weights with `encoder_weights`."
    )


def _not_here(name: str, file: Path, url: str, reason: str) -> ModelError:
    return ModelError(
        f"Encoder weights {name} are not on this machine, and cannot be downloaded ({reason}).\n"
        f"Fetch them where there is a network: curl --create-dirs -L -o {file} {url}\n"
        "Or start from random weights: `encoder_weights='random'`."
    )
