"""The maps of a training's scenes: which scenes a split has, what their maps are called, and predicting them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from geocrodino.bundle.io import Bundle
from geocrodino.errors import ConfigError, OutputError, SplitWarning
from geocrodino.evaluation.scenes import SceneMap
from geocrodino.files.access import exists, is_file, look_up
from geocrodino.files.names import is_remote
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.areas.splits import SPLITS
from geocrodino.geo.labels.source import LabelSource
from geocrodino.geo.rasters.place import stated_place
from geocrodino.maps.files import companion_path
from geocrodino.maps.preview import map_preview, single_file
from geocrodino.maps.writer import check_replaceable
from geocrodino.modalities.registry import definition_of
from geocrodino.phrases import listed
from geocrodino.prediction.choose import IMAGE_AND_HEIGHTS
from geocrodino.prediction.dry_run import MapPlan, plan_map
from geocrodino.prediction.engine import predict
from geocrodino.settings.config import TrainConfig, load_config
from geocrodino.settings.heights import HeightSettings
from geocrodino.settings.modality import Modality
from geocrodino.settings.prediction import COMPANIONS, Execution, Inputs, ModalityChoice, Outputs
from geocrodino.settings.scenes import SceneConfig
from geocrodino.training.checks import check_inputs
from geocrodino.training.folder import SPLITS_NAME
from geocrodino.training.scenes import of_earlier_run
from geocrodino.training.teacher import SETTINGS_NAME

ONE_SCENE = "map"
"""Name of the map of a training on one scene, which has no name."""


@dataclass(frozen=True)
class PartOfScene:
    """The part of a scene that is in a split.

    Attributes:
        scene: Names of its files, and how they are read.
        labels: Its labels; None: it has none.
        aoi: Polygons of the split.
        files: Names of all files that the scene is made of.
    """

    scene: SceneConfig
    labels: LabelSource | None
    aoi: AOI
    files: tuple[str, ...] = ()

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


def scenes_of_split(
    config: TrainConfig, split: str | None, *, file: Path | None = None, run: Path | None = None
) -> tuple[PartOfScene, ...]:
    """Find the scenes that hold a split, as a training with this configuration decides the splits.

    Args:
        config: The configuration.
        split: Name of the split; None: all splits.
        file: The file of the configuration. Where it is none that a run has recorded and splits are drawn, they need
            not be those of a training, which may have had options of its own.
        run: The folder of the run that trained the bundle, whose record is compared with the configuration; None: not
            known.

    Returns:
        The scenes, in the order of the configuration.

    Raises:
        ConfigError: If no scene holds the split, or the run has drawn other splits.
        GeocrodinoError: As for `check_inputs`.

    Warns:
        SplitWarning: If splits are drawn, and nothing says whether a training has drawn the same.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a training with this configuration has shown them
        inputs = check_inputs(of_earlier_run(config), trains=False)
    checked = inputs.scenes
    if split is not None and file is not None and inputs.drawn:
        _compare_draws(config, file, run, listed(inputs.drawn))
    found = []
    for scene in checked:
        frame = scene.aoi.frame
        chosen = frame if split is None else frame[frame["split"] == split]
        if len(chosen):
            area = () if scene.aoi.given is None or scene.aoi.given.file is None else (str(scene.aoi.given.file),)
            files = tuple(name for raster in scene.sources.roles.values() for name in raster.file_names)
            part = AOI(chosen, scene.aoi.source)
            found.append(PartOfScene(scene.settings, scene.sources.labels, part, files + area))
    if not found:
        there = [s for s in SPLITS if any(s in scene.aoi.splits for scene in checked)]
        raise ConfigError(f"data: no scene of the split {split}. Found: {', '.join(there)}.")
    return tuple(found)


