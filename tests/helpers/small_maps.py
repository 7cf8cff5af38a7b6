"""Small maps and labels on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geocrodino.maps.files import class_map
from geocrodino.maps.writer import MapWriter
from geocrodino.settings.classes import ClassScheme

ORIGIN = (400_000.0, 5_000_000.0)


@pytest.fixture
def scheme() -> ClassScheme:
    return ClassScheme.from_values([1, 2, 7], ["grass", "road", "roof"])


@pytest.fixture
def write_labels(tmp_path: Path) -> Callable[..., Path]:
    def write(values, pixel=1.0, origin=ORIGIN, crs="EPSG:32631", nodata=255, name="labels.tif") -> Path:
        values = np.asarray(values, np.uint8)
        options = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "uint8", "nodata": nodata}
        transform = Affine(pixel, 0, origin[0], 0, -pixel, origin[1])
        with rasterio.open(tmp_path / name, "w", driver="GTiff", crs=crs, transform=transform, **options) as target:
            target.write(values, 1)
        return tmp_path / name

    return write


@pytest.fixture
def write_map(tmp_path: Path, scheme: ClassScheme) -> Callable[..., Path]:
    def write(values, pixel=1.0, origin=ORIGIN, crs="EPSG:32631", name="map.tif", scheme=scheme) -> Path:
        values = np.asarray(values, np.uint8)
        grid = GeoBox(values.shape, Affine(pixel, 0, origin[0], 0, -pixel, origin[1]), crs)
        with MapWriter((class_map(tmp_path / name, scheme),), grid, overwrite=True) as writer:
            writer.write((0, values.shape[0], 0, values.shape[1]), [values[None]])
        return tmp_path / name

    return write
