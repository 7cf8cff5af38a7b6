"""The files of shapes that a user names as labels. Nothing is opened, and no heavy library is imported."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from geocrodino.errors import RasterError
from geocrodino.files.access import exists
from geocrodino.files.names import check_raster
from geocrodino.files.vector_names import is_vector, vector_files_in, without_layer
from geocrodino.geo.rasters.scene_files import given_names


def vector_files(name: str | Path | Sequence[str | Path]) -> list[str]:
    """Find the files of shapes that names lead to.

    Args:
        name: A file, folder, pattern, archive or URL, or several of them; each may name a layer as QGIS does.

    Returns:
        The files as they are named, with their layers.

    Raises:
        RasterError: If nothing is there, or a pattern matches no file.
        AccessError: If the operating system does not let a name be looked up or read.
    """
    found: list[str] = []
    for each in given_names(name):
        literal = without_layer(each)
        inside = vector_files_in(literal)
        if inside:
            found += inside
        elif set(literal) & set("*?[") and not exists(literal):
            found += _matching(literal)
        else:
            check_raster(literal)
            found.append(each)
    return found


def _matching(pattern: str) -> list[str]:
    names = [name for name in sorted(glob.glob(pattern, recursive=True)) if is_vector(name)]  # noqa: PTH207
    if not names:
        raise RasterError(pattern, "no file of shapes matches the pattern; relative ones start at the working folder.")
    return names
