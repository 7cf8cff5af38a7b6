"""A TorchGeo dataset of aligned scenes: index and queries are TorchGeo's, pixels are read by window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from torchgeo.datasets import GeoDataset

from geocrodino.data.scenes import AlignedScene, SceneWindow
from geocrodino.geo.rasters.grid import crs_of
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.settings.modality import Modality

_ALWAYS = (pd.Timestamp("1970-01-01"), pd.Timestamp("2200-01-01"))
_GAP_PX = 16  # between scenes that are laid side by side


class CoregisteredDataset(GeoDataset):
    """Modalities and labels of scenes, each on its own grid.

    It works with TorchGeo's samplers and set operations: ``index`` has one row for each scene, with a column for the
    file of each layer, in the CRS of the first scene. A scene in that CRS has its own place there. Any other has a box
    of as many pixels of the first scene's size, around its centre: a query is moved into the scene by whole pixels, so
    nothing is resampled or rotated. A `SceneWindow` can be used as a query too, and so can a `Window` of a single
    scene, both without rounding of coordinates.

    A sample is a dict: for each modality the network's input, float32, shape (C, H, W), 0 where invalid, and
    ``<modality>_valid``, bool, shape (H, W); ``labels``, int64, shape (H, W), 255 without a label. Where a scene lacks
    a modality, its values are 0 and not valid, and the samples of all scenes have ``<modality>_there``, bool, shape ().

    Attributes:
        some_lack: Whether a scene lacks a modality.
    """

    def __init__(self, scenes: Sequence[AlignedScene], specs: dict[Modality, ModalitySpec]) -> None:
        """Index the scenes.

        Args:
            scenes: The scenes, at least one.
            specs: Channels and statistics of each modality, to normalise its values.
        """
        self.scenes, self.specs = tuple(scenes), specs
        self.grid = self.scenes[0].grid
        self.some_lack = any(m not in scene.layers.modalities for scene in self.scenes for m in specs)
        files = [scene.layers.files() for scene in self.scenes]
        first = [next(iter(names.values())) for names in files]
        self.paths = [path for names in files for path in names.values()]
        self._res = (abs(self.grid.affine.a), abs(self.grid.affine.e))
        self._places = _places([scene.grid for scene in self.scenes])
        boxes = [place.boundingbox for place in self._places]
        roles = dict.fromkeys(role for names in files for role in names)
        self.index = gpd.GeoDataFrame(
            {"filepath": first, **{role: [names.get(role) for names in files] for role in roles}},
            geometry=[shapely.box(box.left, box.bottom, box.right, box.top) for box in boxes],
            crs=pyproj.CRS.from_user_input(crs_of(self.grid).wkt),
            index=pd.IntervalIndex.from_tuples([_ALWAYS] * len(files), closed="both", name="datetime"),
        )

    def __getitem__(self, query: Any) -> dict[str, Any]:
        """Read a sample.

        Args:
            query: A `SceneWindow`, a `Window` of the only scene, or a TorchGeo query ``[xmin:xmax, ymin:ymax]`` in
                units of the CRS of the index.

        Returns:
            The sample, see `read`.

        Raises:
            IndexError: If the window reaches outside its scene, or several scenes are there and none is named.
        """
        found = self.located(query)
        return self.read(found.window, found.scene)

    def located(self, query: Any) -> SceneWindow:
        """Find the window of a query.

        Args:
            query: As for reading a sample.

        Returns:
            Scene and window.

        Raises:
            IndexError: If the window reaches outside its scene, or several scenes are there and none is named.
        """
        if isinstance(query, Window) and len(self.scenes) > 1:
            raise IndexError(f"query {query} names none of {len(self.scenes)} scenes. Use a SceneWindow")
        if isinstance(query, SceneWindow):
            found = query
        elif isinstance(query, Window):
            found = SceneWindow(0, query)
        else:
            found = self._located(self._disambiguate_slice(query))
        if not Window.of(self.scenes[found.scene].grid.shape).contains(found.window):
            raise IndexError(f"query {query} reaches outside the layers, whose bounds are {self.bounds}")
        return found

    def read(self, window: Window, scene: int = 0) -> dict[str, Any]:
        """Read the sample of a window.

        Args:
            window: A window inside the grid of the scene, h x w px.
            scene: Number of the scene, from 0.

        Returns:
            For each modality float32 (C, h, w), 0 where invalid, and ``<modality>_valid`` bool (h, w); ``labels`` int64
            (h, w), 255 without a label. Where a scene lacks a modality also ``<modality>_there``, bool ().
        """
        window = Window(*window)
        sample = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in self.layout(window.shape).items()}
        self.fill(sample, window, scene)
        return sample

    def layout(self, shape: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Describe the tensors of a sample.

        Args:
            shape: Rows and columns of its window, (h, w).

        Returns:
            Shape and type of each tensor by name, see `read`.
        """
        found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for modality, spec in self.specs.items():
            found[modality] = (len(spec.channels), *shape), torch.float32
            found[f"{modality}_valid"] = shape, torch.bool
            if self.some_lack:
                found[f"{modality}_there"] = (), torch.bool
        found["labels"] = shape, torch.int64
        return found

    def fill(self, sample: dict[str, torch.Tensor], window: Window, scene: int) -> None:
        """Read the sample of a window into tensors.

        Args:
            sample: Tensors of shape (C, h, w), (h, w) or (), as `layout` describes them; they are overwritten.
            window: A window inside the grid of the scene, h x w px.
            scene: Number of the scene, from 0.
        """
        there = self.scenes[scene]
        for modality, spec in self.specs.items():
            has_it = modality in there.layers.modalities
            values, valid = sample[modality], sample[f"{modality}_valid"]
            if has_it:
                spec.normalise_into(there.layers.read(modality, window), values.numpy(), valid.numpy())
            else:
                values.zero_()
                valid.zero_()
            if self.some_lack:
                sample[f"{modality}_there"].fill_(has_it)
        sample["labels"].numpy()[...] = there.labels_in(window)

    def _located(self, query: tuple[slice, ...]) -> SceneWindow:
        """The window of a query in the first scene whose box contains it; in the first scene if there is none."""
        windows = [window_of(place, query) for place in self._places]
        for scene, (window, place) in enumerate(zip(windows, self._places, strict=True)):
            if Window.of(place.shape).contains(window):
                return SceneWindow(scene, window)
        return SceneWindow(0, windows[0])


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


