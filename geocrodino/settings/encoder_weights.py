"""Check files of encoder weights by name, without PyTorch, before anything is read."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import ModelError
from geocrodino.files.access import absence, is_file


def check_weights_file(path: Path) -> None:
    """Check the suffix of a file of encoder weights, and that the file exists.

    Args:
        path: The file, ``.safetensors`` or ``.pth``.

    Raises:
        ModelError: If it has another suffix or does not exist.
        AccessError: If the operating system denies access to it.
    """
    if path.suffix.lower() not in {".safetensors", ".pth"}:
        raise ModelError(f"{path}: expected encoder weights as .safetensors or .pth, found '{path.suffix}'.")
    if not is_file(path):
        why = absence(path).replace("file", "file of encoder weights", 1)
        raise ModelError(f"{path}: {why}. Weights are never downloaded: fetch them first.")
