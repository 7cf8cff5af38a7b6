"""Preparation of a training: open and check its files, align the rasters, measure the training split."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geocrodino.data.alignment import AlignedLayers, Progress, align, bytes_to_write, readable_size
from geocrodino.data.grid_choice import GridChoice
from geocrodino.data.held_labels import HeldLabels
from geocrodino.data.in_place import choose_in_place, in_place_note, states_of, with_files
from geocrodino.data.layer_cache import CACHE_NAME, align_scenes, bytes_of_scenes, unwatched_note
from geocrodino.data.on_device import LayersOnDevice
from geocrodino.data.scales import other_scale_note
from geocrodino.data.scenes import AlignedScene
from geocrodino.data.statistics import count_classes, measure
from geocrodino.errors import ValueRangeWarning
from geocrodino.files.access import durable_file, writing
from geocrodino.geo.areas.aoi import AOI
from geocrodino.geo.rasters.grid import grid_crs_name
from geocrodino.geo.rasters.place import is_placeless
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.modalities.registry import definition_of
from geocrodino.models.pretrained.state import Pretrained
from geocrodino.phrases import listed
from geocrodino.report.figures import plot_splits
from geocrodino.settings.classes import ClassScheme
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.modality import Modality
from geocrodino.settings.scenes import LayerCache
from geocrodino.training import folder as run_folder
from geocrodino.training.checks import SCENES, CheckedInputs, CheckedScene, check_inputs
from geocrodino.training.layers import layers_on_device
from geocrodino.training.scene_notes import warn_of_heights
from geocrodino.training.start import Start
from geocrodino.training.summary import summarise_inputs

_WORTH_TELLING = 100_000_000
"""Bytes of layers of a single scene from which their size is told before they are written."""

_MOST_MAPPED = 256  # files that are mapped into memory for the whole training: each is an open file

SPLITS = "polygons of the splits"
"""Name of the hash of the splits among those of the inputs."""


@dataclass(frozen=True)
class Prepared:
    """Inputs of a training, checked and aligned.

    Attributes:
        scenes: The scenes that hold pixels of ``train``, ``val`` or ``unlabelled``, aligned; at least one.
        checked: All scenes, with their rasters, grids and areas, but without the pixels of labels and splits.
        classes: The classes.
        specs: How each modality is read and normalised.
        drawn: The splits, where they were drawn because no area names them; for `geocrodino evaluate`.
        start: The bundle that the training starts from, if any.
        encoder_weights: What the encoders start from; a modality without an entry starts from random weights. Branches
            that start from a bundle have no entry.
        teacher_weights: The same for a teacher that this training trains, which starts without the bundle.
        on_device: The layers from which training patches are cut on the device; None: patches are read from files.
    """

    scenes: tuple[AlignedScene, ...]
    checked: tuple[CheckedScene, ...]
    classes: ClassScheme
    specs: dict[Modality, ModalitySpec]
    drawn: Path | None
    start: Start | None = None
    encoder_weights: Mapping[Modality, Pretrained] = field(default_factory=dict)
    teacher_weights: Mapping[Modality, Pretrained] = field(default_factory=dict)
    on_device: LayersOnDevice | None = None

    @property
    def grid(self) -> GeoBox:
        """The grid of the first scene."""
        return self.checked[0].grid

    @property
    def choice(self) -> GridChoice:
        """The pixel size of all grids, and the reason for it."""
        return self.checked[0].choice

    def give_memory_back(self) -> None:
        """Forget layers on the device: a finished trainer, its loaders and its task are freed late."""
        if self.on_device is not None:
            self.on_device.clear()

    def of_teacher(self) -> Prepared:
        """Give the inputs of the teacher.

        Returns:
            The same inputs with the teacher's encoder weights, and without the bundle, which holds no fusion network.
        """
        return replace(self, start=None, encoder_weights=self.teacher_weights)


def prepare(
    config: TrainConfig,
    folder: Path,
    on_progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
    check: Callable[[CheckedInputs], None] = lambda _: None,
) -> Prepared:
    """Check all files, align the rasters and measure the training split.

    Args:
        config: The configuration.
        folder: The run folder; gets ``aligned/``, with the layers that are not read in place. Of several scenes, the
            layers lie in a folder beside it, which all runs there share.
        on_progress: Called with the numbers of finished and of all blocks, after each aligned block.
        tell: Called with a summary of the inputs before the rasters are aligned, which may take long; before it, with
            patterns that join tiles by name, where they are guessed.
        on_stage: Called with the name of each stage when it begins.
        check: Called with the checked inputs before the rasters are aligned; its errors are passed on.

    Returns:
        The aligned layers, the splits and the statistics of the channels.

    Raises:
        GeocrodinoError: One of its kinds, see `check_inputs` and `align`.
    """
    on_stage("Opening and checking rasters")
    found = check_inputs(config) if tell is None else check_inputs(config, tell)
    drawn = folder / run_folder.SPLITS_NAME if found.drawn else None
    if tell is not None:
        tell(summarise_inputs(found, config.training.patch_px, drawn))
    check(found)
    on_device = layers_on_device(config, found, tell or (lambda _: None))
    on_stage("Aligning rasters")
    scenes = _aligned(found, folder, config.data.cache, on_progress, tell or (lambda _: None))
    on_stage("Measuring the channels")
    for modality, recipe in found.recipes.items():
        if definition_of(modality).holds_heights:
            continue
        there = ((scene.name, scene.sources.rasters.get(modality)) for scene in found.scenes)
        files = {name: str(raster.name) for name, raster in there if raster is not None}
        note = other_scale_note(scenes, recipe, files)
        if note is not None:
            warnings.warn(note, ValueRangeWarning, stacklevel=2)
    given = found.ground_given
    specs = {m: measure(scenes, recipe, ground_given=given) for m, recipe in found.recipes.items()}
    _warn_of_constant(specs)
    checked = tuple(scene.without_pixels() for scene in found.scenes)
    return Prepared(scenes, checked, found.classes, specs, drawn, on_device=on_device)


def _aligned(
    found: CheckedInputs,
    folder: Path,
    cache: LayerCache,
    on_progress: Progress | None,
    tell: Callable[[str], None],
) -> tuple[AlignedScene, ...]:
    """Write the layers of each scene that a training reads and does not read in place, or take those that are there."""
    used = [scene for scene in found.scenes if scene.inside]
    place = layers_place(found, folder)
    in_place = read_in_place(found, folder, cache)
    states = [states_of(scene.sources, found.recipes, own) for scene, own in zip(used, in_place, strict=True)]
    if len(found.scenes) == 1:
        inputs = (used[0].sources, found.recipes, found.classes, used[0].grid, place)
        needed = bytes_to_write(*inputs, in_place[0])
        if needed >= _WORTH_TELLING or in_place[0]:
            tell(f"Layers in {place}: {readable_size(needed)} to write{in_place_note(found.rasters, in_place)}.")
        if needed == 0 and (note := unwatched_note([used[0].sources], place)):
            tell(note)
        copied = [align(*inputs, on_progress, in_place[0])]
    else:
        record = folder / run_folder.ALIGNED_NAME / run_folder.SCENES_NAME
        with writing(record.parent):
            record.parent.mkdir(parents=True, exist_ok=True)
        copied = align_scenes(found.rasters, found.recipes, found.classes, place, on_progress, tell, in_place)
        places = {scene.name: str(own.labels.parent) for scene, own in zip(used, copied, strict=True)}
        run_folder.save_json(record, places)
    warn_of_heights([(scene.name, scene.sources, own.impossible) for scene, own in zip(used, copied, strict=True)])
    layers = [
        with_files(own, scene.sources, found.recipes, modalities, files)
        for scene, own, modalities, files in zip(used, copied, in_place, states, strict=True)
    ]
    held = _mapped if len(used) <= _MOST_MAPPED else _stored
    return tuple(
        AlignedScene(scene.name, whole, held(scene, own), scene.inside)
        for scene, own, whole in zip(used, copied, layers, strict=True)
    )


def _warn_of_constant(specs: Mapping[Modality, ModalitySpec]) -> None:
    """Warn of channels that tell a network nothing."""
    for modality, spec in specs.items():
        constant = [f"{channel.name} ({channel.low:.5g})" for channel in spec.channels if channel.low == channel.high]
        if constant:
            warnings.warn(
                f"{modality}: nearly all pixels of train have the same value of {listed(constant)}, which tells the "
                "network nothing. Is it the right file?",
                ValueRangeWarning,
                stacklevel=3,
            )


def layers_place(found: CheckedInputs, folder: Path) -> Path:
    """Name the folder of the layers.

    Args:
        found: Inputs of the training.
        folder: The run folder.

    Returns:
        A folder inside the run folder; of several scenes one beside it, which all runs there share.
    """
    if len(found.scenes) == 1:
        return folder / run_folder.ALIGNED_NAME
    return folder.absolute().parent / CACHE_NAME


def layer_sizes(found: CheckedInputs, folder: Path, in_place: Sequence[frozenset[Modality]] = ()) -> list[int]:
    """Compute the size of the layers that are not there yet.

    Args:
        found: Inputs of the training.
        folder: The run folder.
        in_place: Modalities of each scene that are read in place; empty: none.

    Returns:
        Bytes to write for each scene that a training reads; 0 where its layers are there.

    Raises:
        RasterError: If a file is gone.
    """
    place = layers_place(found, folder)
    if len(found.scenes) > 1:
        return bytes_of_scenes(found.rasters, found.recipes, found.classes, place, in_place)
    (sources, grid), own = found.rasters[0], in_place[0] if in_place else ()
    return [bytes_to_write(sources, found.recipes, found.classes, grid, place, own)]


def read_in_place(found: CheckedInputs, folder: Path, cache: LayerCache) -> list[frozenset[Modality]]:
    """Decide which rasters a training reads in place.

    Args:
        found: Inputs of the training.
        folder: The run folder.
        cache: The setting ``data.cache``.

    Returns:
        The modalities of each scene that a training reads, see `choose_in_place`.

    Raises:
        ConfigError: If a raster cannot be read in place, and has to be.
    """
    return choose_in_place(
        found.rasters, found.recipes, cache, lambda: [not size for size in layer_sizes(found, folder)]
    )


def _mapped(scene: CheckedScene, layers: AlignedLayers) -> NDArray[np.uint8]:
    """The labels of a scene, from its file where that holds the same, so that they take no memory."""
    labels, stored = scene.labels, layers.class_indices()
    return stored if np.array_equal(labels, stored) else labels


def _stored(scene: CheckedScene, layers: AlignedLayers) -> HeldLabels | None:
    """The labels of one of many scenes: None where its file holds the same, which is then opened when it is read."""
    return None if np.array_equal(scene.labels, layers.class_indices()) else scene.held


def record(ready: Prepared, folder: Path, *, resume: bool) -> None:
    """Write ``splits.gpkg``, ``splits.png``, ``statistics.json`` and the hashes of the inputs into the run folder.

    Of several scenes, ``scenes.json`` lists the files, grid and pixels.

    Args:
        ready: Inputs of the training.
        folder: The run folder.
        resume: Whether the run is resumed; then the inputs must be those with which it began.

    Raises:
        ConfigError: If a resumed run would read other data than it began with.
        OutputError: If a file cannot be written.
    """
    run_folder.keep_inputs(folder, digest_of(ready), resume=resume)
    _save_splits(joined_areas(ready.checked), folder / run_folder.SPLITS_NAME)
    plot_splits([(scene.name, scene.aoi) for scene in ready.checked], folder / run_folder.SPLIT_MAP_NAME)
    if len(ready.checked) > 1:
        run_folder.save_json(folder / run_folder.SCENES_NAME, _scene_facts(ready))
    counts = count_classes(ready.scenes, "train", len(ready.classes)).tolist()
    statistics: dict[str, Any] = {m: [c.model_dump() for c in s.channels] for m, s in ready.specs.items()}
    run_folder.save_json(
        folder / "statistics.json", {**statistics, "class_px": dict(zip(ready.classes.names, counts, strict=True))}
    )


def changed_inputs(ready: Prepared, folder: Path) -> list[str]:
    """Compare prepared inputs with those of a run.

    Args:
        ready: Inputs of the training.
        folder: The run folder.

    Returns:
        Names of the inputs that have changed since the run began.

    Raises:
        ConfigError: If the folder has no record of its inputs.
    """
    return run_folder.changed_inputs(folder, digest_of(ready))


def _save_splits(aoi: AOI, path: Path) -> None:
    with durable_file(path, RuntimeError, ValueError) as partial:  # the kinds of pyogrio's errors
        aoi.save(partial)
        found = len(gpd.read_file(partial))  # GDAL may report success although a full disk has cut the file short
        if found != len(aoi.frame):
            raise ValueError(f"{found} of {len(aoi.frame)} polygons were written")


def joined_areas(scenes: Sequence[CheckedScene]) -> AOI:
    """Join the areas of all scenes.

    Args:
        scenes: The scenes.

    Returns:
        The area of a single scene. Of several, all polygons with a column ``scene`` beside ``split``: in the CRS of the
        scenes if it is the same for all, otherwise in degrees, WGS 84. Scenes without a place are left out where others
        have one.
    """
    if len(scenes) == 1:
        return scenes[0].aoi
    placed = [scene for scene in scenes if not is_placeless(scene.grid)]
    if len(placed) < len(scenes) and placed:
        scenes = placed  # the others have no place that a common file could hold
    frames = [scene.aoi.frame.assign(scene=scene.name) for scene in scenes]
    if any(frame.crs != frames[0].crs for frame in frames):
        frames = [frame.to_crs("EPSG:4326") for frame in frames]
    columns = ["scene", "split", "geometry"]
    return AOI(pd.concat([frame[columns] for frame in frames], ignore_index=True), SCENES)


def footprint_of(ready: Prepared) -> BaseGeometry:
    """Join the polygons of ``train``.

    Args:
        ready: Inputs of the training.

    Returns:
        The polygons of all scenes that have a place, in degrees; empty if none has one.
    """
    placed = [scene for scene in ready.checked if not is_placeless(scene.grid)]
    parts = [scene.aoi.in_degrees("train") for scene in placed if "train" in scene.aoi.splits]
    if not parts:
        return shapely.MultiPolygon()
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _scene_facts(ready: Prepared) -> list[dict[str, Any]]:
    """What ``scenes.json`` says of each scene."""
    aligned = {scene.name: scene for scene in ready.scenes}
    found = []
    for scene in ready.checked:
        inside = aligned[scene.name].inside if scene.name in aligned else {}
        found.append(
            {
                "name": scene.name,
                "files": {role: list(raster.file_names) for role, raster in scene.sources.roles.items()},
                "crs": grid_crs_name(scene.grid),
                "shape": list(scene.grid.shape),
                "transform": list(scene.grid.affine)[:6],
                "splits": list(scene.aoi.splits),
                "pixels": {split: int(np.count_nonzero(mask)) for split, mask in inside.items()},
            }
        )
    return found


def digest_of(ready: Prepared) -> dict[str, str]:
    """Compute hashes of the inputs of a training, scene after scene.

    Args:
        ready: Inputs of the training.

    Returns:
        Hashes of the places of the splits, of the labels, and of the statistics of the channels, by name.
    """
    splits, labels = hashlib.sha256(), hashlib.sha256()
    for scene in ready.scenes:
        splits.update(scene.name.encode())
        labels.update(scene.name.encode())
        for name, mask in scene.inside.items():
            splits.update(name.encode())
            splits.update(np.packbits(mask).tobytes())
        labels.update(np.ascontiguousarray(scene.labels).data)
    # Rounded, because the last digits of a logarithm differ between processors.
    channels = " ".join(
        f"{c.name} {c.low:.5g} {c.high:.5g} {c.mean:.5g} {c.std:.5g}" for s in ready.specs.values() for c in s.channels
    )
    return {
        SPLITS: splits.hexdigest(),
        "labels": labels.hexdigest(),
        "rasters": hashlib.sha256(channels.encode()).hexdigest(),
    }
