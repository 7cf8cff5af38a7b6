"""What a training would read, write and need, found out without writing anything.

All files are checked as the training checks them. The pace is measured on the training's own networks and batches, with
random numbers in place of the rasters, which would have to be aligned first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geocrodino.data.alignment import readable_size, require_space
from geocrodino.data.held_labels import HeldLabels, unpacked
from geocrodino.data.in_place import in_place_note
from geocrodino.data.patches import patch_corners
from geocrodino.data.scenes import AlignedScene
from geocrodino.errors import ConfigError
from geocrodino.files.access import exists
from geocrodino.geo.rasters.window import Window
from geocrodino.modalities.channel import Channel
from geocrodino.modalities.recipe import ModalitySpec
from geocrodino.phrases import duration, listed
from geocrodino.prediction.memory import in_use, peak_growth
from geocrodino.settings.config import TrainConfig
from geocrodino.settings.modality import Modality
from geocrodino.training import folder as run_folder
from geocrodino.training import number_format
from geocrodino.training.assembly import measured_batch, parts_of
from geocrodino.training.checks import CheckedInputs, CheckedScene, check_inputs
from geocrodino.training.companions import fewer_threads
from geocrodino.training.devices import processes_of, with_devices
from geocrodino.training.folds import number_of_folds
from geocrodino.training.initial_weights import initial_weights, weights_elsewhere
from geocrodino.training.layers import layers_on_device
from geocrodino.training.learners.build import learner_class, trains_teacher
from geocrodino.training.listener import Listener
from geocrodino.training.networks import Beginning, try_networks
from geocrodino.training.pace import Pace, epochs_within, measure
from geocrodino.training.prepare import (
    Prepared,
    layer_sizes,
    layers_place,
    read_in_place,
)
from geocrodino.training.run import check_method, with_number_format
from geocrodino.training.scenes import held_out
from geocrodino.training.start import find_start, with_network
from geocrodino.training.summary import summarise_inputs
from geocrodino.training.teacher_checks import require_same_data

_SHOWN_FILES = 3
_COPIES = 5
"""Copies of the weights in a checkpoint: those that learn, two moments of the optimiser, the average, the best ones."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would do.

    Attributes:
        inputs: Scenes, grid, units, classes, splits and what splits share, in lines.
        files: Files that would be read, by role.
        positions: Possible positions of a patch in ``train``.
        batch: Patches of a batch, with labels and without.
        val_windows: Windows of ``val`` that are scored between epochs, and all of them.
        layers: Folder of the aligned layers.
        layer_bytes: Bytes of the layers that are not there yet.
        in_place: What is read in place, as the end of a line; empty: nothing.
        result_bytes: Bytes of bundle, checkpoint and, while both exist, a copy of the checkpoint.
        processes: Number of processes that share each batch.
        memory_bytes: Largest memory of each process in the trial, bytes.
        device_bytes: Largest memory of the GPU in the trial, bytes; None on other devices.
        device: Name of the device.
        epochs: Number of epochs.
        pace: Durations as measured.
        seconds: Time of steps and validations of one training, with that of its teacher, s.
        folds: Number of such trainings.
        writes: Files and folders that would be written.
        downloads: Names of encoder weights that would be downloaded unless they are on this machine.
    """

    inputs: str
    files: Mapping[str, tuple[str, ...]]
    positions: int
    batch: tuple[int, int]
    val_windows: tuple[int, int]
    layers: Path
    layer_bytes: int
    in_place: str
    result_bytes: int
    processes: int
    memory_bytes: int
    device_bytes: int | None
    device: str
    epochs: int
    pace: Pace
    seconds: float
    folds: int
    writes: tuple[str, ...]
    downloads: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Describe the plan.

        Yields:
            Lines for people.
        """
        yield self.inputs
        for role, names in self.files.items():
            yield f"Reads {role}: {listed(names, _SHOWN_FILES)}{_size_of(names)}"
        labelled, bare = self.batch
        without = f" and {bare} without" if bare else ""
        some, every = self.val_windows
        yield (
            f"Patches: {labelled} with labels{without} in a batch, {self.pace.steps} batches an epoch, from "
            f"{self.positions:,} positions in train"
        )
        yield f"Validation: {some} of {every} windows of val between epochs, all at the end"
        there = "; those of earlier runs are used" if not self.layer_bytes else ""
        yield f"Disk: {readable_size(self.layer_bytes)} of aligned layers in {self.layers}{there}{self.in_place}"
        runs = "" if self.folds == 1 else f" for each of {self.folds} folds"
        yield f"Disk: about {readable_size(self.result_bytes)} of bundle, logs and two checkpoints{runs}"
        gpu = "" if self.device_bytes is None else f", and {readable_size(self.device_bytes)} on the GPU"
        each = "" if self.processes == 1 else f" for each of {self.processes} processes"
        yield f"Memory: about {readable_size(self.memory_bytes)}{gpu}{each}, measured in a trial of a few steps"
        steps = f"{self.epochs} epoch{'s' * (self.epochs > 1)} of {self.pace.steps} steps"
        yield (
            f"Time: about {duration(self.folds * self.seconds)} for {steps} with validations{runs} on {self.device}, "
            "from a trial of a few steps on random numbers; time to align the rasters: unknown"
        )
        if self.downloads:
            yield f"Downloads, unless they are on this machine: {listed(self.downloads)}"
        yield f"Writes: {', '.join(self.writes)}, pictures and records"


