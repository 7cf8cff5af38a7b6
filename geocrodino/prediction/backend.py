"""What computes the class probabilities of a tile: PyTorch on any device, OpenVINO on processors where it is installed.

Both give the same probabilities but for rounding, and OpenVINO is compared with PyTorch on a small tile each time that
it is opened. With one thread for each call, neither result depends on how many threads call.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import math
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BackendWarning, BundleError, ConfigError
from geocrodino.geo.modality import Modality
from geocrodino.prediction.options import BackendName, Precision
from geocrodino.prediction.trimming import Trimmed

TOLERANCE = 1e-3
"""Largest difference of a probability from PyTorch's. float32 stays below 5e-6 with trained networks and 3e-4 with
random ones of large logits; bfloat16 exceeds 4e-3."""
TOLERANCE_SHARE = 1e-3
"""Largest share of pixels of another class than PyTorch's."""

_HALF_TOLERANCE = 2e-2  # a float16 pass differs by 4e-3 with trained networks
_ASKED_TOLERANCE = 0.25  # bfloat16 differs by up to 0.1 with random ones; beyond this something overflows
_CHECK_SHAPE = (128, 160)  # multiples of every stride; two sides that cannot be taken for each other
_KEPT_GRAPHS = 20  # 13 MB each with the default network
_TELEMETRY = "openvino_telemetry"


class Backend(Protocol):
    """Computes class probabilities of tiles; may be called from several threads at once.

    Attributes:
        name: ``torch`` or ``openvino``.
        number: What it computes in: ``float32``, ``float16`` or ``bfloat16``.
        trim_px: Pixels on each side of a tile that it gives no answer for.
    """

    name: BackendName
    number: str
    trim_px: int

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a tile.

        Args:
            values: Normalised channels, float32, shape (C, H, W), H and W multiples of the network's stride.

        Returns:
            softmax(logits / temperature), float32, shape (K, H - 2 * trim_px, W - 2 * trim_px), an array of the
            caller's own.
        """
        ...


def open_backend(
    bundle: Bundle,
    modality: Modality,
    *,
    name: BackendName = "auto",
    device: str = "cpu",
    workers: int = 1,
    temperature: float = 1.0,
    precision: Precision = "auto",
    unused_px: int = 0,
    cache: Path | None = None,
) -> Backend:
    """Make a branch of a bundle ready to predict.

    Args:
        bundle: The trained networks.
        modality: Which of them to use.
        name: What computes.
        device: Torch device.
        workers: Tiles computed at the same time.
        temperature: Divides the logits, above 0.
        precision: What to compute in.
        unused_px: Margin of the tiles whose answer is not wanted; what can be saved there is not computed.
        cache: Folder for networks converted to OpenVINO, ``$XDG_CACHE_HOME/geocrodino`` or ``~/.cache/geocrodino`` by
            default. Where nothing can be written, each call converts again.

    Raises:
        BundleError: If the bundle has no such branch, or OpenVINO, asked for by name, cannot run it or computes
            other probabilities than PyTorch, or half precision, asked for, changes them beyond use.
        ConfigError: If OpenVINO is asked for by name and not installed, or for another device than the CPU, or the
            processor has no half precision.
        ValueError: If a name is unknown or a number is out of its range.

    Warns:
        BackendWarning: If ``auto`` takes PyTorch because OpenVINO cannot run the network or computes other
            probabilities.
    """
    if name not in get_args(BackendName):
        raise ValueError(f"backend must be one of {', '.join(get_args(BackendName))}, found {name!r}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, found {precision!r}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, found {workers}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be above 0, found {temperature}")
    bundle.require(modality)
    network = Trimmed(bundle.branch(modality), unused_px).eval()
    if name == "torch" or (name == "auto" and not (_on_cpu(device) and _installed())):
        return _open_torch(bundle, modality, network, torch.device(device), temperature, precision)
    _require_openvino(device)
    half = precision == "half"
    if half and not _openvino_has_half():
        if name == "openvino":
            raise _no_half_precision(device)
        return _open_torch(bundle, modality, network, torch.device(device), temperature, precision)
    plain = _open_torch(bundle, modality, network, torch.device(device), temperature, "full")
    path = _graph_path(bundle, modality, network.trim_px, cache)
    try:
        return _open_openvino(bundle, modality, network, plain, workers, temperature, path, half=half)
    except _UnusableError as error:
        told = f"{bundle.path}: OpenVINO cannot stand in for PyTorch with the {modality} branch: {error}"
        if name == "openvino":
            raise BundleError(f"{told}\nUse --backend torch.") from error
        warnings.warn(f"{told}\nPyTorch is used instead and takes longer.", BackendWarning, stacklevel=2)
        if half:
            return _open_torch(bundle, modality, network, torch.device(device), temperature, precision)
        return plain


class TorchBackend:
    """PyTorch, float32 unless told otherwise.

    Args:
        network: Maps (1, C, H, W) to logits (1, K, H, W), less ``trim_px`` on each side; moved to the device, its
            weights laid out channels last.
        device: Where to compute.
        temperature: Divides the logits.
        half: A type of half precision to compute in where that is safe (autocast), None for float32.
        trim_px: What the network leaves out on each side.
    """

    name: BackendName = "torch"

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        temperature: float = 1.0,
        half: torch.dtype | None = None,
        trim_px: int = 0,
    ) -> None:
        self.trim_px = trim_px
        self._network = network.eval().to(device).to(memory_format=torch.channels_last)
        self._device = device
        self._temperature = temperature
        self._half = half
        self.number = str(half or torch.float32).removeprefix("torch.")

    @torch.inference_mode()
    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a tile, see ``Backend``."""
        images = torch.from_numpy(values)[None]
        if self._device.type == "cuda":
            images = images.pin_memory()
        images = images.to(self._device, non_blocking=True, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, dtype=self._half, enabled=self._half is not None):
            logits: Tensor = self._network(images)[0]
        found: NDArray[np.float32] = _to_host(logits.float().div(self._temperature).softmax(dim=0)).numpy()
        return found


