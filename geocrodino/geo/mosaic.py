"""Many files as one scene: rasters of one pixel lattice read as one, the ways to name them, and their identity."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.errors import BandWarning, LeftOutWarning, RasterError
from geocrodino.geo.grid import Window, crs_of, pixel_offset, window_grid
from geocrodino.geo.reader import RasterSource, gdal_name, opened

SUFFIXES = (".tif", ".tiff", ".jp2", ".img", ".asc", ".bil")
"""Names of the files of a folder that are taken as its rasters, in capitals too."""

_OTHER_RASTERS = (
    ".vrt", ".png", ".jpg", ".jpeg", ".webp", ".ecw", ".sid", ".nc", ".hdf", ".h5", ".gpkg", ".mbtiles", ".dem",
    ".hgt", ".flt", ".grd", ".zarr", ".zip",
)  # fmt: skip
"""Files of a folder that may be rasters too: they are not read, and the user is told."""

_OWN_TAGS = frozenset({"CLASSES", "BUNDLE_SHA256"})  # of what a bundle made: no input for another one
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_LISTING = "GDAL_DISABLE_READDIR_ON_OPEN"
_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class MosaicSource(RasterSource):
    """Rasters of one pixel lattice, read as the one raster that they are parts of.

    Where members overlap, the first one that is valid there decides; where none is valid, so is the mosaic. As for
    one file, nothing is held open. Values that the members do not share (nodata, transparency) stay those of each
    member; as attributes they are None, with ``has_mask`` true.

    Attributes:
        path: What the user named; ``files`` are the members.
        geobox: The union of the members' extents.
        files: The members, in the order in which they decide; paths or URLs.
        boxes: Rows and columns of the mosaic that each covers: ``(row_start, row_stop, col_start, col_stop)``,
            int64, shape (4, members).
        headers: The different headers of members; path and grid in them stand for nothing.
        header_of: Which of them is each member's, unsigned, shape (members,).
    """

    files: tuple[str, ...] = field(repr=False)
    boxes: NDArray[np.int64] = field(repr=False, compare=False)
    headers: tuple[RasterSource, ...] = field(repr=False)
    header_of: NDArray[np.unsignedinteger] = field(repr=False, compare=False)

    @staticmethod
    def join(sources: Sequence[RasterSource], path: Path) -> MosaicSource:
        """Put rasters together.

        Args:
            sources: The members, in the order in which they decide where they overlap.
            path: What the user named.

        Raises:
            RasterError: If two of them are not of one lattice, or differ in the number or names of their data bands
                or in the unit, naming both.
            ValueError: If there is none.
        """
        if not sources:
            raise ValueError("a mosaic needs at least one raster")
        corners = np.array([_offset(source, sources[0]) for source in sources], np.int64).T
        sizes = np.array([source.geobox.shape for source in sources], np.int64).T
        start, stop = corners.min(axis=1), (corners + sizes).max(axis=1)
        corners -= start[:, None]
        height, width = (stop - start).tolist()
        headers: dict[object, RasterSource] = {}
        for source in sources:
            headers.setdefault(_header_key(source), replace(source, path=Path(), geobox=sources[0].geobox))
        numbers = {key: number for number, key in enumerate(headers)}
        return MosaicSource(
            path=path,
            geobox=GeoBox((height, width), _anchor(sources, corners), sources[0].geobox.crs),
            **_shared(list(headers.values())),
            files=tuple(gdal_name(source.path) for source in sources),
            boxes=np.stack([corners[0], corners[0] + sizes[0], corners[1], corners[1] + sizes[1]]),
            headers=tuple(headers.values()),
            header_of=np.array([numbers[_header_key(source)] for source in sources], np.min_scalar_type(len(headers))),
        )

    def member(self, index: int) -> RasterSource:
        """One of the files."""
        r0, r1, c0, c1 = self.boxes[:, index].tolist()
        header = self.headers[int(self.header_of[index])]
        return replace(header, path=Path(self.files[index]), geobox=window_grid(self.geobox, (r0, r1, c0, c1)))

    def describe(self) -> str:
        """One line for people."""
        return f"{len(self.files)} files, {super().describe()}"

    def read_own(self, window: Window, bands: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the mosaic's own grid from the members that meet it; see `RasterSource.read`."""
        r0, r1, c0, c1 = window
        values = np.full((len(bands), r1 - r0, c1 - c0), np.nan, np.float32)
        valid = np.zeros((r1 - r0, c1 - c0), bool)
        for index in self._meeting(window):
            b0, b1, d0, d1 = self.boxes[:, index].tolist()
            rows, cols = (max(r0, b0), min(r1, b1)), (max(c0, d0), min(c1, d1))
            part = (slice(rows[0] - r0, rows[1] - r0), slice(cols[0] - c0, cols[1] - c0))
            undecided = ~valid[part]
            if not undecided.any():
                continue
            inside = (rows[0] - b0, rows[1] - b0, cols[0] - d0, cols[1] - d0)
            found, ok = self.member(index).read_own(inside, bands)
            ok &= undecided
            np.copyto(values[:, *part], found, where=ok)
            valid[part] |= ok
        return values, valid

    def _meeting(self, window: Window) -> list[int]:
        # 15 microseconds for 10,000 members: a tree of boxes saves half of that and costs 1 MB for every worker.
        r0, r1, c0, c1 = window
        first_row, last_row, first_col, last_col = self.boxes
        meets = (first_row < r1) & (last_row > r0) & (first_col < c1) & (last_col > c0)
        found: list[int] = np.flatnonzero(meets).tolist()
        return found

    def __getstate__(self) -> dict[str, Any]:
        # Names of tiles are much alike: what goes to a worker is 20 times smaller packed.
        names = "\0".join(self.files).encode("utf-8", "surrogateescape")
        packed = {"files": zlib.compress(names, 1), "boxes": zlib.compress(self.boxes.tobytes(), 1)}
        return {**self.__dict__, **packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = zlib.decompress(state["files"]).decode("utf-8", "surrogateescape").split("\0")
        boxes = np.frombuffer(zlib.decompress(state["boxes"]), np.int64).reshape(4, -1)
        self.__dict__.update({**state, "files": tuple(files), "boxes": boxes})


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
        BandWarning: If a band is read in another role than its tag says.
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


def fingerprint(source: RasterSource) -> str:
    """What a scene is, so that a work on it goes on only while its files are the same.

    Args:
        source: A raster or a mosaic.

    Returns:
        SHA-256, hexadecimal, of grid and header, and of the full path, size and time of change (ns) of every file
        that is read, those behind a virtual raster included. Of a URL only the name counts.

    Raises:
        RasterError: If a file is gone or cannot be opened.
    """
    grid = source.geobox
    stated: list[object] = [tuple(grid.shape), tuple(grid.affine), _crs_name(grid), _header_key(source)]
    if isinstance(source, MosaicSource):
        stated += [source.boxes.tolist(), source.header_of.tolist(), [_header_key(h) for h in source.headers]]
    digest = hashlib.sha256(repr(stated).encode())
    for name in source_files(source):
        digest.update(repr((name, *_size_and_time(name))).encode())
    return digest.hexdigest()


def source_files(source: RasterSource) -> tuple[str, ...]:
    """Every file that a source reads pixels from: full paths, or URLs as they are.

    Raises:
        RasterError: If a file that is no TIFF cannot be opened to ask what it is made of.
    """
    members = source.files if isinstance(source, MosaicSource) else (gdal_name(source.path),)
    return tuple(dict.fromkeys(name for member in members for name in _files_behind(member, frozenset())))


# --- what members must share ----------------------------------------------------------------------------------------


def _offset(source: RasterSource, first: RasterSource) -> tuple[int, int]:
    """Rows and columns by which a raster is shifted in the lattice of the first one."""
    offset = pixel_offset(source.geobox, first.geobox)
    problem = _other_lattice(source.geobox, first.geobox) if offset is None else _other_content(source, first)
    if offset is None or problem is not None:
        raise RasterError(gdal_name(source.path), f"not of one scene with {gdal_name(first.path)}: {problem}")
    return offset


def _other_lattice(found: GeoBox, expected: GeoBox) -> str:
    """What keeps two grids from being of one lattice."""
    a, b = expected.affine, found.affine
    way_out = "Warp it onto the pixels of the other one first, or read it as a scene of its own."
    hair = 1e-6 * abs(a.determinant) ** 0.5
    if found.crs != expected.crs:
        return f"expected the CRS {_crs_name(expected)}, found {_crs_name(found)}.\n{way_out}"
    if not np.allclose((a.a, a.b, a.d, a.e), (b.a, b.b, b.d, b.e), rtol=0, atol=hair):
        return f"expected pixels with {_steps(a)}, found {_steps(b)}, in units of the CRS.\n{way_out}"
    height, width = found.shape
    corners = [~a @ (b @ corner) for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    cols, rows = (max((place - round(place) for place in axis), key=abs) for axis in zip(*corners, strict=True))
    return f"expected a shift by whole pixels, found {rows:.2g} rows and {cols:.2g} columns more.\n{way_out}"


def _other_content(source: RasterSource, first: RasterSource) -> str | None:
    """What keeps two rasters of one lattice from being parts of one, or None."""
    for of, words in ((_data_bands, _bands), (_names, _names), (_unit, _unit)):
        if of(source) != of(first):
            return f"expected {words(first)}, found {words(source)}.\nName only files that are alike."
    return None


def _data_bands(source: RasterSource) -> str:
    return _some(len(source.data_bands), "data band")


def _bands(source: RasterSource) -> str:
    return _data_bands(source) + (" and transparency" if source.alpha_band else "")


def _names(source: RasterSource) -> str:
    names = ", ".join(source.band_names[band - 1] for band in source.data_bands)
    return f"bands named {names}"


def _unit(source: RasterSource) -> str:
    return f"the unit {source.unit}" if source.unit else "no unit"


def _steps(affine: Affine) -> str:
    return f"steps of ({affine.a:.9g}, {affine.d:.9g}) a column and ({affine.b:.9g}, {affine.e:.9g}) a row"


def _crs_name(grid: GeoBox) -> str:
    crs = crs_of(grid)
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs)


def _header_key(source: RasterSource) -> tuple[object, ...]:
    """All of a header but path and grid; NaN as nodata equals itself."""
    bands = (source.count, source.data_bands, source.band_names, source.alpha_band)
    return (*bands, source.dtype, repr(source.nodata), source.has_mask, source.unit)


def _shared(headers: Sequence[RasterSource]) -> dict[str, Any]:
    """The header of a mosaic: what its members share."""
    first = headers[0]
    shared = {name: getattr(first, name) for name in ("data_bands", "unit")}
    shared["dtype"] = str(np.result_type(*(header.dtype for header in headers))) if len(headers) > 1 else first.dtype
    if len({(repr(header.nodata), header.alpha_band) for header in headers}) == 1:
        marks = {name: getattr(first, name) for name in ("count", "band_names", "nodata", "alpha_band")}
        return {**shared, **marks, "has_mask": any(header.has_mask for header in headers)}
    data = len(first.data_bands)
    names = first.band_names[:data]
    return {**shared, "count": data, "band_names": names, "nodata": None, "alpha_band": None, "has_mask": True}


def _anchor(sources: Sequence[RasterSource], corners: NDArray[np.int64]) -> Affine:
    """Where the mosaic begins: as the member in that corner says, to the last bit, if there is one."""
    for source, corner in zip(sources, corners.T.tolist(), strict=True):
        if corner == [0, 0]:
            return source.geobox.affine
    row, col = corners[:, 0].tolist()
    return sources[0].geobox.affine @ Affine.translation(-col, -row)


# --- what names a scene ---------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """The files that were named, in order, and what was found and not taken, in words."""

    files: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    has_items: bool = False


def _look_up(name: str, asset: str | None, found: _Found) -> None:
    path = Path(name)
    suffix = path.suffix.lower()
    if _URL.match(name):
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
    found.files += _existing(path, [(f"item {item.get('id')}", _href(path, item, asset)) for item in items])


def _is_item(item: object) -> bool:
    assets = item.get("assets") if isinstance(item, dict) and item.get("type") == "Feature" else None
    return isinstance(assets, dict) and all(isinstance(asset, dict) and "href" in asset for asset in assets.values())


def _href(path: Path, item: dict[str, Any], asset: str | None) -> str:
    """The path or URL of the asset of an item that holds the scene."""
    assets = item["assets"]
    data = [key for key, value in assets.items() if "data" in (value.get("roles") or ())]
    tiffs = [key for key, value in assets.items() if str(value.get("type")).startswith("image/tiff")]
    keys = (data or tiffs) if asset is None else [key for key in assets if key == asset]
    if len(keys) != 1:
        wanted = "one asset with the role data, or one GeoTIFF" if asset is None else f"an asset {asset!r}"
        which = f"{len(keys)} of them: {', '.join(keys)}" if keys else f"none among: {', '.join(assets)}"
        raise RasterError(path, f"item {item.get('id')}: expected {wanted}, found {which}.\nName the asset by its key.")
    return str(assets[keys[0]]["href"])


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
    missing = [f"{place}: {name}" for place, name in located if not _URL.match(name) and not Path(name).exists()]
    if missing:
        told = _told(missing, "of its files is not there", "of its files are not there")
        raise RasterError(path, f"{told[0]}. Relative paths start at the folder of this file.")
    return [name for _, name in located]


def _located(name: str, folder: Path) -> str:
    if name.startswith("file://"):
        return unquote(urlsplit(name).path)
    if not _URL.match(name):
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
        full = name if _URL.match(name) else str(Path(name).resolve())
        if full in seen:
            raise RasterError(name, f"named twice: it is the same file as {seen[full]}. Name each file once.")
        seen[full] = name


def _read_headers(found: _Found, named: Path) -> list[RasterSource]:
    """Headers of all files but those that a bundle made."""
    headers: dict[str, RasterSource | None] = {}
    failures = []
    # GDAL would list the folder for every file in it.
    options = {} if _LISTING in os.environ else {_LISTING: "TRUE"}
    with rasterio.Env(**options), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BandWarning)
        for name in found.files:
            try:
                headers[name] = _header(Path(name))
            except RasterError as error:
                failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        first = "\n".join(str(failure) for failure in failures[:_SHOWN])
        raise RasterError(named, f"{len(failures)} of {len(found.files)} files cannot be used, such as\n{first}")
    _tell_once(caught)
    made = [Path(name).name for name, header in headers.items() if header is None]
    found.left_out += _told(made, "map made by geocrodino", "maps made by geocrodino")
    return [header for header in headers.values() if header is not None]


