"""Write the rasters of all modalities and the labels once on one grid, so that a patch is a window of arrays.

The layers are ENVI files: numbers without compression, which a GIS can open and which are memory-mapped here.
Opening a GeoTIFF for every patch would take longer than reading the patch.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.layer_files import layer_file
from geocrodino.data.sources import Sources
from geocrodino.errors import AOIError, OutputError, RasterError
from geocrodino.files.access import durable_file, writing
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.place import bounds_on_grid, on_grid, placement_advice
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.grid import crop
from geocrodino.geo.rasters.height_numbers import advice_on_numbers
from geocrodino.geo.rasters.identity import fingerprint
from geocrodino.geo.rasters.impossible_heights import Impossible, impossible_heights, total
from geocrodino.geo.rasters.reader import RasterSource, require_overlap
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import Recipe
from geocrodino.phrases import span
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.modality import Modality

Progress = Callable[[int, int], None]
"""Called with the number of finished blocks and the number of all blocks."""

_BLOCK_PX = 1024
_STAGING = ".partial"  # folder of unfinished layers
_RECORD = "aligned.json"
_VERSION = 2  # of the layers' content: increase it to make every run write its layers again


@dataclass(frozen=True)
class AlignedLayers:
    """Files on one grid: channels in physical units and class indices.

    Attributes:
        grid: The working grid, H rows and W columns.
        rasters: File of each modality: channels, float32, C x H x W, NaN where invalid.
        labels: File of class indices, uint8, H x W, 255 without a label.
        impossible: Impossible heights that were read as missing, by role: the name of a modality, or ``ground``.
    """

    grid: GeoBox
    rasters: Mapping[Modality, Path]
    labels: Path
    impossible: dict[str, Impossible] = field(default_factory=dict)

    @classmethod
    def within(cls, folder: Path, grid: GeoBox, modalities: Iterable[Modality]) -> AlignedLayers:
        """Name the layers of a folder; the files need not exist.

        Args:
            folder: Folder of the layers.
            grid: The grid of all layers.
            modalities: The modalities that have a layer.

        Returns:
            Paths ``<modality>.img`` and ``labels.img`` in the folder, without impossible heights.
        """
        return cls(grid, {m: folder / f"{m}.img" for m in modalities}, folder / "labels.img")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that have a layer."""
        return tuple(self.rasters)

    def files(self) -> dict[str, str]:
        """Name the files of the layers.

        Returns:
            The file of each modality, and that of ``labels``.
        """
        return {role: str(path) for role, path in {**self.rasters, "labels": self.labels}.items()}

    def read(self, modality: Modality, window: Window) -> NDArray[np.float32]:
        """Read the channels of a window inside the grid.

        Args:
            modality: A modality that has a layer.
            window: A window inside the grid, h x w px.

        Returns:
            Channels in physical units, float32, shape (C, h, w), NaN where invalid; read-only.
        """
        rows, cols = window.slices
        return self.channels(modality)[:, rows, cols]

    def channels(self, modality: Modality) -> NDArray[np.float32]:
        """Map the channels of a modality into memory, read-only.

        Args:
            modality: The modality.

        Returns:
            Channels in physical units, float32, shape (C, H, W), NaN where invalid.
        """
        flat = np.frombuffer(_mapped(self.rasters[modality]), np.float32)
        return flat.reshape(-1, *self.grid.shape)

    def blocks(self) -> Iterator[Window]:
        """Cover the grid with windows, row by row.

        Yields:
            Windows of 1024 x 1024 px, smaller at the right and bottom edge.
        """
        yield from Window.of(self.grid.shape).blocks(_BLOCK_PX)

    def class_indices(self) -> NDArray[np.uint8]:
        """Map the class indices into memory, read-only.

        Returns:
            Class indices, uint8, shape (H, W), 255 without a label.
        """
        return np.frombuffer(_mapped(self.labels), np.uint8, math.prod(self.grid.shape)).reshape(self.grid.shape)


