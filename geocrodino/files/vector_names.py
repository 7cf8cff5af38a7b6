"""Names of files of shapes: polygons, lines and points. No heavy library is imported, and GDAL opens nothing."""

from __future__ import annotations

import glob
import sqlite3
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

from geocrodino.errors import AccessError
from geocrodino.files.access import entries, is_file, is_folder
from geocrodino.files.names import is_url

VECTOR_SUFFIXES = (
    ".shp", ".gpkg", ".geojson", ".json", ".fgb", ".kml", ".gml", ".gpx", ".csv", ".tab", ".sqlite", ".gdb",
    ".geojsonl", ".parquet",
)  # fmt: skip
"""Names of files of shapes, in small letters."""

_RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".img", ".vrt")
_JSON_HEAD = 65_536  # bytes of a STAC item or collection within which it names its assets


def is_vector(name: str | Path | Sequence[str | Path]) -> bool:
    """Find out whether a name leads to shapes and not to a raster.

    Args:
        name: A file, URL, archive, folder or pattern, or several of them. A layer of a file is named as QGIS does:
            ``parcels.gpkg|layername=2024``.

    Returns:
        Whether it ends as files of shapes do. GeoPackages and zip archives that hold rasters alone, JSON files of STAC,
        and folders with a raster in them are none.
    """
    if not isinstance(name, str | Path):
        return bool(name) and all(is_vector(each) for each in name)
    file = without_layer(str(name))
    suffix = _suffix(file)
    if suffix == ".gpkg":
        return not _has_tiles_alone(file)
    if suffix in {".json", ".geojson"}:
        return not _is_stac(file)
    if suffix == ".zip":
        return _zipped_vector(file)
    if suffix in VECTOR_SUFFIXES:
        return True
    return suffix == "" and (bool(vector_files_in(file)) or _matches_vectors(file))


def without_layer(name: str) -> str:
    """Take the name of a file without its layer.

    Args:
        name: A name such as ``parcels.gpkg|layername=2024``.

    Returns:
        What stands before the first ``|``.
    """
    return name.partition("|")[0]


def vector_files_in(folder: str) -> list[str]:
    """List the files of shapes in a folder.

    Args:
        folder: Its name.

    Returns:
        Their paths, sorted; empty if it is no folder, may not be read, or holds a raster.
    """
    try:
        inside = entries(Path(folder)) if is_folder(Path(folder)) else []
    except AccessError:
        return []
    seen = [entry for entry in inside if not entry.name.startswith(".")]
    if any(entry.suffix.lower() in _RASTER_SUFFIXES for entry in seen):
        return []
    return [str(entry) for entry in seen if _suffix(entry.name) in VECTOR_SUFFIXES and is_vector(entry)]


def _suffix(name: str) -> str:
    lower = name.lower().rstrip("/")
    lower = lower.removesuffix(".gz") if not lower.endswith(".tar.gz") else lower
    return PurePosixPath(lower).suffix


def _matches_vectors(pattern: str) -> bool:
    """Whether a pattern that says nothing of the kind, such as ``tiles/*``, matches files of shapes and no raster."""
    if not set(pattern) & set("*?[") or is_url(pattern):
        return False
    found = {_suffix(name) for name in glob.glob(pattern, recursive=True)}  # noqa: PTH207
    return bool(found & set(VECTOR_SUFFIXES)) and not found & set(_RASTER_SUFFIXES)


def _local(name: str) -> bool:
    try:
        return not is_url(name) and not name.startswith("/vsi") and is_file(Path(name))
    except AccessError:
        return False


def _has_tiles_alone(name: str) -> bool:
    """Whether a GeoPackage holds rasters and no shapes."""
    if not _local(name):
        return False
    try:
        with closing(sqlite3.connect(f"{Path(name).absolute().as_uri()}?mode=ro", uri=True)) as opened:
            kinds = {row[0] for row in opened.execute("SELECT data_type FROM gpkg_contents")}
    except sqlite3.Error:
        return False
    return bool(kinds) and "features" not in kinds and any(kind != "attributes" for kind in kinds)


def _is_stac(name: str) -> bool:
    if not _local(name):
        return False
    try:
        with Path(name).open("rb") as file:
            head = file.read(_JSON_HEAD)
    except OSError:
        return False
    return b'"assets"' in head or b'"stac_version"' in head


def _zipped_vector(name: str) -> bool:
    if not _local(name):
        return False
    try:
        with zipfile.ZipFile(name) as archive:
            found = {_suffix(each) for each in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return False
    return bool(found & set(VECTOR_SUFFIXES)) and not found & set(_RASTER_SUFFIXES)
