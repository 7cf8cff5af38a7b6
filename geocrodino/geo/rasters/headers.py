"""Many rasters: read in threads where that is quicker; headers each once where several steps need them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from typing import TypeVar

from rasterio.errors import NotGeoreferencedWarning

from geocrodino.errors import RasterError
from geocrodino.files.kept import kept_inside
from geocrodino.files.names import raster_name
from geocrodino.geo.rasters.opening import without_listing
from geocrodino.geo.rasters.place import Place
from geocrodino.geo.rasters.reader import RasterSource

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")

_THREADS = 8  # opening a file is waiting, most of all on a network disk
_FEW = 32  # files for which threads are not worth their start
_CHUNK = 64
# Smaller files are read more quickly by one thread: several would spend more time on handing over Python's lock.
_WORTH_S = 0.01

_KEPT: ContextVar[dict[tuple[str, Place | None], RasterSource] | None] = ContextVar("kept headers", default=None)


@contextmanager
def headers_kept() -> Iterator[None]:
    """Keep headers inside the block, so that each file is opened once however often it is named.

    Files must not change inside the block. A block inside another one shares its headers.

    Yields:
        Nothing.
    """
    with kept_inside(_KEPT):
        yield


def header(path: str | Path, place: Place | None = None) -> RasterSource:
    """Read the header of a raster, or take the one that `headers_kept` keeps.

    Args:
        path: A file, a file in an archive, or a URL that GDAL reads.
        place: CRS and pixel size for a file that states none; None: not given.

    Returns:
        The raster.

    Raises:
        RasterError: See `RasterSource.open`.
        AccessError: If the operating system does not let it be looked up or read.
    """
    kept, key = _KEPT.get(), (raster_name(path), place)
    if kept is None:
        return RasterSource.open(path, place)
    if key not in kept:
        kept[key] = RasterSource.open(path, place)
    return kept[key]


def read_ahead(paths: Iterable[str], place: Place | None = None) -> None:
    """Read headers in threads, for `header` inside the same block of `headers_kept`.

    Files that cannot be opened are passed over: `header` raises their errors. Files that open quickly need no threads.

    Args:
        paths: Names as for `header`. Few of them are left to `header`.
        place: As for `header`.
    """
    kept = _KEPT.get()
    if kept is None:
        return
    names = [name for name in dict.fromkeys(paths) if (raster_name(name), place) not in kept]
    if len(names) <= _FEW:
        return
    began = time.perf_counter()
    kept.update({(raster.name, place): raster for raster in _open_all(place, names[:_FEW])})
    names = names[_FEW:]
    if time.perf_counter() - began < _FEW * _WORTH_S:
        kept.update({(raster.name, place): raster for raster in _open_all(place, names)})
        return
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    # Threads change the filters of all: they are restored, and GDAL's warning must stay silent between two of them.
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for found in pool.map(partial(_open_all, place), chunks):
            kept.update({(raster.name, place): raster for raster in found})


def read_many(read: Callable[[_Item], _Found], items: Iterable[_Item]) -> Iterator[_Found]:
    """Read from many files, in threads where each takes long: on a network disk, or if it is large.

    Args:
        read: Reads from one of the files. Threads may call it.
        items: What it is called with, one after the other.

    Yields:
        What it returns, in the order of the items.

    Raises:
        Exception: The error of the first item for which ``read`` raises one.
    """
    waiting = list(items)
    if len(waiting) <= _FEW:
        yield from map(read, waiting)
        return

    def unlisted(item: _Item) -> _Found:
        with without_listing():  # of this thread
            return read(item)

    took = 0.0
    while waiting and took < _FEW * _WORTH_S:
        began = time.perf_counter()
        found, error = _read_some(read, waiting[:_FEW])
        took = time.perf_counter() - began
        waiting = waiting[_FEW:]
        yield from found
        if error is not None:
            raise error
    with ThreadPoolExecutor(_THREADS) as pool:
        begun = [pool.submit(copy_context().run, unlisted, item) for item in waiting]
        try:
            for future in begun:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # thousands may wait behind the one that failed
            raise


def _read_some(read: Callable[[_Item], _Found], items: Sequence[_Item]) -> tuple[list[_Found], Exception | None]:
    """What is read from files up to the first error, and the error."""
    found: list[_Found] = []
    with without_listing():
        for item in items:
            try:
                found.append(read(item))
            except Exception as error:  # raised after what was read before it is used
                return found, error
    return found, None


def _open_all(place: Place | None, names: Sequence[str]) -> list[RasterSource]:
    found = []
    with without_listing():  # of this thread
        for name in names:
            try:
                found.append(RasterSource.open(name, place))
            except RasterError:
                continue
    return found