def plan_training(
    config: TrainConfig,
    out: str | Path,
    *,
    teacher: str | Path | None = None,
    overwrite: bool = False,
    on_stage: Callable[[str], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> TrainingPlan:
    """Check a training and find out what it needs, without writing a file.

    Args:
        config: What to train on and how. Of a cross-validation, its first fold is checked and measured.
        out: Run folder; it need not exist.
        teacher: Run folder of a finished training of the method ``fusion``.
        overwrite: Whether a run in the folder would be replaced.
        on_stage: Called with the name of each stage when it begins.
        tell: Called with the patterns that join tiles by name, where they are guessed.

    Returns:
        The plan.

    Raises:
        GeocrodinoError: One of its kinds, if the training would be refused.
    """
    out, teacher = Path(out), None if teacher is None else Path(teacher)
    splits, folds = config.data.splits, 1
    if splits is not None and splits.folds is not None and splits.fold is None:
        if teacher is not None:
            raise ConfigError("`teacher`: a teacher is trained for each fold. Leave `teacher` out.")
        folds, config = number_of_folds(config), held_out(config, 0)
    start = find_start(config, out, teacher=teacher)
    config = with_network(config, start)
    check_method(config, teacher)
    config = with_number_format(with_devices(config))
    folder = out if folds == 1 else out / "fold-0"
    if overwrite:
        run_folder.require_kept(folder, {"start_from": config.start_from, "teacher": teacher})
    run_folder.check_free(config, folder, resume=False, overwrite=overwrite)
    if teacher is not None:
        require_same_data(config, teacher)
    L.seed_everything(config.training.seed, verbose=False)
    own = [m for m in config.data.modalities() if start is None or m not in start.modalities]
    needed = config.data.modalities() if trains_teacher(config.method, teacher) else own
    downloads = weights_elsewhere(config, needed)
    weights = {} if downloads else initial_weights(config, needed, out, resume=False, tell=lambda _: None)
    on_stage("Opening and checking rasters")
    found = check_inputs(config, tell)
    first = Beginning(config.method, start, {m: weights[m] for m in own if m in weights})
    trainings = [first]
    if trains_teacher(config.method, teacher):
        trainings.append(Beginning(learner_class(config.method).teacher_method(config.method), weights=weights))
    if not downloads:
        try_networks(config, found, *trainings)
    layers, in_place = layers_place(found, folder), read_in_place(found, folder, config.data.cache)
    layer_bytes = sum(layer_sizes(found, folder, in_place))
    require_space(_existing(layers), layer_bytes)
    ready = replace(
        _without_rasters(found),
        start=start,
        encoder_weights=first.weights,
        teacher_weights=weights,
        on_device=layers_on_device(config, found, tell),
    )
    on_stage("Measuring memory and pace")
    note = in_place_note(found.rasters, in_place)
    try:
        if config.training.needs_batch_size:
            config = measured_batch(config, [(t.method, _inputs_of(t, trainings, ready)) for t in trainings], tell)
        return _measured(config, ready, found, trainings, folds, out, layers, layer_bytes, note, downloads)
    finally:
        ready.give_memory_back()


def _inputs_of(training: Beginning, trainings: list[Beginning], ready: Prepared) -> Prepared:
    """The inputs of a training: the first is that of the configuration, the other that of its teacher."""
    return ready if training is trainings[0] else ready.of_teacher()


def _measured(
    config: TrainConfig,
    ready: Prepared,
    found: CheckedInputs,
    trainings: list[Beginning],
    folds: int,
    out: Path,
    layers: Path,
    layer_bytes: int,
    in_place: str,
    downloads: tuple[str, ...],
) -> TrainingPlan:
    """The plan of a checked training, with a trial of its steps."""
    settings, paces = config.training, []
    device = number_format.device_of(settings.accelerator)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    needed = 0
    for training in trainings:
        own = _inputs_of(training, trainings, ready)
        task, data = parts_of(config, training.method, own, Listener())
        before = in_use()  # with layers in memory
        with fewer_threads(processes_of(settings)):
            grown = peak_growth(lambda t=task, d=data: paces.append(measure(t, d, settings)))  # type: ignore[misc]
        needed = max(needed, before + grown)
        if training is trainings[0]:
            numbers = sum(parameter.numel() for parameter in task.learner.parameters())
            batch, windows = (data.plan.batch_size, data.unlabelled), data.val_windows
    epochs = epochs_within(60 * (settings.minutes or 0), *paces) if settings.needs_measurement else settings.epochs
    train = [scene.inside["train"] for scene in ready.scenes if "train" in scene.inside]
    files: dict[str, dict[str, None]] = {}
    for scene in found.scenes:
        for role, raster in scene.sources.roles.items():
            files.setdefault(role, {}).update(dict.fromkeys(raster.file_names))
    names = ("bundle.safetensors", "checkpoints/", "logs/", "splits.gpkg")
    return TrainingPlan(
        inputs=summarise_inputs(found, settings.patch_px, None),
        files={role: tuple(names) for role, names in files.items()},
        positions=sum(int(patch_corners(mask, settings.patch_px).sum()) for mask in train),
        batch=batch,
        val_windows=windows,
        layers=layers,
        layer_bytes=layer_bytes,
        in_place=in_place,
        # A new checkpoint is complete before the old one is removed.
        result_bytes=4 * numbers * (1 + 2 * _COPIES),
        processes=processes_of(settings),
        memory_bytes=needed,
        device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        device=number_format.device_name(settings.accelerator),
        epochs=epochs,
        pace=paces[0],
        seconds=sum(pace.training_s(epochs) for pace in paces),
        folds=folds,
        writes=(str(layers), *(f"{out}/{'' if folds == 1 else 'fold-*/'}{name}" for name in names)),
        downloads=downloads,
    )


def _existing(folder: Path) -> Path:
    """The folder, or the one above it that exists."""
    folder = folder.absolute()
    return next((each for each in (folder, *folder.parents) if exists(each)), Path(os.sep))


@dataclass(frozen=True)
class RandomLayers:
    """Layers of a scene that hold random numbers: patches of them cost what patches of rasters cost.

    Attributes:
        grid: The grid of the scene.
        channels: Number of channels of each modality.
        names: A file of each modality, for the index of the dataset.
        held: Class indices, uint8, shape (H, W).
    """

    grid: GeoBox
    channels: Mapping[Modality, int]
    names: Mapping[str, str]
    held: HeldLabels

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that the scene has."""
        return tuple(self.channels)

    def read(self, modality: Modality, window: Window) -> NDArray[np.float32]:
        """Make random numbers.

        Args:
            modality: A modality.
            window: A window inside the grid, h x w px.

        Returns:
            Numbers of mean 0 and deviation 1, float32, shape (C, h, w), the same for the same corner and size.
        """
        rng = np.random.default_rng([window.row_start, window.col_start])
        return rng.standard_normal((self.channels[modality], *window.shape), np.float32)

    def class_indices(self) -> NDArray[np.uint8]:
        """Get the class indices.

        Returns:
            Class indices, uint8, shape (H, W), 255 without a label.
        """
        return unpacked(self.held)

    def blocks(self) -> Iterator[Window]:
        """Cover the grid with windows.

        Yields:
            Windows of 1024 px.
        """
        yield from Window.of(self.grid.shape).blocks(1024)

    def files(self) -> dict[str, str]:
        """Name the files of the layers.

        Returns:
            A file of each modality, and that of ``labels``.
        """
        return dict(self.names)


def _without_rasters(found: CheckedInputs) -> Prepared:
    """Inputs of a training whose rasters are random numbers, with their true labels and splits."""
    specs = {
        m: ModalitySpec(recipe=recipe, channels=tuple(_standard(name) for name in recipe.channel_names))
        for m, recipe in found.recipes.items()
    }
    scenes = tuple(_random_scene(scene, specs) for scene in found.scenes if scene.inside)
    return Prepared(scenes, tuple(scene.without_pixels() for scene in found.scenes), found.classes, specs, None)


def _random_scene(scene: CheckedScene, specs: Mapping[Modality, ModalitySpec]) -> AlignedScene:
    channels = {m: len(specs[m].channels) for m in scene.sources.rasters}
    names = {m: raster.name for m, raster in scene.sources.rasters.items()} | {"labels": "labels"}
    return AlignedScene(scene.name, RandomLayers(scene.grid, channels, names, scene.held), scene.held, scene.inside)


def _standard(name: str) -> Channel:
    return Channel(name=name, unit="", low=-math.inf, high=math.inf, mean=0.0, std=1.0)


def _size_of(names: tuple[str, ...]) -> str:
    """The bytes of local files, in brackets; nothing where one is not on this machine."""
    try:
        return f" ({readable_size(sum(Path(name).stat().st_size for name in names))})"
    except OSError:
        return ""
