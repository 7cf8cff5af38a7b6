"""Bundles on disk: the weights of the branches and a manifest in one safetensors file.

Nothing is ever unpickled: a bundle from a stranger can hold wrong numbers, never code. A bundle is read and checked
without PyTorch, whose import takes seconds; only building a network imports it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from geocrodino.bundle.manifest import FORMAT_VERSION, Int8Network, Manifest
from geocrodino.errors import BundleError
from geocrodino.files.access import access_errors, synchronise
from geocrodino.files.bundle_name import check_bundle_name
from geocrodino.settings.modality import Modality

if TYPE_CHECKING:
    from torch import nn

    from geocrodino.models.branch import Branch

METADATA_KEY = "geocrodino"
"""Key of the manifest in the header of the file."""

Tensors = dict[str, NDArray[np.generic]]
"""Weights by the name of the modality, a dot, and their name in its network; those of int8 networks after ``int8.``."""

INT8_PREFIX = "int8."
"""First part of the names of the tensors of int8 networks; the name of the modality follows."""

_PICKLES = {b"PK": "a PyTorch checkpoint (zip with pickle)", b"\x80": "a Python pickle"}


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        path: Its file.
        manifest: Everything but the weights.
    """

    path: Path
    manifest: Manifest
    _tensors: Tensors = field(repr=False, compare=False)

    @property
    def sha256(self) -> str:
        """Hash of weights and manifest."""
        return self.manifest.sha256

    def branch(self, modality: Modality) -> Branch:
        """Build the network of one modality and load its weights.

        Args:
            modality: The modality.

        Returns:
            The network in evaluation mode, float32, on the CPU; its parameters need no gradients.

        Raises:
            BundleError: If the bundle has no such branch, or weights of another network.
            ModelError: If this version of the libraries cannot build the network.
        """
        import torch

        self.require(modality)
        module = _build(self.manifest, modality)
        prefix = f"{modality}."
        weights = {name: value for name, value in self._tensors.items() if name.startswith(prefix)}
        problem = _misfit(_weights(modality, module), weights)
        if problem:
            raise BundleError(f"{self.path}: {problem}.\nThe weights are of another network: write the bundle again.")
        # The network copies the weights: those of the bundle stay unchanged.
        module.load_state_dict({n.removeprefix(prefix): torch.from_numpy(v) for n, v in weights.items()}, strict=True)
        return module.eval().requires_grad_(False)

    def int8_tensors(self, modality: Modality) -> Tensors:
        """The tensors of the int8 network of one modality.

        Args:
            modality: The modality.

        Returns:
            Tensors by name, as given to `add_int8`; empty if the bundle has no such network.
        """
        prefix = f"{INT8_PREFIX}{modality}."
        return {n.removeprefix(prefix): value for n, value in self._tensors.items() if n.startswith(prefix)}

    def require(self, modality: Modality) -> None:
        """Check that there is a branch for a modality.

        Args:
            modality: The modality.

        Raises:
            BundleError: If there is none.
        """
        if modality not in self.manifest.modalities:
            there = ", ".join(self.manifest.modalities)
            raise BundleError(
                f"{self.path}: no branch for {modality} in this bundle. Expected {modality}, found {there}.\n"
                f"Predict with {there}, or use a bundle that was trained with {modality}."
            )


def save_bundle(path: str | Path, manifest: Manifest, branches: Mapping[Modality, nn.Module]) -> Manifest:
    """Write a bundle, in one step: the file is complete under its name or not there.

    Args:
        path: The file to write, usually ``*.safetensors``; an existing file is replaced.
        manifest: Everything but the weights; its hash is computed here.
        branches: The network of each modality of the manifest.

    Returns:
        The manifest as written, with its hash.

    Raises:
        ValueError: If branches and manifest do not fit each other.
        BundleError: If the file cannot be written.
    """
    path = Path(path)
    if set(branches) != set(manifest.modalities):
        raise ValueError(f"branches {sorted(branches)} do not match the manifest's {sorted(manifest.modalities)}")
    tensors: Tensors = {}
    for modality, module in branches.items():
        own = _weights(modality, module)
        problem = _misfit(_weights(modality, _build(manifest, modality)), own)
        if problem:
            raise ValueError(problem)
        tensors.update(own)
    return _write(path, manifest, tensors)


def add_int8(
    bundle: Bundle, networks: Mapping[Modality, tuple[Int8Network, Mapping[str, NDArray[np.generic]]]]
) -> Manifest:
    """Write a bundle anew, in one step, with int8 networks in place of those that it had.

    Args:
        bundle: The bundle.
        networks: Facts and tensors, of any shape and type, of the int8 network of some of its modalities.

    Returns:
        The manifest as written, with its hash.

    Raises:
        ValueError: If the bundle has no branch for one of the modalities.
        BundleError: If the file cannot be written.
    """
    tensors = {name: value for name, value in bundle._tensors.items() if not name.startswith(INT8_PREFIX)}
    for modality, (_, own) in networks.items():
        tensors.update({f"{INT8_PREFIX}{modality}.{name}": np.asarray(value) for name, value in own.items()})
    facts = {m: own.model_dump(mode="json") for m, (own, _) in networks.items()}
    stored = {**bundle.manifest.model_dump(mode="json"), "int8": facts}
    return _write(bundle.path, Manifest.model_validate(stored), tensors)


