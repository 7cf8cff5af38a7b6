"""OpenVINO as inference backend: networks are converted once and kept on disk with PyTorch's result on a small tile.

PyTorch is imported only for the conversion.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.special import softmax

from geocrodino import __version__
from geocrodino.bundle.io import Bundle
from geocrodino.prediction.backends.comparison import ASKED_TOLERANCE, check_tile, difference, too_coarse
from geocrodino.prediction.backends.protocol import most_likely
from geocrodino.prediction.backends.threads import one_thread_per_network
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import BackendName

if TYPE_CHECKING:
    from geocrodino.prediction.backends.trimming import Trimmed

_cores: dict[int, Any] = {}  # by number of the process
_making_core = threading.Lock()

TOLERANCE = 1e-3
"""Largest difference of a probability from that of PyTorch. float32 stays below 5e-6 with trained networks and below
3e-4 with random ones of large logits; bfloat16 exceeds 4e-3."""
TOLERANCE_SHARE = 1e-3
"""Largest share of pixels with another class than with PyTorch."""

_KEPT_GRAPHS = 20  # 13 MB each with a ResNet-18
_FORM = 3  # counts changes of the graphs that networks are converted to
_TELEMETRY = "openvino_telemetry"


class UnusableError(Exception):
    """OpenVINO cannot replace PyTorch; the text gives the reason."""


class Graph(NamedTuple):
    """A converted network, and PyTorch's result to compare with.

    Attributes:
        xml: The graph, whose output are logits, as XML.
        weights: Bytes of the weights.
        trim_px: Pixels on each side of a tile that it leaves out.
        logits: PyTorch's logits of `check_tile`, float32, shape (K, H, W).
    """

    xml: bytes
    weights: bytes
    trim_px: int
    logits: NDArray[np.float32]


class OpenVinoBackend:
    """OpenVINO on the CPU, with one thread for each tile.

    Args:
        graph: A converted network.
        workers: Tiles computed at the same time; more callers wait.
        temperature: Divisor of the logits.
        half: Compute in bfloat16 instead of float32.
        int8: Whether the graph is quantised; its other operations compute in float32.
        takes_turns: Give back the memory of the feature maps after each tile, because another network computes next.
            A tile takes a tenth longer.
    """

    name: BackendName = "openvino"

    def __init__(
        self,
        graph: Graph,
        *,
        workers: int = 1,
        temperature: float = 1.0,
        half: bool = False,
        int8: bool = False,
        takes_turns: bool = False,
    ) -> None:
        self.trim_px = graph.trim_px
        self.number = "int8" if int8 else "bfloat16" if half else "float32"
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",  # otherwise the processor decides
            # Feature maps of a compiled network are given back all at once, so each tile at a time needs its own.
            "INFERENCE_NUM_THREADS": 1 if takes_turns else workers,
            "NUM_STREAMS": "1" if takes_turns else str(workers),
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same processors
        }
        self._core = core()
        self._model = _with_softmax(self._core.read_model(graph.xml, graph.weights), temperature)
        self._kind = _InTurns if takes_turns else _AtOnce
        self._compiling = threading.Lock()
        self._compiled: tuple[tuple[int, ...], _AtOnce | _InTurns | None] = ((), None)

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a tile, see `Backend`.

        Args:
            values: Normalised channels, float32, shape (C, H, W).

        Returns:
            float32, shape (K, H - 2 * trim_px, W - 2 * trim_px).
        """
        with self._inferred(values) as found:
            return found.copy()

    def classes(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Most likely classes of a tile, see `Backend`.

        Args:
            values: Normalised channels, float32, shape (C, H, W).

        Returns:
            uint8, shape (H - 2 * trim_px, W - 2 * trim_px).
        """
        with self._inferred(values) as found:
            return most_likely(found)

    @contextmanager
    def _inferred(self, values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Probabilities in OpenVINO's own memory, which the next call overwrites."""
        compiled = self._compiled_for(values.shape)
        with compiled.request() as request:
            request.infer({0: np.ascontiguousarray(values[None])}, share_inputs=True, share_outputs=True)
            yield request.get_output_tensor(0).data[0]

    def _compiled_for(self, shape: tuple[int, ...]) -> _AtOnce | _InTurns:
        """The network compiled for tiles of one shape; that for another shape is dropped, because it needs much memory.

        Compiled for one shape it needs a sixth less memory, and starts seconds sooner, than compiled for any.
        """
        with self._compiling:
            known, compiled = self._compiled
            if compiled is None or known != shape:
                self._compiled, compiled = ((), None), None  # frees memory before the next one needs it
                model = self._model.clone()
                model.reshape([1, *shape])
                compiled = self._kind(partial(self._core.compile_model, model, "CPU", self._settings))
                self._compiled = (shape, compiled)
            return compiled


class _AtOnce:
    """A network compiled once for all tiles that are computed at the same time, each by its own request.

    Args:
        compile_model: Compiles the network.

    Attributes:
        model: The compiled network.
        idle: Requests that nobody uses.
    """

    def __init__(self, compile_model: Callable[[], Any]) -> None:
        self.model = compile_model()
        self.idle: SimpleQueue[Any] = SimpleQueue()

    def request(self) -> AbstractContextManager[Any]:
        """Lend an inference request.

        Returns:
            Gives a request in a ``with`` block; no other thread uses it until the block ends.
        """
        return _lent(self.idle, self.model.create_infer_request)


class _InTurns:
    """A network compiled for each tile that is computed at the same time, so that its memory can be given back.

    Args:
        compile_model: Compiles the network.

    Attributes:
        idle: Compiled networks that nobody uses.
    """

    def __init__(self, compile_model: Callable[[], Any]) -> None:
        self._compile = compile_model
        self.idle: SimpleQueue[Any] = SimpleQueue()

    @contextmanager
    def request(self) -> Iterator[Any]:
        """Lend an inference request, and give back the memory of its feature maps afterwards.

        Yields:
            A request; no other thread uses it until the block ends.
        """
        with _lent(self.idle, self._compile) as model:
            request = model.create_infer_request()  # a request that is kept would keep its tiles
            yield request
            del request
            model.release_memory()


@contextmanager
def _lent(idle: SimpleQueue[Any], make: Callable[[], Any]) -> Iterator[Any]:
    """Lend what no thread uses, or a new one. After an error it is not lent again."""
    try:
        found = idle.get_nowait()
    except Empty:
        found = make()
    yield found
    idle.put(found)


def open_openvino(
    bundle: Bundle,
    modality: Modality,
    *,
    workers: int,
    temperature: float,
    half: bool,
    unused_px: int,
    takes_turns: bool,
    cache: Path | None,
) -> OpenVinoBackend:
    """Open a branch with OpenVINO: the graph on disk if it reproduces PyTorch's result, otherwise a new conversion.

    Args:
        bundle: The trained networks.
        modality: The modality of the branch.
        workers: Tiles computed at the same time.
        temperature: Divisor of the logits, above 0.
        half: Compute in bfloat16 instead of float32.
        unused_px: Width of the margin of tiles whose result is not needed.
        takes_turns: Give back the memory of the feature maps after each tile, see `OpenVinoBackend`.
        cache: Folder for converted networks, None for the default.

    Returns:
        The branch, ready to compute.

    Raises:
        UnusableError: If OpenVINO cannot run the network, or gives other probabilities than PyTorch.
    """

    def checked(graph: Graph) -> OpenVinoBackend:
        opened = partial(OpenVinoBackend, graph, workers=workers, temperature=temperature, takes_turns=takes_turns)
        tile = check_tile(len(bundle.manifest.modalities[modality].channels), graph.trim_px)
        expected = softmax(graph.logits / np.float32(temperature), axis=0)
        with told_as_unusable():
            backend = opened()
            apart, share = difference(backend(tile), expected)
        if not (apart <= TOLERANCE and share <= TOLERANCE_SHARE):
            raise UnusableError(
                f"their probabilities differ. Expected at most {TOLERANCE:g} and {TOLERANCE_SHARE:.1%} of pixels of "
                f"another class, found {apart:.2g} and {share:.1%}."
            )
        if not half:
            return backend
        with told_as_unusable():
            quick = opened(half=True)
            apart, _ = difference(quick(tile), expected)
        if not apart <= ASKED_TOLERANCE:
            raise UnusableError(too_coarse(modality, apart))
        return quick

    path, key = _graph_path(bundle, modality, unused_px, cache), _graph_key(bundle, modality, unused_px)
    kept = None if path is None else _read_graph(path, key)
    if kept is not None:
        with suppress(UnusableError):
            return checked(kept)
    graph = convert_branch(bundle, modality, unused_px)
    backend = checked(graph)
    if path is not None:
        with suppress(OSError):  # the cache only saves time: without it the next call converts again
            _write_graph(path, key, graph)
    return backend


def installed() -> bool:
    """Whether OpenVINO is installed.

    Returns:
        True if there is a package of that name; it is not imported.
    """
    return find_spec("openvino") is not None


def has_half() -> bool:
    """Whether the processor has bfloat16 instructions.

    Returns:
        True if it has.
    """
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@contextmanager
def told_as_unusable() -> Iterator[None]:
    """Turn any exception of OpenVINO or PyTorch into one error.

    Yields:
        Nothing.

    Raises:
        UnusableError: In place of the exception.
    """
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise UnusableError(f"it fails with {type(error).__name__}: {first}") from error


def convert_branch(bundle: Bundle, modality: Modality, unused_px: int) -> Graph:
    """Convert a branch of a bundle.

    Args:
        bundle: The trained networks.
        modality: The modality of the branch.
        unused_px: Width of the margin of tiles whose result is not needed.

    Returns:
        Its graph, with PyTorch's result.

    Raises:
        BundleError: If the bundle has no such branch.
        UnusableError: If OpenVINO cannot convert it.
    """
    from geocrodino.prediction.backends.trimming import Trimmed  # with PyTorch

    with one_thread_per_network():
        network = Trimmed(bundle.branch(modality), unused_px).eval()
        with told_as_unusable():
            return convert(network)


def convert(network: Trimmed) -> Graph:
    """Convert a network for images of any height and width.

    Args:
        network: The network, in evaluation mode.

    Returns:
        Its graph, with PyTorch's result.
    """
    import torch

    tile = torch.from_numpy(check_tile(network.in_channels, network.trim_px))[None]
    with torch.inference_mode():
        logits = network(tile)[0].numpy()
    ov = import_openvino()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # the tracer warns that checks of shapes are not traced
        # What the tracer would check takes three quarters of its time, and is compared with `logits` anyway.
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            network, tile.mT.contiguous(), check_trace=False
        )
        model = ov.convert_model(traced, input=[ov.PartialShape([1, network.in_channels, -1, -1])])
        file = Path(folder) / "graph.xml"
        ov.save_model(model, file, compress_to_fp16=False)
        return Graph(file.read_bytes(), file.with_suffix(".bin").read_bytes(), network.trim_px, logits)


