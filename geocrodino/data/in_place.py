"""Rasters that share the grid of a training, read in place: each patch from the file itself, without a copy.

A window of the grid is then a window of the file, and a recipe gives every window the values that the copy would hold.
Labels are always copied: they are a byte for each pixel, and statistics and samplers read them whole.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.alignment import AlignedLayers
from geocrodino.data.sources import Sources
from geocrodino.errors import AccessError, ConfigError, RasterError
from geocrodino.files.names import in_archive, is_remote
from geocrodino.geo.rasters.grid import align_longitudes, lattice_difference, pixel_offset
from geocrodino.geo.rasters.identity import source_files
from geocrodino.geo.rasters.impossible_heights import Impossible
from geocrodino.geo.rasters.open_files import FileState, FileStates, file_states, kept_open
from geocrodino.geo.rasters.reader import RasterSource
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.recipe import Recipe
from geocrodino.phrases import listed
from geocrodino.settings.height_channels import HEIGHT_CHANNELS
from geocrodino.settings.modality import MODALITIES, Modality
from geocrodino.settings.scenes import LayerCache

COPIED_BYTES = 2_000_000_000
"""Bytes of the copies of all scenes together up to which `auto` copies."""

_MOST_HALO_PX = 1  # a slope reads the direct neighbours; the ground under a surface, hundreds of pixels for each one


class InPlaceError(RasterError):
    """A file that is read in place cannot be read, or has changed.

    PyTorch creates the error of a data worker again from one text, its traceback; the message is taken from its end.
    """

    def __init__(self, path: object, message: str | None = None) -> None:
        if message is None:
            path, message = _path_and_message(str(path).rpartition(f"{type(self).__name__}: ")[2].strip())
        super().__init__(str(path), message)


def _path_and_message(text: str) -> tuple[str, str]:
    """Split the text of an error on a file. A name may hold ``": "`` too: the longest name that is there counts."""
    ends = [found.start() for found in re.finditer(": ", text)]
    end = next((end for end in reversed(ends) if os.path.lexists(text[:end])), ends[0] if ends else len(text))
    return text[:end], text[end + 2 :]


@dataclass(frozen=True)
class InPlaceLayers:
    """The rasters of a scene on its grid, some of them copied, the others read from their own files.

    Attributes:
        copied: The labels, and the rasters that are copied.
        sources: The rasters that are read in place, their ground and their unit of height.
        recipes: The recipe that computes the channels of each of them.
        states: Their files, as they were when the training began.
    """

    copied: AlignedLayers
    sources: Sources
    recipes: Mapping[Modality, Recipe]
    states: FileStates

    @property
    def grid(self) -> GeoBox:
        """The working grid of the scene, H rows and W columns."""
        return self.copied.grid

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the scene has."""
        return MODALITIES.in_order([*self.copied.modalities, *self.sources.rasters])

    @property
    def impossible(self) -> dict[str, Impossible]:
        """Impossible heights that are read as missing, by role."""
        return self.copied.impossible

    def files(self) -> dict[str, str]:
        """Name the files of the layers.

        Returns:
            The file of each modality, copied or not, and that of ``labels``.
        """
        copied, own = self.copied.files(), {m: raster.name for m, raster in self.sources.rasters.items()}
        return {**{m: own.get(m) or copied[m] for m in self.modalities}, "labels": copied["labels"]}

    def read(self, modality: Modality, window: Window) -> NDArray[np.float32]:
        """Read the channels of a window inside the grid.

        Args:
            modality: A modality of the scene.
            window: A window inside the grid, h x w px.

        Returns:
            Channels in physical units, float32, shape (C, h, w), NaN where invalid.

        Raises:
            InPlaceError: If a file cannot be read, or has changed since the training began.
        """
        raster = self.sources.rasters.get(modality)
        if raster is None:
            return self.copied.read(modality, window)
        recipe, ground, unit = self.recipes[modality], self.sources.ground, self.sources.height_unit
        try:
            with kept_open(self.states):
                return recipe.read(raster, self.grid, window, ground=ground, unit=unit)[0]
        except RasterError as error:
            raise InPlaceError(*error.parts) from error
        except AccessError as error:
            raise InPlaceError(*_path_and_message(str(error))) from error

    def class_indices(self) -> NDArray[np.uint8]:
        """Map the class indices into memory, read-only.

        Returns:
            Class indices, uint8, shape (H, W), 255 without a label.
        """
        return self.copied.class_indices()

    def blocks(self) -> Iterator[Window]:
        """Cover the grid with windows, row by row.

        Yields:
            Windows of 1024 x 1024 px, smaller at the right and bottom edge.
        """
        yield from self.copied.blocks()


def states_of(
    sources: Sources, recipes: Mapping[Modality, Recipe], in_place: frozenset[Modality]
) -> dict[str, tuple[FileState, ...]]:
    """Note the files of a scene that are read in place; to be done before they are checked.

    Args:
        sources: The rasters of the scene.
        recipes: The recipe of each modality.
        in_place: The modalities that are read in place.

    Returns:
        The state of each file.

    Raises:
        RasterError: If a file is gone.
    """
    return file_states(*(raster for m in in_place for raster in _read_for(m, sources, recipes[m])))