class Graph(NamedTuple):
    """A network as OpenVINO keeps it: the graph as XML, and the weights that it points into."""

    xml: bytes
    weights: bytes


class OpenVinoBackend:
    """OpenVINO on the CPU, with one thread for each tile.

    Args:
        graph: A network that gives logits.
        workers: Tiles computed at the same time; further callers wait.
        temperature: Divides the logits.
        half: Compute in bfloat16 instead of float32.
        trim_px: What the network leaves out on each side.
    """

    name: BackendName = "openvino"

    def __init__(
        self, graph: Graph, *, workers: int = 1, temperature: float = 1.0, half: bool = False, trim_px: int = 0
    ) -> None:
        core = _openvino().Core()
        self.trim_px = trim_px
        self.number = "bfloat16" if half else "float32"
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",  # said, or else the processor decides
            "INFERENCE_NUM_THREADS": workers,
            "NUM_STREAMS": str(workers),
            "ENABLE_CPU_PINNING": False,  # two processes would settle on the same processors
        }
        logits = core.read_model(graph.xml, graph.weights)
        self._compiled = core.compile_model(_with_softmax(logits, temperature), "CPU", settings)
        self._local = threading.local()

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a tile, see ``Backend``."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        request.infer({0: np.ascontiguousarray(values[None])}, share_inputs=True)
        found: NDArray[np.float32] = request.get_output_tensor(0).data[0].copy()
        return found


def fold_batch_norm(network: nn.Module, probe: Tensor) -> nn.Module:
    """Let convolutions do the work of the batch normalisations that follow them.

    Args:
        network: Any network, in evaluation mode, float32, on the CPU; left as it is.
        probe: An input to follow through the network.

    Returns:
        A network with the same output but for rounding; the one given where folding would change more.
    """
    folded = copy.deepcopy(network)
    places = {child: (parent, name) for parent in folded.modules() for name, child in parent.named_children()}
    for convolution, norm in _folding_pairs(folded, probe):
        # In double precision, so that the folded weights are rounded once.
        fused = fuse_conv_bn_eval(convolution.double(), norm.double()).float()
        setattr(*places[convolution], fused)
        setattr(*places[norm], _after_norm(norm))
    with torch.inference_mode():
        expected, found = network(probe), folded(probe)
    same = torch.allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    return folded if same else network


