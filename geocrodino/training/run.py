"""Training: from a configuration to a run folder with a bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import shapely
import torch
from lightning.pytorch.callbacks import Callback, Timer
from safetensors import SafetensorError
from safetensors.torch import save
from torch import nn

from geocrodino.bundle.io import save_bundle
from geocrodino.bundle.manifest import Manifest
from geocrodino.data.alignment import Progress
from geocrodino.data.datamodule import CoregisteredDataModule
from geocrodino.errors import BundleError, ConfigError
from geocrodino.evaluation.metrics import ConfusionMatrix
from geocrodino.files.access import durable_file, exists, writing
from geocrodino.geo.rasters.grid import crs_of, pixel_side_m
from geocrodino.geo.rasters.open_files import closed_after
from geocrodino.models.branch import receptive_field_radius_px
from geocrodino.report.figures import plot_reliability
from geocrodino.settings.config import TrainConfig, save_config
from geocrodino.settings.method import MethodSettings
from geocrodino.settings.modality import Modality
from geocrodino.training import folder as run_folder
from geocrodino.training import number_format
from geocrodino.training.assembly import measured_batch, parts_of
from geocrodino.training.calibrate import Calibrated
from geocrodino.training.callbacks import BestNetworks, earliest_stop
from geocrodino.training.checked import CheckedInputs
from geocrodino.training.checkpoint import finished_epochs, was_scored_on_part
from geocrodino.training.checks import check_settings
from geocrodino.training.companions import companions, fewer_threads
from geocrodino.training.devices import describe_devices, processes_of, with_devices
from geocrodino.training.initial_weights import describe_start, initial_weights, record_weights, starting_points
from geocrodino.training.learners.base import Learner, state_of
from geocrodino.training.learners.build import learner_class, network_settings, trains_teacher
from geocrodino.training.listener import Listener
from geocrodino.training.loggers import loggers_of, require_packages
from geocrodino.training.loop import run_loop
from geocrodino.training.networks import Beginning, try_networks
from geocrodino.training.other_programs import advice_on_others, others_at_work
from geocrodino.training.pace import describe_budget, epochs_within, expectation, measure
from geocrodino.training.parts import Processes
from geocrodino.training.prepare import Prepared, footprint_of, prepare, record
from geocrodino.training.readers import choose_readers
from geocrodino.training.scenes import of_earlier_run
from geocrodino.training.start import Start, find_start, record_start, with_network
from geocrodino.training.teacher import SETTINGS_NAME, check_teacher
from geocrodino.training.teacher_checks import (
    load_teacher,
    record_teacher,
    recorded_teacher,
    require_recorded_teacher,
    require_same_data,
    require_same_splits,
)
from geocrodino.training.validate import calibrate, validate


@dataclass(frozen=True)
class TrainResult:
    """Result of a training.

    Attributes:
        bundle: File of the trained branches; None for the method ``fusion``, whose network needs all modalities.
        val_miou: Best mIoU on ``val`` of each network by name, 0 to 1.
        epochs: Number of finished epochs, without those of a teacher.
        seconds: Wall time of this call, s.
    """

    bundle: Path | None
    val_miou: dict[str, float]
    epochs: int
    seconds: float


@dataclass(frozen=True)
class _Fitted:
    """Networks with the weights of their best epoch, in evaluation mode."""

    networks: dict[str, nn.Module]
    best: BestNetworks
    epochs: int
    seconds: float
    scores: dict[str, float]
    calibrated: Calibrated | None


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    teacher: str | Path | None = None,
    on_progress: Progress | None = None,
    callbacks: list[Callback] | None = None,
    tell: Callable[[str], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train the networks of a method and write a bundle with the branch of each modality.

    Args:
        config: What to train on and how.
        out: Run folder.
        resume: Continue an interrupted run after its last finished epoch, or start it again if no epoch was finished.
            The result is that of an uninterrupted run.
        overwrite: Replace an earlier run.
        teacher: Run folder of a finished training of the method ``fusion`` on the same data, for the methods that need
            a teacher. None: these methods train one first, in ``<out>/teacher``.
        on_progress: Called with the numbers of finished and of all parts of a stage: aligned blocks, and batches of the
            validation at the end.
        callbacks: More Lightning callbacks, a progress bar for instance.
        tell: Called with lines for the user: what is read, resumed and trained, and how long it takes, which is
            measured on a few steps.
        on_stage: Called with the name of each stage before and after the epochs, when it begins.

    Returns:
        The bundle and the scores on ``val``.

    Raises:
        GeocrodinoError: One of its kinds, if the files, the area or the settings cannot be used.
    """
    started = time.monotonic()
    listener = Listener.of(tell, on_stage, on_progress)
    out, teacher = Path(out), None if teacher is None else Path(teacher)
    start = find_start(config, out, resume=resume, teacher=teacher)
    config = with_network(config, start)
    check_method(config, teacher)
    config = with_devices(config)
    config = with_number_format(config)  # first: the settings of a run to resume name the resolved format
    config = run_folder.with_recorded_epochs(config, out) if resume else config
    if overwrite:
        run_folder.require_kept(out, {"start_from": config.start_from, "teacher": teacher})
    created = run_folder.check(config, out, resume=resume, overwrite=overwrite)
    if teacher is not None:
        with run_folder.without_empty(created):
            require_same_data(config, teacher)
    with run_folder.without_empty(created), run_folder.alone(out), closed_after():
        resumes = resume and run_folder.has_progress(out)
        if resumes or teacher is not None:
            began = out if resumes or teacher is None else teacher
            config = run_folder.on_recorded_grid(config, run_folder.recorded_settings(began))
        if resume:
            listener(_resume_message(out, config.training.epochs))
        run_folder.tidy(out)
        with run_folder.with_advice(out, resume=resume, overwrite=overwrite, begun=resumes):
            config, ready = _prepare(config, out, resume=resumes, teacher=teacher, start=start, tell=listener)
        with run_folder.with_advice(out, resume=resume, overwrite=overwrite, begun=True):
            try:
                bundle, fitted = _train(
                    config, out, ready, callbacks or [], resume=resumes, teacher=teacher, tell=listener
                )
            finally:
                ready.give_memory_back()
    return TrainResult(bundle, dict(fitted.scores), fitted.epochs, time.monotonic() - started)