def with_files(
    copied: AlignedLayers,
    sources: Sources,
    recipes: Mapping[Modality, Recipe],
    in_place: frozenset[Modality],
    states: FileStates,
) -> AlignedLayers | InPlaceLayers:
    """Join what is copied of a scene with what is read in place.

    Args:
        copied: The labels, and the rasters that are copied.
        sources: All rasters of the scene.
        recipes: The recipe of each modality.
        in_place: The modalities that are read in place.
        states: Their files, see `states_of`.

    Returns:
        The layers of the scene.
    """
    if not in_place:
        return copied
    own = {m: raster for m, raster in sources.rasters.items() if m in in_place}
    return InPlaceLayers(copied, replace(sources, rasters=own, labels=None), {m: recipes[m] for m in own}, states)


def choose_in_place(
    scenes: Sequence[tuple[Sources, GeoBox]],
    recipes: Mapping[Modality, Recipe],
    cache: LayerCache,
    copies: Callable[[], Sequence[bool]],
) -> list[frozenset[Modality]]:
    """Decide which rasters of each scene are read in place.

    Args:
        scenes: The rasters and the grid of each scene.
        recipes: The recipe that computes the channels of each modality.
        cache: ``copy``: none; ``in_place``: all; ``auto``: none if copies of all scenes take at most 2 GB, above that
            those that can be, except in scenes that are copied already.
        copies: Finds out for each scene whether its copies are there from an earlier run.

    Returns:
        The modalities of each scene that are read in place.

    Raises:
        ConfigError: With ``in_place``, if a raster cannot be read in place.
    """
    if cache == "copy" or (cache == "auto" and copied_bytes(scenes, recipes) <= COPIED_BYTES):
        return [frozenset()] * len(scenes)
    if cache == "auto":
        return [
            frozenset(m for m in sources.rasters if not is_copied and obstacle(m, sources, recipes[m], grid) is None)
            for (sources, grid), is_copied in zip(scenes, copies(), strict=True)
        ]
    for sources, grid in scenes:
        for modality in sources.rasters:
            found = obstacle(modality, sources, recipes[modality], grid)
            if found is not None:
                raise ConfigError(
                    f"{found}\n`data.cache='copy'` copies all rasters to the grid of the training; with "
                    "`data.cache='auto'`, those are read in place that can be, if the copies take more than "
                    f"{COPIED_BYTES / 1e9:.0f} GB."
                )
    return [frozenset(sources.rasters) for sources, _ in scenes]


def copied_bytes(scenes: Sequence[tuple[Sources, GeoBox]], recipes: Mapping[Modality, Recipe]) -> int:
    """Compute the size of copies of all rasters and labels.

    Args:
        scenes: The rasters and the grid of each scene.
        recipes: The recipe that computes the channels of each modality.

    Returns:
        Bytes: four for each channel and one for the label of a pixel.
    """
    return sum(
        math.prod(grid.shape) * (1 + 4 * sum(len(recipes[m].channel_names) for m in sources.rasters))
        for sources, grid in scenes
    )


def obstacle(modality: Modality, sources: Sources, recipe: Recipe, grid: GeoBox) -> str | None:
    """Find out why a raster cannot be read in place.

    Args:
        modality: Its modality.
        sources: The rasters of its scene.
        recipe: The recipe that computes its channels.
        grid: The working grid of the scene.

    Returns:
        The file, what was expected and what was found; None if it can be read in place.
    """
    raster = sources.rasters[modality]
    start = f"{raster.name}: cannot be read in place"
    halo = recipe.halo_px(grid, ground_given=sources.ground is not None or raster.zero == "ground")
    if halo > _MOST_HALO_PX:
        return (
            f"{start}: expected channels of a pixel and its direct neighbours, found {listed(recipe.channel_names)}, "
            f"which depend on {halo} pixels on each side."
        )
    for source in _read_for(modality, sources, recipe):
        turned = align_longitudes(grid, source.geobox)
        if pixel_offset(turned, source.geobox) is None:
            whose = "its pixels are" if source is raster else f"the pixels of its ground {source.name} are"
            difference = lattice_difference(source.geobox, turned)
            return f"{start}: {whose} not those of the working grid: {difference}."
        for file in source_files(source):
            if is_remote(file) or in_archive(file) is not None:
                where = "a remote file" if is_remote(file) else "a file inside an archive"
                return f"{start}: expected files on the disks of this machine, found {where}, {file}."
    return None


def _read_for(modality: Modality, sources: Sources, recipe: Recipe) -> list[RasterSource]:
    """The rasters that the channels of a modality are read from."""
    raster, ground = sources.rasters[modality], sources.ground
    needed = modality in sources.heights and any(HEIGHT_CHANNELS[name].needs_ground for name in recipe.channels)
    return [raster] if ground is None or not needed else [raster, ground]


def in_place_note(scenes: Sequence[tuple[Sources, GeoBox]], in_place: Sequence[frozenset[Modality]]) -> str:
    """Name the modalities that are read in place, as the end of the line about the size of the copies.

    Args:
        scenes: The rasters and the grid of each scene.
        in_place: The modalities of each scene that are read in place.

    Returns:
        For instance ``; optical read in place``, with numbers of scenes where it is not all of them; empty if there is
        nothing.
    """
    words = []
    for modality in MODALITIES.in_order({m for each in in_place for m in each}):
        there = sum(modality in sources.rasters for sources, _ in scenes)
        count = sum(modality in each for each in in_place)
        words.append(modality if count == there else f"{modality} of {count} of {there} scenes")
    return f"; {' and '.join(words)} read in place" if words else ""