def _write(path: Path, manifest: Manifest, tensors: Tensors) -> Manifest:
    # Without int8 networks, the file is that of earlier versions, which can read it.
    left_out = {"sha256"} if manifest.int8 else {"sha256", "int8"}
    stored = manifest.model_dump(mode="json", exclude=left_out)
    digest = _digest(stored, tensors)
    metadata = {METADATA_KEY: json.dumps({**stored, "sha256": digest}, ensure_ascii=False)}
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
            finished = Path(folder) / "bundle.safetensors"
            # Written as bytes: the library's own file would be readable by its owner alone.
            finished.write_bytes(save(tensors, metadata=metadata))
            synchronise(finished)
            finished.replace(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"{path}: the bundle cannot be written ({error}).\n"
            f"Expected a folder {path.parent} with write permission and free space. Choose another one."
        ) from error
    return manifest.model_copy(update={"sha256": digest})


def load_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle.

    Args:
        path: The file.

    Returns:
        The bundle. Whether its weights fit the network of the manifest is checked by `Bundle.branch`.

    Raises:
        BundleError: If the file is missing, damaged, cut short, no bundle, of another layout, or changed after it was
            written.
    """
    path = Path(path)
    _check_magic(path)
    try:
        with safe_open(path, framework="np") as file:
            stored = _stored_manifest(path, file.metadata() or {})
            tensors = {name: _tensor(path, file, name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{path}: the file is damaged or cut short. Expected a complete safetensors file, found: {error}.\n"
            "Copy or download it again."
        ) from error
    try:
        manifest = Manifest.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise BundleError(
            f"{path}: the manifest does not hold what it must: {where}: {first['msg']}.\n"
            "Write the bundle again with this version of geocrodino."
        ) from error
    owners = (*(f"{m}." for m in manifest.modalities), *(f"{INT8_PREFIX}{m}." for m in manifest.int8))
    stray = next((name for name in tensors if not name.startswith(owners)), None)
    if stray is not None:
        raise BundleError(
            f"{path}: expected tensors of {' and '.join(manifest.modalities)}, found {stray}.\n"
            "The weights are of another network: write the bundle again."
        )
    found = _digest({k: v for k, v in stored.items() if k != "sha256"}, tensors)
    if found != manifest.sha256:
        raise BundleError(
            f"{path}: the contents were changed after writing. "
            f"Expected sha256 {manifest.sha256 or '(none)'}, found {found}.\nCopy or download it again."
        )
    return Bundle(path, manifest, tensors)


def _tensor(path: Path, file: Any, name: str) -> NDArray[np.generic]:
    try:
        found: NDArray[np.generic] = file.get_tensor(name)
    except (TypeError, AttributeError) as error:  # bfloat16 and the like, by version of the library
        kind = file.get_slice(name).get_dtype()
        raise BundleError(
            f"{path}: tensor {name}: expected float32 or whole numbers, found {kind}.\n"
            "The weights are of another network: write the bundle again."
        ) from error
    return found


def _check_magic(path: Path) -> None:
    check_bundle_name(path)
    with access_errors(path), path.open("rb") as file:
        head = file.read(9)
    # A safetensors file starts with the length of its header, which can begin with the same byte as a pickle.
    if head[8:9] == b"{":
        return
    for magic, what in _PICKLES.items():
        if head.startswith(magic):
            raise BundleError(
                f"{path}: expected a bundle (safetensors), found {what}.\nSuch files can run code when they are read "
                "and are never opened here. Use the bundle that training wrote beside the checkpoint."
            )
    raise BundleError(
        f"{path}: expected a bundle (safetensors with a geocrodino manifest), found another kind of file "
        f"of {path.stat().st_size} bytes.\nUse the .safetensors file that training wrote."
    )


def _stored_manifest(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if METADATA_KEY not in metadata:
        raise BundleError(
            f"{path}: a safetensors file without a geocrodino manifest. Expected the key {METADATA_KEY!r} in its "
            f"header, found {', '.join(sorted(metadata)) or 'no metadata'}.\n"
            "Weights alone do not say which bands, classes and units they need: use the bundle that training wrote."
        )
    try:
        stored = json.loads(metadata[METADATA_KEY])
    except json.JSONDecodeError as error:
        raise BundleError(f"{path}: the manifest is not JSON ({error}).\nCopy or download the file again.") from error
    found = stored.get("format_version") if isinstance(stored, dict) else None
    if found != FORMAT_VERSION:
        raise BundleError(
            f"{path}: a bundle of another layout. Expected format version {FORMAT_VERSION}, found {found}.\n"
            "Install the version of geocrodino that wrote it, or train again."
        )
    return dict(stored)


def _build(manifest: Manifest, modality: Modality) -> Branch:
    import torch

    from geocrodino.models.branch import build_branch

    # Initial weights are drawn and replaced: the fork keeps the caller's random numbers unchanged.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        channels = len(manifest.modalities[modality].channels)
        return build_branch(manifest.network, in_channels=channels, num_classes=len(manifest.classes))


def _weights(modality: Modality, module: nn.Module) -> Tensors:
    """The tensors of a network as a bundle stores them: floating-point numbers as float32, others unchanged."""
    return {
        f"{modality}.{name}": (value.float() if value.is_floating_point() else value).detach().cpu().numpy().copy()
        for name, value in module.state_dict().items()
    }


def _misfit(expected: Tensors, tensors: Tensors) -> str | None:
    """How tensors differ from those that a network expects, in words; None if they fit."""
    missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or extra:
        shown = [
            f"{len(names)} {what} ({names[0]} ...)" for what, names in (("missing", missing), ("extra", extra)) if names
        ]
        return f"expected {len(expected)} tensors, found {len(tensors)}: " + ", ".join(shown)
    for name, value in expected.items():
        found = tensors[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            return f"tensor {name}: expected {value.dtype} {value.shape}, found {found.dtype} {found.shape}"
    return None


def _digest(stored: Mapping[str, Any], tensors: Tensors) -> str:
    digest = hashlib.sha256(json.dumps(stored, sort_keys=True, ensure_ascii=False).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} torch.{value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