def _compare_draws(config: TrainConfig, file: Path, run: Path | None, drawn: str) -> None:
    """Refuse a draw of splits that differs from that of a run; warn where no run is known."""
    if is_file(file.parent / SPLITS_NAME):  # recorded by a run, with all of its options
        return
    own = _draw(config)
    recorded = None if run is None else run / SETTINGS_NAME
    if recorded is None or not is_file(recorded):
        words = ", ".join(f"{key} {value}" for key, value in own.items() if value is not None)
        warnings.warn(
            f"{file}: its splits are drawn ({drawn}; {words}). A training with other options had other splits: name "
            f"{SETTINGS_NAME} of its run folder, which records them.",
            SplitWarning,
            stacklevel=3,
        )
        return
    theirs = _draw(load_config(recorded, {}))
    differing = [key for key in own if own[key] != theirs[key]]
    if differing:
        key = differing[0]
        expected, found = ("nothing" if draw[key] is None else draw[key] for draw in (theirs, own))
        raise ConfigError(
            f"{file}: {key}: splits are drawn ({drawn}), and the training of this bundle drew others: expected "
            f"{expected}, found {found}.\nName what it recorded: {recorded}"
        )


def _draw(config: TrainConfig) -> dict[str, object]:
    """What a draw of splits depends on, besides the files."""
    splits = config.data.splits
    return {
        "training.seed": config.training.seed,
        "training.patch_px": config.training.patch_px,
        "data.partial": config.data.partial,
        "data.splits": None if splits is None else splits.model_dump(exclude_defaults=True, mode="json"),
    }


def scene_maps(parts: Sequence[PartOfScene], maps: Path) -> tuple[list[SceneMap], tuple[str, ...]]:
    """Find the maps of scenes with labels.

    Args:
        parts: The scenes.
        maps: Folder that holds the map of each scene as ``NAME.tif``; of a single scene also the map itself.

    Returns:
        Map, labels and areas of each scene with labels, except those of `without_map`; and the names of scenes without
        labels.

    Raises:
        ConfigError: If no scene has labels, or maps are missing.
    """
    unmapped = without_map(parts, maps)
    labelled = [part for part in parts if part.labels is not None and part.name not in unmapped]
    bare = tuple(part.name for part in parts if part.labels is None)
    if not labelled:
        raise ConfigError(f"data: no scene of this split has labels to compare with: {listed(bare)}.")
    if len(labelled) == 1 and maps.suffix:
        return [SceneMap(labelled[0].name, maps, _labels_of(labelled[0]), labelled[0].aoi)], bare
    if is_file(maps):
        raise ConfigError(
            f"{maps}: expected the folder with the maps of {len(labelled)} scenes, found a file.\nName the folder "
            f"{maps.parent}, or compare the one map with its `labels`."
        )
    missing = [part.map_in(maps).name for part in labelled if not exists(part.map_in(maps))]
    if missing:
        raise ConfigError(
            f"{maps}: expected the map of each of {len(labelled)} scenes, found none for {len(missing)}: "
            f"{listed(missing)}.\nPredict them with `config` and the same split, see docs/splits.md, or rename "
            "the maps after their scenes."
        )
    return [SceneMap(part.name, part.map_in(maps), _labels_of(part), part.aoi) for part in labelled], bare


def without_map(parts: Sequence[PartOfScene], maps: Path) -> tuple[str, ...]:
    """Find scenes that have no map because they lack a modality.

    Args:
        parts: The scenes.
        maps: As for `scene_maps`.

    Returns:
        Names of the scenes with labels that lack a modality which others have, and whose map is missing; none if no
        scene has a map.
    """
    there = {m for part in parts for m in part.scene.raster_paths}
    labelled = [part for part in parts if part.labels is not None]
    missing = [part for part in labelled if not exists(part.map_in(maps))]
    if len(missing) == len(labelled):
        return ()
    return tuple(part.name for part in missing if there - part.scene.raster_paths.keys())