def _prepare(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    teacher: Path | None,
    start: Start | None,
    tell: Listener,
) -> tuple[TrainConfig, Prepared]:
    """Open and align the rasters, and start the run in its folder; the configuration then names the working grid."""
    L.seed_everything(config.training.seed, verbose=False)
    loaded = () if start is None else start.modalities
    modalities = [m for m in config.data.modalities() if m not in loaded]
    needed = config.data.modalities() if trains_teacher(config.method, teacher) else modalities
    read = initial_weights(config, needed, out, resume=resume, tell=tell)  # first: a download may fail
    weights = {m: read[m] for m in modalities if m in read}
    trainings = [Beginning(config.method, start, weights)]
    if trains_teacher(config.method, teacher):
        trainings.append(Beginning(learner_class(config.method).teacher_method(config.method), weights=read))

    def check(found: CheckedInputs) -> None:
        try_networks(config, found, *trainings)

    begun = of_earlier_run(config) if resume else config
    ready = prepare(begun, out, tell.progress, tell, tell.stage, check)
    ready = replace(ready, encoder_weights=weights, teacher_weights=read, start=start)
    config = config.with_grid(ready.choice.resolution_m, ready.choice.grid_of)
    tell(number_format.describe(config.training.precision, config.training.accelerator))
    if several := describe_devices(config.training):
        tell(several)
    if modalities:
        tell(describe_start(weights, modalities))
    elif "encoder_weights" in config.model_fields_set and not trains_teacher(config.method, teacher):
        tell(f"Encoder weights {config.encoder_weights}: not used, because all branches start from the bundle.")
    if teacher is not None:
        require_same_splits(ready, teacher)
        if resume:
            require_recorded_teacher(out, teacher)
    record(ready, out, resume=resume)
    run_folder.begin(config, out, resume=resume)
    record_weights(weights, modalities, out)
    if start is not None and not resume:
        record_start(start, out)
    return config, ready