def _header(path: Path) -> RasterSource | None:
    """The header of a raster, None where a bundle made it."""
    with opened(path) as dataset:
        return None if _OWN_TAGS & dataset.tags().keys() else RasterSource.of_dataset(path, dataset)


def _tell_once(caught: Sequence[warnings.WarningMessage]) -> None:
    """Give warnings on, those on bands as one: the tiles of an image are tagged alike."""
    on_bands = [str(w.message) for w in caught if issubclass(w.category, BandWarning)]
    if on_bands:
        more = f" So it is in {len(on_bands) - 1} more of the files." if len(on_bands) > 1 else ""
        warnings.warn(on_bands[0] + more, BandWarning, stacklevel=4)
    for other in caught:
        if not issubclass(other.category, BandWarning):
            warnings.warn(other.message, stacklevel=4)


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


# --- identity -------------------------------------------------------------------------------------------------------


def _files_behind(name: str, above: frozenset[str]) -> Iterator[str]:
    """A file and those that it draws its pixels from."""
    if _URL.match(name) or name.startswith("/vsi"):
        yield name
        return
    path = Path(name).resolve()
    if str(path) in above:
        return
    yield str(path)
    if path.suffix.lower() in {".tif", ".tiff"}:  # holds its pixels itself; at most a mask lies beside it
        mask = path.with_name(f"{path.name}.msk")
        yield from [str(mask)] if mask.exists() else []
    elif not above or path.suffix.lower() == ".vrt":
        with opened(path) as dataset:
            listed = [part for part in dataset.files if not part.endswith((".aux.xml", ".ovr"))]
        for part in listed:
            yield from _files_behind(part, above | {str(path)})


def _size_and_time(name: str) -> tuple[int, ...]:
    if _URL.match(name) or name.startswith("/vsi"):
        return ()
    try:
        status = Path(name).stat()
    except OSError as error:
        raise RasterError(name, f"part of the scene, and not to be reached ({error.strerror}). Put it back.") from error
    return status.st_size, status.st_mtime_ns