@torch.no_grad()
def _folding_pairs(network: nn.Module, probe: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Batch normalisations with the convolution that made what they read, as seen while the network runs."""
    made: dict[int, tuple[nn.Conv2d, int, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note_output(module: nn.Conv2d, _: object, output: Tensor) -> None:
        made[id(output)] = (module, output._version, output)  # held, so that its id stays its own

    def note_input(module: nn.BatchNorm2d, given: tuple[Tensor, ...]) -> None:
        maker, unchanged, _ = made.get(id(given[0]), (None, -1, None))
        if maker is not None and given[0]._version == unchanged:
            pairs.append((maker, module))

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(note_output))
        elif type(module) in {nn.BatchNorm2d, BatchNormAct2d}:
            hooks.append(module.register_forward_pre_hook(note_input))
    network(probe)
    for hook in hooks:
        hook.remove()
    return pairs


def _after_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """What a normalisation does beside normalising."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _open_torch(
    bundle: Bundle, modality: Modality, network: Trimmed, device: torch.device, temperature: float, precision: Precision
) -> TorchBackend:
    tile = _check_tile(network)
    opened = partial(
        TorchBackend,
        fold_batch_norm(network, torch.from_numpy(tile)[None]),
        device=device,
        temperature=temperature,
        trim_px=network.trim_px,
    )
    plain = opened()
    half = None if precision == "full" else _half_precision(device, asked=precision == "half")
    if half is None:
        return plain
    quick = opened(half=half)
    difference = _difference(quick(tile), plain(tile))[0]
    if precision == "auto":
        return quick if difference <= _HALF_TOLERANCE else plain
    if not difference <= _ASKED_TOLERANCE:
        raise BundleError(f"{bundle.path}: {_too_coarse(modality, difference)}\nUse --precision full.")
    return quick


def _half_precision(device: torch.device, *, asked: bool) -> torch.dtype | None:
    """The type that is quick on a device, where there is one.

    The rounding of float16 changes ten times fewer pixels than bfloat16's, which is therefore for those who ask for it.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return torch.float16
    if asked and device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    if asked:
        raise _no_half_precision(str(device))
    return None


def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; elsewhere PyTorch computes it the long way round."""
    known = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile"))
    with_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return with_onednn and any(test is not None and test() for test in known)


def _openvino_has_half() -> bool:
    return "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _no_half_precision(device: str) -> ConfigError:
    return ConfigError(
        f"--precision half: {device} has no half precision that is quicker. Expected a CPU with bfloat16 (AVX-512) or "
        "a GPU of compute capability 7.0 or newer.\nUse --precision full."
    )


def _too_coarse(modality: Modality, difference: float) -> str:
    return (
        f"half precision is too coarse for the {modality} branch. Expected probabilities that differ by at most "
        f"{_ASKED_TOLERANCE:g}, found {difference:.2g}."
    )


def _to_host(found: Tensor) -> Tensor:
    """A copy in memory that a GPU writes to by itself, or the tensor where it is there already."""
    if found.device.type != "cuda":
        return found.cpu()
    host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
    host.copy_(found, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(found.device))
    done.synchronize()
    return host


class _UnusableError(Exception):
    """OpenVINO cannot stand in for PyTorch; the text says why."""


def _open_openvino(
    bundle: Bundle,
    modality: Modality,
    network: Trimmed,
    plain: TorchBackend,
    workers: int,
    temperature: float,
    path: Path | None,
    *,
    half: bool,
) -> OpenVinoBackend:
    """The graph on disk where it computes what PyTorch does, else one converted now and kept."""
    tile = _check_tile(network)
    expected = plain(tile)
    opened = partial(OpenVinoBackend, workers=workers, temperature=temperature, trim_px=network.trim_px)

    def checked(graph: Graph) -> OpenVinoBackend:
        with _told_as_unusable():
            backend = opened(graph)
            found = backend(tile)
        difference, share = _difference(found, expected)
        if not (difference <= TOLERANCE and share <= TOLERANCE_SHARE):
            raise _UnusableError(
                f"their probabilities differ. Expected at most {TOLERANCE:g} and {TOLERANCE_SHARE:.1%} of pixels of "
                f"another class, found {difference:.2g} and {share:.1%}."
            )
        if not half:
            return backend
        with _told_as_unusable():
            quick = opened(graph, half=True)
            difference, _ = _difference(quick(tile), expected)
        if not difference <= _ASKED_TOLERANCE:
            raise _UnusableError(_too_coarse(modality, difference))
        return quick

    key = _graph_key(bundle, modality, network.trim_px)
    kept = None if path is None else _read_graph(path, key)
    if kept is not None:
        with suppress(_UnusableError):
            return checked(kept)
    with _told_as_unusable():
        graph = _convert(network)
    backend = checked(graph)
    if path is not None:
        with suppress(OSError):  # an optimisation alone: the next call converts again
            _write_graph(path, key, graph)
    return backend


