"""Inputs of a training, checked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.grid_choice import GridChoice
from geocrodino.data.held_labels import HeldLabels, unpacked
from geocrodino.data.leakage import LeakReport
from geocrodino.data.sources import Sources
from geocrodino.geo.areas.aoi import AOI
from geocrodino.modalities.recipe import Recipe
from geocrodino.settings.classes import IGNORE_INDEX, ClassScheme
from geocrodino.settings.modality import Modality
from geocrodino.settings.scenes import SceneConfig

SCENES = "data.scenes"
"""The key of the scenes, for messages about all of them."""


@dataclass(frozen=True)
class CheckedScene:
    """A scene of a training, checked.

    Attributes:
        name: Its name; empty in a training on one scene.
        sources: The rasters, as the recipes read them.
        grid: Its grid: the part of its working grid that the area covers, H x W px.
        choice: Its whole working grid and the reason for it.
        aoi: Areas with a split, in the grid's CRS.
        held: Class indices that may be used, uint8, shape (H, W): 255 outside ``train`` and ``val``.
        inside: Pixels of those of the splits ``train``, ``val`` and ``unlabelled`` that it has; bool, shape (H, W).
        settings: What the configuration says of it.
    """

    name: str
    sources: Sources
    grid: GeoBox
    choice: GridChoice
    aoi: AOI
    held: HeldLabels
    inside: dict[str, NDArray[np.bool_]]
    settings: SceneConfig

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Class indices that may be used, uint8, shape (H, W): 255 outside ``train`` and ``val``."""
        return unpacked(self.held)

    def without_pixels(self) -> CheckedScene:
        """Forget labels and masks, which are as large as the grid.

        Returns:
            The scene with empty arrays in their place.
        """
        return replace(self, held=np.zeros((0, 0), np.uint8), inside={})


@dataclass(frozen=True)
class CheckedInputs:
    """Inputs of a training, checked.

    Attributes:
        scenes: The scenes, each with its own grid; at least one.
        recipes: How channels are made, for each modality.
        classes: The classes.
        drawn: What was drawn, because neither scenes nor their areas name splits: ``blocks``, ``scenes`` or nothing.
        leaks: What the splits share, and what they lack.
        notes: Sentences on what was decided about the splits without being asked for.
    """

    scenes: tuple[CheckedScene, ...]
    recipes: dict[Modality, Recipe]
    classes: ClassScheme
    drawn: tuple[str, ...]
    leaks: LeakReport
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """What names the splits, for messages: the area, or the key of the scenes."""
        return self.scenes[0].aoi.source if len(self.scenes) == 1 else SCENES

    @property
    def rasters(self) -> list[tuple[Sources, GeoBox]]:
        """Rasters and grid of each scene that has a part in a split; a training reads no others."""
        return [(scene.sources, scene.grid) for scene in self.scenes if scene.inside]

    @property
    def ground_given(self) -> bool:
        """Whether the ground of every scene with heights is known: from a terrain model, or they count from it."""
        with_heights = [scene.sources for scene in self.scenes if scene.sources.heights]
        return bool(with_heights) and all(sources.ground_given for sources in with_heights)

    def split_px(self) -> dict[str, int]:
        """Count the pixels of the ground of each split, with a label or without.

        Returns:
            Pixels in all scenes together, by split.
        """
        splits = dict.fromkeys(split for scene in self.scenes for split in scene.inside)
        return {s: sum(int(scene.inside[s].sum()) for scene in self.scenes if s in scene.inside) for s in splits}

    def labelled_px(self) -> dict[str, int]:
        """Count the labelled pixels of the splits that have labels.

        Returns:
            Pixels with a class in all scenes together, by split: ``train`` and ``val``.
        """
        found: dict[str, int] = {}
        for scene in self.scenes:
            if not {"train", "val"} & scene.inside.keys():
                continue
            labelled = scene.labels != IGNORE_INDEX
            for split in ("train", "val"):
                if split in scene.inside:
                    found[split] = found.get(split, 0) + int(np.count_nonzero(labelled & scene.inside[split]))
        return found
