"""The files of a project: rasters and shapes in files, folders and all folders in these."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geocrodino.errors import AccessError, ConfigError
from geocrodino.files.access import absence, entries, exists, is_folder
from geocrodino.files.vector_names import is_vector
from geocrodino.geo.rasters.scene_files import SUFFIXES

PICTURES = (".png", ".jpg", ".jpeg")
"""Names of pictures, which are rasters where their place is stated."""

_VECTORS = (".shp", ".gpkg", ".geojson", ".fgb", ".kml", ".gml", ".json")
_WORLD_FILES = (".jgw", ".pgw", ".wld", ".jpgw", ".pngw")
_OF_A_RUN = ("bundle.safetensors", "inputs.json", "aligned.json", "folds.json")
"""Files whose folder was written by a training."""

_CACHE = "aligned-cache"


@dataclass
class ProjectFiles:
    """What lies in the places that a user names.

    Attributes:
        rasters: Names of rasters, sorted in each folder.
        shapes: Names of files of polygons, lines and points.
        pictures: Pictures that are no rasters as long as their place is not stated.
        runs: Folders of trainings, which are passed over.
    """

    rasters: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def collect(paths: Sequence[str | Path], *, pictures: bool) -> ProjectFiles:
    """Collect rasters and shapes. Nothing is opened.

    Args:
        paths: Files, folders and patterns with ``*``; folders are searched with all folders in them.
        pictures: Whether PNG and JPG files are rasters, because their place is stated. With a world file beside them
            they are rasters in any case.

    Returns:
        The files. Hidden ones, and the folders of trainings, are passed over.

    Raises:
        ConfigError: If nothing has such a name.
        AccessError: If the operating system does not let a name be looked up.
    """
    found = ProjectFiles()
    for path in paths:
        name = str(path)
        if is_folder(name):
            _search(Path(name), found, pictures=pictures)
        elif exists(name):
            _sort_in(Path(name), found, pictures=True)
        elif set(name) & set("*?[") and (matches := sorted(glob.glob(name, recursive=True))):  # noqa: PTH207
            for match in matches:
                if is_folder(match):
                    _search(Path(match), found, pictures=pictures)
                else:
                    _sort_in(Path(match), found, pictures=pictures)
        else:
            raise ConfigError(f"{name}: {absence(name)}. Name files or folders with rasters and labels.")
    for names in (found.rasters, found.shapes, found.pictures):
        names[:] = dict.fromkeys(names)
    return found


def _search(folder: Path, found: ProjectFiles, *, pictures: bool) -> None:
    def refuse(error: OSError) -> None:
        raise AccessError.because(error.filename, error) from error

    entries(folder)  # its own message where the folder may not be read
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # links may lead in a circle
            folders.clear()
            continue
        seen.add(real)
        if any(name in names for name in _OF_A_RUN):
            found.runs.append(str(Path(place)))
            folders.clear()
            continue
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != _CACHE)
        for name in sorted(names):
            if not name.startswith("."):
                _sort_in(Path(place, name), found, pictures=pictures, beside=names)


def _sort_in(path: Path, found: ProjectFiles, *, pictures: bool, beside: Iterable[str] = ()) -> None:
    suffix = path.suffix.lower()
    if suffix in (*SUFFIXES, ".vrt"):
        found.rasters.append(str(path))
    elif suffix in PICTURES:
        placed = any(path.stem + ending in beside for ending in _WORLD_FILES)
        (found.rasters if pictures or placed else found.pictures).append(str(path))
    elif suffix in _VECTORS and is_vector(path):
        found.shapes.append(str(path))