@contextmanager
def _told_as_unusable() -> Iterator[None]:
    """Whatever another library raises on a network that it does not know becomes one error."""
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise _UnusableError(f"it fails with {type(error).__name__}: {first}") from error


def _convert(network: Trimmed) -> Graph:
    """The graph of a network that gives logits of an image of any height and width."""
    ov = _openvino()
    example = torch.from_numpy(_check_tile(network).swapaxes(1, 2).copy())[None]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # checks of the shape are not traced
        model = ov.convert_model(
            network, example_input=example, input=[ov.PartialShape([1, network.in_channels, -1, -1])]
        )
        file = Path(folder) / "graph.xml"
        ov.save_model(model, file, compress_to_fp16=False)
        return Graph(file.read_bytes(), file.with_suffix(".bin").read_bytes())


def _with_softmax(logits: Any, temperature: float) -> Any:
    """A graph that goes on to probabilities."""
    ov = _openvino()
    ops = importlib.import_module("openvino.opset13")
    scaled = ops.divide(logits.get_results()[0].input_value(0), ops.constant(np.float32(temperature)))
    return ov.Model([ops.softmax(scaled, axis=1)], logits.get_parameters())


def _check_tile(network: Trimmed) -> NDArray[np.float32]:
    """Random values of a tile whose answer has the shape that is compared."""
    height, width = (side + 2 * network.trim_px for side in _CHECK_SHAPE)
    return np.random.default_rng(0).standard_normal((network.in_channels, height, width), np.float32)


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Largest difference of a probability, NaN if there is one, and share of pixels of another class."""
    other = found.argmax(axis=0) != expected.argmax(axis=0)
    return float(np.abs(found - expected).max()), float(other.mean())


def _on_cpu(device: str) -> bool:
    return torch.device(device).type == "cpu"


def _installed() -> bool:
    return find_spec("openvino") is not None


def _require_openvino(device: str) -> None:
    if not _on_cpu(device):
        raise ConfigError(
            f"The backend openvino computes on the CPU. Expected device cpu, found {device}.\nUse --backend torch."
        )
    if not _installed():
        raise ConfigError(
            "The backend openvino is not installed. Expected the package openvino, found none.\n"
            'Install it by pip install "geocrodino[openvino]", or use --backend torch.'
        )


def _openvino() -> Any:
    """The library, which tells its makers of each import and conversion wherever its package for that is found."""
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]


def _graph_path(bundle: Bundle, modality: Modality, trim_px: int, folder: Path | None) -> Path | None:
    """Where the graph of a branch is kept, None where there is no such place."""
    if folder is None:
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        try:
            folder = (named if named.is_absolute() else Path.home() / ".cache") / "geocrodino"
        except RuntimeError:  # a user without a home
            return None
    return folder / f"{bundle.sha256}-{modality}-{trim_px}-openvino-{version('openvino')}.safetensors"


def _graph_key(bundle: Bundle, modality: Modality, trim_px: int) -> str:
    """What a graph depends on."""
    made_by = (f"{package} {version(package)}" for package in ("openvino", "torch", "geocrodino"))
    return ", ".join((bundle.sha256, modality, f"trimmed by {trim_px} px", *made_by))


def _read_graph(path: Path, key: str) -> Graph | None:
    """The graph of a file, None if there is no such file, or a damaged one, or one of another network."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            graph = Graph(*(file.get_tensor(name).tobytes() for name in Graph._fields))
    except (SafetensorError, OSError):
        return None
    return graph if metadata == {"key": key, "sha256": _graph_digest(graph)} else None


def _write_graph(path: Path, key: str, graph: Graph) -> None:
    """Write a graph in one step, and forget the oldest ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.frombuffer(part, np.uint8) for name, part in graph._asdict().items()}
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as folder:
        finished = Path(folder) / path.name
        finished.write_bytes(save(tensors, metadata={"key": key, "sha256": _graph_digest(graph)}))
        finished.replace(path)
    kept = sorted(path.parent.glob("*-openvino-*.safetensors"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in kept[_KEPT_GRAPHS:]:
        old.unlink(missing_ok=True)


def _graph_digest(graph: Graph) -> str:
    return hashlib.sha256(b"%d %b%b" % (len(graph.xml), graph.xml, graph.weights)).hexdigest()
