"""Weights of timm's encoders on the Hugging Face hub: found in its cache, or downloaded at a known revision."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from geocrodino.errors import ModelError
from geocrodino.models.pretrained.state import Origin, Pretrained, file_sha256, read_state

_FILE = "model.safetensors"
_TIMEOUT_S = 10


def default_weights(encoder: str) -> str:
    """Find the weights that timm names first for an encoder.

    Args:
        encoder: Name of timm, without ``tu-``.

    Returns:
        Name of a repository of the Hugging Face hub, for instance ``timm/resnet18.a1_in1k``.

    Raises:
        ModelError: If timm names none that can be used.
    """
    known = timm.get_pretrained_cfg(encoder)
    if known is None or not known.hf_hub_id or known.custom_load or known.hf_hub_filename:
        raise ModelError(
            f"No ImageNet weights of encoder '{encoder}' are known.\n"
            "Name another encoder with `network.encoder`, a file of its weights with `encoder_weights`, or start from "
            "random weights: `encoder_weights='random'`."
        )
    return str(known.hf_hub_id)


def hub_weights(name: str, tell: Callable[[str], None]) -> Pretrained:
    """Read weights from the cache of the Hugging Face hub; download them if they are not there.

    Args:
        name: ``timm/NAME`` or ``timm/NAME@REVISION``. Without a revision, any that is in the cache is used, and else
            the newest is downloaded.
        tell: Called with a line on size and licence before a download.

    Returns:
        The weights. Their origin names the revision.

    Raises:
        ModelError: If there are no such weights, the hub cannot be reached, or the file is not the one of the hub.
    """
    repository, _, revision = name.partition("@")
    path = _in_cache(repository, revision)
    licence = None
    if path is None:
        path, licence = _download(repository, revision, tell)
    found = _revision_of(path)
    digest = file_sha256(path)
    _require_hash(path, digest, _hash_in_cache(path))
    pinned = f"{repository}@{found}"
    licence = licence or _stated_licence(repository)
    return Pretrained(read_state(path), 3, pinned, Origin(pinned, pinned, digest, licence))


def _in_cache(repository: str, revision: str) -> Path | None:
    """The file in the cache: at the revision if one is asked for, else at that of ``main``, else at the newest."""
    found = try_to_load_from_cache(repository, _FILE, revision=revision or None)
    if isinstance(found, str):
        return Path(found)
    if revision:
        return None
    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    return max(snapshots.glob(f"*/{_FILE}"), key=lambda path: path.stat().st_mtime, default=None)


def _download(repository: str, revision: str, tell: Callable[[str], None]) -> tuple[Path, str | None]:
    """Download the file at a revision that is resolved first, and check it against the hash that the hub states."""
    wanted = f"{repository}@{revision}" if revision else repository
    try:
        # Asked first: `model_info` knows size, licence and hash before anything is downloaded.
        info = HfApi().model_info(repository, revision=revision or None, files_metadata=True, timeout=_TIMEOUT_S)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(
            f"{wanted}: the Hugging Face hub has no such encoder weights.\nCheck the name on {constants.ENDPOINT}/timm."
        ) from error
    except Exception as error:  # the errors of the HTTP library, which differs between versions
        raise _unreachable(repository, revision, error) from error
    file = next((f for f in info.siblings or () if f.rfilename == _FILE), None)
    if file is None or file.lfs is None or info.sha is None:
        raise ModelError(f"{wanted}: expected a file {_FILE} with a hash on the Hugging Face hub, found none.")
    licence = _licence(info)
    size = "of unknown size" if file.size is None else f"{file.size / 1e6:.0f} MB"
    tell(f"Downloading {repository}@{info.sha}: {size}, licence {licence or 'not stated'}.")
    try:
        path = Path(hf_hub_download(repository, _FILE, revision=info.sha))
    except Exception as error:
        raise _unreachable(repository, revision, error) from error
    _require_hash(path, file_sha256(path), file.lfs.sha256)
    return path, licence


def _unreachable(repository: str, revision: str, error: Exception) -> ModelError:
    reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    at = f" --revision {revision}" if revision else ""
    return ModelError(
        f"Encoder weights {repository} are not on this machine, and the Hugging Face hub cannot be reached: {reason}.\n"
        f"Fetch them where there is a network: hf download {repository} {_FILE}{at}\n"
        f"They belong in {constants.HF_HUB_CACHE}. Or start from random weights: `encoder_weights='random'`."
    )


def _require_hash(path: Path, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise ModelError(
            f"{path}: the file is damaged or not the one of the Hugging Face hub. Expected sha256 {expected}, found "
            f"{found}.\nDelete it, and run the same command again."
        )


def _hash_in_cache(path: Path) -> str | None:
    """The hash after which the cache names the content of a file; None where the cache has no links."""
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def _revision_of(path: Path) -> str:
    return path.parent.name  # <cache>/models--timm--NAME/snapshots/REVISION/model.safetensors


def _licence(info: Any) -> str | None:
    tags = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
    return tags[0] if tags else None


def _stated_licence(repository: str) -> str | None:
    """The licence that timm states for weights that were in the cache."""
    try:
        known = timm.get_pretrained_cfg(repository.removeprefix("timm/"))
    except RuntimeError:  # a tag that this version of timm does not know
        return None
    return None if known is None else known.license
