"""Bundles on disk: the weights of the branches and a manifest in one safetensors file.

Nothing is ever unpickled: a bundle from a stranger can hold wrong numbers, never code.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from geocrodino.bundle.manifest import FORMAT_VERSION, Manifest
from geocrodino.errors import BundleError
from geocrodino.geo.modality import MODALITIES, Modality
from geocrodino.models.branch import Branch, build_branch

METADATA_KEY = "geocrodino"
"""Key of the manifest in the header of the file."""

_PICKLES = {b"PK": "a PyTorch checkpoint (zip with pickle)", b"\x80": "a Python pickle"}


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        path: The file that it came from.
        manifest: What it says of itself.
    """

    path: Path
    manifest: Manifest
    _tensors: dict[str, Tensor] = field(repr=False, compare=False)

    @property
    def sha256(self) -> str:
        """Hash of weights and manifest."""
        return self.manifest.sha256

    def branch(self, modality: Modality) -> Branch:
        """The network of one modality, in evaluation mode, float32, on the CPU.

        Raises:
            BundleError: If the bundle has no such branch.
        """
        self.require(modality)
        module = _build(self.manifest, modality)
        module.load_state_dict(_of(self._tensors, modality), strict=True)
        return module.eval().requires_grad_(False)

    def require(self, modality: Modality) -> None:
        """Check that there is a branch for a modality.

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
        path: The file to write, by custom ``*.safetensors``; an existing one is replaced.
        manifest: What the bundle says of itself; its hash is filled in here.
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
    tensors = {
        f"{modality}.{name}": (value.float() if value.is_floating_point() else value)
        .detach()
        .cpu()
        .contiguous()
        .clone()
        for modality, module in branches.items()
        for name, value in module.state_dict().items()
    }
    problem = _misfit(manifest, tensors)
    if problem:
        raise ValueError(problem)
    stored = manifest.model_dump(mode="json", exclude={"sha256"})
    digest = _digest(stored, tensors)
    metadata = {METADATA_KEY: json.dumps({**stored, "sha256": digest}, ensure_ascii=False)}
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
            finished = Path(folder) / "bundle.safetensors"
            # Written as bytes: the library's own file would be readable by its owner alone.
            finished.write_bytes(save(tensors, metadata=metadata))
            finished.replace(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"{path}: the bundle cannot be written ({error}).\n"
            f"Expected a folder {path.parent} with write permission and free space. Choose another one."
        ) from error
    return manifest.model_copy(update={"sha256": digest})


def load_bundle(path: str | Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: If the file is missing, damaged, cut short, no bundle, of another layout, or if its weights are
            not those that its manifest speaks of.
    """
    path = Path(path)
    _check_magic(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{path}: the file is damaged or cut short. Expected a complete safetensors file, found: {error}.\n"
            "Copy or download it again."
        ) from error
    stored = _stored_manifest(path, metadata)
    try:
        manifest = Manifest.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise BundleError(
            f"{path}: the manifest does not hold what it must: {where}: {first['msg']}.\n"
            "Write the bundle again with this version of geocrodino."
        ) from error
    problem = _misfit(manifest, tensors)
    if problem:
        raise BundleError(f"{path}: {problem}.\nThe weights are of another network: write the bundle again.")
    found = _digest({k: v for k, v in stored.items() if k != "sha256"}, tensors)
    if found != manifest.sha256:
        raise BundleError(
            f"{path}: the contents were changed after writing. "
            f"Expected sha256 {manifest.sha256 or '(none)'}, found {found}.\nCopy or download it again."
        )
    return Bundle(path, manifest, tensors)


def _check_magic(path: Path) -> None:
    if not path.exists():
        raise BundleError(f"{path}: no such bundle. Check the path; training writes one into its run folder.")
    if not path.is_file():
        raise BundleError(f"{path}: expected a bundle (one .safetensors file), found a folder.\nName the file in it.")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise BundleError(
            f"{path}: the bundle cannot be read ({error.strerror}). Check the permissions of the file."
        ) from error
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
    # Initial weights are drawn and thrown away: the caller's random numbers stay as they were.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        channels = len(manifest.modalities[modality].channels)
        return build_branch(manifest.network, in_channels=channels, num_classes=len(manifest.classes))


def _of(tensors: Mapping[str, Tensor], modality: Modality) -> dict[str, Tensor]:
    prefix = f"{modality}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _misfit(manifest: Manifest, tensors: Mapping[str, Tensor]) -> str | None:
    """What is wrong between the weights and the networks that the manifest describes, in words, or None."""
    expected = {
        f"{modality}.{name}": value
        for modality in MODALITIES
        if modality in manifest.modalities
        for name, value in _build(manifest, modality).state_dict().items()
    }
    missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or extra:
        shown = [
            f"{len(names)} {what} ({names[0]} ...)" for what, names in (("missing", missing), ("extra", extra)) if names
        ]
        return f"expected {len(expected)} tensors, found {len(tensors)}: " + ", ".join(shown)
    for name, value in expected.items():
        found = tensors[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            return (
                f"tensor {name}: expected {value.dtype} {tuple(value.shape)}, found {found.dtype} {tuple(found.shape)}"
            )
    return None


def _digest(stored: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(stored, sort_keys=True, ensure_ascii=False).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
