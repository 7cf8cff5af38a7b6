"""A small scene of known content, aligned once for each test that asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geocrodino.data.alignment import AlignedLayers, Sources, align
from geocrodino.data.datasets import CoregisteredDataset
from geocrodino.data.scenes import AlignedScene
from geocrodino.data.statistics import measure
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.modalities.recipe import elevation_recipe, optical_recipe
from geocrodino.settings.classes import ClassScheme

SHAPE = (96, 128)


@pytest.fixture
def sources(write_raster: Callable[..., Path]) -> Sources:
    """Optical 0 to 254 by column, heights 100 m plus a metre a row with a hole, classes 1, 2, 3 in stripes of rows."""
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    optical = np.stack([cols, 2 * cols % 255, rows]).astype(np.uint8)
    optical[:, 90:, 120:] = 255
    heights = (100 + rows).astype(np.float32)
    heights[:10, :10] = np.nan
    labels = (1 + rows // 32).astype(np.uint8)
    labels[:, :8] = 255
    return Sources(
        rasters={
            "optical": RasterSource.open(write_raster("optical.tif", optical, nodata=255)),
            "elevation": RasterSource.open(write_raster("dsm.tif", heights, nodata=float("nan"))),
        },
        labels=LabelSource.of(RasterSource.open(write_raster("labels.tif", labels, nodata=255))),
    )


@pytest.fixture
def scheme() -> ClassScheme:
    return ClassScheme.from_values([1, 2, 3])


@pytest.fixture
def recipes(sources: Sources) -> dict:
    return {"optical": optical_recipe(sources.rasters["optical"]), "elevation": elevation_recipe(("height", "slope"))}


@pytest.fixture
def layers(sources: Sources, recipes: dict, scheme: ClassScheme, tmp_path: Path) -> AlignedLayers:
    return align(sources, recipes, scheme, sources.reference.geobox, tmp_path / "aligned")


@pytest.fixture
def dataset(layers: AlignedLayers, recipes: dict) -> CoregisteredDataset:
    """Two scenes with the same layers; the second one lacks heights."""
    inside = {"train": np.ones(layers.grid.shape, bool)}
    whole = AlignedScene("a", layers, None, inside)
    image = replace(layers, rasters={"optical": layers.rasters["optical"]})
    specs = {m: measure([whole], recipes[m]) for m in ("optical", "elevation")}
    return CoregisteredDataset([whole, AlignedScene("b", image, None, inside)], specs)
