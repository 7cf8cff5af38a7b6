"""The checkpoint of a training: written completely or not at all, and checked before a run continues from it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from geocrodino.errors import CheckpointError
from geocrodino.files.access import durable_file, writing
from geocrodino.training.callbacks import BestNetworks, scores_are_of_part
from geocrodino.training.folder import RESTORE

_KEYS = {"epoch", "global_step", "state_dict", "callbacks", "loops", "optimizer_states", "lr_schedulers"}


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside its final name and then renames it, so that the previous one survives a failure.

    Lightning writes to the folder for temporary files first. If that is on another disk, the file is then copied, and a
    failure leaves half a checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Its content.
            path: The file; its folder is created if it does not exist.
            storage_options: Not used; part of Lightning's interface.

        Raises:
            OutputError: If the file cannot be written.
        """
        path = Path(path)
        content = io.BytesIO()  # if torch wrote the file itself, its error on a full disk would not name the reason
        torch.save(checkpoint, content)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with durable_file(path) as partial:
            partial.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read all bytes of a checkpoint, and check that a training can continue from it.

    Args:
        path: The file.

    Returns:
        Its content, tensors on the CPU.

    Raises:
        CheckpointError: If it is damaged, cut short, cannot be read, or comes from another program or version.
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
    """Read the number of finished epochs from a checkpoint.

    Args:
        path: The file.

    Returns:
        Finished epochs, at least 1.

    Raises:
        CheckpointError: As for `read_checkpoint`.
    """
    return int(read_checkpoint(path)["epoch"]) + 1


def was_scored_on_part(path: Path) -> bool:
    """Read from a checkpoint on what its networks were scored.

    Args:
        path: The file.

    Returns:
        True for a part of ``val``, False for the whole.

    Raises:
        CheckpointError: As for `read_checkpoint`.
    """
    return scores_are_of_part(read_checkpoint(path)["callbacks"][BestNetworks.__qualname__])


def load_networks(task: torch.nn.Module, path: Path) -> None:
    """Load the networks of a checkpoint into a training, and so check that they fit.

    Args:
        task: The training task; its weights are replaced.
        path: The checkpoint.

    Raises:
        CheckpointError: If the networks do not fit, or as for `read_checkpoint`.
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
