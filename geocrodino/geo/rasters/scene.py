"""Opening a scene: the files that its name leads to, and which of them are read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import rasterio

from geocrodino.errors import LeftOutWarning, RasterError
from geocrodino.geo.rasters.header_checks import require_real
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.reader import MAP_TAGS, RasterSource, opened
from geocrodino.geo.rasters.scene_files import SUFFIXES, FoundFiles, find_files, phrase
from geocrodino.geo.rasters.stac_bands import StacBand, stac_bands, with_stac_bands

_LISTING = "GDAL_DISABLE_READDIR_ON_OPEN"
_SHOWN = 5  # names in a message


def open_scene(path: str | Path | Sequence[str | Path], *, asset: str | None = None) -> RasterSource:
    """Open whatever names a scene.

    Args:
        path: One of

            - a raster or virtual raster (VRT): a file, a file inside an archive (``/vsizip/scene.zip/a.tif`` or
              ``zip://scene.zip!a.tif``), or a URL that GDAL reads (``https://``, ``s3://`` ...);
            - a folder: the files in it, sorted by name, that end in one of `scene_files.SUFFIXES`;
            - a pattern with ``*``, ``?``, ``[`` or ``**``: the files that match, sorted by name;
            - a text file (``.txt``, ``.lst``): one path or URL a line, relative to the file, ``#`` for comments;
            - a STAC Item or ItemCollection (``.json``, ``.geojson``), its paths relative to the file;
            - several of these.
        asset: Key of the asset to read of each STAC item; by default the only one with the role ``data``, or, where
            none has it, the only GeoTIFF.

    Returns:
        The raster, or a `MosaicSource` where there are several. Of several, maps that a bundle made are left out.

    Raises:
        RasterError: If nothing is there, a file is named twice or cannot be read, the files are not parts of one
            raster, or an item does not say which of its assets to read.
        MissingCRSError: If a file has no coordinate reference system.
        AccessError: If the operating system does not let a name be looked up or read.

    Warns:
        LeftOutWarning: If something that is there is not read, naming it.
    """
    names = [str(path)] if isinstance(path, str | Path) else [str(entry) for entry in path]
    found = find_files(names, asset)
    if found.files == names and len(names) == 1:
        return RasterSource.open(names[0])
    named = Path(names[0]) if len(names) == 1 else _common_folder(found.files)
    sources = _read_headers(found, named)
    if not sources:
        what = "; ".join(found.left_out) or "none"
        raise RasterError(named, f"no raster to read. Expected files of a scene, such as *{SUFFIXES[0]}, found {what}.")
    if found.left_out:
        warnings.warn(f"{named}: not read as part of the scene: {'; '.join(found.left_out)}.", LeftOutWarning, 2)
    return sources[0] if len(sources) == 1 else MosaicSource.join(sources, named)


def _read_headers(found: FoundFiles, named: Path) -> list[RasterSource]:
    """Headers of all files but those that a bundle made."""
    headers: dict[str, RasterSource | None] = {}
    failures = []
    # GDAL would list the folder for every file in it.
    options = {} if _LISTING in os.environ else {_LISTING: "TRUE"}
    with rasterio.Env(**options):
        for name in found.files:
            try:
                headers[name] = _header(Path(name), stac_bands(found.assets.get(name, {})))
            except RasterError as error:
                failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        first = "\n".join(str(failure) for failure in failures[:_SHOWN])
        raise RasterError(named, f"{len(failures)} of {len(found.files)} files cannot be used, such as\n{first}")
    made = [Path(name).name for name, header in headers.items() if header is None]
    found.left_out += phrase(made, "map made by geocrodino", "maps made by geocrodino")
    return [header for header in headers.values() if header is not None]


def _header(path: Path, described: Sequence[StacBand]) -> RasterSource | None:
    """The header of a raster, None where a bundle made it."""
    with opened(path) as dataset:
        if MAP_TAGS & dataset.tags().keys():
            return None
        found = with_stac_bands(RasterSource.of_dataset(path, dataset), described)
        require_real(path, found.bands)
        return found


def _common_folder(files: Iterable[str]) -> Path:
    try:
        return Path(os.path.commonpath([Path(name).parent for name in files]))
    except ValueError:  # some are absolute and some are not
        return Path()