def _mapped(path: Path) -> mmap.mmap:
    """Map a file into memory, read-only; a patch of a small file takes half the time of ``np.memmap``."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def count_blocks(grid: GeoBox) -> int:
    """Count the blocks in which the layers of a grid are written.

    Args:
        grid: The grid.

    Returns:
        Number of blocks, of which `align` reports the finished ones.
    """
    return sum(1 for _ in Window.of(grid.shape).blocks(_BLOCK_PX))


def reference_grid(raster: RasterSource, aoi: AOI, grid: GeoBox) -> GeoBox:
    """Crop the working grid of a training to the area of interest.

    Args:
        raster: The raster that the grid covers, that of the first modality.
        aoi: The area of interest, in any CRS.
        grid: The working grid of the whole raster, see `choose_grid`.

    Returns:
        A grid that is north up, has square pixels and covers the part of the area's bounding box on the raster.

    Raises:
        AOIError: If the area lies outside the raster, or cannot be transformed to its CRS.
    """
    area = on_grid(aoi, grid).polygons()
    found = None if area.is_empty else crop(grid, area.bounds)
    if found is None:
        box = grid.boundingbox
        raise AOIError(
            f"{aoi.source}: the area of interest lies outside {raster.path}.\n"
            f"Expected some part of {span(*box.bbox)}; "
            f"found {bounds_on_grid(aoi, grid)} (in the raster's CRS).\n{placement_advice(aoi, grid)}"
        )
    return found


def align(
    sources: Sources,
    recipes: dict[Modality, Recipe],
    classes: ClassScheme,
    grid: GeoBox,
    folder: Path,
    on_progress: Progress | None = None,
    in_place: Collection[Modality] = (),
) -> AlignedLayers:
    """Write the layers on one grid, or reuse those that an earlier run wrote from the same files and settings.

    Layers that are read in place are computed and checked here as the others, but not written.

    Args:
        sources: The rasters.
        recipes: The recipe that computes the channels of each modality.
        classes: Classes of the labels.
        grid: The common grid.
        folder: Folder of the layers, created if missing.
        on_progress: Called after every few blocks; None: no progress is reported.
        in_place: Modalities that get no layer, see `geocrodino.data.in_place`.

    Returns:
        The layers, with the impossible heights that were found when they were written.

    Raises:
        OverlapError: If a raster does not overlap the grid.
        LabelError: If a label value belongs to no class.
        RasterError: If a file cannot be read, or is invalid all over the grid.
        OutputError: If the folder cannot be written, or its disk has too little free space for the layers.
    """
    require_overlap(sources.roles, grid)
    copied = [m for m in sources.rasters if m not in in_place]
    layers = AlignedLayers.within(folder, grid, copied)
    key = layers_key(sources, recipes, classes, grid, in_place)
    record = folder / _RECORD
    size = _sizes(layers, recipes)
    earlier = _read_record(record, size)
    if earlier.get("key") == key:
        return replace(layers, impossible=total(earlier["impossible"]))
    staging = folder / _STAGING
    _clear(folder, [record, *_sizes(AlignedLayers.within(folder, grid, sources.rasters), recipes)])
    try:
        require_space(folder, sum(size.values()))
        staged = AlignedLayers.within(staging, grid, copied)
        impossible = _write_layers(sources, recipes, classes, staged, on_progress)
        with writing(folder):
            for path in sorted(staging.iterdir()):
                path.replace(folder / path.name)
        counted = {role: each.as_list() for role, each in impossible.items()}
        with durable_file(record) as partial:
            content = {"key": key, "shape": list(grid.shape), "impossible": [counted]}
            partial.write_text(json.dumps(content), encoding="utf-8")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return replace(layers, impossible=impossible)


def bytes_to_write(
    sources: Sources,
    recipes: dict[Modality, Recipe],
    classes: ClassScheme,
    grid: GeoBox,
    folder: Path,
    in_place: Collection[Modality] = (),
) -> int:
    """Compute how much `align` would write.

    Args:
        sources: The rasters.
        recipes: The recipe that computes the channels of each modality.
        classes: Classes of the labels.
        grid: The common grid.
        folder: Folder of the layers; it need not exist.
        in_place: Modalities that get no layer.

    Returns:
        Size of the layers, bytes; 0 if they are there.

    Raises:
        RasterError: If a file is gone.
    """
    copied = [m for m in sources.rasters if m not in in_place]
    size = _sizes(AlignedLayers.within(folder, grid, copied), recipes)
    there = _read_record(folder / _RECORD, size).get("key") == layers_key(sources, recipes, classes, grid, in_place)
    return 0 if there else sum(size.values())


def _clear(folder: Path, stale: Sequence[Path]) -> None:
    """Create the folder of the layers with an empty staging folder inside, and remove outdated layers."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error}). Choose another folder with `out`.") from error
    staging = folder / _STAGING
    with writing(folder):
        for path in stale:
            for name in (path, path.with_suffix(".hdr"), path.with_suffix(".img.aux.xml")):
                name.unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)  # a killed process may have left one
        staging.mkdir()


