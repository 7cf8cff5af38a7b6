"""What names a scene: files, folders, patterns, lists and STAC items, and what of them is read."""

from __future__ import annotations

import glob
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import rasterio

from geocrodino.errors import LeftOutWarning, RasterError
from geocrodino.geo.mosaic import MosaicSource
from geocrodino.geo.reader import MAP_TAGS, RasterSource, gdal_name, is_url, opened
from geocrodino.geo.stac_bands import StacBand, stac_bands, with_stac_bands

SUFFIXES = (".tif", ".tiff", ".jp2", ".img", ".asc", ".bil")
"""Names of the files of a folder that are taken as its rasters, in capitals too."""

_OTHER_RASTERS = (
    ".vrt", ".png", ".jpg", ".jpeg", ".webp", ".ecw", ".sid", ".nc", ".hdf", ".h5", ".gpkg", ".mbtiles", ".dem",
    ".hgt", ".flt", ".grd", ".zarr", ".zip",
)  # fmt: skip
"""Files of a folder that may be rasters too: they are not read, and the user is told."""

_LISTING = "GDAL_DISABLE_READDIR_ON_OPEN"
_SHOWN = 5  # names in a message


def open_scene(path: str | Path | Sequence[str | Path], *, asset: str | None = None) -> RasterSource:
    """Open whatever names a scene.

    Args:
        path: One of

            - a raster or virtual raster (VRT), a file or a URL that GDAL reads (``https://``, ``s3://`` ...);
            - a folder: the files in it, sorted by name, that end in one of `SUFFIXES`;
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

    Warns:
        LeftOutWarning: If something that is there is not read, naming it.
    """
    entries = [str(path)] if isinstance(path, str | Path) else [str(entry) for entry in path]
    if not entries:
        raise RasterError("scene", "the list of files is empty. Expected at least one raster.")
    found = _Found()
    for entry in entries:
        _look_up(entry, asset, found)
    if asset is not None and not found.has_items:
        raise RasterError(entries[0], f"the asset {asset!r} was asked for, but this is no STAC file. Leave it out.")
    _refuse_duplicates(found.files)
    if found.files == entries and len(entries) == 1:
        return RasterSource.open(entries[0])
    named = Path(entries[0]) if len(entries) == 1 else _common_folder(found.files)
    sources = _read_headers(found, named)
    if not sources:
        what = "; ".join(found.left_out) or "none"
        raise RasterError(named, f"no raster to read. Expected files of a scene, such as *{SUFFIXES[0]}, found {what}.")
    if found.left_out:
        warnings.warn(f"{named}: not read as part of the scene: {'; '.join(found.left_out)}.", LeftOutWarning, 2)
    return sources[0] if len(sources) == 1 else MosaicSource.join(sources, named)


@dataclass
class _Found:
    """The files that were named, in order.

    Attributes:
        files: Paths and URLs.
        left_out: What was found and not taken, in words.
        described: Bands of files that come from a STAC item, as it describes them.
        has_items: Whether STAC items named any file.
    """

    files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    described: dict[str, tuple[StacBand, ...]] = field(default_factory=dict)
    has_items: bool = False


def _look_up(name: str, asset: str | None, found: _Found) -> None:
    path = Path(name)
    suffix = path.suffix.lower()
    if is_url(name):
        found.files.append(_located(name, Path()))
    elif path.is_dir():
        _look_into(path, found)
    elif set(name) & set("*?[") and not path.exists():
        found.files += _matches(name)
    elif suffix in {".txt", ".lst"}:
        found.files += _listed(path)
    elif suffix in {".json", ".geojson"}:
        _look_up_items(path, asset, found)
    else:
        found.files.append(name)


def _look_into(folder: Path, found: _Found) -> None:
    hidden, others, folders = [], [], []
    for entry in _entries(folder):
        suffix, in_sight = entry.suffix.lower(), not entry.name.startswith(".")
        if suffix in _OTHER_RASTERS and in_sight:
            others.append(entry.name)
        elif entry.is_dir():
            folders += [entry.name] if in_sight and _may_hold_rasters(entry) else []
        elif suffix in SUFFIXES and in_sight:
            found.files.append(str(entry))
        elif suffix in SUFFIXES:
            hidden.append(entry.name)
    found.left_out += _told(hidden, "hidden file") + _told(others, "file of another kind", "files of other kinds")
    pattern = folder / "**" / "*.tif"
    found.left_out += [f"{what}, whose rasters {pattern} would name" for what in _told(folders, "sub-folder")]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise RasterError(folder, f"the folder cannot be read ({error.strerror}). Check its permissions.") from error


def _may_hold_rasters(folder: Path) -> bool:
    try:
        return any(entry.suffix.lower() in SUFFIXES for entry in _entries(folder))
    except RasterError:
        return True


def _matches(pattern: str) -> list[str]:
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a path of its own takes no absolute pattern
    if not names:
        raise RasterError(
            pattern,
            "no file matches the pattern. Relative ones start at the working folder, ** goes into sub-folders, and a "
            "[ that is part of a name is written [[].",
        )
    return names


def _listed(path: Path) -> list[str]:
    lines = [line.strip() for line in _text(path).splitlines()]
    entries = [(f"line {i}", line) for i, line in enumerate(lines, start=1) if line and not line.startswith("#")]
    if not entries:
        raise RasterError(path, "the list names no file. Expected one path or URL a line.")
    return _existing(path, entries)


