"""Pretrained weights of an encoder, with a record of where they come from."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geocrodino.errors import ModelError
from geocrodino.phrases import listed
from geocrodino.settings.encoder_weights import RANDOM, FirstLayer, check_weights_file


@dataclass(frozen=True)
class Origin:
    """Where the weights of an encoder come from, as run folders and bundles record it.

    Attributes:
        weights: Name of the weights as in a configuration; of a file without its folder, and of the Hugging Face hub
            with the revision, so that the same weights are found again. ``random`` for random weights.
        source: Package and version, address, or file name; None for random weights.
        sha256: Hash of the file; None for random weights.
        licence: Licence that the source states; None if it states none.
        first_layer: How the first layer was adapted to the bands; None for random weights.
    """

    weights: str = RANDOM
    source: str | None = None
    sha256: str | None = None
    licence: str | None = None
    first_layer: FirstLayer | None = None

    def record(self) -> dict[str, Any]:
        """Give the record as plain values.

        Returns:
            The attributes by name, without those that are None.
        """
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        name = self.weights if self.source in (None, self.weights) else f"{self.weights} ({self.source})"
        return name if self.first_layer in (None, "repeat") else f"{name}, first layer {self.first_layer}"


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights of an encoder.

    Attributes:
        tensors: The state dict, with the names of the library that builds the encoder.
        bands: Bands of the images that the encoder was trained on.
        label: The weights in a message: the path of the file, or the name.
        origin: Where they come from.
        first_layer: How the first layer is adapted to the bands of a network.
    """

    tensors: Mapping[str, Tensor]
    bands: int
    label: str
    origin: Origin
    first_layer: FirstLayer = "repeat"


def read_weights(path: Path) -> Pretrained:
    """Read a user's file of encoder weights.

    Args:
        path: State dict of an encoder with three input channels, ``.safetensors`` or ``.pth``.

    Returns:
        The weights. Whether they fit an encoder is checked when it is built.

    Raises:
        ModelError: If the file is missing, or holds no state dict.
        AccessError: If the operating system denies access to it.
    """
    check_weights_file(path)
    tensors = read_state(path)
    return Pretrained(tensors, 3, str(path), Origin(path.name, path.name, file_sha256(path)))


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, without running code from the file.

    Args:
        path: The file, ``.safetensors`` or ``.pth``.

    Returns:
        Tensors on the CPU by name, of any shape and dtype.

    Raises:
        ModelError: If the file holds no state dict.
    """
    try:
        state = load_file(path) if path.suffix.lower() == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # PyTorch's text recommends to run what the file holds
        raise _no_state(path, "objects that are no tensors, or a damaged file") from error
    except (SafetensorError, OSError, EOFError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0] or "an empty file"
        raise _no_state(path, f"a file that cannot be read ({reason})") from error
    if not isinstance(state, Mapping):
        raise _no_state(path, f"a {type(state).__name__}")
    if not all(isinstance(value, Tensor) for value in state.values()):
        inner = [str(key) for key, value in state.items() if _is_state(value)]
        raise _no_state(path, f"a checkpoint with {listed(map(str, state))}", inner[0] if inner else None)
    return dict(state)


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def _no_state(path: Path, found: str, key: str | None = None) -> ModelError:
    """The error for a file without a state dict; ``key`` names the entry of it that is one."""
    chosen = "model.state_dict()" if key is None else f"torch.load({path.name!r})[{key!r}]"
    return ModelError(
        f"{path}: expected a state dict (names to tensors), found {found}.\nWrite one where the model is trusted: "
        f"torch.save({chosen}, 'weights.pth')"
    )


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
