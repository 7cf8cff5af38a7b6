"""The scenes of a training: each with its own grid, aligned layers, labels and splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.held_labels import HeldLabels, part_of, unpacked
from geocrodino.geo.rasters.window import Window
from geocrodino.settings.modality import Modality


class SceneWindow(NamedTuple):
    """A window of one of several scenes.

    Attributes:
        scene: Number of the scene, from 0.
        window: Pixels of its grid.
    """

    scene: int
    window: Window


class Layers(Protocol):
    """The rasters of a scene on its grid, wherever they are stored."""

    @property
    def grid(self) -> GeoBox:
        """The working grid of the scene, H rows and W columns."""
        ...

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the scene has."""
        ...

    def read(self, modality: Modality, window: Window) -> NDArray[np.float32]:
        """Read the channels of a window inside the grid.

        Args:
            modality: One of `modalities`.
            window: A window inside the grid, h x w px.

        Returns:
            Channels in physical units, float32, shape (C, h, w), NaN where invalid.
        """
        ...

    def class_indices(self) -> NDArray[np.uint8]:
        """Get the class indices of the scene.

        Returns:
            Class indices, uint8, shape (H, W), 255 without a label.
        """
        ...

    def blocks(self) -> Iterator[Window]:
        """Cover the grid with windows, row by row.

        Yields:
            Windows of a size that is read at once.
        """
        ...

    def files(self) -> dict[str, str]:
        """Name the files of the layers.

        Returns:
            The file of each modality, and that of ``labels``.
        """
        ...


@dataclass(frozen=True)
class AlignedScene:
    """A scene of a training, as batches are read from it.

    Attributes:
        name: Name of the scene; empty in a training on one scene.
        layers: Its rasters on its grid.
        held: Class indices that may be used, uint8, shape (H, W): 255 outside ``train`` and ``val``; None: all those of
            the layers, read when they are needed.
        inside: Pixels that lie wholly inside each split, bool, shape (H, W); only splits that the scene has.
    """

    name: str
    layers: Layers
    held: HeldLabels | None
    inside: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(cls, layers: Layers) -> AlignedScene:
        """Take the layers of one scene, with all of its labels and without splits.

        Args:
            layers: The layers.

        Returns:
            The scene, without a name.
        """
        return cls("", layers, None, {})

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Class indices that may be used, uint8, shape (H, W): 255 outside ``train`` and ``val``."""
        return self.layers.class_indices() if self.held is None else unpacked(self.held)

    def labels_in(self, window: Window) -> NDArray[np.uint8]:
        """Get the class indices of a window that may be used, without decompressing those of the whole scene.

        Args:
            window: A window inside the grid, h x w px.

        Returns:
            Class indices, uint8, shape (h, w), 255 without a label.
        """
        return self.layers.class_indices()[window.slices] if self.held is None else part_of(self.held, window)

    @property
    def grid(self) -> GeoBox:
        """The grid of the scene."""
        return self.layers.grid

    def pixels_of(self, split: str) -> NDArray[np.bool_]:
        """Get the pixels of a split.

        Args:
            split: Name of the split.

        Returns:
            Bool, shape (H, W), read-only; all False where the scene has no such split.
        """
        shape = tuple(self.grid.shape)
        found = self.inside.get(split)
        return np.broadcast_to(np.False_, shape) if found is None else found