def modalities_used(part: PartOfScene, modality: ModalityChoice) -> tuple[Modality, ...]:
    """Name the modalities that the map of a scene is made from.

    Args:
        part: The scene.
        modality: A modality; or ``both``: an image and heights, or the one of the two that the scene has.

    Returns:
        The modalities, none if the scene has no raster of them.
    """
    wanted = IMAGE_AND_HEIGHTS if modality == "both" else (modality,)
    return tuple(m for m in wanted if m in part.scene.raster_paths)


def with_modality(parts: Sequence[PartOfScene], modality: ModalityChoice) -> tuple[list[PartOfScene], tuple[str, ...]]:
    """Find the scenes that can be mapped with a modality.

    Args:
        parts: The scenes.
        modality: As for `modalities_used`.

    Returns:
        The scenes that have a raster of it, and the names of the others.
    """
    there = [part for part in parts if modalities_used(part, modality)]
    return there, tuple(part.name for part in parts if not modalities_used(part, modality))


def _labels_of(part: PartOfScene) -> LabelSource:
    if part.labels is None:
        raise AssertionError("a scene with labels")
    return part.labels


def predict_scenes(
    parts: Sequence[PartOfScene],
    bundle: Bundle,
    modality: ModalityChoice,
    folder: Path,
    *,
    execution: Execution | None = None,
    pictures: Path | None = None,
    overwrite: bool = False,
) -> Iterator[Path]:
    """Predict the part of each scene that is in a split.

    Args:
        parts: The scenes.
        bundle: The trained networks.
        modality: The branch to use, or ``both``; scenes without a raster for it are left out, see `with_modality`.
        folder: Folder of the maps, each called ``NAME.tif`` after its scene.
        execution: Backend, device, workers and memory.
        pictures: Folder for a picture of each map, called ``NAME.png``; None: no pictures.
        overwrite: Replace maps and pictures that exist.

    Yields:
        Each map, and then its picture, when it is written.

    Raises:
        ConfigError: If no scene has a raster for it.
        OutputError: If a map or picture cannot be written, see `check_targets`.
        GeocrodinoError: As for `geocrodino.predict`.
    """
    there = _mappable(parts, modality)
    check_targets(parts, modality, folder, bundle.path, pictures=pictures, overwrite=overwrite)
    for part in there:
        target = part.map_in(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        read = _how_read(part, modality)
        predict(
            read.raster,
            target,
            bundle,
            read.modality,
            elevation=read.elevation,
            aoi=part.aoi,
            inputs=read.inputs,
            execution=execution or Execution(),
            outputs=Outputs(overwrite=overwrite),
            height=read.height,
        )
        yield target
        if pictures is not None:
            picture = part.map_in(pictures).with_suffix(".png")
            _save_picture(part, read, target, picture)
            yield picture


def plan_scene_maps(
    parts: Sequence[PartOfScene],
    bundle: Bundle,
    modality: ModalityChoice,
    folder: Path,
    *,
    execution: Execution | None = None,
    pictures: Path | None = None,
    overwrite: bool = False,
) -> Iterator[MapPlan]:
    """Find out what the maps of scenes need, without writing a file; tiles are measured on the first scene.

    Args:
        parts: The scenes.
        bundle: The trained networks.
        modality: As for `predict_scenes`.
        folder: Folder of the maps, which need not exist.
        execution: Backend, device, workers and memory.
        pictures: Folder of the pictures; None: there are none.
        overwrite: Whether maps and pictures that exist would be replaced.

    Yields:
        The plan of each map.

    Raises:
        ConfigError: If no scene has a raster for it.
        GeocrodinoError: As for `geocrodino.predict`.
    """
    trial = None
    there = _mappable(parts, modality)
    check_targets(parts, modality, folder, bundle.path, pictures=pictures, overwrite=overwrite)
    for part in there:
        read = _how_read(part, modality)
        plan, trial = plan_map(
            read.raster,
            part.map_in(folder),
            bundle,
            read.modality,
            elevation=read.elevation,
            aoi=part.aoi,
            inputs=read.inputs,
            height=read.height,
            execution=execution or Execution(),
            outputs=Outputs(overwrite=overwrite),
            trial=trial,
            creates_folder=True,
        )
        yield plan


def check_targets(
    parts: Sequence[PartOfScene],
    modality: ModalityChoice,
    folder: Path,
    bundle: Path,
    *,
    pictures: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Check that all maps and pictures may be written, before the first one is.

    Args:
        parts: The scenes.
        modality: As for `predict_scenes`.
        folder: Folder of the maps.
        bundle: File of the bundle.
        pictures: Folder of the pictures; None: there are none.
        overwrite: Whether maps and pictures that exist may be replaced.

    Raises:
        OutputError: If a file exists and ``overwrite`` is false, or is one that a scene or the prediction is made from.
    """
    inputs = {
        (state.st_dev, state.st_ino): name for name, state in _states(chain([bundle], *(part.files for part in parts)))
    }
    for part in with_modality(parts, modality)[0]:
        target = part.map_in(folder)
        written = [target] if pictures is None else [target, part.map_in(pictures).with_suffix(".png")]
        for path in written:
            check_replaceable(path, overwrite=overwrite)
        for name, state in _states([*written, *(companion_path(target, kind) for kind in COMPANIONS)]):
            if (state.st_dev, state.st_ino) in inputs:
                raise OutputError(
                    f"{name}: would replace the input {inputs[state.st_dev, state.st_ino]}.\nChoose another folder."
                )


def _states(names: Iterable[str | Path]) -> Iterator[tuple[str, os.stat_result]]:
    """The files that exist."""
    for name in names:
        state = None if is_remote(str(name)) else look_up(name)
        if state is not None:
            yield str(name), state


def _save_picture(part: PartOfScene, read: _Read, path: Path, target: Path) -> None:
    """Write the picture of a map, beside the raster that it was made from if that is one file."""
    raster = read.raster if isinstance(read.raster, list) else [read.raster]
    shown = single_file(raster, stated_place(read.inputs.crs, read.inputs.pixel_m))
    target.parent.mkdir(parents=True, exist_ok=True)
    map_preview(path, target, scene=shown, modality=modalities_used(part, read.modality)[0])


def _mappable(parts: Sequence[PartOfScene], modality: ModalityChoice) -> list[PartOfScene]:
    """The scenes that have a modality, at least one."""
    there, _ = with_modality(parts, modality)
    if not there:
        key = " or data.".join(IMAGE_AND_HEIGHTS) if modality == "both" else modality
        raise ConfigError(
            f"data.{key}: expected its raster for a scene of this split, found none for {len(parts)}.\nChoose "
            "another modality with `modality`, or another split."
        )
    return there


class _Read(NamedTuple):
    """How the rasters of a scene are read, as arguments of `predict`."""

    raster: Path | list[str]
    elevation: Path | list[str] | None
    modality: ModalityChoice
    inputs: Inputs
    height: HeightSettings | None


def _how_read(part: PartOfScene, modality: ModalityChoice) -> _Read:
    scene, used = part.scene, modalities_used(part, modality)
    named = [scene.raster_paths[m] for m in used]
    rasters = [list(raster) if isinstance(raster, tuple) else raster for raster in named]
    heights = any(definition_of(m).holds_heights for m in used)
    ground = scene.ground if heights else None
    if isinstance(ground, tuple):
        raise ConfigError(
            f"data.ground of scene {part.name}: a prediction reads the ground from one file, a folder or a "
            f"pattern, found {len(ground)} names. Name their folder."
        )
    inputs = Inputs(
        ground=ground,
        height_unit=scene.height_unit if heights else None,
        crs=scene.crs,
        pixel_m=scene.pixel_m,
        bands=scene.bands_by_modality.get(used[0]),
        rescale=scene.rescale if "optical" in used else None,
    )
    several = len(used) > 1
    return _Read(
        rasters[0],
        rasters[1] if several else None,
        "both" if several else used[0],
        inputs,
        scene.height if heights else None,
    )
