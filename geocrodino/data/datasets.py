"""TorchGeo dataset over aligned layers: the index and the queries are torchgeo's, pixels are read by window."""

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

    Works with torchgeo's samplers and set operations: ``index`` has one row for the scene, with a column for the file
    of each layer. A `Window` of the grid is an index too, which needs no rounding of coordinates.

    A sample is a dict: for each modality the network's input, float32, shape (C, H, W), 0 where invalid, and
    ``<modality>_valid``, bool, shape (H, W); ``labels``, int64, shape (H, W), 255 where there is none.
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
            specs: How to scale them.
            labels: Class indices to use in place of those of the layers, uint8, shape (H, W).
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
            query: A `Window` of the grid, or a torchgeo query ``[xmin:xmax, ymin:ymax]`` in coordinates.

        Returns:
            The sample.

        Raises:
            IndexError: If it does not lie on the grid.
        """
        window = query if isinstance(query, Window) else window_of(self.grid, self._disambiguate_slice(query))
        if not Window.of(self.grid.shape).contains(window):
            raise IndexError(f"query {query} reaches outside the layers, whose bounds are {self.bounds}")
        return self.read(window)

    def read(self, window: Window) -> dict[str, Any]:
        """The sample of a window of the grid."""
        rows, cols = Window(*window).slices
        sample: dict[str, Any] = {}
        for modality, spec in self.specs.items():
            values = self.layers.channels(modality)[:, rows, cols]
            sample[modality] = torch.from_numpy(spec.normalise(values))
            sample[f"{modality}_valid"] = torch.from_numpy(np.isfinite(values).all(axis=0))
        sample["labels"] = torch.from_numpy(self.labels[rows, cols].astype(np.int64))
        return sample


def window_of(grid: GeoBox, query: tuple[slice, ...]) -> Window:
    """The window of a north-up grid that a torchgeo query names, to the nearest pixel."""
    a = grid.affine
    x, y = query[0], query[1]
    c0, r0 = round((x.start - a.c) / a.a), round((y.stop - a.f) / a.e)
    # Rounding the size rather than the far edge keeps every patch of a random sampler the same size.
    return Window.at(r0, c0, (round((y.start - y.stop) / a.e), round((x.stop - x.start) / a.a)))