def _look_up_items(path: Path, asset: str | None, found: _Found) -> None:
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise RasterError(path, f"not JSON ({error}). Expected a STAC Item or ItemCollection.") from error
    items: list[Any] = [content]
    links: list[Any] = []
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        items, links = content.get("features") or [], content.get("links") or []
    number = next((i for i, item in enumerate(items, start=1) if not _is_item(item)), 0)
    if number or not items:
        what = f"no assets in feature {number} of {len(items)}" if number else "no feature"
        raise RasterError(path, f"expected a STAC Item or ItemCollection, found {what}.")
    if any(link.get("rel") == "next" for link in links):
        found.left_out.append("the next pages of the search, which are not in this file")
    found.has_items = True
    assets = [_asset(path, item, asset) for item in items]
    places = [f"item {item.get('id')}" for item in items]
    named = _existing(path, [(place, str(chosen["href"])) for place, chosen in zip(places, assets, strict=True)])
    found.files += named
    found.described.update({name: stac_bands(chosen) for name, chosen in zip(named, assets, strict=True)})


def _is_item(item: object) -> bool:
    assets = item.get("assets") if isinstance(item, dict) and item.get("type") == "Feature" else None
    return isinstance(assets, dict) and all(isinstance(asset, dict) and "href" in asset for asset in assets.values())


def _asset(path: Path, item: dict[str, Any], asset: str | None) -> dict[str, Any]:
    """The asset of an item that holds the scene."""
    assets = item["assets"]
    data = [key for key, value in assets.items() if "data" in (value.get("roles") or ())]
    tiffs = [key for key, value in assets.items() if str(value.get("type")).startswith("image/tiff")]
    keys = (data or tiffs) if asset is None else [key for key in assets if key == asset]
    if len(keys) != 1:
        wanted = "one asset with the role data, or one GeoTIFF" if asset is None else f"an asset {asset!r}"
        which = f"{len(keys)} of them: {', '.join(keys)}" if keys else f"none among: {', '.join(assets)}"
        raise RasterError(
            path,
            f"item {item.get('id')}: expected {wanted}, found {which}.\n"
            "Name the asset (--asset), or list the files in a .txt.",
        )
    chosen: dict[str, Any] = assets[keys[0]]
    return chosen


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise RasterError(path, "no such file. Check the path; relative ones start at the working folder.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RasterError(path, f"cannot be read as text ({error}). Expected UTF-8.") from error


def _existing(path: Path, entries: Sequence[tuple[str, str]]) -> list[str]:
    """Names of files, each given with the place in a list that names it."""
    located = [(place, _located(name, path.parent)) for place, name in entries]
    missing = [f"{place}: {name}" for place, name in located if not is_url(name) and not Path(name).exists()]
    if missing:
        told = _told(missing, "of its files is not there", "of its files are not there")
        raise RasterError(path, f"{told[0]}. Relative paths start at the folder of this file.")
    return [name for _, name in located]


def _located(name: str, folder: Path) -> str:
    if name.startswith("file://"):
        return unquote(urlsplit(name).path)
    if not is_url(name):
        literal = folder / name
        return str(literal if literal.exists() else folder / unquote(name))
    if gdal_name(Path(name)) != name:
        raise RasterError(
            name,
            "not a URL that can be read. Expected one of https, http, ftp, s3, gs, az and oss, without empty parts.\n"
            "Download the file, or name it in a virtual raster (VRT).",
        )
    return name


def _refuse_duplicates(files: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in files:
        full = name if is_url(name) else str(Path(name).resolve())
        if full in seen:
            raise RasterError(name, f"named twice: it is the same file as {seen[full]}. Name each file once.")
        seen[full] = name


def _read_headers(found: _Found, named: Path) -> list[RasterSource]:
    """Headers of all files but those that a bundle made."""
    headers: dict[str, RasterSource | None] = {}
    failures = []
    # GDAL would list the folder for every file in it.
    options = {} if _LISTING in os.environ else {_LISTING: "TRUE"}
    with rasterio.Env(**options):
        for name in found.files:
            try:
                headers[name] = _header(Path(name), found.described.get(name, ()))
            except RasterError as error:
                failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        first = "\n".join(str(failure) for failure in failures[:_SHOWN])
        raise RasterError(named, f"{len(failures)} of {len(found.files)} files cannot be used, such as\n{first}")
    made = [Path(name).name for name, header in headers.items() if header is None]
    found.left_out += _told(made, "map made by geocrodino", "maps made by geocrodino")
    return [header for header in headers.values() if header is not None]


def _header(path: Path, described: Sequence[StacBand]) -> RasterSource | None:
    """The header of a raster, None where a bundle made it."""
    with opened(path) as dataset:
        if MAP_TAGS & dataset.tags().keys():
            return None
        return with_stac_bands(RasterSource.of_dataset(path, dataset), described)


def _common_folder(files: Iterable[str]) -> Path:
    try:
        return Path(os.path.commonpath([Path(name).parent for name in files]))
    except ValueError:  # some are absolute and some are not
        return Path()


def _some(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _told(names: Sequence[str], one: str, many: str | None = None) -> list[str]:
    """One phrase on some names, none where there is none."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{_some(len(names), one, many)} ({', '.join(names[:_SHOWN])}{more})"] if names else []
