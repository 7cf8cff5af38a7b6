"""Layers in the memory of a device: each scene is read once, and its patches are cut out there.

A scene is read by the function that reads a patch from disk, which treats every pixel by itself. So a patch that is cut
from it holds the same numbers, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.scenes import SceneWindow

PLACES = "places"
"""Key of a batch that names patches instead of holding them."""


class PlaceReader(Dataset[SceneWindow]):
    """Names the patches of a batch. Use it in a `DataLoader` with `as_read`."""

    def __init__(self, dataset: CoregisteredDataset) -> None:
        """Take a dataset.

        Args:
            dataset: Knows where a query lies.
        """
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, query: Any) -> SceneWindow:
        return self.dataset.located(query)

    def __getitems__(self, queries: Sequence[Any]) -> dict[str, Tensor]:
        """Find the patches of a batch.

        Args:
            queries: Queries of the dataset, of windows of one size.

        Returns:
            Under `PLACES`: scene, and row and column of the upper left pixel, all from 0, int64, shape (B, 3).

        Raises:
            IndexError: If a window reaches outside its scene.
        """
        found = [self.dataset.located(query) for query in queries]
        return {PLACES: torch.tensor([(scene, window.row_start, window.col_start) for scene, window in found])}


class LayersOnDevice:
    """Inputs of the networks and labels of whole scenes, in the memory of a device.

    Another process gets an object without pixels, which it loads on its own device.

    Attributes:
        scenes: Numbers of the scenes, from 0.
    """

    def __init__(self, scenes: Iterable[int]) -> None:
        """Name the scenes; nothing is read yet.

        Args:
            scenes: Numbers of the scenes from which patches are cut.
        """
        self.scenes = tuple(scenes)
        self._held: dict[int, dict[str, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"scenes": self.scenes, "_held": {}}

    @property
    def is_loaded(self) -> bool:
        """Whether the pixels are on the device."""
        return bool(self._held)

    def load(
        self,
        dataset: CoregisteredDataset,
        device: torch.device,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Read the scenes. Does nothing if they are loaded.

        Args:
            dataset: Reads them.
            device: Where they are kept.
            on_progress: Called with the numbers of finished and of all scenes.

        Raises:
            GeocrodinoError: One of its kinds, if a raster that is read in place cannot be read.
        """
        if self.is_loaded:
            return
        held = {}
        for done, number in enumerate(self.scenes, start=1):
            held[number] = _load_scene(dataset, number, device)
            on_progress(done, len(self.scenes))
        self._held = held

    def clear(self) -> None:
        """Give the memory back."""
        self._held = {}

    def cut(self, places: Tensor, patch_px: int) -> dict[str, Tensor]:
        """Cut the patches of a batch out of the scenes.

        Args:
            places: Scene, row and column of each patch, int64 on the CPU, shape (B, 3), see `PlaceReader`.
            patch_px: Side of a patch, px.

        Returns:
            The batch that `BatchReader` reads from disk, on the device.
        """
        chosen: list[tuple[int, int, int]] = places.tolist()
        batch = {}
        for name, layer in self._held[chosen[0][0]].items():
            parts = [_part(self._held[scene][name], row, col, patch_px) for scene, row, col in chosen]
            # Allocated first, because `torch.stack` may choose another memory layout.
            values = torch.empty((len(parts), *parts[0].shape), dtype=layer.dtype, device=layer.device)
            torch.stack(parts, out=values)
            batch[name] = values.to(torch.int64) if name == "labels" else values
        return batch


def bytes_on_device(shape: Sequence[int], channels: Collection[int]) -> int:
    """Compute how much memory a scene takes.

    Args:
        shape: Rows and columns of its grid.
        channels: Number of channels of each modality that it has.

    Returns:
        Bytes: for each pixel four of each channel, one of each modality that says where it is valid, and the label.
    """
    return math.prod(shape) * (1 + sum(4 * count + 1 for count in channels))


def _load_scene(dataset: CoregisteredDataset, number: int, device: torch.device) -> dict[str, Tensor]:
    """The sample of a whole scene, with labels in a byte each; a modality that the scene lacks takes no memory."""
    layers = dataset.scenes[number].layers
    lacking = {name for m in dataset.specs if m not in layers.modalities for name in (m, f"{m}_valid")}
    held = {}
    for name, (shape, dtype) in dataset.layout((layers.grid.shape[0], layers.grid.shape[1])).items():
        kind = torch.uint8 if name == "labels" else dtype
        held[name] = (
            torch.zeros((), dtype=kind, device=device).expand(shape)
            if name in lacking
            else torch.empty(shape, dtype=kind, device=device)
        )
    for block in layers.blocks():
        for name, values in dataset.read(block, number).items():
            if name not in lacking:
                target = held[name]
                (target[..., *block.slices] if target.ndim else target).copy_(values)
    return held


def _part(layer: Tensor, row: int, col: int, size_px: int) -> Tensor:
    """Cut a patch out of a layer. A single value, which holds for the whole scene, is returned as it is."""
    return layer[..., row : row + size_px, col : col + size_px] if layer.ndim else layer
