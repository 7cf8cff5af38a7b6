"""The maps of a training's scenes: which scenes a split has, what their maps are called, and predicting them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from geocrodino.bundle.io import Bundle
from geocrodino.errors import ConfigError
from geocrodino.evaluation.scenes import SceneMap
from geocrodino.files.access import exists
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.splits import SPLITS
from geocrodino.geo.labels.source import LabelSource
from geocrodino.modalities.registry import definition_of
from geocrodino.phrases import listed
from geocrodino.prediction.dry_run import MapPlan, plan_map
from geocrodino.prediction.engine import predict
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import Execution, Inputs, Outputs
from geocrodino.settings.scenes import SceneConfig
from geocrodino.training.checks import check_inputs

ONE_SCENE = "map"
"""Name of the map of a training on one scene, which has no name."""


@dataclass(frozen=True)
class PartOfScene:
    """The part of a scene that is in a split.

    Attributes:
        scene: Names of its files, and how they are read.
        labels: Its labels; None: it has none.
        aoi: Polygons of the split.
    """

    scene: SceneConfig
    labels: LabelSource | None
    aoi: AOI

    @property
    def name(self) -> str:
        """Name of its map, without the ending."""
        return self.scene.name or ONE_SCENE

    def map_in(self, folder: Path) -> Path:
        """Name its map.

        Args:
            folder: Folder of the maps.

        Returns:
            The file, whether it exists or not.
        """
        return folder / f"{self.name}.tif"


def scenes_of_split(config: TrainConfig, split: str | None) -> tuple[PartOfScene, ...]:
    """Find the scenes that hold a split, as a training with this configuration decides the splits.

    Args:
        config: The configuration.
        split: Name of the split; None: all splits.

    Returns:
        The scenes, in the order of the configuration.

    Raises:
        ConfigError: If no scene holds the split.
        GeocrodinoError: As for `check_inputs`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a training with this configuration has shown them
        checked = check_inputs(config).scenes
    found = []
    for scene in checked:
        frame = scene.aoi.frame
        chosen = frame if split is None else frame[frame["split"] == split]
        if len(chosen):
            found.append(PartOfScene(scene.settings, scene.sources.labels, AOI(chosen, scene.aoi.source)))
    if not found:
        there = [s for s in SPLITS if any(s in scene.aoi.splits for scene in checked)]
        raise ConfigError(f"data: no scene of the split {split}. Found: {', '.join(there)}.")
    return tuple(found)


def scene_maps(parts: Sequence[PartOfScene], maps: Path) -> tuple[list[SceneMap], tuple[str, ...]]:
    """Find the maps of scenes with labels.

    Args:
        parts: The scenes.
        maps: Folder that holds the map of each scene as ``NAME.tif``; of a single scene also the map itself.

    Returns:
        Map, labels and areas of each scene with labels, and the names of scenes without.

    Raises:
        ConfigError: If no scene has labels, or maps are missing.
    """
    labelled = [part for part in parts if part.labels is not None]
    bare = tuple(part.name for part in parts if part.labels is None)
    if not labelled:
        raise ConfigError(f"data: no scene of this split has labels to compare with: {listed(bare)}.")
    if len(labelled) == 1 and maps.suffix:
        return [SceneMap(labelled[0].name, maps, _labels_of(labelled[0]), labelled[0].aoi)], bare
    missing = [part.map_in(maps).name for part in labelled if not exists(part.map_in(maps))]
    if missing:
        raise ConfigError(
            f"{maps}: expected the map of each of {len(labelled)} scenes, found none for {len(missing)}: "
            f"{listed(missing)}.\nPredict them with the key `config` and the same split, see docs/splits.md, or rename "
            "the maps after their scenes."
        )
    return [SceneMap(part.name, part.map_in(maps), _labels_of(part), part.aoi) for part in labelled], bare


def _labels_of(part: PartOfScene) -> LabelSource:
    if part.labels is None:
        raise AssertionError("a scene with labels")
    return part.labels