def _sizes(layers: AlignedLayers, recipes: dict[Modality, Recipe]) -> dict[Path, int]:
    """Size in bytes of each complete layer."""
    px = math.prod(layers.grid.shape)
    sizes = {path: 4 * px * len(recipes[m].channel_names) for m, path in layers.rasters.items()}
    return {**sizes, layers.labels: px}


def require_space(folder: Path, needed: int, what: str = "the aligned rasters") -> None:
    """Check that a disk has enough free space for rasters, because writing them can take hours.

    Args:
        folder: A folder on the disk.
        needed: Size of the rasters, bytes.
        what: What they are, for the message.

    Raises:
        OutputError: If there is less free space.
    """
    with writing(folder):
        disk = shutil.disk_usage(folder)
    if disk.total and disk.free < needed:  # some network file systems report a total of 0
        raise OutputError(
            f"{folder}: not enough free space for {what}: expected {readable_size(needed)}, found "
            f"{readable_size(disk.free)}."
        )


def readable_size(size: int) -> str:
    """Write a number of bytes for people.

    Args:
        size: The number.

    Returns:
        Bytes, or MB or GB of 10^6 and 10^9 bytes with one decimal.
    """
    if size < 1e6:
        return f"{size:,} bytes"
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _write_layers(
    sources: Sources,
    recipes: dict[Modality, Recipe],
    classes: ClassScheme,
    layers: AlignedLayers,
    on_progress: Progress | None,
) -> dict[str, Impossible]:
    """Write all layers, and return the impossible heights of each role."""
    notes: list[dict[str, list[float]]] = []
    valid_px = dict.fromkeys((*sources.rasters, *([] if sources.labels is None else ["labels"])), 0)

    def compute(window: Window) -> tuple[Window, dict[Modality, NDArray[np.float32]], NDArray[np.uint8]]:
        found = {
            m: recipes[m].read(raster, layers.grid, window, ground=sources.ground, unit=sources.height_unit)[0]
            for m, raster in sources.rasters.items()
        }
        if sources.labels is None:
            return window, found, np.full(window.shape, IGNORE_INDEX, np.uint8)
        return window, found, sources.labels.indices(classes, window, layers.grid)

    windows = list(layers.blocks())
    with ExitStack() as opened:
        write = {
            m: opened.enter_context(layer_file(path, layers.grid, len(recipes[m].channel_names), "float32"))
            for m, path in layers.rasters.items()
        }
        write_labels = opened.enter_context(layer_file(layers.labels, layers.grid, 1, "uint8"))
        pool = opened.enter_context(ThreadPoolExecutor(2))
        # Four blocks at a time: finished blocks must not pile up in memory before they are written.
        for start in range(0, len(windows), 4):
            for window, found, labels in pool.map(compute, windows[start : start + 4]):
                for m, channels in found.items():
                    if m in write:
                        write[m](window, channels)
                    valid_px[m] += int(np.isfinite(channels[0]).sum())
                write_labels(window, labels[None])
                if "labels" in valid_px:
                    valid_px["labels"] += int((labels != IGNORE_INDEX).sum())
                notes.append(_impossible_in(sources, layers.grid, window))
            if on_progress:
                on_progress(min(start + 4, len(windows)), len(windows))
    named = {**sources.rasters, "labels": sources.labels}
    for name, count in valid_px.items():
        source = named[name]
        if count == 0 and source is not None:
            raise nothing_valid(source, layers.grid)
    return total(notes)


