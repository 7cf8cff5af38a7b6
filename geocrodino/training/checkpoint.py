"""The checkpoint of a training: written whole or not at all, and checked before a run goes on with it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from geocrodino.errors import CheckpointError
from geocrodino.files.access import durable_file, writing
from geocrodino.training.callbacks import BestNetworks
from geocrodino.training.folder import RESTORE

_KEYS = {"epoch", "global_step", "state_dict", "callbacks", "loops", "optimizer_states", "lr_schedulers"}


class WholeCheckpoints(TorchCheckpointIO):
    """Write checkpoints beside their final name and rename them, so that the one before survives whatever happens.

    Lightning stages them in the folder for temporary files, from where they are copied if it is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OutputError: If the disk does not take it.
        """
        path = Path(path)
        content = io.BytesIO()  # torch reports a full disk without its reason where it writes the file itself
        torch.save(checkpoint, content)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with durable_file(path) as partial:
            partial.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, every byte of it, and check that a training can go on with it.

    Args:
        path: The file.

    Returns:
        Its content, tensors on the CPU.

    Raises:
        CheckpointError: If it is damaged, cut short, cannot be read, or is of another program or version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # compares checksums, which torch does not
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"{path}: the checkpoint cannot be read ({error.strerror or error}).\n{RESTORE}"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make zipfile and torch raise almost anything
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise CheckpointError(f"{path}: the checkpoint is damaged or cut short ({reason}).\n{RESTORE}") from error
    if not _is_complete(found):
        raise CheckpointError(
            f"{path}: expected a checkpoint of this version of geocrodino, found other content.\n{RESTORE}"
        )
    return dict(found)


def finished_epochs(path: Path) -> int:
    """Number of epochs that a run has finished by its checkpoint; errors as for `read_checkpoint`."""
    return int(read_checkpoint(path)["epoch"]) + 1


def load_networks(task: torch.nn.Module, path: Path) -> None:
    """Check that the networks of a checkpoint are those of a training; they are loaded into it.

    Raises:
        CheckpointError: If they are others; and as for `read_checkpoint`.
    """
    try:
        task.load_state_dict(read_checkpoint(path)["state_dict"])
    except RuntimeError as error:
        raise CheckpointError(f"{path}: expected the networks of this training, found others.\n{RESTORE}") from error


def _is_complete(found: Any) -> bool:
    if not isinstance(found, dict) or not found.keys() >= _KEYS or not isinstance(found["callbacks"], dict):
        return False
    best = found["callbacks"].get(BestNetworks.__qualname__)
    return isinstance(best, dict) and best.keys() >= {"best", "epoch", "weights"} and isinstance(found["epoch"], int)
