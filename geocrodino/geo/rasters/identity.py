"""The identity of a raster: the files behind it, and a fingerprint that changes with any of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from geocrodino.errors import RasterError
from geocrodino.files.access import exists, full_path, look_up
from geocrodino.files.names import absolute_name, in_archive, is_remote
from geocrodino.files.vector_names import is_vector
from geocrodino.geo.rasters.grid import grid_crs_name
from geocrodino.geo.rasters.opening import opened
from geocrodino.geo.rasters.protocol import Raster


def fingerprint(source: Raster) -> str:
    """Identify a raster, so that interrupted work continues only if its files are unchanged.

    Args:
        source: A raster or a mosaic.

    Returns:
        SHA-256, hexadecimal, of grid and header, and of the full path, size and time of change (ns) of every file
        that is read, those behind a virtual raster included. Of a URL only the name counts.

    Raises:
        RasterError: If a file is gone or cannot be opened.
    """
    grid = source.geobox
    stated = [tuple(grid.shape), tuple(grid.affine), grid_crs_name(grid), source.header_key, *source.layout_key]
    digest = hashlib.sha256(repr(stated).encode())
    for name in source_files(source):
        digest.update(repr((name, *_size_and_time(name))).encode())
    return digest.hexdigest()


def source_files(source: Raster) -> tuple[str, ...]:
    """List every file that a raster takes pixels from.

    Args:
        source: A raster or a mosaic.

    Returns:
        Full paths, or URLs as they are; those behind a virtual raster included.

    Raises:
        RasterError: If a file that is no TIFF cannot be opened to ask what it is made of.
    """
    return tuple(dict.fromkeys(name for member in source.file_names for name in files_behind(member)))


def files_behind(name: str) -> tuple[str, ...]:
    """List every file that is read where GDAL opens a name.

    Args:
        name: A name as GDAL opens it.

    Returns:
        Full paths, or URLs as they are: the named file first, then those behind a virtual raster, and masks.

    Raises:
        RasterError: If a file that is no TIFF cannot be opened to ask what it is made of.
    """
    return tuple(dict.fromkeys(_files_behind(name, frozenset())))


def _files_behind(name: str, above: frozenset[str]) -> Iterator[str]:
    """A file and those that it takes pixels from; for a file inside an archive also the archive."""
    member = in_archive(name)
    if member is not None:
        yield absolute_name(name)
        yield str(full_path(member.archive))
        return
    if is_remote(name):
        yield name
        return
    path = full_path(name)
    if str(path) in above:
        return
    yield str(path)
    if is_vector(path):
        yield from _beside_shapes(path)
    elif path.suffix.lower() in {".tif", ".tiff"}:  # holds its pixels itself; at most a mask lies beside it
        mask = path.with_name(f"{path.name}.msk")
        yield from [str(mask)] if exists(mask) else []
    elif not above or path.suffix.lower() == ".vrt":
        with opened(path) as dataset:
            listed = [part for part in dataset.files if not part.endswith((".aux.xml", ".ovr"))]
        for part in listed:
            yield from _files_behind(part, above | {str(path)})


def _beside_shapes(path: Path) -> Iterator[str]:
    """The other files of a Shapefile."""
    if path.suffix.lower() == ".shp":
        parts = [path.with_suffix(suffix) for suffix in (".dbf", ".shx", ".prj")]
        yield from (str(part) for part in parts if exists(part))


def _size_and_time(name: str) -> tuple[int, ...]:
    if is_remote(name) or in_archive(name) is not None:
        return ()
    status = look_up(name)
    if status is None:
        raise RasterError(name, "part of the scene, but no longer there. Restore the file.")
    return status.st_size, status.st_mtime_ns
