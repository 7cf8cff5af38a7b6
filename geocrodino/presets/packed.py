"""Data sets whose rasters lie in files that no raster library reads as bands: each is written once as a GeoTIFF."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocrodino.errors import OutputError
from geocrodino.files.access import access_errors, durable_file, is_file, writing
from geocrodino.files.locks import alone
from geocrodino.presets.hdf5 import hdf5_errors, opened_hdf5
from geocrodino.settings.splits import SceneSplit

UNPACKED = "geocrodino-unpacked"
"""Folder of the unpacked rasters, in the folder of the data set."""

_RECORD = "unpacked.jsonl"
"""Lists the rasters that are complete, and what each was written from: a line of JSON for each."""

_VERSION = 1
"""Part of every key: a number that grows when the same files are written in another way."""

_BLOCK_PX = 256

Progress = Callable[[int, int], None]
"""Called with the number of finished rasters and that of all."""


@dataclass(frozen=True)
class Pixels:
    """What a raster is written from.

    Attributes:
        values: Shape (bands, H, W).
        nodata: The value of missing pixels; None: no pixel is missing, except those that are not a number.
    """

    values: NDArray[Any]
    nodata: float | None = None


@dataclass(frozen=True)
class PackedRaster:
    """A raster in a packed file.

    Attributes:
        name: Where it is written, below the folder of the unpacked rasters.
        source: The file that it is read from.
        part: What of the file it is; the data set decides the meaning.
        size: Size of its values without compression, bytes.
        key: Identifies the content: changes with the files that it is made from.
    """

    name: str
    source: str
    part: tuple[str, int]
    size: int
    key: str


@dataclass(frozen=True)
class Packed:
    """The packed files of a data set in a folder.

    Attributes:
        rasters: What they hold, in the order of the files.
        read: Reads a raster from its file, which is open.
        lists: Names of the tiles of each split; empty: names of files decide, or all tiles are of train.
        lacking: What is not known, because a file is not beside them; empty: nothing.
        obstacle: Why the files cannot be unpacked, and what to do; empty: they can.
    """

    rasters: tuple[PackedRaster, ...] = ()
    read: Callable[[Any, PackedRaster], Pixels] | None = None
    lists: Mapping[SceneSplit, frozenset[str]] = field(default_factory=dict)
    lacking: str = ""
    obstacle: str = ""


def content_key(sources: Sequence[str], *parts: object) -> str:
    """Identify what is made from files: their names, sizes and times of change, and other values.

    Args:
        sources: The files.
        *parts: Values that decide what is made from them.

    Returns:
        Hexadecimal digits.

    Raises:
        AccessError: If a file cannot be looked up.
    """
    stated: list[object] = [_VERSION, *parts]
    for source in sources:
        path = Path(source)
        with access_errors(path):
            found = path.stat()
        stated.append((path.name, found.st_size, found.st_mtime_ns))
    return hashlib.sha256(repr(stated).encode()).hexdigest()[:24]


def not_unpacked(packed: Packed, root: Path) -> tuple[PackedRaster, ...]:
    """List the rasters that are not written yet, or were written from files that have changed.

    Args:
        packed: The packed files.
        root: Folder of the data set.

    Returns:
        Those that `unpack` would write.

    Raises:
        AccessError: If the operating system does not let the folder be read.
    """
    folder = root / UNPACKED
    record = _read_record(folder / _RECORD)
    return tuple(
        raster
        for raster in packed.rasters
        if record.get(raster.name) != raster.key or not is_file(folder / raster.name)
    )


def unpack(
    packed: Packed, root: Path, tell: Callable[[str], None] = lambda _: None, on_progress: Progress | None = None
) -> None:
    """Write the rasters of packed files as GeoTIFF files, one after the other.

    A raster is complete or not there at all. Those that are complete from an earlier call are kept, so that an
    interrupted call goes on where it stopped. Memory holds one raster at a time. The lists of splits are written before
    the rasters, and again where the files name other tiles than before.

    Args:
        packed: The packed files.
        root: Folder of the data set; the rasters come into the folder ``geocrodino-unpacked`` in it.
        tell: Called with the size of the rasters before any is written.
        on_progress: Called with the number of finished rasters and that of all.

    Raises:
        OutputError: If the folder cannot be written to, or has too little space.
        RasterError: If a packed file is damaged, or holds something else.
        AccessError: If the operating system does not let a file be read.
    """
    folder, todo = root / UNPACKED, not_unpacked(packed, root)
    if packed.read is None or not (todo or _lists_to_write(packed, folder)):
        return
    with _way_out(folder), writing(folder):
        folder.mkdir(exist_ok=True)
        (folder / _RECORD).touch()
    if todo:
        _announce(packed, todo, folder, tell)
    with alone(folder):
        for path, text in _lists_to_write(packed, folder).items():
            with durable_file(path) as partial:
                partial.write_text(text, encoding="utf-8")
        todo = not_unpacked(packed, root)  # another process may have written some while this one waited
        done = itertools.count(1)
        for source, rasters in itertools.groupby(todo, key=lambda raster: raster.source):
            with opened_hdf5(source) as file:
                for raster in rasters:
                    with hdf5_errors(source):
                        pixels = packed.read(file, raster)
                    _write(folder / raster.name, pixels)
                    _note(folder / _RECORD, raster)
                    if on_progress is not None:
                        on_progress(next(done), len(todo))


def _announce(packed: Packed, todo: Sequence[PackedRaster], folder: Path, tell: Callable[[str], None]) -> None:
    """Tell the size of the rasters that are to be written, and require the space for them."""
    from geocrodino.data.alignment import readable_size, require_space

    size = sum(raster.size for raster in todo)
    earlier = f"; {len(packed.rasters) - len(todo)} are there" if len(todo) < len(packed.rasters) else ""
    tell(f"Unpacking {len(todo)} rasters into {folder}: at most {readable_size(size)} to write{earlier}.")
    require_space(folder, size, "the unpacked rasters")


def _lists_to_write(packed: Packed, folder: Path) -> dict[Path, str]:
    """Text of each list of a split that is not there yet, or names other tiles."""
    texts = {
        folder / f"{split}.txt": "".join(f"{name}\n" for name in sorted(names)) for split, names in packed.lists.items()
    }
    return {path: text for path, text in texts.items() if _read_text(path) != text}


def _read_text(path: Path) -> str | None:
    """The text of a file; None if there is no such file."""
    if not is_file(path):
        return None
    with access_errors(path):
        return path.read_text(encoding="utf-8", errors="replace")


@contextmanager
def _way_out(folder: Path) -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        raise OutputError(
            f"{error} Rasters are unpacked beside the data. Link the files into a folder of your own, and name that "
            "one with `root`."
        ) from error


def _read_record(path: Path) -> dict[str, str]:
    """Keys of the complete rasters, by name; the last line of each counts, one that a kill cut off does not."""
    found: dict[str, str] = {}
    for line in (_read_text(path) or "").splitlines():
        try:
            entry = json.loads(line)
            found[entry["raster"]] = entry["key"]
        except (ValueError, KeyError, TypeError):
            continue  # its raster is written again
    return found


def _note(path: Path, raster: PackedRaster) -> None:
    """Note a raster as complete; a line that a kill cut off is ended first."""
    line = json.dumps({"raster": raster.name, "key": raster.key}).encode() + b"\n"
    with writing(path), path.open("ab+") as record:
        if record.seek(0, os.SEEK_END):
            record.seek(-1, os.SEEK_END)
            line = line if record.read() == b"\n" else b"\n" + line
        record.write(line)


def _write(path: Path, pixels: Pixels) -> None:
    """Write a raster without a place."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    count, height, width = pixels.values.shape
    profile = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.values.dtype,
        "nodata": pixels.nodata, "tiled": True, "blockxsize": _BLOCK_PX, "blockysize": _BLOCK_PX,
        "compress": "deflate", "zlevel": 1, "predictor": 3 if np.issubdtype(pixels.values.dtype, np.floating) else 2,
    }  # fmt: skip
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with durable_file(path, RasterioError) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(partial, "w", **profile) as target:
            target.write(pixels.values)