def _impossible_in(sources: Sources, grid: GeoBox, window: Window) -> dict[str, list[float]]:
    found = {role: impossible_heights(raster, grid, window) for role, raster in sources.heights.items()}
    return {role: each.as_list() for role, each in found.items() if each.pixels}


def check_labels(labels: LabelSource, classes: ClassScheme, grid: GeoBox, *, every_block: bool) -> None:
    """Read labels on the grid of a training, and raise the errors that `align` would raise for them.

    Args:
        labels: The labels.
        classes: Classes of the labels.
        grid: The working grid of the training.
        every_block: Whether to read the whole grid; if False, reading stops at the first block with a label.

    Raises:
        LabelError: If a label value belongs to no class.
        RasterError: If the file cannot be read, or is invalid all over the grid.
    """
    labelled = False
    for window in Window.of(grid.shape).blocks(_BLOCK_PX):
        labelled |= bool((labels.indices(classes, window, grid) != IGNORE_INDEX).any())
        if labelled and not every_block:
            return
    if not labelled:
        raise nothing_valid(labels, grid)


def nothing_valid(source: RasterSource, grid: GeoBox) -> RasterError:
    """Create the error for a raster that has no valid pixel on a grid.

    Args:
        source: The raster.
        grid: The working grid within the area of interest.

    Returns:
        The error, to be raised by the caller; where heights are impossible, with what their numbers may be.
    """
    height, width = grid.shape
    if isinstance(source, LabelSource) and not source.has_pixels:
        return RasterError(
            source.path,
            f"no shape labels a pixel within the area of interest ({height} x {width} px).\n"
            "Check that shapes and area lie in one place.",
        )
    where = f"no valid pixel within the area of interest ({height} x {width} px)"
    if advice := advice_on_numbers(source):
        return RasterError(source.path, f"{where}: {advice}")
    return RasterError(source.path, f"{where}: all of it is nodata.\nCheck the nodata tag and the area.")


def _read_record(record: Path, size: dict[Path, int]) -> dict[str, Any]:
    """Read the record of the layers on disk; empty if a layer is missing or incomplete, or the record is damaged."""
    if not record.exists() or any(not path.exists() or path.stat().st_size != n for path, n in size.items()):
        return {}
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and {"key", "impossible"} <= found.keys() else {}


def layers_key(
    sources: Sources,
    recipes: dict[Modality, Recipe],
    classes: ClassScheme,
    grid: GeoBox,
    in_place: Collection[Modality] = (),
) -> str:
    """Identify layers by all that determines their content.

    Args:
        sources: The rasters.
        recipes: The recipe that computes the channels of each modality.
        classes: Classes of the labels.
        grid: The common grid.
        in_place: Modalities that have no layer.

    Returns:
        SHA-256, hexadecimal, of the files with their sizes and times, the settings, the grid, and what is in place.

    Raises:
        RasterError: If a file is gone.
    """
    stats = [fingerprint(file) for file in sources.roles.values()]
    labels = sources.labels
    rules = [*([] if labels is None else [labels.ignore_values, labels.label_values]), classes.values]
    if labels is not None and labels.names is not None:  # these are matched with the classes by name
        rules += [labels.names, classes.names]
    settings = [sources.height_unit, rules, grid.shape, tuple(grid.affine), str(grid.crs)]
    channels = {m: r.model_dump_json() for m, r in recipes.items()}
    content = [_VERSION, stats, settings, channels, *([sorted(in_place)] if in_place else [])]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
