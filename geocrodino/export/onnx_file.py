"""ONNX files: writing them, and running them in ONNX Runtime.

PyTorch is imported only when it is needed, so that a missing package is named at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import ConfigError

if TYPE_CHECKING:
    import torch

EXTRA = 'pip install "geocrodino[onnx]"'
"""Command that installs all that an export to ONNX needs."""

OPSET = 18
"""Version of the operators: the lowest that torch's exporter writes itself."""

IR_VERSION = 8
"""Version of the file format that came with this opset; ONNX Runtime reads both from 1.14."""

INPUT, OUTPUT = "values", "probabilities"
"""Names of the input and the output of the graph."""

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def require_onnx() -> None:
    """Check that the packages for an export to ONNX are installed; they are not imported.

    Raises:
        ConfigError: If one of them is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"`format='onnx'` needs the packages {', '.join(_PACKAGES[:-1])} and {_PACKAGES[-1]}. Expected all three, "
            f"found no {' and no '.join(missing)}.\nInstall them by {EXTRA}."
        )


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a traced network as an ONNX file.

    Args:
        program: The traced network, with one input and one output.
        path: The file to write.
        metadata: Text by key for ``metadata_props`` of the file.

    Raises:
        RuntimeError: If the exporter gives no program.
    """
    import onnx
    import torch

    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: batch},),
        opset_version=OPSET,
        verbose=False,
    )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = exported.model_proto
    _forget_source(model.graph.node, *(function.node for function in model.functions))
    model.ir_version = IR_VERSION
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _forget_source(*lists: Iterable[Any]) -> None:
    """Drop the lines of source code that the exporter notes, with paths of this machine."""
    for nodes in lists:
        for node in nodes:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")


def onnx_runner(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Open an ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: The file.

    Returns:
        A function that runs it: values of shape (B, C, H, W) to probabilities of shape (B, K, H, W).
    """
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(values: NDArray[np.float32]) -> NDArray[np.float32]:
        (found,) = session.run([OUTPUT], {INPUT: values})
        return np.asarray(found, np.float32)

    return run