def _coding(part: PartOfScene, bundle: Bundle, modality: Modality) -> HeightSettings | None:
    """The coding of the heights of a scene; refused where a prediction cannot be told of it."""
    own = part.scene.height
    recorded = bundle.manifest.modalities[modality].recipe.height
    if own is None or own == recorded:
        return own
    others = ("offset", "encoding", "band", "ground_band")
    known = recorded or HeightSettings()
    differing = [key for key in others if getattr(own, key) != getattr(known, key)]
    if differing:
        raise ConfigError(
            f"data.height.{differing[0]} of scene {part.name}: differs from that of other scenes, so the bundle does "
            "not record it, and a prediction cannot be told of it.\nPredict this scene from a file whose heights are "
            "metres."
        )
    return own


def predict_scenes(
    parts: Sequence[PartOfScene],
    bundle: Bundle,
    modality: Modality,
    folder: Path,
    *,
    execution: Execution | None = None,
    overwrite: bool = False,
) -> Iterator[Path]:
    """Predict the part of each scene that is in a split, with one modality.

    Args:
        parts: The scenes.
        bundle: The trained networks.
        modality: The branch to use; scenes without its raster are left out.
        folder: Folder of the maps, each called ``NAME.tif`` after its scene.
        execution: Backend, device, workers and memory.
        overwrite: Replace maps that exist.

    Yields:
        Each map when it is written.

    Raises:
        GeocrodinoError: As for `geocrodino.predict`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        raster = _raster_of(part, modality)
        if raster is None:
            continue
        target = part.map_in(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        predict(
            raster,
            target,
            bundle,
            modality,
            aoi=part.aoi,
            inputs=_inputs_of(part, bundle, modality),
            execution=execution or Execution(),
            outputs=Outputs(overwrite=overwrite),
        )
        yield target


def plan_scene_maps(
    parts: Sequence[PartOfScene],
    bundle: Bundle,
    modality: Modality,
    folder: Path,
    *,
    execution: Execution | None = None,
    overwrite: bool = False,
) -> Iterator[MapPlan]:
    """Find out what the maps of scenes need, without writing a file; tiles are measured on the first scene.

    Args:
        parts: The scenes.
        bundle: The trained networks.
        modality: The branch to use; scenes without its raster are left out.
        folder: Folder of the maps, which need not exist.
        execution: Backend, device, workers and memory.
        overwrite: Whether maps that exist would be replaced.

    Yields:
        The plan of each map.

    Raises:
        GeocrodinoError: As for `geocrodino.predict`.
    """
    trial = None
    for part in parts:
        raster = _raster_of(part, modality)
        if raster is None:
            continue
        plan, trial = plan_map(
            raster,
            part.map_in(folder),
            bundle,
            modality,
            aoi=part.aoi,
            inputs=_inputs_of(part, bundle, modality),
            execution=execution or Execution(),
            outputs=Outputs(overwrite=overwrite),
            trial=trial,
            creates_folder=True,
        )
        yield plan


def _raster_of(part: PartOfScene, modality: Modality) -> Path | list[str] | None:
    raster = part.scene.raster_paths.get(modality)
    return list(raster) if isinstance(raster, tuple) else raster


def _inputs_of(part: PartOfScene, bundle: Bundle, modality: Modality) -> Inputs:
    """How the raster of a scene is read."""
    heights = definition_of(modality).holds_heights
    ground = part.scene.ground if heights else None
    coding = _coding(part, bundle, modality) if heights else None
    if isinstance(ground, tuple):
        raise ConfigError(
            f"data.ground of scene {part.name}: a prediction reads the ground from one file, a folder or a "
            f"pattern, found {len(ground)} names. Name their folder."
        )
    return Inputs(
        ground=ground,
        height_unit=part.scene.height_unit if heights else None,
        height_scale=coding.scale if coding else None,
        height_zero=coding.zero if coding else None,
        crs=part.scene.crs,
        pixel_m=part.scene.pixel_m,
        bands=part.scene.bands_by_modality.get(modality),
    )
