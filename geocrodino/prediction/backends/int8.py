"""Networks in whole numbers of 8 bits: made by NNCF from a converted network, computed by OpenVINO on the CPU.

Making one needs NNCF and tiles like those of the prediction; opening one from a bundle needs neither NNCF nor PyTorch.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError, ConfigError
from geocrodino.prediction.backends.comparison import ASKED_TOLERANCE, check_tile, difference
from geocrodino.prediction.backends.openvino import (
    Graph,
    OpenVinoBackend,
    UnusableError,
    core,
    import_openvino,
    import_quietly,
    told_as_unusable,
)
from geocrodino.settings.modality import Modality

EXTRA = 'pip install "geocrodino[int8]"'
"""Command that installs all that int8 networks need."""


def open_int8(
    bundle: Bundle, modality: Modality, *, workers: int, temperature: float, unused_px: int, takes_turns: bool
) -> OpenVinoBackend:
    """Open the int8 network of a branch.

    Args:
        bundle: The trained networks.
        modality: The modality of the branch.
        workers: Tiles computed at the same time.
        temperature: Divisor of the logits, above 0.
        unused_px: Width of the margin of tiles whose result is not needed.
        takes_turns: Give back the memory of the feature maps after each tile, see `OpenVinoBackend`.

    Returns:
        The network, ready to compute.

    Raises:
        BundleError: If the bundle has no int8 network of this branch, or none for so narrow a margin, or OpenVINO
            cannot run it or computes other probabilities than when it was made.
    """
    facts = bundle.manifest.int8.get(modality)
    again = f"`geocrodino quantise {bundle.path.parent}`"
    if facts is None:
        raise BundleError(
            f"{bundle.path}: expected an int8 network of the {modality} branch, found none.\n"
            f"Use `precision='full'`, or add one by {again}, which needs the run folder of the training and adds none "
            "that loses much accuracy."
        )
    if unused_px < facts.unused_px:
        raise BundleError(
            f"{bundle.path}: the int8 network of the {modality} branch was made for tiles with a margin of at least "
            f"{facts.unused_px} px, found {unused_px} px.\nUse `stitch='auto'`, or `precision='full'`."
        )
    tensors = bundle.int8_tensors(modality)
    tile = check_tile(len(bundle.manifest.modalities[modality].channels), facts.trim_px)
    try:
        with told_as_unusable():
            graph = Graph(
                tensors["xml"].tobytes(), tensors["weights"].tobytes(), facts.trim_px, tensors["logits"].astype("f4")
            )
            opened = OpenVinoBackend(
                graph, workers=workers, temperature=temperature, int8=True, takes_turns=takes_turns
            )
            apart, _ = difference(opened(tile), softmax(graph.logits / np.float32(temperature), axis=0))
        if not apart <= ASKED_TOLERANCE:
            raise UnusableError(
                f"its probabilities differ from those on the processor that made it. Expected at most "
                f"{ASKED_TOLERANCE:g}, found {apart:.2g}"
            )
    except UnusableError as error:
        raise BundleError(
            f"{bundle.path}: the int8 network of the {modality} branch cannot be used here: {error}.\n"
            f"Make it again here by {again}, or use `precision='full'`."
        ) from error
    return opened


def require_nncf() -> None:
    """Check that NNCF and OpenVINO are installed; they are not imported.

    Raises:
        ConfigError: If one of them is missing.
    """
    missing = [name for name in ("nncf", "openvino") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"int8 networks are made by NNCF. Expected the packages nncf and openvino, found no {missing[0]}.\n"
            f"Install them by {EXTRA}."
        )


def quantise_graph(graph: Graph, tiles: Sequence[NDArray[np.float32]]) -> Graph:
    """Make the int8 network of a converted network.

    Weights get one scale for each output channel, activations one for each tensor; the ranges of activations, and the
    correction of biases, are measured on the tiles.

    Args:
        graph: A converted network.
        tiles: Normalised channels, float32, each (C, H, W), H and W multiples of the stride above ``2 * trim_px``.

    Returns:
        The int8 network, with its own logits of the tile of comparison. The same tiles give the same bytes on one kind
        of processor.

    Raises:
        ConfigError: If NNCF is not installed, or its version does not fit that of OpenVINO.
        UnusableError: If NNCF or OpenVINO cannot convert the network.
    """
    require_nncf()
    ov, nncf = import_openvino(), _import_nncf()
    nncf.set_log_level(logging.ERROR)
    with told_as_unusable(), contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars
        quantised = nncf.quantize(
            core().read_model(graph.xml, graph.weights),
            nncf.Dataset([np.ascontiguousarray(tile[None]) for tile in tiles]),
            subset_size=len(tiles),
            **_settings(nncf),
        )
        xml, weights = _serialised(ov, quantised)
        made = Graph(xml, weights, graph.trim_px, graph.logits)
        channels = int(quantised.inputs[0].get_partial_shape()[1].get_length())
        return made._replace(logits=_logits(made, check_tile(channels, graph.trim_px)))


def tensors_of(graph: Graph) -> dict[str, NDArray[np.generic]]:
    """The tensors that store an int8 network in a bundle.

    Args:
        graph: The int8 network.

    Returns:
        ``xml`` and ``weights``, uint8, shape (bytes,), and ``logits``, float32, shape (K, H, W).
    """
    return {
        "xml": np.frombuffer(graph.xml, np.uint8),
        "weights": np.frombuffer(graph.weights, np.uint8),
        "logits": graph.logits,
    }


def _import_nncf() -> Any:
    """NNCF, which relies on names that older versions of OpenVINO lack."""
    try:
        return import_quietly("nncf")
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"nncf {version('nncf')} and openvino {version('openvino')} do not work together: {error}.\n"
            'Install versions that do by pip install --upgrade "geocrodino[int8]".'
        ) from error


def _settings(nncf: Any) -> dict[str, Any]:
    return {"preset": nncf.QuantizationPreset.PERFORMANCE, "target_device": nncf.TargetDevice.CPU}


def _serialised(ov: Any, model: Any) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.xml"
        ov.save_model(model, file, compress_to_fp16=False)
        return file.read_bytes(), file.with_suffix(".bin").read_bytes()


def _logits(graph: Graph, tile: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of a tile, computed as predictions compute them."""
    model = core().read_model(graph.xml, graph.weights)
    model.reshape([1, *tile.shape])
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: NDArray[np.float32] = compiled(tile[None])[0][0].copy()
    return found
