"""A model and the scene it was trained on, from which the awkward inputs are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """The rasters of the generated town as arrays, with what is needed to write variants of them.

    Attributes:
        image: uint8, shape (3, H, W): red, green, blue.
        heights: float32, shape (H, W), metres above the sea.
        labels: uint8, shape (h, w).
        bundle: A model trained on them, whose maps hold several classes.
    """

    image: NDArray[np.uint8]
    heights: NDArray[np.float32]
    labels: NDArray[np.uint8]
    profiles: dict[str, dict[str, Any]]
    bundle: Path


@pytest.fixture(scope="session")
def sample(town: Any, tiny_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The town of the other tests, and a model that was trained on it for some seconds."""
    from geocrodino.training.run import train

    out = tmp_path_factory.mktemp("reliability") / "run"
    result = train(tiny_config({"training.epochs": 2, "training.steps_per_epoch": 25}), out)
    arrays, profiles = {}, {}
    for role, path in (("optical", town.optical), ("elevation", town.elevation), ("labels", town.labels)):
        with rasterio.open(path) as dataset:
            arrays[role] = dataset.read()
            profiles[role] = {"crs": dataset.crs, "transform": dataset.transform, "nodata": dataset.nodata}
    assert result.bundle is not None
    return Sample(arrays["optical"], arrays["elevation"][0], arrays["labels"][0], profiles, result.bundle)


@pytest.fixture
def write(tmp_path: Path, sample: Sample) -> Callable[..., Path]:
    """Write an array as a GeoTIFF that lies where the town's raster of a role does.

    ``tags`` may hold ``descriptions``, ``colorinterp``, ``scales``, ``offsets``, ``units`` and ``tags``.
    """

    def make(
        name: str, values: Any, role: str = "optical", *, tags: dict[str, Any] | None = None, **profile: Any
    ) -> Path:
        bands = np.asarray(values)
        bands = bands[None] if bands.ndim == 2 else bands
        layout = {**sample.profiles[role], **profile}
        path = tmp_path / name
        size = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
        with rasterio.open(path, "w", driver="GTiff", **size, **layout) as target:
            target.write(bands)
            for key, value in (tags or {}).items():
                if key == "tags":
                    target.update_tags(**value)
                else:
                    setattr(target, key, value)
        return path

    return make
