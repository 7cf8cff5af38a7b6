"""A TorchGeo dataset of aligned layers: index and queries are TorchGeo's, pixels are read by window."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torchgeo.datasets import GeoDataset

from geocrodino.data.alignment import AlignedLayers
from geocrodino.geo.rasters.grid import crs_of
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.settings.modality import Modality

_ALWAYS = (pd.Timestamp("1970-01-01"), pd.Timestamp("2200-01-01"))


class CoregisteredDataset(GeoDataset):
    """Modalities and labels of one scene on one grid.

    It works with TorchGeo's samplers and set operations: ``index`` has one row for the scene, with a column for the
    file of each layer. A `Window` of the grid can be used as a query too, without rounding of coordinates.

    A sample is a dict: for each modality the network's input, float32, shape (C, H, W), 0 where invalid, and
    ``<modality>_valid``, bool, shape (H, W); ``labels``, int64, shape (H, W), 255 without a label.
    """

    def __init__(
        self,
        layers: AlignedLayers,
        specs: dict[Modality, ModalitySpec],
        labels: NDArray[np.uint8] | None = None,
    ) -> None:
        """Index the layers.

        Args:
            layers: Files on one grid.
            specs: Channels and statistics of each modality, to normalise its values.
            labels: Class indices, uint8, shape (H, W), instead of those of the layers; None: those of the layers.
        """
        self.labels = layers.class_indices() if labels is None else labels
        self.layers, self.specs, self.grid = layers, specs, layers.grid
        files = {role: str(path) for role, path in {**layers.rasters, "labels": layers.labels}.items()}
        self.paths = list(files.values())
        box = self.grid.boundingbox
        self._res = (abs(self.grid.affine.a), abs(self.grid.affine.e))
        self.index = gpd.GeoDataFrame(
            {"filepath": [self.paths[0]], **{role: [path] for role, path in files.items()}},
            geometry=[shapely.box(box.left, box.bottom, box.right, box.top)],
            crs=pyproj.CRS.from_user_input(crs_of(self.grid).wkt),
            index=pd.IntervalIndex.from_tuples([_ALWAYS], closed="both", name="datetime"),
        )

    def __getitem__(self, query: Any) -> dict[str, Any]:
        """Read a sample.

        Args:
            query: A `Window` of the grid, or a TorchGeo query ``[xmin:xmax, ymin:ymax]`` in units of the CRS.

        Returns:
            The sample, see `read`.

        Raises:
            IndexError: If the window reaches outside the grid.
        """
        window = query if isinstance(query, Window) else window_of(self.grid, self._disambiguate_slice(query))
        if not Window.of(self.grid.shape).contains(window):
            raise IndexError(f"query {query} reaches outside the layers, whose bounds are {self.bounds}")
        return self.read(window)

    def read(self, window: Window) -> dict[str, Any]:
        """Read the sample of a window.

        Args:
            window: A window inside the grid, h x w px.

        Returns:
            For each modality float32 (C, h, w), 0 where invalid, and ``<modality>_valid`` bool (h, w); ``labels`` int64
            (h, w), 255 without a label.
        """
        rows, cols = Window(*window).slices
        sample: dict[str, Any] = {}
        for modality, spec in self.specs.items():
            values = self.layers.channels(modality)[:, rows, cols]
            sample[modality] = torch.from_numpy(spec.normalise(values))
            sample[f"{modality}_valid"] = torch.from_numpy(np.isfinite(values).all(axis=0))
        sample["labels"] = torch.from_numpy(self.labels[rows, cols].astype(np.int64))
        return sample


def window_of(grid: GeoBox, query: tuple[slice, ...]) -> Window:
    """Convert a TorchGeo query to a window, rounded to whole pixels.

    Args:
        grid: A north-up grid.
        query: Slices ``xmin:xmax`` and ``ymin:ymax`` in units of the CRS.

    Returns:
        The window; it may reach outside the grid.
    """
    a = grid.affine
    x, y = query[0], query[1]
    c0, r0 = round((x.start - a.c) / a.a), round((y.stop - a.f) / a.e)
    # The size is rounded, not the far edge: all patches of a random sampler then have the same size.
    return Window.at(r0, c0, (round((y.start - y.stop) / a.e), round((x.stop - x.start) / a.a)))