def _resume_message(out: Path, epochs: int) -> str:
    """Describe in one sentence from where the run continues.

    Raises:
        CheckpointError: If the checkpoint is damaged.
    """
    own, teacher = run_folder.last_checkpoint(out), out / run_folder.TEACHER_NAME
    if exists(own):
        return f"Resuming after epoch {finished_epochs(own)} of {epochs}."
    if exists(teacher / run_folder.FUSION_NAME):
        return "Resuming after the training of the teacher; no epoch of its students was finished."
    if exists(run_folder.last_checkpoint(teacher)):
        done = finished_epochs(run_folder.last_checkpoint(teacher))
        return f"Resuming the training of the teacher after epoch {done} of {epochs}."
    return f"{out}: no epoch was finished, so the training starts from the beginning."


def _train(
    config: TrainConfig,
    out: Path,
    ready: Prepared,
    callbacks: list[Callback],
    *,
    resume: bool,
    teacher: Path | None,
    tell: Listener,
) -> tuple[Path | None, _Fitted]:
    """Train the teacher if one is needed, then the networks of the method, and write them."""
    if config.training.needs_batch_size:
        config = _with_batch_size(config, out, ready, teacher, tell)
    if config.training.needs_measurement:
        config = _with_epochs(config, out, ready, teacher, tell)
    students_begun = resume and exists(run_folder.last_checkpoint(out))  # this checkpoint holds their teacher
    if trains_teacher(config.method, teacher) and not students_begun:
        own = out / run_folder.TEACHER_NAME
        teacher = _train_teacher(config, own, ready, callbacks, resume=resume, tell=tell)
    fitted = _fit(config, config.method, out, ready, callbacks, resume=resume, teacher=teacher, tell=tell)
    tell.stage("Writing the results")
    if learner_class(config.method).deploys == "bundle":
        return _save(config, out, ready, fitted), fitted
    _summarise(config, out, fitted)
    _save_network(out, fitted)
    return None, fitted


def _with_epochs(config: TrainConfig, out: Path, ready: Prepared, teacher: Path | None, tell: Listener) -> TrainConfig:
    """Measure how many epochs fit into ``training.minutes``, and write their number into the run folder."""
    minutes, trainings = config.training.minutes or 0.0, _trainings(config, ready, teacher)
    tell.stage("Measuring the pace")
    with fewer_threads(processes_of(config.training)):
        paces = [measure(*parts_of(config, method, own, Listener()), config.training) for method, own in trainings]
    epochs = epochs_within(60 * minutes, *paces)
    tell(describe_budget(minutes, epochs, *paces))
    update = {"epochs": epochs, "epochs_from_minutes": True}
    config = config.model_copy(update={"training": config.training.model_copy(update=update)})
    save_config(config, out / SETTINGS_NAME)
    return config


def _with_batch_size(
    config: TrainConfig, out: Path, ready: Prepared, teacher: Path | None, tell: Listener
) -> TrainConfig:
    """Measure how many patches fit into the memory, and write their number into the run folder."""
    tell.stage("Measuring the memory of a step")
    config = measured_batch(config, _trainings(config, ready, teacher), tell)
    save_config(config, out / SETTINGS_NAME)
    return config


def _trainings(config: TrainConfig, ready: Prepared, teacher: Path | None) -> list[tuple[MethodSettings, Prepared]]:
    """The methods that are trained, with their inputs: that of the configuration, and of a teacher of its own."""
    found = [(config.method, ready)]
    if trains_teacher(config.method, teacher):  # first, for the same number of epochs
        found.append((learner_class(config.method).teacher_method(config.method), ready.of_teacher()))
    return found


def _save_network(out: Path, fitted: _Fitted) -> None:
    """Write the only network of a training to its own file."""
    (network,) = fitted.networks.values()
    with durable_file(out / run_folder.FUSION_NAME) as partial:
        partial.write_bytes(save(state_of(network)))