def _places(grids: Sequence[GeoBox]) -> list[GeoBox]:
    """Where each scene lies in the index: its grid in the CRS of the first, or a box of as many of its pixels.

    The box lies around the centre of the scene. A scene without a place in the CRS of the first, or on the Earth at
    all, lies to the right of those before it.
    """
    first = grids[0]
    a, e = first.affine.a, first.affine.e
    found, right = [first], first.boundingbox.right
    for grid in grids[1:]:
        if grid.crs == first.crs and not crs_of(grid).proj.is_engineering:
            place = grid
        else:
            left, top = _corner(grid, first) or (right + _GAP_PX * a, first.affine.f)
            place = GeoBox(grid.shape, Affine(a, 0, left, 0, e, top), first.crs)
        found.append(place)
        right = max(right, place.boundingbox.right)
    return found


def _corner(grid: GeoBox, first: GeoBox) -> tuple[float, float] | None:
    """Upper left corner of a box of pixels of the first grid around the centre of another; None without a place."""
    if crs_of(grid).proj.is_engineering:
        return None
    box, (rows, cols) = grid.boundingbox, grid.shape
    try:
        move = crs_of(grid).transformer_to_crs(crs_of(first))
        x, y = move((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    except ProjError:
        return None
    if not np.isfinite([x, y]).all():
        return None
    return x - cols * first.affine.a / 2, y - rows * first.affine.e / 2
