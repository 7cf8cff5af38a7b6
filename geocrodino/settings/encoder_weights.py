"""Files of encoder weights, apart from their reading: to look a name up needs no PyTorch."""

from __future__ import annotations

from pathlib import Path

from geocrodino.errors import ModelError
from geocrodino.files.access import absence, is_file


def check_weights_file(path: Path) -> None:
    """Check the name of a file of encoder weights, and that the file is there.

    Raises:
        ModelError: If it has another suffix, or is not there.
        AccessError: If the operating system does not let it be looked up.
    """
    if path.suffix.lower() not in {".safetensors", ".pth"}:
        raise ModelError(f"{path}: expected encoder weights as .safetensors or .pth, found '{path.suffix}'.")
    if not is_file(path):
        why = absence(path).replace("file", "file of encoder weights", 1)
        raise ModelError(f"{path}: {why}. Weights are never downloaded: fetch them first.")
