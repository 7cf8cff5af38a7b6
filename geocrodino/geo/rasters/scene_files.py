"""Names of scenes (files, folders, patterns, lists, STAC items), and the files that they lead to.

No raster is opened here, and no heavy library is imported.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from geocrodino.errors import AccessError, RasterError
from geocrodino.files.access import absence, access_errors, entries, exists, full_path, is_file, is_folder, read_text
from geocrodino.files.names import (
    absolute_name,
    check_member,
    check_raster,
    gdal_name,
    in_archive,
    is_gdal_name,
    is_remote,
    is_url,
    raster_name,
    vsi_name,
)
from geocrodino.phrases import listed

SUFFIXES = (".tif", ".tiff", ".jp2", ".img", ".asc", ".bil")
"""Names of the files of a folder that are taken as its rasters, in capitals too."""

_OTHER_RASTERS = (
    ".vrt", ".png", ".jpg", ".jpeg", ".webp", ".ecw", ".sid", ".nc", ".hdf", ".h5", ".gpkg", ".mbtiles", ".dem",
    ".hgt", ".flt", ".grd", ".zarr", ".zip",
)  # fmt: skip
"""Files of a folder that may be rasters too: they are not read, which is reported."""


@dataclass
class FoundFiles:
    """The files that were named, in order.

    Attributes:
        files: Paths and URLs.
        left_out: What was found and not taken, in words.
        assets: The STAC asset of each file that an item names.
        has_items: Whether STAC items named any file.
    """

    files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    assets: dict[str, dict[str, Any]] = field(default_factory=dict)
    has_items: bool = False


def check_scene(path: str | Path | Sequence[str | Path], *, asset: str | None = None) -> None:
    """Check that the files that a name leads to exist, without opening a raster.

    Args:
        path: As for `geocrodino.geo.rasters.scene.open_scene`.
        asset: Key of the asset to read of each STAC item.

    Raises:
        RasterError: If nothing is there, a file is named twice, or an item does not say which of its assets to read.
        AccessError: If the operating system does not let a name be looked up or read.
    """
    found = find_files(given_names(path), asset)
    for name in found.files:
        check_raster(name)
        check_member(name)


def given_names(path: str | Path | Sequence[str | Path]) -> list[str]:
    """What a user names, as a list of text; a URL that became a `Path` gets its slashes back.

    Args:
        path: One name or several.

    Returns:
        The names in order.
    """
    entries = [path] if isinstance(path, str | Path) else path
    return [raster_name(entry) if isinstance(entry, Path) else entry for entry in entries]


def find_files(names: Sequence[str], asset: str | None, more: Sequence[str] = ()) -> FoundFiles:
    """Find the files that names lead to, without opening a raster.

    Args:
        names: As for `geocrodino.geo.rasters.scene.open_scene`, as text.
        asset: Key of the asset to read of each STAC item.
        more: Suffixes of further files of a folder that are rasters, beside `SUFFIXES`.

    Returns:
        The files, and what was found but not taken.

    Raises:
        RasterError: If nothing is there, a file is named twice, or an item does not say which of its assets to read.
        AccessError: If the operating system does not let a name be looked up or read.
    """
    if not names:
        raise RasterError("scene", "the list of files is empty. Expected at least one raster.")
    found = FoundFiles()
    for name in names:
        _look_up(name, asset, found, more)
    if asset is not None and not found.has_items:
        raise RasterError(names[0], f"the asset {asset!r} was asked for, but this is no STAC file. Leave it out.")
    _refuse_duplicates(found.files)
    return found


def _look_up(name: str, asset: str | None, found: FoundFiles, more: Sequence[str]) -> None:
    path = Path(name)
    suffix = path.suffix.lower()
    if is_gdal_name(name):
        found.files.append(name)
    elif is_url(name):
        found.files.append(_located(name, Path()))
    elif is_folder(path):
        _look_into(path, found, more)
    elif set(name) & set("*?[") and not exists(path):
        names, locked = _matches(name)
        found.files += names
        found.left_out += phrase(locked, "folder that may not be read", "folders that may not be read")
    elif suffix in {".txt", ".lst"} and not _is_text_raster(path):
        found.files += _listed(path)
    elif suffix in {".json", ".geojson"}:
        _look_up_items(path, asset, found)
    else:
        found.files.append(name)


def _look_into(folder: Path, found: FoundFiles, more: Sequence[str]) -> None:
    hidden, others, folders = [], [], []
    for entry in entries(folder):
        suffix, in_sight = entry.suffix.lower(), not entry.name.startswith(".")
        if suffix in _OTHER_RASTERS and suffix not in more and in_sight:
            others.append(entry.name)
        elif _is_folder(entry):
            folders += [entry.name] if in_sight and _may_hold_rasters(entry) else []
        elif suffix in (*SUFFIXES, *more) and in_sight:
            found.files.append(str(entry))
        elif suffix in SUFFIXES:
            hidden.append(entry.name)
    found.left_out += phrase(hidden, "hidden file") + phrase(others, "file of another kind", "files of other kinds")
    pattern = folder / "**" / "*.tif"
    found.left_out += [f"{what}, whose rasters {pattern} would name" for what in phrase(folders, "sub-folder")]


def _is_folder(entry: Path) -> bool:
    """Whether an entry of a folder is itself a folder; a broken link is reported when it is opened."""
    try:
        return is_folder(entry)
    except AccessError:
        return False


def _may_hold_rasters(folder: Path) -> bool:
    try:
        return any(entry.suffix.lower() in SUFFIXES for entry in entries(folder))
    except AccessError:
        return True


def _matches(pattern: str) -> tuple[list[str], list[str]]:
    """The files that match a pattern, and the folders that may not be searched for them."""
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    # glob passes over such folders without an error.
    above = glob.glob(os.path.dirname(pattern), recursive=True) or [_root(pattern)]  # noqa: PTH120, PTH207
    locked = [name for name in above if not os.access(name or os.curdir, os.R_OK | os.X_OK) and _may_be_folder(name)]
    if not names and locked:
        entries(Path(locked[0]))
    if not names:
        raise RasterError(
            pattern,
            "no file matches the pattern; relative ones start at the working folder, ** goes into sub-folders, and a "
            "[ that is part of a name is written [[].",
        )
    return names, sorted(locked)


def _may_be_folder(name: str) -> bool:
    try:
        return is_folder(name)
    except AccessError:
        return True


def _root(pattern: str) -> str:
    """The folders of a pattern before its first special character."""
    parts = Path(pattern).parts
    plain = itertools.takewhile(lambda part: not set(part) & set("*?["), parts)
    return str(Path(*plain))


def _is_text_raster(path: Path) -> bool:
    """Whether a text file holds heights instead of names: an ASCII grid, or x, y and z of each pixel."""
    if not is_file(path):
        return False
    with access_errors(path), path.open("rb") as file:
        line = file.readline(200).decode("latin-1").strip().lower()
    return (
        re.match(r"(ncols|nrows|dsaa|north:)(\s|$)", line) is not None
        or re.fullmatch(r"x[\s,;]+y[\s,;]+z|[-+\d.e]+([\s,;]+[-+\d.e]+){2,}", line) is not None
    )


def _listed(path: Path) -> list[str]:
    lines = [line.strip() for line in _text(path).splitlines()]
    entries = [(f"line {i}", line) for i, line in enumerate(lines, start=1) if line and not line.startswith("#")]
    if not entries:
        raise RasterError(path, "the list names no file. Expected one path or URL a line.")
    return _existing(path, entries)


def _look_up_items(path: Path, asset: str | None, found: FoundFiles) -> None:
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
    found.assets.update(zip(named, assets, strict=True))


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
            "Name the asset with `asset`, or list the files in a .txt.",
        )
    chosen: dict[str, Any] = assets[keys[0]]
    return chosen


def _text(path: Path) -> str:
    if not exists(path):
        raise RasterError(path, f"{absence(path)}. Check the path; relative ones start at the working folder.")
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise RasterError(path, f"cannot be read as text ({error}). Expected UTF-8.") from error


def _existing(path: Path, entries: Sequence[tuple[str, str]]) -> list[str]:
    """Names of files, each given with the place in a list that names it."""
    located = [(place, _located(name, path.parent)) for place, name in entries]
    missing = [f"{place}: {name}" for place, name in located if not _is_there(name)]
    if missing:
        problem = phrase(missing, "of its files is not there", "of its files are not there")
        raise RasterError(path, f"{problem[0]}. Relative paths start at the folder of this file.")
    return [name for _, name in located]


def _is_there(name: str) -> bool:
    member = in_archive(name)
    return is_remote(name) or is_url(name) or exists(name if member is None else member.archive)


def _located(name: str, folder: Path) -> str:
    member = in_archive(name, folder)
    if member is not None:
        return member.name
    if is_gdal_name(name):
        return name
    if name.startswith("file://"):
        return vsi_name(name) or name
    if not is_url(name):
        literal = folder / name
        return str(literal if exists(literal) else folder / unquote(name))
    if gdal_name(Path(name)) != name:
        raise RasterError(
            name,
            "not a URL that can be read. Expected one of https, http, ftp, s3, gs, az and oss, without empty parts.\n"
            "Download the file, or name it in a virtual raster (VRT).",
        )
    return name


def _refuse_duplicates(files: Sequence[str]) -> None:
    if len(files) < 2:
        return
    seen: dict[str, str] = {}
    for name in files:
        full = absolute_name(name) if is_url(name) or is_gdal_name(name) else str(full_path(name))
        if full in seen:
            raise RasterError(name, f"named twice: it is the same file as {seen[full]}. Name each file once.")
        seen[full] = name


def _count(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def phrase(names: Sequence[str], one: str, many: str | None = None) -> list[str]:
    """Write a count of names, with some of them.

    Args:
        names: The names.
        one: The noun for one of them.
        many: The noun for several; by default with an ``s``.

    Returns:
        One phrase, for instance ``2 files (a.tif, b.tif)``; nothing if there are no names.
    """
    return [f"{_count(len(names), one, many)} ({listed(names)})"] if names else []
