"""The one door for rasters that a user names: files, folders, patterns, lists, archives, URLs and STAC items.

`open_scene` opens what may be several files, `open_raster` what must be one file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from geocrodino.errors import LeftOutWarning, RasterError
from geocrodino.files.access import is_folder
from geocrodino.geo.rasters.header_checks import require_real
from geocrodino.geo.rasters.headers import header, headers_kept, read_ahead
from geocrodino.geo.rasters.mosaic import MosaicSource
from geocrodino.geo.rasters.opening import without_listing
from geocrodino.geo.rasters.place import Place, is_placeless, pictures
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.scene_files import SUFFIXES, FoundFiles, find_files, given_names, phrase
from geocrodino.geo.rasters.stac_bands import StacBand, stac_bands, with_stac_bands

_SHOWN = 5  # names in a message


def open_scene(
    path: str | Path | Sequence[str | Path], *, asset: str | None = None, place: Place | None = None
) -> RasterSource:
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
        place: CRS and pixel size for files that state none; ``.png`` and ``.jpg`` then count as rasters of a folder.

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
    names, found = _look_up(path, asset, place)
    if found.files == names and len(names) == 1:
        return header(names[0], place)
    named = Path(names[0]) if len(names) == 1 else _common_folder(found.files)
    sources = _read_headers(found, named, place)
    if not sources:
        return _whole_folder(named, found)
    _tell_left_out(named, found)
    _require_joinable(sources, named)
    return sources[0] if len(sources) == 1 else MosaicSource.join(sources, str(named))


def open_raster(path: str | Path, *, place: Place | None = None) -> RasterSource:
    """Open one raster file, for instance labels or a map.

    Args:
        path: As for `open_scene`, if it leads to one file: the file itself, a folder that holds one raster, a pattern
            that one file matches, a list or a STAC item of one file.
        place: CRS and pixel size for a file that states none; None: not given.

    Returns:
        The raster; its path is that of the file.

    Raises:
        RasterError: If nothing is there, there are several files, or the file cannot be read.
        MissingCRSError: If the file has no coordinate reference system.
        AccessError: If the operating system does not let a name be looked up or read.

    Warns:
        LeftOutWarning: If something that is there is not read, naming it.
    """
    names, found = _look_up(path, None, place)
    if found.files == names:
        return header(names[0], place)
    named = Path(names[0])
    if not found.files:
        return _whole_folder(named, found)
    if len(found.files) > 1:
        raise RasterError(
            named,
            f"expected one raster file, found {phrase(found.files, 'file')[0]}.\n"
            "Name one of them, or join them first, for instance: gdalbuildvrt joined.vrt FILES",
        )
    _tell_left_out(named, found)
    file = found.files[0]
    return _with_asset(file, stac_bands(found.assets.get(file, {})), place)


def _look_up(
    path: str | Path | Sequence[str | Path], asset: str | None, place: Place | None
) -> tuple[list[str], FoundFiles]:
    """The names that a user gives, and the files that they lead to."""
    names = given_names(path)
    return names, find_files(names, asset, pictures(place))


def _require_joinable(sources: Sequence[RasterSource], named: Path) -> None:
    """Refuse to join files of which only the pixel size is known: nothing says how they lie to each other."""
    without = [source.path.name for source in sources if is_placeless(source.geobox)]
    if without and len(sources) > 1:
        raise RasterError(
            named,
            f"expected one file, or files that say where they lie, found {len(sources)} files, of which "
            f"{phrase(without, 'does not', 'do not')[0]}.\nMake each of them a scene of its own under `data.scenes`.",
        )


def _whole_folder(named: Path, found: FoundFiles) -> RasterSource:
    """The raster that a folder without raster files is to GDAL, for instance an Arc/Info grid."""
    if is_folder(named) and not found.left_out:
        try:
            return RasterSource.open(named)
        except RasterError:
            pass
    what = "; ".join(found.left_out) or "none"
    raise RasterError(
        named,
        f"no raster to read. Expected files of a scene, such as *{SUFFIXES[0]}, found {what}.\n"
        "Name a folder that holds some, or a pattern for those of several folders, such as tiles/*/*.tif.",
    )


def _tell_left_out(named: Path, found: FoundFiles) -> None:
    if found.left_out:
        warnings.warn(f"{named}: not read as part of the scene: {'; '.join(found.left_out)}.", LeftOutWarning, 3)


def _read_headers(found: FoundFiles, named: Path, place: Place | None) -> list[RasterSource]:
    """Headers of all files but those that a bundle made."""
    headers: dict[str, RasterSource | None] = {}
    failures = []
    with headers_kept(), without_listing():
        read_ahead(found.files, place)
        for name in found.files:
            try:
                headers[name] = _header(name, stac_bands(found.assets.get(name, {})), place)
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


def _header(path: str, described: Sequence[StacBand], place: Place | None) -> RasterSource | None:
    """The header of a raster, None where a bundle made it."""
    return None if header(path, place).is_map else _with_asset(path, described, place)


def _with_asset(path: str, described: Sequence[StacBand], place: Place | None) -> RasterSource:
    """The header of a raster, with what a STAC asset says about its bands."""
    found = with_stac_bands(header(path, place), described)
    require_real(path, found.bands)
    return found


def _common_folder(files: Iterable[str]) -> Path:
    try:
        return Path(os.path.commonpath([Path(name).parent for name in files]))
    except ValueError:  # some are absolute and some are not
        return Path()
