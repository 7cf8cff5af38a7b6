"""The one door for labels that a user names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from geocrodino.errors import LabelError
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.place import Place
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene import open_raster
from geocrodino.settings.labels import LabelRules
from geocrodino.settings.scenes import RasterName


def open_labels(
    name: RasterName,
    like: RasterSource | None,
    *,
    rules: LabelRules | None = None,
    ignore_values: Collection[int] = (),
    label_values: Mapping[int, int] | None = None,
    place: Place | None = None,
) -> LabelSource:
    """Open labels.

    Args:
        name: One raster file, in all the ways of `open_raster`.
        like: The raster that the labels belong to.
        rules: How values become classes.
        ignore_values: Values of the file that are no label.
        label_values: Class value, 0 to 254, of values of the file; other values stay as they are.
        place: CRS and pixel size for files that state none.

    Returns:
        The labels, with the rules for their values.

    Raises:
        RasterError: If nothing is there, there are several files, or the file cannot be read.
        MissingCRSError: If the file has no coordinate reference system.
        LabelError: If the rules contradict each other or the file, or are not read yet.
        AccessError: If the operating system does not let a name be looked up or read.
    """
    if rules is not None or not isinstance(name, Path):
        raise LabelError(f"{name}: labels of several files, and rules are not read yet. Leave them out.")
    return LabelSource.of(open_raster(name, place=place), ignore_values, label_values)
