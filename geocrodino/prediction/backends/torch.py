"""PyTorch as inference backend: single tiles on a CPU, batches on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geocrodino.bundle.io import Bundle
from geocrodino.errors import BundleError
from geocrodino.models.bfloat16 import has_bfloat16
from geocrodino.prediction.backends.batching import Batches
from geocrodino.prediction.backends.comparison import (
    ASKED_TOLERANCE,
    check_tile,
    difference,
    no_half_precision,
    too_coarse,
)
from geocrodino.prediction.backends.threads import on_gpu_thread, one_thread_per_network
from geocrodino.prediction.backends.trimming import Trimmed
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import BackendName, Precision

_HALF_TOLERANCE = 2e-2  # a float16 pass differs by 4e-3 with trained networks


class TorchBackend:
    """PyTorch, in float32 or half precision.

    Args:
        network: Maps (B, C, H, W) to logits (B, K, H, W), less ``trim_px`` on each side; moved to the device, its
            weights in the memory format channels last.
        device: Device to compute on.
        temperature: Divisor of the logits.
        half: Type of half precision to compute in where autocast allows it, None for float32.
        trim_px: Pixels on each side that the network leaves out.
        batch: Tiles in one call of the network. Smaller batches are filled with zeros, because the number of tiles
            affects how a convolution is carried out, and so its last digits.
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
        batch: int = 1,
    ) -> None:
        self.trim_px = trim_px
        self._batch = batch
        self._network = network.eval().to(device).to(memory_format=torch.channels_last)
        self._device = device
        self._temperature = temperature
        self._half = half
        self.number = str(half or torch.float32).removeprefix("torch.")
        probabilities, classes = self._probabilities, self._classes
        if device.type == "cuda":
            probabilities = on_gpu_thread(probabilities, str(device))
            classes = on_gpu_thread(classes, str(device))
        self._probabilities_of, self._classes_of = Batches(probabilities, batch), Batches(classes, batch)

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a tile, see `Backend`.

        Args:
            values: Normalised channels, float32, shape (C, H, W).

        Returns:
            float32, shape (K, H - 2 * trim_px, W - 2 * trim_px).
        """
        return self._probabilities_of(values)

    def classes(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Most likely classes of a tile, see `Backend`; computed on the device, which returns one byte a pixel.

        Args:
            values: Normalised channels, float32, shape (C, H, W).

        Returns:
            uint8, shape (H - 2 * trim_px, W - 2 * trim_px).
        """
        return self._classes_of(values)

    @torch.inference_mode()
    def _probabilities(self, tiles: Sequence[NDArray[np.float32]]) -> Sequence[NDArray[np.float32]]:
        return [found.numpy() for found in _to_host(self._softmax(tiles))]

    @torch.inference_mode()
    def _classes(self, tiles: Sequence[NDArray[np.float32]]) -> Sequence[NDArray[np.uint8]]:
        # From probabilities, not logits: if two are equal after rounding, the first one counts. `argmax` takes ten
        # times as long on a CPU.
        return [found.numpy() for found in _to_host(self._softmax(tiles).max(dim=1).indices.to(torch.uint8))]

    def _softmax(self, tiles: Sequence[NDArray[np.float32]]) -> Tensor:
        """Probabilities on the device, shape (B, K, H, W) for B tiles."""
        images = torch.zeros((self._batch, *tiles[0].shape), pin_memory=self._device.type == "cuda")
        for place, tile in zip(images, tiles, strict=False):
            place.copy_(torch.from_numpy(tile))
        images = images.to(self._device, non_blocking=True, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, dtype=self._half, enabled=self._half is not None):
            logits: Tensor = self._network(images)[: len(tiles)]
        return logits.float().div(self._temperature).softmax(dim=1)


@one_thread_per_network()
def open_torch(
    bundle: Bundle,
    modality: Modality,
    *,
    device: str,
    temperature: float,
    precision: Precision,
    unused_px: int,
    batch: int,
) -> TorchBackend:
    """Open a branch with PyTorch.

    Args:
        bundle: The trained networks.
        modality: The modality of the branch.
        device: Torch device.
        temperature: Divisor of the logits, above 0.
        precision: Numbers to compute in.
        unused_px: Width of the margin of tiles whose result is not needed.
        batch: Tiles in one call of the network.

    Returns:
        The branch, ready to compute.

    Raises:
        BundleError: If the bundle has no such branch, or half precision, requested by name, is too inaccurate.
        ConfigError: If half precision is requested and the device has none that is faster.
    """
    network = Trimmed(bundle.branch(modality), unused_px).eval()
    tile, where = check_tile(network.in_channels, network.trim_px), torch.device(device)
    opened = partial(
        TorchBackend,
        fold_batch_norm(network, torch.from_numpy(tile)[None]),
        device=where,
        temperature=temperature,
        trim_px=network.trim_px,
        batch=batch,
    )
    plain = opened()
    half = None if precision == "full" else _half_precision(where, asked=precision == "half")
    if half is None:
        return plain
    quick = opened(half=half)
    apart = difference(quick(tile), plain(tile))[0]
    if precision == "auto":
        return quick if apart <= _HALF_TOLERANCE else plain
    if not apart <= ASKED_TOLERANCE:
        raise BundleError(f"{bundle.path}: {too_coarse(modality, apart)}\nUse `precision='full'`.")
    return quick


def fold_batch_norm(network: nn.Module, probe: Tensor) -> nn.Module:
    """Fold batch normalisations into the convolutions before them.

    Args:
        network: Any network, in evaluation mode, float32, on the CPU; not changed.
        probe: Input that is followed through the network, shape (B, C, H, W).

    Returns:
        A network with the same output apart from rounding; the given one if folding would change more.
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
    """Batch normalisations with the convolution whose output they read, observed while the network runs."""
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
    """The dropout and activation of a normalisation layer."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _half_precision(device: torch.device, *, asked: bool) -> torch.dtype | None:
    """The type of half precision that is faster on a device, None if there is none.

    The rounding of float16 changes ten times fewer pixels than that of bfloat16, which is therefore used only on
    request.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return torch.float16
    if asked and device.type == "cpu" and has_bfloat16(device):
        return torch.bfloat16
    if asked:
        raise no_half_precision(str(device))
    return None


def _to_host(found: Tensor) -> Tensor:
    """A copy in pinned memory, which a GPU writes directly; the tensor itself if it is on the CPU."""
    if found.device.type != "cuda":
        return found.cpu()
    host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
    host.copy_(found, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(found.device))
    done.synchronize()
    return host