def check_method(config: TrainConfig, teacher: Path | None) -> None:
    """Check settings that depend on each other, and the teacher of a method.

    Args:
        config: The configuration.
        teacher: Run folder of a finished teacher, None without one.

    Raises:
        ConfigError: If settings contradict each other, or the teacher is not needed or not finished.
    """
    check_settings(config)
    require_packages(config.training.logger)
    if teacher is not None and not learner_class(config.method).needs_teacher:
        raise ConfigError(
            f"`teacher`: the method {config.method.name} learns without a teacher. Leave `teacher` out, or use "
            "`method.name='kd'`, protokd or maskedkd."
        )
    if teacher is not None:
        check_teacher(teacher)


def with_number_format(config: TrainConfig) -> TrainConfig:
    """Choose the number format that ``auto`` stands for on this device.

    Args:
        config: The configuration.

    Returns:
        The configuration with the number format.
    """
    precision = number_format.resolve(config.training.precision, config.training.accelerator)
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})


def _train_teacher(
    config: TrainConfig,
    out: Path,
    ready: Prepared,
    callbacks: list[Callback],
    *,
    resume: bool,
    tell: Listener,
) -> Path:
    """Train the teacher of a method, unless the run to resume holds a finished one."""
    if resume and exists(out / run_folder.FUSION_NAME):
        return out
    method = learner_class(config.method).teacher_method(config.method)
    tell(f"Training the teacher first: method {method.name} ({method.fusion}).")
    config = config.model_copy(update={"method": method, "start_from": None})  # a bundle holds no fusion network
    if ready.start is not None:
        tell(f"It starts without the bundle. {describe_start(ready.teacher_weights, ready.specs)}")
    ready = ready.of_teacher()
    run_folder.begin(config, out, resume=resume)
    record_weights(ready.encoder_weights, ready.specs, out)
    fitted = _fit(config, method, out, ready, callbacks, resume=resume, teacher=None, tell=tell)
    _save_network(out, fitted)
    (score,) = fitted.scores.values()
    tell(f"Teacher: best mIoU on val {100 * score:.1f} %. Training its students.")
    return out


def _fit(
    config: TrainConfig,
    method: MethodSettings,
    out: Path,
    ready: Prepared,
    callbacks: list[Callback],
    *,
    resume: bool,
    teacher: Path | None,
    tell: Listener,
) -> _Fitted:
    """Train the networks of one method: the teacher, or those that are deployed."""
    settings = config.training
    task, data = parts_of(config, method, ready, tell)
    learner = task.learner
    if teacher is not None and learner.needs_teacher:
        load_teacher(learner, teacher, own=teacher == out / run_folder.TEACHER_NAME)
        record_teacher(out, teacher)
    checkpoint = run_folder.last_checkpoint(out)
    finished = finished_epochs(checkpoint) if resume and exists(checkpoint) else 0
    if finished and not was_scored_on_part(checkpoint):
        data.validate_whole()  # as before, also in a run of version 0.1: scores of a part would not compare
    by_measurement = settings.workers == "auto" and data.on_device is None
    if tell.listens or by_measurement:
        tell.stage("Measuring the pace")
        others = others_at_work()
        with fewer_threads(processes_of(settings)):
            task.pace = measure(task, data, settings)
        tell(expectation(settings, task.pace, data.val_windows, finished))
        on_cpu = number_format.device_of(settings.accelerator).type == "cpu"
        if on_cpu and (advice := advice_on_others(others(), torch.get_num_threads())):
            tell(advice)
        if by_measurement:
            choose_readers(settings, task.pace.step_s, data, tell)
    some, every = data.val_windows
    best = BestNetworks(settings.patience, learner.network_names, earliest_stop(settings.epochs), on_part=some < every)
    timer = Timer()  # its state is in the checkpoint, so a resumed run adds to the time before
    work = {"settings": settings, "out": out.absolute(), "task": task, "data": data, "finished": finished}
    if processes_of(settings) > 1:
        tell.stage("Starting the other processes")
    with companions(work, processes_of(settings), number_format.device_of(settings.accelerator).type) as processes:
        loggers = loggers_of(config, out)
        last = run_loop(settings, out, task, data, [best, timer, *callbacks], finished, processes, loggers)
    task.processes, data.process = Processes(), (0, 1)
    networks = {name: best.load(name, task.kept.network(name)) for name in learner.network_names}
    scores, calibrated = _validate(config, learner, networks, best, data, tell)
    return _Fitted(networks, best, last + 1, timer.time_elapsed("train"), scores, calibrated)


