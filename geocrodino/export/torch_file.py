"""Files of ``torch.export``: writing them, and running them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic_core import to_json

METADATA_FILE = "mlm-metadata"
"""Name of the properties of the MLM extension inside the file; the package stac-model uses the same."""


def write_program(program: torch.export.ExportedProgram, path: Path, properties: Mapping[str, Any]) -> None:
    """Write a traced network.

    Args:
        program: The traced network.
        path: The file to write, ``*.pt2``.
        properties: Properties of the MLM extension, which the file holds as JSON under ``properties``.
    """
    # Scores that do not exist are NaN, which JSON does not have.
    text = to_json({"properties": dict(properties)}, inf_nan_mode="null").decode()
    # A file would name its contents after its own preliminary name.
    whole = io.BytesIO()
    torch.export.save(program, whole, extra_files={METADATA_FILE: text})
    path.write_bytes(whole.getbuffer())


def program_runner(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Open a file of ``torch.export``, on the CPU.

    Args:
        path: The file, written by `write_program`.

    Returns:
        A function that runs it: values of shape (B, C, H, W) to probabilities of shape (B, K, H, W).
    """
    module = torch.export.load(path).module()

    def run(values: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(torch.from_numpy(values)).numpy()
        return found

    return run
