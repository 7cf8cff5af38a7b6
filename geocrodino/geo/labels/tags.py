"""Names of classes in a raster: the tag of geocrodino's maps, and GDAL's side file."""

from __future__ import annotations

import json
from pathlib import Path

import rasterio
from pydantic import TypeAdapter, ValidationError

from geocrodino.errors import RasterError
from geocrodino.files.names import gdal_name
from geocrodino.settings.classes import ClassScheme, LandClass

CLASSES_TAG = "CLASSES"
"""Tag of a map that lists its classes."""


def names_file(path: Path) -> Path:
    """Name the side file in which GDAL looks for the names of the classes of a GeoTIFF.

    Args:
        path: The GeoTIFF.

    Returns:
        Path of its side file, ``NAME.aux.xml``.
    """
    return path.with_name(f"{path.name}.aux.xml")


def tagged_classes(path: str | Path) -> ClassScheme | None:
    """Read the classes that a map lists in its tags.

    Args:
        path: The map.

    Returns:
        The classes; None if there is no such tag.

    Raises:
        RasterError: If the tag does not list classes.
    """
    with rasterio.open(gdal_name(path)) as dataset:
        text = dataset.tags().get(CLASSES_TAG)
    if text is None:
        return None
    try:
        return ClassScheme(classes=TypeAdapter(tuple[LandClass, ...]).validate_python(json.loads(text)))
    except (ValidationError, ValueError) as error:
        raise RasterError(path, f"the tag {CLASSES_TAG} does not list classes ({error}).") from error