def _validate(
    config: TrainConfig,
    learner: Learner,
    networks: dict[str, nn.Module],
    best: BestNetworks,
    data: CoregisteredDataModule,
    tell: Listener,
) -> tuple[dict[str, float], Calibrated | None]:
    """Score the kept weights on all of ``val``, and calibrate them where they make a bundle."""
    some, every = data.val_windows
    counts = {name: ConfusionMatrix(len(learner.class_weights)) for name in networks} if some < every else None
    device, calibrated = number_format.device_of(config.training.accelerator), None
    if learner.deploys == "bundle":
        tell.stage("Validating and calibrating")
        calibrated = calibrate(networks, data, counts, device, tell.progress)
    elif counts is not None:
        tell.stage("Validating")
        validate(networks, data, counts=counts, device=device, on_progress=tell.progress)
    if counts is None:  # all of val was validated after every epoch
        return dict(best.best), calibrated
    return {name: matrix.scores().mean_iou for name, matrix in counts.items()}, calibrated


def _save(config: TrainConfig, out: Path, ready: Prepared, fitted: _Fitted) -> Path:
    grid = ready.grid
    branches: dict[Modality, nn.Module] = fitted.networks
    radii = [receptive_field_radius_px(branches[m], len(ready.specs[m].channels)) for m in branches]
    summary, calibrated = _summarise(config, out, fitted, ready.start), fitted.calibrated
    if calibrated is None:
        raise AssertionError("a bundle is calibrated")
    plot_reliability(calibrated.reliability, out / "reliability.png")
    manifest = Manifest(
        name=run_folder.model_name(out),
        classes=ready.classes,
        network=network_settings(config.method, config.network),
        modalities=ready.specs,
        resolution_m=pixel_side_m(grid),
        crs=f"EPSG:{crs_of(grid).epsg}" if crs_of(grid).epsg else crs_of(grid).wkt,
        footprint=json.loads(shapely.to_geojson(footprint_of(ready))),
        receptive_field_px=None if None in radii else max(r for r in radii if r is not None),
        calibration=calibrated.calibration,
        training=summary,
    )
    bundle = out / run_folder.BUNDLE_NAME
    try:
        save_bundle(bundle, manifest, branches)
    except BundleError as error:
        with writing(bundle, SafetensorError):
            raise error.__cause__ or error from None
    return bundle


def _summarise(config: TrainConfig, out: Path, fitted: _Fitted, start: Start | None = None) -> dict[str, Any]:
    """Write ``metrics.json`` and ``timing.json``, and return the metrics for the manifest of the bundle."""
    summary: dict[str, Any] = {
        "method": config.method.model_dump(),
        "seed": config.training.seed,
        "epochs": fitted.epochs,
        "patch_px": config.training.patch_px,
        "precision": config.training.precision,
        "encoder_weights": starting_points(out),
        "val_miou": dict(fitted.scores),
        "best_epoch": dict(fitted.best.epoch),
        "parameters": {n: sum(p.numel() for p in net.parameters()) for n, net in fitted.networks.items()},
    }
    if (rescale := config.data.common_rescale()) is not None:
        summary["rescale"] = rescale
    if start is not None:
        summary["started_from"] = start.origin
    if (taught_by := recorded_teacher(out)) is not None:
        summary["teacher"] = taught_by
    if fitted.calibrated is not None:
        summary["val_calibration_error"] = {
            name: curve.expected_calibration_error for name, curve in fitted.calibrated.reliability.items()
        }
    run_folder.save_json(out / "metrics.json", summary)
    # In its own file: all other metrics are identical when a training is repeated.
    run_folder.save_json(out / "timing.json", {"train_seconds": round(fitted.seconds, 1)})
    return summary
