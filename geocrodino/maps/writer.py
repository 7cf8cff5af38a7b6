"""Writing of maps: files appear complete or not at all, and finished parts survive a killed process."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geocrodino.errors import OutputError
from geocrodino.files.access import check_text, entries, exists, is_folder, synchronise, whole_file
from geocrodino.geo.labels.tags import names_file
from geocrodino.geo.rasters.grid import window_grid
from geocrodino.geo.rasters.reader import MAP_TAGS
from geocrodino.geo.rasters.window import Window
from geocrodino.maps.files import TILE_PX, MapFile, is_virtual, parts_folder, side_file
from geocrodino.maps.ledger import Ledger

_DISK_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""Errors of rasterio on a full disk; closing and copying raise GDAL's own errors."""

_PART_NAME = re.compile(r"\d+-\d+-\d+-\d+\.tif(\.aux\.xml)?")


@dataclass(frozen=True)
class EncodedPart:
    """A finished part of a map: the bytes of a file for each of the map's files, and a note.

    Attributes:
        window: Its pixels.
        files: Contents by position of the map's files; None where all pixels are nodata.
        note: Values that JSON can hold.
    """

    window: Window
    files: tuple[bytes | None, ...]
    note: Any = None


class MapWriter:
    """Write the files of a map part by part.

    Use it as a context manager. The outputs are checked on entry, before anything is computed. Parts are kept in a
    hidden folder beside the first file, the map itself; on success each file becomes a Cloud Optimized GeoTIFF with
    overviews, which then takes its final name in one step, the map last. On failure no other file was changed; the
    finished parts stay for ``resume``, see `Ledger`. A killed process may leave the hidden folder, or, if killed while
    files take their names, companion files or the folder of parts; never a map under its final name.

    A map whose name ends in ``.vrt`` stays in parts: a folder ``NAME.parts`` with a Cloud Optimized GeoTIFF for each,
    and a virtual raster over them.

    Args:
        files: The map, and its companion files.
        grid: Grid of all of them, any affine transform and CRS.
        key: What the pixels depend on, by name, see `Ledger`.
        stale: Files that an earlier map of this name may have and this one has not; they would be taken for its own, so
            they are removed with ``overwrite`` and refused without.
        overwrite: Whether existing files may be replaced.
        resume: Continue where an earlier run stopped.

    Attributes:
        done: Note of each finished part, by window.

    Raises:
        OutputError: On entry, if a file exists, or cannot be written there, or there is nothing to resume; on
            exit, if it cannot be completed, or a file of that name was created in the meantime.
    """

    def __init__(
        self,
        files: tuple[MapFile, ...],
        grid: GeoBox,
        *,
        key: Mapping[str, str] | None = None,
        stale: Sequence[Path] = (),
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self.files, self.grid, self.overwrite, self.resume = files, grid, overwrite, resume
        self.stale = tuple(stale)
        self.done: dict[Window, Any] = {}
        self._ledger = Ledger(files[0].path, key or {}, resume=resume)

    def __enter__(self) -> Self:
        for number, file in enumerate(self.files):
            check_output(file.path, overwrite=self._replaces(file))
            if file.virtual and not self._own_parts(number, file):
                _check_parts(file.parts, overwrite=self._replaces(file))
        self._check_stale()
        self._ledger.__enter__()
        for number, file in enumerate(self.files):
            if self._own_parts(number, file) and file.parts.exists():
                file.parts.replace(self._folder(number))
            self._folder(number).mkdir(exist_ok=True)
        for name, entry in self._ledger.done.items():
            kept = [self._part(number, name).exists() for number, there in enumerate(entry["files"]) if there]
            if all(kept):
                self.done[_window(name)] = entry["note"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
                self._ledger.finish()
        except _DISK_ERRORS as failure:
            raise OutputError(
                f"{self.files[0].path}: the map could not be completed ({failure}).\n"
                "Check the free space of the folder, then go on with `resume=True`."
            ) from failure
        finally:
            self._ledger.__exit__(kind, error, trace)

    def write(self, window: Window, values: Sequence[NDArray[np.uint8]], note: Any = None) -> None:
        """Encode and keep a part; several threads may call this. See `encode_part` and `put`.

        Args:
            window: Pixels of the map.
            values: For each file of the map, uint8, shape (bands, H, W) of the window, 255 for nodata.
            note: What to remember of the part, a value that JSON can hold.

        Raises:
            OutputError: If the part cannot be written.
            ValueError: If a type or shape is not that of the window.
        """
        self.put(encode_part(self.files, self.grid, window, values, note))

    def put(self, part: EncodedPart) -> None:
        """Keep a finished part; several threads may call this.

        Args:
            part: The part.

        Raises:
            OutputError: If it cannot be written.
        """
        name, window = _name(part.window), part.window
        try:
            for number, content in enumerate(part.files):
                if content is not None:
                    with whole_file(self._part(number, name)) as partial:
                        partial.write_bytes(content)
                        synchronise(partial)
            self._ledger.add(name, {"files": [content is not None for content in part.files], "note": part.note})
        except OSError as error:
            raise OutputError(
                f"{self.files[0].path}: cannot write rows {window.row_start} to {window.row_stop} ({error.strerror}).\n"
                "Check the free space of the folder."
            ) from error
        self.done[part.window] = part.note

    def abandon(self) -> None:
        """Discard the finished parts on exit."""
        self._ledger.finish()

    def _own_parts(self, number: int, file: MapFile) -> bool:
        """Whether a folder of parts belongs to the run to resume, which was killed while its files took their names."""
        return self.resume and file.virtual and self._named(number).exists() and not self._folder(number).exists()

    def _named(self, number: int) -> Path:
        """Marker file: it exists once the parts of a file may have their final name."""
        return self._ledger.folder / f"{number}.named"

    def _check_stale(self) -> None:
        for path in self.stale:
            found = [path, names_file(path), *([parts_folder(path)] if is_virtual(path) else [])]
            there = next((name for name in found if exists(name)), None)
            if there is not None and not self.overwrite:
                raise OutputError(
                    f"{there}: belongs to another map of this name.\nChoose another name, or let `overwrite=True` "
                    "remove it."
                )
            if is_folder(path):
                raise OutputError(f"{path}: expected a file of an earlier map, found a folder.\nChoose another name.")
            if exists(path) and not _is_of_a_map(path):
                raise OutputError(
                    f"{path}: expected a file of an earlier map, found another one, which is kept.\nChoose another "
                    "name for the map, or move that file."
                )
            if is_virtual(path):
                _check_parts(parts_folder(path), overwrite=True)

    def _replaces(self, file: MapFile) -> bool:
        """Whether a file may exist: a stopped run may have left companion files before the map."""
        return self.overwrite or (self.resume and file is not self.files[0])

    def _folder(self, number: int) -> Path:
        return self._ledger.folder / str(number)

    def _part(self, number: int, name: str) -> Path:
        return self._folder(number) / f"{name}.tif"

    def _parts(self, number: int, folder: str) -> Iterator[tuple[Window, str]]:
        """Windows and file names of the parts of a file that hold anything, in the order of the map."""
        for window in sorted(self.done):
            if self._part(number, _name(window)).exists():
                yield window, f"{folder}/{_name(window)}.tif"

    def _publish(self) -> None:
        whole = [self._whole(number, file) for number, file in enumerate(self.files)]
        for file in self.files:
            if not self._replaces(file) and (file.path.exists() or (file.virtual and file.parts.exists())):
                raise OutputError(
                    f"{file.path}: another program wrote this file while the map was made, and it is kept.\n"
                    "Replace it with `resume=True, overwrite=True`, which computes nothing again."
                )
        self._check_stale()  # once more: hours may have passed
        for path in self.stale:
            _remove_map(path)
        # The map itself comes last: if it exists, all other files do.
        for number, file in reversed(list(enumerate(self.files))):
            if file.virtual:
                file.path.unlink(missing_ok=True)  # never a map over parts of another one
                if file.parts.exists():
                    shutil.rmtree(file.parts)
                self._named(number).touch()
                self._folder(number).replace(file.parts)
            elif file.scheme is not None:
                names = self._ledger.folder / "names.xml"
                names.write_text(side_file(file.scheme), encoding="utf-8")
                names.replace(names_file(file.path))
            whole[number].replace(file.path)

    def _whole(self, number: int, file: MapFile) -> Path:
        """All parts of a file as one, still in the hidden folder."""
        virtual = self._ledger.folder / f"{number}.vrt"
        folder = file.parts.name if file.virtual else str(number)
        virtual.write_text(file.mosaic(self.grid, self._parts(number, folder)), encoding="utf-8")
        if file.virtual:
            return virtual
        finished = virtual.with_suffix(".tif")
        # No predictor: differences between class numbers say nothing and compress worse than the numbers.
        rasterio.shutil.copy(
            str(virtual),
            str(finished),
            driver="COG",
            compress="DEFLATE",
            predictor="NO",
            blocksize=TILE_PX,
            overviews="IGNORE_EXISTING",
            overview_resampling=file.resampling,
            num_threads="ALL_CPUS",
            bigtiff="IF_SAFER",
        )
        _read_through(finished)
        synchronise(finished)
        return finished


def encode_part(
    files: Sequence[MapFile], grid: GeoBox, window: Window, values: Sequence[NDArray[np.uint8]], note: Any = None
) -> EncodedPart:
    """Encode a part of a map as files. No disk is used, so a remote worker can call this.

    Args:
        files: The files of the map.
        grid: Grid of the map.
        window: Pixels of it.
        values: For each file, uint8, shape (bands, H, W) of the window, 255 for nodata.
        note: What to remember of the part, values that JSON can hold.

    Returns:
        The part.

    Raises:
        ValueError: If a type or shape is not that of the window.
    """
    window = Window(*window)
    own = window_grid(grid, window)
    return EncodedPart(window, tuple(f.encode(own, each) for f, each in zip(files, values, strict=True)), note)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Check that a file can be written, before the work that fills it.

    Args:
        path: The file.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: If the folder is missing or cannot be written, the path is a folder, or the file exists and
            ``overwrite`` is false.
        AccessError: If the operating system does not let the path be looked up.
    """
    folder = path.parent
    if exists(folder) and not is_folder(folder):
        raise OutputError(f"{path}: {folder} is a file.\nExpected a folder. Choose another one, or another name.")
    if not is_folder(folder):
        raise OutputError(
            f"{path}: the folder {folder} does not exist.\nExpected an existing folder. Create it: mkdir -p {folder}"
        )
    check_replaceable(path, overwrite=overwrite)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {folder} cannot be written.\nChoose a folder with write permission.")


def check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Check that nothing is in the place of a file, or that it may be replaced.

    Args:
        path: The file; its folder need not exist.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: If the path is a folder, or the file exists and ``overwrite`` is false.
        AccessError: If the operating system does not let the path be looked up.
    """
    if is_folder(path):
        raise OutputError(f"{path}: expected the name of a file, found a folder.\nAdd a file name such as map.tif.")
    check_text(path)
    if exists(path) and not overwrite:
        raise OutputError(f"{path}: the file exists.\nChoose another name, or replace it with `overwrite=True`.")


def map_parts(path: Path) -> list[tuple[Window, Path]]:
    """List the parts of a virtual map.

    Args:
        path: The map.

    Returns:
        Window and file of each part, in the order of the map; nothing for any other map.
    """
    found = parts_folder(path).glob("*.tif") if is_virtual(path) else ()
    return sorted((_window(part.stem), part) for part in found if _PART_NAME.fullmatch(part.name))


def _check_parts(folder: Path, *, overwrite: bool) -> None:
    """Check that the folder of a map in parts may be replaced."""
    if not exists(folder):
        return
    if not overwrite:
        raise OutputError(f"{folder}: the folder exists.\nChoose another name, or replace it with `overwrite=True`.")
    others = [p.name for p in entries(folder) if not _PART_NAME.fullmatch(p.name)] if is_folder(folder) else ["a file"]
    if others:
        raise OutputError(
            f"{folder}: expected the parts of a map, found something else ({others[0]}), which is kept.\n"
            "Choose another name."
        )


def _is_of_a_map(path: Path) -> bool:
    """Whether a file was written beside a map, by its tags."""
    try:
        with rasterio.open(path) as dataset:
            return bool(MAP_TAGS & dataset.tags().keys())
    except RasterioError:
        return False


def _remove_map(path: Path) -> None:
    """Remove a file of a map, with its side file or parts, which were checked to be such."""
    if is_virtual(path):
        shutil.rmtree(parts_folder(path), ignore_errors=True)
    for name in (path, names_file(path)):
        name.unlink(missing_ok=True)


def _read_through(path: Path) -> None:
    """Read every tile once: GDAL may report success for a copy that a full disk cut short."""
    with rasterio.open(path) as dataset:
        levels = len(dataset.overviews(1))
    for level in range(-1, levels):
        with rasterio.open(path, **({} if level < 0 else {"overview_level": level})) as dataset:
            for _, window in dataset.block_windows(1):
                dataset.read(1, window=window)


def _name(window: Window) -> str:
    return "-".join(map(str, window))


def _window(name: str) -> Window:
    return Window(*map(int, name.split("-")))