def import_openvino() -> Any:
    """Import OpenVINO with its telemetry disabled; it reports each import and conversion otherwise.

    Returns:
        The module.
    """
    return import_quietly("openvino")


def core() -> Any:
    """The core of OpenVINO for this process, which is never given back.

    On processors with AMX, a core gives the thread that first uses it a stack for signals, and frees the stack in the
    thread that drops the core. If that is another thread, the next signal is written to freed memory: the process dies
    without a message, or goes on with wrong numbers.

    Returns:
        OpenVINO's core.
    """
    with _making_core:
        if os.getpid() not in _cores:  # the threads of a core do not exist in a copy of the process
            _cores[os.getpid()] = import_openvino().Core()
        return _cores[os.getpid()]


def import_quietly(name: str) -> Any:
    """Import a library of Intel with its telemetry disabled.

    Args:
        name: Name of the package.

    Returns:
        The module.
    """
    if name in sys.modules or _TELEMETRY in sys.modules:
        return importlib.import_module(name)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[_TELEMETRY]


def _with_softmax(logits: Any, temperature: float) -> Any:
    """The graph of logits, extended to probabilities."""
    ov = import_openvino()
    ops = importlib.import_module("openvino.opset13")
    scaled = ops.divide(logits.get_results()[0].input_value(0), ops.constant(np.float32(temperature)))
    return ov.Model([ops.softmax(scaled, axis=1)], logits.get_parameters())


