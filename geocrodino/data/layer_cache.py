"""Layers of many scenes, shared by the runs of one folder: each scene is written once for the same files and settings.

The layers of a scene lie in a folder that is named after their key, so a change of a file or a setting never overwrites
what another run reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from odc.geo.geobox import GeoBox

from geocrodino.data.alignment import (
    AlignedLayers,
    Progress,
    align,
    bytes_to_write,
    count_blocks,
    layers_key,
    readable_size,
    require_space,
)
from geocrodino.data.in_place import in_place_note
from geocrodino.data.sources import Sources
from geocrodino.files.access import writing
from geocrodino.files.locks import alone
from geocrodino.files.names import is_remote
from geocrodino.geo.rasters.identity import source_files
from geocrodino.modalities.recipe import Recipe
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.modality import Modality

CACHE_NAME = "aligned-cache"
"""Folder of the layers, beside the run folders."""

_THREADS = 4  # scenes at a time if each is one block: most of the time is spent waiting for the disk
_KEY_LENGTH = 24  # characters of a key that name a folder


def align_scenes(
    scenes: Sequence[tuple[Sources, GeoBox]],
    recipes: dict[Modality, Recipe],
    classes: ClassScheme,
    cache: Path,
    on_progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    in_place: Sequence[frozenset[Modality]] = (),
) -> list[AlignedLayers]:
    """Write the layers of many scenes, or reuse those that an earlier run wrote from the same files and settings.

    Two runs may do this at once: one of them writes a scene, the other one waits for it.

    Args:
        scenes: The rasters and the grid of each scene.
        recipes: The recipe that computes the channels of each modality.
        classes: Classes of the labels.
        cache: Folder of the layers of all runs, created if missing; of each scene, a folder in it.
        on_progress: Called with the number of finished blocks and that of all.
        tell: Called with the size of the layers before any is written.
        in_place: Modalities of each scene that get no layer; empty: none.

    Returns:
        The layers of each scene.

    Raises:
        GeocrodinoError: One of its kinds, see `align`; before anything is written if the disk has too little space.
    """
    in_place = in_place or [frozenset()] * len(scenes)
    folders, sizes = _folders(scenes, recipes, classes, cache, in_place)
    needed, there = sum(sizes), sizes.count(0)
    earlier = f"; those of {there} scene{'s' * (there > 1)} are there from earlier runs" if there else ""
    tell(f"Layers in {cache}: {readable_size(needed)} to write{earlier}{in_place_note(scenes, in_place)}.")
    reused = [sources for (sources, _), size in zip(scenes, sizes, strict=True) if not size]
    if note := unwatched_note(reused, cache):
        tell(note)
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
    require_space(cache, needed)
    blocks = [count_blocks(grid) for _, grid in scenes]
    progress = _Progress(blocks, on_progress)

    def write(number: int) -> AlignedLayers:
        (sources, grid), folder = scenes[number], folders[number]
        with writing(folder):
            folder.mkdir(exist_ok=True)
        with alone(folder):
            layers = align(sources, recipes, classes, grid, folder, progress.of(number), in_place[number])
        progress.finish(number)
        return layers

    with ThreadPoolExecutor(_THREADS if max(blocks) == 1 else 1) as pool:
        try:
            return list(pool.map(write, range(len(scenes))))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # thousands of scenes may wait behind the one that failed
            raise


def unwatched_note(reused: Iterable[Sources], folder: Path) -> str | None:
    """Tell of remote files behind layers that are reused: only their names are compared, not their content.

    Args:
        reused: The rasters of scenes whose layers are there from an earlier run.
        folder: Folder of the layers.

    Returns:
        A sentence with their number and the way to read them again; None if all files are local.
    """
    files = {name for sources in reused for raster in sources.roles.values() for name in source_files(raster)}
    remote = sorted(name for name in files if is_remote(name))
    if not remote:
        return None
    which = f"{remote[0]} is" if len(remote) == 1 else f"{len(remote)} files, such as {remote[0]}, are"
    return f"{which} remote: changes since the earlier run are not noticed. Delete {folder} to read again."


def bytes_of_scenes(
    scenes: Sequence[tuple[Sources, GeoBox]],
    recipes: dict[Modality, Recipe],
    classes: ClassScheme,
    cache: Path,
    in_place: Sequence[frozenset[Modality]] = (),
) -> list[int]:
    """Compute how much `align_scenes` would write.

    Args:
        scenes: The rasters and the grid of each scene.
        recipes: The recipe that computes the channels of each modality.
        classes: Classes of the labels.
        cache: Folder of the layers of all runs; it need not exist.
        in_place: Modalities of each scene that get no layer; empty: none.

    Returns:
        For each scene the size of its layers, bytes; 0 if they are there.

    Raises:
        RasterError: If a file is gone.
    """
    return _folders(scenes, recipes, classes, cache, in_place or [frozenset()] * len(scenes))[1]


def _folders(
    scenes: Sequence[tuple[Sources, GeoBox]],
    recipes: dict[Modality, Recipe],
    classes: ClassScheme,
    cache: Path,
    in_place: Sequence[frozenset[Modality]],
) -> tuple[list[Path], list[int]]:
    """The folder of each scene, and the bytes to write there."""
    folders, sizes = [], []
    for (sources, grid), own in zip(scenes, in_place, strict=True):
        folder = cache / layers_key(sources, recipes, classes, grid, own)[:_KEY_LENGTH]
        folders.append(folder)
        sizes.append(bytes_to_write(sources, recipes, classes, grid, folder, own))
    return folders, sizes


class _Progress:
    """Finished blocks of scenes that are written at the same time."""

    def __init__(self, blocks: Sequence[int], on_progress: Progress | None) -> None:
        self._blocks, self._tell = blocks, on_progress
        self._done = [0] * len(blocks)
        self._sum, self._total = 0, sum(blocks)
        self._lock = threading.Lock()

    def of(self, scene: int) -> Progress | None:
        """The progress of one scene, as a function for `align`."""
        return None if self._tell is None else lambda done, _: self._set(scene, done)

    def finish(self, scene: int) -> None:
        """Count all blocks of a scene, also of one that was there already."""
        self._set(scene, self._blocks[scene])

    def _set(self, scene: int, done: int) -> None:
        if self._tell is None:
            return
        with self._lock:
            if done > self._done[scene]:
                self._sum += done - self._done[scene]
                self._done[scene] = done
                self._tell(self._sum, self._total)