def _graph_path(bundle: Bundle, modality: Modality, unused_px: int, folder: Path | None) -> Path | None:
    """File of the graph of a branch, None if there is no folder for it."""
    if folder is None:
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        try:
            folder = (named if named.is_absolute() else Path.home() / ".cache") / "geocrodino"
        except RuntimeError:  # a user without a home
            return None
    return folder / f"{bundle.sha256}-{modality}-{unused_px}-openvino-{version('openvino')}.safetensors"


def _graph_key(bundle: Bundle, modality: Modality, unused_px: int) -> str:
    """Everything that a graph depends on."""
    made_by = (f"{package} {version(package)}" for package in ("openvino", "torch"))
    own = f"geocrodino {__version__}, form {_FORM}"
    return ", ".join((bundle.sha256, modality, f"{unused_px} px unused", *made_by, own))


def _read_graph(path: Path, key: str) -> Graph | None:
    """The graph of a file, None if there is no such file, or a damaged one, or one of another network."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            graph = Graph(
                file.get_tensor("xml").tobytes(),
                file.get_tensor("weights").tobytes(),
                int(metadata["trim_px"]),
                file.get_tensor("logits"),
            )
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    return graph if metadata == _header(graph, key) else None


def _write_graph(path: Path, key: str, graph: Graph) -> None:
    """Write a graph in one step, and remove the oldest ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {
        "xml": np.frombuffer(graph.xml, np.uint8),
        "weights": np.frombuffer(graph.weights, np.uint8),
        "logits": graph.logits,
    }
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
        finished = Path(folder) / path.name
        finished.write_bytes(save(tensors, metadata=_header(graph, key)))
        finished.replace(path)
    kept = sorted(path.parent.glob("*-openvino-*.safetensors"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in kept[_KEPT_GRAPHS:]:
        old.unlink(missing_ok=True)


def _header(graph: Graph, key: str) -> dict[str, str]:
    parts = (graph.xml, graph.weights, graph.logits.tobytes())
    digest = hashlib.sha256(b"".join(b"%d %b" % (len(part), part) for part in parts))
    return {"key": key, "trim_px": str(graph.trim_px), "sha256": digest.hexdigest()}
